"""All cases: what is compared, under which settings, and to which promise.

A case is data only, so that the manifest can carry it and ``check`` can run from the manifest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Options = dict[str, Any]

COMMIT = "7582571ce686c77b4ee0f592dd639ab8151295fa"
"""The revision of the original that everything here is held to."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        group: the file its tensors are saved in.
        name: unique within the group.
        program: the steps, a name in ``parity.programs.PROGRAMS``.
        settings: JSON values only.
        kinds: promise (a name in ``parity.bounds.KINDS``) by the first part of a tensor's name.
    """

    group: str
    name: str
    program: str
    settings: Options
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """``group/name``."""
        return f"{self.group}/{self.name}"


SHAPES = [[], [1], [7], [0], [5, 3], [1001]]
SEEDS = [0, 2**31, 2**32 - 1, -1]
MLP = {"net": "MLP", "input_dim": 9, "hidden_dims": [32, 24]}


def _layouts() -> Iterator[tuple[str, Options]]:
    for partitionable, x64 in itertools.product((False, True), (False, True)):
        name = f"{'newer' if partitionable else 'older'}-{64 if x64 else 32}"
        yield name, {"partitionable": partitionable, "x64": x64}


def random_cases() -> Iterator[Case]:
    """Every function of the random module, in both layouts and both widths."""
    probabilities = [0.1, 0.0, 0.4, 0.05, 0.25, 0.2]
    unnormalised = [1.0, 0.3, 2.0, 0.7, 0.7, 0.1, 0.2]
    few = {"seeds": [0, 2**32 - 1], "shapes": [[]]}
    small = {"seeds": [0, 3], "shapes": [[], [7], [5, 3]]}
    draws: dict[str, Options] = {
        "bits": {"fn": "bits", "args": {}},
        "uniform": {"fn": "uniform", "args": {}},
        "uniform-range": {"fn": "uniform", "args": {"minval": -2.5, "maxval": 3.0}},
        "uniform-narrow": {"fn": "uniform", "args": {"minval": -1e-3, "maxval": 0.3}},
        "normal": {"fn": "normal", "args": {}},
        "truncated_normal": {"fn": "truncated_normal", "args": {"lower": -2.0, "upper": 2.0}},
        "truncated_normal-skewed": {
            "fn": "truncated_normal",
            "args": {"lower": -0.5, "upper": 3.0},
            "shapes": [[7], [257]],
        },
        "randint-2**4": {"fn": "randint", "args": {"minval": 0, "maxval": 16}},
        "randint-5": {"fn": "randint", "args": {"minval": 0, "maxval": 5}},
        "randint-one": {"fn": "randint", "args": {"minval": 3, "maxval": 4}, "shapes": [[7]]},
        "randint-signed": {"fn": "randint", "args": {"minval": -17, "maxval": 100_003}},
        "randint-large": {
            "fn": "randint",
            "args": {"minval": 0, "maxval": 2**31 - 1},
            "shapes": [[7], [257]],
        },
        "bernoulli-0.5": {"fn": "bernoulli", "args": {"p": 0.5}},
        "bernoulli-0.9": {"fn": "bernoulli", "args": {"p": 0.9}},
        "permutation-1": {"fn": "permutation", "args": {"n": 1}, **few},
        "permutation-7": {"fn": "permutation", "args": {"n": 7}, **few},
        "permutation-1000": {"fn": "permutation", "args": {"n": 1000}, **few},
        "permutation-array": {"fn": "permutation_array", "args": {"shape": [11, 3]}, **few},
        "choice": {"fn": "choice", "args": {"n": 12, "replace": True}, **small},
        "choice-p": {
            "fn": "choice",
            "args": {"n": 6, "replace": True, "p": probabilities},
            "seeds": [0, 3],
            "shapes": [[], [7], [257]],
        },
        "choice-p-unnormalised": {
            "fn": "choice",
            "args": {"n": 7, "replace": True, "p": unnormalised},
            "seeds": [0, 3],
            "shapes": [[], [7], [257]],
        },
        "choice-distinct": {
            "fn": "choice",
            "args": {"n": 10, "replace": False},
            "seeds": [0, 3],
            "shapes": [[2], [10], [2, 3]],
        },
        "choice-distinct-p": {
            "fn": "choice",
            "args": {"n": 7, "replace": False, "p": unnormalised},
            "seeds": [0, 3, 5, 9],
            "shapes": [[2], [7]],
        },
        "choice-array": {
            "fn": "choice_array",
            "args": {"values": [[1, 2], [3, 4], [5, 6]], "replace": True},
            "seeds": [0, 3],
            "shapes": [[4]],
        },
        "categorical": {
            "fn": "categorical",
            "args": {"logits": [0.1, -2.0, 3.0, 0.0, 2.5], "axis": -1},
            "seeds": [0, 1, 2, 3, 4, 5],
            "shapes": [[]],
        },
        "categorical-rows": {
            "fn": "categorical",
            "args": {"logits": [[0.1, -2.0, 3.0], [0.0, 0.0, 0.0]], "axis": 0},
            "seeds": [0, 1, 2, 3],
            "shapes": [[]],
        },
        "categorical-shape": {
            "fn": "categorical_shape",
            "args": {"logits": [0.1, -2.0, 1.0, 0.0, 0.5]},
            "seeds": [0, 1],
            "shapes": [[257], [3, 5]],
        },
    }
    for layout, flags in _layouts():
        settings = {"seeds": [0, 1, 7, 42, 2**31, 2**32 - 1, -1, -12345], "split": [1, 2, 3, 5]}
        settings["fold_in"] = [0, 1, 7, 2**31]
        kinds = {"out": "bits"}
        yield Case("random", f"keys-{layout}", "keys", {**settings, **flags}, kinds)
        for name, draw in draws.items():
            kind = "normal" if "normal" in draw["fn"] else "bits"
            settings = {"seeds": SEEDS, "shapes": SHAPES, **draw, **flags}
            yield Case("random", f"{name}-{layout}", "draws", settings, {"out": kind})


def _ddpm(reverse: Options, **options: Any) -> Options:
    return {
        "net": "DDPM",
        "obs_dim": 5,
        "act_dim": 3,
        "time_dim": 16,
        "cond": {"net": "MLP", "hidden_dims": [24, 24], "activations": "swish"},
        "reverse": reverse,
        **options,
    }


def _resnet(**options: Any) -> Options:
    return {
        "net": "MLPResNet",
        "num_blocks": 2,
        "out_dim": 3,
        "hidden_dim": 16,
        "use_layer_norm": True,
        "dropout_rate": 0.1,
        "activations": "swish",
        **options,
    }


def networks() -> dict[str, Options]:
    """Settings of every network that is compared, by name."""
    critic = {"net": "StateActionValue", "obs_dim": 5, "act_dim": 3}
    base = {"hidden_dims": [32, 24], "activate_final": True}
    reverse_mlp = {"net": "MLP", "hidden_dims": [32, 32, 3], "activations": "mish"}
    value = {"net": "StateValue", "obs_dim": 5}
    noisy = {**base, "dropout_rate": 0.2}
    return {
        "mlp": MLP,
        "mlp-layer_norm-mish": {**MLP, "use_layer_norm": True, "activations": "mish"},
        "mlp-dropout-final": {**MLP, "dropout_rate": 0.3, "activate_final": True},
        "mlp-dropout-layer_norm-swish": {
            **MLP,
            "dropout_rate": 0.1,
            "use_layer_norm": True,
            "activations": "swish",
        },
        "mlp-one_layer": {**MLP, "hidden_dims": [4]},
        "resnet": _resnet(input_dim=9, use_layer_norm=False, dropout_rate=None, activations="relu"),
        "resnet-layer_norm-dropout": _resnet(input_dim=9),
        "resnet-dropout": _resnet(input_dim=9, use_layer_norm=False, dropout_rate=0.5),
        "resnet-default_width": _resnet(input_dim=9, num_blocks=1, hidden_dim=256),
        "fourier": {
            "net": "FourierFeatures",
            "output_size": 16,
            "input_dim": 1,
            "learnable": True,
        },
        "fourier-two_inputs": {
            "net": "FourierFeatures",
            "output_size": 32,
            "input_dim": 2,
            "learnable": True,
        },
        "fourier-fixed": {
            "net": "FourierFeatures",
            "output_size": 16,
            "input_dim": 1,
            "learnable": False,
        },
        "ddpm-mlp": _ddpm(reverse_mlp),
        "ddpm-mlp-layer_norm": _ddpm({**reverse_mlp, "use_layer_norm": True}),
        "ddpm-resnet": _ddpm(_resnet()),
        "ddpm-resnet-plain": _ddpm(
            _resnet(use_layer_norm=False, dropout_rate=None, activations="mish"), T=20
        ),
        "state_value": {**value, "base": base},
        "state_value-layer_norm": {**value, "base": {**base, "use_layer_norm": True}},
        "state_action_value": {**critic, "base": base},
        "ensemble-2": {**critic, "net": "Ensemble", "num": 2, "base": base},
        "ensemble-5-layer_norm": {
            **critic,
            "net": "Ensemble",
            "num": 5,
            "base": {**base, "use_layer_norm": True},
        },
        "ensemble-3-dropout": {**critic, "net": "Ensemble", "num": 3, "base": noisy},
    }


def _drops_out(network: Options) -> bool:
    parts = (network, network.get("base", {}), network.get("reverse", {}))
    return any(part.get("dropout_rate") for part in parts)


def network_cases() -> Iterator[Case]:
    """Initial parameters, forward passes and gradients."""
    for name, network in networks().items():
        if name != "fourier-fixed":
            settings: Options = {"network": network, "seeds": [0, 7, 2**32 - 1], "keep": 256}
            yield Case("init", name, "initial", settings, {"params": "init"})
        modes = ["eval", "train"] if _drops_out(network) else ["eval"]
        settings = {
            "network": network,
            "batch": 13,
            "modes": modes,
            "dropout_seed": 5,
            "keep": 512,
        }
        kinds = {"forward": "forward", "gradient": "gradient"}
        yield Case("network", name, "network_pass", settings, kinds)
    for name in ("mlp-dropout-layer_norm-swish", "ddpm-resnet", "ensemble-3-dropout", "fourier"):
        modes = ["eval", "train"] if _drops_out(networks()[name]) else ["eval"]
        settings = {
            "network": networks()[name],
            "batch": 13,
            "modes": modes,
            "dropout_seed": 5,
            "keep": 512,
            "x64": True,
        }
        kinds = {"forward": "double", "gradient": "double"}
        yield Case("network", f"{name}-double", "network_pass", settings, kinds)
    newer = {"network": networks()["ddpm-resnet"], "seeds": [0, 7], "keep": 256}
    newer["partitionable"] = True
    yield Case("init", "ddpm-resnet-newer", "initial", newer, {"params": "init"})


def diffusion_cases() -> Iterator[Case]:
    """Beta schedules and the reverse chain."""
    for schedule in ("cosine", "linear", "vp"):
        for x64, kind in ((False, "forward"), (True, "double")):
            settings: Options = {"schedule": schedule, "timesteps": [1, 2, 5, 10, 20], "x64": x64}
            name = f"schedule-{schedule}-{64 if x64 else 32}"
            yield Case("diffusion", name, "schedules", settings, {"betas": kind})
    base = {
        "network": networks()["ddpm-resnet"],
        "batch": 8,
        "seed": 3,
        "T": 5,
        "schedule": "vp",
        "temperature": 1.0,
        "repeat_last_step": 0,
        "clip_sampler": True,
    }
    variants: dict[str, Options] = {
        "vp": {},
        "vp-unclipped": {"clip_sampler": False},
        "vp-cold": {"temperature": 0.0},
        "vp-warm-repeat": {"temperature": 1.5, "repeat_last_step": 2},
        "cosine-repeat": {"schedule": "cosine", "repeat_last_step": 3},
        "cosine-20": {"schedule": "cosine", "T": 20},
        "linear-unclipped-repeat": {
            "schedule": "linear",
            "clip_sampler": False,
            "repeat_last_step": 1,
        },
        "vp-1": {"T": 1},
        "vp-2-mlp": {"T": 2, "network": networks()["ddpm-mlp"]},
        "vp-newer": {"partitionable": True},
    }
    kinds = {"actions": "action", "rng": "bits"}
    for name, options in variants.items():
        yield Case("diffusion", f"sampler-{name}", "sampler", {**base, **options}, kinds)
    kinds = {"actions": "double", "rng": "bits"}
    for name in ("vp", "cosine-20", "vp-warm-repeat"):
        settings = {**base, **variants[name], "x64": True}
        yield Case("diffusion", f"sampler-{name}-double", "sampler", settings, kinds)


def loss_cases() -> Iterator[Case]:
    """Values and derivatives of the value losses and of the clipped exponential."""
    variants: dict[str, tuple[str, Options]] = {
        "expectile-default": ("expectile_loss", {}),
        "expectile-0.7": ("expectile_loss", {"expectile": 0.7}),
        "expectile-0.9": ("expectile_loss", {"expectile": 0.9}),
        "quantile-default": ("quantile_loss", {}),
        "quantile-0.8": ("quantile_loss", {"quantile": 0.8}),
        "exponential-default": ("exponential_loss", {"beta": 0.7}),
        "exponential-3": ("exponential_loss", {"beta": 3.0}),
        "exponential-first": ("exponential_loss", {"beta": 2.0, "mode": "first"}),
        "exponential-second-clip": (
            "exponential_loss",
            {"beta": 2.0, "clip": 1.25, "mode": "second"},
        ),
        "exp_w_clip-zero": ("exp_w_clip", {"x0": 1.3}),
        "exp_w_clip-first": ("exp_w_clip", {"x0": 1.3, "mode": "first"}),
        "exp_w_clip-second": ("exp_w_clip", {"x0": 1.3, "mode": "second"}),
    }
    for name, (loss, args) in variants.items():
        settings = {"loss": loss, "args": args}
        kinds = {"value": "forward", "gradient": "gradient"}
        yield Case("losses", name, "losses", settings, kinds)
    for name in ("expectile-0.7", "quantile-0.8", "exponential-second-clip"):
        loss, args = variants[name]
        settings = {"loss": loss, "args": args, "x64": True}
        kinds = {"value": "double", "gradient": "double"}
        yield Case("losses", f"{name}-double", "losses", settings, kinds)


def optimiser_cases() -> Iterator[Case]:
    """Optimisers, schedules, moving averages and the decay mask."""
    rate = {"learning_rate": 3e-3}
    variants: dict[str, Options] = {
        "adam": {"optimiser": "adam", "args": rate},
        "adam-betas": {"optimiser": "adam", "args": {**rate, "b1": 0.5, "b2": 0.9, "eps": 1e-3}},
        "adam-cosine": {"optimiser": "adam", "args": rate, "decay_steps": 8},
        "adamw": {"optimiser": "adamw", "args": rate},
        "adamw-decay": {"optimiser": "adamw", "args": {**rate, "weight_decay": 0.1}},
        "adamw-masked": {
            "optimiser": "adamw",
            "args": {**rate, "weight_decay": 0.1},
            "masked": True,
        },
        "adamw-cosine": {
            "optimiser": "adamw",
            "args": {**rate, "weight_decay": 0.01},
            "decay_steps": 20,
        },
    }
    for name, options in variants.items():
        for x64, kind in ((False, "forward"), (True, "double")):
            settings = {**options, "steps": 10, "x64": x64}
            yield Case(
                "optim", f"{name}-{64 if x64 else 32}", "optimiser", settings, {"params": kind}
            )
    for x64, kind in ((False, "forward"), (True, "double")):
        settings = {"steps": 10, "tau": 0.005, "x64": x64}
        name = f"ema-{64 if x64 else 32}"
        yield Case("optim", name, "average", settings, {"params": kind})
        counts = [0, 1, 5, 10, 99, 100, 105]
        settings = {"value": 3e-4, "decay_steps": 100, "counts": counts, "x64": x64}
        name = f"cosine_decay-{64 if x64 else 32}"
        yield Case("optim", name, "decay_schedule", settings, {"value": kind})
    for name in ("ddpm-resnet", "state_value-layer_norm"):
        settings = {"network": networks()[name]}
        yield Case("optim", f"mask-{name}", "mask", settings, {"mask": "bits"})


def _learner(learner: str, seed: int, **kwargs: Any) -> Options:
    """Settings of a learner whose critic is small; the actor's width is fixed by the original."""
    defaults: Options = {"critic_hidden_dims": [32, 32]}
    if learner == "simple" or kwargs.get("actor_architecture") == "ln_resnet":
        defaults["actor_num_blocks"] = 1
    else:
        defaults["actor_hidden_dims"] = [32, 32]
    return {
        "learner": learner,
        "seed": seed,
        "obs_dim": 5,
        "act_dim": 3,
        "kwargs": {**defaults, "time_dim": 16, **kwargs},
        "batch": 32,
        "batch_seed": seed,
        "keep": 96,
    }


