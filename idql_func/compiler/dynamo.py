"""Jitted functions and nodes of the library inside ``torch.compile`` and ``torch.export``.

Dynamo, the front end of ``torch.compile``, can't trace the code of a jitted function: optree and
the transforms are opaque to it. It is given the function as a whole instead, as one call on flat
tensors, which AOTAutograd traces into the same graph. The nodes of the library are registered with
torch's own pytrees for that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import optree
import torch
from torch import Tensor

from idql_func.compiler import torch_internals
from idql_func.compiler.trace import is_tracing, trace
from idql_func.frozen_dict import FrozenDict
from idql_func.kernels import matmul, threefry, tree_ops
from idql_func.switches import (
    bfloat16_matmul,
    native_matmul,
    partitionable,
    x64_enabled,
)
from idql_func.tree import tree_flatten, tree_unflatten
from idql_func.types import PyTree

F = TypeVar("F", bound=Callable[..., Any])


class StaticFields:
    """The values of a node's static fields, which are a part of its structure."""

    __slots__ = ("changed", "values")

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values = values
        self.changed: dict[tuple[Any, ...], StaticFields] = {}

    def with_values(self, values: tuple[Any, ...]) -> StaticFields:
        """Those of other values; Dynamo can use an object only if it does not trace its making."""
        if not torch.compiler.is_dynamo_compiling():
            return StaticFields(values)
        _make_changed(self, values)
        return self.changed[values]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, StaticFields) and self.values == other.values)

    def __hash__(self) -> int:
        return hash(self.values)

    def __repr__(self) -> str:
        return repr(self.values)


def _make_changed(static: StaticFields, values: tuple[Any, ...]) -> bool:
    if values not in static.changed:
        static.changed[values] = StaticFields(values)
    return True


@dataclass(frozen=True)
class _Structure:
    """The structure of a result in a form that Dynamo can trace."""

    cls: Any
    """A class of tuples, dicts or nodes; None for a leaf or for None itself."""
    place: int = -1
    """The place of a leaf among the leaves."""
    static: StaticFields | None = None
    keys: tuple[Any, ...] | None = None
    """The keys of a dict, or the fields of a named tuple."""
    children: tuple[_Structure, ...] = ()

    def build(self, leaves: Sequence[Any]) -> Any:
        if self.cls is None:
            return leaves[self.place] if self.place >= 0 else None
        children = [child.build(leaves) for child in self.children]
        if self.static is not None:
            return self.cls._unflatten(self.static, children)
        if self.cls in (dict, FrozenDict) and self.keys is not None:
            return self.cls(zip(self.keys, children, strict=True))
        return self.cls(children) if self.keys is None else self.cls(*children)


class _Structures:
    """The structures of results as attributes, which Dynamo reads when it traces the access.

    Of a list or a dict it sees no entry that is added later.
    """

    def __init__(self) -> None:
        self._names: dict[optree.PyTreeSpec, str] = {}

    def name_of(self, spec: optree.PyTreeSpec) -> str:
        """The name of a structure, by which a graph refers to it."""
        name = self._names.get(spec)
        if name is None:
            name = self._names[spec] = f"structure_{len(self._names)}"
            setattr(self, name, _structure(tree_unflatten(spec, range(spec.num_leaves))))
        return name


_STRUCTURES = _Structures()


def _structure(example: Any) -> _Structure:
    """The structure of a tree whose leaves are their places."""
    if example is None or isinstance(example, int):
        return _Structure(None, -1 if example is None else example)
    if isinstance(example, FrozenDict):
        entries = example._dict
        children = tuple(map(_structure, entries.values()))
        return _Structure(FrozenDict, keys=(*entries,), children=children)
    if isinstance(example, dict):
        return _Structure(dict, keys=(*example,), children=tuple(map(_structure, example.values())))
    if isinstance(example, tuple | list):
        fields = getattr(example, "_fields", None)  # of a named tuple
        return _Structure(type(example), keys=fields, children=tuple(map(_structure, example)))
    children = tuple(_structure(getattr(example, name)) for name in example._child_names)
    return _Structure(type(example), static=example._static, children=children)


class _Result:
    """The leaves of a result and the name of its structure."""

    def __init__(self, leaves: list[Any], structure: str) -> None:
        self.leaves = leaves
        self.structure = structure


