"""D4RLDataset: equality with upstream; sources (files, names, objects); bad recordings."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from idql_func.data import D4RLDataset, ReferenceScores
from idql_func.data.d4rl import d4rl_cache_dir, episode_ends, qlearning_arrays
from idql_func.data.d4rl_names import D4RL_NAMES
from idql_func.data.hdf5 import write_d4rl_hdf5
from idql_func.types import InputError

HERE = Path(__file__).parent
RECORDED = load_file(HERE / "reference" / "d4rl.safetensors")
CASES = sorted({name.split("/")[0] for name in RECORDED})
FIELDS = ["observations", "actions", "next_observations", "rewards", "masks", "dones"]


class Env:
    """The part of a d4rl environment that the loader uses."""

    def __init__(self, arrays, max_episode_steps=None, **attributes):
        self._max_episode_steps = max_episode_steps
        self._arrays = arrays
        vars(self).update(attributes)

    def get_dataset(self):
        return self._arrays


def fields(prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in RECORDED.items() if k.startswith(prefix)}


def assert_same_arrays(ours, theirs):
    assert list(ours) == FIELDS and ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
        assert ours[name].dtype == value.dtype, name


def recording(length: int = 60, seed: int = 0, timeouts: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {
        "observations": rng.normal(size=(length, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(length, 2)).astype(np.float32),
        "rewards": rng.normal(size=length).astype(np.float32),
        "terminals": rng.random(length) < 0.05,
    }
    return arrays | ({"timeouts": rng.random(length) < 0.05} if timeouts else {})


# --- equal to upstream ------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["file", "object"])
def test_arrays_equal_saved_upstream_arrays(case, how, tmp_path):
    arrays = fields(f"{case}/in/")
    steps = int(RECORDED[f"{case}/steps"][0]) or None
    eps = float(RECORDED[f"{case}/eps"][0])
    options = {"clip_to_eps": eps > 0, "eps": eps if eps > 0 else 1e-5}
    if how == "file":
        path = write_d4rl_hdf5(tmp_path / "d.hdf5", arrays | {"infos/qpos": np.zeros(3)})
        dataset = D4RLDataset(path, max_episode_steps=steps, **options)
    else:
        dataset = D4RLDataset(Env(arrays, steps), **options)
    assert_same_arrays(dataset.dataset_dict, fields(f"{case}/out/"))
    assert len(dataset) == len(dataset.dataset_dict["rewards"])


@pytest.mark.live
def test_arrays_equal_upstream_run_live(tmp_path):
    """Compare with upstream's class and ``d4rl.qlearning_dataset`` on files made here."""
    python, upstream = (os.environ.get(k) for k in ("IDQL_REFERENCE_PYTHON", "IDQL_UPSTREAM"))
    assert python and upstream, (
        "set IDQL_REFERENCE_PYTHON to the Python of the environment that runs upstream and "
        "IDQL_UPSTREAM to upstream's checkout"
    )
    cases = []
    for seed in range(24):
        arrays = random_recording(np.random.default_rng(seed), timeouts=seed % 2 == 0)
        path = write_d4rl_hdf5(tmp_path / f"{seed}.hdf5", arrays)
        steps = None if seed % 2 == 0 else [2, 7, 50, 1000][seed // 2 % 4]
        clip, eps = [(True, 1e-5), (False, 1e-5), (True, 0.01)][seed % 3]
        cases.append(
            {
                "name": str(seed),
                "path": str(path),
                "max_episode_steps": steps,
                "clip_to_eps": clip,
                "eps": eps,
            }
        )
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    subprocess.run(
        [python, HERE / "upstream_d4rl.py", "datasets", "cases.json", "out.safetensors"],
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": upstream},
    )
    saved = load_file(tmp_path / "out.safetensors")
    rows = 0
    for case in cases:
        name = case.pop("name")
        dataset = D4RLDataset(case.pop("path"), **case)
        prefix = f"{name}/"
        theirs = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
        assert_same_arrays(dataset.dataset_dict, theirs)
        rows += len(dataset)
    print(f"{len(cases)} files, {rows} transitions, all {len(FIELDS)} arrays of each equal")
    assert rows > 20_000


def random_recording(rng, timeouts: bool) -> dict[str, np.ndarray]:
    """A recording of random size, dtype and layout, with moves near the threshold of a jump."""
    length, dtype = int(rng.integers(300, 3000)), rng.choice([np.float32, np.float64])
    observations = rng.normal(size=(length, int(rng.integers(1, 30)))).astype(dtype)
    for row in np.flatnonzero(rng.random(length - 1) < 0.2) + 1:
        observations[row] = observations[row - 1]
        observations[row, 0] += dtype(rng.choice([0, 5e-7, 1e-6, 1.1e-6, 1e-5]))
    arrays = {
        "observations": observations,
        "actions": np.clip(rng.normal(size=(length, int(rng.integers(1, 9)))), -1, 1).astype(dtype),
        "rewards": rng.normal(size=length).astype(dtype),
        "terminals": rng.random(length) < rng.choice([0, 0.01, 0.1]),
    }
    if rng.random() < 0.5:
        arrays["rewards"] = arrays["rewards"][:, None]
        arrays["terminals"] = arrays["terminals"][:, None].astype(np.float32)
    if timeouts:
        arrays["timeouts"] = rng.random(length) < rng.choice([0, 0.01, 0.1])
    return arrays


# --- equal to plain loops ---------------------------------------------------------------


def loop_transitions(terminals, timeouts, max_episode_steps) -> list[int]:
    """The steps that give a transition, found with d4rl's step counter."""
    kept, counter = [], 0
    for i in range(len(terminals) - 1):
        final = counter == max_episode_steps - 1 if timeouts is None else timeouts[i]
        if final:
            counter = 0
            continue
        if terminals[i]:
            counter = 0
        kept.append(i)
        counter += 1
    return kept


@settings(max_examples=200)
@given(
    terminals=st.lists(st.booleans(), min_size=2, max_size=40),
    timeouts=st.none() | st.lists(st.booleans(), min_size=40, max_size=40),
    steps=st.integers(1, 12),
)
def test_transitions_equal_a_plain_loop(terminals, timeouts, steps):
    length = len(terminals)
    arrays = {
        "observations": np.arange(length)[:, None].astype(np.float64),
        "actions": np.zeros((length, 1)),
        "rewards": np.arange(length),
        "terminals": np.array(terminals),
    }
    if timeouts is not None:
        arrays["timeouts"] = np.array(timeouts[:length])
    kept = loop_transitions(terminals, timeouts, steps)
    if not kept:
        with pytest.raises(InputError, match=f"none of the {length} steps gives a transition"):
            qlearning_arrays(arrays, steps)
        return
    out = qlearning_arrays(arrays, steps)
    assert out["rewards"].tolist() == kept
    assert out["observations"][:, 0].tolist() == kept
    assert out["next_observations"][:, 0].tolist() == [i + 1 for i in kept]
    assert out["terminals"].tolist() == [terminals[i] for i in kept]
    assert {v.dtype for k, v in out.items() if k != "terminals"} == {np.dtype(np.float32)}


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 30), width=st.integers(1, 40))
def test_episode_ends_equal_a_plain_loop(seed, length, width):  # D11
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(length, width)).astype(np.float32) * 1e-3
    following = np.roll(observations, -1, axis=0)
    size = rng.choice([0, 1, 0.999999, 1.0000001, 1.01, 100], size=(length, 1))
    direction = rng.normal(size=(length, width))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    following = (following + 1e-6 * size * direction).astype(np.float32)
    terminals = rng.random(length) < 0.1
    expected = np.zeros(length, bool)
    for i in range(length - 1):
        gap = float(np.linalg.norm(observations[i + 1] - following[i]))
        expected[i] = gap > 1e-6 or terminals[i]
    expected[-1] = True
    np.testing.assert_array_equal(episode_ends(observations, following, terminals), expected)


