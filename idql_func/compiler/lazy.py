"""Results of a jitted call that nobody has looked into yet: leaves without their tree.

A training loop hands the learner that one call returns to the next, unread. Putting its tree
together, taking it apart again and looking at each tensor would cost more than a small learner's
update computes. A result that is a node of the library is therefore *held*: the object is there,
its fields are not, until somebody reads one. A held node that goes into a jitted function gives
its leaves as they are; the structure and the kinds of its tensors are known from the call that
made it.

A field that is read comes into being then, and stays. One that brings a mutable container, such
as a dict of parameters, ends the shortcut, since what is in there may be exchanged by anybody.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
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

Kind = tuple[torch.Size, torch.dtype, torch.device, bool]

_SLOT = "_idql_func_lazy"
_LOCK = threading.RLock()  # a field is made once, memory given away once, whoever asks


class Signature:
    """What a program is made for: the structure of an argument and the kinds of its tensors."""

    __slots__ = ("__weakref__", "_hash", "kinds", "spec")

    def __init__(self, spec: optree.PyTreeSpec, tensors: Sequence[Tensor]) -> None:
        self.spec = spec
        self.kinds = tuple([(t.shape, t.dtype, t.device, t.requires_grad) for t in tensors])
        self._hash = hash((spec, self.kinds))

    def known(self) -> Signature:
        """An equal one that is in use already, so that looking a program up compares nothing."""
        return _KNOWN.setdefault(self, self)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Signature)
            and self._hash == other._hash
            and self.kinds == other.kinds
            and self.spec == other.spec
        )


_KNOWN: weakref.WeakValueDictionary[Signature, Signature] = weakref.WeakValueDictionary()


def kind_of(tensor: Tensor) -> Kind:
    """Shape, dtype, device, and whether torch's own gradient is asked for."""
    return tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad


@dataclass(frozen=True, eq=False)
class NodeLayout:
    """Where the fields of a node lie among its leaves."""

    cls: type[LazyNode]
    spec: optree.PyTreeSpec
    static: dict[str, Any]
    fields: dict[str, tuple[int, int, optree.PyTreeSpec, NodeLayout | None]]
    """First leaf, the one after the last, structure, and the layout of a field that is a node."""


