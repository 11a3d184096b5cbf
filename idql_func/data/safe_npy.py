"""Read ``.npy`` files of Python objects without executing code from them.

NumPy stores an array of objects as a pickle, and a pickle can call any function. This reader
resolves no function but its own: a file may contain only numbers, strings, lists, tuples, dicts and
NumPy arrays and scalars of plain dtypes (as NumPy 1 and 2 and Python 2 and 3 pickle them).
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from idql_func.types import InputError

__all__ = ["load_objects"]

_PLAIN_DTYPE = re.compile(r"[<>=|]?([biufcSU]\d{1,6}|\?)")


def load_objects(path: str | os.PathLike[str]) -> Any:
    """Load the array of a ``.npy`` file, including an array of objects (quirk D19).

    Args:
        path: a file that ``numpy.save`` wrote.

    Returns:
        The array.

    Raises:
        InputError: if the file does not exist, is not ``.npy``, is truncated or damaged, or needs a
            class or function other than NumPy's for arrays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     episode = np.array({"rewards": np.ones(2)}, dtype=object)
        ...     np.save(f"{folder}/a.npy", episode, allow_pickle=True)
        ...     load_objects(f"{folder}/a.npy")
        array({'rewards': array([1., 1.])}, dtype=object)
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a file in NumPy's .npy format.")
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
        except Exception as error:  # NumPy parses the header as Python, with errors of many types
            raise InputError(f"{path} is not a file in NumPy's .npy format ({error}).") from None
        if not dtype.hasobject:
            file.seek(0)
            try:
                return np.lib.format.read_array(file, allow_pickle=False)
            except (ValueError, EOFError, MemoryError) as error:
                raise InputError(f"{path} is truncated or damaged ({error}).") from None
        if dtype != np.dtype(object):
            raise InputError(
                f"{path} has dtype {dtype}; only plain dtypes and object are supported."
            )
        try:
            # Latin-1 keeps the bytes of Python 2's strings, which hold its arrays' data.
            array = _resolve(_Unpickler(file, encoding="latin1").load(), {})
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except Exception as error:  # a damaged pickle raises errors of many types
            message = str(error) or type(error).__name__
            raise InputError(f"{path} is truncated or damaged ({message}).") from None
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise InputError(f"{path} is damaged: its content does not match its header.")
    return array


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module.replace("numpy._core.", "numpy.core."), name))
        if found is None:
            raise InputError(
                f"the file needs {module}.{name}, but a data file may need only NumPy arrays; "
                "nothing was loaded."
            )
        return found

    def persistent_load(self, pid: Any) -> NoReturn:
        raise InputError("the file refers to objects outside the file.")


class _Dtype:
    """Placeholder for ``numpy.dtype`` during unpickling."""

    def __init__(self, code: Any, *_: Any):
        text = code.decode() if isinstance(code, bytes) else code
        if not isinstance(text, str) or not (text == "O8" or _PLAIN_DTYPE.fullmatch(text)):
            raise InputError(f"the file holds an array of dtype {text!r}, which is not plain.")
        self.dtype = np.dtype("O" if text == "O8" else text)

    def __setstate__(self, state: Any) -> None:
        _, order, subdtype, names, fields = state[:5]
        if subdtype is not None or names is not None or fields is not None:
            raise InputError("the file holds an array of records, which is not a plain dtype.")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Placeholder for an array during unpickling; ``__setstate__`` sets ``value``."""

    def __init__(self, *_: Any):
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        if dtype.dtype.hasobject:
            self.value = (shape, list(content))
            return
        raw = content.encode("latin1") if isinstance(content, str) else content
        self.value = _from_bytes(raw, dtype, shape, "F" if is_fortran else "C")


def _from_bytes(raw: Any, dtype: _Dtype, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    if dtype.dtype.hasobject:
        raise InputError("the file holds objects in place of numbers.")
    # copied, since bytes are read-only
    flat = np.frombuffer(raw, dtype.dtype).copy() if len(raw) else np.zeros(0, dtype.dtype)
    return flat.reshape(shape, order=order)


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return _from_bytes(raw, dtype, (), "C")[()]


def _not_callable(*_: Any) -> NoReturn:
    raise InputError("the file calls numpy.ndarray, which a pickled array does not do.")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _not_callable,  # only an ignored argument of _reconstruct
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_bytes,
}


def _resolve(value: Any, done: dict[int, Any]) -> Any:
    """Replace the placeholders in a value by arrays.

    ``done`` maps the id of each container to its result, so that a shared one is converted once.
    """
    if isinstance(value, _Dtype) or callable(value):
        raise InputError("the file holds a dtype or function, not data.")
    if not isinstance(value, _Array | dict | list | tuple):
        return value
    if id(value) in done:
        if done[id(value)] is _IN_PROGRESS:
            raise InputError("the file holds a list or dict that contains itself.")
        return done[id(value)]
    done[id(value)] = _IN_PROGRESS
    if isinstance(value, dict):
        result: Any = {_resolve(k, done): _resolve(v, done) for k, v in value.items()}
    elif isinstance(value, list | tuple):
        result = type(value)([_resolve(v, done) for v in value])
    elif value.value is None:
        raise InputError("the file holds an array without data.")
    elif isinstance(value.value, np.ndarray):
        result = value.value
    else:
        shape, content = value.value
        result = np.empty(len(content), dtype=object)
        result[:] = [_resolve(v, done) for v in content]
        result = result.reshape(shape)
    done[id(value)] = result
    return result


_IN_PROGRESS = object()
