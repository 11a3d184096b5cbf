"""Cases that record intermediate tensors of networks and updates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parity.cases.case import Case, Options
from parity.cases.idql import learners
from parity.cases.learners import pixel_learners, state_learner, state_learners
from parity.cases.networks import networks
from parity.cases.policies import encoders, policies


def inner_networks() -> dict[str, tuple[Options, int | None]]:
    """Settings of the networks whose layers are recorded, and the sizes of their batches."""
    known = networks()
    shown: dict[str, tuple[Options, int | None]] = {
        name: (known[name], 8)
        for name in (
            "mlp-dropout-layer_norm-swish",
            "resnet-layer_norm-dropout",
            "ddpm-mlp-layer_norm",
            "ddpm-resnet",
            "state_value-layer_norm",
            "ensemble-3-dropout",
            "ensemble-5-layer_norm",
        )
    }
    for name in ("normal-dropout", "normal-shared", "deterministic"):
        shown[name] = (policies()[name], 5)
    images = encoders()
    for name in ("d4pg", "resnet", "pixels-critic-dropout", "pixels-everything", "pixels-resnet"):
        shown[name] = images[name]
    return shown


def _drops_out(network: Any) -> bool:
    if not isinstance(network, dict):
        return False
    return bool(network.get("dropout_rate")) or any(map(_drops_out, network.values()))


def layer_cases() -> Iterator[Case]:
    """The output of every submodule on a forward pass."""
    doubles = (
        *("mlp-dropout-layer_norm-swish", "ddpm-resnet"),
        *("ensemble-3-dropout", "pixels-critic-dropout"),
    )
    for name, (network, batch) in inner_networks().items():
        settings: Options = {
            "network": network,
            "batch": batch,
            "modes": ["eval", "train"] if _drops_out(network) else ["eval"],
            "dropout_seed": 5,
            "keep": 64,
        }
        kinds = {"layers": "forward", "forward": "forward"}
        yield Case("layers", name, "layers", settings, kinds)
        if name in doubles:
            kinds = {"layers": "double", "forward": "double"}
            yield Case("layers", f"{name}-double", "layers", {**settings, "x64": True}, kinds)


SINGLE = {
    "rng": "bits",
    "calls": "forward",
    "dropout": "bits",
    "gradient": "gradient",
    "after": "mean",
    "losses": "loss",
    "means": "mean",
    "params": "state",
    "norms": "state",
}
"""Promises of one update in float32. Calls of a stepped network: as the means that are logged."""

DOUBLE = {
    "rng": "bits",
    "dropout": "bits",
    **dict.fromkeys(("calls", "gradient", "after", "means", "params", "norms"), "double"),
    "losses": "double_loss",
}
"""Promises of one update in double precision."""


def inner_learners() -> dict[str, Options]:
    """Settings of the learners whose first update is recorded call by call."""
    idql, states, pixels = learners(), state_learners(), pixel_learners()
    # an actor that steps at once, with noise on the target's actions
    td3 = state_learner("td3", 0, utd_ratio=1, kwargs={"actor_delay": 1})
    return {
        "simple-dropout": idql["simple-dropout"],
        "general-soft_adv": idql["general-expectile-soft_adv"],
        "general-mlp": idql["general-quantile-soft_adv"],
        "bc": states["bc"]["decay"],
        "iql": states["iql"]["plain"],
        "sac": states["sac"]["plain"],
        "redq": states["redq"]["plain"],
        "droq": states["droq"]["plain"],
        "td3": td3,
        "drq": pixels["drq"]["dropout"],
        "pixel_bc": pixels["pixel_bc"]["dropout"],
    }


def call_cases() -> Iterator[Case]:
    """One update, call by call, of each kind of learner; on states in double precision too."""
    for name, settings in inner_learners().items():
        one = {**settings, "method": "update", "steps": 1, "keep": 24}
        one["batch"] = min(settings["batch"], 8)
        yield Case("calls", name, "calls", one, SINGLE)
        if "space" not in settings:
            yield Case("calls", f"{name}-double", "calls", {**one, "x64": True}, DOUBLE)
