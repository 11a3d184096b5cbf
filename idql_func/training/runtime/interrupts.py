"""Ctrl-C and other requests to stop: delayed until the end of a loop's step, all treated alike."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["DelayedInterrupt", "delayed_interrupts", "stop_signals"]

_STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What a scheduler, a container or a closed terminal sends to stop a process."""


@contextmanager
def stop_signals() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP do what Ctrl-C does there.

    A signal that is ignored (``nohup``) or has a handler already keeps it. Outside the main thread
    this does nothing.

    Example:
        >>> with stop_signals(), delayed_interrupts() as interrupt:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     interrupt.pending
        True
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            handler(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt

    before = {n: signal.getsignal(n) for n in _STOPS}
    ours = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@dataclass
class DelayedInterrupt:
    """Whether Ctrl-C was pressed since it is delayed."""

    pending: bool = False
    since: float = 0.0  # by ``time.monotonic``


@contextmanager
def delayed_interrupts(
    note: Callable[[], None] | None = None, patience: float = 0.0
) -> Iterator[DelayedInterrupt]:
    """Within the block the first Ctrl-C is only recorded; a second one interrupts as usual.

    A step that changes several things (an environment, a buffer, a learner) is then never left half
    done: the loop checks ``pending`` between two steps. Outside the main thread, where signals do
    not arrive, this does nothing.

    Args:
        note: called at the first Ctrl-C.
        patience: seconds in which further ones count as the first one, for users who press twice.

    Example:
        >>> with delayed_interrupts() as interrupt:
        ...     signal.raise_signal(signal.SIGINT)
        ...     interrupt.pending
        True
    """
    delayed = DelayedInterrupt()
    if threading.current_thread() is not threading.main_thread():
        yield delayed
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if delayed.pending:
            if time.monotonic() - delayed.since >= patience:
                raise KeyboardInterrupt
            return
        delayed.pending, delayed.since = True, time.monotonic()
        if note is not None:
            note()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield delayed
    finally:
        signal.signal(signal.SIGINT, before)
