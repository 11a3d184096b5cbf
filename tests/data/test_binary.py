"""BinaryDataset equals upstream's; its files are read without executing code."""

import os
import pickle
import subprocess
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file
from upstream_binary import CASES, write_files

from idql_func.data import BinaryDataset, validate_transitions
from idql_func.data.safe_npy import load_objects
from idql_func.types import InputError

HERE = Path(__file__).parent
AWAC = HERE / "reference" / "awac"  # pen2_sparse.npy and pen_bc_sparse4.npy, by NumPy 1.24


def assert_equal_to_upstream(folder: Path, saved: dict[str, np.ndarray]) -> None:
    for case, options in CASES.items():
        dataset = BinaryDataset(folder / "pen2_sparse.npy", **options).dataset_dict
        theirs = {k.split("/")[1]: v for k, v in saved.items() if k.startswith(f"{case}/")}
        assert dataset.keys() == theirs.keys() and len(theirs) == 6
        for field, value in theirs.items():
            assert dataset[field].dtype == value.dtype
            np.testing.assert_array_equal(dataset[field], value, err_msg=f"{case}/{field}")


def test_arrays_equal_upstream():
    assert_equal_to_upstream(AWAC, load_file(AWAC / "binary.safetensors"))


@pytest.mark.live
def test_arrays_equal_upstream_run_live(tmp_path):
    python, upstream = (os.environ.get(k) for k in ("IDQL_REFERENCE_PYTHON", "IDQL_UPSTREAM"))
    assert python and upstream, "set IDQL_REFERENCE_PYTHON and IDQL_UPSTREAM"
    subprocess.run(
        [python, HERE / "upstream_binary.py", tmp_path],
        check=True,
        env=os.environ | {"PYTHONPATH": upstream},
    )
    assert_equal_to_upstream(tmp_path, load_file(tmp_path / "binary.safetensors"))


def test_files_are_found_by_environment_and_name(monkeypatch):
    env = types.SimpleNamespace(spec=types.SimpleNamespace(name="pen-binary"))
    expected = BinaryDataset(AWAC / "pen2_sparse.npy").dataset_dict["actions"]
    for source in (env, "pen-binary-v0"):
        found = BinaryDataset(source, data_dir=AWAC).dataset_dict["actions"]
        np.testing.assert_array_equal(found, expected)
    monkeypatch.setenv("AWAC_DATA_DIR", str(AWAC))
    assert len(BinaryDataset("pen-binary-v0", include_bc_data=False)) == 11
    with pytest.raises(InputError, match=r"no file .*door2_sparse\.npy"):
        BinaryDataset("door-binary-v0")


def test_pickles_of_numpy_2_are_read(tmp_path):
    write_files(tmp_path)
    assert_equal_to_upstream(tmp_path, load_file(AWAC / "binary.safetensors"))


# --- what a file may hold -----------------------------------------------------------------

DTYPES = st.sampled_from(["f4", "<f8", ">f8", "i8", "u1", "?", "c16", "S3", "U2", ">i2"])
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, min_side=0, max_dims=3),
                    elements={"allow_nan": False})
    | st.floats(allow_nan=False, width=32).map(np.float32)
)  # fmt: skip
TREES = st.recursive(
    LEAVES, lambda t: st.lists(t) | st.tuples(t, t) | st.dictionaries(st.text(), t), max_leaves=12
)


def same(left, right) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and (left == right).all()
    return left == right


@settings(max_examples=80)
@given(tree=TREES, protocol=st.integers(0, 5))
def test_plain_data_round_trips(tmp_path_factory, tree, protocol):
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    array = np.empty(1, dtype=object)
    array[0] = tree
    np.save(path, array)
    assert same(load_objects(path)[0], tree)
    if protocol in (3, 4, 5):  # older ones write bytes through a function that is not allowed
        write_pickle(path, array, protocol)
        assert same(load_objects(path)[0], tree)


def write_pickle(path: Path, content, protocol: int = 4, shape: tuple[int, ...] = (1,)) -> None:
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": shape}
        )
        file.write(content if isinstance(content, bytes) else pickle.dumps(content, protocol))


class CallOnLoad:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


