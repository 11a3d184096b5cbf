"""Pixel observations: images, spaces, and equal images from equal seeds."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from canvas import Canvas
from canvas_env import CanvasEnv
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env
from PIL import Image

from idql_func.envs import (
    ENV_NAME,
    FrameSource,
    PixelObservation,
    RepeatAction,
    make_env,
    wrap_pixels,
)
from idql_func.envs.frames import frames_per_second
from idql_func.types import InputError


def spaces(env: gym.Env) -> Any:
    return env.observation_space


def test_observation_is_the_rendered_image() -> None:
    canvas_env = CanvasEnv()
    env = PixelObservation(canvas_env, 8)
    observation, _ = env.reset(seed=4)
    assert list(observation) == ["pixels"]
    np.testing.assert_array_equal(observation["pixels"], canvas_env.canvas.picture(8, 8))
    assert observation["pixels"].dtype == np.uint8
    observation = env.step(np.ones(2, np.float32))[0]
    np.testing.assert_array_equal(observation["pixels"], canvas_env.canvas.picture(8, 8))
    assert env.observation_space.contains(observation)


def test_other_sizes_are_resized() -> None:
    canvas_env = CanvasEnv(size=(40, 60))
    env = PixelObservation(canvas_env, (10, 20))
    observation, _ = env.reset(seed=0)
    assert observation["pixels"].shape == spaces(env)["pixels"].shape == (10, 20, 3)
    expected = Image.fromarray(canvas_env.canvas.picture(40, 60)).resize((20, 10), 2)
    np.testing.assert_array_equal(observation["pixels"], np.array(expected))
    flat = CanvasEnv()
    flat.canvas.picture = lambda height, width, camera_id=0: np.full((50, 50, 3), 9, np.uint8)
    assert (PixelObservation(flat, 13).reset(seed=0)[0]["pixels"] == 9).all()


def test_reused_render_buffer_is_copied() -> None:
    buffer = np.zeros((8, 8, 3), np.uint8)

    class Reused(CanvasEnv):
        def render(self) -> Any:
            buffer[:] = self.canvas.count
            return buffer

    env = PixelObservation(Reused(), 8)
    first, _ = env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    assert (first["pixels"] == 0).all()


def test_cameras_depth_and_state_of_mujoco_are_observed() -> None:
    env, _ = wrap_pixels(
        make_env("HalfCheetah-v5"),
        action_repeat=2,
        image_size=24,
        num_stack=2,
        camera_id=("track", -1),
        pixel_keys=("side", "own"),
        depth_keys=("side_depth", "own_depth"),
        state_key="state",
    )
    observation, _ = env.reset(seed=0)
    observation = env.step(np.full(6, 0.3, np.float32))[0]
    assert {key: (value.shape, value.dtype.name) for key, value in observation.items()} == {
        "side": ((24, 24, 3, 2), "uint8"),
        "own": ((24, 24, 3, 2), "uint8"),
        "side_depth": ((24, 24, 1, 2), "float32"),
        "own_depth": ((24, 24, 1, 2), "float32"),
        "state": ((17,), "float32"),
    }
    assert env.observation_space.contains(observation)
    assert (observation["side"] != observation["own"]).any()
    assert (observation["side"][..., 0] != observation["side"][..., 1]).any()
    assert 0.5 < observation["side_depth"].min() < 4
    plain = RepeatAction(make_env("HalfCheetah-v5"), 2)
    plain.reset(seed=0)
    state = plain.step(np.full(6, 0.3, np.float32))[0]
    np.testing.assert_array_equal(observation["state"], state.astype(np.float32))
    source = FrameSource(plain, 24, 24)
    np.testing.assert_array_equal(observation["side"][..., -1], source.rgb(0))
    np.testing.assert_array_equal(observation["own_depth"][..., -1], source.depth(-1))
    env.close()


def test_dict_state_is_flattened() -> None:
    env, _ = wrap_pixels(CanvasEnv(nested=True), image_size=8, state_key="state")
    observation, _ = env.reset(seed=0)
    assert observation["state"].shape == (2 + 3 + 6 * 5 * 3,)
    assert observation["state"].dtype == np.float32


@pytest.mark.parametrize("name", ["InvertedPendulum-v5", ENV_NAME, "canvas_env"])
def test_same_seed_gives_same_images(name: str) -> None:
    def render_episode(seed: int) -> list[np.ndarray]:
        inner = CanvasEnv() if name == "canvas_env" else make_env(name)
        env, _ = wrap_pixels(inner, action_repeat=3, image_size=16)
        pictures = [env.reset(seed=seed)[0]["pixels"]]
        for _ in range(4):
            pictures.append(env.step(env.action_space.sample())[0]["pixels"])
        env.close()
        return pictures

    first = render_episode(5)
    np.testing.assert_array_equal(first, render_episode(5))
    assert any((one != other).any() for one, other in zip(first, render_episode(6), strict=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["InvertedPendulum-v5", "canvas_env", "Pendulum-v1"])
def test_passes_gymnasiums_checker(name: str) -> None:
    if name == "Pendulum-v1":
        pytest.importorskip("pygame")
    inner = CanvasEnv() if name == "canvas_env" else make_env(name, render_mode="rgb_array")
    check_env(wrap_pixels(inner, 2, 16, state_key="state")[0], skip_render_check=True)


def test_copy_has_the_same_observations() -> None:
    env, _ = wrap_pixels(make_env("InvertedPendulum-v5"), image_size=16)
    first = env.reset(seed=1)[0]["pixels"]
    copied = copy.deepcopy(env)
    np.testing.assert_array_equal(copied.reset(seed=1)[0]["pixels"], first)
    copied.step(np.ones(1, np.float32))
    after = env.step(np.zeros(1, np.float32))[0]["pixels"]
    assert (after[..., :2] == first[..., :2]).all()  # a step of the copy does not affect it
    copied.close()
    np.testing.assert_array_equal(env.reset(seed=1)[0]["pixels"], first)


def test_actions_are_rescaled_repeated_and_clipped() -> None:
    canvas_env = CanvasEnv()
    env, _ = wrap_pixels(canvas_env, action_repeat=3, image_size=8)
    assert env.action_space == Box(-1, 1, (2,), np.float32)
    env.reset(seed=0)
    _, reward, *_ = env.step(np.array([5.0, 0.0], np.float32))
    np.testing.assert_allclose(canvas_env.canvas.received, [[4.0, 0.0]] * 3, atol=1e-6)
    assert reward == pytest.approx(4 * (1 + 2 + 3))


def test_num_stack_none_gives_single_frames() -> None:
    env, _ = wrap_pixels(CanvasEnv(), image_size=8, num_stack=None)
    assert env.reset(seed=0)[0]["pixels"].shape == spaces(env)["pixels"].shape == (8, 8, 3)


def test_action_repeat_stops_at_episode_end_and_lowers_fps() -> None:
    for truncate in (False, True):
        env = RepeatAction(CanvasEnv(truncate=truncate), 100)
        env.reset(seed=0)
        _, _, terminated, truncated, info = env.step(np.zeros(2, np.float32))
        assert (terminated, truncated) == (not truncate, truncate)
        length = info["count"]
        assert 5 <= length <= 9
        assert {f"at_{i}" for i in range(1, length + 1)} < set(info)
    assert frames_per_second(env) == pytest.approx(0.12)
    assert frames_per_second(CanvasEnv()) == 12


@pytest.mark.parametrize("repeat", [0, -1, 2.5])
def test_bad_action_repeat_raises_input_error(repeat: Any) -> None:
    with pytest.raises(InputError, match=f"action_repeat must be an integer.*{repeat}"):
        wrap_pixels(CanvasEnv(), action_repeat=repeat)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"pixel_keys": "pixels"}, r'must be a tuple such as \("pixels",\), got \'pixels\''),
        ({"pixel_keys": ()}, "must be a tuple such as"),
        ({"pixel_keys": ("a", "b")}, "one camera_id for each of pixel_keys"),
        ({"camera_id": (0, 1)}, "one camera_id for each of pixel_keys"),
        ({"pixel_keys": ("a", "a"), "camera_id": (0, -1)}, "must be unique, got a, a"),
        ({"state_key": "pixels"}, "must be unique, got pixels, pixels"),
        ({"depth_keys": ("d", "e")}, "no depth_keys or one for each"),
        ({"depth_keys": ("d",)}, "CanvasEnv has no depth, since MuJoCo does not simulate it"),
        ({"image_size": 0}, "at least 1 by 1 pixels, got 0 by 0"),
        ({"num_stack": 0}, "num_stack must be an integer of at least 1"),
    ],
)
def test_bad_arguments_raise_input_error(kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrap_pixels(CanvasEnv(), **kwargs)


def test_environments_without_images_raise_input_error() -> None:
    with pytest.raises(
        InputError, match=r'Pendulum-v1 must be created with render_mode="rgb_array"'
    ):
        wrap_pixels(gym.make("Pendulum-v1"))
    with pytest.raises(InputError, match="CanvasEnv has only camera 0, got camera 3"):
        wrap_pixels(CanvasEnv(), camera_id=3)[0].reset()
    with pytest.raises(
        InputError, match=r"must return a uint8 image \[H, W, 3\]; it returned list"
    ):
        listed = CanvasEnv()
        listed.render = lambda: [np.zeros((8, 8, 3), np.uint8)]
        PixelObservation(listed, 8).reset()
    with pytest.raises(InputError, match=r"it returned float64 \(8, 8, 3\)"):
        doubles = CanvasEnv()
        doubles.render = lambda: np.zeros((8, 8, 3))
        PixelObservation(doubles, 8).reset()


def test_unsupported_spaces_raise_input_error() -> None:
    class DiscreteActions(CanvasEnv):
        def __init__(self) -> None:
            super().__init__()
            self.action_space: Any = Discrete(3)

    class UnboundedActions(CanvasEnv):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = Box(-np.inf, np.inf, Canvas.low.shape, np.float32)

    with pytest.raises(InputError, match="continuous actions"):
        wrap_pixels(DiscreteActions())
    with pytest.raises(InputError, match="unbounded actions"):
        wrap_pixels(UnboundedActions())
    with pytest.raises(InputError, match="state_key needs an environment that observes a flat"):
        PixelObservation(CanvasEnv(nested=True), 8, state_key="state")


def test_pendulum_is_rendered_by_pygame() -> None:
    pytest.importorskip("pygame")
    env, _ = wrap_pixels(make_env("Pendulum-v1", render_mode="rgb_array"), image_size=64)
    picture = env.reset(seed=3)[0]["pixels"][..., -1]
    red = (picture[..., 0] > 150) & (picture[..., 1] < 140)
    assert 20 < red.sum() < 400  # the rod
    assert (picture[0] == 255).all()


def test_builtin_maze_renders_without_display(monkeypatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    env = make_env(ENV_NAME, render_mode="rgb_array")
    env.reset(seed=0)
    picture: Any = env.render()
    assert (picture.shape, picture.dtype) == ((480, 480, 3), np.uint8)
    red = (picture[..., 0] > 180) & (picture[..., 1:] < 60).all(axis=-1)
    green = (picture[..., 1] > 120) & (picture[..., 0] < 100) & (picture[..., 2] < 120)
    assert red.sum() > 50  # the goal, in the lower arm
    assert green.sum() > 50  # the ball
    assert np.argwhere(red)[:, 0].mean() > 240 > np.argwhere(red)[:, 1].mean()
    copied = copy.deepcopy(env)
    copied.reset(seed=0)
    np.testing.assert_array_equal(copied.render(), picture)
    env.close()
    copied.close()
