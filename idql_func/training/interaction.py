"""Steps an environment and stores the transitions: the online half of every run.

All randomness comes from the run's seed: each episode is reset with its own seed, and random
actions have their own generator (upstream seeds neither the spaces nor, when it fine-tunes, the
environment: quirk E9). So a run can be resumed in the middle of an episode: the episode is reset
with its seed and its actions are repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from idql_func.data import ReplayBuffer
from idql_func.data.arrays import named_leaves
from idql_func.data.buffer_file import read_generator, write_generator
from idql_func.types import InputError

__all__ = ["Episode", "Interaction", "episode_seed"]

# Separate random streams of one run's seed.
_RESETS, _ACTIONS = 1, 2
# A longer episode is not resumed in its middle.
_LONGEST_REPEAT = 20_000


@dataclass(frozen=True)
class Episode:
    """A finished episode: its undiscounted return in the environment's rewards, its length in
    actions, and whether it succeeded (None if the environment does not report it)."""

    number: int
    total: float
    length: int
    success: bool | None


def episode_seed(seed: int, number: int) -> int:
    """The reset seed of one episode of a run, 31 bits.

    Example:
        >>> episode_seed(0, 1) == episode_seed(0, 1), episode_seed(0, 1) == episode_seed(1, 1)
        (True, False)
    """
    word = np.random.SeedSequence([seed, _RESETS, number]).generate_state(1)[0]
    return int(word) >> 1


@dataclass
class Interaction:
    """Steps an environment and inserts the transitions into a replay buffer.

    Args:
        env: used here only (quirk E14); wrapped, so that actions are in its action space.
        buffer: where the transitions go.
        seed: the run's.
        change_reward: applied to the rewards in the buffer, not to returns; None: unchanged.
        bootstrap_at_limit: see ``OnlineConfig.bootstrap_at_limit`` (quirk D17).

    Example:
        >>> from idql_func.envs import make_env, wrap_gym
        >>> env = wrap_gym(make_env("Pendulum-v1"))
        >>> buffer = ReplayBuffer(env.observation_space, env.action_space, 10)
        >>> interaction = Interaction(env, buffer, seed=0)
        >>> interaction.step(interaction.random_action()) is None, len(buffer)
        (True, 1)
    """

    env: gym.Env
    buffer: ReplayBuffer
    seed: int
    change_reward: Callable[[float], float] | None = None
    bootstrap_at_limit: bool = True
    observation: Any = field(init=False)
    episode: int = field(init=False, default=-1)
    steps: int = field(init=False, default=0)
    _generator: np.random.Generator = field(init=False)
    _total: float = field(init=False, default=0.0)
    _success: bool | None = field(init=False, default=None)
    _actions: list[NDArray[Any]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._generator = np.random.default_rng([self.seed, _ACTIONS])
        self._begin(0)

    def random_action(self) -> NDArray[Any]:
        """An action ``[A]`` drawn uniformly from the action space."""
        space: Any = self.env.action_space
        return self._generator.uniform(space.low, space.high).astype(space.dtype)

    def step(self, action: NDArray[Any]) -> Episode | None:
        """Act once and store the transition; return the episode if this was its end.

        Args:
            action: ``[A]``.

        Raises:
            InputError: the action is not finite.
        """
        action = np.asarray(action)
        if not np.isfinite(action).all():
            raise InputError(
                "the policy gave an action that is not finite: its training has diverged; a "
                "smaller learning rate may help"
            )
        before = self.observation
        after, reward, terminated, truncated = self._act(action)
        # Upstream tests whether the limit was reached, not whether the limit ended the episode
        # (D17); Gymnasium's `truncated` means the same.
        ended = terminated and not (truncated and self.bootstrap_at_limit)
        stored = float(reward) if self.change_reward is None else self.change_reward(float(reward))
        self.buffer.insert(
            {
                "observations": before,
                "actions": action,
                "rewards": stored,
                "masks": 0.0 if ended else 1.0,
                "dones": terminated or truncated,
                "next_observations": after,
            }
        )
        self.steps += 1
        if not (terminated or truncated):
            return None
        done = Episode(self.episode, self._total, len(self._actions), self._success)
        self._begin(self.episode + 1)
        return done

    def state(self) -> dict[str, Any]:
        """The values that :meth:`restore` needs besides the buffer, as JSON can hold them."""
        short = len(self._actions) <= _LONGEST_REPEAT
        return {
            "steps": self.steps,
            "episode": self.episode,
            "actions": [action.tolist() for action in self._actions] if short else None,
            "digest": _digest(self.observation),
            "generator": write_generator(self._generator),
        }

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Continue the episode in which :meth:`state` was called.

        Returns:
            Whether the environment is deterministic. If not (or if the episode is too long to be
            repeated) that episode counts as cut and the next one begins.

        Raises:
            InputError: the state is damaged.
        """
        try:
            self.steps = int(state["steps"])
            number, actions = int(state["episode"]), state["actions"]
            self._generator = read_generator(state["generator"])
        except (KeyError, TypeError, ValueError):
            raise InputError(
                "the state of the interaction with the environment is damaged"
            ) from None
        dtype = self.env.action_space.dtype
        self._begin(number)
        ended = False
        for action in actions or []:
            _, _, terminated, truncated = self._act(np.asarray(action, dtype))
            ended = ended or terminated or truncated
        if actions is None or ended or _digest(self.observation) != state["digest"]:
            self.buffer.end_episode()
            self._begin(number + 1)
            return False
        return True

    def _begin(self, number: int) -> None:
        self.episode = number
        self.observation, info = self.env.reset(seed=episode_seed(self.seed, number))
        self._total, self._success, self._actions = 0.0, None, []
        self._note_success(info)

    def _act(self, action: NDArray[Any]) -> tuple[Any, float, bool, bool]:
        after, reward, terminated, truncated, info = self.env.step(action)
        self._actions.append(action.copy())
        self._total += float(reward)
        self._note_success(info)
        self.observation = after
        return after, float(reward), bool(terminated), bool(truncated)

    def _note_success(self, info: Mapping[str, Any]) -> None:
        reported = info.get("success", info.get("is_success"))
        if reported is not None:
            self._success = bool(self._success) or bool(reported)


def _digest(observation: Any) -> str:
    """A hash of an observation, which may be nested."""
    digest = hashlib.sha256()
    for name, array in named_leaves(observation):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
