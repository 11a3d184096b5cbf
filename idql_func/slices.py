"""Slices whose place is a tensor, ``stop_gradient`` and ``logsumexp``, after ``jax.lax``.

Their names are found in :mod:`idql_func` and in :mod:`idql_func.transforms`. They work eagerly and
under every transform; a slice that would pass an end is moved to lie inside, as in JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from idql_func.boundary import describe, explain_module
from idql_func.tree import NUMPY, array_tensor, tree_map
from idql_func.types import PyTree

__all__ = [
    "dynamic_index_in_dim",
    "dynamic_slice",
    "dynamic_slice_in_dim",
    "dynamic_update_slice",
    "dynamic_update_slice_in_dim",
    "logsumexp",
    "stop_gradient",
]


def dynamic_slice(
    operand: Tensor, start_indices: Sequence[int | Tensor] | Tensor, slice_sizes: Sequence[int]
) -> Tensor:
    """The part of ``operand`` of given sizes that begins at given places (``jax.lax``).

    Args:
        operand: any tensor.
        start_indices: an integer for each axis, which may be a traced or mapped tensor. A negative
            one counts from the end.
        slice_sizes: the size of the part along each axis.

    Raises:
        TypeError: a start is no integer, or their number is not that of the axes.
        ValueError: a size is negative or larger than its axis.

    >>> x = torch.arange(12).reshape(3, 4)
    >>> dynamic_slice(x, (1, torch.tensor(3)), (2, 2)).tolist()
    [[6, 7], [10, 11]]
    """
    operand = _tensor("dynamic_slice: operand", operand)
    starts = _starts("dynamic_slice", operand, start_indices)
    sizes = _sizes("dynamic_slice", operand, slice_sizes)
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        operand = _part(operand, start, size, axis)
    return operand


def dynamic_slice_in_dim(
    operand: Tensor, start_index: int | Tensor, slice_size: int, axis: int = 0
) -> Tensor:
    """:func:`dynamic_slice` along one axis (``jax.lax``).

    >>> dynamic_slice_in_dim(torch.arange(5), torch.tensor(4), 2).tolist()
    [3, 4]
    """
    name = "dynamic_slice_in_dim"
    operand = _tensor(f"{name}: operand", operand)
    axis = _axis(name, axis, operand)
    sizes = [*operand.shape]
    sizes[axis] = slice_size
    _sizes(name, operand, sizes)
    return _part(operand, _start(name, start_index, operand), slice_size, axis)


def dynamic_index_in_dim(
    operand: Tensor, index: int | Tensor, axis: int = 0, keepdims: bool = True
) -> Tensor:
    """One row along an axis (``jax.lax``); the axis stays, with size 1, unless ``keepdims`` is off.

    >>> dynamic_index_in_dim(torch.arange(5), torch.tensor(9), keepdims=False).item()
    4
    """
    name = "dynamic_index_in_dim"
    operand = _tensor(f"{name}: operand", operand)
    axis = _axis(name, axis, operand)
    if operand.shape[axis] == 0:
        raise ValueError(f"{name}: axis {axis} is empty.")
    row = _part(operand, _start(name, index, operand), 1, axis)
    return row if keepdims else row.squeeze(axis)


def dynamic_update_slice(
    operand: Tensor, update: Tensor, start_indices: Sequence[int | Tensor] | Tensor
) -> Tensor:
    """``operand`` with ``update`` in place of the part that begins at given places (``jax.lax``).

    The operand itself is not changed. The arguments are those of :func:`dynamic_slice`.

    Raises:
        TypeError: a start is no integer, their number is not that of the axes, or the dtypes or the
            numbers of axes of operand and update differ.
        ValueError: the update is larger than the operand.

    >>> dynamic_update_slice(torch.zeros(4), torch.ones(2), (torch.tensor(3),)).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    name = "dynamic_update_slice"
    operand, update = _tensor(f"{name}: operand", operand), _tensor(f"{name}: update", update)
    starts = _starts(name, operand, start_indices)
    if operand.dtype != update.dtype or operand.ndim != update.ndim:
        raise TypeError(
            f"{name}: operand and update must have one dtype and number of axes, got "
            f"{describe(operand)} and {describe(update)}."
        )
    sizes = _sizes(name, operand, update.shape)
    # each entry of the operand reads its own place in the update, where it has one
    chosen: Tensor | None = None
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        length = operand.shape[axis]
        if size == length:
            continue
        if size == 0:
            return operand
        place = torch.arange(length, device=operand.device) - _inside(start, size, length)
        update = update.index_select(axis, place.clamp(0, size - 1))
        shape = [length if k == axis else 1 for k in range(operand.ndim)]
        inside = ((place >= 0) & (place < size)).reshape(shape)
        chosen = inside if chosen is None else chosen & inside
    return update if chosen is None else torch.where(chosen, update, operand)


