"""The shapes and dtypes of a function's results without running it, after ``jax.eval_shape``."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idql_func.boundary import describe, explain_module
from idql_func.compiler.effects import collected_effects
from idql_func.compiler.jit import name_of
from idql_func.compiler.trace import run_on_shapes
from idql_func.tree import array_tensor, number_dtype, tree_flatten, tree_paths, tree_unflatten
from idql_func.types import PyTree

__all__ = ["ShapeDtypeStruct", "eval_shape"]


@dataclass(frozen=True, init=False, repr=False)
class ShapeDtypeStruct:
    """The shape and the dtype of a tensor, without values (``jax.ShapeDtypeStruct``).

    ``dtype`` is one of torch or of NumPy.

    Raises:
        TypeError: the shape holds something other than integers of 0 and more, or the dtype is none
            that torch has.

    >>> x = ShapeDtypeStruct((3, 2), np.float32)
    >>> x, x.ndim, x.size
    (ShapeDtypeStruct(shape=(3, 2), dtype=float32), 2, 6)
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __init__(self, shape: Sequence[int], dtype: torch.dtype | Any) -> None:
        sizes = tuple(shape) if isinstance(shape, Sequence) else None
        if sizes is None or not all(_is_size(n) for n in sizes):
            raise TypeError(
                "ShapeDtypeStruct: shape must be a sequence of integers of 0 or more, got "
                f"{describe(shape)}."
            )
        object.__setattr__(self, "shape", tuple(int(n) for n in sizes))
        object.__setattr__(self, "dtype", _dtype(dtype))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("ShapeDtypeStruct: one without axes has no length.")
        return self.shape[0]

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"ShapeDtypeStruct(shape={self.shape}, dtype={dtype})"


def eval_shape(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> PyTree:
    """The shapes and dtypes of a function's result (``jax.eval_shape``); nothing is computed.

    The function runs once on tensors without values or memory, as under :func:`jit`: draws,
    optimisers and learners may be inside. A wrong shape raises as in a real call.

    Args:
        fun: the function.
        args: trees of tensors, arrays, numbers, :class:`ShapeDtypeStruct` or anything else with a
            ``shape`` and a ``dtype``.
        kwargs: the same by name.

    Returns:
        The tree of the result, with a :class:`ShapeDtypeStruct` for each leaf.

    Raises:
        TypeError: a leaf of the arguments or of the result is of another kind, or the function
            reads a value.

    >>> weights = ShapeDtypeStruct((2000, 3000), torch.float32)
    >>> eval_shape(lambda w, x: torch.tanh(w @ x), weights, ShapeDtypeStruct((3000,), np.float32))
    ShapeDtypeStruct(shape=(2000,), dtype=float32)
    """
    name = f"eval_shape({name_of(fun)})"
    leaves, spec = tree_flatten((args, kwargs))
    inputs = [_abstract(leaf) for leaf in leaves]
    if None in inputs:
        place = inputs.index(None)
        path = tree_paths((args, kwargs))[place].partition("/")[2]
        raise TypeError(
            f"{name}: argument leaf {path!r} is {describe(leaves[place])}; leaves must be tensors, "
            "arrays, numbers or ShapeDtypeStructs."
        )

    def flat(*tensors: Tensor) -> PyTree:
        inner, keywords = tree_unflatten(spec, tensors)
        result = fun(*inner, **keywords)
        made, structure = tree_flatten(result)
        shapes = [_abstract(leaf) for leaf in made]
        if None in shapes:
            place = shapes.index(None)
            raise TypeError(
                f"{name}: the function returns {tree_paths(result)[place]!r} as "
                f"{describe(made[place])}; the leaves of a result must be tensors, arrays or "
                "numbers."
            )
        found = [ShapeDtypeStruct(x.shape, x.dtype) for x in shapes if x is not None]
        return tree_unflatten(structure, found)

    with collected_effects():  # nothing is printed
        return run_on_shapes(flat, inputs, name)


@dataclass(frozen=True)
class _Abstract:
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


_CPU = torch.device("cpu")


def _abstract(leaf: Any) -> _Abstract | None:
    """Shape, dtype and device of a leaf; None for one that has no shape."""
    number = number_dtype(leaf)
    if number is not None:
        return _Abstract((), number, _CPU)
    if isinstance(leaf, Tensor):
        return _Abstract(tuple(leaf.shape), leaf.dtype, leaf.device)
    if isinstance(leaf, np.ndarray | np.generic):
        tensor = array_tensor(leaf)
        return None if tensor is None else _Abstract(tuple(tensor.shape), tensor.dtype, _CPU)
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return None
    struct = ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return _Abstract(struct.shape, struct.dtype, getattr(leaf, "device", None) or _CPU)


def _is_size(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _dtype(dtype: Any) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    found = None
    if isinstance(dtype, str | type | np.dtype):
        with contextlib.suppress(TypeError, ValueError):
            found = getattr(torch, np.dtype(dtype).name, None)
    if not isinstance(found, torch.dtype):
        raise TypeError(f"ShapeDtypeStruct: dtype must be one of torch, got {describe(dtype)}.")
    return found


explain_module(__name__)
