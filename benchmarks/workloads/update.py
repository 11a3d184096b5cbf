"""One IDQL update with its batch drawn inside the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import idql, upstream
from benchmarks.case import Case, Plan, jax_variants, resized
from benchmarks.jax_side.variants import SCANNED
from benchmarks.roofline import wait_torch
from benchmarks.timing import Variant
from benchmarks.workloads.routes import Route, Work, route
from idql_func import random
from idql_func.training.updates import scan_updates

Settings = idql.UpdateSettings

TINY = {"batch": 8, "hidden": 16, "blocks": 1, "rows": 100}


def cases(plan: Plan) -> list[Case]:
    """The default update by every route; in a full run also a sweep over batch and width."""
    cuda: list[Route] = ["cuda graph", "donated cuda graph"] if plan.cuda else []
    few: list[Route] = ["compiled", "donated"]
    many: list[Route] = ["eager", *few, "strict", "bf16"]
    quick: list[tuple[Settings, list[Route]]] = [(Settings(), ["donated", *cuda])]
    usual: list[tuple[Settings, list[Route]]] = [(Settings(), [*many, *cuda])]
    sweep = [
        Settings(batch=batch, hidden=hidden)
        for hidden in (256, 512, 1024)
        for batch in (256, 512, 1024, 2048, 4096, 8192)
        if (batch, hidden) != (Settings.batch, Settings.hidden)
    ]
    best: list[Route] = cuda or ["donated"]
    full = [*usual, *((settings, best) for settings in sweep)]
    chosen: list[tuple[Settings, list[Route]]] = plan.pick(quick, usual, full)
    settings = resized(plan, [s for s, _ in chosen], **TINY)
    return [_case(s, routes, plan) for s, (_, routes) in zip(settings, chosen, strict=True)]


def work(settings: Settings, device: str) -> Work:
    """The step that samples a batch and updates; its state is a learner and a key."""
    return Work(
        idql.sampled_update(settings),
        lambda: (idql.learner(settings, device), random.PRNGKey(settings.seed + 1, device)),
        lambda: [idql.dataset(settings, device)],
    )


def scanned(settings: Settings, steps: int, device: str) -> Variant:
    """``steps`` updates in one call, with donated state and no work on the host in between."""

    def make() -> Callable[[int], Any]:
        data = idql.dataset(settings, device)
        state = [idql.learner(settings, device), random.PRNGKey(settings.seed + 1, device)]

        def call(i: int) -> Any:
            state[0], state[1], losses = scan_updates(
                state[0], data, state[1], steps, settings.batch, donate=True
            )
            return losses

        return call

    return Variant("scanned", make, wait_torch, units=steps)


def _case(settings: Settings, routes: list[Route], plan: Plan) -> Case:
    job = work(settings, plan.device)
    own = tuple(route(name, job, plan) for name in routes)
    if "eager" in routes:
        own = (*own, scanned(settings, SCANNED, plan.device))
    return Case(
        "update",
        settings,
        "updates/s",
        (*own, *jax_variants(plan, "update", settings), *upstream.update(plan, settings)),
        flops=lambda: idql.update_flops(settings),
        memory=True,
        limit_shape=(settings.batch, settings.hidden, 4 * settings.hidden),
    )
