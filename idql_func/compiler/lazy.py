"""Lazy results of jitted calls: the leaves are kept flat until a field is read.

A training loop passes the learner that one call returns to the next call and does not read it. To
unflatten it, flatten it again and check each tensor would take longer than the update of a small
learner. A result that is a node of the library is therefore *lazy*: the object exists, but its
fields do not until one is read. A jitted function that gets a lazy node takes the leaves as they
are; the call that made them has recorded their structure, shapes and dtypes.

A field that is read is materialised once and stays. If it holds a mutable container, such as a
dict of parameters, the tree is flattened at each later call, since the caller may change it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import optree
import torch
from torch import Tensor

from idql_func.compiler.donation import (
    DONATED_MESSAGE,
    donated_tensor,
    mark_owned,
    take_donated_memory,
)
from idql_func.tree import tree_iter, tree_unflatten

_SLOT = "_idql_func_lazy"
_LOCK = threading.RLock()  # a field is materialised once and memory donated once, in any thread


class Signature:
    """The structure of an argument and the kinds of its tensors: a key of the cache of programs."""

    __slots__ = ("__weakref__", "_hash", "kinds", "spec")

    def __init__(self, spec: optree.PyTreeSpec, tensors: Sequence[Tensor]) -> None:
        self.spec = spec
        self.kinds = tuple([(t.shape, t.dtype, t.device, t.requires_grad) for t in tensors])
        self._hash = hash((spec, self.kinds))

    def interned(self) -> Signature:
        """The first equal signature, so that a lookup of a program compares by identity."""
        return _SIGNATURES.setdefault(self, self)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Signature)
            and self._hash == other._hash
            and self.kinds == other.kinds
            and self.spec == other.spec
        )


_SIGNATURES: weakref.WeakValueDictionary[Signature, Signature] = weakref.WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class NodeLayout:
    """The place of each field of a node among its leaves."""

    cls: type[LazyNode]
    spec: optree.PyTreeSpec
    static: dict[str, Any]
    fields: dict[str, tuple[int, int, optree.PyTreeSpec, NodeLayout | None]]
    """For each field: its first leaf, the one after its last, its structure, and the layout of a
    field that is itself a node."""


@dataclass(eq=False, slots=True)
class LazyTree:
    """The leaves of a tree that a jitted call has made: contiguous tensors, and numbers."""

    leaves: list[Any]
    numbers: dict[int, Tensor]
    """For each leaf that is a Python number, by its place: the tensor of it."""
    layout: NodeLayout
    signature: Signature
    x64: bool
    """Whether the tensors of numbers were made under :func:`idql_func.enable_x64`."""
    owned: bool
    """Whether nothing else refers to the tensors, whose memory a donating call has made."""
    fast_calls: dict[Any, Any] = field(default_factory=dict)
    """Fast calls with this tree as first argument (``call.FastCall``), by the settings."""
    materialized: set[int] = field(default_factory=set)
    """Places of the tensors that the caller can reach through a field."""
    exposed: bool = False
    """Whether the caller can reach a mutable container, and so may have changed the tree."""
    donated: bool = False
    """Whether the leaves were donated."""

    def successor(self) -> LazyTree:
        """Move the leaves to a new tree; this one is donated.

        Raises:
            RuntimeError: if they were donated already.
        """
        with _LOCK:
            if self.donated:
                raise RuntimeError(DONATED_MESSAGE)
            same = self.layout, self.signature, self.x64, self.owned, self.fast_calls
            new = LazyTree(self.leaves, self.numbers, *same)
            self._empty()
        return new

    def _empty(self) -> None:
        leaves = self.leaves
        self.leaves = [None] * len(leaves)
        for k in self.numbers:
            self.leaves[k] = leaves[k]
        self.fast_calls = {}
        self.donated = True

    def usable(self) -> bool:
        """Whether the leaves are still those of the tree, with the recorded shapes and dtypes.

        Raises:
            RuntimeError: if one of them was donated.
        """
        if self.exposed or self.donated:
            return False
        if not self.owned and not {*map(type, self.leaves)} <= _PLAIN:
            return False
        kinds = self.signature.kinds
        return all(
            (x.shape, x.dtype, x.device, x.requires_grad) == kinds[k] and x.is_contiguous()
            for k in self.materialized
            if isinstance(x := self.leaves[k], Tensor)
        )

    def materialize(self, start: int, stop: int) -> list[Any]:
        """Leaves that the caller may keep."""
        leaves = self.leaves[start:stop]
        if self.donated:
            return [donated_tensor() if leaf is None else leaf for leaf in leaves]
        self.materialized.update([k for k in range(start, stop) if k not in self.numbers])
        if self.owned:
            mark_owned([leaf for leaf in leaves if type(leaf) is Tensor])
        return leaves

    def donate(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors for a program that writes to them; this tree is donated.

        Tensors that the caller can reach are made unusable, see
        :func:`idql_func.compiler.donation.take_donated_memory`. Numbers stay as they are.
        """
        with _LOCK:
            if self.donated:
                raise RuntimeError(DONATED_MESSAGE)
            leaves, taken = self.leaves, list(tensors)
            shared = self.materialized if self.owned else range(len(leaves))
            places = [k for k in shared if k not in self.numbers]
            if places:
                given = take_donated_memory([leaves[k] for k in places], [taken[k] for k in places])
                for k, tensor in zip(places, given, strict=True):
                    taken[k] = tensor
            self._empty()
        return taken


