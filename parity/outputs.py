"""Convert what a function returns to named NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from parity.cases import Case

Function = Callable[[Case], Mapping[str, Any]]
"""A side of the comparison: takes a case, returns named outputs, nested or not."""


def named(tree: Any, of: str) -> dict[str, np.ndarray]:
    """The leaves of a nested dict by path, as NumPy arrays, in their order.

    Leaves are arrays of NumPy or JAX, tensors of torch (on any device, with a gradient or not) or
    numbers. ``of`` describes the tree in messages.

    Raises:
        ValueError: if it is not a dict, is empty, or a leaf or its name cannot be saved.

    >>> named({"grads": {"kernel": np.ones(2)}, "loss": 0.5}, "outputs of mlp/small")
    {'grads/kernel': array([1., 1.]), 'loss': array(0.5)}
    """
    if not isinstance(tree, Mapping):
        raise ValueError(f"{of} are a {type(tree).__name__}: give a dict of named arrays")
    flat: dict[str, np.ndarray] = {}
    for name, leaf in _leaves(tree):
        if "::" in name:
            raise ValueError(f"{of}: {name!r} holds '::', which separates names in the file")
        if name in flat:
            raise ValueError(f"{of}: two are named {name!r}")
        flat[name] = _array(leaf, f"{of}: {name!r}")
    if not flat:
        raise ValueError(f"{of} are empty: give at least one array")
    return flat


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _array(leaf: Any, of: str) -> np.ndarray:
    if isinstance(leaf, list | tuple) or leaf is None:
        raise ValueError(f"{of} is a {type(leaf).__name__}: give an array, or a dict of them")
    if hasattr(leaf, "detach"):
        leaf = leaf.detach().cpu()
    try:
        # torch and JAX have types that NumPy lacks: all of them raise the message below
        array = np.asarray(leaf)
    except TypeError:
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        found = getattr(leaf, "dtype", type(leaf).__name__)
        raise ValueError(
            f"{of} is of type {found}: give booleans, integers or floats of 16, 32 or 64 bits "
            "(of a typed key jax.random.key_data, of complex numbers their two parts)"
        )
    return array


def computed(function: Function, case: Case) -> dict[str, np.ndarray]:
    """Run a function on a case.

    Raises:
        ValueError: if :func:`named` does not accept what it returns.
    """
    return named(function(case), f"the outputs of {case.id}")
