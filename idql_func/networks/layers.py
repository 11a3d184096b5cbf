"""Flax's layers and initialisers: Dense, LayerNorm, Dropout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from idql_func import random
from idql_func.deprecation import moved_names
from idql_func.networks.module import Initializer, LazyRng, Module
from idql_func.networks.products import matmul
from idql_func.types import PRNGKey

Activation = Callable[[Tensor], Tensor]


def relu(x: Tensor) -> Tensor:
    """``max(x, 0)``.

    >>> relu(torch.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return torch.relu(x)


def swish(x: Tensor) -> Tensor:
    """``x * sigmoid(x)``.

    >>> swish(torch.tensor(0.0)).item()
    0.0
    """
    return F.silu(x)


def mish(x: Tensor) -> Tensor:
    """``x * tanh(softplus(x))`` (arXiv 1908.08681).

    >>> mish(torch.tensor(0.0)).item()
    0.0
    """
    return F.mish(x)


# --- initialisers ---------------------------------------------------------------------


def _fans(shape: tuple[int, ...]) -> tuple[float, float]:
    field = math.prod(shape[:-2])
    return shape[-2] * field, shape[-1] * field


def xavier_uniform() -> Initializer:
    """Uniform with variance ``2 / (fan_in + fan_out)`` (Glorot and Bengio, 2010).

    >>> float(xavier_uniform()(random.PRNGKey(0), (3, 3)).abs().max()) <= 1.0
    True
    """

    def draw(key: PRNGKey, shape: tuple[int, ...]) -> Tensor:
        fan_in, fan_out = _fans(shape)
        variance = np.float32(1.0 / ((fan_in + fan_out) / 2))
        scale = float(np.sqrt(np.float32(3) * variance))
        return random.uniform(key, shape, torch.float32, -1.0, 1.0) * scale

    return draw


default_init = xavier_uniform
"""Upstream's initialiser of every kernel but those of the residual blocks (quirk N4)."""


def lecun_normal() -> Initializer:
    """Normal, cut at two deviations, with variance ``1 / fan_in``; Flax's default.

    >>> lecun_normal()(random.PRNGKey(0), (2, 3)).shape
    torch.Size([2, 3])
    """

    def draw(key: PRNGKey, shape: tuple[int, ...]) -> Tensor:
        # .8796... is the deviation of a unit normal cut at two deviations
        variance = np.float32(1.0 / _fans(shape)[0])
        deviation = float(np.sqrt(variance) / np.float32(0.87962566103423978))
        return random.truncated_normal(key, -2.0, 2.0, shape, torch.float32) * deviation

    return draw


def normal(stddev: float) -> Initializer:
    """Normal with a given deviation.

    >>> normal(0.2)(random.PRNGKey(0), (2, 1)).shape
    torch.Size([2, 1])
    """
    return lambda key, shape: random.normal(key, shape, torch.float32) * stddev


def zeros(key: PRNGKey, shape: tuple[int, ...]) -> Tensor:
    """All zero, whatever the key.

    >>> zeros(random.PRNGKey(0), (2,)).tolist()
    [0.0, 0.0]
    """
    return torch.zeros(shape, device=key.device)


def ones(key: PRNGKey, shape: tuple[int, ...]) -> Tensor:
    """All one, whatever the key.

    >>> ones(random.PRNGKey(0), (2,)).tolist()
    [1.0, 1.0]
    """
    return torch.ones(shape, device=key.device)


# --- layers ---------------------------------------------------------------------------


class IndexedRows(NamedTuple):
    """Rows ``table[index]``, ``[..., C]``, of a table ``[T, C]``, not gathered yet.

    A layer that acts on each row separately can act on the ``T`` rows of the table instead.

    >>> IndexedRows(torch.tensor([1, 1, 0]), torch.tensor([[1.0], [2.0]])).rows().T
    tensor([[2., 2., 1.]])
    """

    index: Tensor
    table: Tensor

    def rows(self) -> Tensor:
        """Gather the rows: ``[..., C]``."""
        return self.table[self.index]


Part = Tensor | IndexedRows
"""Some columns of a layer's input."""


def join(parts: Sequence[Part]) -> Tensor:
    """Concatenate parts of an input, ``[..., sum of columns]``; their other axes broadcast.

    >>> rows = IndexedRows(torch.tensor(0), torch.ones(5, 2))
    >>> join([torch.zeros(2, 3), torch.ones(1, 1), rows]).shape
    torch.Size([2, 6])
    """
    tensors = [part.rows() if isinstance(part, IndexedRows) else part for part in parts]
    shape = torch.broadcast_shapes(*(x.shape[:-1] for x in tensors))
    return torch.cat([x.expand(*shape, x.shape[-1]) for x in tensors], dim=-1)


class Dense(Module):
    """``x @ kernel + bias`` with ``kernel`` ``[in, out]`` (``flax.linen.Dense``).

    ``x`` is ``[..., in]``, or a sequence of parts for :func:`join`: each then meets its rows of the
    kernel in its own shape, so that what several rows share is multiplied once.

    >>> sorted(name for name, _ in Dense(3, 2).named_parameters())
    ['bias', 'kernel']
    """

    kernel: Tensor
    bias: Tensor

    def __init__(
        self, input_dim: int, features: int, kernel_init: Initializer | None = None
    ) -> None:
        super().__init__()
        self.output_dim = features
        self.declare("kernel", (input_dim, features), kernel_init or lecun_normal())
        self.declare("bias", (features,), zeros)

    def forward(
        self,
        x: Tensor | Sequence[Part],
        training: bool = False,
        rng: LazyRng | None = None,
    ) -> Tensor:
        if isinstance(x, Tensor):
            return _plus(matmul(x, self.kernel), self.bias)
        blocks = self.kernel.split([_columns(part) for part in x])
        factors = [_factors(part, block) for part, block in zip(x, blocks, strict=True)]
        shape = torch.broadcast_shapes(*(rows.shape[:-1] for rows, _ in factors))
        whole = [(rows, block) for rows, block in factors if rows.shape[:-1] == shape]
        rest = self.bias
        for part, (rows, block) in zip(x, factors, strict=True):
            if rows.shape[:-1] != shape:
                few = block[part.index] if isinstance(part, IndexedRows) else matmul(rows, block)
                rest = rest + few
        if len(whole) == len(x) and all(isinstance(part, Tensor) for part in x):
            return _plus(matmul(join(x), self.kernel), rest)
        if not whole:
            return rest
        inputs, kernels = zip(*whole, strict=True)
        return _plus(matmul(torch.cat(inputs, dim=-1), torch.cat(kernels)), rest)


def _plus(product: Tensor, bias: Tensor) -> Tensor:
    # Behind a view the compiler leaves the addition to the next kernel; bare, it would make the two
    # one addmm, which on the CPU writes the bias to every row before it multiplies.
    return (product.unsqueeze(0) + bias).squeeze(0)


def _columns(part: Part) -> int:
    return (part.table if isinstance(part, IndexedRows) else part).shape[-1]


def _factors(part: Part, block: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrices whose product is ``rows @ block``.

    A table is multiplied as such; ones and zeros then choose among the rows of its product, in
    this direction as in the gradient's.
    """
    if isinstance(part, IndexedRows):
        return _one_hot(part.index, part.table), matmul(part.table, block)
    return part.to(block.dtype), block  # float32 draws meet a learner in double precision


def _one_hot(index: Tensor, table: Tensor) -> Tensor:
    positions = torch.arange(table.shape[0], device=index.device)
    return (index.unsqueeze(-1) == positions).to(table.dtype)


class LayerNorm(Module):
    """Flax's layer norm: eps 1e-6, variance ``E[x^2] - E[x]^2`` floored at 0 (quirk N5).

    >>> sorted(name for name, _ in LayerNorm(3).named_parameters())
    ['bias', 'scale']
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, input_dim: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.output_dim = input_dim
        self.epsilon = epsilon
        self.declare("scale", (input_dim,), ones)
        self.declare("bias", (input_dim,), zeros)

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        variance = torch.clamp((x * x).mean(dim=-1, keepdim=True) - mean * mean, min=0.0)
        return (x - mean) * (torch.rsqrt(variance + self.epsilon) * self.scale) + self.bias


class Dropout(Module):
    """Zero a share ``rate`` of the entries and scale the others up (``flax.linen.Dropout``).

    >>> layer = Dropout(0.5)
    >>> layer(torch.ones(4), training=True, rng=LazyRng(random.PRNGKey(0))).unique().tolist()
    [0.0, 2.0]
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        if not training or self.rate == 0:
            return x
        if rng is None:
            raise ValueError("Dropout: training needs a key; pass rngs={'dropout': key}.")
        if self.rate == 1:
            return torch.zeros_like(x)
        keep = random.bernoulli(rng.make(1), 1.0 - self.rate, tuple(x.shape))
        return torch.where(keep, x / (1.0 - self.rate), torch.zeros_like(x))


__getattr__ = moved_names(__name__, {"Looked": f"{__name__}:IndexedRows"})