def test_episode_ends_across_block_boundaries():
    length = (1 << 16) * 2 + 5
    observations = np.arange(length, dtype=np.float64)[:, None]
    following = observations + 1
    jumps = [(1 << 16) - 1, 1 << 16, length - 2]
    following[jumps] += 1
    dones = episode_ends(observations, following, np.zeros(length, bool))
    assert np.flatnonzero(dones).tolist() == [*jumps, length - 1]


# --- sources ----------------------------------------------------------------------------


def test_name_is_read_from_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    assert d4rl_cache_dir() == tmp_path
    arrays = recording(timeouts=False)
    path = write_d4rl_hdf5(tmp_path / "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5", arrays)  # fmt: skip # noqa: E501
    dataset = D4RLDataset("antmaze-umaze-v2")
    assert dataset.name == "antmaze-umaze-v2"
    assert dataset.reference_scores == ReferenceScores(0.0, 1.0)
    # the name determines the episode length: 700 here
    assert_same_arrays(dataset.dataset_dict, D4RLDataset(path, max_episode_steps=700).dataset_dict)


def test_name_is_downloaded_once(tmp_path, monkeypatch):
    published = write_d4rl_hdf5(tmp_path / "server" / "pen-expert-v1.hdf5", recording())
    entry = D4RL_NAMES["pen-expert-v1"]._replace(url=published.as_uri())
    monkeypatch.setattr("idql_func.data.d4rl.D4RL_NAMES", {"pen-expert-v1": entry})
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "cache"))
    first = D4RLDataset("pen-expert-v1")
    published.unlink()
    assert_same_arrays(D4RLDataset("pen-expert-v1").dataset_dict, first.dataset_dict)
    assert os.listdir(tmp_path / "cache") == ["pen-expert-v1.hdf5"]