@dataclass(eq=False)
class LazyTree:
    """The leaves of one tree that a jitted call has made, contiguous tensors and numbers."""

    __slots__ = (
        "again", "gone", "layout", "leaves", "numbers", "opened", "owned", "shown", "signature",
        "x64",
    )  # fmt: skip

    leaves: list[Any]
    numbers: dict[int, Tensor]
    """For the place of each leaf that is a Python number the tensor of it."""
    layout: NodeLayout
    signature: Signature
    x64: bool
    """Whether the numbers' tensors are those of :func:`idql_func.enable_x64`."""
    owned: bool
    """Whether the tensors are nowhere else, in memory that a donating call has made."""

    def __post_init__(self) -> None:
        self.shown: set[int] = set()
        """Tensors that have been handed out."""
        self.opened = False
        """Whether part of the tree may have been changed behind the leaves' back."""
        self.gone = False
        """Whether the leaves were donated."""
        self.again: dict[Any, Any] = {}
        """How a call can be made again with it, see ``call.FastCall``, by what else it takes."""

    def successor(self) -> LazyTree:
        """The same leaves for who comes next; from now on they are refused here.

        Raises:
            RuntimeError: they were donated already.
        """
        with _LOCK:
            if self.gone:
                raise RuntimeError(DONATED_MESSAGE)
            new = LazyTree(
                self.leaves, self.numbers, self.layout, self.signature, self.x64, self.owned
            )
            new.again = self.again
            self._empty()
        return new

    def _empty(self) -> None:
        leaves = self.leaves
        self.leaves = [None] * len(leaves)
        for k in self.numbers:
            self.leaves[k] = leaves[k]
        self.again = {}
        self.gone = True

    def usable(self) -> bool:
        """Whether the leaves still are the tree, and tensors of the kinds noted.

        Raises:
            RuntimeError: one of them was donated.
        """
        if self.opened or self.gone:
            return False
        if not self.owned and not {*map(type, self.leaves)} <= _PLAIN:
            return False
        kinds = self.signature.kinds
        return all(
            kind_of(leaf) == kinds[k] and leaf.is_contiguous()
            for k in self.shown
            if isinstance(leaf := self.leaves[k], Tensor)
        )

    def materialize(self, start: int, stop: int) -> list[Any]:
        """Some leaves for somebody to keep."""
        leaves = self.leaves[start:stop]
        if self.gone:
            return [donated_tensor() if leaf is None else leaf for leaf in leaves]
        self.shown.update([k for k in range(start, stop) if k not in self.numbers])
        if self.owned:
            mark_owned([leaf for leaf in leaves if type(leaf) is Tensor])
        return leaves

    def donate(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors for a program that writes them; from now on they are refused here.

        Tensors that others can have are refused to them as well, see
        :func:`idql_func.compiler.donation.take_donated_memory`. The places of numbers keep theirs.
        """
        with _LOCK:
            if self.gone:
                raise RuntimeError(DONATED_MESSAGE)
            leaves, taken = self.leaves, list(tensors)
            shared = self.shown if self.owned else range(len(leaves))
            places = [k for k in shared if k not in self.numbers]
            if places:
                given = take_donated_memory([leaves[k] for k in places], [taken[k] for k in places])
                for k, tensor in zip(places, given, strict=True):
                    taken[k] = tensor
            self._empty()
        return taken


_PLAIN = {Tensor, bool, int, float}


class LazyNode:
    """Base of nodes whose fields may come into being when they are read."""

    _child_names: ClassVar[tuple[str, ...]] = ()
    _static_names: ClassVar[tuple[str, ...]] = ()

    if not TYPE_CHECKING:  # to a type checker a node has its fields and no others

        def __getattr__(self, name: str) -> Any:
            """A field that is not there yet."""
            slot = self.__dict__.get(_SLOT)
            if slot is None or name not in slot[1].fields:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return _field(self.__dict__, slot, name)

    def __getstate__(self) -> dict[str, Any]:
        """All fields: what pickle and copy see."""
        state = dict.fromkeys((*self._static_names, *self._child_names))
        return {name: getattr(self, name) for name in state}


def _field(fields: dict[str, Any], slot: tuple[LazyTree, NodeLayout, int], name: str) -> Any:
    held, layout, first = slot
    start, stop, spec, inner = layout.fields[name]
    with _LOCK:
        if name in fields:
            return fields[name]
        if inner is not None:
            value: Any = _node(held, inner, first + start)
        else:
            value = tree_unflatten(spec, held.materialize(first + start, first + stop))
            if not (spec.is_leaf() or value is None or value == ()):
                held.opened = True
        fields[name] = value
        return value


def materialize_fields(node: LazyNode) -> None:
    """All fields of a node at once, if none is there yet: what is about to read each of them."""
    fields = node.__dict__
    if _SLOT not in fields:
        return
    with _LOCK:
        held, layout, first = fields[_SLOT]
        if fields.keys().isdisjoint(layout.fields):
            leaves = held.materialize(first, first + layout.spec.num_leaves)
            held.opened = True
            fields.update(tree_unflatten(layout.spec, leaves).__dict__)


def _node(held: LazyTree, layout: NodeLayout, first: int) -> Any:
    node = object.__new__(layout.cls)
    node.__dict__.update(layout.static)
    node.__dict__[_SLOT] = held, layout, first
    return node


def lazy_node(held: LazyTree) -> Any:
    """The object for held leaves."""
    return _node(held, held.layout, 0)


def transfer(node: Any) -> Any:
    """Another object for a held tree's leaves; the first is refused from now on.

    Raises:
        RuntimeError: it was donated already.
    """
    return lazy_node(node.__dict__[_SLOT][0].successor())


def lazy_tree_of(value: Any) -> LazyTree | None:
    """The leaves of a whole tree that is still held, or None.

    Raises:
        RuntimeError: one of them was donated.
    """
    if not isinstance(value, LazyNode):
        return None
    slot = value.__dict__.get(_SLOT)
    if slot is None:
        return None
    held, layout, _ = slot
    return held if layout is held.layout and held.usable() else None


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
    """The dtype of the first floating tensor of a tree; a held one stays held."""
    held = lazy_tree_of(tree)
    for leaf in tree_iter(tree) if held is None else held.leaves:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf.dtype
    raise ValueError("float_dtype_of: the tree has no tensor of floating numbers.")


def peek(node: Any, *names: str) -> Any:
    """A leaf by its path, to look at and not to keep: a held tree stays held.

    >>> from idql_func import struct
    >>> class Pair(struct.PyTreeNode):
    ...     first: Tensor
    >>> peek(Pair(torch.tensor(3)), "first").item()
    3
    """
    held = lazy_tree_of(node)
    if held is None:
        for name in names:
            node = getattr(node, name)
        return node
    layout, place = held.layout, 0
    for name in names:
        assert layout is not None
        start, _, _, layout = layout.fields[name]
        place += start
    return held.leaves[place]


def layout_of(spec: optree.PyTreeSpec) -> NodeLayout | None:
    """The layout of a structure, or None for one that can't be held."""
    cls = spec.type
    if not (isinstance(cls, type) and issubclass(cls, LazyNode) and can_be_lazy(cls)):
        return None
    example = tree_unflatten(spec, range(spec.num_leaves))
    fields: dict[str, tuple[int, int, optree.PyTreeSpec, NodeLayout | None]] = {}
    start = 0
    for name, child in zip(cls._child_names, spec.children(), strict=True):
        stop = start + child.num_leaves
        fields[name] = start, stop, child, layout_of(child)
        start = stop
    static = {name: getattr(example, name) for name in cls._static_names}
    return NodeLayout(cls, spec, static, fields)


def can_be_lazy(cls: type[LazyNode]) -> bool:
    """Whether a field that is not there is noticed: a class attribute would stand in for it."""
    return cls.__getattr__ is LazyNode.__getattr__ and not any(  # type: ignore[attr-defined]
        hasattr(cls, name) for name in cls._child_names
    )
