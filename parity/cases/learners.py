"""Cases of the learners on states and on pixels, except IDQL.

One case is a whole run of a learner (``course`` in parity/programs): initial parameters, first
gradients, losses of every update, final parameters, actions and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parity.cases.case import Case, Options

SINGLE = {
    "rng": "bits",
    "constants": "forward",
    "initial": "init",
    "gradient": "gradient",
    "losses": "loss",
    "means": "mean",
    "params": "state",
    "norms": "state",
    "actions": "action",
    "keys": "bits",
}
"""Promises of a course in float32."""

DOUBLE = {
    **SINGLE,
    "constants": "double",
    "initial": "double",
    "gradient": "double",
    "losses": "double_loss",
    "means": "double",
    "params": "double",
    "norms": "double",
    "actions": "double",
}
"""Promises of a course in double precision."""

# Variants of SAC that the original configures as separate learners.
REDQ: Options = {"num_qs": 10, "num_min_qs": 2}
DROQ: Options = {"critic_dropout_rate": 0.01, "critic_layer_norm": True}


def state_learner(learner: str, seed: int, /, batch: int = 32, **settings: Any) -> Options:
    """Settings of a learner on states; names in capitals below are the learner's own keywords."""
    kwargs = {"hidden_dims": [32, 32], **settings.pop("kwargs", {})}
    return {
        "learner": learner,
        "seed": seed,
        "obs_dim": 5,
        "act_dim": 3,
        "kwargs": kwargs,
        "batch": batch,
        "batch_seed": seed,
        "method": "update",
        "observations": 3,
        "together": True,
        "keep": 48,
        **settings,
    }


def state_learners() -> dict[str, dict[str, Options]]:
    """Settings of every learner on states that is trained, by group and name."""

    def bc(seed: int, **kwargs: Any) -> Options:
        return state_learner("bc", seed, kwargs=kwargs)

    def iql(seed: int, **kwargs: Any) -> Options:
        return state_learner("iql", seed, kwargs=kwargs)

    def sac(seed: int, utd_ratio: int = 1, **kwargs: Any) -> Options:
        return state_learner("sac", seed, utd_ratio=utd_ratio, kwargs=kwargs)

    def td3(seed: int, first_gradient: int, utd_ratio: int = 1, **kwargs: Any) -> Options:
        # The first gradients are taken after the first update that moves the actor.
        return state_learner(
            "td3", seed, utd_ratio=utd_ratio, first_gradient=first_gradient, kwargs=kwargs
        )

    return {
        "bc": {
            "plain": bc(0),
            "dropout": bc(1, dropout_rate=0.1),
            "layer_norm": bc(2, use_layer_norm=True),
            "decay": bc(3, weight_decay=1e-2, dropout_rate=0.1, use_layer_norm=True),
            "entropy": bc(4, entropy_bonus=0.1),
            "entropy-dropout": bc(2**32 - 1, entropy_bonus=1e-3, dropout_rate=0.3, actor_lr=3e-4),
        },
        "iql": {
            "plain": iql(0),
            "mujoco": iql(1, expectile=0.7, temperature=3.0),
            "antmaze": iql(2, expectile=0.9, temperature=10.0),
            # exp(1000 x) meets its cap of 100 in about half of the rows
            "capped": iql(3, temperature=1000.0, actor_lr=3e-4, tau=0.05, discount=0.9),
            "layers": iql(2**32 - 1, hidden_dims=[16, 24, 8], critic_lr=1e-3, value_lr=2e-3),
        },
        "sac": {
            "plain": sac(0),
            "no_backup": sac(1, backup_entropy=False),
            "utd-2": sac(2, utd_ratio=2),
            "rates": sac(3, init_temperature=0.1, target_entropy=-3.0, tau=0.05, actor_lr=1e-3),
            "qs-5": sac(2**32 - 1, num_qs=5, discount=0.9, critic_lr=1e-3, temp_lr=1e-2),
        },
        "redq": {
            "plain": sac(0, **REDQ),
            "utd-4": sac(1, utd_ratio=4, **REDQ),
            "no_backup": sac(2, utd_ratio=2, backup_entropy=False, num_qs=5, num_min_qs=3),
        },
        "droq": {
            "plain": sac(0, **DROQ),
            "utd-2": sac(1, utd_ratio=2, **DROQ),
            "redq-heavy": sac(2, num_qs=4, num_min_qs=1, **{**DROQ, "critic_dropout_rate": 0.3}),
        },
        "td3": {
            "plain": td3(0, 2),
            "every_step": td3(1, 1, actor_delay=1, target_policy_noise=0.0),
            "delay-3-utd-2": td3(2, 3, utd_ratio=2, actor_delay=3, tau=0.05),
            "noisy": td3(3, 2, target_policy_noise=0.7, exploration_noise=0.5),
            "clipped": td3(4, 2, target_policy_noise_clip=0.05, exploration_noise=2.0),
            "redq": td3(5, 2, **REDQ),
            "dropout": td3(6, 2, **{**DROQ, "critic_dropout_rate": 0.1}),
        },
    }


