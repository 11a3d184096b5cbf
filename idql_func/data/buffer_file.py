"""A replay buffer on disk: one safetensors file, its description in JSON in the header.

The file is written beside its place, flushed to disk and then renamed, so one of that name is
always whole. Nothing is pickled. Only rows in use are written, from where they lie: saving takes no
second copy of the frames in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file

from idql_func.atomic import atomic_path
from idql_func.data.arrays import named_leaves
from idql_func.types import InputError

__all__ = ["BufferFile", "open_buffer", "read_generator", "save_buffer", "write_generator"]

_FORMAT = "idql_func replay buffer"
_FORMAT_VERSION = 1
_CHUNK = 1 << 26  # bytes read at a time


def save_buffer(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], description: Mapping[str, Any]
) -> Path:
    """Write arrays and their description, whole or not at all.

    Args:
        path: the file; folders are made, a file of that name is replaced at the end.
        arrays: nested dict of C-contiguous arrays of any shape.
        description: JSON-able.

    Returns:
        The path.

    Raises:
        OSError: the disk is full or the place cannot be written to; nothing of it stays behind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_buffer(f"{folder}/a.safetensors", {"a": np.ones(2)}, {"size": 2})
        ...     with open_buffer(path) as file:
        ...         file.description["size"], file.rows()
        (2, {'a': ((2,), dtype('float64'))})
    """
    flat = dict(named_leaves(arrays))
    header = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "description": dict(description),
        "sha256": {name: _digest(array) for name, array in flat.items()},
    }
    tensors = {name: torch.from_numpy(array) for name, array in flat.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"idql_func": json.dumps(header, allow_nan=False)})
    return Path(path)


class BufferFile:
    """An open buffer file: what it says of itself, and its arrays one by one."""

    def __init__(self, path: Path, file: Any, header: Mapping[str, Any]):
        self.description: dict[str, Any] = header["description"]
        self._path, self._file, self._sha256 = path, file, header["sha256"]

    def rows(self) -> dict[str, Any]:
        """Nested dict of ``(shape, dtype)`` of each array."""
        nested: dict[str, Any] = {}
        for name in self._sha256:
            *parents, last = name.split("/")
            place = nested
            for parent in parents:
                place = place.setdefault(parent, {})
            piece = self._file.get_slice(name)
            # an empty slice tells the dtype without reading a row
            place[last] = (tuple(piece.get_shape()), piece[:0].numpy().dtype)
        return nested

    def read_into(self, arrays: Mapping[str, Any]) -> None:
        """Fill the first rows of a nested dict of arrays.

        Raises:
            InputError: the content is not what was written.
        """
        for name, array in named_leaves(arrays):
            piece = self._file.get_slice(name)
            length = piece.get_shape()[0]
            step = max(1, _CHUNK // max(1, array[:1].nbytes))
            for start in range(0, length, step):
                stop = min(start + step, length)
                array[start:stop] = piece[start:stop].numpy()
            if _digest(array[:length]) != self._sha256[name]:
                raise InputError(f"{self._path} is damaged: {name!r} is not what was saved.")


@contextmanager
def open_buffer(path: str | os.PathLike[str]) -> Iterator[BufferFile]:
    """Open a file that :func:`save_buffer` wrote.

    Raises:
        InputError: no such file, a folder, another kind of file, or one that is cut off or damaged.

    Example:
        >>> with open_buffer("no/such/buffer"):
        ...     pass
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: There is no file no/such/buffer; give a saved replay buffer.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file of a saved replay buffer.")
    if not path.exists():
        raise InputError(f"There is no file {path}; give a saved replay buffer.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("idql_func", "{}"))
            if header.get("format") != _FORMAT:
                raise InputError(f"{path} is no replay buffer saved by idql_func.")
            if header.get("format_version") != _FORMAT_VERSION:
                raise InputError(
                    f"{path} has format version {header.get('format_version')}, but this version "
                    f"of idql_func reads version {_FORMAT_VERSION}."
                )
            yield BufferFile(path, file, header)
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is no saved replay buffer, or a damaged one: {error}.") from None
    except (KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged: {error!r} in its description.") from None


def write_generator(generator: np.random.Generator) -> dict[str, Any]:
    """A PCG64 generator as JSON: where its stream stands, and the seed that it spawns from.

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
    """The generator that :func:`write_generator` wrote.

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


def _digest(array: np.ndarray) -> str:
    content: Any = array.reshape(-1).view(np.uint8)
    return hashlib.sha256(content).hexdigest()
