"""The IDQL learner, dataset and settings that several workloads share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from benchmarks.case import Flops
from benchmarks.roofline import count_flops, dense_flops
from idql_func import random, tree_map
from idql_func.agents import DDPMIQLLearner
from idql_func.agents.factories import target_state, train_state
from idql_func.networks import DDPM, MLP, FourierFeatures, MLPResNet, swish
from idql_func.training.updates import draw_batch

__all__ = [
    "ActSettings",
    "LearnerSettings",
    "UpdateSettings",
    "act_flops",
    "box",
    "dataset",
    "learner",
    "observations",
    "sampled_update",
    "update_flops",
]

_TIME_DIM = 128
_COND = (256, 256)
_DEFAULT_HIDDEN = 256

Step = Callable[[Any, dict[str, Tensor]], tuple[Any, Any]]


@dataclass(frozen=True)
class LearnerSettings:
    """A ``DDPMIQLLearner`` with default keywords except for these."""

    observations: int = 17
    actions: int = 6
    dropout: float = 0.1
    """Of the actor's layers; off when it acts."""
    hidden: int = 256
    """Width of the actor's residual blocks and of each of the two layers of Q and V."""
    blocks: int = 3
    T: int = 5
    seed: int = 0


@dataclass(frozen=True)
class UpdateSettings(LearnerSettings):
    """One update of the learner.

    ``rows`` transitions lie on the device; each call splits its key, draws ``batch`` row numbers by
    ``randint`` inside the program, gathers the five fields and updates.
    """

    batch: int = 512
    rows: int = 100_000


@dataclass(frozen=True)
class ActSettings(LearnerSettings):
    """``eval_actions`` of the learner for a batch of environments.

    A call takes observations on the host (NumPy, ``[num_envs, observations]``), as an environment
    returns them, and ends with actions on the host. The key advances from call to call.
    """

    num_envs: int = 1
    N: int = 64
    inputs: int = 16
    """Number of batches of observations that rotate."""


def box(*shape: int) -> gym.spaces.Box:
    return gym.spaces.Box(-1, 1, shape)


def learner(
    settings: LearnerSettings, device: str = "cpu", seed: int | None = None, **keywords: Any
) -> DDPMIQLLearner:
    """Create a learner; if ``hidden`` is not the default, its actor is replaced by one as wide."""
    number = settings.seed if seed is None else seed
    made = DDPMIQLLearner.create(
        number,
        box(settings.observations),
        box(settings.actions),
        critic_hidden_dims=(settings.hidden, settings.hidden),
        actor_num_blocks=settings.blocks,
        actor_dropout_rate=settings.dropout or None,
        T=settings.T,
        **keywords,
    )
    if settings.hidden != _DEFAULT_HIDDEN:
        network = _actor_network(
            settings.observations, settings.actions, settings.hidden, settings.blocks,
            settings.dropout or None,
        )  # fmt: skip
        params = network.init(random.PRNGKey(number))
        state = train_state(network, params, tx=made.score_model.tx)
        made = made.replace(score_model=state, target_score_model=target_state(state))
    return made.to(device)


@functools.cache  # equal settings share one network, so that learners can be stacked
def _actor_network(
    observations: int, actions: int, hidden: int, blocks: int, dropout: float | None
) -> DDPM:
    inputs = actions + observations + _COND[-1]
    residual = MLPResNet(
        inputs, blocks, actions, dropout, True, hidden_dim=hidden, activations=swish
    )
    return DDPM(MLP(_TIME_DIM, _COND, swish), residual, FourierFeatures(_TIME_DIM))


def dataset(settings: UpdateSettings, device: str = "cpu") -> dict[str, Tensor]:
    """Random transitions, ``[rows, ...]`` each, on the device."""
    draws = torch.Generator().manual_seed(settings.seed)
    rows, observations, actions = settings.rows, settings.observations, settings.actions
    columns = {
        "observations": torch.randn(rows, observations, generator=draws),
        "actions": torch.rand(rows, actions, generator=draws) * 2 - 1,
        "rewards": torch.rand(rows, generator=draws),
        "masks": (torch.rand(rows, generator=draws) > 0.01).float(),
        "next_observations": torch.randn(rows, observations, generator=draws),
    }
    return tree_map(lambda x: x.to(device), columns)


def observations(settings: ActSettings) -> list[np.ndarray]:
    """Batches of observations ``[num_envs, observations]`` on the host, which rotate."""
    draws = np.random.default_rng(settings.seed)
    shape = (settings.num_envs, settings.observations)
    return [draws.normal(size=shape).astype(np.float32) for _ in range(settings.inputs)]


def sampled_update(settings: UpdateSettings) -> Step:
    """``(learner, key), data -> (learner, key), losses``: one update that samples its batch."""

    def step(state: tuple[Any, Tensor], data: dict[str, Tensor]) -> tuple[Any, Any]:
        trained_learner, key = state
        batch, key = draw_batch(data, key, settings.batch)
        trained_learner, losses = trained_learner.update(batch)
        return (trained_learner, key), losses

    return step


# --- operations ------------------------------------------------------------------------------


def update_flops(settings: UpdateSettings) -> Flops:
    """Operations of one update; the original encodes the diffusion time of each row separately."""
    rows = settings.batch
    size, actions, h = settings.observations, settings.actions, settings.hidden
    critic, value = _perceptron(size + actions, h), _perceptron(size, h)
    algorithm = (
        dense_flops(rows, _actor(settings), passes=3)
        - dense_flops(rows, [(1, _TIME_DIM // 2)])  # no gradient by the diffusion time
        + 2 * (dense_flops(rows, critic, passes=4) - dense_flops(rows, critic[:1]))
        + dense_flops(rows, value, passes=4)  # V's layer norm needs the gradient by its input
    )
    state = (learner(settings), random.PRNGKey(0))
    executed = count_flops(sampled_update(settings), state, dataset(settings))
    return Flops(executed, algorithm)


def act_flops(settings: ActSettings) -> Flops:
    """Operations of one action, which is one environment's share of a call."""
    rows = settings.N
    critic = _perceptron(settings.observations + settings.actions, settings.hidden)
    algorithm = settings.T * dense_flops(rows, _actor(settings)) + 2 * dense_flops(rows, critic)
    rows_seen = torch.zeros(settings.num_envs, settings.observations)
    actor = learner(settings, N=settings.N)
    executed = count_flops(actor.greedy_actions, rows_seen) / settings.num_envs
    return Flops(executed, algorithm)


def _perceptron(inputs: int, hidden: int) -> list[tuple[int, int]]:
    return [(inputs, hidden), (hidden, hidden), (hidden, 1)]


def _actor(settings: LearnerSettings) -> list[tuple[int, int]]:
    h = settings.hidden
    return [
        (1, _TIME_DIM // 2),
        (_TIME_DIM, _COND[0]),
        (_COND[0], _COND[1]),
        (settings.actions + settings.observations + _COND[1], h),
        *settings.blocks * [(h, 4 * h), (4 * h, h)],
        (h, settings.actions),
    ]
