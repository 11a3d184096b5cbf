"""Cases of the action distributions, the image encoders and the image augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parity.cases.case import Case, Options

_BASE: Options = {"hidden_dims": [16, 12], "activate_final": True}
_SINGLE = {"forward": "forward", "gradient": "gradient"}
_DOUBLE = {"forward": "double", "gradient": "double"}


def _normal(**options: Any) -> Options:
    return {"net": "Normal", "obs_dim": 5, "act_dim": 3, "base": _BASE, "options": options}


def policies() -> dict[str, Options]:
    """Settings of every policy network, by name."""
    fixed = {"log_std_min": -2.3025850929940455, "log_std_max": -2.3025850929940455}
    noisy = {**_BASE, "dropout_rate": 0.2, "use_layer_norm": True}
    return {
        "normal": _normal(),
        "normal-tanh": _normal(squash_tanh=True),
        "normal-clipped": _normal(log_std_min=-0.3, log_std_max=0.2),
        "normal-shared": _normal(state_dependent_std=False),
        "normal-fixed": _normal(state_dependent_std=False, **fixed),
        "normal-dropout": {**_normal(squash_tanh=True), "base": noisy},
        "deterministic": {"net": "TanhDeterministic", "obs_dim": 5, "act_dim": 3, "base": _BASE},
    }


def distribution_cases() -> Iterator[Case]:
    """Draws and densities of given distributions, and the networks that make them."""
    base: Options = {
        "act_dim": 3,
        "batch": [7],
        "spread": 2.0,
        "scale": "rows",
        "tanh": False,
        "seeds": [0, 1, 2**32 - 1],
        "shapes": [[], [4], [2, 3]],
    }
    variants: dict[str, Options] = {
        "normal": {},
        "normal-one": {"batch": []},
        "normal-shared": {"scale": "shared"},
        "normal-batches": {"batch": [2, 3], "act_dim": 1},
        "tanh": {"tanh": True},
        "tanh-one": {"tanh": True, "batch": [], "act_dim": 1},
        "tanh-shared": {"tanh": True, "scale": "shared"},
        "tanh-saturated": {"tanh": True, "spread": 12.0},
        "tanh-newer": {"tanh": True, "partitionable": True},
    }
    names = ("sample", "mode", "log_prob", "own_log_prob", "entropy")
    kinds = {**dict.fromkeys(names, "forward"), "gradient": "gradient"}
    for name, options in variants.items():
        settings = {**base, **options}
        yield Case("distributions", name, "distribution", settings, kinds)
    kinds = {**dict.fromkeys(names, "double"), "gradient": "double"}
    for name in ("normal", "tanh", "tanh-shared", "tanh-saturated"):
        settings = {**base, **variants[name], "seeds": [0, 1], "x64": True}
        yield Case("distributions", f"{name}-double", "distribution", settings, kinds)
    for name, network in policies().items():
        yield from _network_cases("distributions", name, network, 5)


def _network_cases(
    group: str, name: str, network: Options, batch: int | None, double: bool = True
) -> Iterator[Case]:
    """Initial parameters, forward passes and gradients of one network."""
    settings: Options = {"network": network, "seeds": [0, 2**32 - 1], "keep": 64}
    yield Case(group, f"init-{name}", "initial", settings, {"params": "init"})
    drops = any(part.get("dropout_rate") for part in _parts(network))
    settings = {
        "network": network,
        "batch": batch,
        "modes": ["eval", "train"] if drops else ["eval"],
        "dropout_seed": 5,
        "keep": 128,
    }
    yield Case(group, f"pass-{name}", "network_pass", settings, _SINGLE)
    if double:
        settings = {**settings, "x64": True}
        yield Case(group, f"pass-{name}-double", "network_pass", settings, _DOUBLE)


def _parts(network: Options) -> list[Options]:
    head = network.get("head", {})
    return [network.get("base", {}), head.get("base", {})]


def _d4pg(shape: list[int], **options: Any) -> Options:
    defaults: Options = {"features": [4, 6], "filters": [3, 3], "strides": [2, 1]}
    return {"net": "D4PGEncoder", "shape": shape, "options": {**defaults, **options}}


def _resnet(shape: list[int], stage_sizes: list[int], num_filters: int = 4) -> Options:
    options = {"stage_sizes": stage_sizes, "num_filters": num_filters}
    return {"net": "ResNetV2Encoder", "shape": shape, "options": options}


def encoders() -> dict[str, tuple[Options, int | None]]:
    """Settings of every image network and the size of its batch (none: a single image)."""
    deep = {"features": [8] * 4, "filters": [3] * 4, "strides": [2, 1, 1, 1]}
    # As the original configures its pixel learners: stride 2 throughout.
    halving = {"features": [4, 8, 8, 8], "filters": [3] * 4, "strides": [2] * 4}
    image: Options = {"pixels": [12, 12, 3, 2]}
    pixels: Options = {
        "net": "PixelMultiplexer",
        "space": image,
        "encoder": _d4pg([])["options"],
        "encoder_net": "D4PGEncoder",
        "latent_dim": 8,
        "act_dim": 3,
        "head": {"net": "Normal", "base": _BASE, "options": {"squash_tanh": True}},
        "options": {},
    }
    critic: Options = {**pixels, "head": {"net": "Ensemble", "num": 2, "base": _BASE}}
    noisy = {**_BASE, "dropout_rate": 0.2, "use_layer_norm": True}
    cameras = {"pixels": [12, 12, 3, 2], "wrist": [10, 14, 1, 2]}
    depth = {**image, "depth": [12, 12, 1, 2]}
    both = {"pixel_keys": ["pixels", "wrist"], "depth_keys": ["depth", "wrist_depth"]}
    return {
        "d4pg": (_d4pg([12, 12, 6]), 3),
        "d4pg-one": (_d4pg([12, 12, 6]), None),
        "d4pg-same": (_d4pg([11, 13, 3], padding="SAME", strides=[3, 2]), 3),
        "d4pg-even": (_d4pg([12, 12, 3], filters=[2, 4], padding="SAME"), 3),
        "d4pg-deep": (_d4pg([21, 21, 9], **deep), 3),
        "d4pg-halving": (_d4pg([64, 64, 9], **halving), 2),
        "resnet": (_resnet([8, 8, 3], [1, 1]), 3),
        "resnet-one": (_resnet([8, 8, 3], [1, 1]), None),
        "resnet-odd": (_resnet([9, 7, 3], [2, 1, 1], 8), 3),
        "resnet-stem": (_resnet([224, 224, 3], [1, 1], 4), 1),
        "pixels": (pixels, 3),
        "pixels-one": (pixels, None),
        "pixels-stopped": ({**pixels, "options": {"stop_gradient": True}}, 3),
        "pixels-state": ({**pixels, "space": {**image, "state": [4]}}, 3),
        "pixels-critic": (critic, 3),
        "pixels-critic-dropout": (
            {**critic, "head": {"net": "Ensemble", "num": 3, "base": noisy}},
            3,
        ),
        "pixels-cameras": (
            {**critic, "space": cameras, "options": {"pixel_keys": ["pixels", "wrist"]}},
            3,
        ),
        "pixels-depth": ({**critic, "space": depth, "options": {"depth_keys": ["depth"]}}, 3),
        "pixels-everything": (
            {
                **critic,
                "space": {**cameras, **depth, "wrist_depth": [10, 14, 1, 2], "state": [4]},
                "options": both,
            },
            3,
        ),
        "pixels-resnet": (
            {
                **pixels,
                "space": {"pixels": [8, 8, 3, 1]},
                "encoder_net": "ResNetV2Encoder",
                "encoder": {"stage_sizes": [1, 1], "num_filters": 4},
            },
            3,
        ),
    }


def encoder_cases() -> Iterator[Case]:
    """Image encoders, alone and behind the multiplexer."""
    # The original's residual encoder computes in float32 whatever the width of its inputs.
    doubles = ("d4pg", "d4pg-same", "pixels-state", "pixels-critic-dropout", "pixels-everything")
    for name, (network, batch) in encoders().items():
        yield from _network_cases("encoders", name, network, batch, name in doubles)


def augmentation_cases() -> Iterator[Case]:
    """Random crops."""
    space = {"pixels": [9, 7, 3, 2], "depth": [9, 7, 1, 2], "state": [3]}
    base: Options = {"space": space, "batch": 5, "seeds": [0, 7, 2**32 - 1], "padding": 4}
    kinds = {"crop": "bits", "crops": "bits"}
    yield Case("augmentation", "crops", "crops", base, kinds)
    yield Case("augmentation", "crops-padding-1", "crops", {**base, "padding": 1}, kinds)
    newer = {**base, "partitionable": True}
    yield Case("augmentation", "crops-newer", "crops", newer, kinds)
