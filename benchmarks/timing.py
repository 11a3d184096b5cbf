"""What is measured, and how: variants of one workload in turn, block by block, in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Variant:
    """One way to do a workload's work.

    ``make()`` builds the state and returns ``step``; ``step(i)`` does one call on rotating input
    ``i`` and returns at once; ``wait(result)`` blocks until that result is there.
    """

    name: str
    make: Callable[[], Callable[[int], Any]]
    wait: Callable[[Any], None]
    units: int = 1
    """How many units of work (updates, actions, …) one call does."""
