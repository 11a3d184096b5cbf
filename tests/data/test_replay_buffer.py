"""ReplayBuffer: equality with upstream, rows in use, saved files, bad input."""

import json
import os
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from buffer_cases import ACTIONS, plain_buffer, port_samples, transition
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tensordict import MemoryMappedTensor, TensorDict
from upstream_buffers import SCENARIOS, check_sums

from idql_func.data import MemoryEfficientReplayBuffer, ReplayBuffer
from idql_func.types import InputError

RECORDED = load_file(Path(__file__).parent / "reference" / "buffers.safetensors")
PLAIN = [name for name, scenario in SCENARIOS.items() if not scenario.stack]


@pytest.mark.parametrize("name", PLAIN)
def test_samples_equal_upstream(name):
    sums = check_sums(name, port_samples(name))
    np.testing.assert_array_equal(sums["sums"], RECORDED[f"{name}/sums"])
    np.testing.assert_array_equal(sums["state"], RECORDED[f"{name}/state"])


# --- rows -------------------------------------------------------------------------------


@settings(max_examples=40)
@given(capacity=st.integers(1, 12), count=st.integers(1, 40), saved=st.booleans())
def test_buffer_holds_the_newest_transitions_in_order(capacity, count, saved):
    buffer, model = plain_buffer(capacity), deque(maxlen=capacity)
    for number in range(count):
        buffer.insert(transition(number))
        model.append(number)
    assert len(buffer) == len(model) == buffer.dataset_len and buffer.capacity == capacity
    rows = buffer.transition_rows
    assert buffer.sample(1, indx=rows)["rewards"].tolist() == list(model)
    for batch in (buffer.sample(50), buffer.sample_torch(50)):
        numbers = np.asarray(batch["rewards"])
        assert set(numbers.tolist()) <= set(model)
        np.testing.assert_array_equal(np.asarray(batch["observations"])[:, 0], numbers)
        np.testing.assert_array_equal(np.asarray(batch["next_observations"])[:, 2], numbers + 1)


def test_storage_is_a_tensordict_of_fixed_size():
    buffer = plain_buffer(5)
    before = {k: v.data_ptr() for k, v in buffer.storage.items()}
    for number in range(12):
        buffer.insert(transition(number))
    assert isinstance(buffer.storage, TensorDict) and buffer.storage.batch_size == (5,)
    assert buffer.storage["rewards"].tolist() == [10, 11, 7, 8, 9]
    assert {k: v.data_ptr() for k, v in buffer.storage.items()} == before


def test_unused_rows_use_no_memory():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    space, before = spaces.Box(0, 255, (1000, 1000), np.uint8), resident()
    buffer = ReplayBuffer(space, ACTIONS, 500)
    assert buffer.storage["observations"].nbytes == 5 * 10**8
    assert resident() - before < 10**8
    with pytest.raises(
        InputError, match=r"rows need 186266\.1 GiB, more than the available memory"
    ):
        ReplayBuffer(space, ACTIONS, 10**8)


def test_dtypes_and_nesting_follow_the_spaces():
    space = spaces.Dict({
        "half": spaces.Box(-1, 1, (2,), np.float16),
        "wide": spaces.Box(-1, 1, (), np.float64),
        "deep": spaces.Dict({"bits": spaces.MultiBinary(3), "one": spaces.Discrete(4)}),
    })  # fmt: skip
    buffer = ReplayBuffer(space, spaces.Discrete(5), 4, spaces.Box(-1, 1, (1,)))
    buffer.insert({
        "observations": {
            "half": [0.5, 1], "wide": np.float32(2), "deep": {"bits": [1, 0, 1], "one": 3},
        },
        "next_observations": torch.ones(1, requires_grad=True),
        "actions": 4, "rewards": [0.25], "masks": True, "dones": 1.0,
    })  # fmt: skip
    batch = buffer.sample(2)
    found = {
        "half": batch["observations"]["half"], "wide": batch["observations"]["wide"],
        **batch["observations"]["deep"], **{k: v for k, v in batch.items() if k != "observations"},
    }  # fmt: skip
    assert {k: (v.dtype.name, v.shape, v[1].tolist()) for k, v in found.items()} == {
        "half": ("float16", (2, 2), [0.5, 1.0]), "wide": ("float64", (2,), 2.0),
        "bits": ("int8", (2, 3), [1, 0, 1]), "one": ("int64", (2,), 3),
        "next_observations": ("float32", (2, 1), [1.0]), "actions": ("int64", (2,), 4),
        "rewards": ("float32", (2,), 0.25), "masks": ("float32", (2,), 1.0),
        "dones": ("bool", (2,), True),
    }  # fmt: skip
    assert buffer.sample_torch(2)["observations"]["wide"].dtype == torch.float32


