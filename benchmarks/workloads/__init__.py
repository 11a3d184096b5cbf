"""The workloads, one file each: ``Settings`` say what is done, ``cases(plan)`` how it is tried."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["NAMES", "load"]

NAMES = (
    "update", "act", "random", "ensemble", "scan", "seeds", "learners", "pixels", "compile",
)  # fmt: skip
"""In the order in which they run."""


def load(name: str) -> ModuleType:
    """The module of a workload.

    >>> load("random").Settings().draw
    'normal'
    """
    return importlib.import_module(f"benchmarks.workloads.{name}")
