"""Threads: the lock around tracing and compiling, and which thread runs the code."""

from __future__ import annotations

import os
import threading
from types import TracebackType

import torch

__all__ = ["COMPILE_LOCK", "CompileLock", "in_main_thread"]


class CompileLock:
    """A lock that one thread may take several times, and that knows its thread.

    While a function is traced, torch changes classes and flags of the whole process. Programs that
    are compiled already run without the lock.

    >>> lock = CompileLock()
    >>> with lock, lock:
    ...     lock.held_by_another_thread()
    False
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget who holds the lock: a forked process has none of the other threads."""
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> CompileLock:
        self._lock.acquire()
        self._owner = threading.get_ident()
        self._depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
        self._lock.release()

    def held_by_another_thread(self) -> bool:
        """Whether another thread traces or compiles now."""
        owner = self._owner
        return owner is not None and owner != threading.get_ident()


COMPILE_LOCK = CompileLock()
"""The one lock of the process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=COMPILE_LOCK.reset)


def in_main_thread() -> bool:
    """Whether this is the main thread, or Dynamo traces the code without running it.

    >>> in_main_thread()
    True
    """
    if torch.compiler.is_dynamo_compiling():
        return True
    return threading.get_ident() == threading.main_thread().ident
