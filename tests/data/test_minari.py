"""Minari recordings, read and written, with and without the ``minari`` package."""

import json
import os
import types
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from buffer_cases import plain_buffer, transition
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from idql_func.data import (
    D4RLDataset,
    MinariDataset,
    ReferenceScores,
    episodes_from_transitions,
    validate_transitions,
    write_minari_dataset,
)
from idql_func.data.hdf5 import write_d4rl_hdf5
from idql_func.types import InputError

BOX, ACTIONS = spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(-1, 1, (3,))
FIELDS = {"observations", "actions", "next_observations", "rewards", "masks", "dones"}


def episode(steps: int, end: str = "truncated", seed: int = 0, **changes) -> dict:
    rng = np.random.default_rng([seed, steps])
    terminations, truncations = np.zeros(steps, bool), np.zeros(steps, bool)
    if steps:
        terminations[-1], truncations[-1] = (
            end in ("terminated", "both"),
            end in ("truncated", "both"),
        )
    return {
        "observations": rng.normal(size=(steps + 1, 2)),
        "actions": rng.uniform(-1, 1, (steps, 3)),
        "rewards": rng.normal(size=steps),
        "terminations": terminations,
        "truncations": truncations,
        **changes,
    }  # fmt: skip


def dict_episode(steps: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    observations = {
        "observation": rng.normal(size=(steps + 1, 2)),
        "desired_goal": rng.normal(size=(steps + 1, 1)),
        "camera": {"rgb": rng.integers(256, size=(steps + 1, 4, 4, 3), dtype=np.uint8)},
    }
    return episode(steps, observations=observations)


DICT_SPACE = spaces.Dict({
    "observation": BOX, "desired_goal": spaces.Box(-9, 9, (1,)),
    "camera": spaces.Dict({"rgb": spaces.Box(0, 255, (4, 4, 3), np.uint8)}),
})  # fmt: skip


def written(folder: Path, episodes: list, **options: Any) -> Path:
    options = {"observation_space": BOX, "action_space": ACTIONS} | options
    return write_minari_dataset(folder, episodes, **options)


EPISODES = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(["terminated", "truncated", "both", "neither"])),
    min_size=1, max_size=6,
).map(lambda e: [episode(n, end, seed) for seed, (n, end) in enumerate(e)])  # fmt: skip


# --- arrays -------------------------------------------------------------------------------


@settings(max_examples=30)
@given(episodes=EPISODES)
def test_every_step_becomes_a_transition(tmp_path_factory, episodes):
    folder = tmp_path_factory.mktemp("m") / "toy-v0"
    data = MinariDataset(written(folder, episodes), clip_to_eps=False).dataset_dict
    assert data.keys() == FIELDS
    row = 0
    for e in episodes:
        for t in range(len(e["rewards"])):
            expected = {
                "observations": e["observations"][t],
                "next_observations": e["observations"][t + 1],
                "actions": e["actions"][t],
                "rewards": e["rewards"][t],
                "masks": 1 - e["terminations"][t],
                "dones": t == len(e["rewards"]) - 1,
            }
            for name, value in expected.items():
                np.testing.assert_array_equal(data[name][row], np.asarray(value, data[name].dtype))
            row += 1
    assert row == len(data["rewards"])
    assert {v.dtype for k, v in data.items() if k != "dones"} == {np.dtype("float32")}


