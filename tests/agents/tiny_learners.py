"""Learners and batches so small that an eager update takes milliseconds."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from idql_func import random, tree_leaves
from idql_func.agents import (
    BCLearner,
    DDPMIQLLearner,
    FQLLearner,
    GeneralDDPMIQLLearner,
    IFQLLearner,
    IQLLearner,
    ReBRACLearner,
    SACLearner,
    TD3Learner,
)

OBS, ACT, ROWS = 3, 2, 8
SMALL = {"critic_hidden_dims": (16, 16), "time_dim": 8, "T": 2, "N": 4}
TINY: dict[Any, dict[str, Any]] = {
    DDPMIQLLearner: {**SMALL, "actor_num_blocks": 1},
    GeneralDDPMIQLLearner: {**SMALL, "actor_hidden_dims": (16,)},
}

LAYERS = {"hidden_dims": (16, 16)}
JOINT_LAYERS = {"actor_hidden_dims": (16, 16), "value_hidden_dims": (16, 16)}
REGULARISED = {"critic_dropout_rate": 0.1, "critic_layer_norm": True}
# the other learners on states, and the methods (REDQ, DroQ) that are settings of one of them
STATE_LEARNERS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "bc": (BCLearner, LAYERS, {}),
    "bc-full": (
        BCLearner,
        {
            **LAYERS,
            "dropout_rate": 0.1,
            "use_layer_norm": True,
            "weight_decay": 0.1,
            "entropy_bonus": 0.1,
        },
        {},
    ),
    "iql": (IQLLearner, {**LAYERS, "num_qs": 3}, {}),
    "sac": (SACLearner, LAYERS, {}),
    "redq": (SACLearner, {**LAYERS, "num_qs": 4, "num_min_qs": 2}, {"utd_ratio": 2}),
    "droq": (SACLearner, {**LAYERS, **REGULARISED}, {"utd_ratio": 2}),
    "td3": (TD3Learner, LAYERS, {}),
    "td3-full": (
        TD3Learner,
        {**LAYERS, **REGULARISED, "num_qs": 3, "num_min_qs": 2, "actor_delay": 1},
        {"utd_ratio": 2},
    ),
    "fql": (FQLLearner, {**JOINT_LAYERS, "flow_steps": 3}, {}),
    "ifql": (IFQLLearner, {**JOINT_LAYERS, "flow_steps": 3, "num_samples": 4}, {}),
    "rebrac": (ReBRACLearner, {**JOINT_LAYERS, "alpha_actor": 0.1, "alpha_critic": 0.1}, {}),
}


def make_state_learner(name: str, seed: int = 0, **keywords: Any) -> Any:
    cls, settings, _ = STATE_LEARNERS[name]
    return cls.create(seed, box(OBS), box(ACT), **{**settings, **keywords})


def box(size: int) -> gym.spaces.Box:
    return gym.spaces.Box(-1, 1, (size,))


def make_batch(
    seed: int = 0, rows: int = ROWS, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    keys = random.split(random.PRNGKey(seed), 5)

    def draw(i: int, *shape: int) -> Tensor:
        return random.uniform(keys[i], shape, dtype, -1.0, 1.0)

    return {
        "observations": draw(0, rows, OBS),
        "actions": draw(1, rows, ACT),
        "rewards": draw(2, rows),
        "masks": (draw(3, rows) > -0.5).to(dtype or torch.float32),
        "dones": torch.zeros(rows, dtype=dtype),
        "next_observations": draw(4, rows, OBS),
        "next_actions": random.uniform(random.PRNGKey(~seed), (rows, ACT), dtype, -1.0, 1.0),
    }


def same(a: Any, b: Any) -> bool:
    """Whether two trees are equal to the last bit."""
    return all(
        torch.equal(torch.as_tensor(x), torch.as_tensor(y))
        for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True)
    )
