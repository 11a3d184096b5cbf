"""Read ``.npy`` files of Python objects without running what they say.

NumPy stores an array of objects as a pickle, and a pickle can call any function. This reader hands
out none but its own: a file may hold numbers, strings, lists, tuples, dicts and NumPy arrays and
scalars of plain dtypes (as NumPy 1 and 2 and Python 2 and 3 pickle them), and nothing else.
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
    """The array of a ``.npy`` file, objects in it included (quirk D19).

    Args:
        path: a file that ``numpy.save`` wrote.

    Returns:
        The array.

    Raises:
        InputError: no such file, no ``.npy`` file, one that is cut off or damaged, or one that
            names a class or function other than NumPy's for arrays.

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
        except Exception as error:  # NumPy takes the header for Python, with errors of all kinds
            raise InputError(f"{path} is no file in NumPy's .npy format ({error}).") from None
        if not dtype.hasobject:
            file.seek(0)
            try:
                return np.lib.format.read_array(file, allow_pickle=False)
            except (ValueError, EOFError, MemoryError) as error:
                raise InputError(f"{path} is cut off or damaged ({error}).") from None
        if dtype != np.dtype(object):
            raise InputError(f"{path} holds records of objects; an array of objects is read only.")
        try:
            # Python 2's strings, and with them the bytes of its arrays, come as Latin-1.
            array = _plain(_Unpickler(file, encoding="latin1").load(), {})
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except Exception as error:  # a damaged pickle can raise nearly anything
            message = str(error) or type(error).__name__
            raise InputError(f"{path} is cut off or damaged ({message}).") from None
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise InputError(f"{path} is damaged: its content is not what its header announces.")
    return array


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module.replace("numpy._core.", "numpy.core."), name))
        if found is None:
            raise InputError(
                f"the file asks for {module}.{name}; a data file may ask for NumPy arrays only, so "
                "nothing of it was loaded."
            )
        return found

    def persistent_load(self, pid: Any) -> NoReturn:
        raise InputError("the file refers to objects outside itself.")


class _Dtype:
    """Stands for ``numpy.dtype`` while the file is read."""

    def __init__(self, code: Any, *_: Any):
        text = code.decode() if isinstance(code, bytes) else code
        if not isinstance(text, str) or not (text == "O8" or _PLAIN_DTYPE.fullmatch(text)):
            raise InputError(f"the file holds an array of dtype {text!r}, not a plain one.")
        self.dtype = np.dtype("O" if text == "O8" else text)

    def __setstate__(self, state: Any) -> None:
        _, order, subdtype, names, fields = state[:5]
        if subdtype is not None or names is not None or fields is not None:
            raise InputError("the file holds an array of records, not of a plain dtype.")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for an array while the file is read; ``value`` is there after its state was."""

    value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        if dtype.dtype.hasobject:
            self.value = (shape, list(content))
            return
        raw = content.encode("latin1") if isinstance(content, str) else content
        self.value = _from_bytes(raw, dtype, shape, "F" if is_fortran else "C")


def _from_bytes(raw: Any, dtype: _Dtype, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    if dtype.dtype.hasobject:
        raise InputError("the file holds objects where there should be numbers.")
    # copied, since bytes are read-only
    flat = np.frombuffer(raw, dtype.dtype).copy() if len(raw) else np.zeros(0, dtype.dtype)
    return flat.reshape(shape, order=order)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return _from_bytes(raw, dtype, (), "C")[()]


def _not_callable(*_: Any) -> NoReturn:
    raise InputError("the file calls numpy.ndarray, which no array in a file does.")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _not_callable,  # only ever an argument, which is not looked at
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_bytes,
}


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """The value with arrays in place of what stood for them.

    ``done`` keeps what was met before, so that a part that is used many times is made once.
    """
    if isinstance(value, _Dtype) or callable(value):
        raise InputError("the file holds a dtype or function, not data.")
    if not isinstance(value, _Array | dict | list | tuple):
        return value
    if id(value) in done:
        if done[id(value)] is _IN_WORK:
            raise InputError("the file holds a list or dict that contains itself.")
        return done[id(value)]
    done[id(value)] = _IN_WORK
    if isinstance(value, dict):
        made: Any = {_plain(k, done): _plain(v, done) for k, v in value.items()}
    elif isinstance(value, list | tuple):
        made = type(value)([_plain(v, done) for v in value])
    elif value.value is None:
        raise InputError("the file holds an array without content.")
    elif isinstance(value.value, np.ndarray):
        made = value.value
    else:
        shape, content = value.value
        made = np.empty(len(content), dtype=object)
        made[:] = [_plain(v, done) for v in content]
        made = made.reshape(shape)
    done[id(value)] = made
    return made


_IN_WORK = object()
