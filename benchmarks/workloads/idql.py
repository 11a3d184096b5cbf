"""The IDQL learner that several workloads train or ask for actions, and its dataset."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from benchmarks.case import Flops
from benchmarks.roofline import count_flops, dense_flops
from benchmarks.workloads import act, update
from idql_func import random, tree_map
from idql_func.agents import DDPMIQLLearner
from idql_func.agents.factories import target_state, train_state
from idql_func.networks import DDPM, MLP, FourierFeatures, MLPResNet, swish
from idql_func.training.updates import draw_batch

__all__ = ["act_flops", "box", "dataset", "learner", "sampled_update", "update_flops"]

_TIME_DIM = 128
_COND = (256, 256)
_DEFAULT_HIDDEN = 256

Step = Callable[[Any, dict[str, Tensor]], tuple[Any, Any]]


def box(*shape: int) -> gym.spaces.Box:
    return gym.spaces.Box(-1, 1, shape)


def learner(
    settings: update.Settings | act.Settings, device: str = "cpu", seed: int | None = None
) -> DDPMIQLLearner:
    """A learner of the settings; an actor of another width than ``create`` makes is put in."""
    number = settings.seed if seed is None else seed
    candidates: dict[str, Any] = {"N": settings.N} if isinstance(settings, act.Settings) else {}
    made = DDPMIQLLearner.create(
        number,
        box(settings.observations),
        box(settings.actions),
        critic_hidden_dims=(settings.hidden, settings.hidden),
        actor_num_blocks=settings.blocks,
        actor_dropout_rate=settings.dropout or None,
        T=settings.T,
        **candidates,
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


@functools.cache  # learners made alike share their network, so that they stack
def _actor_network(
    observations: int, actions: int, hidden: int, blocks: int, dropout: float | None
) -> DDPM:
    inputs = actions + observations + _COND[-1]
    residual = MLPResNet(
        inputs, blocks, actions, dropout, True, hidden_dim=hidden, activations=swish
    )
    return DDPM(MLP(_TIME_DIM, _COND, swish), residual, FourierFeatures(_TIME_DIM))


def dataset(settings: update.Settings, device: str = "cpu") -> dict[str, Tensor]:
    """``rows`` transitions, on the device."""
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


def sampled_update(settings: update.Settings) -> Step:
    """``(learner, key), data -> (learner, key), losses``: one update on rows drawn inside."""

    def step(state: tuple[Any, Tensor], data: dict[str, Tensor]) -> tuple[Any, Any]:
        trained_learner, key = state
        batch, key = draw_batch(data, key, settings.batch)
        trained_learner, losses = trained_learner.update(batch)
        return (trained_learner, key), losses

    return step


# --- work ------------------------------------------------------------------------------


def update_flops(settings: update.Settings) -> Flops:
    """Of one update; the original encodes the diffusion step of each row on its own."""
    rows = settings.batch
    size, actions, h = settings.observations, settings.actions, settings.hidden
    critic, value = _perceptron(size + actions, h), _perceptron(size, h)
    algorithm = (
        dense_flops(rows, _actor(settings), passes=3)
        - dense_flops(rows, [(1, _TIME_DIM // 2)])  # no gradient by the diffusion step
        + 2 * (dense_flops(rows, critic, passes=4) - dense_flops(rows, critic[:1]))
        + dense_flops(rows, value, passes=4)  # V's first gradient serves the norm before it
    )
    state = (learner(settings), random.PRNGKey(0))
    executed = count_flops(sampled_update(settings), state, dataset(settings))
    return Flops(executed, algorithm)


def act_flops(settings: act.Settings) -> Flops:
    """Of one choice of an action, which is one environment's share of a call."""
    rows = settings.N
    critic = _perceptron(settings.observations + settings.actions, settings.hidden)
    algorithm = settings.T * dense_flops(rows, _actor(settings)) + 2 * dense_flops(rows, critic)
    observations = torch.zeros(settings.num_envs, settings.observations)
    chooser = learner(settings)
    executed = count_flops(chooser.greedy_actions, observations) / settings.num_envs
    return Flops(executed, algorithm)


def _perceptron(inputs: int, hidden: int) -> list[tuple[int, int]]:
    return [(inputs, hidden), (hidden, hidden), (hidden, 1)]


def _actor(settings: update.Settings | act.Settings) -> list[tuple[int, int]]:
    h = settings.hidden
    return [
        (1, _TIME_DIM // 2),
        (_TIME_DIM, _COND[0]),
        (_COND[0], _COND[1]),
        (settings.actions + settings.observations + _COND[1], h),
        *settings.blocks * [(h, 4 * h), (4 * h, h)],
        (h, settings.actions),
    ]
