"""Pytrees, implemented with optree in a namespace of this library.

Tuples, lists, dicts, named tuples and the library's dataclasses are nodes; everything else, such
as tensors and Python numbers, is a leaf. A TensorDict is treated as a dict of its entries.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import optree
import torch
from torch import Tensor

from idql_func.switches import float_dtype, int_dtype
from idql_func.types import PyTree

NAMESPACE = "idql_func"

_tensordict_classes: set[type] = set()


def tree_flatten(
    tree: PyTree, none_is_leaf: bool = False, is_leaf: Callable[[Any], bool] | None = None
) -> tuple[list[Any], optree.PyTreeSpec]:
    """Return the leaves of a tree in a fixed order (dict keys sorted), and its structure.

    A node for which ``is_leaf`` is true counts as a leaf.

    >>> tree_flatten({"b": 1, "a": (2, 3)})[0]
    [2, 3, 1]
    """
    _register_tensordict()
    return optree.tree_flatten(tree, is_leaf, none_is_leaf=none_is_leaf, namespace=NAMESPACE)


def tree_unflatten(treespec: optree.PyTreeSpec, leaves: Iterable[Any]) -> PyTree:
    """Rebuild a tree from its structure and its leaves.

    >>> leaves, treespec = tree_flatten({"a": 1})
    >>> tree_unflatten(treespec, [5])
    {'a': 5}
    """
    return optree.tree_unflatten(treespec, leaves)


def tree_leaves(tree: PyTree) -> list[Any]:
    """Return the leaves of a tree.

    >>> tree_leaves([1, {"a": 2}])
    [1, 2]
    """
    return tree_flatten(tree)[0]


def tree_iter(tree: PyTree) -> Iterator[Any]:
    """Iterate over the leaves of a tree without visiting the whole tree first.

    >>> next(tree_iter([1, {"a": 2}]))
    1
    """
    _register_tensordict()
    return iter(optree.tree_iter(tree, namespace=NAMESPACE))


def tree_map(fn: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Apply ``fn`` to corresponding leaves of trees of one structure.

    >>> tree_map(lambda x, y: x + y, {"a": 1}, {"a": 10})
    {'a': 11}
    """
    _register_tensordict()
    return optree.tree_map(fn, tree, *rest, namespace=NAMESPACE)


def tree_paths(tree: PyTree, none_is_leaf: bool = False) -> list[str]:
    """Return the path of each leaf, such as ``score_model/params/MLP_0/Dense_0/kernel``.

    >>> tree_paths({"a": {"kernel": 1, "bias": 2}})
    ['a/bias', 'a/kernel']
    """
    _register_tensordict()
    paths = optree.tree_paths(tree, none_is_leaf=none_is_leaf, namespace=NAMESPACE)
    return ["/".join(str(entry) for entry in path) for path in paths]


def tree_stack(trees: Sequence[PyTree]) -> PyTree:
    """Stack trees of one structure along a new first axis, Python numbers included.

    A number gets JAX's default dtype, which is double under :func:`idql_func.enable_x64`; a
    discount in float32 would lose eight digits of a double-precision run. Stacking trains several
    seeds in one program: ``jit(vmap(Learner.update))(tree_stack(learners), tree_stack(batches))``.

    >>> tree_stack([{"a": torch.zeros(2)}, {"a": torch.ones(2)}])["a"].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """

    def stacked(*leaves: Any) -> Tensor:
        return torch.stack([torch.as_tensor(x, dtype=number_dtype(x)) for x in leaves])

    return tree_map(stacked, *trees)


def number_dtype(leaf: Any) -> torch.dtype | None:
    """The dtype of a Python number as a tensor, JAX's default; None for any other leaf.

    >>> number_dtype(1), number_dtype(torch.ones(1))
    (torch.int32, None)
    """
    if isinstance(leaf, bool):
        return torch.bool
    if isinstance(leaf, int | float):
        return float_dtype() if isinstance(leaf, float) else int_dtype()
    return None


def tree_unstack(tree: PyTree) -> list[PyTree]:
    """Split a tree along the first axis of every leaf; the inverse of :func:`tree_stack`.

    >>> [t["a"].item() for t in tree_unstack({"a": torch.tensor([1, 2])})]
    [1, 2]
    """
    leaves, treespec = tree_flatten(tree)
    return [tree_unflatten(treespec, row) for row in zip(*leaves, strict=True)]


def as_tensor(value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """Convert an array or number to a tensor; NumPy dtypes are kept unless ``dtype`` is given.

    >>> as_tensor(np.array([1.0, 2.0]), torch.float32)
    tensor([1., 2.])
    """
    if isinstance(value, np.ndarray | np.generic):
        value = torch.from_numpy(np.ascontiguousarray(value))
    return torch.as_tensor(value, dtype=dtype)


def _register_tensordict() -> None:
    """Register TensorDict as a node if it has been imported already; importing it is slow."""
    module = sys.modules.get("tensordict")
    cls = getattr(module, "TensorDict", None)
    if cls is None or cls in _tensordict_classes:
        return
    _tensordict_classes.add(cls)
    register: Any = optree.register_pytree_node  # its type hints accept only collections
    register(cls, _flatten_tensordict, _unflatten_tensordict, namespace=NAMESPACE)


def _flatten_tensordict(td: Any) -> tuple[tuple[Any, ...], tuple[str, ...], tuple[str, ...]]:
    names = tuple(sorted(td.keys()))
    return tuple(td.get(name) for name in names), names, names


def _unflatten_tensordict(names: tuple[str, ...], values: Iterable[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))
