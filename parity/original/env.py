"""The original's evaluation loop over an environment of the programs, for the JAX backend."""
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np


def evaluated(learner: Any, walk: Any, episodes: int, how: str) -> float:
    """Mean return of ``episodes`` by ``evaluate`` or ``implicit_evaluate``."""
    import gym

    # The module imports wandb to log videos; an evaluation without videos does not use it.
    sys.modules.setdefault("wandb", types.ModuleType("wandb"))
    from jaxrl5 import evaluation

    class Env(gym.Env):
        """Gym's older interface: four values per step."""

        observation_space = gym.spaces.Box(-np.inf, np.inf, (walk.obs_dim,), np.float32)
        action_space = gym.spaces.Box(-1.0, 1.0, (walk.act_dim,), np.float32)

        def reset(self, **options: Any) -> np.ndarray:
            return walk.reset()

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
            return (*walk.step(action), {})

    return float(getattr(evaluation, how)(learner, Env(), episodes)["return"])
