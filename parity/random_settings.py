"""Random settings: each seed gives a learner, valid settings for it, and a short run.

Recorded cases are chosen by hand, which misses combinations. These are drawn: every learner in
turn, with sizes, objectives, schedules and rates from their whole ranges, in float32 or double
precision and with either layout of the random stream.

A draw depends only on the seed and on the setting's name, so that a seed always gives the same
settings, and adding a setting changes no other. Comments give the reason if a setting is left out;
the IDs are those of parity/QUIRKS.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from parity import inputs
from parity.cases import Case, Options
from parity.cases.learners import DOUBLE, SINGLE

T = TypeVar("T")


class Draws:
    """Named random choices.

    >>> Draws(7).whole("act_dim", 1, 8) == Draws(7).whole("act_dim", 1, 8)
    True
    """

    def __init__(self, seed: int):
        self.seed = seed

    def number(self, name: str, low: float, high: float) -> float:
        """A number in ``[low, high)``, rounded to six places."""
        (value,) = inputs.uniform(f"settings/{self.seed}/{name}", (1,), low, high)
        return round(float(value), 6)

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return self.one_of(name, range(low, high + 1))

    def one_of(self, name: str, options: Sequence[T]) -> T:
        """One of ``options``, all equally likely."""
        (unit,) = inputs.uniform(f"settings/{self.seed}/{name}", (1,), 0.0, 1.0)
        return options[int(unit * len(options))]

    def chance(self, name: str, probability: float) -> bool:
        """True with the given probability."""
        (unit,) = inputs.uniform(f"settings/{self.seed}/{name}", (1,), 0.0, 1.0)
        return bool(unit < probability)

    def perhaps(self, name: str, probability: float, low: float, high: float) -> float | None:
        """A number in ``[low, high)`` with the given probability, else None."""
        return self.number(name, low, high) if self.chance(f"{name}?", probability) else None

    def layers(self, name: str) -> list[int]:
        """Widths of one to three layers."""
        count = self.whole(f"{name}-count", 1, 3)
        return [self.one_of(f"{name}-{i}", (2, 4, 8, 16, 32, 48)) for i in range(count)]

    def rates(self, *names: str) -> Options:
        """A learning rate for each name."""
        return {name: self.number(name, 1e-4, 1e-3) for name in names}


def _wide(d: Draws) -> bool:
    return d.chance("x64", 0.4)


def _averages(d: Draws) -> Options:
    return {"discount": d.number("discount", 0.8, 1.0), "tau": d.number("tau", 0.001, 0.1)}


# --- learners on states ---------------------------------------------------------------------


def _flat(d: Draws) -> Options:
    """Sizes of a learner on states."""
    return {
        "obs_dim": d.whole("obs_dim", 1, 24),
        "act_dim": d.whole("act_dim", 1, 8),
        "batch": d.one_of("batch", (1, 2, 3, 5, 8, 16, 32, 64)),
        "steps": d.whole("steps", 3, 8),
    }


def _idql(d: Draws) -> Options:
    """Settings of both IDQL learners."""
    decay_steps = d.one_of("decay_steps", (None, 2, 5, 20, 1000, 3_000_000))
    kwargs = {
        **d.rates("actor_lr", "critic_lr", "value_lr"),
        **_averages(d),
        "critic_hidden_dims": d.layers("critic_hidden_dims"),
        "actor_tau": d.number("actor_tau", 0.001, 0.1),
        "critic_hyperparam": d.number("critic_hyperparam", 0.05, 0.95),
        "ddpm_temperature": d.number("ddpm_temperature", 0.0, 1.5),
        "num_qs": d.whole("num_qs", 1, 5),
        "actor_layer_norm": d.chance("actor_layer_norm", 0.5),
        "T": d.whole("T", 1, 10),
        "time_dim": 2 * d.whole("time_dim", 1, 16),
        "N": d.one_of("N", (1, 2, 7, 16, 64)),
        "M": d.whole("M", 0, 3),
        # Without clipping, the samples of a barely trained network go far beyond [-1, 1]: to 65 in
        # seed 90. There, a final entry within [-1, 1] had an error of 1.3e-4 in float32, which is
        # 2e-6 of the largest sample (the bound of one forward pass), and 4e-14 in float64.
        "clip_sampler": not _wide(d) or d.chance("clip_sampler", 0.5),
        "beta_schedule": d.one_of("beta_schedule", ("vp", "cosine", "linear")),
        "decay_steps": decay_steps,
    }
    # The inherited sample_actions crashes (E6), and both other methods take one observation.
    return {**_flat(d), "kwargs": kwargs, "choose": ["eval_actions"], "together": False}


def _blocks(d: Draws) -> Options:
    # The blocks always have width 256 (U14).
    return {
        "actor_num_blocks": d.whole("actor_num_blocks", 0, 2),
        "actor_dropout_rate": d.perhaps("actor_dropout_rate", 0.6, 0.0, 0.5),
    }


def _simple(d: Draws) -> Options:
    settings = _idql(d)
    settings["kwargs"] |= {**_blocks(d), "value_layer_norm": d.chance("value_layer_norm", 0.5)}
    return settings


def _general(d: Draws) -> Options:
    settings = _idql(d)
    kwargs: Options = settings["kwargs"]
    kwargs["critic_objective"] = d.one_of(
        "critic_objective", ("expectile", "quantile", "exponential")
    )
    kwargs["actor_objective"] = d.one_of(
        "actor_objective", ("bc", "soft_adv", "hard_adv", "exp_adv")
    )
    kwargs["policy_temperature"] = d.number("policy_temperature", 0.1, 10.0)
    kwargs["actor_architecture"] = d.one_of("actor_architecture", ("mlp", "ln_resnet"))
    # An MLP has no dropout, and blocks have no hidden widths: the original ignores such settings
    # (U14), and always ignores actor_weight_decay (U13); the port uses or rejects them.
    if kwargs["actor_architecture"] == "mlp":
        kwargs["actor_hidden_dims"] = d.layers("actor_hidden_dims")
    else:
        kwargs |= _blocks(d)
    # The other two objectives weight candidates by formulas that the port corrects (E1, E2).
    if kwargs["critic_objective"] == "expectile":
        settings["choose"] = ["eval_actions", "sample_implicit_policy"]
    return settings


def _bc(d: Draws) -> Options:
    kwargs = {
        **d.rates("actor_lr"),
        "hidden_dims": d.layers("hidden_dims"),
        "use_layer_norm": d.chance("use_layer_norm", 0.5),
        "dropout_rate": d.perhaps("dropout_rate", 0.5, 0.0, 0.5),
        "weight_decay": d.perhaps("weight_decay", 0.5, 0.0, 0.1),
        "entropy_bonus": d.perhaps("entropy_bonus", 0.5, 0.0, 0.2),
    }
    return {**_flat(d), "kwargs": kwargs}


def _iql(d: Draws) -> Options:
    # num_qs stays 2: the original unpacks two critics by name and crashes with others (U21).
    kwargs = {
        **d.rates("actor_lr", "critic_lr", "value_lr"),
        **_averages(d),
        "hidden_dims": d.layers("hidden_dims"),
        "expectile": d.number("expectile", 0.05, 0.95),
        "temperature": d.number("temperature", 0.1, 10.0),
    }
    return {**_flat(d), "kwargs": kwargs}


def _ensemble(d: Draws, subset: float, dropout: float) -> Options:
    num_qs = d.whole("num_qs", 1, 6)
    some = d.chance("num_min_qs?", subset)
    return {
        "num_qs": num_qs,
        "num_min_qs": d.whole("num_min_qs", 1, num_qs) if some else None,
        "critic_dropout_rate": d.perhaps("critic_dropout_rate", dropout, 0.0, 0.5),
        "critic_layer_norm": d.chance("critic_layer_norm", max(dropout, 0.3)),
    }


def _ratio(d: Draws) -> Options:
    # The ratio divides the rows of a batch; the original asserts it.
    ratio = d.one_of("utd_ratio", (1, 1, 2, 4))
    return {"utd_ratio": ratio, "batch": ratio * d.one_of("mini_batch", (1, 2, 5, 8, 16, 32))}


def _entropy(d: Draws) -> Options:
    return {
        "target_entropy": d.perhaps("target_entropy", 0.5, -6.0, 1.0),
        "init_temperature": d.number("init_temperature", 0.05, 2.0),
        "backup_entropy": d.chance("backup_entropy", 0.5),
    }


def _sac(d: Draws, subset: float = 0.0, dropout: float = 0.0) -> Options:
    kwargs = {
        **d.rates("actor_lr", "critic_lr", "temp_lr"),
        **_averages(d),
        **_ensemble(d, subset, dropout),
        **_entropy(d),
        "hidden_dims": d.layers("hidden_dims"),
    }
    return {**_flat(d), **_ratio(d), "kwargs": kwargs}


def _td3(d: Draws) -> Options:
    delay = d.whole("actor_delay", 1, 3)
    kwargs = {
        **d.rates("actor_lr", "critic_lr"),
        **_averages(d),
        **_ensemble(d, 0.4, 0.4),
        "hidden_dims": d.layers("hidden_dims"),
        "exploration_noise": d.number("exploration_noise", 0.0, 2.0),
        "target_policy_noise": d.number("target_policy_noise", 0.0, 0.7),
        "target_policy_noise_clip": d.number("target_policy_noise_clip", 0.01, 1.0),
        "actor_delay": delay,
    }
    # The first gradients are taken after the first update that moves the actor.
    return {**_flat(d), **_ratio(d), "kwargs": kwargs, "first_gradient": delay}


# --- learners on pixels ---------------------------------------------------------------------


def _view(d: Draws, name: str, low: int) -> list[int]:
    shape = [d.whole(f"{name}-{axis}", low, 20) for axis in ("height", "width")]
    return [*shape, d.one_of(f"{name}-channels", (1, 3)), d.whole(f"{name}-stack", 1, 3)]


def _pixels(d: Draws) -> Options:
    """Cameras, with or without depth and a state, and an encoder for them."""
    layers = d.whole("cnn_layers", 1, 3)
    # Below 16 x 16 three layers of filter 3 and stride 2 leave no pixel.
    low = 16 if layers == 3 else 8
    # The original needs a camera with the name "pixels" (A11).
    cameras = ["pixels", "wrist"] if d.chance("wrist", 0.3) else ["pixels"]
    space = {name: _view(d, name, low) for name in cameras}
    depths: list[str] = []
    # All cameras have depth images or none: the original truncates the longer list.
    if d.chance("depth", 0.3):
        depths = [f"{name}_depth" for name in cameras]
        for camera, depth in zip(cameras, depths, strict=True):
            height, width, _, stack = space[camera]
            space[depth] = [height, width, 1, stack]
    # Of several images, the original unpacks only the last one (A10).
    packed = len(space) == 1 and d.chance("packed", 0.5)
    if d.chance("state", 0.5):
        space["state"] = [d.whole("state_dim", 1, 8)]
    kwargs = {
        "pixel_keys": cameras,
        "depth_keys": depths,
        "cnn_features": [d.whole(f"features-{i}", 2, 8) for i in range(layers)],
        "cnn_filters": [d.whole(f"filter-{i}", 1, 3) for i in range(layers)],
        "cnn_strides": [d.whole(f"stride-{i}", 1, 2) for i in range(layers)],
        "cnn_padding": d.one_of("cnn_padding", ("VALID", "SAME")),
        "latent_dim": d.whole("latent_dim", 4, 16),
        "hidden_dims": d.layers("hidden_dims"),
    }
    return {
        "space": space,
        "packed": packed,
        "act_dim": d.whole("act_dim", 1, 6),
        "batch": d.whole("batch", 1, 6),
        "steps": d.whole("steps", 3, 5),
        "observations": 2,
        "kwargs": kwargs,
    }


def _residual(d: Draws, settings: Options) -> Options:
    """Use the residual encoder instead of the small one, in a few cases.

    Its size is fixed, and the original takes minutes to compile it. It runs in double precision:
    Adam's first steps move a weight by the learning rate even if its gradient is tiny, so that in
    float32 rounding alone makes the two sides differ.
    """
    if not d.chance("resnet", 0.05):
        return settings
    kept = ("hidden_dims", "latent_dim")
    kwargs = {k: v for k, v in settings["kwargs"].items() if "lr" in k or k in kept}
    small = {"space": {"pixels": [16, 16, 3, 1]}, "batch": 2, "steps": 1, "packed": False}
    return {**settings, **small, "kwargs": {**kwargs, "encoder": "resnet"}, "x64": True}


def _drq(d: Draws) -> Options:
    settings = _pixels(d)
    # num_min_qs is left out: with it, the original's target still has num_qs members (A8).
    settings["kwargs"] |= {
        **d.rates("actor_lr", "critic_lr", "temp_lr"),
        **_averages(d),
        **_ensemble(d, 0.0, 0.4),
        **_entropy(d),
    }
    del settings["kwargs"]["num_min_qs"]
    ratio = d.whole("utd_ratio", 1, 2)
    return _residual(d, {**settings, "utd_ratio": ratio, "batch": ratio * d.whole("rows", 1, 3)})


def _pixel_bc(d: Draws) -> Options:
    settings = _pixels(d)
    # Pixel BC never unpacks, and the original imports only the default distribution.
    settings["packed"] = False
    settings["kwargs"] |= {
        **d.rates("actor_lr"),
        "use_layer_norm": d.chance("use_layer_norm", 0.5),
        "dropout_rate": d.perhaps("dropout_rate", 0.5, 0.0, 0.5),
        "entropy_bonus": d.perhaps("entropy_bonus", 0.5, 0.0, 0.2),
    }
    return _residual(d, settings)


LEARNERS: dict[str, Callable[[Draws], Options]] = {
    "simple": _simple,
    "general": _general,
    "bc": _bc,
    "iql": _iql,
    "sac": _sac,
    "redq": lambda d: _sac(d, subset=1.0),
    "droq": lambda d: _sac(d, subset=0.3, dropout=1.0),
    "td3": _td3,
    "drq": _drq,
    "pixel_bc": _pixel_bc,
}
"""The function that draws the settings of each learner."""


def random_case(seed: int) -> Case:
    """A run of a learner with settings from ``seed``; ten successive seeds give all learners.

    Raises:
        ValueError: a seed below 0.

    >>> random_case(3).id, random_case(3) == random_case(3)
    ('random-iql/seed-3', True)
    """
    if seed < 0:
        raise ValueError(f"settings are drawn from seeds of 0 and more, got {seed}")
    d, name = Draws(seed), tuple(LEARNERS)[seed % len(LEARNERS)]
    settings: Options = {
        # REDQ and DroQ are settings of SAC.
        "learner": "sac" if name in ("redq", "droq") else name,
        "seed": d.whole("seed", 0, 2**32 - 1),
        "batch_seed": seed,
        "method": "update",
        "observations": 3,
        "together": True,
        # Whole leaves are compared: all evenly spaced entries of a leaf may belong to one channel
        # with almost no gradient (seed 38: 1.2e-5 in 64 entries, though the leaf is correct).
        "keep": 2**62,
        "x64": _wide(d),
        "partitionable": d.chance("partitionable", 0.3),
        **LEARNERS[name](d),
    }
    kinds = DOUBLE if settings["x64"] else SINGLE
    return Case(f"random-{name}", f"seed-{seed}", "course", settings, kinds)
