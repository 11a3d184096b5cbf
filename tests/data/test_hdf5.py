"""HDF5 files: round trips, atomic writes, and errors for damaged files."""

import os

import h5py
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idql_func.data.hdf5 import check_hdf5, read_d4rl_hdf5, write_d4rl_hdf5
from idql_func.files import atomic_path
from idql_func.types import InputError


@settings(max_examples=25)
@given(
    arrays=st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        hnp.arrays(
            st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        ),
        min_size=1,
        max_size=4,
    ),
    attributes=st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.one_of(
            st.integers(-(2**40), 2**40),
            st.floats(allow_nan=False),
            st.booleans(),
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        ),
        max_size=3,
    ),
)
def test_arrays_and_attributes_round_trip(tmp_path_factory, arrays, attributes):
    path = write_d4rl_hdf5(tmp_path_factory.mktemp("d") / "sub" / "a.hdf5", arrays, attributes)
    read, read_attributes = read_d4rl_hdf5(path)
    assert read.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(read[name], value)
        assert read[name].dtype == value.dtype
    assert read_attributes == attributes
    assert {k: type(v) for k, v in read_attributes.items()} == {
        k: type(v) for k, v in attributes.items()
    }


def test_groups_are_flattened_and_keys_select_arrays(tmp_path):
    path = write_d4rl_hdf5(
        tmp_path / "a.hdf5", {"rewards": np.ones(2), "infos": {"qpos": np.zeros((2, 3))}}
    )
    assert sorted(read_d4rl_hdf5(path)[0]) == ["infos/qpos", "rewards"]
    assert list(read_d4rl_hdf5(path, keys=["rewards", "absent"])[0]) == ["rewards"]
    with h5py.File(path) as file:  # the nested layout that d4rl's visitor expects
        assert file["infos"]["qpos"].shape == (2, 3)  # pyright: ignore


def test_same_content_gives_the_same_bytes(tmp_path):
    arrays, attributes = {"a": np.arange(50.0), "g/b": np.zeros(3, bool)}, {"seed": 1, "who": "x"}
    first = write_d4rl_hdf5(tmp_path / "1.hdf5", arrays, attributes)
    second = write_d4rl_hdf5(tmp_path / "2.hdf5", arrays, attributes)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("arrays", "attributes", "message"),
    [
        ({}, {}, "no array to write"),
        ({"a": np.array(["x"])}, {}, "'a'.*dtype <U1"),
        ({"a": np.array([object()])}, {}, "'a'.*dtype object"),
        ({"a": np.ones(2)}, {"b": None}, "Attribute 'b'.*NoneType"),
        ({"a": np.ones(2)}, {"b": {"c": 1}}, "Attribute 'b'.*dict"),
    ],
)
def test_failed_write_keeps_the_old_file_only(tmp_path, arrays, attributes, message):
    path = write_d4rl_hdf5(tmp_path / "a.hdf5", {"old": np.ones(1)})
    with pytest.raises(InputError, match=message):
        write_d4rl_hdf5(path, arrays, attributes)
    assert list(read_d4rl_hdf5(path)[0]) == ["old"]
    assert os.listdir(tmp_path) == ["a.hdf5"]


def test_interrupted_atomic_path_leaves_no_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_missing_and_other_files_raise_input_error(tmp_path):
    with pytest.raises(InputError, match=r"There is no file .*absent.hdf5"):
        read_d4rl_hdf5(tmp_path / "absent.hdf5")
    with pytest.raises(InputError, match="is a folder"):
        read_d4rl_hdf5(tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(InputError, match=r"a.txt \(5 bytes\) is not an HDF5 file"):
        read_d4rl_hdf5(tmp_path / "a.txt")
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match=r"empty \(0 bytes\) is not an HDF5 file"):
        read_d4rl_hdf5(tmp_path / "empty")


@settings(max_examples=40)
@given(share=st.floats(0, 0.9999))
def test_truncated_file_raises_input_error(tmp_path_factory, share):
    path = write_d4rl_hdf5(tmp_path_factory.mktemp("d") / "a.hdf5", {"a": np.ones((100, 4))})
    whole = path.read_bytes()
    end = whole.index(b'{"end"')  # of what HDF5 reads; a file that ends here is complete
    length = int(len(whole) * share)
    path.write_bytes(whole[: length - (length == end)])
    for read in (check_hdf5, read_d4rl_hdf5):
        with pytest.raises(InputError, match=r"not an HDF5 file|truncated or damaged"):
            read(path)


def test_damaged_array_raises_input_error(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.ones((500, 40)), compression="gzip", chunks=(500, 40))
        place, size = file["a"].id.get_chunk_info(0)[2:]  # pyright: ignore
    content = bytearray(path.read_bytes())
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a.hdf5 is a damaged HDF5 file"):
        read_d4rl_hdf5(path)
