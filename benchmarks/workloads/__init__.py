"""The workloads, one file each: ``Settings`` describe the work, ``cases(plan)`` its variants."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["NAMES", "load"]

NAMES = (
    "update", "act", "random", "ensemble", "scan", "seeds", "learners", "pixels", "compile",
)  # fmt: skip
"""Names of the workloads, in the order in which they run."""


def load(name: str) -> ModuleType:
    """The module of a workload.

    >>> load("random").Settings().draw
    'normal'
    """
    return importlib.import_module(f"benchmarks.workloads.{name}")
