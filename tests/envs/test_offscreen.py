"""Offscreen rendering: equality with MuJoCo's renderer, choice of library, no side effects."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from idql_func.envs import FrameSource, OffscreenRender, OffscreenView, make_env, offscreen
from idql_func.envs.offscreen import gl_libraries
from idql_func.types import InputError

SCENE = """
<mujoco>
  <visual><global offwidth="32" offheight="32"/></visual>
  <worldbody>
    <light pos="0 0 4"/>
    <geom type="plane" size="3 3 .1" rgba=".2 .5 .3 1"/>
    <body name="ball" pos="0 0 1"><freejoint/><geom type="sphere" size=".5" rgba="1 0 0 1"/></body>
    <camera name="top" pos="0 0 5"/>
    <camera name="side" pos="0 -5 1" xyaxes="1 0 0 0 0 1"/>
    <camera name="flat" pos="0 0 5" projection="orthographic" fovy="4"/>
  </worldbody>
</mujoco>
"""


Scene = tuple[Any, Any]


@pytest.fixture(scope="module")
def scene() -> Scene:
    model = mujoco.MjModel.from_xml_string(SCENE)  # type: ignore[attr-defined]
    data = mujoco.MjData(model)  # type: ignore[attr-defined]
    mujoco.mj_forward(model, data)  # type: ignore[attr-defined]
    return model, data


@pytest.mark.parametrize(
    ("variables", "system", "expected"),
    [
        ({}, "linux", ["egl", "osmesa"]),
        ({"MUJOCO_GL": "1"}, "linux", ["egl", "osmesa"]),
        ({"DISPLAY": ":0"}, "linux", ["egl", "osmesa", "glfw"]),
        ({"MUJOCO_GL": "OSMesa"}, "linux", ["osmesa"]),
        ({"MUJOCO_GL": "glx"}, "linux", ["glfw"]),
        ({}, "darwin", ["cgl", "glfw"]),
        ({}, "win32", ["glfw"]),
    ],
)
def test_gl_libraries_are_those_of_the_system(variables: dict, system: str, expected: list) -> None:
    assert gl_libraries(variables, system) == expected


@pytest.mark.parametrize(
    ("setting", "message"),
    [("off", "disables MuJoCo's rendering"), ("vulkan", "not an OpenGL lib")],
)
def test_invalid_mujoco_gl_raises_input_error(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gl_libraries({"MUJOCO_GL": setting}, "linux")


def test_missing_library_raises_input_error(scene: Scene, monkeypatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "cgl")  # Apple's
    with pytest.raises(InputError, match=r"cannot render images here \(cgl: .*libegl1"):
        OffscreenView(8, 8).rgb(*scene)


def test_message_lists_libraries_that_are_not_installed(scene: Scene, monkeypatch) -> None:
    def missing(file: str) -> None:
        raise OSError(f"{file}: cannot open shared object file")

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(offscreen.ctypes, "CDLL", missing)
    with pytest.raises(
        InputError,
        match=r"egl: libEGL.so.1 is not installed; osmesa: libOSMesa.so.8 is not installed\); inst",
    ):
        OffscreenView(8, 8).rgb(*scene)


def test_window_library_without_display_raises_input_error() -> None:
    code = (
        "import gymnasium as gym; from idql_func.envs import PixelObservation; "
        "PixelObservation(gym.make('InvertedPendulum-v5'), 16).reset()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MUJOCO_GL": "glfw"}
    environment.pop("DISPLAY", None)
    environment.pop("WAYLAND_DISPLAY", None)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert ended.returncode == 1
    assert "InputError: MuJoCo cannot render images here (glfw: " in ended.stderr


def test_import_has_no_effect() -> None:
    """An import sets no environment variable and loads no OpenGL; only drawing loads it."""
    code = (
        "import os, sys; import idql_func.envs, idql_func.evaluation; "
        "assert not [name for name in os.environ if 'OPENGL' in name or 'MUJOCO' in name]; "
        "loaded = {'mujoco', 'OpenGL', 'glfw', 'wandb', 'imageio', 'dm_control'}; "
        "assert not loaded & set(sys.modules), loaded & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        environment.pop(name, None)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_rendering_does_not_change_mujoco_gl(scene: Scene) -> None:
    before = os.environ.get("MUJOCO_GL")
    OffscreenView(8, 8).rgb(*scene)
    assert os.environ.get("MUJOCO_GL") == before


@pytest.mark.parametrize("camera", [-1, "top", 1, "flat"])
def test_images_and_depth_equal_mujocos_renderer(scene: Scene, monkeypatch, camera) -> None:
    from mujoco.rendering.classic import gl_context

    library = type(offscreen._open_context(scene[0], 8, 8)[0])
    monkeypatch.setattr(gl_context, "GLContext", library, raising=False)
    renderer = mujoco.Renderer(scene[0], 32, 24)
    renderer.update_scene(scene[1], camera)
    view = OffscreenView(32, 24)
    np.testing.assert_array_equal(view.rgb(*scene, camera), renderer.render())
    renderer.enable_depth_rendering()
    depth = view.depth(*scene, camera)
    assert (depth.shape, depth.dtype) == ((32, 24, 1), np.float32)
    # MuJoCo's renderer rounds: its far plane, which is at 90, has an error of 3 mm.
    np.testing.assert_allclose(depth[..., 0], renderer.render(), rtol=5e-5)
    assert depth.max() == 90 or camera != -1
    renderer.close()


def test_depth_is_in_metres(scene: Scene) -> None:
    """The ball's top is at 1.5 below a camera at 5, the floor at 0."""
    for camera in ("top", "flat"):
        depth = OffscreenView(33, 33).depth(*scene, camera)[..., 0]
        assert depth[16, 16] == pytest.approx(3.5, abs=2e-3)
        assert depth[2, 16] == pytest.approx(5.0, abs=2e-3)


