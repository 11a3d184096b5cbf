"""Traced tensors as indices, and one clear sentence where a function reads their values.

A tensor that is traced by ``jit`` or mapped by ``vmap`` stands for many values. Reading one with
``if``, ``float()`` or ``.item()`` can't work; indexing with one can, as in JAX.
"""

from __future__ import annotations

import inspect
import linecache
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_STATIC = "or make the argument that it depends on static (static_argnames)"
_READS: dict[Any, str] = {
    Tensor.__bool__: f"write torch.where(condition, x, y) instead of a branch, {_STATIC}",
    Tensor.item: f"keep it a tensor, {_STATIC}",
    Tensor.__float__: f"keep it a tensor, {_STATIC}",
    Tensor.__int__: f"keep it a tensor, {_STATIC}",
    Tensor.__index__: f"index with the tensor, {_STATIC}",
    Tensor.tolist: f"keep it a tensor, {_STATIC}",
    Tensor.numpy: f"use operations of torch, {_STATIC}",
    Tensor.__array__: f"use operations of torch, {_STATIC}",
}
_SHAPE = (
    "the shape of its result depends on values: write torch.where(mask, x, other), whose result "
    f"has the shape of x, {_STATIC}"
)
_SLICE = (
    "the bounds of a slice must be Python integers: index with start + torch.arange(length), "
    f"{_STATIC}"
)
_DATA_DEPENDENT = {
    "GuardOnDataDependentSymNode",
    "DataDependentOutputException",
    "DynamicOutputShapeException",
}
"""Names of torch's errors about values that are not known."""
_LIBRARIES = tuple(str(Path(str(m.__file__)).parent) for m in (torch, sys.modules["idql_func"]))


class TracedValues(TorchFunctionMode):
    """Within the block, traced tensors may be indices, and reading their values raises TypeError.

    >>> with TracedValues("jit(f)"):
    ...     torch.arange(5)[torch.tensor(3)].item()
    3
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the function."""
        if func is Tensor.__getitem__:
            args = _with_tensor_indices(*args)
        try:
            result = func(*args, **(kwargs or {}))
        except Exception as error:
            if _is_read(func, args, error):
                advice = _SLICE if _has_slice(args) else _READS.get(func, _SHAPE)
                raise TypeError(f"{self.name}: {_reader()}; {advice}.") from None
            raise
        if func in _READS and isinstance(result, torch.SymInt | torch.SymFloat | torch.SymBool):
            raise TypeError(f"{self.name}: {_reader()}; {_READS[func]}.")
        if _has_unknown_sizes(result) and not _has_unknown_sizes((args, kwargs)):
            advice = _SLICE if _has_slice(args) else _SHAPE
            raise TypeError(f"{self.name}: {_reader()}; {advice}.")
        return result


def is_read_of_values(error: Exception) -> bool:
    """Whether torch refuses a function for reading the values of mapped tensors."""
    text = str(error)
    return text.startswith(("vmap: It looks like", "Cannot access data pointer")) or (
        text.startswith("vmap: ") and "dynamic shape" in text
    )


def _is_read(func: Any, args: tuple[Any, ...], error: Exception) -> bool:
    if type(error).__name__ in _DATA_DEPENDENT or is_read_of_values(error):
        return True
    if func in _READS and isinstance(error, RuntimeError):
        return args[0].numel() == 1 or func in (Tensor.numpy, Tensor.__array__, Tensor.tolist)
    return False


def _has_slice(args: tuple[Any, ...]) -> bool:
    """Whether the arguments are a tensor and an index with a slice of tensors."""
    index = args[1] if len(args) > 1 else None
    return any(
        isinstance(part, slice) and any(isinstance(x, Tensor) for x in (part.start, part.stop))
        for part in (index if isinstance(index, tuple) else (index,))
    )


def _reader() -> str:
    """The caller's line that reads a value."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame = frame.f_back
    if frame is None:
        return "the function reads the value of a traced tensor"
    file, line = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(file, line, frame.f_globals).strip()
    return (
        f"{file}, line {line}, in {frame.f_code.co_name} reads the value of a traced tensor"
        f"{f' ({source})' if source else ''}, which has none yet"
    )


def _is_index(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0 and _is_integer(value)


def _is_integer(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and tensor.dtype != torch.bool


def _with_tensor_indices(x: Any, index: Any) -> tuple[Any, Any]:
    """The same selection with 0 in place of each traced integer, from a tensor of these rows.

    An index past the end selects the last row, as in JAX.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    if not any(map(_is_index, parts)):
        return x, index
    if not all(
        _is_index(p) or p is None or p is Ellipsis or isinstance(p, int | slice) for p in parts
    ):
        return x, index
    dim = 0
    used = sum(p is not None and p is not Ellipsis for p in parts)
    for k, part in enumerate(parts):
        if part is Ellipsis:
            dim += x.ndim - used
        elif part is not None:
            if _is_index(part):
                count = x.shape[dim]
                place = torch.where(part < 0, part + count, part).clamp(0, count - 1)
                x = x.index_select(dim, place.reshape(1))
                parts[k] = 0
            dim += 1
    return x, tuple(parts)


def _has_unknown_sizes(value: Any) -> bool:
    """Whether a value is or holds a size that is not known while tracing, or a tensor of one."""
    if isinstance(value, Tensor):
        return _has_unknown_sizes(value.shape)
    if isinstance(value, list | tuple):
        return any(map(_has_unknown_sizes, value))
    if isinstance(value, dict):
        return any(map(_has_unknown_sizes, value.values()))
    return isinstance(value, torch.SymInt)
