"""``make_env`` creates an environment from its name, or raises one clear sentence."""

from __future__ import annotations

import builtins
import copy
import warnings

import gymnasium as gym
import numpy as np
import pytest

from idql_func.data.d4rl_names import D4RL_NAMES
from idql_func.envs import gymnasium_id, make_env, pointmaze, wrap_gym
from idql_func.envs.pointmaze import (
    CELLS,
    ENV_NAME,
    GOAL,
    MAZE_MAP,
    FixedGoalPointMaze,
    cell_centre,
    cell_of,
    make_pointmaze_env,
    wall_rectangles,
)
from idql_func.types import InputError


def test_builtin_maze_has_its_documented_spaces() -> None:
    env = make_env(ENV_NAME)
    assert isinstance(env, FixedGoalPointMaze)
    assert env.observation_space == gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    assert env.action_space == gym.spaces.Box(-1, 1, (2,), np.float32)
    observation, info = env.reset(seed=1)
    assert observation.dtype == np.float32
    assert observation[2:].tolist() == [0, 0]
    assert info == {"success": False}
    wrapped = wrap_gym(make_env(ENV_NAME), assert_native_bounds=True)
    np.testing.assert_array_equal(wrapped.reset(seed=1)[0], observation)


def test_maze_map_equals_gymnasium_robotics() -> None:
    pointmaze.register_robotics()
    from gymnasium_robotics.envs.maze.maps import U_MAZE

    assert [list(row) for row in MAZE_MAP] == U_MAZE
    maze = make_pointmaze_env().unwrapped.maze  # type: ignore[attr-defined]
    for cell in CELLS:
        np.testing.assert_array_equal(maze.cell_rowcol_to_xy(np.array(cell)), cell_centre(cell))
        assert cell_of(cell_centre(cell)) == cell
    assert len(wall_rectangles()) + len(CELLS) == 25


def test_starts_are_random_seeded_and_off_the_goal() -> None:
    env = make_pointmaze_env()
    starts = np.stack([env.reset(seed=seed)[0][:2] for seed in range(60)])
    cells = {cell_of(start) for start in starts}
    assert cells == set(CELLS) - {cell_of(GOAL)}
    np.testing.assert_array_equal(env.reset(seed=7)[0][:2], starts[7])
    assert not any(env.reset(seed=seed)[1]["success"] for seed in range(20))


def test_ball_at_the_goal_gets_reward_until_the_time_limit() -> None:
    """Pushing left and down from the lower arm moves the ball into the dead end for good."""
    env = make_pointmaze_env()
    seed = next(s for s in range(50) if cell_of(env.reset(seed=s)[0][:2]) == (3, 2))
    env.reset(seed=seed)
    rewards, infos, truncated, steps = [], [], False, 0
    while not truncated:
        _, reward, terminated, truncated, info = env.step(np.asarray([-1, -1], np.float32))
        rewards.append(reward)
        infos.append(info["success"])
        steps += 1
        assert not terminated
    assert steps == 300
    first = rewards.index(1.0)
    assert 0 < first < 60
    assert set(rewards[first:]) == {1.0}
    assert infos == [False] * first + [True] * (300 - first)


def test_success_stays_after_leaving_and_ends_with_the_episode() -> None:
    env = make_pointmaze_env()
    seed = next(s for s in range(50) if cell_of(env.reset(seed=s)[0][:2]) == (3, 2))
    env.reset(seed=seed)
    reward = 0.0
    while not reward:
        _, reward, _, _, _ = env.step(np.asarray([-1, 0], np.float32))
    for _ in range(80):
        _, reward, _, _, info = env.step(np.asarray([1, 0], np.float32))
    assert (reward, info["success"]) == (0.0, True)
    assert env.reset(seed=seed)[1] == {"success": False}


def test_physics_equals_the_unwrapped_environment() -> None:
    plain = gym.make(pointmaze.GYMNASIUM_ID, continuing_task=True, reset_target=False)
    env = make_pointmaze_env()
    observation, _ = env.reset(seed=3)
    expected, _ = plain.reset(seed=3, options={"goal_cell": np.array(cell_of(GOAL))})
    rng = np.random.default_rng(0)
    for _ in range(50):
        np.testing.assert_array_equal(observation, expected["observation"].astype(np.float32))
        action = rng.uniform(-1, 1, 2).astype(np.float32)
        observation = env.step(action)[0]
        expected = plain.step(action)[0]


