"""Frames are stacked in a new last axis, at any place in the observation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from canvas_env import CanvasEnv
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from idql_func.envs import FrameStack
from idql_func.types import InputError


@given(st.integers(1, 6), st.integers(0, 100), st.lists(st.booleans(), max_size=15))
@settings(max_examples=30)
def test_stack_holds_the_last_frames_since_reset(stack: int, seed: int, resets: list) -> None:
    env, plain = FrameStack(CanvasEnv(nested=True), stack), CanvasEnv(nested=True)
    rng = np.random.default_rng(seed)
    seen = [plain.reset(seed=seed)[0]["pixels"]] * stack
    observation, _ = env.reset(seed=seed)
    for reset in resets:
        if reset:
            seed += 1
            seen = [plain.reset(seed=seed)[0]["pixels"]] * stack
            observation, _ = env.reset(seed=seed)
        else:
            action = rng.uniform(-1, 1, 2).astype(np.float32)
            seen.append(plain.step(action)[0]["pixels"])
            observation = env.step(action)[0]
        np.testing.assert_array_equal(observation["pixels"], np.stack(seen[-stack:], axis=-1))
    assert env.observation_space.contains(observation)


def test_earlier_observations_do_not_change() -> None:
    env = FrameStack(CanvasEnv(nested=True), 2)
    first = env.reset(seed=0)[0]
    copy = first["pixels"].copy()
    second = env.step(np.ones(2, np.float32))[0]
    second["pixels"][:] = 0
    env.step(np.ones(2, np.float32))
    np.testing.assert_array_equal(first["pixels"], copy)


def test_nested_entry_is_stacked() -> None:
    canvas_env = CanvasEnv(nested=True)
    env = FrameStack(canvas_env, 3, ("a", "half"))
    observation, _ = env.reset(seed=0)
    space: Any = env.observation_space
    assert observation["a"]["half"].shape == space["a"]["half"].shape == (2, 3)
    assert observation["a"]["half"].dtype == np.float32
    assert observation["pixels"].shape == (6, 5, 3)
    # the wrapped environment keeps its space, which upstream overwrote
    wrapped_space: Any = canvas_env.observation_space
    assert wrapped_space["a"]["half"].shape == (2,)


@pytest.mark.filterwarnings("ignore")
def test_passes_gymnasiums_checker() -> None:
    check_env(FrameStack(CanvasEnv(nested=True), 3), skip_render_check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "num_stack must be an integer of at least 1, got 0"),
        ((1.5,), "num_stack must be an integer of at least 1, got 1.5"),
        ((2, "frame"), "the observation space Dict.* has no entry 'frame'"),
        ((2, ("a", "whole")), "no entry 'whole'"),
        ((2, "a"), r"can stack only an array \(a Box\); this entry is Dict"),
    ],
)
def test_bad_arguments_raise_input_error(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FrameStack(CanvasEnv(nested=True), *arguments)


def test_flat_observation_raises_input_error() -> None:
    with pytest.raises(InputError, match="no entry 'pixels'"):
        FrameStack(CanvasEnv(), 2)
