"""``steps`` IDQL updates in one call, sampling included, against as many single calls."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.case import Case, Plan, sizes, twin
from benchmarks.workloads import update
from benchmarks.workloads.routes import route


@dataclass(frozen=True)
class Settings(update.Settings):
    """Those of one update, and how many of them a call does; metrics come out averaged."""

    steps: int = 16


def cases(plan: Plan) -> list[Case]:
    """Calls of one length; a full run has several, to see what a call itself costs."""
    lengths = plan.pick((16,), (16,), (1, 4, 16, 64))
    settings = [Settings(steps=steps) for steps in lengths]
    return [_case(s, plan) for s in sizes(plan, settings, **update.TINY, steps=2)]


def _case(settings: Settings, plan: Plan) -> Case:
    from benchmarks.workloads import idql

    job = update.work(settings, plan.device)
    own = (route("donated", job, plan), update.scanned(settings, settings.steps, plan.device))
    return Case(
        "scan",
        settings,
        "updates/s",
        (*own, *twin(plan, "scan", settings)),
        flops=lambda: idql.update_flops(settings),
        baseline="donated",
    )
