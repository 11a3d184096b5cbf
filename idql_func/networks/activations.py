"""Activations of Flax beside ``relu`` and ``swish``, which IDQL itself uses."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from idql_func.boundary import explain_module
from idql_func.switches import float_dtype


def gelu(x: Tensor, approximate: bool = True) -> Tensor:
    """``x * Phi(x)`` with the normal distribution function ``Phi`` (arXiv 1606.08415).

    By default ``Phi(x)`` is approximated by ``(1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2``,
    as in Flax's ``nn.gelu``; torch's default is the exact one. Integers give floats.

    >>> import torch
    >>> x = torch.tensor([-1.0, 0.0, 2.0])
    >>> [round(v, 4) for v in gelu(x).tolist()]
    [-0.1588, 0.0, 1.9546]
    >>> [round(v, 4) for v in gelu(x, approximate=False).tolist()]
    [-0.1587, 0.0, 1.9545]
    """
    values = x if x.is_floating_point() else x.to(float_dtype())
    return F.gelu(values, approximate="tanh" if approximate else "none")


def mish(x: Tensor) -> Tensor:
    """``x * tanh(softplus(x))`` (arXiv 1908.08681).

    >>> import torch
    >>> mish(torch.tensor(0.0)).item()
    0.0
    """
    return F.mish(x)


explain_module(__name__)
