"""Read ``.npy`` files of Python objects without executing code from them.

NumPy stores an array of objects as a pickle, and a pickle can call any function. This reader
resolves no function but its own: a file may contain only numbers, strings, lists, tuples, dicts and
NumPy arrays and scalars of plain dtypes (as NumPy 1 and 2 and Python 2 and 3 pickle them).
"""

from __future__ import annotations

import gc
import math
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, NoReturn

import numpy as np

from idql_func.files import open_regular, refuse_sparse, require_memory
from idql_func.types import InputError

__all__ = ["load_objects"]

MEMORY_PER_BYTE = 3
FREE_SIZE = 1 << 27
"""A pickle may make objects of three times its size and 128 MB."""
MOST_STEPS = 4_000_000
"""Operations of a pickle: some seconds. An array of numbers takes about 20, whatever its size."""
_PLAIN_DTYPE = re.compile(r"[<>=|]?([biufcSU]\d{1,6}|\?)")


def load_objects(path: str | os.PathLike[str]) -> Any:
    """Load the array of a ``.npy`` file, including an array of objects (quirk D19).

    Args:
        path: a file that ``numpy.save`` wrote.

    Returns:
        The array.

    Raises:
        InputError: if the file does not exist, is not ``.npy``, is truncated or damaged, needs a
            class or function other than NumPy's for arrays, or makes far more objects than its
            size allows.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     episode = np.array({"rewards": np.ones(2)}, dtype=object)
        ...     np.save(f"{folder}/a.npy", episode, allow_pickle=True)
        ...     load_objects(f"{folder}/a.npy")
        array({'rewards': array([1., 1.])}, dtype=object)
    """
    path = Path(path)
    with open_regular(path, "a file in NumPy's .npy format") as file:
        refuse_sparse(file, path)
        size = os.fstat(file.fileno()).st_size
        require_memory(path, 2 * size)
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
            declared = math.prod(shape) * dtype.itemsize
        except Exception:  # NumPy parses the header as Python, with errors of many types
            raise InputError(
                f"{path} is not a file in NumPy's .npy format, or its header is damaged."
            ) from None
        if not dtype.hasobject:
            if declared > size - file.tell():
                raise InputError(
                    f"{path} is truncated or damaged: its header describes {declared} bytes, but "
                    f"{size - file.tell()} follow."
                )
            file.seek(0)
            try:
                return np.lib.format.read_array(file, allow_pickle=False)
            except (ValueError, TypeError, EOFError, MemoryError):
                raise InputError(f"{path} is truncated or damaged.") from None
        if dtype != np.dtype(object):
            raise InputError(
                f"{path} has dtype {dtype}; only plain dtypes and object are supported."
            )
        try:
            array = _resolve(_Unpickler(file, size).load(), {})
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except Exception:  # a damaged pickle raises errors of many types
            raise InputError(f"{path} is truncated or damaged.") from None
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise InputError(f"{path} is damaged: its content does not match its header.")
    return array


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """The unpickler of the standard library in Python, which can refuse single operations.

    What a pickle makes is limited by the file's size: ``]`` alone is a list of 64 bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        # Latin-1 keeps the bytes of Python 2's strings, which hold its arrays' data
        super().__init__(file, encoding="latin1")
        self._file, self._size = file, size

    def load(self) -> Any:
        """The object of a pickle, made by no more operations and memory than are allowed."""
        dispatch = {code: (call, _COSTS.get(code, 16)) for code, call in self.dispatch.items()}
        left = MEMORY_PER_BYTE * self._size + FREE_SIZE
        steps = 0
        self._prepare()
        # the cyclic garbage collector would visit all objects made so far again and again
        is_collecting = gc.isenabled()
        gc.disable()
        try:
            while True:
                code = self.read(1)
                call, cost = dispatch[code[0]]
                steps += 1
                left -= cost
                if left < 0 or steps > MOST_STEPS:
                    raise InputError(
                        "the file makes more objects than its size allows, or more than "
                        f"{MOST_STEPS:,}."
                    )
                call(self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value
        finally:
            if is_collecting:
                gc.enable()

    def _prepare(self) -> None:
        """What :meth:`load` of the standard library does before its first operation."""
        framing = pickle._Unframer(self._file.read, self._file.readline)  # type: ignore[attr-defined]
        self._unframer = framing
        self.read, self.readline, self.readinto = framing.read, framing.readline, framing.readinto
        self.metastack: list[Any] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0

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

    # --- operations that can do harm ----------------------------------------------------

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def _refuse(self) -> NoReturn:
        raise InputError("the file holds something other than numbers, texts, lists and dicts.")

    for _code in (
        *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.INST, pickle.OBJ),
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
        *(pickle.NEWOBJ, pickle.NEWOBJ_EX),
    ):
        dispatch[_code[0]] = _refuse

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Array | _Dtype) or not isinstance(state, tuple):
            raise InputError("the file sets attributes of something other than an array.")
        self.stack[-1].__setstate__(state)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_items(self.stack[-1], [key, value])

    def _set_items(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        _set_items(self.stack[-1], items)

    def _make_dict(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        made: dict[Any, Any] = {}
        _set_items(made, items)
        self.append(made)

    def _bytearray(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        if length > self._size:
            raise InputError("the file holds bytes that are cut off.")
        content = bytearray(length)
        self.readinto(content)
        self.append(content)

    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _make_dict
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray


def _set_items(target: Any, items: list[Any]) -> None:
    """Add keys and values to a dict. The hash of nested tuples may take forever."""
    if type(target) is not dict:
        raise InputError("the file sets items of something other than a dict.")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | bytes | int | float | np.generic):
            raise InputError(f"the file has a dict with a {type(key).__name__} as a key.")
        target[key] = value


# Bytes of memory that an operation takes, at least, where it takes many.
_COSTS = {
    code[0]: cost
    for codes, cost in (
        ((pickle.EMPTY_LIST, pickle.LIST, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3), 80),
        ((pickle.EMPTY_DICT, pickle.DICT, pickle.MARK, pickle.TUPLE, pickle.REDUCE), 100),
        ((pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE), 120),
        ((pickle.SETITEM,), 100),
        ((pickle.INT, pickle.LONG, pickle.LONG1, pickle.LONG4, pickle.BININT), 40),
        ((pickle.FLOAT, pickle.BINFLOAT, pickle.BININT2), 40),
        ((pickle.SHORT_BINBYTES, pickle.BINBYTES, pickle.SHORT_BINSTRING, pickle.BINSTRING), 64),
        ((pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.UNICODE, pickle.STRING), 80),
    )
    for code in codes
}


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
