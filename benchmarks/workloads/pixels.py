"""One DrQ update from images, sampled from a buffer of frames and cropped in the program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Case, Flops, Plan, jax_variants, resized
from benchmarks.roofline import count_flops
from benchmarks.workloads import learners
from benchmarks.workloads.routes import Route, Work, route
from idql_func import random, tree_map


@dataclass(frozen=True)
class Settings:
    """A ``DrQLearner`` with default keywords and a memory-efficient buffer on the device.

    The buffer holds ``rows`` single frames ``[rows, image, image, 3]`` uint8 of one long episode.
    A call splits its key, draws ``batch`` starts by ``randint`` below ``rows - frames``, gathers
    ``frames + 1`` frames in a row for each into packed pixels ``[batch, image, image, 3,
    frames + 1]`` (all but the last are the observation, all but the first the next one) and
    updates, random crops included.
    """

    batch: int = 256
    image: int = 64
    frames: int = 3
    actions: int = 6
    hidden: int = 256
    rows: int = 2_000
    seed: int = 0


def cases(plan: Plan) -> list[Case]:
    """The default in a full run; shorter runs take smaller batches and images."""
    settings = plan.pick([Settings(batch=32, image=32)], [Settings(batch=64)], [Settings()])
    return [_case(s, plan) for s in resized(plan, settings, batch=4, image=16, hidden=8, rows=32)]


def buffer(settings: Settings, device: str = "cpu") -> dict[str, Tensor]:
    """Single frames, actions, rewards and masks of each step, on the device."""
    draws = torch.Generator().manual_seed(settings.seed)
    rows, size = settings.rows, settings.image
    columns = {
        "frames": torch.randint(256, (rows, size, size, 3), generator=draws, dtype=torch.uint8),
        "actions": torch.rand(rows, settings.actions, generator=draws) * 1.8 - 0.9,
        "rewards": torch.rand(rows, generator=draws),
        "masks": torch.ones(rows),
    }
    return tree_map(lambda x: x.to(device), columns)


def sampled_update(settings: Settings) -> Any:
    """``(learner, key), buffer -> (learner, key), losses``."""
    frames = settings.frames

    def step(state: tuple[Any, Tensor], data: dict[str, Tensor]) -> tuple[Any, Any]:
        learner, key = state
        draw, key = random.split(key)
        starts = random.randint(draw, (settings.batch,), 0, settings.rows - frames)
        rows = starts.unsqueeze(1) + torch.arange(frames + 1, device=starts.device)
        packed = data["frames"][rows].permute(0, 2, 3, 4, 1)  # [B, H, W, 3, frames + 1]
        now = starts + frames - 1
        batch = {
            "observations": {"pixels": packed},
            "next_observations": {},
            **{name: data[name][now] for name in ("actions", "rewards", "masks")},
        }
        learner, losses = learner.update(batch)
        return (learner, key), losses

    return step


def _case(settings: Settings, plan: Plan) -> Case:
    of_learner = learners.Settings(
        "drq",
        settings.batch,
        actions=settings.actions,
        hidden=settings.hidden,
        image=settings.image,
        frames=settings.frames,
        seed=settings.seed,
    )
    work = Work(
        sampled_update(settings),
        lambda: (
            learners.create(of_learner, plan.device),
            random.PRNGKey(settings.seed + 1, plan.device),
        ),
        lambda: [buffer(settings, plan.device)],
    )

    def flops() -> Flops:
        state = (learners.create(of_learner), random.PRNGKey(0))
        count = count_flops(work.step, state, buffer(settings))
        return Flops(count, count)

    few: list[Route] = ["donated"]
    routes: list[Route] = plan.pick(few, few, ["eager", "compiled", *few])
    return Case(
        "pixels",
        settings,
        "updates/s",
        (*(route(name, work, plan) for name in routes), *jax_variants(plan, "pixels", settings)),
        flops=flops,
    )
