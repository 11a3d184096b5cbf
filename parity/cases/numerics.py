"""Cases of the losses and the optimisers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parity.cases.case import Case, Options
from parity.cases.networks import networks


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

    predictions: dict[str, tuple[str, Options]] = {
        "l2": ("l2_loss", {}),
        "huber": ("huber_loss", {}),
        "huber-0.3": ("huber_loss", {"delta": 0.3}),
        "sigmoid": ("sigmoid_binary_cross_entropy", {}),
    }
    for name, (loss, args) in predictions.items():
        for x64 in (False, True):
            settings = {"loss": loss, "args": args, "x64": x64}
            kinds = {"value": "forward", "gradient": "gradient", "curve": "gradient"}
            kinds = dict.fromkeys(kinds, "double") if x64 else kinds
            whole = f"{name}-double" if x64 else name
            yield Case("losses", whole, "prediction_losses", settings, kinds)


_WARM_UP = [
    "join_schedules",
    [["linear_schedule", 0.0, 3e-3, 4], ["cosine_decay_schedule", 3e-3, 5]],
    [4],
]
_SCHEDULES: dict[str, list[Any]] = {
    "linear": ["linear_schedule", 1e-3, 3e-4, 4],
    "linear-late": ["linear_schedule", 0.0, 1.0, 3, 2],
    "join-cosine": [
        "join_schedules",
        [["constant_schedule", 0.3], ["cosine_decay_schedule", 0.3, 5]],
        [3],
    ],
    "join-warm-up": _WARM_UP,
    "join-three": [
        "join_schedules",
        [["constant_schedule", 2.0], ["linear_schedule", 1.0, 0.1, 5], ["constant_schedule", 0.5]],
        [2, 9],
    ],
}


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
        "adam-eps_root": {"optimiser": "adam", "args": {**rate, "eps_root": 1e-3}},
        "sgd": {"optimiser": "sgd", "args": rate},
        "sgd-momentum": {"optimiser": "sgd", "args": {**rate, "momentum": 0.9}},
        "sgd-nesterov": {"optimiser": "sgd", "args": {**rate, "momentum": 0.9, "nesterov": True}},
        "adam-clip": {"optimiser": "adam", "args": rate, "parts": [["clip", 0.4]]},
        "scale_by_adam-warm-up": {
            "optimiser": "scale_by_adam",
            "args": {"eps_root": 1e-6},
            "parts": [["clip_by_global_norm", 1.0], ["scale_by_schedule", _WARM_UP]],
        },
    }
    for limit in (1.0, 2.6, 100.0):  # always, sometimes and never reached by the norm
        parts = [["clip_by_global_norm", limit]]
        variants[f"sgd-norm-{limit:g}"] = {"optimiser": "sgd", "args": rate, "parts": parts}
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
        for name, described in _SCHEDULES.items():
            settings = {"schedule": described, "counts": [0, 1, 2, 3, 4, 5, 8, 9, 50], "x64": x64}
            yield Case(
                "optim", f"{name}-{64 if x64 else 32}", "schedule", settings, {"value": kind}
            )
    for name in ("ddpm-resnet", "state_value-layer_norm"):
        settings = {"network": networks()[name]}
        yield Case("optim", f"mask-{name}", "mask", settings, {"mask": "bits"})
