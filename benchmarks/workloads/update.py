"""One IDQL update with its batch drawn inside the program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.case import Case, Plan, sizes, twin
from benchmarks.roofline import wait_torch
from benchmarks.timing import Variant
from benchmarks.twin.variants import SCANNED
from benchmarks.workloads.routes import Route, Work, route


@dataclass(frozen=True)
class Settings:
    """A ``DDPMIQLLearner`` of default keywords but for these, on a dataset on the device.

    ``rows`` transitions lie on the device; each call splits its key, draws ``batch`` row numbers by
    ``randint`` inside the program, gathers the five fields and updates.
    """

    batch: int = 512
    observations: int = 17
    actions: int = 6
    dropout: float = 0.1
    hidden: int = 256
    """Width of the actor's residual blocks and of each of the two layers of Q and V."""
    blocks: int = 3
    T: int = 5
    rows: int = 100_000
    seed: int = 0


TINY = {"batch": 8, "hidden": 16, "blocks": 1, "rows": 100}


def cases(plan: Plan) -> list[Case]:
    """The default update by every route, and in a full run a sweep of batch and width."""
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
    settings = sizes(plan, [s for s, _ in chosen], **TINY)
    return [_case(s, routes, plan) for s, (_, routes) in zip(settings, chosen, strict=True)]


def work(settings: Settings, device: str) -> Work:
    """The step that samples and updates, from the learner and its key on."""
    from benchmarks.workloads import idql
    from idql_func import random

    return Work(
        idql.sampled_update(settings),
        lambda: (idql.learner(settings, device), random.PRNGKey(settings.seed + 1, device)),
        lambda: [idql.dataset(settings, device)],
    )


def scanned(settings: Settings, steps: int, device: str) -> Variant:
    """``steps`` updates a call, with donated state and nothing of the host's between them."""

    def make() -> Callable[[int], Any]:
        from benchmarks.workloads import idql
        from idql_func import random
        from idql_func.training.updates import scan_updates

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
    from benchmarks import upstream
    from benchmarks.workloads import idql

    job = work(settings, plan.device)
    own = tuple(route(name, job, plan) for name in routes)
    if "eager" in routes:
        own = (*own, scanned(settings, SCANNED, plan.device))
    return Case(
        "update",
        settings,
        "updates/s",
        (*own, *twin(plan, "update", settings), *upstream.update(plan, settings)),
        flops=lambda: idql.update_flops(settings),
        memory=True,
        limit_shape=(settings.batch, settings.hidden, 4 * settings.hidden),
    )
