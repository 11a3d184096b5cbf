"""Gymnasium wrappers after ``jaxrl5/wrappers``: precision, seed, action bounds, repetition."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

from idql_func.envs.frames import env_name
from idql_func.types import InputError

__all__ = [
    "BoundedActions",
    "RepeatAction",
    "SinglePrecision",
    "UniversalSeed",
    "rescaled",
    "wrap_gym",
]


class SinglePrecision(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Gives float64 observations, nested or not, as float32 (``wrappers/single_precision.py``).

    Other types, such as uint8 pixels, pass through; unlike upstream their spaces do too.

    Raises:
        InputError: the observation space is neither a Box nor a Dict of such.

    Example:
        >>> env = SinglePrecision(gym.make("Pendulum-v1"))
        >>> env.observation_space.dtype, env.reset(seed=0)[0].dtype
        (dtype('float32'), dtype('float32'))
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self.observation_space = _single_space(env.observation_space)

    def observation(self, observation: Any) -> Any:
        """The observation in single precision."""
        return _single(observation)


def _single_space(space: Space) -> Space:
    if isinstance(space, Dict):
        return Dict({name: _single_space(part) for name, part in space.spaces.items()})
    if not isinstance(space, Box):
        raise InputError(
            "SinglePrecision takes Box observations or a Dict of them; this environment has "
            f"{space}."
        )
    if space.dtype != np.float64:
        return space
    with np.errstate(over="ignore"):  # a bound of 1.8e308 may become infinite
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    return Box(low, high, dtype=np.float32)


def _single(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {name: _single(part) for name, part in observation.items()}
    if isinstance(observation, np.ndarray) and observation.dtype == np.float64:
        return observation.astype(np.float32)
    return observation


class UniversalSeed(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """One seed for the environment and the samples of both its spaces.

    After ``wrappers/universal_seed.py``; mends quirk E9 (spaces that nobody seeds).

    Gymnasium takes the seed at ``reset``; :meth:`seed` is upstream's older way and is remembered
    until then.

    Example:
        >>> env = UniversalSeed(gym.make("Pendulum-v1"))
        >>> first, _ = env.reset(seed=3)
        >>> action = env.action_space.sample()
        >>> env.seed(3)
        [3]
        >>> bool((env.reset()[0] == first).all()), bool(env.action_space.sample() == action)
        (True, True)
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self._next_seed: int | None = None

    def seed(self, seed: int) -> list[int]:
        """Seed the spaces now and the environment at its next reset; returns ``[seed]``."""
        self._next_seed = int(seed)
        self._seed_spaces(self._next_seed)
        return [self._next_seed]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset; a seed also goes to the observation and the action space."""
        if seed is None:
            seed = self._next_seed
        elif seed is not None:
            self._seed_spaces(seed)
        self._next_seed = None
        return self.env.reset(seed=seed, options=options)

    def _seed_spaces(self, seed: int) -> None:
        self.observation_space.seed(seed)
        self.action_space.seed(seed)


class BoundedActions(gym.ActionWrapper, gym.utils.RecordConstructorArgs):
    """Clips actions to the bounds, and keeps the bounds in the action space.

    Gymnasium's own ``ClipAction`` declares the space unbounded since 1.0; learners read their
    bounds from it, as they could with upstream's Gym.

    Raises:
        InputError: the action space is no Box.

    Example:
        >>> env = BoundedActions(gym.make("Pendulum-v1"))
        >>> env.action_space, env.action(np.array([5.0], np.float32))
        (Box(-2.0, 2.0, (1,), float32), array([2.], dtype=float32))
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ActionWrapper.__init__(self, env)
        self._low, self._high = _box_bounds(env)

    def action(self, action: NDArray[Any]) -> NDArray[Any]:
        """The action ``[A]`` within the bounds."""
        return np.clip(action, self._low, self._high)


