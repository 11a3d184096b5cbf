"""Programs that run episodes with the evaluation loop of each side."""

from __future__ import annotations

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Settings


class Walk:
    """A point that moves towards the origin and is displaced by the actions.

    Each reset starts an episode at another position, one step longer than the last.

    Args:
        obs_dim: coordinates, the observation ``[O]``.
        act_dim: how many of them the action ``[A]`` displaces.
    """

    def __init__(self, obs_dim: int, act_dim: int):
        self.obs_dim, self.act_dim = obs_dim, act_dim
        self.episode, self.remaining = 0, 0
        self.position = np.zeros(obs_dim)

    def reset(self) -> np.ndarray:
        """The first observation of the next episode."""
        self.position = inputs.uniform(f"walk/{self.episode}", (self.obs_dim,), -2.0, 2.0)
        self.episode += 1
        self.remaining = 5 + self.episode
        return self.position.astype(np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """The next observation, the reward (minus its squared norm), and whether it ended."""
        self.position = 0.9 * self.position
        self.position[: self.act_dim] += 0.3 * np.asarray(action, np.float64)
        self.remaining -= 1
        reward = -float(np.square(self.position).sum())
        return self.position.astype(np.float32), reward, self.remaining == 0


def evaluated(backend: Backend, settings: Settings) -> Outputs:
    """Mean return of a new learner over a few episodes."""
    learner = backend.learner(settings)
    walk = Walk(settings["obs_dim"], settings["act_dim"])
    mean = backend.evaluated(learner, walk, settings["episodes"], settings["how"])
    return {"return": np.array(mean, np.float64)}