def test_indx_selects_rows():
    buffer = plain_buffer(10, 6)
    assert buffer.sample(1, indx=np.array([5, 0]))["rewards"].tolist() == [5, 0]
    assert buffer.sample(1, indx=np.array(2))["rewards"] == 2
    for row in (6, -1):
        with pytest.raises(IndexError, match=f"Row {row} is not in the replay buffer.* 0 to 5"):
            buffer.sample(1, indx=np.array([0, row]))
    with pytest.raises(InputError, match="integer row numbers, got an array of float64"):
        buffer.sample(1, indx=np.array([0.5]))


def test_batches_are_copies():
    buffer = plain_buffer(4, 4)
    buffer.sample(3)["rewards"][:] = 99
    buffer.sample_torch(3)["rewards"][:] = 99
    assert buffer.dataset_dict["rewards"].tolist() == [0, 1, 2, 3]


# --- subsets and returns of part-filled and full buffers (D20) ----------------------------


def test_on_device_copies_the_rows_in_use():
    buffer = plain_buffer(9)
    for number in range(4):
        buffer.insert(transition(number))
    fields = buffer.on_device(["rewards"])
    buffer.insert(transition(4))
    assert fields["rewards"].tolist() == [0, 1, 2, 3] and len(buffer) == 5


def test_split_of_a_part_filled_buffer_has_its_rows():
    first, second = plain_buffer(1000, 20, seed=1).split(0.75)
    assert (len(first), len(second)) == (15, 5)
    rewards = np.concatenate([h.dataset_dict["rewards"] for h in (first, second)])
    assert sorted(rewards) == list(range(20))


def test_split_of_a_full_buffer_shuffles_as_a_dataset_does():
    from idql_func.data import Dataset

    buffer = plain_buffer(20, 20, seed=1)
    other = Dataset({"rewards": np.arange(20.0)}, seed=1)
    for ours, theirs in zip(buffer.split(0.75), other.split(0.75), strict=True):
        np.testing.assert_array_equal(ours.dataset_dict["rewards"], theirs.dataset_dict["rewards"])


@pytest.mark.parametrize(("capacity", "first"), [(100, 0), (8, 3), (7, 4)])
def test_trajectories_run_from_the_oldest_row_to_the_newest(capacity, first):
    buffer = plain_buffer(capacity, 11)
    rewards = list(range(first, 11))
    ends = [i + 1 for i, r in enumerate(rewards) if r % 3 == 2]
    starts = [0, *(e for e in ends if e < len(rewards))]
    returns = [sum(rewards[s:e]) for s, e in zip(starts, ends, strict=False)]
    found = buffer.trajectory_boundaries_and_returns()
    assert [x.tolist() for x in found] == [starts, ends, returns]


@pytest.mark.parametrize("capacity", [100, 8])
def test_filter_keeps_whole_episodes_and_insertion_continues(capacity):
    buffer = plain_buffer(capacity, 11)
    buffer.filter(threshold=12)  # episodes return 3, 12, 21; the fourth is not over
    kept = [3, 4, 5, 6, 7, 8]
    assert buffer.sample(1, indx=np.arange(len(buffer)))["rewards"].tolist() == kept
    assert set(buffer.sample_torch(100)["rewards"].tolist()) == set(kept)
    for number in (50, 51, 52):
        buffer.insert(transition(number))
    newest = [*kept, 50, 51, 52][-buffer.capacity :]
    assert sorted(buffer.dataset_dict["rewards"][: len(buffer)].tolist()) == newest


def test_filter_that_keeps_a_full_buffer_continues_at_row_0():
    buffer = plain_buffer(6, 6)
    buffer.filter(threshold=0)
    buffer.insert(transition(9))
    assert buffer.dataset_dict["rewards"].tolist() == [9, 1, 2, 3, 4, 5]


def test_normalize_returns_writes_to_the_rows_in_use():
    buffer = plain_buffer(8, 9)  # episodes 1+2, 3+4+5, 6+7+8
    buffer.normalize_returns(18)
    assert buffer.storage["rewards"].tolist() == [8, 1, 2, 3, 4, 5, 6, 7]
    assert buffer.sample_torch(50)["rewards"].max() == 8


