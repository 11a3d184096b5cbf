"""Many seeds in one program: ``vmap`` of the update over stacked learners, against one seed."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.workloads import update


@dataclass(frozen=True)
class Settings(update.Settings):
    """Those of one update, and how many learners there are: seeds ``seed, seed + 1, …``.

    All draw from the one dataset, each with its own key. A call is ``seeds`` units of work.
    """

    seeds: int = 4