def _build(leaves: Sequence[Any], structure: str) -> Any:
    return getattr(_STRUCTURES, structure).build(leaves)


class OpaqueCall:
    """A function that ``torch.compile`` and ``torch.export`` take as a whole."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.call: Callable[..., Any] | None = None

        def flat(args: tuple[Any, ...], kwargs: dict[str, Any], _: tuple[bool, ...]) -> _Result:
            leaves, spec = tree_flatten(fn(*args, **kwargs))
            return _Result(leaves, _STRUCTURES.name_of(spec))

        def prepare() -> bool:
            if self.call is None:
                self.call = torch_internals.opaque_to_dynamo(flat)
            return True

        self._prepare = torch_internals.constant_under_dynamo(prepare)

    def compiled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PyTree:
        """The call inside ``torch.compile``."""
        # Dynamo guards the values that it passes: with another one it traces again
        switches = x64_enabled(), partitionable(), bfloat16_matmul(), native_matmul()
        self._prepare()
        assert self.call is not None
        args = tuple([_NOTHING if x is None else x for x in args])
        kwargs = {k: _NOTHING if x is None else x for k, x in kwargs.items()}
        return self.call(args, kwargs, switches)

    def exported(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PyTree:
        """The call inside ``torch.export``, which can't trace a gradient: it runs a traced graph.

        The graph holds for the shapes of these arguments.
        """
        leaves, spec = tree_flatten((args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        result: list[Any] = []  # the leaves and the structure

        def flat(*tensors: Tensor) -> list[Tensor]:
            filled = list(leaves)
            for i, tensor in zip(places, tensors, strict=True):
                filled[i] = tensor
            inner, keywords = tree_unflatten(spec, filled)
            result[:] = tree_flatten(self.fn(*inner, **keywords))
            return [x for x in result[0] if isinstance(x, Tensor)]

        inputs = [leaves[i] for i in places]
        kinds = [(tuple(map(int, x.shape)), x.dtype, x.device) for x in inputs]
        with torch_internals.outside_tracing():
            examples = [torch.empty(s, dtype=dtype, device=on) for s, dtype, on in kinds]
            graph = trace(flat, examples, f"jit({getattr(self.fn, '__qualname__', self.fn)})")
        graph.recompile()
        tensors = iter(graph.forward(*inputs))
        traced, structure = result
        made = [next(tensors) if isinstance(x, Tensor) else x for x in traced]
        return tree_unflatten(structure, made)


def opaque_to_torch(fn: F) -> F:
    """The function, taken as a whole by ``torch.compile`` and ``torch.export``."""
    opaque = OpaqueCall(fn)

    @functools.wraps(fn)
    def called(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            return opaque.compiled(args, kwargs)
        if inside_export():
            return opaque.exported(args, kwargs)
        return fn(*args, **kwargs)

    return called  # type: ignore[return-value]


def inside_export() -> bool:
    """Whether ``torch.export`` runs the code, and the library does not trace a part of it."""
    return torch.compiler.is_exporting() and not is_tracing()


class _Nothing:
    """None among the children of a node: torch's pytrees would make a leaf of it."""


_NOTHING = _Nothing()


def register_node(cls: type, names: Sequence[str]) -> None:
    """Register a class of nodes with torch's own pytrees.

    ``cls._unflatten(static, children)`` makes a node; ``static`` is its attribute ``_static``.
    """

    def flatten(node: Any) -> tuple[list[Any], StaticFields]:
        children = [getattr(node, name) for name in names]
        return [_NOTHING if x is None else x for x in children], node._static

    def unflatten(children: Any, static: StaticFields) -> Any:
        return cls._unflatten(static, children)  # type: ignore[attr-defined]

    torch_internals.register_pytree(cls, flatten, unflatten, names)


torch_internals.register_constant(StaticFields)
torch_internals.register_pytree(_Result, lambda result: (result.leaves, result.structure), _build)
torch_internals.register_pytree(
    FrozenDict,
    lambda tree: ([tree._dict[k] for k in sorted(tree._dict)], tuple(sorted(tree._dict))),
    lambda values, keys: FrozenDict(zip(keys, values, strict=True)),
)
torch_internals.register_pytree(_Nothing, lambda _: ([], None), lambda *_: None)
for _read in (_make_changed, matmul.available, threefry.available, tree_ops.available):
    torch_internals.constant_under_dynamo(_read)
