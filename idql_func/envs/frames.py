"""Pictures of any environment at any size: MuJoCo's drawn off screen, others' resized."""

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
    """What to call an environment in a message.

    Example:
        >>> env_name(gym.make("Pendulum-v1"))
        'Pendulum-v1'
    """
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def frames_per_second(env: gym.Env, default: float = 20.0) -> float:
    """How many steps of the environment make one second of its own time, where it says.

    Example:
        >>> frames_per_second(gym.make("Pendulum-v1"))
        30.0
    """
    return float(env.metadata.get("render_fps") or default)


def is_mujoco(env: gym.Env) -> bool:
    """Whether an environment is simulated by MuJoCo.

    Example:
        >>> is_mujoco(gym.make("InvertedPendulum-v5")), is_mujoco(gym.make("Pendulum-v1"))
        (True, False)
    """
    return _physics(env) is not None


class FrameSource:
    """Draws an environment as it is now, at one size.

    An environment of MuJoCo (Gymnasium's, gymnasium-robotics', ``dm_control``'s) may be made
    without a render mode; it has all cameras of its model, and depth. Any other is asked to
    ``render()``, has one view (camera 0 or -1), and its picture is resized.

    Args:
        env: wrapped or not.
        height: pixels.
        width: pixels.
        effects: see :class:`idql_func.envs.OffscreenView`.

    Raises:
        InputError: a size below 1, or an environment outside MuJoCo without
            ``render_mode="rgb_array"``.

    Example:
        >>> env = gym.make("InvertedPendulum-v5")
        >>> _ = env.reset(seed=0)
        >>> FrameSource(env, 64, 64).rgb().shape
        (64, 64, 3)
    """

    def __init__(self, env: gym.Env, height: int, width: int, effects: bool = True) -> None:
        if height < 1 or width < 1:
            raise InputError(f"A picture is at least 1 by 1 pixels; got {height} by {width}.")
        self.env, self.height, self.width = env, height, width
        state = _physics(env)
        self._view = None if state is None else OffscreenView(height, width, effects)
        self._own_view = None if state is None else _own_view(env, state[0])
        if self._view is None and env.render_mode != "rgb_array":
            raise InputError(
                f"{env_name(env)} draws pictures only when it is made with "
                f'render_mode="rgb_array"; it was made with render_mode={env.render_mode!r}.'
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> FrameSource:
        twin = FrameSource.__new__(FrameSource)
        memo[id(self)] = twin
        twin.env = deepcopy(self.env, memo)
        twin.height, twin.width = self.height, self.width
        # Not asked of the copy: Gymnasium's pendulums lose their settings when they are copied.
        twin._view, twin._own_view = deepcopy(self._view), deepcopy(self._own_view)
        return twin

    def rgb(self, camera: Camera = 0) -> NDArray[np.uint8]:
        """The picture ``[H, W, 3]``, uint8.

        Raises:
            InputError: no such camera, no OpenGL library, or ``render()`` gives no picture.
        """
        if self._view is not None:
            return self._view.rgb(*self._state(), camera, self._own_view)
        self._refuse_camera(camera)
        return _resized(_picture(self.env), self.height, self.width)

    def depth(self, camera: Camera = 0) -> NDArray[np.float32]:
        """Distance along the camera's axis ``[H, W, 1]``, metres, float32.

        Raises:
            InputError: no such camera, no OpenGL library, or an environment outside MuJoCo.
        """
        self.refuse_depth()
        assert self._view is not None
        return self._view.depth(*self._state(), camera, self._own_view)

    def refuse_depth(self) -> None:
        """Raise the error of :meth:`depth` where there is none."""
        if self._view is None:
            raise InputError(f"{env_name(self.env)} is not simulated by MuJoCo and has no depth.")

    def close(self) -> None:
        """Free the OpenGL context; the next picture opens another."""
        if self._view is not None:
            self._view.close()

    def _state(self) -> tuple[Any, Any]:
        # Asked each time: some tasks of dm_control compile a new model for every episode.
        state = _physics(self.env)
        assert state is not None
        return state

    def _refuse_camera(self, camera: Camera) -> None:
        if camera not in (0, -1):
            raise InputError(f"{env_name(self.env)} has one view, camera 0; got camera {camera!r}.")


def _physics(env: gym.Env) -> tuple[Any, Any] | None:
    """MuJoCo's model and data behind an environment, if it is MuJoCo's."""
    mujoco: Any = sys.modules.get("mujoco")  # an environment of MuJoCo has imported it
    if mujoco is None:
        return None
    base: Any = env.unwrapped
    physics = getattr(base, "physics", None)
    if physics is not None:  # dm_control
        base = physics
    model, data = getattr(base, "model", None), getattr(base, "data", None)
    model, data = getattr(model, "ptr", model), getattr(data, "ptr", data)
    return (model, data) if isinstance(model, mujoco.MjModel) else None


def _own_view(env: gym.Env, model: Any) -> Any:
    """The camera that Gymnasium's environments set up for themselves; None elsewhere.

    Gymnasium aims it at the bodies as they are when the first picture is drawn; here it is aimed
    at the model's rest pose, so that a picture depends on the state alone.
    """
    mujoco: Any = importlib.import_module("mujoco")
    base: Any = env.unwrapped
    for holder in (base, getattr(base, "point_env", None), getattr(base, "ant_env", None)):
        renderer = getattr(holder, "mujoco_renderer", None)
        if renderer is not None:
            break
    else:
        return None
    camera = mujoco.MjvCamera()
    if renderer.camera_id >= 0:  # chosen when the environment was made
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


def _picture(env: gym.Env) -> NDArray[np.uint8]:
    picture: Any = env.render()
    if (
        not isinstance(picture, np.ndarray)
        or picture.dtype != np.uint8
        or picture.ndim != 3
        or picture.shape[2] != 3
    ):
        got = (
            f"{picture.dtype} {picture.shape}"
            if isinstance(picture, np.ndarray)
            else type(picture).__name__
        )
        raise InputError(
            f"{env_name(env)}: render() must give a picture [H, W, 3] of uint8; it gave {got}."
        )
    return picture


def _resized(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if picture.shape[:2] == (height, width):
        return picture.copy()  # the environment may draw into the same array again
    from PIL import Image

    image = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image)


class OffscreenRender(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Makes ``render()`` of a MuJoCo environment work on a machine without a display.

    The picture has the environment's own size (else 480 by 480) and its own view, except that
    ``dm_control``'s is its camera 0, as in upstream's ``dmcgym``.

    Args:
        env: an environment of MuJoCo made with the render mode ``rgb_array`` or ``depth_array``.

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
        """The picture ``[H, W, 3]`` uint8, or the depth ``[H, W]`` float32 in metres."""
        if self.render_mode == "depth_array":
            return self._frames.depth(self._camera)[..., 0]
        return self._frames.rgb(self._camera)

    def close(self) -> None:
        """Free the OpenGL context and close the environment."""
        self._frames.close()
        super().close()
