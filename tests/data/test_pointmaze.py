"""The built-in maze dataset: equal arrays from equal seeds, and agreement with its environment."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection

from idql_func.data.hdf5 import read_d4rl_hdf5
from idql_func.data.maze_picture import plot_trajectories, trajectory_figure
from idql_func.data.pointmaze import (
    BEHAVIOUR,
    EXPERT,
    REF_MAX_SCORE,
    WaypointController,
    arrays_sha256,
    behaviour_returns,
    cache_dir,
    collect,
    make_pointmaze_dataset,
    relabel,
    route,
)
from idql_func.envs.pointmaze import (
    CELLS,
    ENV_NAME,
    GOAL,
    GOAL_RADIUS,
    make_pointmaze_env,
    sparse_reward,
)
from idql_func.types import InputError

STEPS = 700  # two whole episodes and a truncated one


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IDQL_DATA_DIR", str(tmp_path))
    return tmp_path


def make(**kwargs) -> Path:
    return make_pointmaze_dataset(progress=False, **{"steps": STEPS, **kwargs})


def test_same_seed_gives_same_arrays_and_hash(tmp_path: Path) -> None:
    first, first_attributes = read_d4rl_hdf5(make(path=tmp_path / "a.hdf5", seed=3))
    second, second_attributes = read_d4rl_hdf5(make(path=tmp_path / "b.hdf5", seed=3))
    other, _ = read_d4rl_hdf5(make(path=tmp_path / "c.hdf5", seed=4))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    assert first_attributes == second_attributes
    assert first_attributes["sha256"] == arrays_sha256(second)
    assert not np.array_equal(first["observations"], other["observations"])


def test_file_has_the_layout_and_attributes_of_d4rl(cache: Path) -> None:
    path = make()
    arrays, attributes = read_d4rl_hdf5(path)
    assert path.parent == cache
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "observations": ((STEPS, 4), "float32"),
        "next_observations": ((STEPS, 4), "float32"),
        "actions": ((STEPS, 2), "float32"),
        "rewards": ((STEPS,), "float32"),
        "terminals": ((STEPS,), "bool"),
        "timeouts": ((STEPS,), "bool"),
    }
    assert np.flatnonzero(arrays["timeouts"]).tolist() == [299, 599, 699]
    assert not arrays["terminals"].any()
    assert np.abs(arrays["actions"]).max() <= 1
    expected = arrays["rewards"][:600].reshape(2, 300).sum(1)
    assert attributes["behaviour_return"] == expected.mean()
    assert attributes["behaviour_episodes"] == 2
    assert (attributes["env"], attributes["seed"], attributes["steps"]) == (ENV_NAME, 0, STEPS)
    assert attributes["ref_min_score"] < attributes["ref_max_score"]
    assert "mujoco==" in attributes["versions"]
    within = ~arrays["timeouts"][:-1]
    np.testing.assert_array_equal(
        arrays["next_observations"][:-1][within], arrays["observations"][1:][within]
    )


def test_cache_is_used_and_a_damaged_file_is_replaced(cache: Path) -> None:
    path = make()
    stamp = path.stat().st_mtime_ns
    assert make() == path
    assert path.stat().st_mtime_ns == stamp
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert make() == path
    assert path.read_bytes() == good
    assert [p.name for p in cache.iterdir()] == [path.name]


def test_cache_folder_follows_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IDQL_DATA_DIR", raising=False)
    assert cache_dir() == Path.home() / ".cache" / "idql_func"
    monkeypatch.setenv("IDQL_DATA_DIR", os.path.join("~", "x"))
    assert cache_dir() == Path.home() / "x"


def test_other_file_is_not_overwritten(tmp_path: Path) -> None:
    path = make(path=tmp_path / "a.hdf5", seed=1)
    before = path.read_bytes()
    with pytest.raises(InputError, match="is not the maze dataset of seed 2"):
        make(path=path, seed=2)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"goal": (0.0, 0.0)}, "is in a wall"),
        ({"goal": (9.0, 0.0)}, "outside the maze"),
        ({"goal": (np.nan, 0.0)}, "two finite numbers"),
    ],
)
def test_bad_arguments_raise_input_error(tmp_path: Path, kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(path=tmp_path / "a.hdf5", **kwargs)
    assert list(tmp_path.iterdir()) == []


def test_replayed_actions_give_the_stored_observations_and_rewards() -> None:
    """The evaluation environment has the physics and the reward of the data."""
    env = make_pointmaze_env()
    arrays = collect(env, WaypointController(np.random.default_rng(0)), 300, seed=5)
    start = int(np.random.default_rng(5).integers(2**31))
    observation, _ = make_pointmaze_env().reset(seed=start)
    np.testing.assert_array_equal(observation, arrays["observations"][0])
    replay = make_pointmaze_env()
    replay.reset(seed=start)
    for step, action in enumerate(arrays["actions"]):
        observation, reward, terminated, truncated, _ = replay.step(action)
        np.testing.assert_array_equal(observation, arrays["next_observations"][step])
        assert reward == arrays["rewards"][step]
        assert not terminated
        assert truncated == (step == 299)


def test_relabel_changes_rewards_only_for_another_goal() -> None:
    arrays = collect(make_pointmaze_env(), WaypointController(np.random.default_rng(1)), 900, 0)
    np.testing.assert_array_equal(relabel(arrays)["rewards"], arrays["rewards"])
    other = relabel(arrays, goal=(1.0, 0.0))
    distance = np.hypot(*(arrays["next_observations"][:, :2] - np.asarray([1, 0], np.float32)).T)
    np.testing.assert_array_equal(other["rewards"], (distance <= GOAL_RADIUS).astype(np.float32))
    assert other["rewards"].sum() > 0
    with pytest.raises(InputError, match="next_observations"):
        relabel({"rewards": arrays["rewards"]})


def test_expert_return_equals_the_reference_score() -> None:
    """The noise-free controller's return is many times the behaviour's: a learner can improve."""
    env = make_pointmaze_env()
    behaviour = behaviour_returns(
        collect(env, WaypointController(np.random.default_rng(0), BEHAVIOUR), 12_000, 0)
    )
    expert = behaviour_returns(
        collect(env, WaypointController(np.random.default_rng(0), EXPERT, GOAL), 6_000, 0)
    )
    assert len(behaviour) == 40
    assert len(expert) == 20
    assert 10 < behaviour.mean() < 45
    assert expert.min() > 120
    assert expert.mean() > 4 * behaviour.mean()
    # REF_MAX_SCORE, measured again on fewer episodes
    assert expert.mean() == pytest.approx(REF_MAX_SCORE, rel=0.1)


def test_data_cover_every_cell_in_both_directions() -> None:
    arrays = collect(make_pointmaze_env(), WaypointController(np.random.default_rng(0)), 9000, 0)
    observations = arrays["observations"]
    for row, column in CELLS:
        centre = np.asarray([column - 2, 2 - row], np.float32)
        in_cell = np.abs(observations[:, :2] - centre).max(1) < 0.5
        velocity = observations[in_cell, 2:]
        along = velocity[:, np.abs(velocity).mean(0).argmax()]
        assert (along > 0.5).mean() > 0.05
        assert (along < -0.5).mean() > 0.05


@given(st.sampled_from(CELLS), st.sampled_from(CELLS))
def test_routes_go_through_neighbouring_free_cells(start, end) -> None:
    path = route(start, end)
    assert path[0] == start
    assert path[-1] == end
    assert all(cell in CELLS for cell in path)
    assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in itertools.pairwise(path))
    assert path == route(end, start)[::-1]


def test_route_to_a_wall_raises_input_error() -> None:
    with pytest.raises(InputError, match=r"\(2, 2\) is not a free cell"):
        route((1, 1), (2, 2))


@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 3.0]))
@settings(max_examples=25)
def test_controller_actions_stay_in_bounds(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    controller = WaypointController(rng, type(BEHAVIOUR)(noise=noise))
    controller.reset()
    for cell in CELLS:
        position = np.asarray([cell[1] - 2, 2 - cell[0]], np.float32) + rng.uniform(-0.4, 0.4, 2)
        action = controller.act(np.concatenate([position, rng.uniform(-5, 5, 2)]))
        assert action.dtype == np.float32
        assert np.abs(action).max() <= 1


def test_behaviour_returns_exclude_truncated_episodes() -> None:
    arrays = {
        "rewards": np.array([1, 2, 3, 4, 5, 6], np.float32),
        "terminals": np.array([0, 0, 0, 0, 0, 0], bool),
        "timeouts": np.array([0, 1, 0, 1, 0, 1], bool),
    }
    assert behaviour_returns(arrays, 2).tolist() == [3, 7, 11]
    arrays["timeouts"][1] = False
    assert behaviour_returns(arrays, 2).tolist() == [11]
    assert behaviour_returns(arrays, 300).tolist() == []


def test_reward_is_1_within_the_goal_radius() -> None:
    positions = np.array([GOAL, GOAL, GOAL, [-1.4, -1.4]], np.float32)
    positions[1, 0] += np.float32(GOAL_RADIUS - 1e-3)
    positions[2, 0] += np.float32(GOAL_RADIUS + 1e-3)
    # The last one is the ball at rest in the corner of the dead end.
    assert sparse_reward(positions).tolist() == [1, 1, 0, 1]


def test_hash_depends_on_names_dtypes_shapes_and_values() -> None:
    base = {"a": np.zeros((2, 3), np.float32)}
    variants = [
        {"b": base["a"]},
        {"a": np.zeros((2, 3), np.float64)},
        {"a": np.zeros((3, 2), np.float32)},
        {"a": np.ones((2, 3), np.float32)},
    ]
    assert arrays_sha256({"a": base["a"][:, :]}) == arrays_sha256(base)
    assert len({arrays_sha256(v) for v in [base, *variants]}) == 5


def test_plot_trajectories_draws_all_segments(tmp_path: Path) -> None:
    walk = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    path = plot_trajectories(tmp_path / "maze.png", [("before", [walk]), ("after", [])])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["maze.png"]
    figure = trajectory_figure([("before", [walk, walk[:1]]), ("after", [])])
    assert [len(axes.collections) for axes in figure.axes] == [1, 0]
    line = figure.axes[0].collections[0]
    assert isinstance(line, LineCollection)
    np.testing.assert_array_equal(line.get_segments()[0], walk[:, :2])


def test_bad_trajectories_raise_input_error() -> None:
    with pytest.raises(InputError, match="at least one panel"):
        trajectory_figure([])
    with pytest.raises(InputError, match=r"Trajectory 1 of panel 'x' has shape \(3,\)"):
        trajectory_figure([("x", [np.zeros((2, 2)), np.zeros(3)])])