def test_image_may_be_larger_than_the_models_buffer_and_not_square(scene: Scene) -> None:
    picture = OffscreenView(64, 100).rgb(*scene, "top")
    assert picture.shape == (64, 100, 3)
    assert picture[32, 50, 0] > 150 > picture[32, 50, 1]  # the red ball in the middle
    assert picture[32, 50, 0] > picture[32, 5, 0]


def test_views_do_not_disturb_each_other(scene: Scene) -> None:
    """Gymnasium's renderers draw into the context that was used last."""
    other: Any = gym.make("InvertedPendulum-v5").unwrapped
    pairs: list[tuple[Scene, int, Any]] = [
        (scene, 40, "side"),
        (scene, 24, "top"),
        ((other.model, other.data), 32, -1),
    ]
    single = []
    for state, size, camera in pairs:
        view = OffscreenView(size, size)
        single.append(view.rgb(*state, camera))
        view.close()
    views = [OffscreenView(size, size) for _, size, _ in pairs]
    for _ in range(2):
        for view, (state, _, camera), expected in zip(views, pairs, single, strict=True):
            np.testing.assert_array_equal(view.rgb(*state, camera), expected)


def test_one_view_renders_two_models_and_after_close(scene: Scene) -> None:
    view = OffscreenView(16, 16)
    first = view.rgb(*scene, "top")
    other: Any = gym.make("InvertedPendulum-v5").unwrapped
    assert (view.rgb(other.model, other.data) != first).any()
    np.testing.assert_array_equal(view.rgb(*scene, "top"), first)
    view.close()
    view.close()
    np.testing.assert_array_equal(view.rgb(*scene, "top"), first)


@pytest.mark.parametrize(
    "make_copy", [copy.deepcopy, lambda view: pickle.loads(pickle.dumps(view))]
)
def test_copy_renders_independently(scene: Scene, make_copy) -> None:
    view = OffscreenView(16, 16, effects=False)
    first = view.rgb(*scene)
    other = make_copy(view)
    view.close()
    np.testing.assert_array_equal(other.rgb(*scene), first)


def test_effects_are_shadows_and_reflections() -> None:
    env: Any = make_env("HalfCheetah-v5").unwrapped
    env.reset(seed=0)
    full = OffscreenView(48, 48).rgb(env.model, env.data, 0).astype(int)
    plain = OffscreenView(48, 48, effects=False).rgb(env.model, env.data, 0).astype(int)
    differs = (full != plain).any(axis=-1)
    assert 0.01 < differs.mean() < 0.6


@pytest.mark.parametrize("camera", ["front", 3, -2])
def test_unknown_cameras_raise_input_error(scene: Scene, camera) -> None:
    with pytest.raises(
        InputError, match=r"no camera .*; its cameras are top, side, flat, and -1 is"
    ):
        OffscreenView(8, 8).rgb(*scene, camera)


def test_model_without_cameras_has_camera_0() -> None:
    env: Any = gym.make("InvertedPendulum-v5").unwrapped
    view = OffscreenView(8, 8)
    np.testing.assert_array_equal(
        view.rgb(env.model, env.data, 0), view.rgb(env.model, env.data, -1)
    )
    with pytest.raises(InputError, match="no camera 1; its cameras are none"):
        view.rgb(env.model, env.data, 1)


@pytest.mark.parametrize("name", ["InvertedPendulum-v5", "HalfCheetah-v5", "PointMaze_UMaze-v3"])
def test_default_view_equals_gymnasium(name: str, monkeypatch) -> None:
    """At the model's rest pose, at which the port aims its default camera."""
    library = next(iter(gl_libraries()))
    monkeypatch.setenv("MUJOCO_GL", library)
    ours: Any = make_env(name, render_mode="rgb_array")
    assert isinstance(ours, OffscreenRender)
    base = ours.unwrapped
    mujoco.mj_resetData(base.model, base.data)  # type: ignore[attr-defined]
    mujoco.mj_forward(base.model, base.data)  # type: ignore[attr-defined]
    expected = base.render()
    np.testing.assert_array_equal(FrameSource(ours, 480, 480).rgb(-1), expected)
    base.close()


def test_same_seed_renders_same_images() -> None:
    def render_episode(seed: int) -> np.ndarray:
        env = make_env("InvertedPendulum-v5", render_mode="rgb_array", width=40, height=24)
        env.reset(seed=seed)
        pictures = [env.render()]
        for force in (0.5, -1.0):
            env.step(np.array([force], np.float32))
            pictures.append(env.render())
        env.close()
        return np.stack(pictures)  # type: ignore[arg-type]

    first = render_episode(1)
    assert first.shape == (3, 24, 40, 3)
    np.testing.assert_array_equal(first, render_episode(1))
    assert (first != render_episode(2)).any()
    assert (first[0] != first[1]).any()


def test_deleting_a_view_does_not_affect_another(scene: Scene) -> None:
    view = OffscreenView(24, 24)
    first = view.rgb(*scene, "top")
    for size in (16, 40):
        dropped = OffscreenView(size, size)
        dropped.rgb(*scene, "side")
        del dropped
        np.testing.assert_array_equal(view.rgb(*scene, "top"), first)


def test_exit_without_close_is_silent() -> None:
    code = (
        "import gymnasium as gym; from idql_func.envs import PixelObservation; "
        "kept = [PixelObservation(gym.make('InvertedPendulum-v5'), 16) for _ in range(2)]; "
        "print([env.reset(seed=0)[0]['pixels'].shape for env in kept])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert (ended.stdout, ended.stderr) == ("[(16, 16, 3), (16, 16, 3)]\n", "")
