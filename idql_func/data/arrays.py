"""Nested dicts of arrays with one common length: check, map, select, copy to a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from idql_func.deprecation import moved_names
from idql_func.switches import float_dtype, int_dtype
from idql_func.types import DatasetDict, InputError

__all__ = ["as_flags", "check_lengths", "make_transfer", "map_arrays", "named_leaves", "subselect"]


def check_lengths(dataset_dict: Mapping[str, Any]) -> int:
    """Return the common length of all arrays, nested ones included (D9: upstream skips those).

    Raises:
        InputError: if there is no array or no row, or the lengths differ.
        TypeError: if a leaf is not an array ``[N, ...]``.

    Example:
        >>> check_lengths({"a": np.zeros(3), "b": {"c": np.zeros((3, 2))}})
        3
    """
    if not isinstance(dataset_dict, dict):
        raise TypeError(f"A dataset must be a dict of arrays, got {type(dataset_dict).__name__}.")
    length, first = None, ""
    for name, value in named_leaves(dataset_dict):
        if not isinstance(value, np.ndarray) or value.ndim == 0:
            what = "a 0-d array" if isinstance(value, np.ndarray) else type(value).__name__
            raise TypeError(
                f"Dataset field {name!r} is {what}; it must be a NumPy array [N, ...] or a dict of "
                "such arrays."
            )
        if length is None:
            length, first = len(value), name
        elif len(value) != length:
            raise InputError(
                f"Dataset fields differ in length: {first!r} has {length} rows and {name!r} has "
                f"{len(value)}; all must have the same length."
            )
    if not length:
        what = "no array" if length is None else "arrays of length 0"
        raise InputError(f"The dataset is empty ({what}); it needs at least one row.")
    return length


def as_flags(array: np.ndarray, name: str, where: str) -> np.ndarray:
    """The array as booleans, if it holds 0 and 1 alone.

    Raises:
        InputError: if it has another value, such as a probability.

    Example:
        >>> as_flags(np.array([0.0, 1.0]), "terminals", "a.hdf5")
        array([False,  True])
    """
    flags = array.astype(bool)
    if array.dtype != np.bool_ and not (array == flags).all():
        row = int(np.argmax(array != flags))
        raise InputError(
            f"{where}: {name!r} must hold 0 and 1 (or False and True), but row {row} is "
            f"{array[row]}."
        )
    return flags


def named_leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of every leaf; anything that is not a dict is a leaf.

    Example:
        >>> list(named_leaves({"a": 1, "b": {"c": 2}}))
        [('a', 1), ('b/c', 2)]
    """
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from named_leaves(value, f"{name}/{key}" if name else str(key))
    else:
        yield name, tree


def map_arrays(tree: Any, function: Callable[[Any], Any]) -> Any:
    """Apply ``function`` to each leaf of a nested dict.

    Example:
        >>> map_arrays({"a": 1, "b": {"c": 2}}, lambda v: -v)
        {'a': -1, 'b': {'c': -2}}
    """
    if isinstance(tree, Mapping):
        return {name: map_arrays(value, function) for name, value in tree.items()}
    return function(tree)


def subselect(dataset_dict: DatasetDict, rows: np.ndarray) -> DatasetDict:
    """Select ``rows`` (indices, or a bool mask ``[N]``) of every field.

    Example:
        >>> subselect({"a": np.array([5, 6, 7])}, np.array([2, 0]))
        {'a': array([7, 5])}
    """
    return map_arrays(dataset_dict, lambda v: v[rows])


def make_transfer(device: torch.device) -> Callable[[np.ndarray], torch.Tensor]:
    """Return a function that converts an array to a tensor on ``device``.

    The dtype is that of JAX's ``device_put``. The tensor shares the array's memory where the device
    and the dtype allow it.

    Example:
        >>> make_transfer(torch.device("cpu"))(np.zeros(2)).dtype
        torch.float32
    """
    canonical = {torch.float64: float_dtype(), torch.int64: int_dtype()}

    def transfer(array: np.ndarray) -> torch.Tensor:
        # torch warns about read-only arrays and rejects negative strides and other byte orders
        array = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
        try:
            tensor = torch.from_numpy(array)
        except TypeError as error:
            raise TypeError(
                f"A dataset field has dtype {array.dtype}, which torch does not support; exclude "
                "it with sample_torch(keys=…) or convert it to numbers."
            ) from error
        return tensor.to(device, canonical.get(tensor.dtype, tensor.dtype))

    return transfer


__getattr__ = moved_names(__name__)
