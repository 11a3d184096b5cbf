"""Stored transitions of an environment, and resuming in the middle of an episode."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box

from idql_func.data import ReplayBuffer
from idql_func.training.interaction import Interaction, episode_seed
from idql_func.types import InputError


class Walk(gym.Env):
    """Adds the action to a random start; truncates at step 5, terminates at step ``end``."""

    observation_space = Box(-100, 100, (1,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, end: int = 99, noise: float = 0.0) -> None:
        self.end, self.noise = end, noise
        self.generator = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.seeds = [*getattr(self, "seeds", []), seed]
        self.time, self.position = 0, self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.position, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.time += 1
        self.position = self.position + action + self.noise * np.float32(self.generator.normal())
        return (
            self.position,
            float(self.time),
            self.time >= self.end,
            self.time >= 5,
            {"success": True},
        )


def interaction(env: gym.Env, **more: Any) -> Interaction:
    buffer = ReplayBuffer(env.observation_space, env.action_space, 50)
    return Interaction(env, buffer, seed=3, **more)


def test_stored_transitions_equal_those_of_the_environment() -> None:
    one = interaction(Walk())
    ends = [one.step(np.array([0.5], np.float32)) for _ in range(6)]
    rows = one.buffer.sample(1, indx=np.arange(6))
    np.testing.assert_array_equal(rows["rewards"], [1, 2, 3, 4, 5, 1])
    np.testing.assert_array_equal(rows["dones"], [False] * 4 + [True, False])
    np.testing.assert_array_equal(rows["masks"], np.ones(6))
    np.testing.assert_array_equal(rows["observations"][1:5], rows["next_observations"][:4])
    np.testing.assert_allclose(rows["next_observations"] - rows["observations"], 0.5, rtol=1e-6)
    assert ends[:4] == [None] * 4 and ends[5] is None
    assert ends[4] is not None
    assert (ends[4].total, ends[4].length, ends[4].success) == (15.0, 5, True)


@pytest.mark.parametrize(
    ("end", "at_limit", "mask"), [(5, True, 1.0), (5, False, 0.0), (3, True, 0.0), (3, False, 0.0)]
)
def test_end_in_the_last_allowed_step_sets_the_mask(end: int, at_limit: bool, mask: float) -> None:
    """Upstream bootstraps at the limit (D17); an earlier end is terminal in any case."""
    one = interaction(Walk(end), bootstrap_at_limit=at_limit)
    for _ in range(end):
        one.step(np.zeros(1, np.float32))
    last = one.buffer.sample(1, indx=np.array([end - 1]))
    assert last["masks"].item() == mask and last["dones"].item()


def test_rewards_are_changed_in_the_buffer_only() -> None:
    one = interaction(Walk(), change_reward=lambda reward: reward - 1)
    episode = [one.step(np.zeros(1, np.float32)) for _ in range(5)][-1]
    assert episode is not None and episode.total == 15.0
    assert one.buffer.dataset_dict["rewards"][:5].tolist() == [0, 1, 2, 3, 4]


def test_each_episode_has_its_own_seed() -> None:
    env = Walk()
    one = interaction(env)
    for _ in range(11):
        one.step(one.random_action())
    assert env.seeds == [episode_seed(3, number) for number in range(3)]
    assert len({episode_seed(seed, number) for seed in range(20) for number in range(20)}) == 400


def test_random_actions_cover_the_space_and_depend_on_the_seed() -> None:
    first, second = (interaction(Walk()).random_action() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    one = interaction(Walk())
    drawn = np.stack([one.random_action() for _ in range(500)])
    assert drawn.dtype == np.float32 and -1 <= drawn.min() < -0.98 and 0.98 < drawn.max() <= 1


@pytest.mark.parametrize("steps", [0, 1, 4, 5, 7])
def test_restore_continues_the_episode(steps: int) -> None:
    one = interaction(Walk())
    for _ in range(steps):
        one.step(one.random_action())
    other = interaction(Walk())
    assert other.restore(one.state())
    for _ in range(9):
        actions = one.random_action(), other.random_action()
        np.testing.assert_array_equal(actions[0], actions[1])
        assert one.step(actions[0]) == other.step(actions[1])
        np.testing.assert_array_equal(one.observation, other.observation)
    assert one.steps == other.steps == steps + 9


def test_restore_begins_a_new_episode_if_the_environment_is_random() -> None:
    one = interaction(Walk(noise=1.0))
    for _ in range(3):
        one.step(one.random_action())
    other = Interaction(Walk(noise=1.0), one.buffer, seed=3)
    assert not other.restore(one.state())
    assert other.episode == 1 and one.buffer.dataset_dict["dones"][2]


def test_unusable_actions_and_states_raise() -> None:
    one = interaction(Walk())
    with pytest.raises(InputError, match="not finite"):
        one.step(np.array([np.nan]))
    with pytest.raises(InputError, match="damaged"):
        one.restore({"episode": 1})
