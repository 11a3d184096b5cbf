"""MemoryEfficientReplayBuffer: equal to upstream except for its fault D22; correct stacks."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from buffer_cases import ACTIONS, episodes, frame_buffer, frame_space, port_samples
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from upstream_buffers import BATCH, SCENARIOS, check_sums, is_sound, pixel_keys, transitions

from idql_func import random
from idql_func.data import MemoryEfficientReplayBuffer
from idql_func.types import InputError

HERE = Path(__file__).parent
RECORDED = load_file(HERE / "reference" / "buffers.safetensors")
PARTS = ("observations", "next_observations")
STACKED = [name for name, scenario in SCENARIOS.items() if scenario.stack]


# --- comparison with upstream -------------------------------------------------------------


def true_stacks(name: str, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """The inserted stacks of the transitions with these numbers, by field."""
    scenario = SCENARIOS[name]
    made = list(transitions(name))
    whole = {
        f"{part}/{key}": np.stack([t[part][key] for t in made])[numbers]
        for part in PARTS
        for key in pixel_keys(scenario)
    }
    if not scenario.sample.get("pack_obs_and_next_obs"):
        return whole
    packed = {}
    for key in pixel_keys(scenario):
        newest = whole[f"next_observations/{key}"][..., -1:]
        packed[f"observations/{key}"] = np.concatenate([whole[f"observations/{key}"], newest], -1)
    return packed


@pytest.mark.parametrize("name", STACKED)
def test_samples_equal_upstream_and_all_stacks_are_correct(name):
    ours = port_samples(name)
    sums = check_sums(name, ours)
    np.testing.assert_array_equal(sums["sums"], RECORDED[f"{name}/sums"])
    np.testing.assert_array_equal(sums["state"], RECORDED[f"{name}/state"])
    for field, stacks in true_stacks(name, ours["rewards"].astype(int)).items():
        np.testing.assert_array_equal(ours[field], stacks, err_msg=field)


@pytest.mark.live
def test_samples_equal_upstream_run_live(tmp_path):
    """Compare every array of every sample of every scenario with upstream's classes."""
    python, upstream = (os.environ.get(k) for k in ("IDQL_REFERENCE_PYTHON", "IDQL_UPSTREAM"))
    assert python and upstream, (
        "set IDQL_REFERENCE_PYTHON to the Python of the environment that runs upstream and "
        "IDQL_UPSTREAM to upstream's checkout"
    )
    subprocess.run(
        [python, HERE / "upstream_buffers.py", "arrays", tmp_path],
        check=True,
        env=os.environ | {"PYTHONPATH": upstream},
    )
    for name, scenario in SCENARIOS.items():
        ours, theirs = port_samples(name), load_file(tmp_path / f"{name}.safetensors")
        assert ours.keys() == theirs.keys()
        sound = is_sound(name, theirs["rows"])
        frames = set()
        if scenario.stack:
            truth = true_stacks(name, theirs["rewards"].astype(int))
            frames = truth.keys()
        for field in sorted(ours):
            left, right = ours[field], theirs[field]
            assert left.dtype == right.dtype
            if field not in frames:
                np.testing.assert_array_equal(left, right, err_msg=f"{name}: {field}")
                continue
            np.testing.assert_array_equal(left[sound], right[sound], err_msg=f"{name}: {field}")
            # D22: in rows below the stack's size, and only there, upstream's stacks differ from
            # the inserted ones; the port's stacks are the inserted ones everywhere.
            wrong = (right != truth[field]).reshape(*sound.shape, -1).any(-1)
            np.testing.assert_array_equal(wrong, ~sound, err_msg=f"{name}: {field}")
            np.testing.assert_array_equal(left, truth[field], err_msg=f"{name}: {field}")
        faulty = int((~sound).sum())
        print(
            f"{name}: {scenario.steps} insertions and samples of {BATCH}, {len(ours) - 1} arrays "
            f"equal; {faulty} of {sound.size} drawn transitions ({faulty / sound.size:.2%}) show "
            "frames of another window upstream (D22)"
        )


