"""The wrappers equal upstream's, whose outputs ``upstream_wrappers.py`` recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from canvas import Canvas, episode_actions
from canvas_env import CanvasEnv
from gymnasium.spaces import Dict
from safetensors.numpy import load_file

from idql_func.envs import FrameStack, RepeatAction, SinglePrecision, wrap_gym, wrap_pixels

RECORD = load_file(Path(__file__).parent / "reference" / "wrappers.safetensors")


def play(env: gym.Env, canvas: Canvas) -> dict[str, np.ndarray]:
    """The values that the recorder saves, for the same actions."""
    observations, rewards, dones, infos = [], [], [], []
    for actions in episode_actions(3, 3):
        observation, _ = env.reset()
        done = False
        observations.append(observation)
        for action in actions:
            if done:
                break
            observation, reward, terminated, truncated, info = env.step(action)
            assert not truncated
            done = terminated
            observations.append(observation)
            rewards.append(reward)
            dones.append(done)
            infos.append(len(info))
    played = {
        "rewards": np.array(rewards),
        "dones": np.array(dones),
        "infos": np.array(infos),
        "received": np.stack(canvas.received),
    }
    return {**played, **leaves(observations, "observations")}


def leaves(observations: list[Any], path: str) -> dict[str, np.ndarray]:
    if not isinstance(observations[0], dict):
        return {path: np.stack(observations)}
    found: dict[str, np.ndarray] = {}
    for key in observations[0]:
        found |= leaves([o[key] for o in observations], f"{path}/{key}")
    return found


def check(name: str, env: gym.Env, canvas_env: CanvasEnv, rescaled: bool = False) -> None:
    played = play(env, canvas_env.canvas)
    expected = {
        key.removeprefix(f"{name}/"): value
        for key, value in RECORD.items()
        if key.startswith(f"{name}/")
    }
    assert set(played) == set(expected)
    for key, value in expected.items():
        assert (played[key].dtype, played[key].shape) == (value.dtype, value.shape), key
        if rescaled and key != "observations/pixels" and value.dtype.kind == "f":
            # Gymnasium multiplies and adds where Gym divided: some actions differ in the last bit.
            np.testing.assert_allclose(played[key], value, rtol=1e-6, atol=1e-6, err_msg=key)
        else:
            np.testing.assert_array_equal(played[key], value, err_msg=key)


@pytest.mark.parametrize("repeat", [1, 2, 4])
def test_repeat_action_equals_upstream(repeat: int) -> None:
    canvas_env = CanvasEnv()
    check(f"repeat_{repeat}", RepeatAction(canvas_env, repeat), canvas_env)


@pytest.mark.parametrize("stack", [1, 2, 3])
def test_frame_stack_equals_upstream(stack: int) -> None:
    canvas_env = CanvasEnv(nested=True)
    check(f"stack_{stack}", FrameStack(canvas_env, stack), canvas_env)


def test_single_precision_equals_upstream() -> None:
    canvas_env = CanvasEnv(nested=True)
    check("single", SinglePrecision(canvas_env), canvas_env)


def test_wrap_gym_equals_upstream() -> None:
    class NoPixels(gym.ObservationWrapper):
        def __init__(self, env: gym.Env) -> None:
            super().__init__(env)
            spaces: Any = env.observation_space
            self.observation_space = Dict({key: spaces[key] for key in ("b", "a")})

        def observation(self, observation: Any) -> Any:
            return {key: observation[key] for key in ("b", "a")}

    canvas_env = CanvasEnv(nested=True)
    check("gym", wrap_gym(NoPixels(canvas_env)), canvas_env, rescaled=True)


@pytest.mark.parametrize(("repeat", "stack", "camera"), [(1, 3, 0), (2, 3, 2), (4, 1, 0)])
def test_wrap_pixels_equals_upstream(repeat: int, stack: int, camera: int) -> None:
    class OneCamera(CanvasEnv):
        def render(self) -> Any:
            return self.canvas.picture(8, 8, camera)

    canvas_env = OneCamera()
    env, _ = wrap_pixels(canvas_env, repeat, image_size=8, num_stack=stack)
    check(f"pixels_{repeat}_{stack}_{camera}", env, canvas_env, rescaled=True)
