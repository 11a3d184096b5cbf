"""``steps`` IDQL updates in one call, sampling included, against as many single calls."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.workloads import update


@dataclass(frozen=True)
class Settings(update.Settings):
    """Those of one update, and how many of them a call does; metrics come out averaged."""

    steps: int = 16
