"""Pytrees, implemented with optree in a namespace of this library.

Tuples, lists, dicts, named tuples and the library's dataclasses are nodes; everything else, such
as tensors and Python numbers, is a leaf. A TensorDict is treated as a dict of its entries.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optree
import torch
from torch import Tensor

from idql_func.switches import float_dtype, int_dtype
from idql_func.types import Params, PyTree

NAMESPACE = "idql_func"
NUMPY = (np.ndarray, np.generic)
"""Arrays and numbers of NumPy; a tuple, which torch.compile can trace."""

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

    Raises:
        ValueError: if the number of leaves is another one.

    >>> leaves, treespec = tree_flatten({"a": 1})
    >>> tree_unflatten(treespec, [5])
    {'a': 5}
    """
    try:
        return optree.tree_unflatten(treespec, leaves)
    except (TypeError, AttributeError):
        raise TypeError(
            "tree_unflatten: give the structure that tree_flatten returns and a sequence of "
            f"leaves, got a {type(treespec).__name__} and a {type(leaves).__name__}."
        ) from None
    except ValueError:
        count = len(list(leaves))
        if count == treespec.num_leaves:
            raise
        raise ValueError(
            f"tree_unflatten: the structure has {treespec.num_leaves} leaves, got {count}."
        ) from None


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

    Raises:
        ValueError: if the trees differ in structure.

    >>> tree_map(lambda x, y: x + y, {"a": 1}, {"a": 10})
    {'a': 11}
    """
    _register_tensordict()
    try:
        return optree.tree_map(fn, tree, *rest, namespace=NAMESPACE)
    except ValueError:
        structure = optree.tree_structure(tree, namespace=NAMESPACE)
        for other in rest:
            found = optree.tree_structure(other, namespace=NAMESPACE)
            if not structure.is_prefix(found):
                raise ValueError(
                    "tree_map: the trees must have one structure, got "
                    f"{_brief(structure)} and {_brief(found)}."
                ) from None
        raise


def _brief(structure: optree.PyTreeSpec) -> str:
    text = str(structure).removeprefix("PyTreeSpec(").removesuffix(")").partition(", namespace=")[0]
    return text if len(text) <= 100 else f"{text[:97]}..."


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
        try:
            return torch.stack([torch.as_tensor(x, dtype=number_dtype(x)) for x in leaves])
        except (TypeError, ValueError, RuntimeError):
            raise _not_stackable(leaves) from None

    if not isinstance(trees, Sequence) or isinstance(trees, str | bytes):
        raise TypeError(f"tree_stack: give a list of trees, got a {type(trees).__name__}.")
    if not trees:
        raise ValueError("tree_stack: give at least one tree.")
    return tree_map(stacked, *trees)


def _not_stackable(leaves: Sequence[Any]) -> TypeError | ValueError:
    known = (Tensor, int, float, *NUMPY)
    kinds = [type(x).__name__ for x in leaves if not isinstance(x, known)]
    if kinds:
        return TypeError(
            f"tree_stack: leaves must be tensors, arrays or numbers, got a {kinds[0]}."
        )
    shapes = ", ".join(dict.fromkeys(str(tuple(np.shape(x))) for x in leaves))
    return ValueError(f"tree_stack: leaves at one place must have one shape, got {shapes}.")


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
    for leaf in leaves:
        if not isinstance(leaf, Tensor | np.ndarray) or leaf.ndim == 0:
            kind = "a number" if np.ndim(leaf) == 0 else f"a {type(leaf).__name__}"
            raise TypeError(f"tree_unstack: each leaf must have an axis to split, got {kind}.")
    lengths = {len(leaf) for leaf in leaves}
    if len(lengths) > 1:
        raise ValueError(f"tree_unstack: the leaves differ in length: {sorted(lengths)}.")
    return [tree_unflatten(treespec, row) for row in zip(*leaves, strict=True)]


def flatten_params(params: Params, prefix: str = "") -> dict[str, Tensor]:
    """Nested parameters as one dict by dotted name, the form of ``functional_call``.

    >>> flatten_params({"Dense_0": {"bias": torch.zeros(1)}})
    {'Dense_0.bias': tensor([0.])}
    """
    flat: dict[str, Tensor] = {}
    if not isinstance(params, Mapping):
        raise TypeError(f"parameters must be a nested dict, got a {type(params).__name__}.")
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat.update(flatten_params(dict(value), f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def as_tensor(value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """Convert an array or number to a tensor; NumPy dtypes are kept unless ``dtype`` is given.

    >>> as_tensor(np.array([1.0, 2.0]), torch.float32)
    tensor([1., 2.])
    """
    if isinstance(value, NUMPY):
        value = _from_numpy(value)
    return torch.as_tensor(value, dtype=dtype)


def array_tensor(leaf: Any) -> Tensor | None:
    """The tensor that JAX makes of a number or an array; None for anything else.

    Outside :func:`idql_func.enable_x64` 64-bit numbers and arrays become 32-bit ones.

    >>> array_tensor(np.float64(0.5)), array_tensor("text")
    (tensor(0.5000), None)
    """
    dtype = number_dtype(leaf)
    if dtype is not None:
        return torch.tensor(leaf, dtype=dtype)
    if not isinstance(leaf, NUMPY) or leaf.dtype.kind not in "biuf":
        return None
    tensor = _from_numpy(leaf)
    wide = {torch.float64: float_dtype, torch.int64: int_dtype}.get(tensor.dtype)
    return tensor if wide is None else tensor.to(wide())


def _from_numpy(value: np.ndarray | np.generic) -> Tensor:
    """A tensor of the array's memory where torch can use it, else of a copy."""
    array = np.asarray(value, order="C")  # np.ascontiguousarray would give numbers an axis
    if not array.flags.writeable or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


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