def test_stacks_across_the_ring_end_differ_from_upstream():
    """The smallest case of D22: padding in the last row, the episode's first step in row S - 1."""
    buffer = frame_buffer([5, 1], capacity=9, stack=3)  # 3 + 5 rows, then padding 8, 0, 1, real 2
    assert buffer.transition_rows.tolist() == [6, 7, 2]
    # upstream reads rows 5 to 8, the end of the previous episode
    made = list(episodes([5, 1], 3))[5]
    batch = buffer.sample(1, indx=np.array([2]))
    for part in PARTS:
        np.testing.assert_array_equal(batch[part]["pixels"][0], made[part]["pixels"])


# --- random histories ---------------------------------------------------------------------


@settings(max_examples=40)
@given(data=st.data())
def test_every_transition_returns_its_inserted_stacks(data):
    stack = data.draw(st.integers(1, 4))
    capacity = data.draw(st.integers(stack + 1, 30))
    lengths = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=6))
    buffer = frame_buffer([], capacity, stack)
    made = []
    for step in episodes(lengths, stack):
        buffer.insert(step)
        made.append(step)
        rows = buffer.transition_rows
        batch = buffer.sample(1, indx=rows)
        numbers = batch["rewards"].astype(int).tolist()
        # the newest transition is present, none occurs twice, the order is that of insertion
        assert numbers[-1] == len(made) - 1 and numbers == sorted(set(numbers))
        assert buffer.num_transitions == len(rows) <= len(buffer) <= capacity
        for row, number in enumerate(numbers):
            for part in PARTS:
                for key, value in made[number][part].items():
                    np.testing.assert_array_equal(batch[part][key][row], value)
    drawn = [buffer.sample(20), {k: np.asarray(v) for k, v in buffer.sample_torch(
        20, keys=["rewards"]).items()}]  # fmt: skip
    for batch in drawn:
        assert set(batch["rewards"].astype(int)) <= set(numbers)


def test_ring_below_capacity_keeps_all_transitions():
    buffer = frame_buffer([4, 6, 2], capacity=100, stack=3)
    assert buffer.num_transitions == 12 and len(buffer) == 12 + 3 * 3


# --- batches ------------------------------------------------------------------------------


def test_packed_stacks_hold_both_observations():
    buffer = frame_buffer([9])
    rows = buffer.transition_rows[::2]
    packed = buffer.sample(0, indx=rows, pack_obs_and_next_obs=True)
    plain = buffer.sample(0, indx=rows)
    assert "pixels" not in packed["next_observations"] and "state" in packed["next_observations"]
    both = packed["observations"]["pixels"]
    np.testing.assert_array_equal(both[..., :-1], plain["observations"]["pixels"])
    np.testing.assert_array_equal(both[..., 1:], plain["next_observations"]["pixels"])


def test_keys_select_fields():
    buffer = frame_buffer([9])
    assert set(buffer.sample(2, keys=["rewards"])) == {"rewards"}
    batch = buffer.sample(2, keys=["next_observations"])
    assert set(batch) == {"next_observations"}
    assert batch["next_observations"]["pixels"].shape == (2, 2, 1, 1, 3)
    batch = buffer.sample(2, keys=["observations", "masks"])
    assert set(batch) == {"observations", "masks"}


def test_indx_selects_rows():  # D25
    buffer = frame_buffer([4, 2])
    assert buffer.sample(1, indx=np.array([6, 3]))["rewards"].tolist() == [3, 0]
    assert buffer.sample(1, indx=np.array(10))["observations"]["pixels"].shape == (2, 1, 1, 3)
    with pytest.raises(InputError, match="Row 7 of the replay buffer holds no transition"):
        buffer.sample(1, indx=np.array([6, 7]))
    with pytest.raises(IndexError, match="Row 12 is not in the replay buffer"):
        buffer.sample(1, indx=np.array([12]))


def test_sample_torch_draws_the_transitions_of_its_key():
    buffer = frame_buffer([9, 3])
    key = random.PRNGKey(4)
    batch = buffer.sample_torch(30, key)
    draw, _ = random.split(key)
    rows = buffer.transition_rows[random.randint(draw, (30,), 0, 12).numpy()]
    arrays = buffer.sample(0, indx=rows)
    assert batch["observations"]["pixels"].dtype == torch.uint8
    for part in PARTS:
        for name in ("pixels", "state"):
            np.testing.assert_array_equal(batch[part][name].numpy(), arrays[part][name])
    assert len(set(batch["rewards"].tolist())) > 6


