"""The port's evaluation loop over an environment of the programs, for the torch backend."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from idql_func import evaluation


def evaluated(learner: Any, walk: Any, episodes: int, how: str) -> float:
    """Mean return of ``episodes`` by ``evaluate`` or ``implicit_evaluate``."""

    class Env(gymnasium.Env):
        """Gymnasium's interface: five values per step."""

        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (walk.obs_dim,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (walk.act_dim,), np.float32)

        def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
            return walk.reset(), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            observation, reward, done = walk.step(action)
            return observation, reward, done, False, {}

    # One environment at a time, as the original has it: a learner draws for one observation.
    result = getattr(evaluation, how)(learner, Env, episodes, num_envs=1)
    return result["return"]