def test_failed_download_message_names_the_path(tmp_path, monkeypatch):
    url = (tmp_path / "absent.hdf5").as_uri()
    entry = D4RL_NAMES["hopper-medium-v2"]._replace(url=url)
    monkeypatch.setattr("idql_func.data.d4rl.D4RL_NAMES", {"hopper-medium-v2": entry})
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"could not be downloaded .* put it at .*absent\.hdf5"):
        D4RLDataset("hopper-medium-v2")
    assert os.listdir(tmp_path / "cache") == []


def test_default_cache_is_d4rls_folder(monkeypatch):
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)
    assert d4rl_cache_dir() == Path.home() / ".d4rl" / "datasets"


def test_file_attributes_set_time_limit_and_scores(tmp_path):
    arrays = recording(timeouts=False)
    attributes = {"max_episode_steps": 5, "ref_min_score": 0.0, "ref_max_score": 9.0}
    path = write_d4rl_hdf5(tmp_path / "a.hdf5", arrays, attributes)
    dataset = D4RLDataset(str(path))
    assert dataset.reference_scores == ReferenceScores(0.0, 9.0)
    assert dataset.attributes == attributes and dataset.name is None
    assert_same_arrays(
        dataset.dataset_dict, D4RLDataset(Env(arrays), max_episode_steps=5).dataset_dict
    )
    assert len(D4RLDataset(path, max_episode_steps=3)) < len(dataset)


def test_object_attributes_set_time_limit_and_scores():
    class Spec:
        max_episode_steps = 5

    arrays = recording(timeouts=False)
    dataset = D4RLDataset(Env(arrays, 5, ref_min_score=1.0, ref_max_score=2.0))
    assert dataset.reference_scores == ReferenceScores(1.0, 2.0)
    by_spec = D4RLDataset(Env(arrays, None, spec=Spec))
    assert_same_arrays(by_spec.dataset_dict, dataset.dataset_dict)
    assert by_spec.reference_scores is None


def test_source_is_not_modified_and_seed_is_used():
    arrays = recording()
    kept = {k: v.copy() for k, v in arrays.items()}
    dataset = D4RLDataset(Env(arrays), seed=7)
    dataset.normalize_returns()
    for name, value in kept.items():
        np.testing.assert_array_equal(arrays[name], value)
    assert dataset.rng.tolist() == [0, 7] and D4RLDataset(Env(arrays)).rng.tolist() == [0, 42]


# --- bad input --------------------------------------------------------------------------


def altered(**changes: Any):
    arrays: dict[str, Any] = recording()
    for name, value in changes.items():
        arrays[name] = value(arrays[name].copy()) if callable(value) else value
    return arrays


