"""Flax modules that the networks beyond the original's own are held to.

The MLP with LayerNorm after its activations and the stacked value function are those that jaxrl_m,
OGBench and fql share; ``nn.Sequential``, ``nn.GroupNorm`` and pooling are Flax's own.
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from parity.backend import Settings

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": nn.relu,
    "swish": nn.swish,
    "tanh": jnp.tanh,
    "gelu": nn.gelu,
    "gelu-exact": partial(nn.gelu, approximate=False),
}


def initializer(described: Sequence[Any]) -> Any:
    """An initialiser of Flax by its name and arguments."""
    name, *arguments = described
    options: dict[str, Any] = {}
    if arguments and isinstance(arguments[-1], dict):
        options = _with_tuples(arguments.pop())
    if name in ("zeros", "ones"):
        return getattr(nn.initializers, name)
    if name == "default_init":
        return nn.initializers.variance_scaling([*arguments, 1.0][0], "fan_avg", "uniform")
    if name == "truncated_normal":
        return partial(_truncated_normal, *arguments, **options)
    return getattr(nn.initializers, name)(*arguments, **options)


def _truncated_normal(
    stddev: float, key: Any, shape: Any, dtype: Any = None, lower: float = -2.0, upper: float = 2.0
) -> Any:
    # newer JAX has this initialiser, as this product
    dtype = dtype or jax.dtypes.canonicalize_dtype(jnp.float_)
    return jax.random.truncated_normal(key, lower, upper, shape, dtype) * jnp.array(stddev, dtype)


class MLP(nn.Module):
    """Dense, activation, LayerNorm for each layer; the last one is Dense alone."""

    hidden_dims: Sequence[int]
    activations: Callable[[Any], Any] = nn.gelu
    activate_final: bool = False
    layer_norm: bool = True
    kernel_init: Any = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for place, width in enumerate(self.hidden_dims):
            x = nn.Dense(width, kernel_init=self.kernel_init)(x)
            if place < len(self.hidden_dims) - 1 or self.activate_final:
                x = self.activations(x)
                if self.layer_norm:
                    x = nn.LayerNorm()(x)
        return x


class StackedValue(nn.Module):
    """``num`` MLPs of one class under the name ``value_net``, on encoded observations or not."""

    hidden_dims: Sequence[int]
    num: int
    layer_norm: bool = True
    encoder: Any = None

    def setup(self) -> None:
        options: dict[str, Any] = {"in_axes": None, "out_axes": 0, "axis_size": self.num}
        stacked: Any = nn.vmap(
            MLP, variable_axes={"params": 0}, split_rngs={"params": True}, **options
        )
        self.value_net = stacked((*self.hidden_dims, 1), layer_norm=self.layer_norm)

    def __call__(self, observations: Any, actions: Any, training: bool = False) -> Any:
        seen = observations if self.encoder is None else self.encoder(observations)
        return self.value_net(jnp.concatenate([seen, actions], axis=-1)).squeeze(-1)


class Layers(nn.Sequential):
    """``nn.Sequential`` whose dropout is on in training."""

    def __call__(self, x: Any, training: bool = False) -> Any:
        for layer in self.layers:
            drops = isinstance(layer, nn.Dropout)
            x = layer(x, deterministic=not training) if drops else layer(x)
        return x


class Held(nn.Module):
    """A Sequential as an attribute of another module, after a layer of its own."""

    listed: Sequence[Any]

    def setup(self) -> None:
        self.first = nn.Dense(5, use_bias=False)
        self.net = nn.Sequential([_layer(described) for described in self.listed])

    def __call__(self, x: Any) -> Any:
        return self.net(self.first(x))


class Split(nn.Module):
    """Two outputs, as a tuple or as a dict, for the layer after it in a Sequential."""

    kind: str

    @nn.compact
    def __call__(self, x: Any) -> Any:
        left, right = nn.Dense(4, name="left")(x), nn.Dense(4, name="right")(x)
        return (left, right) if self.kind == "tuple" else {"right": right, "left": left}


class ResnetStack(nn.Module):
    """A convolution, pooling and residual blocks of two convolutions."""

    features: int
    blocks: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        def conv(y: Any) -> Any:
            init = nn.initializers.xavier_uniform()
            return nn.Conv(self.features, (3, 3), padding="SAME", kernel_init=init)(y)

        x = nn.max_pool(conv(x), (3, 3), (2, 2), "SAME")
        for _ in range(self.blocks):
            x = conv(nn.relu(conv(nn.relu(x)))) + x
        return x


class ImpalaEncoder(nn.Module):
    """Stacks, the last image with a norm or not, and an MLP."""

    stack_sizes: Sequence[int]
    num_blocks: int
    mlp_hidden_dims: Sequence[int]
    width: int = 1
    dropout_rate: float | None = None
    layer_norm: bool = False

    def setup(self) -> None:
        self.stack_blocks = [ResnetStack(n * self.width, self.num_blocks) for n in self.stack_sizes]
        if self.dropout_rate is not None:
            self.dropout = nn.Dropout(rate=self.dropout_rate)

    @nn.compact
    def __call__(self, x: Any, training: bool = False) -> Any:
        x = x.astype(jnp.float32) / 255.0
        for stack in self.stack_blocks:
            x = stack(x)
            if self.dropout_rate is not None:
                x = self.dropout(x, deterministic=not training)
        x = nn.relu(x)
        x = nn.LayerNorm()(x) if self.layer_norm else x
        x = x.reshape(*x.shape[:-3], -1)
        return MLP(self.mlp_hidden_dims, activate_final=True, layer_norm=self.layer_norm)(x)


def _difference(left: Any, right: Any) -> Any:
    return left - 2 * right


def _layer(described: Any) -> Any:
    if isinstance(described, str):
        return _difference if described == "difference" else ACTIVATIONS[described]
    kind: str = described[0]
    options: dict[str, Any] = _with_tuples(described[1])
    options = {k: initializer(v) if k.endswith("_init") else v for k, v in options.items()}
    options.pop("input_dim", None)
    if kind == "max_pool":
        return partial(nn.max_pool, **{k: _tuples(v) for k, v in options.items()})
    if kind == "MLP":
        return MLP(**options)
    if kind == "Conv":
        options["padding"] = _tuples(options.get("padding", "SAME"))
    return Split(**options) if kind == "Split" else getattr(nn, kind)(**options)


def _with_tuples(options: Settings) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def made(s: Settings) -> nn.Module:
    """The module that settings describe.

    Raises:
        ValueError: there is no such network.
    """
    match s["net"]:
        case "NormedMLP":
            options = {k: v for k, v in s.items() if k not in ("net", "input_dim")}
            options["hidden_dims"] = tuple(s["hidden_dims"])
            if "activations" in s:
                options["activations"] = ACTIVATIONS[s["activations"]]
            if "kernel_init" in s:
                options["kernel_init"] = initializer(s["kernel_init"])
            return MLP(**options)
        case "StackedValue":
            encoder = nn.Dense(s["encoder_dim"]) if "encoder_dim" in s else None
            return StackedValue(tuple(s["hidden_dims"]), s["num"], s["layer_norm"], encoder)
        case "ImpalaEncoder":
            options = {k: v for k, v in s.items() if k not in ("net", "shape")}
            return ImpalaEncoder(**_with_tuples(options))
        case "Sequential":
            if s.get("held"):
                return Held(s["layers"])
            layers = [_layer(described) for described in s["layers"]]
            if "again" in s:  # one layer at two places
                layers.append(layers[s["again"]])
            drops = any(isinstance(layer, nn.Dropout) for layer in layers)
            return Layers(layers) if drops else nn.Sequential(layers)
    raise ValueError(f"unknown network {s['net']!r}")