def dynamic_update_slice_in_dim(
    operand: Tensor, update: Tensor, start_index: int | Tensor, axis: int
) -> Tensor:
    """:func:`dynamic_update_slice` along one axis (``jax.lax``).

    >>> dynamic_update_slice_in_dim(torch.zeros(4), torch.ones(2), 1, axis=0).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    name = "dynamic_update_slice_in_dim"
    operand = _tensor(f"{name}: operand", operand)
    starts: list[int | Tensor] = [0] * operand.ndim
    starts[_axis(name, axis, operand)] = start_index
    return dynamic_update_slice(operand, update, starts)


def stop_gradient(x: PyTree) -> PyTree:
    """The same tree, whose tensors count as constants in derivatives (``jax.lax``).

    >>> from idql_func import grad
    >>> grad(lambda x: x * stop_gradient({"x": x})["x"])(torch.tensor(3.0)).item()
    3.0
    """
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, x)


def logsumexp(
    a: Tensor,
    axis: int | tuple[int, ...] | None = None,
    b: Tensor | None = None,
    keepdims: bool = False,
) -> Tensor:
    """``log(sum(b exp(a)))`` along some axes, all by default (``jax.scipy.special.logsumexp``).

    Computed relative to the largest entry; NaN where the sum with ``b`` is negative.

    Raises:
        ValueError: there is no such axis, or nothing to sum.

    >>> round(logsumexp(torch.tensor([1000.0, 1000.0])).item(), 2)
    1000.69
    """
    a = _tensor("logsumexp: a", a)
    if not a.is_floating_point():
        raise TypeError(f"logsumexp: a must be floating, got {a.dtype}.")
    if b is not None:
        b = torch.as_tensor(b, dtype=a.dtype, device=a.device)
        a, b = torch.broadcast_tensors(a, b)
        a = torch.where(b != 0, a, -torch.inf)
    axes = range(a.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = [_axis("logsumexp", k, a) for k in axes]
    if any(a.shape[k] == 0 for k in axes):
        raise ValueError(f"logsumexp: there is nothing to sum in shape {tuple(a.shape)}.")
    if not axes:
        return a if b is None else a + torch.log(b)
    top = a.detach().amax(dim=axes, keepdim=True)
    top = torch.where(top.isfinite(), top, 0.0)
    terms = torch.exp(a - top)
    total = (terms if b is None else b * terms).sum(dim=axes, keepdim=True)
    result = torch.log(total) + top
    return result if keepdims else result.squeeze(tuple(axes))


# --- parts --------------------------------------------------------------------------------------


def _part(operand: Tensor, start: int | Tensor, size: int, axis: int) -> Tensor:
    length = operand.shape[axis]
    if size == length:
        return operand
    first = _inside(start, size, length)
    if isinstance(first, int):
        return operand.narrow(axis, first, size)
    return operand.index_select(axis, first + torch.arange(size, device=operand.device))


def _inside(start: int | Tensor, size: int, length: int) -> Any:
    """The start of a part that lies inside the axis."""
    if isinstance(start, int):
        start = start + length if start < 0 else start
        return min(max(start, 0), length - size)
    return torch.where(start < 0, start + length, start).clamp(0, length - size)


def _tensor(what: str, value: Any) -> Tensor:
    tensor = value if isinstance(value, Tensor) else array_tensor(value)
    if tensor is None:
        raise TypeError(f"{what} must be a tensor, got {describe(value)}.")
    return tensor


def _axis(name: str, axis: int, operand: Tensor) -> int:
    if not -operand.ndim <= axis < operand.ndim:
        raise ValueError(f"{name}: there is no axis {axis} in a tensor of {operand.ndim} axes.")
    return axis % operand.ndim


def _sizes(name: str, operand: Tensor, sizes: Sequence[int]) -> list[int]:
    if len(sizes) != operand.ndim:
        raise TypeError(
            f"{name}: there must be a size for each of the {operand.ndim} axes, got {len(sizes)}."
        )
    for size, length in zip(sizes, operand.shape, strict=True):
        if not 0 <= size <= length:
            raise ValueError(
                f"{name}: sizes must lie between 0 and those of the operand, "
                f"{tuple(operand.shape)}, got {tuple(sizes)}."
            )
    return [*sizes]


def _starts(name: str, operand: Tensor, starts: Any) -> list[int | Tensor]:
    starts = array_tensor(starts) if isinstance(starts, NUMPY) else starts
    if isinstance(starts, Tensor):
        starts = starts.unbind(0) if starts.ndim == 1 else starts
    if not isinstance(starts, Sequence) or len(starts) != operand.ndim:
        count = len(starts) if isinstance(starts, Sequence) else describe(starts)
        raise TypeError(
            f"{name}: start_indices must hold an integer for each of the {operand.ndim} axes, got "
            f"{count}."
        )
    return [_start(name, start, operand) for start in starts]


def _start(name: str, start: Any, operand: Tensor) -> int | Tensor:
    if isinstance(start, int) and not isinstance(start, bool):
        return start
    tensor = start if isinstance(start, Tensor) else array_tensor(start)
    whole = tensor is not None and not tensor.is_floating_point() and tensor.dtype != torch.bool
    if tensor is None or not whole or tensor.ndim:
        raise TypeError(f"{name}: a start must be one integer, got {describe(start)}.")
    return tensor.to(operand.device, torch.int64)


explain_module(__name__)