class Other:
    pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            CallOnLoad(os.system, ("touch ran",)),
            r"needs (posix|nt)\.system, but a data file may need only",
        ),
        (CallOnLoad(eval, ("1",)), r"needs builtins\.eval"),
        (CallOnLoad(np.load, ("x",)), r"needs numpy\.load"),
        (Other(), r"needs .*test_binary\.Other"),
        (CallOnLoad(np.ndarray, ((1,), "O")), r"calls numpy\.ndarray"),
        (np.zeros(2, [("a", "f4")]), "dtype 'V4', which is not plain"),
        (np.dtype("f4"), "holds a dtype or function"),
        (np.ndarray, "holds a dtype or function"),
        (
            CallOnLoad(np.array(0).__reduce__()[0], (np.ndarray, (0,), b"b")),
            "array without data",
        ),
        (np.array("2001-01-01", dtype="M8[D]"), "dtype 'M8', which is not plain"),
    ],
)
def test_file_with_other_classes_raises_input_error(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    array = np.empty(1, dtype=object)
    array[0] = content
    write_pickle(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=rf"a\.npy: .*{message}"):
        load_objects(tmp_path / "a.npy")
    assert os.listdir(tmp_path) == ["a.npy"]


def test_cyclic_content_raises_and_shared_parts_are_read_once(tmp_path):
    path = tmp_path / "a.npy"
    loop: list = []
    loop.append(loop)
    for content, message in (
        (loop, "contains itself"),
        ([1], "its content does not match its header"),
        (b"Pnumbers\n.", "refers to objects outside"),
    ):
        write_pickle(path, content)
        with pytest.raises(InputError, match=message):
            load_objects(path)
    shared: list = [1]
    for _ in range(60):
        shared = [shared, shared]
    array = np.empty(1, dtype=object)
    array[0] = shared
    write_pickle(path, array)
    loaded = load_objects(path)[0]  # 2^60 parts if each reference were read again
    assert loaded[0] is loaded[1]


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_file_raises_input_error_or_gives_valid_transitions(tmp_path_factory, data):
    whole = (AWAC / "pen_bc_sparse4.npy").read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    truncated = data.draw(st.booleans())
    byte = bytes([data.draw(st.integers(0, 255))])
    path = tmp_path_factory.mktemp("npy") / "pen_bc_sparse4.npy"
    path.write_bytes(whole[:at] if truncated else whole[:at] + byte + whole[at + 1 :])
    try:
        loaded = BinaryDataset(AWAC / "pen2_sparse.npy", bc_path=path).dataset_dict
    except InputError as error:
        assert str(path) in str(error) or "pen2_sparse" in str(error)
    else:
        assert not truncated
        validate_transitions(loaded)


def test_plain_npy_file_is_read_and_a_damaged_one_raises(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    assert load_objects(tmp_path / "a.npy").tolist() == [0, 1, 2]
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-2])
    with pytest.raises(InputError, match="truncated or damaged"):
        load_objects(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_text("no")
    with pytest.raises(InputError, match=r"not a file in NumPy's \.npy format"):
        load_objects(tmp_path / "a.npy")


# --- bad input ----------------------------------------------------------------------------


def saved(path: Path, episodes: list) -> Path:
    array = np.empty(len(episodes), dtype=object)
    array[:] = episodes
    np.save(path, array)
    return path


def test_bad_episodes_raise_input_error(tmp_path):
    good = load_objects(AWAC / "pen2_sparse.npy")[0]
    path = tmp_path / "pen2_sparse.npy"

    def load(*episodes, **options):
        return BinaryDataset(saved(path, list(episodes)), include_bc_data=False, **options)

    assert len(load(good, good)) == 4
    lacking = {k: v for k, v in good.items() if k != "rewards"}
    for episodes, message in (
        ((good,), "holds 1 episodes; at least two"),
        ((lacking, good), "episode 0 lacks 'rewards'; it has 'observations'"),
        (([1], good), "must hold a list of episodes, each a dict"),
        (
            ({**good, "observations": [1, 2]}, good),
            "'observations' of an episode must be a list of",
        ),
        (({**good, "rewards": np.zeros(9)}, good), "'rewards' has"),
        (({**good, "rewards": np.full(5, np.nan)}, good), "NaN"),
        (({**good, "rewards": np.array(["a"] * 5)}, good), "dtype <U1"),
        (({**good, "actions": np.zeros((4, 3))}, good, good), "'actions' of the episodes cannot"),
    ):
        with pytest.raises(InputError, match=message):
            load(*episodes)
    large = {**good, "actions": np.full((4, 2), 3.0)}
    assert load(large, good).dataset_dict["actions"].max() == np.float32(1 - 1e-5)
    with pytest.raises(InputError, match=r"outside \[-1, 1\]"):
        load(large, good, clip_to_eps=False)
    with pytest.raises(InputError, match="give it as bc_path"):
        BinaryDataset(saved(tmp_path / "x.npy", [good, good]))
    with pytest.raises(InputError, match="eps must lie in"):
        load(good, good, eps=1)
    with pytest.raises(TypeError, match=r"must be a \.npy file, an environment or its name"):
        BinaryDataset(3)
