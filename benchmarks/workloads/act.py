"""Action choice: ``N`` candidates by ``T`` diffusion steps, the best by min-Q."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.case import Case, Plan, sizes, twin
from benchmarks.roofline import wait_torch
from benchmarks.timing import Variant
from idql_func import disable_jit


@dataclass(frozen=True)
class Settings:
    """``eval_actions`` of a ``DDPMIQLLearner`` for a batch of environments.

    A call takes observations of the host (NumPy, ``[num_envs, observations]``), as an environment
    gives them, and ends with actions on the host. The key advances from call to call.
    """

    num_envs: int = 1
    N: int = 64
    T: int = 5
    observations: int = 17
    actions: int = 6
    hidden: int = 256
    blocks: int = 3
    dropout: float = 0.1
    """Of the actor's layers; off at action choice."""
    seed: int = 0
    inputs: int = 16
    """How many different batches of observations rotate."""


TINY = {"N": 4, "T": 2, "hidden": 16, "blocks": 1}


def cases(plan: Plan) -> list[Case]:
    """One environment, and several."""
    numbers = plan.pick((1,), (1, 10), (1, 10, 100))
    return [_case(s, plan) for s in sizes(plan, [Settings(n) for n in numbers], **TINY)]


def observations(settings: Settings) -> list[np.ndarray]:
    """What rotates: ``[num_envs, observations]``, on the host."""
    draws = np.random.default_rng(settings.seed)
    shape = (settings.num_envs, settings.observations)
    return [draws.normal(size=shape).astype(np.float32) for _ in range(settings.inputs)]


def _case(settings: Settings, plan: Plan) -> Case:
    from benchmarks import upstream
    from benchmarks.workloads import idql

    def make() -> Callable[[int], Any]:
        inputs = observations(settings)
        state = [idql.learner(settings, plan.device)]

        def call(i: int) -> np.ndarray:
            actions, state[0] = state[0].eval_actions(inputs[i % len(inputs)])
            return actions

        return call

    number = settings.num_envs
    own = [Variant("compiled", make, wait_torch, units=number)]
    if plan.effort != "quick":
        own.insert(0, Variant("eager", make, wait_torch, units=number, scope=disable_jit))
    beside = list(twin(plan, "act", settings))
    if number > 1:  # the other ways to serve several environments, each with keys of its own
        beside += [*twin(plan, "act_each", settings), *twin(plan, "act_vmapped", settings)]
    return Case(
        "act",
        settings,
        "actions/s",
        (*own, *beside, *upstream.act(plan, settings)),
        flops=lambda: idql.act_flops(settings),
        wait_each=True,
        limit_shape=(settings.num_envs * settings.N, settings.hidden, 4 * settings.hidden),
    )
