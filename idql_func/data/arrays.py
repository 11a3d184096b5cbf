"""Nested dicts of arrays with one common length: check, map, select, place on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from idql_func.switches import float_dtype, int_dtype
from idql_func.types import DatasetDict, InputError

__all__ = ["check_lengths", "map_arrays", "named_leaves", "placer", "subselect"]


def check_lengths(dataset_dict: Mapping[str, Any]) -> int:
    """The common length of all arrays, at every depth (D9: upstream skips nested ones).

    Raises:
        InputError: no array, no row, or unequal lengths.
        TypeError: a leaf is no array ``[N, ...]``.

    Example:
        >>> check_lengths({"a": np.zeros(3), "b": {"c": np.zeros((3, 2))}})
        3
    """
    if not isinstance(dataset_dict, dict):
        raise TypeError(f"A dataset is a dict of NumPy arrays, got {type(dataset_dict).__name__}.")
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
                f"{len(value)}; all must have the same."
            )
    if not length:
        what = "no array" if length is None else "arrays without rows"
        raise InputError(f"The dataset is empty ({what}); give at least one row.")
    return length


def named_leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a nested dict with its path; anything but a dict is a leaf named ``name``.

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
    """The nested dict with ``function`` applied to each leaf.

    Example:
        >>> map_arrays({"a": 1, "b": {"c": 2}}, lambda v: -v)
        {'a': -1, 'b': {'c': -2}}
    """
    if isinstance(tree, Mapping):
        return {name: map_arrays(value, function) for name, value in tree.items()}
    return function(tree)


def subselect(dataset_dict: DatasetDict, rows: np.ndarray) -> DatasetDict:
    """The same fields with only ``rows`` (indices, or bool ``[N]``) of each.

    Example:
        >>> subselect({"a": np.array([5, 6, 7])}, np.array([2, 0]))
        {'a': array([7, 5])}
    """
    return map_arrays(dataset_dict, lambda v: v[rows])


def placer(device: torch.device) -> Callable[[np.ndarray], torch.Tensor]:
    """A function from an array to a tensor on the device, in the dtype of JAX's ``device_put``.

    The tensor shares the array's memory where the device and the dtype allow.

    Example:
        >>> placer(torch.device("cpu"))(np.zeros(2)).dtype
        torch.float32
    """
    canonical = {torch.float64: float_dtype(), torch.int64: int_dtype()}

    def place(array: np.ndarray) -> torch.Tensor:
        # torch warns of read-only arrays, and takes no negative strides or foreign byte order
        array = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
        try:
            tensor = torch.from_numpy(array)
        except TypeError as error:
            raise TypeError(
                f"A dataset field has dtype {array.dtype}, which no tensor has; leave it out of "
                "sample_torch with keys=… or convert it to numbers."
            ) from error
        return tensor.to(device, canonical.get(tensor.dtype, tensor.dtype))

    return place