def test_several_cameras_share_the_rows():
    space = spaces.Dict({
        "near": spaces.Box(0, 255, (2, 2, 3, 2), np.uint8),
        "far": spaces.Box(0, 1, (1, 1, 1, 2), np.float32),
    })  # fmt: skip
    buffer = MemoryEfficientReplayBuffer(space, ACTIONS, 9, ("near", "far"))
    assert {k: v.shape for k, v in buffer.dataset_dict["observations"].items()} == {
        "near": (9, 2, 2, 3),
        "far": (9, 1, 1, 1),
    }
    assert buffer.dataset_dict["next_observations"] == {}


# --- empty buffers and padding rows (D20, D24) --------------------------------------------


def test_buffer_without_transitions_raises_input_error():
    buffer = frame_buffer([])
    assert buffer.num_transitions == 0 and buffer.transition_rows.tolist() == []
    for call in (
        lambda: buffer.sample(2), lambda: buffer.sample_torch(2), lambda: buffer.split(0.5),
        lambda: buffer.sample(1, indx=np.array([0])), lambda: buffer.filter(threshold=0),
    ):  # fmt: skip
        with pytest.raises(InputError, match="holds no transition to draw"):
            call()


def test_returns_exclude_padding():
    buffer = frame_buffer([2, 3, 1])
    starts, ends, returns = buffer.trajectory_boundaries_and_returns()
    assert (starts.tolist(), ends.tolist(), returns.tolist()) == ([0, 2, 5], [2, 5, 6], [1, 9, 5])


def test_filter_removes_transitions_and_insertion_continues():
    lengths = [2, 3, 4]
    buffer = frame_buffer(lengths)
    buffer.filter(threshold=5)
    assert set(buffer.sample(100)["rewards"]) == {2, 3, 4, 5, 6, 7, 8}
    for step in episodes([2], 3):
        buffer.insert({**step, "rewards": step["rewards"] + 50})
    assert set(buffer.sample(200)["rewards"]) == {2, 3, 4, 5, 6, 7, 8, 50, 51}


def test_normalize_returns_scales_each_transition_once():
    buffer = frame_buffer([2, 3])
    buffer.normalize_returns(16)
    rows = buffer.transition_rows
    assert buffer.sample(1, indx=rows)["rewards"].tolist() == [0, 2, 4, 6, 8]


def test_split_partitions_the_transitions():
    buffer = frame_buffer([9, 9, 2], seed=3)
    first, second = buffer.split(0.75)
    halves = [set(h.sample(1, indx=h.transition_rows)["rewards"]) for h in (first, second)]
    assert [len(h) for h in halves] == [15, 5] and halves[0] | halves[1] == set(range(20))
    assert first.storage is buffer.storage
    assert set(second.sample(100)["rewards"]) == halves[1]
    assert set(first.sample_torch(300)["rewards"].tolist()) == halves[0]
    assert first.rng.tolist() != second.rng.tolist()
    again = frame_buffer([9, 9, 2], seed=3).split(0.75)[0]
    np.testing.assert_array_equal(again.transition_rows, first.transition_rows)
    first.dataset_dict["rewards"][:] = -1
    assert (buffer.sample(50)["rewards"] >= 0).all()
    with pytest.raises(InputError, match="this buffer is half of a split and read-only"):
        first.insert(next(episodes([1], 3)))
    buffer.insert(next(episodes([1], 3)))
    with pytest.raises(InputError, match="half of a split is outdated"):
        second.sample(2)


# --- on disk ------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    capacity=st.integers(4, 20), before=st.integers(0, 30), split=st.integers(1, 9),
    mapped=st.booleans(),
)  # fmt: skip
def test_loaded_buffer_continues_like_the_saved_one(
    tmp_path_factory, capacity, before, split, mapped
):
    folder = tmp_path_factory.mktemp("buffer")
    steps = list(episodes([split, 50], 3))
    buffer = frame_buffer([], capacity, 3, seed=5, storage=folder / "a" if mapped else None)
    for step in steps[:before]:
        buffer.insert(step)
    if before:
        buffer.sample(4)
    again = MemoryEfficientReplayBuffer.load(buffer.save(folder / "saved"))
    assert again.pixel_keys == ("pixels",)
    for step in steps[before:]:
        for one in (buffer, again):
            one.insert(step)
        left, right = buffer.sample(4), again.sample(4)
        np.testing.assert_array_equal(left["rewards"], right["rewards"])
        for part in PARTS:
            np.testing.assert_array_equal(left[part]["pixels"], right[part]["pixels"])
    np.testing.assert_array_equal(buffer.transition_rows, again.transition_rows)


