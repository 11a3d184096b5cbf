"""Ports of ``jaxrl5/wrappers``: precision, seed, action bounds, action repeat."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

from idql_func.boundary import describe, explain_module, explained_methods
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


@explained_methods("__init__")
class SinglePrecision(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Casts float64 observations, nested or not, to float32 (``wrappers/single_precision.py``).

    Other dtypes, such as uint8 pixels, and their spaces are not changed; upstream changes the
    spaces.

    Raises:
        InputError: if the observation space is neither a Box nor a Dict of Boxes.

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
            "SinglePrecision needs Box observations or a Dict of them; this environment has "
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
    is_double = isinstance(observation, np.ndarray) and observation.dtype == np.float64
    return observation.astype(np.float32) if is_double else observation


@explained_methods("seed", "reset")
class UniversalSeed(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Seeds the environment and both of its spaces with one seed.

    Port of ``wrappers/universal_seed.py``, without quirk E9 (unseeded spaces). Gymnasium takes the
    seed at ``reset``; :meth:`seed` is upstream's interface and applies at the next reset.

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
        """Reset; a seed also seeds the observation and the action space."""
        if seed is None:
            seed = self._next_seed
        else:
            self._seed_spaces(seed)
        self._next_seed = None
        return self.env.reset(seed=seed, options=options)

    def _seed_spaces(self, seed: int) -> None:
        self.observation_space.seed(seed)
        self.action_space.seed(seed)


@explained_methods("__init__", "step")
class BoundedActions(gym.ActionWrapper, gym.utils.RecordConstructorArgs):
    """Clips actions to the bounds and keeps the bounds in the action space.

    Gymnasium's ``ClipAction`` makes the space unbounded since 1.0, but learners read the bounds
    from it, as with upstream's Gym.

    Raises:
        InputError: if the action space is not a Box.

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
        """Clip the action ``[A]`` to the bounds."""
        return np.clip(action, self._low, self._high)


@explained_methods("__init__", strict=False)
class RepeatAction(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Applies each action several times and sums the rewards (``repeat_action.py``).

    Stops at the end of the episode. ``info`` merges those of the steps; later entries override
    earlier ones.

    Args:
        env: any environment.
        action_repeat: number of steps per action.

    Raises:
        InputError: if ``action_repeat`` is below 1.

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
        whole = isinstance(action_repeat, Integral) and not isinstance(action_repeat, bool)
        if not whole or action_repeat < 1:
            raise InputError(
                f"action_repeat must be an integer of at least 1, got {describe(action_repeat)}."
            )
        gym.utils.RecordConstructorArgs.__init__(self, action_repeat=action_repeat)
        gym.Wrapper.__init__(self, env)
        self._action_repeat = int(action_repeat)
        if env.metadata.get("render_fps"):
            fps = env.metadata["render_fps"] / self._action_repeat
            self.metadata = {**env.metadata, "render_fps": fps}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Return the last observation, the sum of rewards, and whether the episode ended."""
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
    """Map actions in [-1, 1] to the native bounds.

    An environment with bounds ±1 is returned unchanged: the map would be the identity up to
    rounding.

    Raises:
        InputError: if the action space is not a Box, or is unbounded.

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
    """Wrap as upstream's ``wrap_gym``: flat float32 observations and actions in [-1, 1].

    Wrapping twice has the same effect as wrapping once.

    Quirk D14: rescaling changes the meaning of an action but not the actions of a dataset. They
    agree only if the native bounds are ±1, so set ``assert_native_bounds`` to evaluate a policy
    trained on a dataset.

    Args:
        env: a Gymnasium environment with Box or Dict observations and Box actions.
        rescale_actions: map [-1, 1] to the native bounds.
        assert_native_bounds: raise if the native bounds are not ±1.

    Raises:
        InputError: if actions are not a Box, bounds to rescale are infinite, observations have
            another space, or the native bounds are not ±1 with ``assert_native_bounds``.

    Example:
        >>> env = wrap_gym(gym.make("Pendulum-v1"))
        >>> env.action_space
        Box(-1.0, 1.0, (1,), float32)
        >>> wrap_gym(gym.make("Pendulum-v1"), assert_native_bounds=True)
        Traceback (most recent call last):
            ...
        idql_func.errors.InputError: Pendulum-v1 has actions in [-2, 2], not [-1, 1]: ...
    """
    low, high = _box_bounds(env)
    if assert_native_bounds and not ((low == -1).all() and (high == 1).all()):
        raise InputError(
            f"{env_name(env)} has actions in [{low.min():g}, {high.max():g}], not [-1, 1]: a "
            "policy trained on a dataset, whose actions are not rescaled, would act differently."
        )
    env = SinglePrecision(env)
    if rescale_actions:
        env = rescaled(env)
    if isinstance(env.observation_space, Dict):
        env = gym.wrappers.FlattenObservation(env)
    # UniversalSeed is outermost, so that it seeds the outermost spaces.
    return UniversalSeed(BoundedActions(env))


explain_module(__name__)
