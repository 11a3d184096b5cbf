"""Matrix products on the CPU, fused with the bias, activation and gradient mask around them.

:func:`fused_matmul` multiplies float32 matrices, one pair or a batch of pairs, and then does what
a dense layer and its gradient do next: add a bias, take ``max(x, 0)``, mask with the derivative of
that function, sum the columns of the right factor for the bias's gradient. On matrices that are
used once, as in a training step, it is at least as fast as the best library, and the fused steps
take no additional time. ``compiler/pass_matmul.py`` replaces torch's operators by it; the source
is ``csrc/matmul.c``.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from idql_func.kernels.build import CFunction, c_functions, operator

_FLAGS = ("-ffp-contract=fast",)
"""Multiplications and additions are fused here, as in the matrix product of any library."""

KERNEL_NAME = "idql_func_fused_matmul"
"""The name by which generated code calls the product.

Torch caches generated code on disk: if the arguments change their meaning, this name and that of
the operator must change too.
"""


@functools.cache
def functions() -> dict[str, CFunction] | None:
    """The C functions, or None where there is no C compiler."""
    signatures = {"fused_matmul": "p" * 6 + "n" * 11, "fused_matmul_sequence": "nl"}
    return c_functions("matmul", signatures, _FLAGS)


def functions_if_built() -> dict[str, CFunction] | None:
    """The C functions if :func:`functions` has been called; building them takes seconds."""
    return functions() if functions.cache_info().currsize else None


def available() -> bool:
    """Whether the product can be used: a C compiler is installed and compiles the source.

    >>> available() in (True, False)
    True
    """
    return functions() is not None


def _dimensions(
    a: Any, b: Any, a_transposed: bool, b_transposed: bool
) -> tuple[Any, Any, Any, Any]:
    """``(G, M, N, K)``; only the shapes of ``a`` and ``b`` are read, which may be symbolic."""
    m, k = a.shape[-2:][::-1] if a_transposed else a.shape[-2:]
    n = b.shape[-2] if b_transposed else b.shape[-1]
    return next((x.shape[0] for x in (a, b) if len(x.shape) == 3), 1), m, n, k


def fused_matmul_shape(
    a: Any, b: Any, a_transposed: bool, b_transposed: bool, sums: bool
) -> tuple[Any, ...]:
    """The shape of the result; sizes may be symbolic and stay so."""
    batch, m, n, _ = _dimensions(a, b, a_transposed, b_transposed)
    if sums:
        return (batch * (m + 1) * n,)
    return (batch, m, n) if 3 in (len(a.shape), len(b.shape)) else (m, n)


def _fake(a: Tensor, b: Tensor, *others: Any) -> Tensor:
    a_transposed, b_transposed, _, _, _, sums = others
    return a.new_empty(fused_matmul_shape(a, b, a_transposed, b_transposed, sums))


def fused_matmul_into(*arguments: Any, out: Tensor) -> None:
    """Write the product into ``out``.

    Args:
        arguments: ``(a, b, [bias], [gate], layout)``; the layout is that of
            :func:`fused_matmul_layout`.
        out: contiguous, of the shape given by :func:`fused_matmul_shape`.
    """
    *tensors, (bias, gate, sums, numbers) = arguments
    addresses = [tensor.data_ptr() for tensor in tensors]
    addresses.append(0)  # at index -1: no bias, no gate
    a, b, *_ = addresses
    product = out.data_ptr()
    pointers = a, b, product, addresses[bias], addresses[gate], product + sums if sums else 0
    library = functions()
    assert library is not None
    library["fused_matmul"](*pointers, *numbers, torch.get_num_threads())


def fused_matmul_layout(
    a: Any, b: Any, a_transposed: bool, b_transposed: bool, bias: Any, relu: bool, gate: Any,
    sums: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """``(bias, gate, sums, numbers)``, the last argument of :func:`fused_matmul_into`.

    ``bias`` and ``gate`` are positions among the tensors, or -1 if there is none; ``sums`` is the
    offset of the sums in bytes, or 0; ``numbers`` are the arguments of the C function between the
    pointers and the threads.
    """
    batch, m, n, k = map(int, _dimensions(a, b, a_transposed, b_transposed))
    a_step = m * k if len(a.shape) == 3 else 0
    b_step = k * n if len(b.shape) == 3 else 0
    bias_step = n if bias is not None and len(bias.shape) == 2 else 0
    flags = int(a_transposed), int(b_transposed), int(relu)
    numbers = batch, m, n, k, a_step, b_step, bias_step, *flags
    at_bias = -1 if bias is None else 2
    at_gate = -1 if gate is None else 2 + (bias is not None)
    return at_bias, at_gate, 4 * batch * m * n if sums else 0, numbers


def _run(*arguments: Any) -> Tensor:
    out = _fake(*arguments)
    tensors = [x.contiguous() for x in arguments if isinstance(x, Tensor)]
    fused_matmul_into(*tensors, fused_matmul_layout(*arguments), out=out)
    return out


fused_matmul = operator(
    "fused_matmul(Tensor a, Tensor b, bool a_transposed, bool b_transposed, Tensor? bias, "
    "bool relu, Tensor? gate, bool sums) -> Tensor",
    _run,
    fake=_fake,
)
"""``a @ b`` of float32 tensors ``[M, K]`` or ``[G, M, K]``, and ``[K, N]`` or ``[G, K, N]``.

A transposed factor is passed as ``[K, M]`` or ``[N, K]``. First ``bias`` ``[N]`` or ``[G, N]`` is
added; then, if ``relu``, the maximum with 0 is taken; then elements whose ``gate`` (of the result's
shape) is 0 or less are set to 0. If ``sums``, the result is flat: the elements of the product,
followed by the sums of ``b``'s columns, ``[G * N]``. The operator has no gradient: it replaces
products in graphs that already contain their gradients.
"""
