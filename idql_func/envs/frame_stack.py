"""Stack the last frames in a new last axis (``jaxrl5/wrappers/frame_stack.py``)."""

from __future__ import annotations

import collections
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from idql_func.boundary import explained_methods
from idql_func.types import InputError

__all__ = ["FrameStack"]


@explained_methods("__init__", strict=False)
class FrameStack(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Replaces one entry ``[...]`` of a Dict observation by its last values, ``[..., num_stack]``.

    The newest is last. A reset fills the stack with the first frame. ``next_observations`` shares
    ``num_stack - 1`` frames with ``observations``, so
    :class:`idql_func.data.MemoryEfficientReplayBuffer` stores them once.

    Args:
        env: has a Dict of Boxes as observation space.
        num_stack: number of frames.
        stacking_key: the entry to stack; for a nested entry its path: ``("camera", "pixels")``.

    Raises:
        InputError: if ``num_stack`` is below 1, or there is no such entry.

    Example:
        >>> from idql_func.envs import PixelObservation
        >>> env = FrameStack(PixelObservation(gym.make("InvertedPendulum-v5"), 32), 3)
        >>> observation, _ = env.reset(seed=0)
        >>> observation["pixels"].shape, env.observation_space["pixels"].shape
        ((32, 32, 3, 3), (32, 32, 3, 3))
        >>> later = env.step(np.ones(1, np.float32))[0]
        >>> bool((later["pixels"][..., :2] == observation["pixels"][..., 1:]).all())
        True
    """

    def __init__(
        self, env: gym.Env, num_stack: int, stacking_key: str | tuple[str, ...] = "pixels"
    ) -> None:
        if int(num_stack) != num_stack or num_stack < 1:
            raise InputError(f"num_stack must be an integer of at least 1, got {num_stack}.")
        gym.utils.RecordConstructorArgs.__init__(
            self, num_stack=num_stack, stacking_key=stacking_key
        )
        gym.Wrapper.__init__(self, env)
        self._path = (stacking_key,) if isinstance(stacking_key, str) else tuple(stacking_key)
        self._frames: collections.deque[NDArray[Any]] = collections.deque(maxlen=int(num_stack))
        # A new space: upstream modifies the wrapped environment's space.
        self.observation_space = _stacked_space(env.observation_space, self._path, int(num_stack))

    @property
    def frames(self) -> NDArray[Any]:
        """The stacked frames ``[..., num_stack]``."""
        return np.stack(self._frames, axis=-1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset, and fill the stack with the first frame."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([_entry(observation, self._path)] * (self._frames.maxlen or 1))
        return _with_entry(observation, self._path, self.frames), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; the new frame replaces the oldest."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(_entry(observation, self._path))
        observation = _with_entry(observation, self._path, self.frames)
        return observation, reward, terminated, truncated, info


def _stacked_space(space: Any, path: tuple[str, ...], num_stack: int) -> Any:
    if not path:
        if not isinstance(space, Box):
            raise InputError(f"FrameStack can stack only an array (a Box); this entry is {space}.")
        low, high = (
            np.repeat(bound[..., None], num_stack, axis=-1) for bound in (space.low, space.high)
        )
        return Box(low, high, dtype=space.dtype.type)
    if not isinstance(space, Dict) or path[0] not in space.spaces:
        raise InputError(f"FrameStack: the observation space {space} has no entry {path[0]!r}.")
    stacked = _stacked_space(space[path[0]], path[1:], num_stack)
    return Dict([(k, stacked if k == path[0] else v) for k, v in space.spaces.items()])


def _entry(observation: Any, path: tuple[str, ...]) -> NDArray[Any]:
    for name in path:
        observation = observation[name]
    return np.asarray(observation)


def _with_entry(observation: Any, path: tuple[str, ...], value: NDArray[Any]) -> Any:
    if not path:
        return value
    return {**observation, path[0]: _with_entry(observation[path[0]], path[1:], value)}
