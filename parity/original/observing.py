"""Find the public names of the original that a case executes, with Python's profiler.

Runs in the JAX environment. A function is observed when its Python code runs; the code of a jitted
one runs when it is traced. Every learner and network is traced again, so that no cache hides a
function.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Iterable, Iterator
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from parity.original.public import PACKAGE, module_name


def _resolve(name: str) -> Any:
    """The object of a dotted name: a module, or an attribute of one, or of a class in it."""
    head, _, tail = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(_resolve(head), tail)


def _code(value: Any) -> CodeType | None:
    """The Python code object that runs when ``value`` is called, if there is one."""
    if isinstance(value, type):
        value = value.__new__ if issubclass(value, tuple) else value.__init__
    return getattr(getattr(value, "__func__", value), "__code__", None)


class Observer:
    """Collects the names that run inside :meth:`watching`.

    Args:
        upstream: the checkout.
        names: those of :func:`parity.original.public.public_names`.
    """

    def __init__(self, upstream: Path, names: Iterable[str]):
        self._root, self._own = str(upstream.resolve()), str(Path(__file__).resolve().parents[1])
        self._upstream, self._names = upstream.resolve(), frozenset(names)
        # By identity: equal code in two modules, on the same lines, compares equal.
        self._by_code: dict[int, str] = {}
        self._outside: dict[int, set[str]] = {}
        self._partials: list[tuple[str, functools.partial[Any]]] = []
        self._seen: set[str] = set()
        for name in self._names:
            if name.startswith(f"{PACKAGE}."):
                self._alias(name)
            elif code := _code(_resolve(name)):
                self._outside.setdefault(id(code), set()).add(name)

    def _alias(self, name: str) -> None:
        """A name that the original gives to an object of another package, or to a partial."""
        head, _, tail = name.rpartition(".")
        module = sys.modules.get(head)
        value = getattr(module, tail, None)
        if isinstance(value, functools.partial):
            self._partials.append((name, value))
        elif callable(value) and not isinstance(value, type):
            code = _code(value)
            if code and not code.co_filename.startswith(self._root):
                self._outside.setdefault(id(code), set()).add(name)

    def _called(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        # The body of a class or a module runs on import, which computes nothing.
        if event != "call" or not code.co_flags & CO_OPTIMIZED:
            return
        if id(code) in self._outside:
            back = frame.f_back
            if back and back.f_code.co_filename.startswith((self._root, self._own)):
                self._seen |= self._outside[id(code)]
        elif code.co_filename.startswith(self._root):
            if id(code) not in self._by_code:
                module = module_name(Path(code.co_filename), self._upstream)
                self._by_code[id(code)] = f"{module}.{code.co_qualname}"
            self._seen.add(self._by_code[id(code)])
            if self._partials and code.co_name == "__call__":
                self._seen.update(self._applied(frame.f_locals.get("self")))

    def _applied(self, module: Any) -> Iterator[str]:
        """Partials that create a module like this one."""
        for name, made in self._partials:
            given = made.keywords.items()
            kind = made.func if isinstance(made.func, type) else ()
            if isinstance(module, kind) and all(getattr(module, k) == v for k, v in given):
                yield name

    @contextlib.contextmanager
    def watching(self) -> Iterator[set[str]]:
        """A set that is filled, when the block ends, with the names that ran inside."""
        out: set[str] = set()
        self._seen = set()
        sys.setprofile(self._called)
        try:
            yield out
        finally:
            sys.setprofile(None)
            out |= self._seen & self._names
            # A class counts as executed if any of its methods was.
            out |= {name.rpartition(".")[0] for name in out} & self._names
