"""Image observations, and ``wrap_pixels`` (``jaxrl5/wrappers/pixels.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

from idql_func.boundary import explain_module, explained_methods
from idql_func.envs.frame_stack import FrameStack
from idql_func.envs.frames import FrameSource
from idql_func.envs.offscreen import Camera
from idql_func.envs.wrappers import (
    BoundedActions,
    RepeatAction,
    SinglePrecision,
    UniversalSeed,
    rescaled,
)
from idql_func.types import InputError

__all__ = ["PixelObservation", "wrap_pixels"]

ImageSize = int | tuple[int, int]
"""Height and width in pixels, or one number for both."""


@explained_methods("__init__")
class PixelObservation(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Observes images: a Dict with ``[H, W, 3]`` uint8 for each key (as Gym's pixel wrapper).

    Args:
        env: see :class:`idql_func.envs.FrameSource` for what can be rendered.
        image_size: see :data:`ImageSize`.
        pixel_keys: one name for each camera.
        camera_id: the camera of each key; a single one for a single key.
        depth_keys: none, or one name for each camera: its distances ``[H, W, 1]``, float32, metres.
        state_key: if given, the key of the environment's flat observation.
        effects: see :class:`idql_func.envs.OffscreenView`.

    Raises:
        InputError: if keys repeat, the numbers of keys and cameras differ, the environment cannot
            be rendered, or the state is not a vector.

    Example:
        >>> env = PixelObservation(gym.make("InvertedPendulum-v5"), 48, state_key="state")
        >>> observation, _ = env.reset(seed=0)
        >>> {name: value.shape for name, value in observation.items()}
        {'pixels': (48, 48, 3), 'state': (4,)}
    """

    def __init__(
        self,
        env: gym.Env,
        image_size: ImageSize = 84,
        pixel_keys: Sequence[str] = ("pixels",),
        camera_id: Camera | Sequence[Camera] = 0,
        depth_keys: Sequence[str] = (),
        state_key: str | None = None,
        effects: bool = True,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self,
            image_size=image_size,
            pixel_keys=pixel_keys,
            camera_id=camera_id,
            depth_keys=depth_keys,
            state_key=state_key,
            effects=effects,
        )
        gym.ObservationWrapper.__init__(self, env)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        cameras = _cameras(pixel_keys, camera_id)
        if depth_keys and len(depth_keys) != len(cameras):
            raise InputError(
                f"Give no depth_keys or one for each of pixel_keys {tuple(pixel_keys)}; got "
                f"{tuple(depth_keys)}."
            )
        self._rgb = dict(zip(pixel_keys, cameras, strict=True))
        self._depth = dict(zip(depth_keys, cameras, strict=bool(depth_keys)))
        self._state_key = state_key
        names = [*pixel_keys, *depth_keys, *([] if state_key is None else [state_key])]
        if len(set(names)) != len(names):
            raise InputError(f"The keys of an observation must be unique, got {', '.join(names)}.")
        self._frames = FrameSource(env, height, width, effects)
        image, depth = (height, width, 3), (height, width, 1)
        spaces: dict[str, Space[Any]] = {key: Box(0, 255, image, np.uint8) for key in pixel_keys}
        spaces |= {key: Box(0, np.inf, depth, np.float32) for key in depth_keys}
        if state_key is not None:
            state = env.observation_space
            if not isinstance(state, Box) or len(state.shape) != 1:
                raise InputError(
                    f"state_key needs an environment that observes a flat vector, not {state}; use "
                    "wrap_pixels, which flattens it, or Gymnasium's FlattenObservation."
                )
            spaces[state_key] = state
        self.observation_space = Dict(spaces)
        if self._depth:
            self._frames.check_depth()

    def observation(self, observation: Any) -> dict[str, NDArray[Any]]:
        """Render the images, and add the state if ``state_key`` is set."""
        images = {key: self._frames.rgb(camera) for key, camera in self._rgb.items()}
        depths = {key: self._frames.depth(camera) for key, camera in self._depth.items()}
        state = {} if self._state_key is None else {self._state_key: observation}
        return {**images, **depths, **state}

    def close(self) -> None:
        """Free the OpenGL context and close the environment."""
        self._frames.close()
        super().close()


def _cameras(pixel_keys: Sequence[str], camera_id: Camera | Sequence[Camera]) -> list[Camera]:
    if isinstance(pixel_keys, str) or not pixel_keys:
        raise InputError(f'pixel_keys must be a tuple such as ("pixels",), got {pixel_keys!r}.')
    cameras = [camera_id] if isinstance(camera_id, int | str) else list(camera_id)
    if len(cameras) != len(pixel_keys):
        raise InputError(
            f"Give one camera_id for each of pixel_keys {tuple(pixel_keys)}; got {camera_id!r}."
        )
    return cameras


def wrap_pixels(
    env: gym.Env,
    action_repeat: int = 1,
    image_size: ImageSize = 84,
    num_stack: int | None = 3,
    camera_id: Camera | Sequence[Camera] = 0,
    pixel_keys: Sequence[str] = ("pixels",),
    *,
    depth_keys: Sequence[str] = (),
    state_key: str | None = None,
    effects: bool = True,
) -> tuple[gym.Env, tuple[str, ...]]:
    """Wrap as upstream's ``wrap_pixels``: images ``[H, W, 3, num_stack]``, actions in [-1, 1].

    All keys have the same size and stack; upstream renders keys other than ``"pixels"`` in the
    default size and does not stack them.

    Args:
        env: a Gymnasium environment with Box actions.
        action_repeat: number of times that each action is applied.
        num_stack: number of stacked images; None gives no stack axis, which the learners need.
        state_key: if given, the key of the environment's observation, flat and float32; the
            learners use ``"state"``.

    The other arguments are those of :class:`PixelObservation`; depths are
    ``[H, W, 1, num_stack]``.

    Returns:
        ``(env, pixel_keys)``, as upstream.

    Raises:
        InputError: as for :class:`PixelObservation`, :class:`RepeatAction` and
            :class:`FrameStack`, or if actions are not a Box or unbounded.

    Example:
        >>> env, _ = wrap_pixels(gym.make("InvertedPendulum-v5"), action_repeat=2, image_size=64)
        >>> env.observation_space, env.action_space
        (Dict('pixels': Box(0, 255, (64, 64, 3, 3), uint8)), Box(-1.0, 1.0, (1,), float32))
        >>> env.reset(seed=0)[0]["pixels"].shape
        (64, 64, 3, 3)
    """
    if action_repeat != 1:
        env = RepeatAction(env, action_repeat)
    if state_key is not None:
        env = SinglePrecision(env)
        if isinstance(env.observation_space, Dict):
            env = gym.wrappers.FlattenObservation(env)
    env = PixelObservation(
        rescaled(env), image_size, pixel_keys, camera_id, depth_keys, state_key, effects
    )
    if num_stack is not None:
        for key in (*pixel_keys, *depth_keys):
            env = FrameStack(env, num_stack, key)
    # UniversalSeed is outermost, so that it seeds the outermost spaces (quirk E9).
    return UniversalSeed(BoundedActions(env)), tuple(pixel_keys)


explain_module(__name__, strict=False)