def put(index, value):
    def change(array):
        array[index] = value
        return array

    return change


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "lacks 'observations', 'actions', 'rewards', 'terminals'; it has no field"),
        ({"observations": np.zeros((3, 1))}, "lacks .*'terminals'; it has 'observations'"),
        (altered(rewards=np.zeros(59)), "'rewards' has 59 rows and 'observations' has 60"),
        (altered(timeouts=np.zeros(61, bool)), "'timeouts' has 61 rows and 'observations' has 60"),
        (altered(rewards=np.zeros((60, 2))), r"'rewards' has shape \(60, 2\); it must be \[60\]"),
        (altered(terminals=np.zeros((60, 1, 1))), r"'terminals' has shape \(60, 1, 1\)"),
        (altered(actions=np.zeros(60)), r"'actions' has shape \(60,\); it must be \[60, n\]"),
        (altered(observations=np.zeros((60, 0))), r"'observations' has shape \(60, 0\)"),
        (altered(observations=np.full((60, 1), "x")), "'observations' has dtype <U1"),
        (altered(rewards=np.float32(3)), "'rewards' is a single number"),
        (
            altered(observations=put((5, 1), np.nan)),
            "1 of 180 values of 'observations' is NaN .*row 5",
        ),
        (altered(rewards=put([3, 9], np.inf)), "2 of 60 values of 'rewards' are NaN .*row 3"),
        (
            altered(rewards=lambda a: a.astype(np.float64) + 1e300),
            "values of 'rewards' are NaN or inf",
        ),
        (altered(terminals=np.full(60, np.nan)), "60 of 60 values of 'terminals' are NaN"),
        (
            altered(actions=put((4, 1), -1.5)),
            r"1 of 120 values .* outside \[-1, 1\] .*-1\.5, in row 4",
        ),
        ({k: v[:1] for k, v in recording().items()}, "holds 1 step; a transition needs two"),
        ({k: v[:0] for k, v in recording().items()}, "holds 0 steps; a transition needs two"),
        (altered(timeouts=np.ones(60, bool)), "none of the 60 steps gives a transition"),
        (recording(timeouts=False), "has no 'timeouts'; pass max_episode_steps"),
    ],
)
def test_invalid_recordings_raise_input_error(arrays, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        D4RLDataset(Env(arrays))
    assert str(error.value).startswith("Env.get_dataset()")
    if arrays and arrays.get("observations", np.zeros(0)).dtype.kind == "f":
        path = write_d4rl_hdf5(tmp_path / "bad.hdf5", arrays)
        with pytest.raises(InputError, match=message) as error:
            D4RLDataset(path)
        assert str(error.value).startswith(str(path))


def test_actions_out_of_range_are_clipped_only_on_request():  # D12
    arrays = altered(actions=put((0, 0), 1.2))
    with pytest.raises(InputError, match="pass out_of_range='clip'"):
        D4RLDataset(Env(arrays))
    for clip_to_eps, largest in ((True, np.float32(1 - 1e-5)), (False, 1.0)):
        dataset = D4RLDataset(Env(arrays), clip_to_eps=clip_to_eps, out_of_range="clip")
        assert dataset.dataset_dict["actions"][0, 0] == largest
    rounding = altered(actions=put((0, 0), np.float32(1.000001)))
    assert np.abs(D4RLDataset(Env(rounding)).dataset_dict["actions"]).max() < 1


def test_bad_arguments_raise():
    arrays = recording()
    for eps in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match=r"eps must lie in \[0, 1\)"):
            D4RLDataset(Env(arrays), eps=eps)
    with pytest.raises(InputError, match="out_of_range must be 'error' or 'clip', got 'wrap'"):
        D4RLDataset(Env(arrays), out_of_range="wrap")  # pyright: ignore
    with pytest.raises(InputError, match="max_episode_steps must be at least 1, got -3"):
        D4RLDataset(Env(recording(timeouts=False)), max_episode_steps=-3)
    with pytest.raises(TypeError, match=r"object with get_dataset\(\), got int"):
        D4RLDataset(3)
    with pytest.raises(TypeError, match="must return a dict of arrays, got list"):
        D4RLDataset(Env([1]))


def test_unknown_names_and_paths_raise_input_error(tmp_path):
    with pytest.raises(
        InputError, match="neither a file nor a D4RL name; did you mean hopper-medium-v2"
    ):
        D4RLDataset("hopper-medium-v3")
    with pytest.raises(InputError, match="neither a file nor a D4RL name; give the path"):
        D4RLDataset("qqqqqq")
    with pytest.raises(InputError, match=r"There is no file .*d\.hdf5"):
        D4RLDataset(tmp_path / "d.hdf5")
    (tmp_path / "text.hdf5").write_text("no")
    with pytest.raises(InputError, match="is not an HDF5 file"):
        D4RLDataset(tmp_path / "text.hdf5")
    path = write_d4rl_hdf5(tmp_path / "cut.hdf5", recording())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="truncated or damaged HDF5 file of 3000 bytes"):
        D4RLDataset(path)