_PLAIN = {Tensor, bool, int, float}


class LazyNode:
    """Base of nodes whose fields can be materialised when they are read."""

    _child_names: ClassVar[tuple[str, ...]] = ()
    _static_names: ClassVar[tuple[str, ...]] = ()

    if not TYPE_CHECKING:  # to a type checker a node has its fields and no others

        def __getattr__(self, name: str) -> Any:
            """Materialise a field."""
            slot = self.__dict__.get(_SLOT)
            if slot is None or name not in slot[1].fields:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return _field(self.__dict__, slot, name)

    def __getstate__(self) -> dict[str, Any]:
        """All fields, for pickle and copy."""
        state = dict.fromkeys((*self._static_names, *self._child_names))
        return {name: getattr(self, name) for name in state}


def _field(fields: dict[str, Any], slot: tuple[LazyTree, NodeLayout, int], name: str) -> Any:
    lazy, layout, first = slot
    start, stop, spec, inner = layout.fields[name]
    with _LOCK:
        if name in fields:
            return fields[name]
        if inner is not None:
            value: Any = lazy_node(lazy, inner, first + start)
        else:
            value = tree_unflatten(spec, lazy.materialize(first + start, first + stop))
            if not (spec.is_leaf() or value is None or value == ()):
                lazy.exposed = True
        fields[name] = value
        return value


def materialize_fields(node: LazyNode) -> None:
    """Materialise all fields of a node at once, if none is there yet."""
    fields = node.__dict__
    if _SLOT not in fields:
        return
    with _LOCK:
        lazy, layout, first = fields[_SLOT]
        if fields.keys().isdisjoint(layout.fields):
            leaves = lazy.materialize(first, first + layout.spec.num_leaves)
            lazy.exposed = True
            fields.update(tree_unflatten(layout.spec, leaves).__dict__)


def lazy_node(lazy: LazyTree, layout: NodeLayout, first: int = 0) -> Any:
    """A node of a lazy tree, whose leaves begin at ``first``."""
    node = object.__new__(layout.cls)
    node.__dict__.update(layout.static)
    node.__dict__[_SLOT] = lazy, layout, first
    return node


def transfer(node: Any) -> Any:
    """A new node with the leaves of a lazy one, which is donated.

    Raises:
        RuntimeError: if it was donated already.
    """
    lazy = node.__dict__[_SLOT][0].successor()
    return lazy_node(lazy, lazy.layout)


def lazy_tree_of(value: Any) -> LazyTree | None:
    """The lazy tree of a node, or None if the node is not lazy or was changed.

    Raises:
        RuntimeError: if one of its leaves was donated.
    """
    if not isinstance(value, LazyNode):
        return None
    slot = value.__dict__.get(_SLOT)
    if slot is None:
        return None
    lazy, layout, _ = slot
    return lazy if layout is lazy.layout and lazy.usable() else None


def unread_leaves(node: LazyNode, name: str) -> list[Any] | None:
    """The leaves of a field that is a tree and was not read yet, else None.

    They are for a description: the field is not materialised. A donated leaf is None.
    """
    slot = node.__dict__.get(_SLOT)
    if slot is None or name in node.__dict__:
        return None
    tree, layout, first = slot
    start, stop, _, inner = layout.fields[name]
    return None if inner is not None else tree.leaves[first + start : first + stop]


def float_dtype_of(tree: Any) -> torch.dtype:
    """The dtype of the first floating tensor of a tree, without materialising a field."""
    lazy = lazy_tree_of(tree)
    for leaf in tree_iter(tree) if lazy is None else lazy.leaves:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf.dtype
    raise ValueError("float_dtype_of: the tree has no tensor of floating numbers.")


def peek(node: Any, *names: str) -> Any:
    """Read a leaf by its path without materialising a field. The caller must not keep it.

    >>> from idql_func import struct
    >>> class Pair(struct.PyTreeNode):
    ...     first: Tensor
    >>> peek(Pair(torch.tensor(3)), "first").item()
    3
    """
    lazy = lazy_tree_of(node)
    if lazy is None:
        for name in names:
            node = getattr(node, name)
        return node
    layout, place = lazy.layout, 0
    for name in names:
        assert layout is not None
        start, _, _, layout = layout.fields[name]
        place += start
    return lazy.leaves[place]


def layout_of(spec: optree.PyTreeSpec) -> NodeLayout | None:
    """The layout of a structure, or None if its node can't be lazy."""
    cls = spec.type
    if not (isinstance(cls, type) and issubclass(cls, LazyNode)):
        return None
    # reading a missing field must call __getattr__: no class attribute has its name
    own_getattr = cls.__getattr__ is not LazyNode.__getattr__  # type: ignore[attr-defined]
    if own_getattr or any(hasattr(cls, name) for name in cls._child_names):
        return None
    example = tree_unflatten(spec, range(spec.num_leaves))
    fields: dict[str, tuple[int, int, optree.PyTreeSpec, NodeLayout | None]] = {}
    start = 0
    for name, child in zip(cls._child_names, spec.children(), strict=True):
        stop = start + child.num_leaves
        fields[name] = start, stop, child, layout_of(child)
        start = stop
    static = {name: getattr(example, name) for name in (*cls._static_names, "_static")}
    return NodeLayout(cls, spec, static, fields)
