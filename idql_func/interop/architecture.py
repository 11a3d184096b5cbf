"""Convert networks to JSON settings and back, so that a file of weights can rebuild its network.

The settings describe the evaluation forward pass only: they omit dropout and initial values.
"""

from __future__ import annotations

import functools
import math
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
    gelu,
    mish,
    swish,
)
from idql_func.networks.encoders import D4PGEncoder, ResNetV2Encoder
from idql_func.networks.layers import relu
from idql_func.networks.pixel_multiplexer import PixelMultiplexer
from idql_func.types import InputError

__all__ = ["build_network", "check_settings", "describe_network"]

_ACTIVATIONS = {"relu": relu, "swish": swish, "mish": mish, "gelu": gelu}


def _fourier_settings(network: FourierFeatures) -> dict[str, Any]:
    if not network.learnable:
        raise InputError("FourierFeatures without a kernel cannot be exported; no learner uses it.")
    return {"output_size": network.output_dim, "input_dim": network.kernel.shape[1]}


def _encoder_stages(network: ResNetV2Encoder) -> dict[str, Any]:
    widths = [block.output_dim for block in network.blocks]
    stages = [widths.count(width) for width in sorted(set(widths))]
    return {"stage_sizes": stages, "num_filters": widths[0], "act": network.act}


# For each class the constructor's arguments, read from a network; networks among them are
# described in turn, and activations by their name.
_SETTINGS: dict[type[Module], Callable[[Any], dict[str, Any]]] = {
    MLP: lambda n: {
        "input_dim": n.layers[0][0].kernel.shape[0],
        "hidden_dims": [layer.kernel.shape[1] for layer, _ in n.layers],
        "activations": n.activations,
        "activate_final": n.activate_final,
        "use_layer_norm": n.norm is not None,
        **({"layer_norm": True} if any(n.norms) else {}),
    },
    MLPResNet: lambda n: {
        "input_dim": n.first.kernel.shape[0],
        "num_blocks": len(n.blocks),
        "out_dim": n.output_dim,
        "use_layer_norm": any(block.norm is not None for block in n.blocks),
        "hidden_dim": n.first.kernel.shape[1],
        "activations": n.activations,
    },
    FourierFeatures: _fourier_settings,
    DDPM: lambda n: {
        "cond_encoder": n.cond_encoder,
        "reverse_encoder": n.reverse_encoder,
        "time_preprocess": n.time_preprocess,
    },
    StateActionValue: lambda n: {"base": n.base},
    Ensemble: lambda n: {"member": n.member, "num": n.num, "name": n.member_name},
    Normal: lambda n: {
        "base": n.base,
        "action_dim": n.output_dim,
        "log_std_min": n.bounds[0],
        "log_std_max": n.bounds[1],
        "state_dependent_std": n.state_dependent_std,
        "squash_tanh": n.squash_tanh,
    },
    TanhDeterministic: lambda n: {"base": n.base, "action_dim": n.output_dim},
    PixelMultiplexer: lambda n: {
        "encoder": n.cameras[0][2],
        "network": n.network,
        "latent_dim": n.cameras[0][3].dense.output_dim,
        "pixel_keys": [pixels for pixels, _, _, _ in n.cameras],
        "depth_keys": [depth for _, depth, _, _ in n.cameras if depth is not None],
    },
    D4PGEncoder: lambda n: {
        "features": [conv.output_dim for conv in n.convs],
        "filters": [conv.kernel_size[0] for conv in n.convs],
        "strides": [conv.strides[0] for conv in n.convs],
        "padding": n.convs[0].padding,
    },
    ResNetV2Encoder: _encoder_stages,
}
_SIZES = {"input_dim", "hidden_dims", "out_dim", "hidden_dim", "output_size", "action_dim", "num"}
_SIZES |= {"latent_dim", "features", "filters", "num_filters", "act_dim", "T"}
_COUNTS = {"num_blocks", "stage_sizes"}
_CLASSES = {cls.__name__: cls for cls in _SETTINGS}


def describe_network(network: Module) -> dict[str, Any]:
    """JSON-compatible settings from which :func:`build_network` makes the same network.

    Raises:
        InputError: the class or the activation of the network is not supported.

    >>> describe_network(MLP(3, [8, 2]))["hidden_dims"]
    [8, 2]
    """
    for cls in type(network).__mro__:
        if cls in _SETTINGS:
            settings = _SETTINGS[cls](network)
            return {"class": cls.__name__, **{k: _describe(v) for k, v in settings.items()}}
    raise InputError(
        f"a {type(network).__name__} cannot be exported; only networks of the learners here can."
    )


def _describe(value: Any) -> Any:
    if isinstance(value, Module):
        return describe_network(value)
    if not callable(value):
        return value
    for name, known in _ACTIVATIONS.items():
        if value is known:
            return name
    raise InputError(
        f"a network with the activation {value!r} cannot be exported; supported are "
        f"{', '.join(_ACTIVATIONS)}."
    )


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
        network = _constructor(settings, observation_shapes or {})()
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"no network has these settings: {error} in {dict(settings)}.") from None
    return _with_zeros(network)


def check_settings(settings: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Raise if settings describe a network that is larger than tensors for it.

    A layer has no more rows or columns, and a network no more layers, than the tensors have
    numbers, so that settings of a file take no more memory and time than its size allows.

    Raises:
        InputError: a number in the settings is too large.

    >>> check_settings({"hidden_dims": [10**9]}, {"kernel": torch.zeros(3)})
    Traceback (most recent call last):
    ...
    idql_func.errors.InputError: these settings are not those of a policy: hidden_dims has \
1000000000, but the tensors have 3 numbers.
    """
    total = sum(math.prod(tensor.shape) for tensor in tensors.values())

    def visit(value: Any, name: str) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                visit(inner, str(key))
        elif isinstance(value, list | tuple):
            for inner in value:
                visit(inner, name)
        elif name in _SIZES and isinstance(value, int | float) and not value <= max(total, 64):
            raise InputError(
                f"these settings are not those of a policy: {name} has {value}, but the tensors "
                f"have {total} numbers."
            )
        elif name in _COUNTS and isinstance(value, int | float) and not value <= len(tensors):
            raise InputError(
                f"these settings are not those of a policy: {name} has {value}, but there are "
                f"{len(tensors)} tensors."
            )

    visit(settings, "")


def _constructor(settings: Mapping[str, Any], shapes: Mapping[str, Any]) -> Callable[..., Module]:
    """The class of a network with the arguments that the settings hold."""
    cls: Callable[..., Module] = _CLASSES[settings["class"]]
    arguments = {name: value for name, value in settings.items() if name != "class"}
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            arguments[name] = _constructor(value, shapes)
        elif name in ("activations", "act"):
            arguments[name] = _ACTIVATIONS[value]
    if cls is DDPM:  # takes networks, the other classes take their constructors
        return functools.partial(DDPM, **{name: make() for name, make in arguments.items()})
    if cls is PixelMultiplexer:
        encoder, network = arguments.pop("encoder"), arguments.pop("network")
        arguments["observation_shapes"] = shapes
        # the settings of the inner network hold its input_dim
        return functools.partial(cls, encoder, lambda input_dim: network(), **arguments)
    inner = [arguments.pop(name) for name in ("base", "member") if name in arguments]
    return functools.partial(cls, *inner, **arguments)


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
