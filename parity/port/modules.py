"""The port's networks beyond the original's own, after ``parity/original/modules.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from idql_func import networks as nets
from idql_func.networks import initializers
from parity.backend import Settings

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nets.relu,
    "swish": nets.swish,
    "mish": nets.mish,
    "tanh": torch.tanh,
    "gelu": nets.gelu,
    "gelu-exact": partial(nets.gelu, approximate=False),
}


def initializer(described: Sequence[Any]) -> initializers.Initializer:
    """An initialiser of the port by its name and arguments."""
    name, *arguments = described
    options: dict[str, Any] = {}
    if arguments and isinstance(arguments[-1], dict):
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.pop().items()}
    found = getattr(initializers, name)
    return found if name in ("zeros", "ones") else found(*arguments, **options)


class StackedValue(nets.Ensemble):
    """``num`` MLPs under the name ``value_net``, on encoded observations or not."""

    def __init__(self, s: Settings) -> None:
        width = s.get("encoder_dim", s["obs_dim"]) + s["act_dim"]
        super().__init__(
            nets.MLP,
            width,
            [*s["hidden_dims"], 1],
            nets.gelu,
            layer_norm=s["layer_norm"],
            num=s["num"],
            name="value_net",
        )
        self.encoder = (
            nets.Dense(s["obs_dim"], width - s["act_dim"]) if "encoder_dim" in s else None
        )

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        observations, actions = inputs
        seen = observations if self.encoder is None else self.encoder(observations)
        return super().forward(torch.cat([seen, actions], dim=-1), **options).squeeze(-1)


class Held(nets.Module):
    """A Sequential as an attribute of another module, after a layer of its own."""

    def __init__(self, listed: Sequence[Any], input_dim: int) -> None:
        super().__init__()
        self.first = nets.Dense(input_dim, 5, use_bias=False)
        self.net = nets.Sequential([_layer(described) for described in listed])

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.first(x))


class Split(nets.Module):
    """Two outputs, as a tuple or as a dict, for the layer after it in a Sequential."""

    def __init__(self, input_dim: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.left, self.right = nets.Dense(input_dim, 4), nets.Dense(input_dim, 4)

    def forward(self, x: Tensor) -> Any:
        left, right = self.left(x), self.right(x)
        return (left, right) if self.kind == "tuple" else {"right": right, "left": left}


def _difference(left: Tensor, right: Tensor) -> Tensor:
    return left - 2 * right


def _layer(described: Any) -> Any:
    if isinstance(described, str):
        return _difference if described == "difference" else ACTIVATIONS[described]
    kind: str = described[0]
    options: dict[str, Any] = described[1]
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    options = {k: initializer(v) if k.endswith("_init") else v for k, v in options.items()}
    if kind == "max_pool":
        return partial(nets.max_pool, **options)
    return Split(**options) if kind == "Split" else getattr(nets, kind)(**options)


def made(s: Settings) -> nets.Module:
    """The network that settings describe.

    Raises:
        ValueError: there is no such network.
    """
    match s["net"]:
        case "NormedMLP":
            options = {"layer_norm": True, **s, "activations": s.get("activations", "gelu")}
            options["activations"] = ACTIVATIONS[options["activations"]]
            if "kernel_init" in s:
                options["kernel_init"] = initializer(s["kernel_init"])
            return nets.MLP(**{k: v for k, v in options.items() if k != "net"})
        case "StackedValue":
            return StackedValue(s)
        case "ImpalaEncoder":
            options = {k: v for k, v in s.items() if k not in ("net", "shape")}
            return nets.ImpalaEncoder(s["shape"], **options)
        case "Sequential":
            if s.get("held"):
                return Held(s["layers"], s["shape"][-1])
            layers = [_layer(described) for described in s["layers"]]
            if "again" in s:  # one layer at two places
                layers.append(layers[s["again"]])
            return nets.Sequential(layers)
    raise ValueError(f"unknown network {s['net']!r}")