@settings(max_examples=30)
@given(episodes=EPISODES)
def test_dropped_timeouts_give_d4rl_arrays(tmp_path_factory, episodes):
    folder = tmp_path_factory.mktemp("m")
    path = written(folder / "toy-v0", episodes)
    cut = [e["truncations"].copy() for e in episodes]
    for c, e in zip(cut, episodes, strict=True):
        c[-1] |= not e["terminations"][-1]
    steps = {
        "observations": np.concatenate([e["observations"][:-1] for e in episodes]),
        "actions": np.concatenate([e["actions"] for e in episodes]),
        "rewards": np.concatenate([e["rewards"] for e in episodes]),
        "terminals": np.concatenate([e["terminations"] for e in episodes]),
        "timeouts": np.concatenate(cut),
    }
    hdf5 = write_d4rl_hdf5(folder / "d4rl.hdf5", steps)
    try:
        expected = D4RLDataset(hdf5).dataset_dict
    except InputError:  # too few steps for a transition
        with pytest.raises(InputError, match="transition"):
            MinariDataset(path, timeouts="drop")
        return
    ours = MinariDataset(path, timeouts="drop").dataset_dict
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].dtype == value.dtype
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_dict_observations_are_nested_or_joined(tmp_path):
    episodes = [dict_episode(3), dict_episode(2, seed=1)]
    path = written(tmp_path / "toy-v0", episodes, observation_space=DICT_SPACE)
    nested = MinariDataset(path, seed=0)
    assert nested.dataset_dict["next_observations"]["camera"]["rgb"].dtype == np.uint8
    np.testing.assert_array_equal(
        nested.dataset_dict["observations"]["camera"]["rgb"],
        np.concatenate([e["observations"]["camera"]["rgb"][:-1] for e in episodes]),
    )
    batch = nested.sample_torch(4)
    assert batch["observations"]["camera"]["rgb"].shape == (4, 4, 4, 3)
    assert [len(half) for half in nested.split(0.6)] == [3, 2]

    joined = MinariDataset(path, observation_keys=["desired_goal", "observation"]).dataset_dict
    goal, state = (episodes[0]["observations"][k] for k in ("desired_goal", "observation"))
    expected = np.concatenate([goal[1:], state[1:]], axis=1).astype(np.float32)
    np.testing.assert_array_equal(joined["next_observations"][:3], expected)
    for options, message in (
        ({"timeouts": "drop"}, "D4RL's layout needs one array, so pass the keys"),
        (
            {"observation_keys": ["goal"]},
            "have no array 'goal'; their keys are 'camera', 'desired_goal'",
        ),
        ({"observation_keys": ["camera"]}, "have no array 'camera'"),
    ):
        with pytest.raises(InputError, match=message):
            MinariDataset(path, **options)  # pyright: ignore
    dropped = MinariDataset(path, timeouts="drop", observation_keys=["observation"])
    assert len(dropped) == 3


def test_name_attributes_and_scores_are_read(tmp_path):
    scores = {"ref_min_score": 1.0, "ref_max_score": 5.0, "algorithm_name": "SAC"}
    path = written(tmp_path / "x", [episode(2)], dataset_id="mine/toy-v3", attributes=scores)
    dataset = MinariDataset(path)
    assert dataset.name == "mine/toy-v3" and dataset.attributes["algorithm_name"] == "SAC"
    assert dataset.reference_scores == ReferenceScores(1, 5)
    assert dataset.attributes["total_steps"] == 2


def test_episodes_are_ordered_by_number(tmp_path):
    path = written(tmp_path / "toy-v0", [episode(1, seed=s) for s in range(12)])
    rewards = np.concatenate([episode(1, seed=s)["rewards"] for s in range(12)])
    found = MinariDataset(path).dataset_dict["rewards"]
    np.testing.assert_array_equal(found, rewards.astype(np.float32))


# --- sources ------------------------------------------------------------------------------


def test_source_may_be_a_folder_a_file_or_a_name(tmp_path, monkeypatch):
    path = written(tmp_path / "mine" / "toy-v0", [episode(3)])
    for source in (path, str(path), path / "data", path / "data" / "main_data.hdf5"):
        assert len(MinariDataset(source)) == 3
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert MinariDataset("mine/toy-v0").name == "toy-v0"
    with pytest.raises(
        InputError, match=r"neither a folder .* fetch it with `minari download a/b`"
    ):
        MinariDataset("a/b")
    with pytest.raises(
        InputError, match=r"is not a Minari recording; it has no data/main_data\.hdf5"
    ):
        MinariDataset(tmp_path)
    with pytest.raises(TypeError, match="source must be a folder, a Minari name or an object"):
        MinariDataset(3)


def test_other_formats_raise_input_error(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "metadata.json").write_text('{"data_format": "arrow"}')
    with pytest.raises(InputError, match=r"in the format \'arrow\'; pass minari\.load_dataset"):
        MinariDataset(tmp_path)


def test_jpeg_images_raise_input_error(tmp_path):
    path = written(tmp_path / "toy-v0", [episode(1)]) / "data" / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        del file["episode_0/observations"]
        file["episode_0/observations"] = np.array([[255, 216, 255, 0]] * 2, np.uint8)
    with pytest.raises(InputError, match="observations holds JPEG images; pass minari"):
        MinariDataset(path)


