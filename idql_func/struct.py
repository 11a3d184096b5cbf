"""Frozen dataclasses and dicts that are pytrees, and the training state of one network.

The counterparts of ``flax.struct``, ``flax.core.FrozenDict`` and ``flax.training.train_state``.
Classes are registered with optree in the namespace ``"idql_func"``, which all transforms of the
library use.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, dataclass_transform

import optree
import torch

from idql_func import optim
from idql_func.boundary import explained_methods
from idql_func.compiler.donation import DonatedTensor
from idql_func.compiler.dynamo import StaticFields, register_node
from idql_func.compiler.lazy import LazyNode, materialize_fields, unread_leaves
from idql_func.frozen_dict import FrozenDict, freeze, unfreeze
from idql_func.optim import GradientTransformation, OptState
from idql_func.tree import NAMESPACE, tree_leaves
from idql_func.types import Params

__all__ = ["FrozenDict", "PyTreeNode", "TrainState", "field", "freeze", "unfreeze"]

_LONGEST_LINE, _LONGEST_VALUE = 100, 80  # characters of a representation


def field(*, pytree_node: bool = True, **kwargs: Any) -> Any:
    """A dataclass field; ``pytree_node=False`` makes it static.

    A static field is part of the tree's structure: it must be hashable, jitted
    functions specialise on it, and two trees with other values do not map together.

    >>> field(pytree_node=False, default="a").metadata["pytree_node"]
    False
    """
    return dataclasses.field(metadata={"pytree_node": pytree_node}, **kwargs)


@dataclass_transform(field_specifiers=(field,), frozen_default=True)
class PyTreeNode(LazyNode):
    """Base class of immutable pytrees (``flax.struct.PyTreeNode``).

    A subclass becomes a frozen dataclass. Its fields are children, except those declared
    with ``field(pytree_node=False)``. The fields of a node that a jitted function returns
    are materialised when they are read.

    >>> from idql_func import tree_map
    >>> class Point(PyTreeNode):
    ...     x: float
    ...     name: str = field(pytree_node=False)
    >>> tree_map(lambda leaf: leaf + 1, Point(1.0, "a"))
    Point(x=2.0, name='a')
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # of every subclass
    _static: ClassVar[StaticFields]  # one for each node; not a field

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
        fields = dataclasses.fields(cls)
        cls._child_names = tuple(f.name for f in fields if f.metadata.get("pytree_node", True))
        cls._static_names = tuple(f.name for f in fields if f.name not in cls._child_names)
        register: Any = optree.register_pytree_node  # typed for collections alone
        register(cls, _flatten, cls._unflatten, namespace=NAMESPACE)
        register_node(cls, cls._child_names)

    def __post_init__(self) -> None:
        values = tuple(getattr(self, name) for name in self._static_names)
        object.__setattr__(self, "_static", StaticFields(values))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        PyTreeNode.__post_init__(self)

    @classmethod
    def _unflatten(cls, static: StaticFields, children: Any) -> Self:
        # without __init__: inside a transform a child may be any object
        node = object.__new__(cls)
        object.__setattr__(node, "_static", static)
        for name, value in zip(cls._static_names, static.values, strict=True):
            object.__setattr__(node, name, value)
        for name, value in zip(cls._child_names, children, strict=True):
            object.__setattr__(node, name, value)
        return node

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed.

        Raises:
            TypeError: if there is no field of such a name.
        """
        names = (*self._child_names, *self._static_names)
        for name in changes:
            if name not in names:
                raise TypeError(
                    f"{type(self).__name__}.replace: there is no field {name!r}; "
                    f"the fields are {', '.join(sorted(names))}."
                )
        cls = type(self)
        if cls.__post_init__ is not PyTreeNode.__post_init__:
            return dataclasses.replace(self, **changes)
        static = self._static
        if any(name in changes for name in self._static_names):
            values = [changes.get(name, getattr(self, name)) for name in self._static_names]
            static = static.with_values(tuple(values))
        children = [changes.get(name, getattr(self, name)) for name in self._child_names]
        return cls._unflatten(static, children)

    def __repr__(self) -> str:
        """Class and fields; a tree of tensors is one line with its size, and no values."""
        parts: list[str] = []
        for name in (f.name for f in dataclasses.fields(self)):
            leaves = unread_leaves(self, name)
            text = _describe(getattr(self, name)) if leaves is None else _summary(leaves)
            parts.append(f"{name}={text}")
        line = f"{type(self).__name__}({', '.join(parts)})"
        if len(line) <= _LONGEST_LINE:
            return line
        indented = ",\n".join(parts).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {indented},\n)"


def _describe(value: Any) -> str:
    """A value in at most a line; a node in one line per field."""
    if isinstance(value, PyTreeNode):
        return repr(value)
    if isinstance(value, torch.Tensor):
        return _summary([value])
    leaves = tree_leaves(value) if isinstance(value, dict | list | tuple) else []
    if any(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return _summary(leaves)
    network = getattr(value, "__self__", None)
    text = f"{type(network).__name__}.{value.__name__}" if inspect.ismethod(value) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _summary(leaves: Sequence[Any]) -> str:
    """The number, dtypes and devices of tensors; a single one by its dtype and shape."""
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if any(leaf is None or isinstance(leaf, DonatedTensor) for leaf in leaves):
        return "<donated>"
    if len(leaves) == 1 and not tensors:
        return repr(leaves[0])
    dtypes = ", ".join(dict.fromkeys(str(t.dtype).removeprefix("torch.") for t in tensors))
    if len(leaves) == 1:
        return f"{dtypes}{list(tensors[0].shape)}"
    devices = ", ".join(dict.fromkeys(str(t.device) for t in tensors))
    count = sum(t.numel() for t in tensors)
    return f"<{len(tensors)} tensors, {count:,} numbers, {dtypes}, {devices}>"


def _flatten(node: PyTreeNode) -> tuple[tuple[Any, ...], StaticFields, tuple[str, ...]]:
    materialize_fields(node)
    children = tuple(getattr(node, name) for name in node._child_names)
    return children, node._static, node._child_names


@explained_methods("create", "apply_gradients")
class TrainState(PyTreeNode):
    """Parameters, their optimiser's state and the step count (``flax TrainState``).

    A state without a transformation (``tx=None``) is a target network: its parameters
    are set by ``replace`` and its step stays 0 (quirk U18).

    >>> import torch
    >>> from idql_func import optim
    >>> state = TrainState.create(params={"w": torch.ones(2)}, tx=optim.adam(0.1))
    >>> state = state.apply_gradients(grads={"w": torch.tensor([1.0, -1.0])})
    >>> state.step.item(), [round(w, 4) for w in state.params["w"].tolist()]
    (1, [0.9, 1.1])
    """

    step: Any
    params: Params
    opt_state: OptState
    apply_fn: Callable[..., Any] = field(pytree_node=False)
    tx: GradientTransformation | None = field(pytree_node=False)

    @classmethod
    def create(
        cls,
        *,
        params: Params,
        tx: GradientTransformation | None = None,
        apply_fn: Callable[..., Any] | None = None,
    ) -> TrainState:
        """A state at step 0 with the optimiser's initial state."""
        opt_state = () if tx is None else tx.init(params)
        device = optim.device_of(params)
        step = torch.zeros((), dtype=torch.int32, device=device)
        return cls(
            step=step, params=params, opt_state=opt_state, apply_fn=apply_fn or _no_apply_fn, tx=tx
        )

    def apply_gradients(self, *, grads: Params) -> TrainState:
        """One optimiser step.

        Raises:
            ValueError: if the state is that of a target network.
        """
        if self.tx is None:
            raise ValueError("apply_gradients: a target network (tx=None) has no optimiser.")
        params, opt_state = optim.step(self.tx, grads, self.opt_state, self.params)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state)


def _no_apply_fn(*args: Any, **kwargs: Any) -> Any:
    raise ValueError("TrainState: this state has no apply_fn; pass one to TrainState.create.")
