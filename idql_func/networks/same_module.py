"""Equality of modules by value, for the static fields of learners and training states."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def same_module(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules compute the same function of parameters and inputs.

    They have the same class, the same names and shapes of parameters, and equal attributes.
    An attribute without an equality by value, such as a lambda, equals itself only. A module that
    one of them holds at two places must be at the same two places of the other.

    ``==`` of modules stays identity, on which the module system of torch relies.

    >>> from idql_func.networks import MLP
    >>> same_module(MLP(3, [4]), MLP(3, [4])), same_module(MLP(3, [4]), MLP(3, [5]))
    (True, False)
    """
    return _same(a, b, {}, {})


def _attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes; of declared parameters the shapes, since ``apply`` replaces the parameters
    in another thread."""
    fields = vars(module)
    if "_shapes" not in fields:
        return fields
    return {name: value for name, value in fields.items() if name != "_parameters"}


def _same(a: Any, b: Any, partners: dict[int, Any], reverse: dict[int, Any]) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, nn.Module):
        if id(a) in partners or id(b) in reverse:  # also ends a cycle
            return partners.get(id(a)) is b and reverse.get(id(b)) is a
        partners[id(a)], reverse[id(b)] = b, a
        return a is b or _same(_attributes(a), _attributes(b), partners, reverse)
    if a is b and not isinstance(a, Mapping | list | tuple):
        return True
    if isinstance(a, Mapping):
        a, b = [*a.items()], [*b.items()]
    elif isinstance(a, functools.partial):
        a, b = (a.func, a.args, a.keywords), (b.func, b.args, b.keywords)
    if isinstance(a, list | tuple):
        pairs = zip(a, b, strict=False)
        return len(a) == len(b) and all(_same(x, y, partners, reverse) for x, y in pairs)
    if isinstance(a, Tensor):
        kinds = [(x.shape, x.dtype, x.device, x.requires_grad) for x in (a, b)]
        return kinds[0] == kinds[1] and (a.is_meta or torch.equal(a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, float):
        return a.hex() == b.hex()  # tells 0.0 from -0.0
    return (a == b) is True


class ModuleMethod:
    """A method of a network that equals the one of any module that computes the same function.

    Trees with networks that were built, copied or unpickled separately then have the same
    structure: they stack, and share one compiled program.

    >>> from idql_func.networks import MLP
    >>> ModuleMethod(MLP(3, [4])) == ModuleMethod(MLP(3, [4]))
    True
    """

    __slots__ = ("__self__",)

    def __init__(self, module: nn.Module) -> None:
        self.__self__: Any = module

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ModuleMethod) or type(other) is not type(self):
            return NotImplemented
        if self.__self__ is not other.__self__:
            if not same_module(self.__self__, other.__self__):
                return False
            self.__self__ = other.__self__  # the next comparison takes no time
        return True

    def __hash__(self) -> int:
        return hash(type(self.__self__))

    def __reduce__(self) -> tuple[type[ModuleMethod], tuple[nn.Module]]:
        return type(self), (self.__self__,)

    def __repr__(self) -> str:
        return f"{type(self.__self__).__name__}.{type(self).__name__.lower()}"
