"""Fake variants without dependencies, which a child of ``benchmarks.remote`` measures."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.timing import Variant

CALL_SECONDS = 0.005


def make_variant(
    variant: str, workload: str, settings: Mapping[str, Any], plan: Mapping[str, Any]
) -> Variant:
    waited: list[int] = []

    def noisy(i: int) -> int:
        print("some output")
        os.write(1, b"{}\n")
        time.sleep(CALL_SECONDS)
        return i

    def counting(i: int) -> int:
        if i == settings["fails_at"]:
            raise ValueError(f"waited for {waited}")
        return i

    def dying(i: int) -> int:
        print("all is well\nno memory is left", file=sys.stderr, flush=True)
        os._exit(3)

    def endless(i: int) -> int:
        time.sleep(600)
        return i

    steps: dict[str, Callable[[int], Any]] = {
        "noisy": noisy, "counting": counting, "dying": dying, "endless": endless,
    }  # fmt: skip

    def make() -> Callable[[int], Any]:
        if variant == "facts":
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
            preallocate = os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"]
            imported = [name for name in ("torch", "jax") if name in sys.modules]
            stdin = sys.stdin.read()
            raise RuntimeError(
                f"{workload} {plan['device']} {cores} {preallocate} {imported} {stdin!r}"
            )
        return steps[variant]

    return Variant(variant, make, waited.append, units=settings.get("units", 1))