def state_learner_cases() -> Iterator[Case]:
    """25 updates of each in float32, and longer runs of some in double precision."""
    lengths = {
        "bc/plain": 100,
        "bc/decay": 100,
        "bc/entropy-dropout": 100,
        "iql/plain": 100,
        "iql/antmaze": 100,
        "iql/capped": 100,
        "sac/plain": 100,
        "sac/no_backup": 50,
        "sac/utd-2": 50,
        "redq/utd-4": 25,
        "redq/no_backup": 25,
        "droq/utd-2": 50,
        "droq/redq-heavy": 50,
        "td3/plain": 100,
        "td3/delay-3-utd-2": 50,
        "td3/dropout": 50,
        "td3/redq": 50,
    }
    for group, named in state_learners().items():
        for name, settings in named.items():
            yield Case(group, name, "course", {**settings, "steps": 25}, SINGLE)
        for name, settings in named.items():
            if f"{group}/{name}" in lengths:
                steps = lengths[f"{group}/{name}"]
                wide = {**settings, "steps": steps, "x64": True, "batch": 16}
                yield Case(group, f"{name}-double", "course", wide, DOUBLE)
    newer = {**state_learners()["sac"]["plain"], "steps": 5, "partitionable": True}
    yield Case("sac", "newer", "course", newer, SINGLE)


def pixel_learner(learner: str, seed: int, /, batch: int = 4, **settings: Any) -> Options:
    """Settings of a learner on pixels, with a minimal encoder."""
    kwargs = {
        "cnn_features": [4, 6],
        "cnn_filters": [3, 3],
        "cnn_strides": [2, 1],
        "latent_dim": 8,
        "hidden_dims": [16, 16],
        **settings.pop("kwargs", {}),
    }
    return {
        "learner": learner,
        "seed": seed,
        "space": {"pixels": [12, 12, 3, 2]},
        "act_dim": 3,
        "kwargs": kwargs,
        "batch": batch,
        "batch_seed": seed,
        "method": "update",
        "observations": 2,
        "together": True,
        "keep": 48,
        **settings,
    }


_CAMERAS = {"pixels": [12, 12, 3, 2], "wrist": [10, 14, 1, 2]}
_DEPTHS = {"depth": [12, 12, 1, 2], "wrist_depth": [10, 14, 1, 2]}
_TWO: Options = {"pixel_keys": ["pixels", "wrist"]}
_ONE_DEPTH: Options = {"depth_keys": ["depth"]}
_TWO_DEPTHS: Options = {**_TWO, "depth_keys": ["depth", "wrist_depth"]}
_STATE = {"pixels": [12, 12, 3, 2], "state": [4]}
_DEPTH_AND_STATE = {"pixels": [12, 12, 3, 2], "depth": [12, 12, 1, 2], "state": [4]}
# The residual encoder is wide and deep whatever the settings, 11 million parameters. From 16 x 16
# on its last stage still has four pixels to normalise over; with one, float32 costs both 1e-5.
_RESNET: Options = {"space": {"pixels": [16, 16, 3, 1]}, "batch": 2}


def pixel_learners() -> dict[str, dict[str, Options]]:
    """Settings of every learner on pixels that is trained, by group and name.

    With more than one camera batches are not packed: the original unpacks only the last one
    (quirk A10).
    """

    def drq(seed: int, settings: Options | None = None, **kwargs: Any) -> Options:
        return pixel_learner("drq", seed, **{"utd_ratio": 1, **(settings or {})}, kwargs=kwargs)

    def bc(seed: int, settings: Options | None = None, **kwargs: Any) -> Options:
        return pixel_learner("pixel_bc", seed, **(settings or {}), kwargs=kwargs)

    return {
        "drq": {
            "resnet": drq(8, {**_RESNET, "keep": 16, "steps": 1}, encoder="resnet"),
            "plain": drq(0),
            "packed": drq(0, {"packed": True}),
            "utd-2": drq(1, {"utd_ratio": 2}),
            "rates": drq(2, backup_entropy=False, init_temperature=0.1, tau=0.05, num_qs=3),
            "dropout": drq(3, **{**DROQ, "critic_dropout_rate": 0.1}),
            "state-packed": drq(4, {"space": _STATE, "packed": True}),
            "cameras": drq(5, {"space": _CAMERAS}, **_TWO),
            "depth-state": drq(6, {"space": _DEPTH_AND_STATE}, **_ONE_DEPTH),
            "everything": drq(
                7,
                {"space": {**_CAMERAS, **_DEPTHS, "state": [4]}},
                cnn_padding="SAME",
                **_TWO_DEPTHS,
            ),
        },
        "pixel_bc": {
            "resnet": bc(4, {**_RESNET, "keep": 24, "steps": 2}, encoder="resnet"),
            "plain": bc(0),
            "dropout": bc(1, dropout_rate=0.1, use_layer_norm=True),
            "entropy": bc(2, entropy_bonus=0.1, actor_lr=3e-4),
            "everything": bc(
                3,
                {"space": {**_CAMERAS, **_DEPTHS, "state": [4]}},
                dropout_rate=0.1,
                **_TWO_DEPTHS,
            ),
        },
    }


def pixel_learner_cases() -> Iterator[Case]:
    """Five updates of most in float32, and of some in double precision."""
    doubles = ("drq/dropout", "drq/everything", "pixel_bc/everything")
    for group, named in pixel_learners().items():
        for name, settings in named.items():
            yield Case(group, name, "course", {"steps": 5, **settings}, SINGLE)
            if f"{group}/{name}" in doubles:
                wide = {"steps": 5, **settings, "x64": True}
                yield Case(group, f"{name}-double", "course", wide, DOUBLE)
