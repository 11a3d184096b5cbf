"""Render MuJoCo scenes without a window: RGB and metric depth, any size, any camera.

The images equal those of ``dm_control``'s ``physics.render`` and of MuJoCo's ``Renderer`` bit for
bit. Both of these, and Gymnasium's renderer, read the OpenGL library from ``MUJOCO_GL`` on import
and fail on a machine without a display if it is not set. Gymnasium's also renders in the context
that was used last, so two environments disturb each other. Here the library is chosen when the
first image is rendered, the environment variable is not written, and each image is rendered in its
own context.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import os
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idql_func.types import InputError

__all__ = ["Camera", "OffscreenView", "gl_libraries"]

Camera = int | str
"""A camera of the model, by number or by name; -1 is the environment's default view."""

_OFF = ("disable", "disabled", "off", "false", "0")
_ON = ("", "enable", "enabled", "on", "true", "1")
_BY_SYSTEM = {"darwin": ["cgl", "glfw"], "win32": ["glfw"]}
_NAMED = {"egl": "egl", "osmesa": "osmesa", "glfw": "glfw", "glx": "glfw", "cgl": "cgl"}


def gl_libraries(environ: Mapping[str, str] = os.environ, system: str = sys.platform) -> list[str]:
    """Return the OpenGL libraries to try: the one in ``MUJOCO_GL``, else windowless ones first.

    Args:
        environ: the environment variables.
        system: as ``sys.platform``.

    Raises:
        InputError: if ``MUJOCO_GL`` disables rendering or is not a library.

    Example:
        >>> gl_libraries({}, "linux"), gl_libraries({"MUJOCO_GL": "osmesa"}, "linux")
        (['egl', 'osmesa'], ['osmesa'])
    """
    setting = environ.get("MUJOCO_GL", "").strip().lower()
    if setting in _OFF:
        raise InputError(
            f"MUJOCO_GL={setting} disables MuJoCo's rendering; unset it to render images."
        )
    if setting in _NAMED:
        return [_NAMED[setting]]
    if setting not in _ON:
        raise InputError(f"MUJOCO_GL={setting} is not an OpenGL library; use egl, osmesa or glfw.")
    if system in _BY_SYSTEM:
        return _BY_SYSTEM[system]
    display = environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    return ["egl", "osmesa", *(["glfw"] if display else [])]


def _mujoco() -> Any:
    # Any: type checkers cannot read its compiled modules.
    return importlib.import_module("mujoco")


