"""Refuse functions that write into their arguments where a transform runs them eagerly."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from idql_func.compiler.torch_internals import storage_of, versions_of
from idql_func.compiler.trace import inside_transform
from idql_func.tree import tree_iter


@contextlib.contextmanager
def without_writes(name: str, *arguments: Any, outermost: bool = False) -> Iterator[None]:
    """Raise if a function writes into arguments that belong to a transform around this one.

    The arguments of the outermost transform are protected copies, except those of a jitted function
    that runs eagerly, for which ``outermost`` is True: there the write is refused before it
    happens. ``torch.compile`` sees writes.
    """
    inside = inside_transform()
    if not (inside or outermost) or torch.compiler.is_dynamo_compiling():
        yield
        return
    tensors = [x for x in tree_iter(arguments) if isinstance(x, Tensor)]
    before = versions_of(tensors)
    which = "an argument, which the function around it still needs" if inside else "an argument"
    message = f"{name}: the function writes into {which}; write x = x + 1 instead of x += 1."
    try:
        with contextlib.nullcontext() if inside else _protected(tensors):
            yield
    except _Write as write:
        raise TypeError(message).with_traceback(write.__traceback__) from None
    if before != versions_of(tensors):
        raise TypeError(message)


class _Write(Exception):
    """A write into protected memory. torch would take a TypeError of ``+=`` for "try ``+``"."""


_active: ContextVar[_ProtectedMemory | None] = ContextVar("idql_func_protected", default=None)


@contextlib.contextmanager
def _protected(tensors: list[Tensor]) -> Iterator[None]:
    """Protect some tensors; one mode serves for nested functions, since each costs time."""
    storages = {storage_of(x) for x in tensors if not x.is_sparse}
    active = _active.get()
    if active is not None:
        before, active.storages = active.storages, active.storages | storages
        try:
            yield
        finally:
            active.storages = before
        return
    mode = _ProtectedMemory(storages)
    token = _active.set(mode)
    try:
        with mode:
            yield
    finally:
        _active.reset(token)


class _ProtectedMemory(TorchFunctionMode):
    """Within the block, a function of torch that would write into some storages is stopped."""

    def __init__(self, storages: set[int]) -> None:
        super().__init__()
        self.storages = storages

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the function."""
        kwargs = kwargs or {}
        if func in _READS_ONLY and "out" not in kwargs:  # most calls, which must cost little
            return func(*args, **kwargs)
        written = _written(func, args, kwargs)
        for x in tree_iter(written) if written else ():
            if isinstance(x, Tensor) and self._protects(x):
                raise _Write
        return func(*args, **kwargs)

    def _protects(self, x: Tensor) -> bool:
        try:
            return storage_of(x) in self.storages
        except (NotImplementedError, RuntimeError):  # a tensor of torch.func, or one without memory
            return False


_READS_ONLY: set[Any] = set()
"""Functions of torch that write into no argument, unless one has the name ``out``."""


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that a function of torch writes into."""
    name = getattr(func, "__name__", "")
    written = [kwargs["out"]] if kwargs.get("out") is not None else []
    inplace = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    if not inplace and name != "__setitem__" and not isinstance(func, FunctionType):
        _READS_ONLY.add(func)
    if inplace or name == "__setitem__" or _has_inplace_set(func, args, kwargs):
        written += args[:1] or list(kwargs.values())[:1]
    return written


def _has_inplace_set(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether ``inplace`` of ``torch.nn.functional`` is on."""
    if not isinstance(func, FunctionType) or (place := _place_of_inplace(func)) is None:
        return False
    return bool(args[place] if place < len(args) else kwargs.get("inplace"))


@functools.cache
def _place_of_inplace(func: FunctionType) -> int | None:
    names = func.__code__.co_varnames[: func.__code__.co_argcount]
    return names.index("inplace") if "inplace" in names else None
