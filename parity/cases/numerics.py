"""Cases of the losses and the optimisers."""

from __future__ import annotations

from collections.abc import Iterator

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