def test_empty_buffer_raises_input_error():
    buffer = plain_buffer()
    assert buffer.transition_rows.tolist() == []
    for call in (
        lambda: buffer.sample(1), lambda: buffer.sample_torch(1), lambda: buffer.split(0.5),
        lambda: buffer.filter(threshold=0), lambda: next(buffer.get_iterator(1, {"batch_size": 1})),
    ):  # fmt: skip
        with pytest.raises(InputError, match="empty; insert a transition before sampling"):
            call()


# --- on disk ----------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    capacity=st.integers(1, 9), before=st.integers(0, 20), after=st.integers(1, 20),
    mapped=st.booleans(),
)  # fmt: skip
def test_loaded_buffer_continues_like_the_saved_one(
    tmp_path_factory, capacity, before, after, mapped
):
    folder = tmp_path_factory.mktemp("buffer")
    buffer = plain_buffer(capacity, before, seed=7)
    if before:
        buffer.sample(3)
        buffer.sample_torch(3)
    saved = buffer.save(folder / "sub" / "buffer.safetensors")
    again = ReplayBuffer.load(saved, storage=folder / "rows" if mapped else None)
    assert isinstance(again.storage["rewards"], MemoryMappedTensor) == mapped
    for number in range(after):
        for one in (buffer, again):
            one.insert(transition(100 + number))
        for left, right in (
            (buffer.sample(5), again.sample(5)),
            (buffer.sample_torch(5), again.sample_torch(5)),
        ):
            for name in left:
                np.testing.assert_array_equal(left[name], right[name])
    for left, right in zip(buffer.split(0.5) if len(buffer) > 1 else (),
                           again.split(0.5) if len(buffer) > 1 else (), strict=True):  # fmt: skip
        np.testing.assert_array_equal(left.sample(9)["rewards"], right.sample(9)["rewards"])
    assert os.listdir(folder / "sub") == ["buffer.safetensors"]


def test_nested_buffer_of_any_dtype_round_trips(tmp_path):
    space = spaces.Dict({
        "a": spaces.Box(-1, 1, (2,), np.float16), "b": spaces.Dict({"c": spaces.MultiBinary(3)}),
    })  # fmt: skip
    buffer = ReplayBuffer(space, spaces.Discrete(5), 4)
    observation = {"a": [0.5, 1], "b": {"c": [0, 1, 1]}}
    for action in range(3):
        buffer.insert(transition(
            1, observations=observation, next_observations=observation, actions=action,
        ))  # fmt: skip
    again = ReplayBuffer.load(buffer.save(tmp_path / "b"))
    torch.testing.assert_close(again.storage.to_dict(), buffer.storage.to_dict(), rtol=0, atol=0)


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = plain_buffer(4, 2).save(tmp_path / "b")
    old = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        plain_buffer(4, 3).save(path)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["b"]


def test_damaged_file_raises_input_error(tmp_path):
    path = plain_buffer(4, 4).save(tmp_path / "b")
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(
            InputError, match=f"{path} is (not a saved replay buffer, or it is )?damaged"
        ):
            ReplayBuffer.load(path)
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(InputError, match=r"is damaged: the checksum of 'rows/.*' does not match"):
        ReplayBuffer.load(path)


def test_other_files_raise_input_error(tmp_path):
    from safetensors.numpy import save_file

    path = plain_buffer(4, 4).save(tmp_path / "b")
    with pytest.raises(InputError, match="holds a ReplayBuffer, not a MemoryEfficientReplayBuffer"):
        MemoryEfficientReplayBuffer.load(path)
    with pytest.raises(InputError, match="is a folder"):
        ReplayBuffer.load(tmp_path)
    with pytest.raises(InputError, match="There is no file"):
        ReplayBuffer.load(tmp_path / "x")
    save_file({"a": np.zeros(1)}, tmp_path / "other")
    with pytest.raises(InputError, match="is not a replay buffer saved by idql_func"):
        ReplayBuffer.load(tmp_path / "other")
    for header, message in (
        ('{"format": "idql_func replay buffer", "format_version": 9}', "format version 9"),
        (
            '{"format": "idql_func replay buffer", "format_version": 1}',
            "damaged: its description is invalid",
        ),
        ("{", "damaged: its description is invalid"),
    ):
        save_file({"a": np.zeros(1)}, tmp_path / "other", {"idql_func": header})
        with pytest.raises(InputError, match=message):
            ReplayBuffer.load(tmp_path / "other")
    header = {"format": "idql_func replay buffer", "format_version": 1, "sha256": {}}
    header["description"] = {"class": "ReplayBuffer"}
    save_file({"a": np.zeros(1)}, tmp_path / "other", {"idql_func": json.dumps(header)})
    with pytest.raises(InputError, match=r"damaged: its description is invalid \(KeyError"):
        ReplayBuffer.load(tmp_path / "other")


