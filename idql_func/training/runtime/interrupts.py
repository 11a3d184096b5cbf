"""Ctrl-C between two steps of a loop, not in the middle of one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["HeldInterrupt", "held_interrupts"]


@dataclass
class HeldInterrupt:
    """Whether Ctrl-C was pressed since it was held back."""

    pending: bool = False
    since: float = 0.0
    """When that was, by ``time.monotonic``."""


@contextmanager
def held_interrupts(
    note: Callable[[], None] | None = None, patience: float = 0.0
) -> Iterator[HeldInterrupt]:
    """Within the block the first Ctrl-C is only noted; a second one interrupts as ever.

    A step that changes several things (an environment, a buffer, a learner) is then never left half
    done: the loop looks at ``pending`` between two steps. Outside the main thread, where signals do
    not arrive, nothing is held back.

    Args:
        note: called at the first Ctrl-C.
        patience: for so many seconds further ones are taken for the first one, as of somebody who
            presses twice.

    Example:
        >>> with held_interrupts() as interrupt:
        ...     signal.raise_signal(signal.SIGINT)
        ...     interrupt.pending
        True
    """
    held = HeldInterrupt()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if held.pending:
            if time.monotonic() - held.since >= patience:
                raise KeyboardInterrupt
            return
        held.pending, held.since = True, time.monotonic()
        if note is not None:
            note()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)