# Checked before MuJoCo's modules are imported: once its EGL has failed, OSMesa cannot be loaded.
_FILES = {"egl": ("libEGL.so.1",), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6")}


def _require_library(name: str) -> None:
    files = _FILES.get(name, ())
    for file in files:
        with contextlib.suppress(OSError):
            ctypes.CDLL(file)
            return
    if files:
        raise OSError(f"{files[0]} is not installed")


def _open_context(model: Any, height: int, width: int) -> tuple[Any, Any]:
    """Open an OpenGL context with the first library that works, and MuJoCo's context in it."""
    mujoco, reasons = _mujoco(), []
    for name in gl_libraries():
        try:
            _require_library(name)
            gl = importlib.import_module(f"mujoco.{name}").GLContext(width, height)
            gl.make_current()
            return gl, mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        except Exception as error:  # each library fails in its own way, AttributeError included
            reasons.append(f"{name}: {' '.join(str(error).split()) or type(error).__name__}")
    raise InputError(
        f"MuJoCo cannot render images here ({'; '.join(reasons)}); install Mesa's EGL or OSMesa "
        "(Debian: apt-get install libegl1 libosmesa6), or set MUJOCO_GL to another library."
    )


class OffscreenView:
    """Renders the state of MuJoCo models at a fixed size.

    The OpenGL context is opened for the first image and needs 25 to 90 MB, most of it for shadows.
    A deep or pickled copy opens its own.

    Args:
        height: pixels.
        width: pixels.
        effects: render shadows and reflections, as upstream does; without them a software renderer
            is several times as fast.

    Example:
        >>> import mujoco
        >>> model = mujoco.MjModel.from_xml_string(
        ...     "<mujoco><worldbody><geom type='sphere' size='1'/></worldbody></mujoco>"
        ... )
        >>> data = mujoco.MjData(model)
        >>> mujoco.mj_forward(model, data)
        >>> view = OffscreenView(48, 64)
        >>> view.rgb(model, data).shape, view.depth(model, data).shape
        ((48, 64, 3), (48, 64, 1))
        >>> view.close()
    """

    def __init__(self, height: int, width: int, effects: bool = True) -> None:
        self.height, self.width, self.effects = height, width, effects
        self._model: Any = None
        self._gl: Any = None
        self._context: Any = None
        self._scene: Any = None
        self._at_exit: Callable[[], None] | None = None

    def __del__(self) -> None:
        # MuJoCo would free the context's textures in whichever context was used last.
        with contextlib.suppress(Exception):
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return OffscreenView, (self.height, self.width, self.effects)

    def rgb(
        self, model: Any, data: Any, camera: Camera = -1, default_camera: Any = None
    ) -> NDArray[np.uint8]:
        """Render an image ``[H, W, 3]``, uint8.

        Args:
            model: a ``mujoco.MjModel``.
            data: its ``mujoco.MjData``.
            camera: see :data:`Camera`.
            default_camera: the ``mujoco.MjvCamera`` for -1; default: MuJoCo's free camera.

        Raises:
            InputError: if there is no such camera or no OpenGL library.
        """
        mujoco = _mujoco()
        self._draw(model, data, camera, default_camera, segments=False)
        image = np.empty((self.height, self.width, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, self._rectangle(), self._context)
        return image[::-1].copy()  # OpenGL's first row is the lowest

    def depth(
        self, model: Any, data: Any, camera: Camera = -1, default_camera: Any = None
    ) -> NDArray[np.float32]:
        """Render the distance along the camera's axis ``[H, W, 1]``, metres, float32.

        Arguments and errors as for :meth:`rgb`. The background has the far plane's distance.
        """
        mujoco = _mujoco()
        # Rendered as segments: antialiased edges would average the distances of two bodies.
        self._draw(model, data, camera, default_camera, segments=True)
        buffer = np.empty((self.height, self.width), np.float32)
        mujoco.mjr_readPixels(None, buffer, self._rectangle(), self._context)
        extent = model.stat.extent
        near, far = model.vis.map.znear * extent, model.vis.map.zfar * extent
        share = buffer[::-1].astype(np.float64)  # 1 at the near plane, 0 at the far one
        if self._scene.camera[0].orthographic:
            metres = far - share * (far - near)
        else:
            metres = far * near / (share * (far - near) + near)
        return metres.astype(np.float32)[..., None]

    def close(self) -> None:
        """Free the context; the next image opens another."""
        context, gl = self._context, self._gl
        self._model = self._gl = self._context = self._scene = None
        if context is not None:
            if self._at_exit is not None:
                atexit.unregister(self._at_exit)
            gl.make_current()
            context.free()
            gl.free()

    def _rectangle(self) -> Any:
        return _mujoco().MjrRect(0, 0, self.width, self.height)

    def _draw(
        self, model: Any, data: Any, camera: Camera, default_camera: Any, segments: bool
    ) -> None:
        mujoco = _mujoco()
        if model is not self._model:
            self._open(model)
        self._gl.make_current()
        flags, flag = self._scene.flags, mujoco.mjtRndFlag
        flags[flag.mjRND_SHADOW] = flags[flag.mjRND_REFLECTION] = self.effects
        flags[flag.mjRND_SEGMENT] = flags[flag.mjRND_IDCOLOR] = segments
        chosen = _find_camera(model, camera, default_camera)
        bodies, options = mujoco.mjtCatBit.mjCAT_ALL.value, mujoco.MjvOption()
        mujoco.mjv_updateScene(model, data, options, None, chosen, bodies, self._scene)
        mujoco.mjr_render(self._rectangle(), self._scene, self._context)

    def _open(self, model: Any) -> None:
        mujoco = _mujoco()
        self.close()
        self._gl, self._context = _open_context(model, self.height, self.width)
        offscreen = mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value
        mujoco.mjr_setBuffer(offscreen, self._context)
        # The model's default buffer can be smaller than the image, and is usually larger.
        mujoco.mjr_resizeOffscreen(self.width, self.height, self._context)
        # Distances have smaller rounding errors if the far plane is 0.
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR.value
        self._scene = mujoco.MjvScene(model, 10_000)
        self._model = model
        # The first context's exit hook shuts the library down; this later hook runs before it.
        self._at_exit = _closer(weakref.ref(self))
        atexit.register(self._at_exit)


def _closer(view_ref: weakref.ref[OffscreenView]) -> Callable[[], None]:
    def close() -> None:
        if (view := view_ref()) is not None:
            view.close()

    return close


def _find_camera(model: Any, camera: Camera, default_camera: Any) -> Any:
    mujoco = _mujoco()
    number = camera
    if isinstance(camera, str):
        number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA.value, camera)
        if number < 0:
            number = model.ncam  # raises below
    elif camera == 0 and model.ncam == 0:
        number = -1  # the only view
    if not -1 <= int(number) < model.ncam:
        names = [
            mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_CAMERA.value, i) or str(i)
            for i in range(model.ncam)
        ]
        raise InputError(
            f"This model has no camera {camera!r}; its cameras are {', '.join(names) or 'none'}, "
            "and -1 is the environment's default view."
        )
    if number == -1 and default_camera is not None:
        return default_camera
    found = mujoco.MjvCamera()
    if number == -1:
        mujoco.mjv_defaultFreeCamera(model, found)
    else:
        found.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        found.fixedcamid = int(number)
    return found
