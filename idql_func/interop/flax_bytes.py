"""Flax's msgpack format without Flax: convert nested dicts of NumPy arrays to bytes and back.

After ``flax/serialization.py``. Arrays are MessagePack extension 1, complex numbers 2, NumPy
scalars 3; an array above 2^30 bytes is a dict of chunks. The decoder creates only containers,
arrays, numbers, strings and bytes, so a file cannot execute code.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from idql_func.boundary import explain_module
from idql_func.types import InputError

__all__ = ["msgpack_restore", "msgpack_serialize"]

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_CHUNK_BYTES = 2**30
_DTYPES = {"bool", "complex64", "complex128", "float16", "float32", "float64"}
_DTYPES |= {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
MOST_VALUES = 1_000_000
# by the first byte: the width of the length, and the bytes between it and the content
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_SIZED |= {0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_PLAIN = bool | int | float | str | bytes | None


def msgpack_serialize(tree: Any) -> bytes:
    """The bytes that Flax writes for a tree (``flax.serialization.msgpack_serialize``).

    Args:
        tree: nested mappings with string keys (such as a dict or FrozenDict), lists and tuples,
            with leaves that are NumPy arrays, NumPy scalars, numbers, strings, bytes or None.
            Tuples are written as lists.

    Raises:
        InputError: a leaf has another type, a dtype that is not numeric, or is an integer of more
            than 64 bits; the message gives its path.

    Example:
        >>> msgpack_serialize({"step": 3}) == bytes([0x81, 0xA4]) + b"step" + bytes([3])
        True
    """
    return _pack(_prepare(tree, ()))


def msgpack_restore(data: bytes) -> Any:
    """Read a tree that Flax or :func:`msgpack_serialize` wrote (``flax.serialization``'s function).

    Arrays are read-only; chunked ones are concatenated. Sizes are checked against the number of
    bytes before memory is allocated.

    Raises:
        InputError: the bytes are cut off or damaged, or contain an extension that Flax does not
            have or an array whose dtype is not numeric.

    Example:
        >>> tree = {"params": {"kernel": np.ones((2, 3), np.float32)}, "step": np.int32(4)}
        >>> again = msgpack_restore(msgpack_serialize(tree))
        >>> again["params"]["kernel"].shape, again["step"]
        ((2, 3), np.int32(4))
    """
    try:
        _check_values(data, MOST_VALUES)
        tree = msgpack.unpackb(data, ext_hook=_decode, raw=False)
    except InputError:
        raise
    # msgpack's errors have no common base class; these are their base classes
    except (ValueError, TypeError, ArithmeticError, RecursionError, msgpack.UnpackException) as e:
        reason = _reason(e)
        raise InputError(
            f"the checkpoint must be Flax's msgpack; these {len(data)} bytes are damaged, cut off "
            f"or of another format: {reason}."
        ) from None
    return _unchunk(tree, ())


def _reason(error: BaseException) -> str:
    """What is wrong, without msgpack's own words."""
    if isinstance(error, msgpack.OutOfData) or "incomplete" in str(error):
        return "they end too early"
    if isinstance(error, msgpack.StackError | RecursionError):
        return "it is nested too deeply"
    if isinstance(error, msgpack.ExtraData):
        return "more bytes follow its end"
    if isinstance(error, UnicodeDecodeError):
        return "a text in it is not in UTF-8"
    if "map key" in str(error):
        return "a name in it is not a text"
    return "a value in it is invalid"


def _check_values(data: bytes, most: int) -> None:
    """Raise if MessagePack holds more values than ``most``, before memory is taken for them.

    A value of one byte becomes an object of up to 64.
    """
    place, left, count = 0, 1, 0
    while left and place < len(data):
        left -= 1
        count += 1
        if count > most:
            raise InputError(
                f"the checkpoint has more than {most} values; those of Flax have a few thousand "
                "arrays."
            )
        first = data[place]
        place += 1
        if first <= 0x7F or first >= 0xE0 or 0xC0 <= first <= 0xC3:
            continue
        if first <= 0x8F:
            left += 2 * (first & 0x0F)
        elif first <= 0x9F:
            left += first & 0x0F
        elif first <= 0xBF:
            place += first & 0x1F
        elif first in _SIZED:  # texts, bytes and extensions: their length is before them
            width, extra = _SIZED[first]
            place += width + extra + int.from_bytes(data[place : place + width], "big")
        elif first in _FIXED:
            place += _FIXED[first]
        else:  # arrays and maps
            width = 2 if first in (0xDC, 0xDE) else 4
            length = int.from_bytes(data[place : place + width], "big")
            place += width
            left += length * (2 if first >= 0xDE else 1)


def _pack(value: Any) -> bytes:
    packed = msgpack.packb(value, default=_encode, strict_types=True)
    assert packed is not None  # it is None only with autoreset=False
    return packed


# --- arrays -----------------------------------------------------------------------------------


def _encode(leaf: Any) -> msgpack.ExtType:
    if isinstance(leaf, np.ndarray):
        return msgpack.ExtType(_ARRAY, _array_to_bytes(leaf))
    if isinstance(leaf, np.generic):
        return msgpack.ExtType(_SCALAR, _array_to_bytes(np.asarray(leaf)))
    assert isinstance(leaf, complex)  # _prepare rejects all other types
    return msgpack.ExtType(_COMPLEX, _pack([leaf.real, leaf.imag]))


def _decode(code: int, data: bytes) -> Any:
    if code == _ARRAY:
        return _array_from_bytes(data)
    if code == _SCALAR:
        return _array_from_bytes(data)[()]
    if code == _COMPLEX:
        _check_values(data, 3)
        real, imaginary = msgpack.unpackb(data)
        return complex(real, imaginary)
    raise InputError(
        f"the checkpoint has a MessagePack extension {code}; Flax has {_ARRAY} (array), "
        f"{_COMPLEX} (complex number) and {_SCALAR} (NumPy scalar)."
    )


def _array_to_bytes(array: np.ndarray) -> bytes:
    return _pack([list(array.shape), array.dtype.name, array.tobytes("C")])


def _array_from_bytes(data: bytes) -> np.ndarray:
    _check_values(data, 100)
    parts = msgpack.unpackb(data, raw=True)
    if not isinstance(parts, list) or [type(part) for part in parts] != [list, bytes, bytes]:
        raise InputError("the checkpoint has an array that is not (shape, dtype name, bytes).")
    shape, name, buffer = parts
    dtype, sizes = _dtype(name.decode("ascii", "replace")), tuple(shape)
    if not all(type(n) is int and n >= 0 for n in sizes):
        raise InputError(f"the checkpoint has an array of invalid shape {sizes}.")
    if math.prod(sizes) * dtype.itemsize != len(buffer):
        raise InputError(
            f"the checkpoint has an array of shape {sizes} and dtype {dtype} with {len(buffer)} "
            f"bytes; expected {math.prod(sizes) * dtype.itemsize}."
        )
    return np.frombuffer(buffer, dtype).reshape(sizes)


def _dtype(name: str) -> np.dtype:
    if name in _DTYPES:
        return np.dtype(name)
    if name == "bfloat16":  # NumPy has no bfloat16; JAX installs ml_dtypes
        try:
            return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
        except ImportError:
            raise InputError(
                "the checkpoint has a bfloat16 array; to read it install the package ml_dtypes."
            ) from None
    raise InputError(
        f"the checkpoint has an array of dtype {name!r}; it must be bool, an integer, a float or "
        "a complex number."
    )


# --- trees ------------------------------------------------------------------------------------


def _prepare(tree: Any, path: tuple[str, ...]) -> Any:
    """Convert to plain dicts and lists, split large arrays, reject what Flax cannot read."""
    if isinstance(tree, Mapping):
        for key in tree:
            if not isinstance(key, str):
                raise InputError(f"{_where(path)} has the key {key!r}; keys must be strings.")
        return {key: _prepare(value, (*path, key)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_prepare(value, (*path, str(i))) for i, value in enumerate(tree)]
    if isinstance(tree, np.ndarray | np.generic):
        if tree.dtype.name not in _DTYPES | {"bfloat16"}:
            raise InputError(
                f"{_where(path)} is an array of dtype {tree.dtype}; it must be bool, an integer, "
                "a float or a complex number."
            )
        little = tree.astype(tree.dtype.newbyteorder("="), copy=False)
        return _chunk(little) if tree.nbytes > _CHUNK_BYTES else little
    if not isinstance(tree, _PLAIN | complex):
        raise InputError(
            f"{_where(path)} is a {type(tree).__name__}; it must be a NumPy array, a number, a "
            "string or None."
        )
    if isinstance(tree, int) and not -(2**63) <= tree < 2**64:
        raise InputError(f"{_where(path)} is {tree}; it must fit in 64 bits.")
    return tree


def _chunk(array: Any) -> dict[str, Any]:
    count = max(1, _CHUNK_BYTES // array.dtype.itemsize)
    flat = array.reshape(-1)
    chunks = [flat[i : i + count] for i in range(0, flat.size, count)]
    return {_CHUNKED: True, "shape": _numbered(array.shape), "chunks": _numbered(chunks)}


def _unchunk(tree: Any, path: tuple[str, ...]) -> Any:
    if isinstance(tree, list):
        return [_unchunk(value, (*path, str(i))) for i, value in enumerate(tree)]
    if not isinstance(tree, dict):
        return tree
    if _CHUNKED not in tree:
        return {key: _unchunk(value, (*path, str(key))) for key, value in tree.items()}
    try:
        shape, chunks = (list(_in_order(tree[name])) for name in ("shape", "chunks"))
        return np.concatenate(chunks).reshape(shape)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        raise InputError(
            f"{_where(path)} is an array in chunks that do not match its shape."
        ) from None


def _numbered(values: Any) -> dict[str, Any]:
    return {str(i): value for i, value in enumerate(values)}


def _in_order(numbered: Any) -> Any:
    return (numbered[str(i)] for i in range(len(numbered)))


def _where(path: tuple[str, ...]) -> str:
    return "/".join(path) or "the tree"


explain_module(__name__)