def test_object_with_iterate_episodes_is_accepted():
    stored = [types.SimpleNamespace(**episode(2)), types.SimpleNamespace(**episode(3))]
    source = types.SimpleNamespace(iterate_episodes=lambda: iter(stored))
    assert len(MinariDataset(source)) == 5


def test_minari_package_reads_a_written_dataset(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    episodes = [dict_episode(3), dict_episode(2, seed=1)]
    space = spaces.Dict({**DICT_SPACE.spaces, "n": spaces.Discrete(3), "m": spaces.MultiBinary(2)})
    for e in episodes:
        steps = len(e["rewards"]) + 1
        e["observations"] |= {"n": np.ones(steps, int), "m": np.ones((steps, 2), np.int8)}
    written(tmp_path / "mine" / "toy-v0", episodes, observation_space=space,
            dataset_id="mine/toy-v0", attributes={"author": ["me"]})  # fmt: skip
    loaded = minari.load_dataset("mine/toy-v0")
    assert loaded.total_episodes == 2 and loaded.total_steps == 5
    assert loaded.observation_space == space and loaded.action_space == ACTIONS
    for ours, theirs in zip(episodes, loaded.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(theirs.actions, ours["actions"])
        np.testing.assert_array_equal(theirs.truncations, ours["truncations"])
        rgb = theirs.observations["camera"]["rgb"]
        np.testing.assert_array_equal(rgb, ours["observations"]["camera"]["rgb"])
    # MinariDataset reads the package's dataset object too
    reread = MinariDataset(loaded)
    assert reread.name == "mine/toy-v0" and len(reread) == 5


def test_dataset_written_by_the_minari_package_is_read(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    episodes = [episode(4, "terminated"), episode(3)]
    buffers = [
        EpisodeBuffer(
            id=i, observations=e["observations"].astype(np.float32),
            actions=e["actions"].astype(np.float32), rewards=list(e["rewards"]),
            terminations=list(e["terminations"]), truncations=list(e["truncations"]),
        )
        for i, e in enumerate(episodes)
    ]  # fmt: skip
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers(
            "toy-v0", buffers, observation_space=BOX, action_space=ACTIONS, data_format="hdf5"
        )
    ours = written(tmp_path / "ours-v0", episodes)
    for name, value in MinariDataset(ours).dataset_dict.items():
        np.testing.assert_array_equal(MinariDataset("toy-v0").dataset_dict[name], value)


# --- writing ------------------------------------------------------------------------------


@settings(max_examples=30)
@given(episodes=EPISODES)
def test_written_transitions_round_trip(tmp_path_factory, episodes):
    folder = tmp_path_factory.mktemp("m")
    first = MinariDataset(written(folder / "a-v0", episodes), clip_to_eps=False).dataset_dict
    reread = written(folder / "b-v0", episodes_from_transitions(first))
    second = MinariDataset(reread, clip_to_eps=False).dataset_dict
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_replay_buffer_content_can_be_written(tmp_path):
    buffer = plain_buffer(100, 10)
    rows = buffer.transition_rows
    episodes = episodes_from_transitions(buffer.sample(1, indx=rows))
    assert [len(e["rewards"]) for e in episodes] == [3, 3, 3, 1]
    box, actions = spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,))
    path = written(tmp_path / "b-v0", episodes, observation_space=box, action_space=actions)
    assert MinariDataset(path).dataset_dict["rewards"].tolist() == list(range(10))


def test_discontinuity_ends_an_episode():
    steps = [transition(0), transition(1), transition(7), transition(8, True, masks=0.0)]
    columns = {k: np.stack([s[k] for s in steps]) for k in steps[0]}
    first, second = episodes_from_transitions(columns)
    assert first["truncations"].tolist() == [False, True]
    assert second["terminations"].tolist() == [False, True]
    assert second["observations"][:, 0].tolist() == [7, 8, 9]
    with pytest.raises(InputError, match="lacks 'masks', 'dones'"):
        episodes_from_transitions({k: v for k, v in columns.items() if k not in ("masks", "dones")})


def test_only_existing_minari_datasets_are_replaced(tmp_path, monkeypatch):
    path = written(tmp_path / "toy-v0", [episode(2)])
    written(path, [episode(3)])
    assert len(MinariDataset(path)) == 3 and os.listdir(tmp_path) == ["toy-v0"]

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            written(path, [episode(4)])
    assert len(MinariDataset(path)) == 3 and os.listdir(tmp_path) == ["toy-v0"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="exists and is not a Minari dataset"):
        written(tmp_path / "mine", [episode(2)])


# --- bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"observations": np.zeros((3, 2))},
            r"'observations' has shape \(3, 2\); it must have 4",
        ),
        ({"actions": np.zeros((4, 3))}, r"'actions' has shape \(4, 3\); it must have 3 rows"),
        ({"terminations": np.zeros((3, 1))}, r"'terminations' has shape \(3, 1\)"),
        ({"rewards": np.array(["a"] * 3)}, "'rewards' has dtype <U1"),
        ({"actions": {"a": np.zeros(3)}}, "'actions' is a dict; it must be one array"),
        (
            {"observations": np.zeros((4, 5))},
            r"an element of the space has shape \(2,\), got shape",
        ),
        ({"observations": {"a": np.zeros(4)}}, r"has shape \(2,\), got a dict"),
    ],
)
def test_bad_episodes_are_not_written(tmp_path, changes, message):
    with pytest.raises(InputError, match=f"episode 1: .*{message}"):
        written(tmp_path / "toy-v0", [episode(3), episode(3, **changes)])
    assert os.listdir(tmp_path) == []


