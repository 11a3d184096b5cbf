"""Many seeds in one program: ``vmap`` of the update over stacked learners, against one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import idql
from benchmarks.case import Case, Plan, jax_variants, resized
from benchmarks.roofline import wait_torch
from benchmarks.timing import Variant
from benchmarks.workloads import update
from benchmarks.workloads.routes import Route, Work, route
from idql_func import random, tree_stack, vmap


@dataclass(frozen=True)
class Settings(update.Settings):
    """The settings of one update, and the number of learners, with seeds ``seed, seed + 1, …``.

    All sample from one dataset, each with its own key. A call is ``seeds`` units of work.
    """

    seeds: int = 4


def cases(plan: Plan) -> list[Case]:
    """Several numbers of seeds, each against one seed at a time."""
    numbers = plan.pick((2,), (2, 8), (1, 2, 4, 8, 16))
    settings = [Settings(seeds=n) for n in numbers]
    return [_case(s, plan) for s in resized(plan, settings, **update.TINY)]


def _case(settings: Settings, plan: Plan) -> Case:
    def start() -> Any:
        seeds = range(settings.seed, settings.seed + settings.seeds)
        learners = [idql.learner(settings, plan.device, seed) for seed in seeds]
        keys = random.split(random.PRNGKey(settings.seed + 1, plan.device), settings.seeds)
        return tree_stack(learners), keys

    stacked = Work(
        vmap(idql.sampled_update(settings), in_axes=(0, None)),
        start,
        lambda: [idql.dataset(settings, plan.device)],
        units=settings.seeds,
    )
    names: list[Route] = plan.pick(["donated"], ["donated"], ["compiled", "donated"])
    if plan.cuda:
        names.append("donated cuda graph")
    routes = [route(name, stacked, plan) for name in names]
    return Case(
        "seeds",
        settings,
        "updates/s",
        (_one_at_a_time(settings, plan), *routes, *jax_variants(plan, "seeds", settings)),
        flops=lambda: idql.update_flops(settings),
        baseline="one at a time",
    )


def _one_at_a_time(settings: Settings, plan: Plan) -> Variant:
    """The program of one seed: its rate is the total rate of any number of seeds in turn."""
    single = route("donated", update.work(settings, plan.device), plan)
    make: Callable[[], Callable[[int], Any]] = single.make
    return Variant("one at a time", make, wait_torch)
