"""Gymnasium wrappers after ``jaxrl5/wrappers``: single precision, one seed, bounded actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

from idql_func.types import InputError

__all__ = ["BoundedActions", "SinglePrecision", "UniversalSeed", "wrap_gym"]


class SinglePrecision(gym.ObservationWrapper):
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
        super().__init__(env)
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


class UniversalSeed(gym.Wrapper):
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
        super().__init__(env)
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


class BoundedActions(gym.ActionWrapper):
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
        super().__init__(env)
        self._low, self._high = _box_bounds(env)

    def action(self, action: NDArray[Any]) -> NDArray[Any]:
        """The action ``[A]`` within the bounds."""
        return np.clip(action, self._low, self._high)


def _box_bounds(env: gym.Env) -> tuple[NDArray[Any], NDArray[Any]]:
    space = env.action_space
    if not isinstance(space, Box):
        raise InputError(
            f"The learners need continuous actions (a Box); this environment has {space}."
        )
    return space.low, space.high


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
        idql_func.types.InputError: Pendulum-v1 takes actions in [-2, 2], not [-1, 1]: ...
    """
    low, high = _box_bounds(env)
    unit = bool((low == -1).all() and (high == 1).all())
    if not unit and assert_native_bounds:
        raise InputError(
            f"{_name(env)} takes actions in [{low.min():g}, {high.max():g}], not [-1, 1]: a policy "
            "learned from a dataset, whose actions nobody rescaled, would act out of scale in it."
        )
    env = SinglePrecision(env)
    # With bounds of ±1 rescaling is the identity but for rounding, so it is left out.
    if rescale_actions and not unit:
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise InputError(
                f"{_name(env)} has unbounded actions, which cannot be rescaled to [-1, 1]; pass "
                "rescale_actions=False."
            )
        env = gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    if isinstance(env.observation_space, Dict):
        env = gym.wrappers.FlattenObservation(env)
    # Outermost but for the clip, so that it seeds the spaces that are seen from outside.
    return UniversalSeed(BoundedActions(env))


def _name(env: gym.Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
