"""``steps`` IDQL updates in one call, with sampling, against the same number of calls."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import idql
from benchmarks.case import Case, Plan, jax_variants, resized
from benchmarks.workloads import update
from benchmarks.workloads.routes import route


@dataclass(frozen=True)
class Settings(update.Settings):
    """The settings of one update, and the updates in a call; metrics are averaged."""

    steps: int = 16


def cases(plan: Plan) -> list[Case]:
    """One length; a full run has several, which shows the cost of a call."""
    lengths = plan.pick((16,), (16,), (1, 4, 16, 64))
    settings = [Settings(steps=steps) for steps in lengths]
    return [_case(s, plan) for s in resized(plan, settings, **update.TINY, steps=2)]


def _case(settings: Settings, plan: Plan) -> Case:

    job = update.work(settings, plan.device)
    own = (route("donated", job, plan), update.scanned(settings, settings.steps, plan.device))
    return Case(
        "scan",
        settings,
        "updates/s",
        (*own, *jax_variants(plan, "scan", settings)),
        flops=lambda: idql.update_flops(settings),
        baseline="donated",
    )