def test_memory_mapped_buffer_keeps_its_rows_when_its_folder_is_reused(tmp_path):
    folder = tmp_path / "rows"
    buffer = plain_buffer(5, 3, storage=folder)
    assert isinstance(buffer.storage["observations"], MemoryMappedTensor)
    assert buffer.sample(1, indx=np.arange(3))["rewards"].tolist() == [0, 1, 2]
    other = plain_buffer(5, 2, storage=folder)  # reuses the folder; the first keeps its rows
    buffer.insert(transition(9))
    assert buffer.sample(1, indx=np.arange(4))["rewards"].tolist() == [0, 1, 2, 9]
    assert other.sample(1, indx=np.arange(2))["rewards"].tolist() == [0, 1]
    sizes = sum(p.stat().st_size for p in folder.rglob("*.memmap"))
    assert sizes == 5 * (3 * 4 * 2 + 2 * 4 + 4 + 4 + 1)


def test_folder_with_other_files_is_not_changed(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"holds other files \('thesis.tex'\)"):
        plain_buffer(storage=tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file; give a folder"):
        plain_buffer(storage=tmp_path / "thesis.tex")


# --- bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"observations": np.zeros(1)},
            r"'observations' has shape \(1,\).* in this buffer is \(3,\)",
        ),
        ({"observations": 0.0}, r"'observations' has shape \(\)"),
        ({"rewards": np.zeros(2)}, r"'rewards' has shape \(2,\)"),
        ({"rewards": ["a"]}, "'rewards' has dtype <U1, which cannot be cast to float32"),
        ({"dones": "no"}, "'dones' has dtype <U2, which cannot be cast to bool"),
        ({"actions": ["a", "b"]}, "'actions' has dtype <U1, which cannot be cast to float32"),
        ({"observations": {"a": 1}}, "'observations' is a dict; it must be one array"),
        ({"extra": 1}, "has unknown 'extra'; its keys must be"),
        ({"observations": np.zeros(3, complex)}, "dtype complex128"),
    ],
)
def test_bad_transition_raises_and_changes_nothing(changes, message):
    buffer = plain_buffer(4, 2)
    before = buffer.storage.clone()
    with pytest.raises(InputError, match=f"insert: .*{message}"):
        buffer.insert(transition(5, **changes))
    assert len(buffer) == 2 and (buffer.storage == before).all()


def test_messages_name_nested_keys():
    space = spaces.Dict({"deep": spaces.Dict({"image": spaces.Box(0, 255, (2,), np.uint8)})})
    buffer = ReplayBuffer(space, ACTIONS, 4)
    good = {"deep": {"image": np.zeros(2, np.uint8)}}
    for bad, message in (
        ({"deep": {"image": np.zeros(2)}}, "'observations/deep/image' has dtype float64"),
        ({"deep": {"x": 1}}, "'observations/deep' lacks 'image' and has unknown 'x'"),
        ({"deep": 3}, "'observations/deep' is int; it must be a dict of 'image'"),
        (np.zeros(2), "'observations' is ndarray; it must be a dict of 'deep'"),
    ):
        with pytest.raises(InputError, match=message):
            buffer.insert(transition(observations=bad, next_observations=good))
    with pytest.raises(InputError, match="a transition is list; it must be a dict"):
        buffer.insert([])  # pyright: ignore


def test_bad_arguments_raise():
    space = spaces.Box(-1, 1, (3,))
    with pytest.raises(InputError, match="capacity must be at least 1, got 0"):
        ReplayBuffer(space, ACTIONS, 0)
    with pytest.raises(TypeError, match=r"capacity must be an integer, got float 1\.5"):
        ReplayBuffer(space, ACTIONS, 1.5)  # pyright: ignore
    with pytest.raises(TypeError, match=r"observation_space is Text\(.*needs spaces with a shape"):
        ReplayBuffer(spaces.Text(3), ACTIONS, 2)
    with pytest.raises(TypeError, match=r"observation_space\['a'\] is Sequence"):
        ReplayBuffer(spaces.Dict({"a": spaces.Sequence(space)}), ACTIONS, 2)
    with pytest.raises(InputError, match="no field 'a'; it has observations"):
        plain_buffer(4, 4).sample(2, keys=["a"])
