"""Safetensors files with a digest: written without a copy, and checked before they are read.

The format is that of the safetensors package, which reads these files: the length of a header, the
header in JSON (for each tensor its dtype, shape and place; free texts under ``__metadata__``) and
the tensors' bytes. The entry ``digest`` of the metadata is over the rest of the header, and the
entry ``sha256`` holds the digest of each tensor.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from idql_func.errors import InputError
from idql_func.files import (
    JSON_LIMIT,
    add_digest,
    atomic_file,
    digest,
    open_regular,
    parse_json,
    refuse_sparse,
    require_memory,
)
from idql_func.files.digests import misnamed_digest

__all__ = ["TensorFile", "open_tensors", "write_tensors"]

_DTYPES = {
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F32": torch.float32,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Path:
    """Write contiguous tensors on the CPU and texts to one file, atomically.

    Raises:
        FileWriteError: the disk is full or read-only, or the permission is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_tensors(f"{folder}/a", {"w": torch.ones(2)}, {"who": "x"})
        ...     with open_tensors(path, "a file of tensors") as file:
        ...         file.metadata["who"], file.read("w")
        ('x', tensor([1., 1.]))
    """
    # the widest first, so that each is aligned
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, Any] = {}
    sums = {name: digest(_bytes_of(tensor)) for name, tensor in tensors.items()}
    place = 0
    for name in names:
        tensor = tensors[name]
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, place + tensor.nbytes],
        }
        place += tensor.nbytes
    texts = {**metadata, "sha256": json.dumps(sums)}
    texts["digest"] = _digest_of_header(texts, entries)
    header = json.dumps({"__metadata__": texts, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with atomic_file(path, 8 + len(header) + place) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in names:
            file.write(_bytes_of(tensors[name]))
    return Path(path)


class TensorFile:
    """An open file whose header has been checked.

    Attributes:
        metadata: its texts.
        tensors: dtype and shape of each tensor, in the order in which they were given.
    """

    def __init__(
        self, file: BinaryIO, start: int, entries: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        self._file, self._start, self._entries = file, start, entries
        self.metadata = dict(metadata)
        self._sums: Any = parse_json(metadata.get("sha256", "{}"), "its list of checksums")
        if not isinstance(self._sums, dict) or not self._sums.keys() <= entries.keys():
            raise InputError("its checksums are not those of its tensors")
        self.tensors = {
            name: (_DTYPES[entries[name]["dtype"]], tuple(entries[name]["shape"]))
            for name in {**self._sums, **entries}
        }

    def warn_without_digest(self, path: str | os.PathLike[str]) -> None:
        """Say that a file of an earlier version has no digest of its header."""
        if "digest" not in self.metadata:
            warnings.warn(
                f"{path} was written by an earlier version, without a digest of its header: damage "
                "there is not found.",
                stacklevel=5,
            )

    def read(self, name: str) -> Tensor:
        """Read a tensor.

        Raises:
            InputError: it is damaged.
        """
        dtype, shape = self.tensors[name]
        tensor = torch.empty(shape, dtype=dtype)
        self.read_into(name, tensor)
        return tensor

    def read_into(self, name: str, tensor: Tensor) -> None:
        """Read a tensor into one of the same dtype and shape, which is contiguous."""
        view = _bytes_of(tensor).data
        self._file.seek(self._start + self._entries[name]["data_offsets"][0])
        done = 0
        while done < len(view):
            count = self._file.readinto(view[done:])  # type: ignore[attr-defined]
            if not count:
                raise InputError(f"the values of {name!r} are cut off")
            done += count
        if name in self._sums and digest(view) != self._sums[name]:
            raise InputError(f"the checksum of {name!r} does not match its data")


@contextmanager
def open_tensors(
    path: str | os.PathLike[str], what: str, problem: str = "{path} is damaged"
) -> Iterator[TensorFile]:
    """Open a safetensors file for reading.

    Args:
        path: the file.
        what: as for :func:`idql_func.files.open_regular`.
        problem: the start of the message about a damaged file.

    Raises:
        InputError: there is no such file, it is not a safetensors file, or it is damaged.
    """
    with open_regular(path, what) as file:
        refuse_sparse(file, path)
        start = problem.format(path=path)
        try:
            begin, entries, metadata = _read_header(file)
            opened = TensorFile(file, begin, entries, metadata)
        except InputError as error:
            raise InputError(f"{start}: {str(error).rstrip('.')}.") from None
        require_memory(path, os.fstat(file.fileno()).st_size)
        yield opened


def _bytes_of(tensor: Tensor) -> np.ndarray:
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()


def _digest_of_header(texts: Mapping[str, str], entries: Mapping[str, Any]) -> str:
    about = {
        "metadata": {name: text for name, text in texts.items() if name != "digest"},
        "tensors": {name: [entry["dtype"], entry["shape"]] for name, entry in entries.items()},
    }
    return add_digest(about)["digest"]


def _read_header(file: BinaryIO) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Where the tensors' bytes begin, the entry of each tensor, and the texts."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(size - 8, JSON_LIMIT):
        raise InputError("it does not begin with the header of a safetensors file")
    header = parse_json(file.read(length), "its header")
    if not isinstance(header, dict):
        raise InputError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InputError("its metadata are not texts")
    place = 0
    spans = []
    for name, entry in header.items():
        spans.append((_span_of(name, entry), name))
    for (begin, end), name in sorted(spans):
        if begin != place or end < begin:
            raise InputError(f"the place of {name!r} in it is wrong")
        place = end
    if 8 + length + place != size:
        raise InputError(f"it has {size} bytes, but its header describes {8 + length + place}")
    if "digest" not in metadata and misnamed_digest(
        metadata, lambda others: _digest_of_header(others, header)
    ):
        raise InputError("the name of its digest is wrong")
    if "digest" in metadata and metadata["digest"] != _digest_of_header(metadata, header):
        raise InputError("its header does not match its digest")
    return 8 + length, header, metadata


def _span_of(name: str, entry: Any) -> tuple[int, int]:
    """The place of a tensor, which agrees with its dtype and shape."""
    try:
        dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"the entry of {name!r} in its header is wrong") from None
    numbers = [*shape, begin, end] if isinstance(shape, list) and len(shape) <= 64 else [-1]
    if not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise InputError(f"the entry of {name!r} in its header is wrong")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise InputError(f"the size of {name!r} does not match its shape")
    return begin, end
