"""Cases of the networks and of the diffusion sampler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parity.cases.case import Case, Options

MLP = {"net": "MLP", "input_dim": 9, "hidden_dims": [32, 24]}


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
    """Beta schedules and the reverse process."""
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
