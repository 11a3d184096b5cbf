"""The matrix product of the layers, in the precision that the run asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from idql_func.switches import bfloat16_matmul

__all__ = ["matmul"]


def matmul(x: Tensor, kernel: Tensor) -> Tensor:
    """``x @ kernel``: in float32, or with both factors rounded to bfloat16 if that was asked for.

    The gradient's two products are then rounded alike. Sums are taken in float32, and the result
    is float32 again, rounded to the 8 bits of bfloat16. Double precision stays what it is. It is
    asked for by ``idql_func.training.runtime.matmul_precision.matmul_precision("bf16")``.

    >>> from idql_func.switches import set_bfloat16_matmul
    >>> with set_bfloat16_matmul(True):
    ...     matmul(torch.tensor([[1.0 + 2**-10]]), torch.ones(1, 1))
    tensor([[1.]])
    """
    if bfloat16_matmul() and x.dtype == kernel.dtype == torch.float32:
        return torch.matmul(x.bfloat16(), kernel.bfloat16()).float()
    return torch.matmul(x, kernel)