class RepeatAction(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Takes each action several times and gives the sum of the rewards (``repeat_action.py``).

    Stops at the end of the episode. ``info`` is that of the steps taken, later entries over
    earlier ones.

    Args:
        env: any environment.
        action_repeat: how many times.

    Raises:
        InputError: ``action_repeat`` below 1.

    Example:
        >>> env = RepeatAction(gym.make("Pendulum-v1"), 4)
        >>> _ = env.reset(seed=0)
        >>> plain = gym.make("Pendulum-v1")
        >>> _ = plain.reset(seed=0)
        >>> action = np.zeros(1, np.float32)
        >>> float(env.step(action)[1]) == float(sum(plain.step(action)[1] for _ in range(4)))
        True
    """

    def __init__(self, env: gym.Env, action_repeat: int = 4) -> None:
        if int(action_repeat) != action_repeat or action_repeat < 1:
            raise InputError(
                f"action_repeat must be a whole number from 1 on; got {action_repeat}."
            )
        gym.utils.RecordConstructorArgs.__init__(self, action_repeat=action_repeat)
        gym.Wrapper.__init__(self, env)
        self._action_repeat = int(action_repeat)
        if env.metadata.get("render_fps"):
            fps = env.metadata["render_fps"] / self._action_repeat
            self.metadata = {**env.metadata, "render_fps": fps}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The last observation, the summed reward and whether the episode ended."""
        observation, total, terminated, truncated = None, 0.0, False, False
        combined: dict[str, Any] = {}
        for _ in range(self._action_repeat):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            combined.update(info)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, combined


def _box_bounds(env: gym.Env) -> tuple[NDArray[Any], NDArray[Any]]:
    space = env.action_space
    if not isinstance(space, Box):
        raise InputError(
            f"The learners need continuous actions (a Box); this environment has {space}."
        )
    return space.low, space.high


def rescaled(env: gym.Env) -> gym.Env:
    """Map actions in [-1, 1] onto the native bounds.

    With bounds of ±1 that is the identity but for rounding, and the environment comes back as it
    is.

    Raises:
        InputError: the action space is no Box, or unbounded.

    Example:
        >>> rescaled(gym.make("Pendulum-v1")).action_space
        Box(-1.0, 1.0, (1,), float32)
    """
    low, high = _box_bounds(env)
    if bool((low == -1).all() and (high == 1).all()):
        return env
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InputError(
            f"{env_name(env)} has unbounded actions, which cannot be rescaled to [-1, 1]; pass "
            "rescale_actions=False."
        )
    return gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))


def wrap_gym(
    env: gym.Env, rescale_actions: bool = True, assert_native_bounds: bool = False
) -> gym.Env:
    """What upstream's ``wrap_gym`` gives: flat float32 observations and actions in [-1, 1].

    Wrapping twice does no harm.

    Quirk D14: rescaling changes what an action means, and the actions of a dataset are not
    rescaled with it. The two agree only when the native bounds are ±1, so whoever evaluates a
    policy that learned from a dataset should set ``assert_native_bounds``.

    Args:
        env: a Gymnasium environment with Box or Dict observations and Box actions.
        rescale_actions: map [-1, 1] onto the native bounds.
        assert_native_bounds: refuse an environment whose native bounds are not ±1.

    Raises:
        InputError: no Box actions, infinite bounds to be rescaled, observations of another kind,
            or native bounds other than ±1 where these are asserted.

    Example:
        >>> env = wrap_gym(gym.make("Pendulum-v1"))
        >>> env.action_space
        Box(-1.0, 1.0, (1,), float32)
        >>> wrap_gym(gym.make("Pendulum-v1"), assert_native_bounds=True)
        Traceback (most recent call last):
            ...
        idql_func.errors.InputError: Pendulum-v1 takes actions in [-2, 2], not [-1, 1]: ...
    """
    low, high = _box_bounds(env)
    if assert_native_bounds and not ((low == -1).all() and (high == 1).all()):
        raise InputError(
            f"{env_name(env)} takes actions in [{low.min():g}, {high.max():g}], not [-1, 1]: a "
            "policy learned from a dataset, whose actions nobody rescaled, would act out of scale "
            "in it."
        )
    env = SinglePrecision(env)
    if rescale_actions:
        env = rescaled(env)
    if isinstance(env.observation_space, Dict):
        env = gym.wrappers.FlattenObservation(env)
    # Outermost but for the clip, so that it seeds the spaces that are seen from outside.
    return UniversalSeed(BoundedActions(env))
