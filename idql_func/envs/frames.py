"""Render any environment at any size: MuJoCo off screen, others resized."""

from __future__ import annotations

import importlib
import sys
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from idql_func.envs.offscreen import Camera, OffscreenView
from idql_func.types import InputError

__all__ = ["FrameSource", "OffscreenRender", "env_name", "frames_per_second", "is_mujoco"]


def env_name(env: gym.Env) -> str:
    """Return an environment's name for messages.

    Example:
        >>> env_name(gym.make("Pendulum-v1"))
        'Pendulum-v1'
    """
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def frames_per_second(env: gym.Env, default: float = 20.0) -> float:
    """Return the environment's frame rate, or the default if it has none.

    Example:
        >>> frames_per_second(gym.make("Pendulum-v1"))
        30.0
    """
    return float(env.metadata.get("render_fps") or default)


def is_mujoco(env: gym.Env) -> bool:
    """Return whether MuJoCo simulates an environment.

    Example:
        >>> is_mujoco(gym.make("InvertedPendulum-v5")), is_mujoco(gym.make("Pendulum-v1"))
        (True, False)
    """
    return _mujoco_state(env) is not None


LARGEST_SIDE = 1 << 15
"""Pixels; the largest images that OpenGL renders."""


class FrameSource:
    """Renders the current state of an environment at a fixed size.

    MuJoCo environments (Gymnasium's, gymnasium-robotics', ``dm_control``'s) need no render mode and
    have all cameras of their model, and depth. Others are rendered by ``render()`` with one view
    (camera 0 or -1), and the image is resized.

    Args:
        env: wrapped or not.
        height: pixels.
        width: pixels.
        effects: see :class:`idql_func.envs.OffscreenView`.

    Raises:
        InputError: if a size is below 1, or an environment without MuJoCo does not have
            ``render_mode="rgb_array"``.

    Example:
        >>> env = gym.make("InvertedPendulum-v5")
        >>> _ = env.reset(seed=0)
        >>> FrameSource(env, 64, 64).rgb().shape
        (64, 64, 3)
    """

    def __init__(self, env: gym.Env, height: int, width: int, effects: bool = True) -> None:
        if height < 1 or width < 1:
            raise InputError(f"An image needs at least 1 by 1 pixels, got {height} by {width}.")
        if max(height, width) > LARGEST_SIDE:
            raise InputError(
                f"An image may have at most {LARGEST_SIDE:,} pixels in height and in width, got "
                f"{height:,} by {width:,}."
            )
        self.env, self.height, self.width = env, height, width
        state = _mujoco_state(env)
        self._view = None if state is None else OffscreenView(height, width, effects)
        self._default_camera = None if state is None else _default_camera(env, state[0])
        if self._view is None and env.render_mode != "rgb_array":
            raise InputError(
                f'{env_name(env)} must be created with render_mode="rgb_array" to be rendered; '
                f"its render_mode is {env.render_mode!r}."
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> FrameSource:
        copied = FrameSource.__new__(FrameSource)
        memo[id(self)] = copied
        copied.env = deepcopy(self.env, memo)
        copied.height, copied.width = self.height, self.width
        # Not derived from the copied env: Gymnasium's pendulums lose their settings when copied.
        copied._view = deepcopy(self._view)
        copied._default_camera = deepcopy(self._default_camera)
        return copied

    def rgb(self, camera: Camera = 0) -> NDArray[np.uint8]:
        """Render an image ``[H, W, 3]``, uint8.

        Raises:
            InputError: if there is no such camera, no OpenGL library, or ``render()`` returns
                something else.
        """
        if self._view is not None:
            return self._view.rgb(*self._state(), camera, self._default_camera)
        if camera not in (0, -1):
            raise InputError(f"{env_name(self.env)} has only camera 0, got camera {camera!r}.")
        return _resize(_render(self.env), self.height, self.width)

    def depth(self, camera: Camera = 0) -> NDArray[np.float32]:
        """Render the distance along the camera's axis ``[H, W, 1]``, metres, float32.

        Raises:
            InputError: as :meth:`rgb`, or if MuJoCo does not simulate the environment.
        """
        self.check_depth()
        assert self._view is not None
        return self._view.depth(*self._state(), camera, self._default_camera)

    def check_depth(self) -> None:
        """Raise unless the environment has depth."""
        if self._view is None:
            raise InputError(
                f"{env_name(self.env)} has no depth, since MuJoCo does not simulate it."
            )

    def close(self) -> None:
        """Free the OpenGL context; the next image opens another."""
        if self._view is not None:
            self._view.close()

    def _state(self) -> tuple[Any, Any]:
        # Not cached: some tasks of dm_control compile a new model for every episode.
        state = _mujoco_state(self.env)
        assert state is not None
        return state


def _mujoco_state(env: gym.Env) -> tuple[Any, Any] | None:
    """MuJoCo's model and data of an environment; None if MuJoCo does not simulate it."""
    mujoco: Any = sys.modules.get("mujoco")  # a MuJoCo environment has imported it
    if mujoco is None:
        return None
    base: Any = env.unwrapped
    physics = getattr(base, "physics", None)
    if physics is not None:  # dm_control
        base = physics
    model, data = getattr(base, "model", None), getattr(base, "data", None)
    model, data = getattr(model, "ptr", model), getattr(data, "ptr", data)
    return (model, data) if isinstance(model, mujoco.MjModel) else None


def _default_camera(env: gym.Env, model: Any) -> Any:
    """The default camera of Gymnasium's environments; None for others.

    Gymnasium aims it at the bodies' positions in the first rendered frame; here it is aimed at the
    model's rest pose, so that an image depends only on the state.
    """
    mujoco: Any = importlib.import_module("mujoco")
    base: Any = env.unwrapped
    holders = (base, getattr(base, "point_env", None), getattr(base, "ant_env", None))
    renderers = [getattr(holder, "mujoco_renderer", None) for holder in holders]
    renderer: Any = next(filter(None, renderers), None)
    if renderer is None:
        return None
    camera = mujoco.MjvCamera()
    if renderer.camera_id >= 0:  # chosen when the environment was created
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        camera.fixedcamid = renderer.camera_id
        return camera
    rest = mujoco.MjData(model)
    mujoco.mj_forward(model, rest)
    camera.lookat[:] = np.median(rest.geom_xpos, axis=0)
    camera.distance = model.stat.extent
    for name, value in (renderer.default_cam_config or {}).items():
        if isinstance(value, np.ndarray):
            getattr(camera, name)[:] = value
        else:
            setattr(camera, name, value)
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE.value
    camera.fixedcamid = -1
    return camera


def _render(env: gym.Env) -> NDArray[np.uint8]:
    image: Any = env.render()
    is_array = isinstance(image, np.ndarray)
    if not is_array or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if is_array else type(image).__name__
        raise InputError(
            f"{env_name(env)}: render() must return a uint8 image [H, W, 3]; it returned {got}."
        )
    return image


def _resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image.copy()  # the environment may render into the same array again
    from PIL import Image

    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


class OffscreenRender(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Makes ``render()`` of a MuJoCo environment work on a machine without a display.

    The image has the environment's size (else 480 by 480) and its default view; for ``dm_control``
    that is camera 0, as in upstream's ``dmcgym``.

    Args:
        env: a MuJoCo environment with the render mode ``rgb_array`` or ``depth_array``.

    Example:
        >>> env = OffscreenRender(gym.make("InvertedPendulum-v5", render_mode="rgb_array"))
        >>> _ = env.reset(seed=0)
        >>> env.render().shape
        (480, 480, 3)
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        base: Any = env.unwrapped
        height, width = getattr(base, "height", None) or 480, getattr(base, "width", None) or 480
        self._frames = FrameSource(env, int(height), int(width))
        self._camera = 0 if hasattr(base, "physics") else -1

    def render(self) -> Any:
        """Render an image ``[H, W, 3]`` uint8, or the depth ``[H, W]`` float32 in metres."""
        if self.render_mode == "depth_array":
            return self._frames.depth(self._camera)[..., 0]
        return self._frames.rgb(self._camera)

    def close(self) -> None:
        """Free the OpenGL context and close the environment."""
        self._frames.close()
        super().close()
