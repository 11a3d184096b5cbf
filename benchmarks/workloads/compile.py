"""Seconds to the first update of a newcomer: a fresh process, caches empty or kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.workloads.learners import LearnerName


@dataclass(frozen=True)
class Settings:
    """The first update of one learner, imports included; ``cache`` is the state of the disk."""

    learner: LearnerName = "idql"
    cache: Literal["cold", "warm"] = "cold"
    batch: int = 512