@settings(max_examples=25)
@given(
    capacity=st.integers(4, 15), room=st.integers(1, 40), before=st.integers(1, 40),
    length=st.integers(1, 12),
)  # fmt: skip
def test_buffer_loaded_with_larger_capacity_has_correct_stacks(
    tmp_path_factory, capacity, room, before, length
):
    path = tmp_path_factory.mktemp("buffer") / "saved"
    steps = list(episodes([length] * 30, 3))
    buffer = frame_buffer([], capacity, 3)
    for step in steps[:before]:
        buffer.insert(step)
    again = MemoryEfficientReplayBuffer.load(buffer.save(path), capacity=room)
    assert again.capacity in (capacity, room) and again.capacity >= capacity
    kept = set(buffer.sample(1, indx=buffer.transition_rows)["rewards"])
    assert set(again.sample(1, indx=again.transition_rows)["rewards"]) == kept
    for step in steps[before : before + 30]:
        again.insert(step)
        batch = again.sample(1, indx=again.transition_rows)
        for row, number in enumerate(batch["rewards"].astype(int)):
            for part in PARTS:
                np.testing.assert_array_equal(
                    batch[part]["pixels"][row], steps[number][part]["pixels"]
                )


def test_buffer_of_images_only_round_trips(tmp_path):
    space = spaces.Dict({"pixels": spaces.Box(0, 255, (2, 1, 1, 3), np.uint8)})
    buffer = MemoryEfficientReplayBuffer(space, ACTIONS, 20)
    steps = [
        {**step, **{part: {"pixels": step[part]["pixels"]} for part in PARTS}}
        for step in episodes([4, 4], 3)
    ]
    for step in steps[:6]:
        buffer.insert(step)
    again = MemoryEfficientReplayBuffer.load(buffer.save(tmp_path / "b"))
    for step in steps[6:]:
        again.insert(step)
    batch = again.sample(1, indx=again.transition_rows)
    for part in PARTS:
        expected = np.stack([step[part]["pixels"] for step in steps])
        np.testing.assert_array_equal(batch[part]["pixels"], expected)


# --- bad input ----------------------------------------------------------------------------


def test_bad_arguments_raise():
    with pytest.raises(InputError, match="capacity must be at least 4, the rows of one transition"):
        frame_buffer([], capacity=3)
    with pytest.raises(TypeError, match="must be a Dict space with the keys 'pixels'"):
        MemoryEfficientReplayBuffer(spaces.Box(-1, 1, (3,)), ACTIONS, 9)
    with pytest.raises(TypeError, match="no stacked frames under 'rgb'; its keys are 'pixels', 's"):
        MemoryEfficientReplayBuffer(frame_space(2), ACTIONS, 9, ("rgb",))
    unequal = spaces.Dict({"a": spaces.Box(0, 1, (1, 2)), "b": spaces.Box(0, 1, (1, 3))})
    with pytest.raises(InputError, match=r"same number of stacked frames, got {'a': 2, 'b': 3}"):
        MemoryEfficientReplayBuffer(unequal, ACTIONS, 9, ("a", "b"))
    with pytest.raises(InputError, match="got no pixel key"):
        MemoryEfficientReplayBuffer(unequal, ACTIONS, 9, ())
    buffer = frame_buffer([3])
    step = next(episodes([1], 3))
    with pytest.raises(InputError, match="'observations' lacks 'pixels'"):
        buffer.insert({**step, "observations": {"state": np.zeros(1)}})
    few = {**step["next_observations"], "pixels": np.zeros((2, 1, 1, 2), np.uint8)}
    with pytest.raises(InputError, match=r"next_observations/pixels' has shape \(2, 1, 1, 2\)"):
        buffer.insert({**step, "next_observations": few})
    assert buffer.num_transitions == 3
