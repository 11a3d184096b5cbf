"""Save a replay buffer as one safetensors file, with its metadata as JSON in the header.

The file is written atomically and nothing is pickled. Only the rows in use are written, straight
from the buffer's memory: saving makes no second copy of the frames.
"""

from __future__ import annotations

import functools
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

from idql_func.data.arrays import named_leaves
from idql_func.files import atomic_path
from idql_func.types import InputError

__all__ = ["BufferFile", "open_buffer", "read_generator", "save_buffer", "write_generator"]

_FORMAT = "idql_func replay buffer"
_FORMAT_VERSION = 1
_CHUNK = 1 << 26  # bytes per read


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
    """An open buffer file: its description, and its arrays one at a time."""

    def __init__(self, path: Path, file: Any, header: Mapping[str, Any]):
        self.description: dict[str, Any] = header["description"]
        self._path, self._file, self._sha256 = path, file, header["sha256"]

    def rows(self) -> dict[str, Any]:
        """Return a nested dict with ``(shape, dtype)`` of each array."""
        nested: dict[str, Any] = {}
        for name in self._sha256:
            *parents, last = name.split("/")
            level = functools.reduce(lambda level, key: level.setdefault(key, {}), parents, nested)
            view = self._file.get_slice(name)
            # an empty slice has the dtype without reading a row
            level[last] = (tuple(view.get_shape()), view[:0].numpy().dtype)
        return nested

    def read_into(self, arrays: Mapping[str, Any]) -> None:
        """Read the saved rows into the first rows of a nested dict of arrays.

        Raises:
            InputError: if the content does not match its checksum.
        """
        for name, array in named_leaves(arrays):
            view = self._file.get_slice(name)
            length = view.get_shape()[0]
            step = max(1, _CHUNK // max(1, array[:1].nbytes))
            for start in range(0, length, step):
                stop = min(start + step, length)
                array[start:stop] = view[start:stop].numpy()
            if _digest(array[:length]) != self._sha256[name]:
                raise InputError(
                    f"{self._path} is damaged: the checksum of {name!r} does not match its data."
                )


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
        idql_func.errors.InputError: There is no file no/such/buffer; give a saved replay buffer.
    """
    path = Path(path)
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"There is no file {path}"
        raise InputError(f"{what}; give a saved replay buffer.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("idql_func", "{}"))
            if header.get("format") != _FORMAT:
                raise InputError(f"{path} is not a replay buffer saved by idql_func.")
            if header.get("format_version") != _FORMAT_VERSION:
                raise InputError(
                    f"{path} has format version {header.get('format_version')}, but this version "
                    f"of idql_func reads version {_FORMAT_VERSION}."
                )
            yield BufferFile(path, file, header)
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path} is not a saved replay buffer, or it is damaged: {error}."
        ) from None
    except (KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged: its description is invalid ({error!r}).") from None


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


def _digest(array: np.ndarray) -> str:
    content: Any = array.reshape(-1).view(np.uint8)
    return hashlib.sha256(content).hexdigest()
