"""One update of each learner, on batches that rotate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from benchmarks.case import Case, Flops, Plan, jax_variants, resized
from benchmarks.jax_side.variants import SCANNED
from benchmarks.roofline import count_flops, wait_torch
from benchmarks.timing import Variant
from idql_func import agents, disable_jit, jit, scan, tree_map, tree_stack

LearnerName = Literal[
    "idql", "idql-general", "iql", "bc", "sac", "td3", "redq", "droq", "drq", "pixel-bc"
]


@dataclass(frozen=True)
class Settings:
    """``update`` of a learner with default keywords except for these; one call is one ``update``.

    ``redq`` is SAC with ten critics, two of which make the target; ``droq`` is SAC with dropout
    0.01 and layer norm in the critics. A batch has ``batch * utd`` rows, split into ``utd``
    parts. The image learners get ``[image, image, 3, frames]`` uint8 pixels, not packed.
    """

    learner: LearnerName = "iql"
    batch: int = 256
    observations: int = 17
    actions: int = 6
    hidden: int = 256
    utd: int = 1
    image: int = 64
    frames: int = 3
    seed: int = 0
    inputs: int = 8
    """Number of batches on the device that rotate."""


NAMES: tuple[LearnerName, ...] = get_args(LearnerName)
IMAGES = ("drq", "pixel-bc")
UTD = {"redq": 20, "droq": 20}
IN_ONE_PROGRAM = ("iql", "bc", "sac")
"""Learners on states whose update is one program, which a scan repeats. TD3 has two programs and
chooses by its step count; inside a scan it computes both each time."""
TINY = {"batch": 4, "hidden": 8, "image": 16, "utd": 1}

_CLASSES: dict[str, tuple[type, dict[str, Any]]] = {
    "idql": (agents.DDPMIQLLearner, {}),
    "idql-general": (agents.GeneralDDPMIQLLearner, {}),
    "iql": (agents.IQLLearner, {}),
    "bc": (agents.BCLearner, {}),
    "sac": (agents.SACLearner, {}),
    "td3": (agents.TD3Learner, {}),
    "redq": (agents.SACLearner, {"num_qs": 10, "num_min_qs": 2}),
    "droq": (agents.SACLearner, {"critic_dropout_rate": 0.01, "critic_layer_norm": True}),
    "drq": (agents.DrQLearner, {}),
    "pixel-bc": (agents.PixelBCLearner, {}),
}


def cases(plan: Plan) -> list[Case]:
    """One learner, those with different work, or all; IDQL has its own workload, ``update``."""
    few: tuple[LearnerName, ...] = ("iql",)
    usual: tuple[LearnerName, ...] = tuple(
        n for n in NAMES if n != "droq" and not n.startswith("idql")
    )
    settings = [Settings(name, utd=UTD.get(name, 1)) for name in plan.pick(few, usual, NAMES)]
    return [_case(s, plan) for s in resized(plan, settings, **TINY)]


def create(settings: Settings, device: str = "cpu") -> Any:
    """The learner of the settings."""
    cls: Any
    cls, keywords = _CLASSES[settings.learner]
    layers = (settings.hidden, settings.hidden)
    name = "critic_hidden_dims" if settings.learner.startswith("idql") else "hidden_dims"
    observations: gym.Space[Any] = gym.spaces.Box(-1, 1, (settings.observations,))
    if settings.learner in IMAGES:
        shape = (settings.image, settings.image, 3, settings.frames)
        observations = gym.spaces.Dict({"pixels": gym.spaces.Box(0, 255, shape, np.uint8)})
    actions = gym.spaces.Box(-1, 1, (settings.actions,))
    learner = cls.create(settings.seed, observations, actions, **{name: layers}, **keywords)
    return learner.to(device)


def batches(settings: Settings, device: str = "cpu") -> list[dict[str, Any]]:
    """Batches on the device, which rotate."""
    draws = torch.Generator().manual_seed(settings.seed)
    rows = settings.batch * settings.utd
    image = (rows, settings.image, settings.image, 3, settings.frames)

    def observed() -> Any:
        if settings.learner in IMAGES:
            return {"pixels": torch.randint(256, image, generator=draws, dtype=torch.uint8)}
        return torch.randn(rows, settings.observations, generator=draws)

    def batch() -> dict[str, Any]:
        return {
            "observations": observed(),
            "actions": torch.rand(rows, settings.actions, generator=draws) * 1.8 - 0.9,
            "rewards": torch.rand(rows, generator=draws),
            "masks": (torch.rand(rows, generator=draws) > 0.01).float(),
            "next_observations": observed(),
        }

    def to_device(x: Tensor) -> Tensor:
        return x.to(device)

    return [tree_map(to_device, batch()) for _ in range(settings.inputs)]


def keywords_of_update(settings: Settings) -> dict[str, Any]:
    """Keywords of ``update`` besides the batch."""
    return {"utd_ratio": settings.utd} if settings.learner in ("sac", "td3", *UTD, "drq") else {}


def _case(settings: Settings, plan: Plan) -> Case:
    def flops() -> Flops:
        learner, [batch, *_] = create(settings), batches(settings)
        if settings.learner == "td3":  # the actor is not updated each time
            actor = count_flops(learner.update_actor, batch) / learner.actor_delay
            count = count_flops(learner.update_critic, batch) + actor
        else:
            count = count_flops(learner.update, batch, **keywords_of_update(settings))
        return Flops(count, count)

    own = [_variant("donated", settings, plan, donate=True)]
    external = list(jax_variants(plan, "learner", settings))
    if plan.effort != "quick" and settings.learner in IN_ONE_PROGRAM:
        own.append(scanned(settings, plan))
        external += jax_variants(plan, "learner_scanned", settings)
    if plan.effort == "full":
        eager = _variant("eager", settings, plan, scope=disable_jit)
        own = [eager, _variant("compiled", settings, plan), *own]
    return Case(
        "learners",
        settings,
        "updates/s",
        (*own, *external),
        flops=flops,
        limit_shape=(settings.batch, settings.hidden, settings.hidden),
    )


def _variant(
    name: str, settings: Settings, plan: Plan, scope: Any = None, **keywords: Any
) -> Variant:
    """The learner's ``update`` method, as users call it."""

    def make() -> Callable[[int], Any]:
        inputs, state = batches(settings, plan.device), [create(settings, plan.device)]
        options = {**keywords_of_update(settings), **keywords}

        def call(i: int) -> Any:
            state[0], losses = state[0].update(inputs[i % len(inputs)], **options)
            return losses

        return call

    return Variant(name, make, wait_torch, **({} if scope is None else {"scope": scope}))


def scanned(settings: Settings, plan: Plan) -> Variant:
    """``SCANNED`` updates in one call by ``scan``, on the same batches; the state is donated."""

    def make() -> Callable[[int], Any]:
        keywords = keywords_of_update(settings)
        rotating = batches(settings, plan.device)
        stack = tree_stack([rotating[k % len(rotating)] for k in range(SCANNED)])
        state = [create(settings, plan.device)]
        step = jit(lambda learner, batch: learner.update(batch, **keywords), donate_argnums=0)

        def call(i: int) -> Any:
            state[0], losses = scan(step, state[0], stack)
            return losses

        return call

    return Variant("scanned", make, wait_torch, units=SCANNED)
