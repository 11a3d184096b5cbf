"""Action choice: ``N`` candidates from ``T`` diffusion steps, the best by min-Q."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import idql, upstream
from benchmarks.case import Case, Plan, jax_variants, resized
from benchmarks.roofline import wait_torch
from benchmarks.timing import Variant
from idql_func import disable_jit

Settings = idql.ActSettings

TINY = {"N": 4, "T": 2, "hidden": 16, "blocks": 1}


def cases(plan: Plan) -> list[Case]:
    """One environment, and several."""
    numbers = plan.pick((1,), (1, 10), (1, 10, 100))
    return [_case(s, plan) for s in resized(plan, [Settings(num_envs=n) for n in numbers], **TINY)]


def _case(settings: Settings, plan: Plan) -> Case:
    def make() -> Callable[[int], Any]:
        inputs = idql.observations(settings)
        state = [idql.learner(settings, plan.device, N=settings.N)]

        def call(i: int) -> np.ndarray:
            actions, state[0] = state[0].eval_actions(inputs[i % len(inputs)])
            return actions

        return call

    number = settings.num_envs
    own = [Variant("compiled", make, wait_torch, units=number)]
    if plan.effort != "quick":
        own.insert(0, Variant("eager", make, wait_torch, units=number, scope=disable_jit))
    external = list(jax_variants(plan, "act", settings))
    if number > 1:  # other ways to act in several environments, each with its own keys
        external += [
            *jax_variants(plan, "act_each", settings),
            *jax_variants(plan, "act_vmapped", settings),
        ]
    return Case(
        "act",
        settings,
        "actions/s",
        (*own, *external, *upstream.act(plan, settings)),
        flops=lambda: idql.act_flops(settings),
        wait_each=True,
        limit_shape=(settings.num_envs * settings.N, settings.hidden, 4 * settings.hidden),
    )
