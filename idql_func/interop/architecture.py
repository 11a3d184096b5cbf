"""Convert networks to JSON settings and back, so that a file of weights can rebuild its network.

The settings describe the evaluation forward pass only: they omit dropout and initial values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from idql_func.distributions import Normal, TanhDeterministic
from idql_func.networks import (
    DDPM,
    MLP,
    Ensemble,
    FourierFeatures,
    MLPResNet,
    Module,
    StateActionValue,
    mish,
    swish,
)
from idql_func.networks.encoders import D4PGEncoder, ResNetV2Encoder
from idql_func.networks.layers import relu
from idql_func.networks.pixel_multiplexer import PixelMultiplexer
from idql_func.types import InputError

__all__ = ["build_network", "describe_network"]

_ACTIVATIONS = {"relu": relu, "swish": swish, "mish": mish}


# --- to settings ------------------------------------------------------------------------------


@functools.singledispatch
def describe_network(network: Module) -> dict[str, Any]:
    """JSON-compatible settings from which :func:`build_network` makes the same network.

    Raises:
        InputError: the class or the activation of the network is not supported.

    >>> describe_network(MLP(3, [8, 2]))["hidden_dims"]
    [8, 2]
    """
    raise InputError(
        f"a {type(network).__name__} cannot be exported; only networks of the learners here can."
    )


@describe_network.register
def _(network: MLP) -> dict[str, Any]:
    sizes = [tuple(layer.kernel.shape) for layer, _, _ in network.layers]
    return {
        "class": "MLP",
        "input_dim": sizes[0][0],
        "hidden_dims": [out for _, out in sizes],
        "activations": _activation(network.activations),
        "activate_final": network.activate_final,
        "use_layer_norm": network.norm is not None,
    }


@describe_network.register
def _(network: MLPResNet) -> dict[str, Any]:
    input_dim, hidden_dim = network.first.kernel.shape
    return {
        "class": "MLPResNet",
        "input_dim": input_dim,
        "num_blocks": len(network.blocks),
        "out_dim": network.output_dim,
        "use_layer_norm": any(block.norm is not None for _, block in network.blocks),
        "hidden_dim": hidden_dim,
        "activations": _activation(network.activations),
    }


@describe_network.register
def _(network: FourierFeatures) -> dict[str, Any]:
    if not network.learnable:
        raise InputError("FourierFeatures without a kernel cannot be exported; no learner uses it.")
    return {
        "class": "FourierFeatures",
        "output_size": network.output_dim,
        "input_dim": network.kernel.shape[1],
    }


@describe_network.register
def _(network: DDPM) -> dict[str, Any]:
    return {
        "class": "DDPM",
        "cond_encoder": describe_network(network.cond_encoder),
        "reverse_encoder": describe_network(network.reverse_encoder),
        "time_preprocess": describe_network(network.time_preprocess),
    }


@describe_network.register
def _(network: StateActionValue) -> dict[str, Any]:
    return {"class": "StateActionValue", "base": describe_network(network.base)}


@describe_network.register
def _(network: Ensemble) -> dict[str, Any]:
    return {"class": "Ensemble", "member": describe_network(network.member), "num": network.num}


@describe_network.register
def _(network: Normal) -> dict[str, Any]:
    low, high = network.bounds
    return {
        "class": "Normal",
        "base": describe_network(network.base),
        "action_dim": network.output_dim,
        "log_std_min": low,
        "log_std_max": high,
        "state_dependent_std": network.state_dependent_std,
        "squash_tanh": network.squash_tanh,
    }


@describe_network.register
def _(network: TanhDeterministic) -> dict[str, Any]:
    return {
        "class": "TanhDeterministic",
        "base": describe_network(network.base),
        "action_dim": network.output_dim,
    }


@describe_network.register
def _(network: PixelMultiplexer) -> dict[str, Any]:
    keys = [(pixels, depth) for pixels, depth, _, _ in network.cameras]
    return {
        "class": "PixelMultiplexer",
        "encoder": describe_network(network.cameras[0][2]),
        "network": describe_network(network.network),
        "latent_dim": network.cameras[0][3].dense.output_dim,
        "pixel_keys": [pixels for pixels, _ in keys],
        "depth_keys": [depth for _, depth in keys if depth is not None],
    }


@describe_network.register
def _(network: D4PGEncoder) -> dict[str, Any]:
    return {
        "class": "D4PGEncoder",
        "features": [conv.output_dim for conv in network.convs],
        "filters": [conv.kernel_size[0] for conv in network.convs],
        "strides": [conv.strides[0] for conv in network.convs],
        "padding": network.convs[0].padding,
    }


@describe_network.register
def _(network: ResNetV2Encoder) -> dict[str, Any]:
    widths = [block.output_dim for block in network.blocks]
    return {
        "class": "ResNetV2Encoder",
        "stage_sizes": [widths.count(width) for width in sorted(set(widths))],
        "num_filters": widths[0],
        "act": _activation(network.act),
    }


def _activation(function: Any) -> str:
    for name, known in _ACTIVATIONS.items():
        if function is known:
            return name
    raise InputError(
        f"a network with the activation {function!r} cannot be exported; supported are "
        f"{', '.join(_ACTIVATIONS)}."
    )


# --- from settings ----------------------------------------------------------------------------


def build_network(
    settings: Mapping[str, Any], observation_shapes: Mapping[str, Any] | None = None
) -> Module:
    """Build a network from its settings, with zero weights and Flax's names in ``state_dict``.

    Args:
        settings: the result of :func:`describe_network`, also after conversion to JSON and back.
        observation_shapes: for networks on images, the shape of each entry of an observation.

    Raises:
        InputError: the settings are not those of a network.

    >>> network = build_network(describe_network(MLP(3, [8, 2])))
    >>> list(network.state_dict())
    ['Dense_0.kernel', 'Dense_0.bias', 'Dense_1.kernel', 'Dense_1.bias']
    """
    try:
        network = _build(dict(settings), observation_shapes or {})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"no network has these settings: {error} in {dict(settings)}.") from None
    return _with_zeros(network)


def _build(settings: dict[str, Any], shapes: Mapping[str, Any]) -> Module:
    name = settings.pop("class")
    if name == "PixelMultiplexer":
        return _build_multiplexer(settings, shapes)
    for key in ("activations", "act"):
        if key in settings:
            settings[key] = _ACTIVATIONS[settings[key]]
    parts = {key: _build(dict(x), shapes) for key, x in settings.items() if isinstance(x, dict)}
    inner = next(iter(parts.values()), None)
    plain = {key: x for key, x in settings.items() if key not in parts}
    wrapped: dict[str, Callable[..., Module]] = {
        "StateActionValue": StateActionValue,
        "Ensemble": Ensemble,
        "Normal": Normal,
        "TanhDeterministic": TanhDeterministic,
    }
    if name in wrapped:  # their first argument is a function that makes the inner network
        return wrapped[name](lambda: inner, **plain)
    whole: dict[str, Callable[..., Module]] = {
        "MLP": MLP,
        "MLPResNet": MLPResNet,
        "FourierFeatures": FourierFeatures,
        "DDPM": DDPM,
    }
    return whole[name](**plain, **parts)


def _build_multiplexer(settings: dict[str, Any], shapes: Mapping[str, Any]) -> Module:
    encoders: dict[str, Callable[..., Module]] = {
        "D4PGEncoder": D4PGEncoder,
        "ResNetV2Encoder": ResNetV2Encoder,
    }
    encoder = dict(settings.pop("encoder"))
    encoder_cls = encoders[encoder.pop("class")]
    if "act" in encoder:
        encoder["act"] = _ACTIVATIONS[encoder["act"]]
    head = settings.pop("network")
    return PixelMultiplexer(
        functools.partial(encoder_cls, **encoder),
        lambda input_dim: _build(dict(head), shapes),
        observation_shapes=shapes,
        **settings,
    )


def _with_zeros(network: Module) -> Module:
    """Replace parameters without storage by zeros; those of an ensemble have a leading axis."""

    def fill(module: nn.Module, leading: tuple[int, ...]) -> None:
        if isinstance(module, Ensemble):
            leading = (*leading, module.num)
        for name, parameter in list(module.named_parameters(recurse=False)):
            zeros = torch.zeros((*leading, *parameter.shape))
            module.register_parameter(name, nn.Parameter(zeros, requires_grad=False))
        for child in module.children():
            fill(child, leading)

    fill(network, ())
    return network
