"""Wrappers: spaces, observations, actions and seeds."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from idql_func.envs import BoundedActions, SinglePrecision, UniversalSeed, wrap_gym
from idql_func.types import InputError


class Probe(gym.Env):
    """An environment with a fixed observation that stores the last action it received."""

    def __init__(self, observation_space, action_space, observation=None) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.observation = observation
        self.received: Any = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        self.received = action
        return self._observe(), 0.0, False, False, {}

    def _observe(self):
        if self.observation is not None:
            return self.observation
        return self.np_random.normal(size=self.observation_space.shape)


def box(low=-1.0, high=1.0, shape=(2,), dtype: Any = np.float32) -> Box:
    return Box(low, high, shape, dtype)


def test_single_precision_of_nested_observations() -> None:
    pixels = Box(0, 255, (2, 2), np.uint8)
    space = Dict(
        state=box(-np.inf, np.inf, (3,), np.float64),
        inner=Dict(pixels=pixels, half=box(dtype=np.float16)),
    )
    value = {
        "state": np.array([0.1, 1e300, -np.inf]),
        "inner": {"pixels": np.full((2, 2), 7, np.uint8), "half": np.ones(2, np.float16)},
    }
    env = SinglePrecision(Probe(space, box(), value))
    with np.errstate(over="ignore"):
        seen, _ = env.reset()
    assert seen["state"].dtype == np.float32
    np.testing.assert_array_equal(seen["state"], np.asarray([0.1, np.inf, -np.inf], np.float32))
    assert seen["inner"]["pixels"].dtype == np.uint8
    assert seen["inner"]["half"].dtype == np.float16
    assert value["state"].dtype == np.float64
    seen_space: Any = env.observation_space
    assert seen_space["state"].dtype == np.float32
    assert seen_space["inner"]["pixels"] == pixels
    assert space["state"].dtype == np.float64


@given(hnp.arrays(np.float64, 3, elements=st.floats(-1e30, 1e30)))
def test_single_precision_rounds_to_nearest(value) -> None:
    env = SinglePrecision(Probe(box(-np.inf, np.inf, (3,), np.float64), box(), value))
    np.testing.assert_array_equal(env.reset()[0], value.astype(np.float32))


def test_single_precision_rejects_other_spaces() -> None:
    with pytest.raises(InputError, match=r"needs Box observations.*Discrete\(3\)"):
        SinglePrecision(Probe(Discrete(3), box()))


@pytest.mark.parametrize("by_method", [True, False])
def test_universal_seed_reaches_environment_and_spaces(by_method: bool) -> None:
    def draw(seed: int) -> np.ndarray:
        env = UniversalSeed(Probe(box(-9, 9, dtype=np.float64), box()))
        if by_method:
            assert env.seed(seed) == [seed]
            observation, _ = env.reset()
        else:
            observation, _ = env.reset(seed=seed)
        return np.concatenate(
            [observation, env.observation_space.sample(), env.action_space.sample()]
        )

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).all()


def test_universal_seed_is_used_once() -> None:
    env = UniversalSeed(Probe(box(-9, 9, dtype=np.float64), box()))
    env.seed(5)
    first, second = env.reset()[0], env.reset()[0]
    assert (first != second).all()
    np.testing.assert_array_equal(env.reset(seed=5)[0], first)


@given(hnp.arrays(np.float32, 2, elements=st.floats(-100, 100, width=32)))
def test_bounded_actions_clip_and_keep_the_space(action) -> None:
    probe = Probe(box(), box(-0.5, 2.0))
    env = BoundedActions(probe)
    env.step(action)
    np.testing.assert_array_equal(probe.received, np.clip(action, -0.5, 2.0))
    assert env.action_space == probe.action_space


def test_wrap_gym_flattens_rescales_and_clips() -> None:
    space = Dict(b=box(shape=(2,), dtype=np.float64), a=box(shape=(1,), dtype=np.float64))
    value = {"b": np.array([2.0, 3.0]), "a": np.array([1.0])}
    probe = Probe(space, box(-2.0, 4.0), value)
    env = wrap_gym(probe)
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32
    assert observation.tolist() == [1.0, 2.0, 3.0]  # keys in sorted order, as upstream's Gym
    assert env.observation_space.shape == (3,)
    assert env.action_space == box()
    for given_action, received in [((-1, 1), (-2, 4)), ((0, 0.5), (1, 2.5)), ((-7, 7), (-2, 4))]:
        env.step(np.asarray(given_action, np.float32))
        np.testing.assert_allclose(probe.received, received, rtol=1e-6)


def test_wrap_gym_seeds_the_outermost_spaces() -> None:
    env = wrap_gym(Probe(box(), box(-2.0, 2.0)))
    env.reset(seed=4)
    first = env.action_space.sample(), env.observation_space.sample()
    env.reset(seed=4)
    np.testing.assert_array_equal(env.action_space.sample(), first[0])
    np.testing.assert_array_equal(env.observation_space.sample(), first[1])


@given(hnp.arrays(np.float32, 2, elements=st.floats(-1, 1, width=32)))
def test_wrapping_twice_and_unit_bounds_do_not_change_actions(action) -> None:
    probe = Probe(box(), box())
    env = wrap_gym(wrap_gym(probe))
    env.reset(seed=0)
    env.step(action)
    np.testing.assert_array_equal(probe.received, action)


def test_wrap_gym_without_rescaling_keeps_native_bounds() -> None:
    probe = Probe(box(), box(-2.0, 2.0))
    env = wrap_gym(probe, rescale_actions=False)
    env.step(np.asarray([1.5, 3.0], np.float32))
    assert env.action_space == box(-2.0, 2.0)
    assert probe.received.tolist() == [1.5, 2.0]


def test_assert_native_bounds_rejects_other_bounds() -> None:
    """D14: rescaling is harmless only if the native bounds are ±1."""
    with pytest.raises(InputError, match=r"Probe has actions in \[-2, 2\], not \[-1, 1\]"):
        wrap_gym(Probe(box(), box(-2.0, 2.0)), assert_native_bounds=True)
    wrap_gym(Probe(box(), box()), assert_native_bounds=True)


def test_unsupported_action_spaces_raise_input_error() -> None:
    with pytest.raises(InputError, match="continuous actions"):
        wrap_gym(Probe(box(), Discrete(3)))
    with pytest.raises(InputError, match="unbounded actions"):
        wrap_gym(Probe(box(), box(-np.inf, np.inf)))
