"""Flax's msgpack format: equal bytes, chunks, and damaged or malicious files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from upstream_flax import RECORDED

from idql_func.interop import flax_bytes, msgpack_restore, msgpack_serialize
from idql_func.types import InputError

REFERENCE = Path(__file__).parent / "reference"

dtypes = st.sampled_from(
    "bool int8 int32 int64 uint8 uint32 float16 float32 float64 complex64".split()  # noqa: SIM905
)
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    )
)
numbers = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
scalars = st.sampled_from([np.float32(0.1), np.int64(-3), np.bool_(True), np.uint8(7), 1.5 - 2j])
trees = st.recursive(
    arrays | numbers | scalars,
    lambda inner: st.dictionaries(st.text(), inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray | np.generic):
        equal = np.asarray(a).tobytes() == np.asarray(b).tobytes()
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and equal
    return type(a) is type(b) and (a == b or str(a) == str(b) == "nan")


@given(trees)
@settings(max_examples=150)
def test_trees_round_trip(tree: Any) -> None:
    assert same(tree, msgpack_restore(msgpack_serialize(tree)))


@pytest.mark.parametrize("name", RECORDED)
def test_serialized_bytes_equal_flax(name: str) -> None:
    data = (REFERENCE / f"{name}.msgpack").read_bytes()
    assert msgpack_serialize(msgpack_restore(data)) == data


def test_mappings_tuples_and_views_are_converted() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    tree = msgpack_restore(msgpack_serialize(MappingProxyType({"a": (1, array)})))
    assert tree["a"][0] == 1 and tree["a"][1].dtype == np.float32
    assert np.array_equal(tree["a"][1], array)


def test_large_arrays_are_chunked_as_in_flax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flax_bytes, "_CHUNK_BYTES", 16)
    array = np.arange(10, dtype=np.float32).reshape(5, 2)
    data = msgpack_serialize({"big": array, "small": array[:2]})
    plain = msgpack.unpackb(data, ext_hook=lambda code, data: (code, data))
    assert plain["big"]["__msgpack_chunked_array__"] is True
    assert plain["big"]["shape"] == {"0": 5, "1": 2} and list(plain["big"]["chunks"]) == [
        "0",
        "1",
        "2",
    ]
    assert plain["small"][0] == 1
    restored = msgpack_restore(data)
    assert same(restored, {"big": array, "small": array[:2].copy()})
    assert same(msgpack_restore(msgpack_serialize(array)), array)


# --- bad bytes ------------------------------------------------------------------------------------


def packed_array(shape: Any, dtype: str, size: int, code: int = 1) -> Any:
    return msgpack.packb(msgpack.ExtType(code, msgpack.packb((shape, dtype, bytes(size)))))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "must be Flax's msgpack; these 0 bytes are damaged, cut off or of another format"),
        (b"\x81\xa1a", "these 3 bytes are damaged"),
        (b"\xc1", "a value in it is invalid"),
        (b"PK\x03\x04", "more bytes follow its end"),
        (b"\x91" * 2000, "these 2000 bytes are damaged"),
        (b"\x81\x01\x02", "a name in it is not a text"),
        (b"\xa1\xff", "a text in it is not in UTF-8"),
        (
            packed_array((2,), "float32", 7),
            r"shape \(2,\) and dtype float32 with 7 bytes; expected 8",
        ),
        (packed_array((2**40, 2**40), "float32", 4), "with 4 bytes; expected"),
        (packed_array((0, 2**63), "float32", 0), "damaged"),
        (packed_array((-1,), "float32", 4), r"invalid shape \(-1,\)"),
        (packed_array((1.0,), "float32", 4), r"invalid shape \(1.0,\)"),
        (packed_array((1,), "object", 8), "dtype 'object'; it must be bool, an integer"),
        (packed_array((1,), "O", 8), "dtype 'O'"),
        (packed_array((1,), "f4,f4", 8), "dtype 'f4,f4'"),
        (packed_array((), "float32", 4, code=5), r"extension 5; Flax has 1 \(array\)"),
        (msgpack.packb(msgpack.ExtType(1, b"\x01")), r"not \(shape, dtype name, bytes\)"),
        (msgpack.packb(msgpack.ExtType(2, b"\x91\x01")), "damaged"),
        (msgpack.packb({"a": {"__msgpack_chunked_array__": True}}), "a is an array in chunks that"),
        (
            msgpack.packb({"__msgpack_chunked_array__": True, "shape": {"0": 1}, "chunks": {}}),
            "the tree is an array in chunks that do not match its shape",
        ),
    ],
)
def test_bad_bytes_raise_one_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        msgpack_restore(data)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@given(st.integers(0), st.binary(max_size=4), st.sampled_from(["bc", "td3"]))
@settings(max_examples=200)
def test_damaged_bytes_raise_or_give_a_tree(at: int, patch: bytes, name: str) -> None:
    data = bytearray((REFERENCE / f"{name}.msgpack").read_bytes())
    start = at % len(data)
    data[start : start + len(patch)] = patch
    with contextlib.suppress(InputError):
        msgpack_restore(bytes(data))
    with pytest.raises(InputError):
        msgpack_restore(bytes(data)[:start])


class Pickled:
    def __reduce__(self) -> Any:
        raise AssertionError("pickled")


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"a": {"b": Pickled()}}, "a/b is a Pickled; it must be a NumPy array"),
        ({"a": [np.array([Pickled()])]}, "a/0 is an array of dtype object"),
        ({"a": np.array(["x"])}, "a is an array of dtype <U1"),
        ({1: 2}, "the tree has the key 1; keys must be strings"),
        ({"a": 2**64}, "a is 18446744073709551616; it must fit in 64 bits"),
    ],
)
def test_unsupported_leaves_and_keys_raise(tree: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        msgpack_serialize(tree)


def test_bfloat16_needs_ml_dtypes() -> None:
    data = packed_array((2,), "bfloat16", 4)
    try:
        import ml_dtypes  # pyright: ignore[reportMissingImports]
    except ImportError:
        with pytest.raises(InputError, match="install the package ml_dtypes"):
            msgpack_restore(data)
    else:
        array = msgpack_restore(data)
        assert array.dtype == ml_dtypes.bfloat16
        assert msgpack_serialize(array) == data
