"""Save a replay buffer as one safetensors file, with its metadata as JSON in the header.

The file is written atomically and nothing is pickled. Only the rows in use are written, straight
from the buffer's memory: saving makes no second copy of the frames.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idql_func.data.arrays import named_leaves
from idql_func.files import digest, parse_json
from idql_func.files.tensors import TensorFile, open_tensors, write_tensors
from idql_func.types import InputError

__all__ = ["BufferFile", "open_buffer", "read_generator", "save_buffer", "write_generator"]

_FORMAT = "idql_func replay buffer"
_FORMAT_VERSION = 1


def save_buffer(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], description: Mapping[str, Any]
) -> Path:
    """Write arrays and their description atomically.

    Args:
        path: the file; missing folders are created, an existing file is replaced.
        arrays: nested dict of C-contiguous arrays of any shape.
        description: metadata that JSON can represent.

    Returns:
        The path.

    Raises:
        OSError: if the disk is full or the path is not writable; no partial file is left.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_buffer(f"{folder}/a.safetensors", {"a": np.ones(2)}, {"size": 2})
        ...     with open_buffer(path) as file:
        ...         file.description["size"], file.rows()
        (2, {'a': ((2,), dtype('float64'))})
    """
    flat = {name: torch.from_numpy(array) for name, array in named_leaves(arrays)}
    header = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "description": dict(description),
    }
    return write_tensors(path, flat, {"idql_func": json.dumps(header, allow_nan=False)})


class BufferFile:
    """An open buffer file: its description, and its arrays one at a time."""

    def __init__(self, path: Path, file: TensorFile, header: Mapping[str, Any]):
        self.description: dict[str, Any] = header["description"]
        self._path, self._file = path, file
        self._sha256: dict[str, str] = header.get("sha256", {})  # of an earlier version

    def rows(self) -> dict[str, Any]:
        """Return a nested dict with ``(shape, dtype)`` of each array."""
        nested: dict[str, Any] = {}
        for name in self._sha256 or self._file.tensors:
            *parents, last = name.split("/")
            level = functools.reduce(lambda level, key: level.setdefault(key, {}), parents, nested)
            dtype, shape = self._file.tensors[name]
            level[last] = (shape, torch.empty(0, dtype=dtype).numpy().dtype)
        return nested

    def read_into(self, arrays: Mapping[str, Any]) -> None:
        """Read the saved rows into the first rows of a nested dict of arrays.

        Raises:
            InputError: if the content does not match its checksum.
        """
        for name, array in named_leaves(arrays):
            rows = array[: self._file.tensors[name][1][0]]
            try:
                self._file.read_into(name, torch.from_numpy(rows))
                if name in self._sha256 and digest(rows) != self._sha256[name]:
                    raise InputError(f"the checksum of {name!r} does not match its data")
            except InputError as error:
                raise InputError(f"{self._path} is damaged: {error}.") from None


@contextmanager
def open_buffer(path: str | os.PathLike[str]) -> Iterator[BufferFile]:
    """Open a file that :func:`save_buffer` wrote.

    Raises:
        InputError: if the file does not exist, is a folder, is not a replay buffer, or is truncated
            or damaged.

    Example:
        >>> with open_buffer("no/such/buffer"):
        ...     pass
        Traceback (most recent call last):
        ...
        idql_func.files.FileReadError: There is no file no/such/buffer; give a saved replay buffer.
    """
    path = Path(path)
    problem = "{path} is not a saved replay buffer, or it is damaged"
    with open_tensors(path, "a saved replay buffer", problem) as file:
        where = f"{path} is damaged: its description is invalid"
        try:
            header = parse_json(file.metadata.get("idql_func", "{}"), where)
        except InputError:
            raise InputError(f"{where}; it is not JSON.") from None
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise InputError(f"{path} is not a replay buffer saved by idql_func.")
        if header.get("format_version") != _FORMAT_VERSION:
            raise InputError(
                f"{path} has format version {header.get('format_version')}, but this version "
                f"of idql_func reads version {_FORMAT_VERSION}."
            )
        file.warn_without_digest(path)
        try:
            yield BufferFile(path, file, header)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as e:
            kind = f"{type(e).__name__} {e}" if isinstance(e, KeyError) else type(e).__name__
            raise InputError(f"{where} ({kind}).") from None


def write_generator(generator: np.random.Generator) -> dict[str, Any]:
    """Represent a PCG64 generator as JSON: the state of its stream and its seed sequence.

    Example:
        >>> generator = np.random.default_rng(3)
        >>> copy = read_generator(write_generator(generator))
        >>> generator.integers(100, size=3), copy.integers(100, size=3)
        (array([81,  8, 17]), array([81,  8, 17]))
    """
    bits: Any = generator.bit_generator
    seed = bits.seed_seq
    return {
        "state": bits.state,
        "entropy": seed.entropy,
        "spawn_key": list(seed.spawn_key),
        "n_children_spawned": seed.n_children_spawned,
    }


def read_generator(saved: Mapping[str, Any]) -> np.random.Generator:
    """Rebuild the generator that :func:`write_generator` described.

    Example:
        >>> read_generator(write_generator(np.random.default_rng(0))).random() < 1
        True
    """
    seed = np.random.SeedSequence(
        saved["entropy"],
        spawn_key=tuple(saved["spawn_key"]),
        n_children_spawned=saved["n_children_spawned"],
    )
    bits = np.random.PCG64(seed)
    bits.state = saved["state"]
    return np.random.Generator(bits)
