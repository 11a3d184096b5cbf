"""Seconds to the first update in a fresh process, with empty or filled caches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks import processes
from benchmarks.case import JAX, Plan
from benchmarks.results import SECONDS, Result
from benchmarks.timing import spread
from benchmarks.workloads import learners
from benchmarks.workloads.learners import LearnerName

OWN = "compiled"


@dataclass(frozen=True)
class Settings:
    """The first update of one learner, imports included; ``cache``: whether the disk has it."""

    learner: LearnerName = "idql"
    cache: Literal["cold", "warm"] = "cold"
    batch: int = 512


def learners_of(plan: Plan) -> tuple[LearnerName, ...]:
    """Learners to time: the fastest to compile, IDQL, or all learners on states and DrQ."""
    if plan.tiny:
        return ("bc",)
    return plan.pick(("bc",), ("idql",), ("idql", "iql", "bc", "sac", "td3", "redq", "drq"))


def measure(
    plan: Plan,
    threads: int,
    on_progress: Callable[[str], Any] = lambda text: None,
    on_failure: Callable[[str, Exception], Any] = lambda name, error: None,
) -> list[Result]:
    """Time this library and JAX in turn: with empty caches, then with the filled ones.

    ``ratio_to_jax`` says how many times as long JAX takes.
    """
    results: list[Result] = []
    sides = (OWN, JAX) if plan.jax else (OWN,)
    warm = plan.pick(1, 3, 3)
    for learner in learners_of(plan):
        settings = Settings(learner, batch=8 if plan.tiny else Settings.batch)
        seconds: dict[tuple[str, str], list[float]] = {}
        with processes.fresh_caches() as environ:
            for cache, times in (("cold", 1), ("warm", warm)):
                for _ in range(times):
                    for side in sides:
                        on_progress(f"{learner}, {cache}, {side}")
                        task = {
                            "variant": side,
                            "settings": dataclasses.asdict(_of_learner(settings)),
                            "device": plan.device,
                            "threads": threads,
                        }
                        try:
                            taken = processes.first_update(task, environ)
                        except RuntimeError as error:
                            on_failure(f"{learner} {side}", error)
                            continue
                        seconds.setdefault((cache, side), []).append(taken)
        results += [
            _result(dataclasses.replace(settings, cache=cache), side, taken, seconds)  # type: ignore[arg-type]
            for (cache, side), taken in seconds.items()
        ]
    return results


def _of_learner(settings: Settings) -> learners.Settings:
    utd = learners.UTD.get(settings.learner, 1)
    return learners.Settings(settings.learner, settings.batch, utd=utd, inputs=1)


def _result(
    settings: Settings, side: str, taken: list[float], seconds: dict[tuple[str, str], list[float]]
) -> Result:
    own = spread(taken)
    jax = seconds.get((settings.cache, JAX))
    return Result(
        "compile",
        side,
        dataclasses.asdict(settings),
        rate=own.median,
        unit=SECONDS,
        ratio_to_jax=spread(jax).median / own.median if jax else None,
        spread={"rate": (own.low, own.high)},
        compile_seconds=own.median,
        rates=tuple(taken),
    )