def test_goal_and_episode_length_can_be_set() -> None:
    env = make_pointmaze_env(goal=(1.0, 0.0), episode_steps=5)
    starts = {cell_of(env.reset(seed=seed)[0][:2]) for seed in range(40)}
    assert (2, 3) not in starts
    assert cell_of(GOAL) in starts
    assert [env.step(np.zeros(2, np.float32))[3] for _ in range(5)] == [False] * 4 + [True]
    with pytest.raises(InputError, match="is in a wall"):
        make_pointmaze_env(goal=(0.0, 0.0))
    with pytest.raises(InputError, match="episode_steps must be at least 1; got 0"):
        make_pointmaze_env(episode_steps=0)


def test_no_temporary_files_are_left(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    env = make_pointmaze_env(goal=(1.0, 0.0), goal_radius=0.3, episode_steps=7)
    copied = copy.deepcopy(env)
    assert list(tmp_path.iterdir()) == []
    assert (copied.goal.tolist(), copied.goal_radius) == ([1.0, 0.0], 0.3)
    copied.reset(seed=1)
    env.reset(seed=2)
    assert [copied.step(np.zeros(2, np.float32))[3] for _ in range(7)] == [False] * 6 + [True]


def test_import_of_the_robotics_package_is_silent(capfd) -> None:
    pointmaze.register_robotics.__wrapped__()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "identifier", "size"),
    [
        ("halfcheetah-medium-v2", "HalfCheetah-v5", 17),
        ("hopper-medium-replay-v2", "Hopper-v5", 11),
        ("walker2d-medium-expert-v2", "Walker2d-v5", 17),
        ("pen-human-v1", "AdroitHandPen-v1", 45),
        ("antmaze-umaze-diverse-v2", "AntMaze_UMaze-v4", 29),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_d4rl_name_creates_its_counterpart(
    name: str, identifier: str, size: int, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs old model files to the working folder
    with pytest.warns(UserWarning, match=f"{name} is evaluated in {identifier}: "):
        env = wrap_gym(make_env(name), assert_native_bounds=True)
    observation, _ = env.reset(seed=0)
    assert env.spec is not None
    assert env.spec.id == identifier
    assert (observation.shape, observation.dtype) == ((size,), np.float32)
    assert env.observation_space.shape == (size,)


def test_every_d4rl_name_has_an_environment_or_a_reason() -> None:
    for name in D4RL_NAMES:
        try:
            identifier, caveat = gymnasium_id(name)
        except InputError as error:
            assert "has no environment in Gymnasium" in str(error)
        else:
            assert identifier != name
            assert caveat


@pytest.mark.parametrize("name", ["ant-medium-v2", "maze2d-umaze-v1", "kitchen-mixed-v0"])
def test_d4rl_names_without_counterpart_raise_input_error(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} has no environment in Gymnasium: "):
        make_env(name)


def test_gymnasium_ids_and_arguments_are_passed_on() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make_env("Pendulum-v1", g=5.0)
    assert env.unwrapped.g == 5.0  # type: ignore[attr-defined]
    assert make_env("PointMaze_Medium-v3").spec.id == "PointMaze_Medium-v3"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["NoSuchEnv-v0", "halfcheetah-v99x", "", "a b"])
def test_unknown_names_raise_input_error(name: str) -> None:
    with pytest.raises(InputError, match="There is no environment"):
        make_env(name)


def test_unknown_arguments_raise_input_error() -> None:
    with pytest.raises(InputError, match=f"{ENV_NAME} does not accept these arguments"):
        make_env(ENV_NAME, colour="red")
    with pytest.raises(InputError, match="does not accept these arguments"):
        make_env("Pendulum-v1", colour="red")


def test_missing_packages_raise_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args, **kwargs):
        if name.split(".", maxsplit=1)[0] in ("gymnasium_robotics", "mujoco"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    pointmaze.register_robotics.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'idql_func\[all\]'"):
        make_env(ENV_NAME)
