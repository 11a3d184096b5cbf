"""A copy of a network for each thread, since ``functional_call`` puts the parameters into it."""

from __future__ import annotations

import functools
import threading
import types
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from idql_func.networks.declarations import Declarations, changes_of_networks, declared

__all__ = ["copy_of_this_thread"]


class _Copies(threading.local):
    """The copies of one thread, each with the number of changes at the time it was made."""

    def __init__(self) -> None:
        self.made: weakref.WeakKeyDictionary[nn.Module, tuple[int, Any]]
        self.made = weakref.WeakKeyDictionary()


_COPIES = _Copies()


def copy_of_this_thread(module: Any) -> Any:
    """This thread's own copy of a network, which every thread but the main one uses.

    ``functional_call`` replaces the parameters of a module while it runs, and networks of equal
    settings are one object. A copy has the same attributes, and submodules of its own; it is made
    again after an attribute of a network was assigned.

    >>> from idql_func.networks import MLP
    >>> net = MLP(3, [4])
    >>> copy = copy_of_this_thread(net)
    >>> copy is net, copy is copy_of_this_thread(net), copy.apply == net.apply
    (False, True, True)
    """
    changes = changes_of_networks()
    known = _COPIES.made.get(module)
    if known is not None and known[0] == changes:
        return known[1]
    copy = _copied(module, {})
    _COPIES.made[module] = changes, copy
    return copy


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    """A value of an attribute with copies of the networks in it."""
    if id(value) in copies:
        return copies[id(value)]
    if isinstance(value, Declarations):
        new = copies[id(value)] = object.__new__(type(value))
        fields = {name: _copied(part, copies) for name, part in [*vars(value).items()]}
        fields["_parameters"] = {name: declared(shape) for name, shape in value._shapes.items()}
        vars(new).update(fields)
        return new
    if isinstance(value, list | tuple):
        parts = [_copied(part, copies) for part in value]
        named = hasattr(value, "_fields")
        return _unless_equal(value, type(value)(*parts) if named else type(value)(parts), value)
    if type(value) is dict:
        made = {key: _copied(part, copies) for key, part in value.items()}
        return _unless_equal(value, made, value.values(), made.values())
    if isinstance(value, types.MethodType) and isinstance(value.__self__, Declarations):
        return types.MethodType(value.__func__, _copied(value.__self__, copies))
    if type(value) is functools.partial:
        parts = value.func, value.args, value.keywords
        func, args, keywords = (_copied(part, copies) for part in parts)
        same = func is parts[0] and args is parts[1] and keywords is parts[2]
        return value if same else functools.partial(func, *args, **keywords)
    return _copied_object(value, copies)


def _copied_object(value: Any, copies: dict[int, Any]) -> Any:
    """An object of another class, such as a dataclass, that has networks among its attributes."""
    fields = getattr(value, "__dict__", None)
    plain = not isinstance(value, type | types.ModuleType | types.FunctionType | torch.Tensor)
    if not plain or not isinstance(fields, dict):
        return value
    copies[id(value)] = value  # ends a cycle
    made = {name: _copied(part, copies) for name, part in [*fields.items()]}
    if all(made[name] is part for name, part in fields.items()):
        return value
    new = object.__new__(type(value))
    vars(new).update(made)
    return new


def _unless_equal(old: Any, new: Any, parts: Iterable[Any], made: Iterable[Any] = ()) -> Any:
    """The new container, or the old one if it has the same parts."""
    pairs = zip(parts, made or new, strict=True)
    return old if all(a is b for a, b in pairs) else new
