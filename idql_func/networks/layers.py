"""Flax's layers: activations, Dense, LayerNorm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from idql_func.deprecation import moved_names
from idql_func.networks.activations import mish  # noqa: F401 (also importable from here)
from idql_func.networks.initializers import Initializer, lecun_normal, ones, zeros
from idql_func.networks.module import LazyRng, Module
from idql_func.switches import bfloat16_matmul

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


# --- inputs in parts ------------------------------------------------------------------


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


# --- layers ---------------------------------------------------------------------------


def matmul(x: Tensor, kernel: Tensor) -> Tensor:
    """``x @ kernel`` in float32, or with both factors rounded to bfloat16 if that is switched on.

    The gradient's products are rounded alike; sums and results are float32. Double precision is
    never rounded. ``training.runtime.matmul_precision.matmul_precision("bf16")`` switches it on.

    >>> from idql_func.switches import set_bfloat16_matmul
    >>> with set_bfloat16_matmul(True):
    ...     matmul(torch.tensor([[1.0 + 2**-10]]), torch.ones(1, 1))
    tensor([[1.]])
    """
    if bfloat16_matmul() and x.dtype == kernel.dtype == torch.float32:
        return torch.matmul(x.bfloat16(), kernel.bfloat16()).float()
    return torch.matmul(x, kernel)


class Dense(Module):
    """``x @ kernel + bias`` with ``kernel`` ``[in, out]`` (``flax.linen.Dense``).

    ``x`` is ``[..., in]``, or a sequence of parts for :func:`join`. Each part is then multiplied
    by its rows of the kernel before it is broadcast, so that a part that several rows share is
    multiplied once. Without ``use_bias`` there is no ``bias``.

    >>> sorted(name for name, _ in Dense(3, 2).named_parameters())
    ['bias', 'kernel']
    """

    kernel: Tensor
    bias: Tensor

    def __init__(
        self,
        input_dim: int,
        features: int,
        kernel_init: Initializer | None = None,
        use_bias: bool = True,
        bias_init: Initializer = zeros,
    ) -> None:
        super().__init__()
        self.output_dim, self.use_bias = features, use_bias
        kernel_init = kernel_init or lecun_normal()
        self.declare("kernel", (input_dim, features), kernel_init, torch.float32)
        if use_bias:
            self.declare("bias", (features,), bias_init, torch.float32)

    def forward(
        self, x: Tensor | Sequence[Part], training: bool = False, rng: LazyRng | None = None
    ) -> Tensor:
        if isinstance(x, Tensor):
            product = matmul(x, self.kernel)
            return _add_bias(product, self.bias) if self.use_bias else product
        bias = self.bias if self.use_bias else self.kernel.new_zeros(())
        blocks = self.kernel.split(
            [(p.table if isinstance(p, IndexedRows) else p).shape[-1] for p in x]
        )
        factors = [_factors(part, block) for part, block in zip(x, blocks, strict=True)]
        shape = torch.broadcast_shapes(*(rows.shape[:-1] for rows, _ in factors))
        # parts of the full shape are multiplied together, the others are added to the bias
        full = [(rows, block) for rows, block in factors if rows.shape[:-1] == shape]
        for part, (rows, block) in zip(x, factors, strict=True):
            if rows.shape[:-1] != shape:
                indexed = isinstance(part, IndexedRows)
                bias = bias + (block[part.index] if indexed else matmul(rows, block))
        if len(full) == len(x) and all(isinstance(part, Tensor) for part in x):
            return _add_bias(matmul(join(x), self.kernel), bias)
        if not full:
            return bias
        inputs, kernels = zip(*full, strict=True)
        return _add_bias(matmul(torch.cat(inputs, dim=-1), torch.cat(kernels)), bias)


def _add_bias(product: Tensor, bias: Tensor) -> Tensor:
    # Through a view, Inductor fuses the addition into the kernel that follows. Without it Inductor
    # makes one addmm of the two, which on a CPU first writes the bias to every row.
    return (product.unsqueeze(0) + bias).squeeze(0)


def _factors(part: Part, block: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrices whose product is ``rows @ block``.

    A table is multiplied by the block first. A one-hot matrix then selects rows of that product,
    in the forward pass and in the gradient.
    """
    if isinstance(part, IndexedRows):
        positions = torch.arange(part.table.shape[0], device=part.index.device)
        one_hot = (part.index.unsqueeze(-1) == positions).to(part.table.dtype)
        return one_hot, matmul(part.table, block)
    return part.to(block.dtype), block  # float32 draws with parameters in double precision


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
        self.declare("scale", (input_dim,), ones, torch.float32)
        self.declare("bias", (input_dim,), zeros, torch.float32)

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        variance = torch.clamp((x * x).mean(dim=-1, keepdim=True) - mean * mean, min=0.0)
        return (x - mean) * (torch.rsqrt(variance + self.epsilon) * self.scale) + self.bias


__getattr__ = moved_names(__name__)
