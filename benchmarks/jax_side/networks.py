"""Flax networks with the parameter trees of the port: names, nesting, shapes and layout."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

xavier = nn.initializers.xavier_uniform


def mish(x: jax.Array) -> jax.Array:
    """``x * tanh(softplus(x))``."""
    return x * jnp.tanh(nn.softplus(x))


class MLP(nn.Module):
    """Dense, dropout, activation; layer norm only on the input (quirks N1, N2)."""

    hidden_dims: Sequence[int]
    activation: Callable[..., Any] = nn.relu
    activate_final: bool = False
    layer_norm: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        if self.layer_norm:
            x = nn.LayerNorm()(x)
        for i, size in enumerate(self.hidden_dims):
            x = nn.Dense(size, kernel_init=xavier())(x)
            if i + 1 < len(self.hidden_dims) or self.activate_final:
                if self.dropout:
                    x = nn.Dropout(self.dropout)(x, deterministic=not training)
                x = self.activation(x)
        return x


class MLPResNetBlock(nn.Module):
    """Dropout, layer norm, Dense of four times the width, activation, Dense, and the input."""

    features: int
    activation: Callable[..., Any]
    layer_norm: bool
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        y = x
        if self.dropout:
            y = nn.Dropout(self.dropout)(y, deterministic=not training)
        if self.layer_norm:
            y = nn.LayerNorm()(y)
        y = self.activation(nn.Dense(4 * self.features)(y))
        return x + nn.Dense(self.features)(y)


class MLPResNet(nn.Module):
    """Dense, residual blocks, activation, Dense."""

    num_blocks: int
    out_dim: int
    features: int
    activation: Callable[..., Any]
    layer_norm: bool
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        x = nn.Dense(self.features, kernel_init=xavier())(x)
        for _ in range(self.num_blocks):
            block = MLPResNetBlock(self.features, self.activation, self.layer_norm, self.dropout)
            x = block(x, training)
        return nn.Dense(self.out_dim, kernel_init=xavier())(self.activation(x))


class FourierFeatures(nn.Module):
    """``[cos(f), sin(f)]`` of ``f = 2 pi t w`` with learned ``w`` (quirk N7)."""

    size: int

    @nn.compact
    def __call__(self, time: jax.Array) -> jax.Array:
        w = self.param("kernel", nn.initializers.normal(0.2), (self.size // 2, time.shape[-1]))
        f = 2 * jnp.pi * time @ w.T
        return jnp.concatenate([jnp.cos(f), jnp.sin(f)], axis=-1)


class DDPM(nn.Module):
    """Predict the noise in a noisy action: ``[B, O], [B, A], [B, 1] -> [B, A]``.

    ``reverse()`` makes the network for action, observation and encoded time.
    """

    time_dim: int
    cond_dims: Sequence[int]
    activation: Callable[..., Any]
    reverse: Callable[[], nn.Module]

    @nn.compact
    def __call__(
        self, s: jax.Array, a: jax.Array, time: jax.Array, training: bool = False
    ) -> jax.Array:
        features = FourierFeatures(self.time_dim)(time)
        cond = MLP(self.cond_dims, self.activation)(features)
        return self.reverse()(jnp.concatenate([a, s, cond], axis=-1), training)


class StateValue(nn.Module):
    """``V(s)``, ``[B, O] -> [B]``."""

    hidden_dims: Sequence[int]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, s: jax.Array) -> jax.Array:
        x = MLP(self.hidden_dims, activate_final=True, layer_norm=self.layer_norm)(s)
        return nn.Dense(1, kernel_init=xavier(), name="OutputVDense")(x).squeeze(-1)


class StateActionValue(nn.Module):
    """``Q(s, a)``, ``[B, O], [B, A] -> [B]``."""

    hidden_dims: Sequence[int]
    layer_norm: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, s: jax.Array, a: jax.Array, training: bool = False) -> jax.Array:
        base = MLP(
            self.hidden_dims,
            activate_final=True,
            layer_norm=self.layer_norm,
            dropout=self.dropout,
        )
        x = base(jnp.concatenate([s, a], axis=-1), training)
        return nn.Dense(1, kernel_init=xavier())(x).squeeze(-1)


class Ensemble(nn.Module):
    """``num`` state-action values, each with its own weights and dropout, ``-> [num, B]``."""

    hidden_dims: Sequence[int]
    num: int = 2
    layer_norm: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, s: jax.Array, a: jax.Array, training: bool = False) -> jax.Array:
        member = nn.vmap(
            StateActionValue,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=None,  # type: ignore[arg-type]
            out_axes=0,
            axis_size=self.num,
        )
        return member(self.hidden_dims, self.layer_norm, self.dropout)(s, a, training)


class Diagonal(struct.PyTreeNode):
    """A diagonal normal distribution over actions, or its image under tanh."""

    loc: jax.Array
    scale: jax.Array
    tanh: bool = struct.field(pytree_node=False)

    def mode(self) -> jax.Array:
        return jnp.tanh(self.loc) if self.tanh else self.loc

    def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        # the action axis is drawn before those of the batch, as TFP draws
        *batch, size = self.loc.shape
        z = jnp.moveaxis(jax.random.normal(key, (size, *batch), self.loc.dtype), 0, -1)
        x = self.loc + self.scale * z
        return jnp.tanh(x) if self.tanh else x, self._log_density(z, x)

    def log_prob(self, value: jax.Array) -> jax.Array:
        if self.tanh:
            edge = 1 - jnp.finfo(value.dtype).eps / 2
            value = jnp.arctanh(jnp.clip(value, -edge, edge))
        return self._log_density((value - self.loc) / self.scale, value)

    def _log_density(self, z: jax.Array, x: jax.Array) -> jax.Array:
        scale = jnp.broadcast_to(self.scale, z.shape)
        each = -0.5 * z**2 - 0.5 * jnp.log(2 * jnp.pi) - jnp.log(scale)
        if self.tanh:
            each = each - 2 * (jnp.log(2.0) - x - nn.softplus(-2 * x))
        return each.sum(-1)


class Normal(nn.Module):
    """A policy ``[B, O] -> Diagonal``; ``log_std`` fixes its deviation (quirk U22)."""

    hidden_dims: Sequence[int]
    act_dim: int
    log_std: float | None = None
    tanh: bool = False
    layer_norm: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, s: jax.Array, training: bool = False) -> Diagonal:
        base = MLP(
            self.hidden_dims,
            activate_final=True,
            layer_norm=self.layer_norm,
            dropout=self.dropout,
        )
        x = base(s, training)
        loc = nn.Dense(self.act_dim, kernel_init=xavier(), name="OutputDenseMean")(x)
        if self.log_std is None:
            log_std = nn.Dense(self.act_dim, kernel_init=xavier(), name="OutputDenseLogStd")(x)
            bounds = (-20.0, 2.0)
        else:
            log_std = self.param("OutpuLogStd", nn.initializers.zeros, (self.act_dim,))
            bounds = (self.log_std, self.log_std)
        return Diagonal(loc, jnp.exp(jnp.clip(log_std, *bounds)), self.tanh)


class TanhDeterministic(nn.Module):
    """TD3's policy, ``[B, O] -> [B, A]``."""

    hidden_dims: Sequence[int]
    act_dim: int

    @nn.compact
    def __call__(self, s: jax.Array) -> jax.Array:
        x = MLP(self.hidden_dims, activate_final=True)(s)
        return jnp.tanh(nn.Dense(self.act_dim, kernel_init=xavier(), name="OutputDenseMean")(x))


class Temperature(nn.Module):
    """``exp(log_temp)``, a learned scalar."""

    initial: float = 1.0

    @nn.compact
    def __call__(self) -> jax.Array:
        return jnp.exp(self.param("log_temp", lambda _: jnp.log(jnp.float32(self.initial))))
