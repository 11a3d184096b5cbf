"""Cases of initialisers and of the networks that methods after IDQL are built of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parity.cases.case import Case, Options

_SHAPES = [[5, 3], [1, 1], [24, 16], [3, 3, 4, 6]]
_FAMILIES = [
    f"{name}_{kind}" for name in ("xavier", "lecun", "he") for kind in ("uniform", "normal")
]
_FAMILIES += ["glorot_uniform", "glorot_normal", "kaiming_uniform", "kaiming_normal"]
_MODES, _KINDS = ("fan_in", "fan_out", "fan_avg"), ("truncated_normal", "normal", "uniform")
_INITIALIZERS: dict[str, list[Any]] = {
    **{name: [name] for name in _FAMILIES},
    **{f"{m}-{kind}": ["variance_scaling", 2.5, m, kind] for m in _MODES for kind in _KINDS},
    "zeros": ["zeros"],
    "ones": ["ones"],
    "constant": ["constant", 0.1],
    "constant-negative": ["constant", -7],
    "uniform": ["uniform"],
    "uniform-3": ["uniform", 3.0],
    "normal": ["normal"],
    "normal-0.3": ["normal", 0.3],
    "truncated_normal": ["truncated_normal", 0.1],
    "scale-0": ["variance_scaling", 0.0, "fan_in", "normal"],
    "scaled-default": ["default_init", 1e-2],
    "batch-axis": [
        "variance_scaling", 1.0, "fan_in", "uniform",
        {"in_axis": 1, "out_axis": 2, "batch_axis": 0},
    ],
    "two-axes": [
        "variance_scaling", 1.0, "fan_avg", "truncated_normal",
        {"in_axis": [0, 2], "out_axis": [1, 3]},
    ],
    "orthogonal": ["orthogonal"],
    "orthogonal-scaled": ["orthogonal", 1.5, 0],
    "delta_orthogonal": ["delta_orthogonal", 0.5],
}  # fmt: skip
_OWN_SHAPES = {
    "batch-axis": [[4, 5, 3]],
    "two-axes": [[2, 3, 4, 5]],
    "orthogonal": [[1, 1], [4, 4], [9, 4], [4, 9], [2, 3, 4, 5], [96, 24]],
    "orthogonal-scaled": [[3, 5], [5, 3], [2, 3, 4]],
    "delta_orthogonal": [[3, 2, 4], [4, 3, 2, 2], [2, 1, 3, 2, 5]],
}


def initializer_cases() -> Iterator[Case]:
    """Values of every initialiser, in both precisions and both layouts of the streams."""
    for name, described in _INITIALIZERS.items():
        shapes = _OWN_SHAPES.get(name, _SHAPES)
        settings: Options = {"initializer": described, "seeds": [0, 2**32 - 1], "shapes": shapes}
        turned = "orthogonal" in name
        bound = "forward" if turned else "bits"
        yield Case("initializers", name, "initialiser", settings, {"params": bound})
        if name in ("fan_in-normal", "he_uniform", "truncated_normal", "constant") or turned:
            large = [[48, 48]] if name == "orthogonal" else []
            wide = {**settings, "shapes": [*shapes, *large], "x64": True}
            kind = {"params": "double"}
            yield Case("initializers", f"{name}-double", "initialiser", wide, kind)
        if name in ("normal-0.3", "orthogonal", "uniform-3"):
            newer = {**settings, "partitionable": True}
            yield Case("initializers", f"{name}-newer", "initialiser", newer, {"params": bound})
    yield Case("initializers", "refused", "refused", {"calls": _REFUSED}, {"refused": "bits"})


_REFUSED: list[list[Any]] = [
    [["variance_scaling", 1.0, "fan_sum", "normal"], [3, 2]],
    [["variance_scaling", 1.0, "fan_in", "cauchy"], [3, 2]],
    [["lecun_normal"], [3]],
    [["he_uniform"], []],
    [["xavier_uniform"], [0, 3]],
    [["orthogonal"], [3]],
    [["delta_orthogonal"], [3, 4]],
    [["delta_orthogonal"], [3, 4, 2]],
    [["variance_scaling", 1.0, "fan_in", "normal", {"in_axis": 5}], [3, 2]],
    [["xavier_normal"], [3, 2]],
    [["orthogonal"], [3, 2]],
]
"""Initialisers and shapes; the last two are valid."""


_MLP: Options = {"net": "NormedMLP", "input_dim": 9, "hidden_dims": [32, 24, 4]}
_IMPALA: Options = {
    "net": "ImpalaEncoder",
    "shape": [11, 9, 6],
    "stack_sizes": [4, 6],
    "num_blocks": 1,
    "mlp_hidden_dims": [16],
}
_VALUE: Options = {
    "net": "StackedValue",
    "obs_dim": 5,
    "act_dim": 3,
    "hidden_dims": [32, 24],
    "layer_norm": True,
    "num": 2,
}


def _sequential(shape: list[int], layers: list[Any], **options: Any) -> Options:
    return {"net": "Sequential", "shape": shape, "layers": layers, **options}


def _dense(inputs: int, features: int, **options: Any) -> list[Any]:
    return ["Dense", {"input_dim": inputs, "features": features, **options}]


def _split(kind: str) -> list[Any]:
    return ["Split", {"input_dim": 6, "kind": kind}]


def _image(*layers: Any) -> Options:
    conv = {"input_dim": 3, "features": 8, "kernel_size": [3, 3], "use_bias": False}
    return _sequential([9, 7, 3], [["Conv", conv], *layers])


def _pooled(window: list[int], **options: Any) -> Options:
    return _image(["max_pool", {"window_shape": window, **options}])


def _grouped(**options: Any) -> list[Any]:
    return ["GroupNorm", {"input_dim": 8, **options}]


def more_networks() -> dict[str, Options]:
    """Settings of the networks, by name."""
    drop = ["Dropout", {"rate": 0.3}]
    narrow = {"use_bias": False, "kernel_init": ["orthogonal", 1.4]}
    return {
        "mlp-gelu": {**_MLP, "layer_norm": False},
        "mlp-gelu-exact": {**_MLP, "layer_norm": False, "activations": "gelu-exact"},
        "mlp-normed": _MLP,
        "mlp-normed-final": {**_MLP, "activate_final": True, "activations": "tanh"},
        "mlp-kernel": {**_MLP, "kernel_init": ["default_init", 1e-2]},
        "mlp-one_layer": {**_MLP, "hidden_dims": [4], "kernel_init": ["normal", 0.5]},
        "value_net": _VALUE,
        "value_net-plain-5": {**_VALUE, "layer_norm": False, "num": 5},
        "value_net-encoder": {**_VALUE, "encoder_dim": 6},
        "sequential": _sequential([6], [_dense(6, 8), "relu", _dense(8, 3)]),
        "sequential-held": _sequential([6], [_dense(5, 8), "gelu", _dense(8, 3)], held=True),
        "sequential-dropout": _sequential(
            [6], [_dense(6, 16), drop, "gelu", _dense(16, 16), drop, _dense(16, 3)]
        ),
        "sequential-tuple": _sequential([6], [_split("tuple"), "difference"]),
        "sequential-dict": _sequential([6], [_split("dict"), "difference"]),
        "sequential-shared": _sequential([6], [_dense(6, 6), "tanh"], again=0),
        "sequential-inits": _sequential(
            [6], [_dense(6, 8, **narrow), "swish", _dense(8, 3, bias_init=["normal", 0.5])]
        ),
        "conv-bias": _sequential(
            [9, 7, 3],
            [["Conv", {"input_dim": 3, "features": 4, "kernel_size": [3, 2], "strides": 2,
                       "kernel_init": ["he_normal"], "bias_init": ["constant", 0.5]}]],
        ),
        "pool-valid": _pooled([2, 3]),
        "pool-same-2": _pooled([3, 3], strides=[2, 2], padding="SAME"),
        "pool-same-3": _pooled([2, 4], strides=[3, 1], padding="SAME"),
        "pool-pairs": _pooled([3, 2], strides=[1, 2], padding=[[1, 0], [0, 1]]),
        "pool-ties": _sequential(
            [8, 8, 1],
            [["Conv", {"input_dim": 1, "features": 2, "kernel_size": [1, 1]}], "relu",
             ["max_pool", {"window_shape": [3, 3], "strides": [2, 2], "padding": "SAME"}]],
        ),
        "impala": {**_IMPALA, "stack_sizes": [4, 6, 6], "num_blocks": 2},
        "impala-normed-dropout": {**_IMPALA, "layer_norm": True, "width": 2, "dropout_rate": 0.2},
        "group-4": _image(_grouped(num_groups=4)),
        "group-size-2": _image(_grouped(num_groups=None, group_size=2, epsilon=1e-3)),
        "group-plain": _image(_grouped(num_groups=8, use_scale=False, use_bias=False)),
        "group-rows": _sequential([8], [_dense(8, 8), _grouped(num_groups=2)]),
        "group-sequence": _sequential([5, 8], [_dense(8, 8), _grouped(num_groups=2)]),
    }  # fmt: skip


_WIDE = ("mlp-normed", "value_net-encoder", "pool-same-2", "group-size-2", "impala-normed-dropout")


def more_network_cases() -> Iterator[Case]:
    """Initial parameters, forward passes and gradients of the networks."""
    for name, network in more_networks().items():
        settings: Options = {"network": network, "seeds": [0, 2**32 - 1], "keep": 256}
        bound = "forward" if name == "sequential-inits" else "bits"
        yield Case("networks_more", f"init-{name}", "initial", settings, {"params": bound})
        drops = "dropout_rate" in network
        drops |= any(part[0] == "Dropout" for part in network.get("layers", ()))
        settings = {
            "network": network,
            "batch": 6,
            "modes": ["eval", "train"] if drops else ["eval"],
            "dropout_seed": 5,
            "keep": 512,
        }
        kinds = {"forward": "forward", "gradient": "gradient"}
        yield Case("networks_more", name, "network_pass", settings, kinds)
        if name in _WIDE:
            kinds = {"forward": "double", "gradient": "double"}
            wide = {**settings, "x64": True}
            yield Case("networks_more", f"{name}-double", "network_pass", wide, kinds)