def test_bad_arguments_raise_input_error(tmp_path):
    path = tmp_path / "toy-v0"
    with pytest.raises(InputError, match="there is no episode"):
        written(path, [])
    with pytest.raises(InputError, match="lacks 'truncations'"):
        written(path, [{k: v for k, v in episode(1).items() if k != "truncations"}])
    with pytest.raises(InputError, match="'no name' is not a Minari name"):
        written(path, [episode(1)], dataset_id="no name")
    with pytest.raises(InputError, match="not Text"):
        written(path, [episode(1)], action_space=spaces.Text(3))
    with pytest.raises(InputError, match=r"has the keys \['camera'.*got one array"):
        written(path, [episode(1)], observation_space=DICT_SPACE)
    with pytest.raises(InputError, match="JSON cannot represent the attributes"):
        written(path, [episode(1)], attributes={"a": object()})
    written(path, [episode(2, actions=np.full((2, 3), 1.5))])
    with pytest.raises(InputError, match=r"outside \[-1, 1\].*pass out_of_range='clip'"):
        MinariDataset(path)
    clipped = MinariDataset(path, out_of_range="clip", clip_to_eps=False)
    assert clipped.dataset_dict["actions"].max() == 1
    for options, message in (
        ({"eps": 1}, "eps must lie in"), ({"timeouts": "x"}, "timeouts must be 'keep' or 'drop'"),
        ({"observation_keys": ["a"]}, "observation_keys needs a dict of arrays"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            MinariDataset(path, **options)  # pyright: ignore


@settings(max_examples=40, derandomize=True)
@given(data=st.data())
def test_damaged_file_raises_input_error_or_gives_valid_transitions(tmp_path_factory, data):
    path = written(tmp_path_factory.mktemp("m") / "toy-v0", [episode(2), episode(3)])
    file = path / "data" / data.draw(st.sampled_from(["main_data.hdf5", "metadata.json"]))
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    truncated = data.draw(st.booleans())
    damaged = whole[:at] if truncated else whole[:at] + byte + whole[at + 1 :]
    file.write_bytes(damaged)
    try:
        loaded = MinariDataset(path, out_of_range="clip").dataset_dict
    except InputError as error:
        assert damaged != whole
        assert str(path) in str(error)
    else:
        assert not truncated
        assert loaded.keys() == FIELDS
        validate_transitions(loaded, observation_shape=(2,), action_dim=3)


def test_damaged_metadata_raises_input_error(tmp_path):
    path = written(tmp_path / "toy-v0", [episode(2)])
    for text in ("[1", "[1]"):
        (path / "data" / "metadata.json").write_text(text)
        with pytest.raises(InputError, match=r"metadata\.json is damaged"):
            MinariDataset(path)
    (path / "data" / "metadata.json").write_text(json.dumps({"ref_min_score": 3}))
    with pytest.raises(InputError, match="ref_max_score=None"):
        MinariDataset(path)