def learners() -> dict[str, Options]:
    """Settings of every learner that is trained, by name: all objectives, most options once."""
    resnet = {"actor_architecture": "ln_resnet"}
    full = {**resnet, "actor_layer_norm": True, "actor_dropout_rate": 0.1}
    named: dict[str, Options] = {
        "simple": _learner("simple", 0),
        "simple-dropout": _learner("simple", 1, actor_dropout_rate=0.1),
        "simple-dropout-cosine": _learner(
            "simple", 2, actor_dropout_rate=0.1, beta_schedule="cosine", decay_steps=None
        ),
        "simple-linear-no_layer_norm": _learner(
            "simple",
            3,
            beta_schedule="linear",
            actor_layer_norm=False,
            value_layer_norm=False,
            actor_dropout_rate=0.3,
        ),
        "simple-T1-qs5": _learner("simple", 4, T=1, num_qs=5, critic_hyperparam=0.9, M=2),
        "simple-two_blocks": _learner(
            "simple", 42, actor_num_blocks=2, actor_dropout_rate=0.1, decay_steps=20, T=10
        ),
        "simple-rates": _learner(
            "simple",
            2**32 - 1,
            actor_lr=1e-3,
            critic_lr=1e-3,
            value_lr=2e-3,
            tau=0.05,
            actor_tau=0.1,
            discount=0.9,
        ),
    }
    objectives = itertools.product(
        ("expectile", "quantile", "exponential"), ("bc", "soft_adv", "hard_adv", "exp_adv")
    )
    options: list[Options] = [
        {"beta_schedule": "vp"},
        {**full, "beta_schedule": "cosine", "num_qs": 5},
        {"actor_layer_norm": True, "beta_schedule": "linear", "decay_steps": None},
        {**resnet, "T": 1, "M": 2},
    ]
    for index, (critic, actor) in enumerate(objectives):
        # A shift by one for each critic objective, so that every option meets every objective.
        chosen = options[(index + index // 4) % 4]
        named[f"general-{critic}-{actor}"] = _learner(
            "general", 100 + index, critic_objective=critic, actor_objective=actor, **chosen
        )
    named["general-exp_adv-warm"] = _learner(
        "general", 7, actor_objective="exp_adv", policy_temperature=30.0, critic_hyperparam=0.9
    )
    named["general-dropout-decay"] = _learner("general", 8, **full, decay_steps=20)
    sizes: Options = {"obs_dim": 17, "act_dim": 6, "batch": 64, "batch_seed": 9, "keep": 96}
    named["simple-default"] = {
        **sizes,
        "learner": "simple",
        "seed": 9,
        "kwargs": {"actor_dropout_rate": 0.1},
    }
    named["general-default"] = {**sizes, "learner": "general", "seed": 9, "kwargs": {}}
    named["simple-newer"] = {**named["simple-dropout"], "partitionable": True}
    return named


def learner_cases() -> Iterator[Case]:
    """Creation, single updates, 25 updates, action choice and double precision."""
    all_learners = learners()
    kinds = {"rng": "bits", "constants": "forward", "params": "init"}
    for name, settings in all_learners.items():
        if name.startswith("general-") and "-bc" not in name and "dropout" not in name:
            continue
        yield Case("create", name, "create", {**settings, "keep": 128}, kinds)

    single = {
        "rng": "bits",
        "losses": "loss",
        "means": "mean",
        "params": "state",
        "norms": "state",
        "gradient": "gradient",
    }
    for name, settings in all_learners.items():
        one = {**settings, "method": "update", "steps": 1, "moments": True, "keep": 64}
        yield Case("update", name, "run", one, single)
    parts: dict[str, tuple[str, str, list[str] | None]] = {
        "simple-actor_update": ("simple-dropout", "actor_update", None),
        "simple-critic_update": ("simple-dropout", "critic_update", None),
        "general-actor_update": ("general-dropout-decay", "actor_update", None),
        "general-critic_update": ("general-quantile-soft_adv", "critic_update", None),
        # The port's held-out losses cover more than the original's; the actor's is common.
        "general-eval_loss": ("general-dropout-decay", "eval_loss", ["actor_loss"]),
    }
    for name, (learner, method, infos) in parts.items():
        settings = {**all_learners[learner], "method": method, "steps": 2, "keep": 64}
        if infos is not None:
            settings["infos"] = infos
        yield Case("update", name, "run", settings, single)

    for name, settings in all_learners.items():
        many = {**settings, "method": "update", "steps": 25}
        yield Case("update25", name, "run", many, single)

    yield from action_cases(all_learners)

    double = {
        "rng": "bits",
        "losses": "double_loss",
        "means": "double",
        "params": "double",
        "norms": "double",
    }
    lengths = {
        "simple": 50,
        "simple-dropout": 200,
        "simple-two_blocks": 50,
        "simple-T1-qs5": 25,
        "general-dropout-decay": 100,
        "general-expectile-exp_adv": 50,
        "general-quantile-soft_adv": 50,
        "general-exponential-hard_adv": 50,
        "general-exp_adv-warm": 100,
    }
    for name, steps in lengths.items():
        settings = {**all_learners[name], "method": "update", "steps": steps, "x64": True}
        yield Case("double", name, "run", {**settings, "batch": 16}, double)


def action_cases(all_learners: dict[str, Options]) -> Iterator[Case]:
    """Actions and keys, for several observations in sequence."""
    chosen: dict[str, tuple[str, str, Options]] = {
        "simple": ("simple", "eval_actions", {}),
        "simple-N64-repeat": ("simple-dropout", "eval_actions", {"N": 64, "M": 2}),
        "simple-T1": ("simple-T1-qs5", "eval_actions", {}),
        "simple-N1": ("simple-two_blocks", "eval_actions", {"N": 1}),
        "simple-cold": ("simple-dropout-cosine", "eval_actions", {"ddpm_temperature": 0.5}),
        "simple-unclipped": (
            "simple-linear-no_layer_norm",
            "eval_actions",
            {"clip_sampler": False},
        ),
        "general": ("general-dropout-decay", "eval_actions", {}),
        "general-mlp-repeat": ("general-exp_adv-warm", "eval_actions", {"M": 2}),
        "implicit-expectile": ("general-expectile-bc", "sample_implicit_policy", {}),
        "implicit-expectile-N64": (
            "general-dropout-decay",
            "sample_implicit_policy",
            {"N": 64, "critic_hyperparam": 0.9},
        ),
        # Quirks E1 and E2: the port samples by mended weights; the literal ones live in parity.
        "implicit-quantile-literal": ("general-quantile-bc", "literal_implicit", {}),
        "implicit-exponential-literal": ("general-exponential-bc", "literal_implicit", {}),
    }
    kinds = {"actions": "action", "rng": "bits"}
    for name, (learner, choose, changes) in chosen.items():
        base = all_learners[learner]
        settings = {
            **base,
            "kwargs": {**base["kwargs"], "N": 16, **changes},
            "method": "update",
            "steps": 5,
            "choose": choose,
            "observations": 6,
        }
        yield Case("actions", name, "act", settings, kinds)
    for name in ("simple-N64-repeat", "implicit-expectile"):
        learner, choose, changes = chosen[name]
        base = all_learners[learner]
        settings = {
            **base,
            "kwargs": {**base["kwargs"], "N": 16, **changes},
            "method": "update",
            "steps": 5,
            "choose": choose,
            "observations": 6,
            "x64": True,
        }
        yield Case(
            "actions", f"{name}-double", "act", settings, {"actions": "double", "rng": "bits"}
        )


def dataset_cases() -> Iterator[Case]:
    """Which rows a dataset hands out."""
    kinds = {"rows": "bits"}
    variants: dict[str, Options] = {
        "device-unseeded": {"method": "sample_device", "seed": None, "batch": 32, "count": 5},
        "device-seed7": {"method": "sample_device", "seed": 7, "batch": 9, "count": 5},
        "device-large": {
            "method": "sample_device",
            "seed": 3,
            "batch": 256,
            "count": 3,
            "size": 100_003,
        },
        "numpy-seed7": {"method": "sample", "seed": 7, "batch": 32, "count": 5},
        "numpy-seed0": {"method": "sample", "seed": 0, "batch": 9, "count": 3},
        "split": {"method": "split", "seed": 3, "ratio": 0.95},
        "filter-top": {"method": "filter", "seed": 3, "args": {"take_top": 30.0}},
        "filter-threshold": {"method": "filter", "seed": 3, "args": {"threshold": 0.25}},
        "normalize_returns": {
            "method": "normalize_returns",
            "seed": 3,
            "args": {"scaling": 1000},
        },
    }
    for name, options in variants.items():
        settings = {"size": 999, **options}
        yield Case("dataset", name, "dataset", settings, kinds)


def all_cases() -> list[Case]:
    """Every recorded case, in the order of their groups."""
    return [
        *random_cases(),
        *network_cases(),
        *diffusion_cases(),
        *loss_cases(),
        *optimiser_cases(),
        *learner_cases(),
        *dataset_cases(),
    ]
