"""DeepMind Control under upstream's names, with upstream's observations and images."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from idql_func.envs import FrameSource, dm_control, make_env, wrap_gym, wrap_pixels
from idql_func.envs.dm_control import SUITE_TASKS, suite_id
from idql_func.types import InputError


@pytest.fixture
def suite() -> Any:
    pytest.importorskip("shimmy")
    dm_control.register_dm_control("this test")
    from dm_control import suite

    return suite


def test_suite_id_of_names() -> None:
    assert suite_id("cheetah-run-v0") == "dm_control/cheetah-run-v0"
    assert suite_id("ball_in_cup-catch-v0") == "dm_control/ball_in_cup-catch-v0"
    assert suite_id("dm_control/anything-v0") == "dm_control/anything-v0"
    for name in ("hopper-medium-v2", "walker2d-expert-v0", "cheetah-run-v1", "Pendulum-v1", "run"):
        assert suite_id(name) is None


def test_every_suite_task_is_listed(suite: Any) -> None:
    ours = {(domain, task) for domain, tasks in SUITE_TASKS.items() for task in tasks}
    assert ours == set(suite.ALL_TASKS)


def test_missing_packages_raise_input_error(monkeypatch) -> None:
    dm_control.register_dm_control.cache_clear()
    monkeypatch.setitem(sys.modules, "shimmy", None)
    with pytest.raises(
        InputError, match=r"cheetah-run-v0 needs dm_control .*idql_func\[dm-control\]"
    ):
        make_env("cheetah-run-v0")


def test_unknown_tasks_raise_input_error(suite: Any) -> None:
    with pytest.raises(InputError, match="cheetah has dm_control/cheetah-run-v0"):
        make_env("dm_control/cheetah-fly-v0")
    with pytest.raises(
        InputError, match="the domains of DeepMind Control are acrobot, ball_in_cup"
    ):
        make_env("dm_control/giraffe-run-v0")
    with pytest.raises(InputError, match="does not accept these arguments"):
        make_env("cheetah-run-v0", colour="red")


@pytest.mark.parametrize(
    ("name", "size"),
    [("cheetah-run-v0", 17), ("hopper-hop-v0", 15), ("dm_control/quadruped-walk-v0", 78)],
)
def test_observations_equal_upstream(suite: Any, name: str, size: int) -> None:
    """Entries are in dm_control's order (Gymnasium would sort them); the seed is dmcgym's."""
    env = make_env(name)
    observation, _ = env.reset(seed=7)
    task = suite.load(*name.removeprefix("dm_control/").split("-")[:2])
    task.task.random.seed(7)
    step = task.reset()
    env.action_space.seed(0)
    for _ in range(5):
        expected = np.concatenate([np.ravel(part) for part in step.observation.values()])
        assert (observation.dtype, observation.shape) == (np.float64, (size,))
        np.testing.assert_array_equal(observation, expected)
        action = env.action_space.sample()
        step = task.step(action.astype(np.float64))
        observation, reward, terminated, truncated, _ = env.step(action)
        assert (reward, terminated, truncated) == (step.reward, False, False)
    bounds: Any = env.action_space
    np.testing.assert_allclose(bounds.low, task.action_spec().minimum, rtol=1e-7)
    assert env.action_space.dtype == np.float32


def test_time_limit_truncates(suite: Any) -> None:
    env = make_env("cartpole-balance-v0")
    env.reset(seed=0)
    steps, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        _, reward, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        assert type(reward) is float
        steps += 1
    assert (steps, terminated, truncated) == (1000, False, True)
    assert env.metadata["render_fps"] == 100


@pytest.mark.filterwarnings("ignore")
def test_passes_gymnasiums_checker(suite: Any) -> None:
    check_env(wrap_gym(make_env("walker-walk-v0")), skip_render_check=True)


def test_copy_is_independent(suite: Any) -> None:
    env, _ = wrap_pixels(make_env("reacher-easy-v0", render_mode="rgb_array"), image_size=16)
    first = env.reset(seed=2)[0]["pixels"]
    copied = copy.deepcopy(env)
    np.testing.assert_array_equal(copied.reset(seed=2)[0]["pixels"], first)
    assert copied.unwrapped.physics is not env.unwrapped.physics  # type: ignore[attr-defined]


def test_images_equal_dm_control(suite: Any, tmp_path: Path) -> None:
    """dm_control renders in a separate process, since its renderer interferes with others."""
    from idql_func.envs.offscreen import gl_libraries

    code = (
        "import sys, numpy as np; from dm_control import suite; "
        "env = suite.load('cheetah', 'run', task_kwargs={'random': 3}); env.reset(); "
        "np.save(sys.argv[1], env.physics.render(height=64, width=64, camera_id=0))"
    )
    variables = {**os.environ, "MUJOCO_GL": gl_libraries()[0]}
    subprocess.run([sys.executable, "-c", code, tmp_path / "frame.npy"], check=True, env=variables)
    expected = np.load(tmp_path / "frame.npy")
    env = make_env("cheetah-run-v0")
    env.reset(seed=3)
    np.testing.assert_array_equal(FrameSource(env, 64, 64).rgb(0), expected)
    seen = wrap_pixels(make_env("cheetah-run-v0"), 4, image_size=64)[0].reset(seed=3)[0]["pixels"]
    np.testing.assert_array_equal(seen, np.stack([expected] * 3, axis=-1))


def test_task_with_a_new_model_per_episode_is_rendered(suite: Any) -> None:
    env, _ = wrap_pixels(make_env("dm_control/stacker-stack_2-v0"), image_size=24)
    first = env.reset(seed=0)[0]["pixels"]
    env.reset(seed=1)
    np.testing.assert_array_equal(env.reset(seed=0)[0]["pixels"], first)
