"""Open and create HDF5 files: nothing outside the file is read, and sizes are known beforehand.

HDF5 can keep an array in other files (external storage, virtual datasets, external links), and a
file of a few kilobytes can declare or compress gigabytes. :func:`open_hdf5` refuses both before an
array is read. Files that :func:`create_hdf5` wrote end with digests of all their bytes, after the
end of what HDF5 reads; those of other programs have none and are read as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from idql_func.files import (
    OutputFile,
    add_digest,
    atomic_file,
    check_digest,
    open_regular,
    parse_json,
    readable_size,
    refuse_sparse,
    require_memory,
)
from idql_func.types import InputError

__all__ = ["Column", "Hdf5File", "create_hdf5", "open_hdf5", "row_blocks"]

WHAT = "the path of an HDF5 file in D4RL's format"
FREE_SIZE = 1 << 26
RATIO = 3
"""The arrays of a file may be this many times as large as the file, and 64 MB larger."""
_DEPTH = 32
_BLOCK = 1 << 16  # rows
_MARK = b"\nidql_func digest "
_FOOT = len(_MARK) + 8
_PAGE = 512  # words of 8 bytes
_PIECE = 1 << 20
_LARGE = 1 << 16  # arrays of more bytes have a digest of their own
_INFLATES = 1032  # the largest ratio of deflate
_KNOWN_FILTERS = {1, 2, 3, 4, 5, 6, 32000}  # deflate, shuffle, fletcher32, szip, …, lzf
# odd, so that a change of one word changes the sum
_WEIGHTS = (2 * np.arange(_PAGE, dtype=np.uint64) + 1) * np.uint64(0x9E3779B97F4A7C15)
_ENDS_AT = {0: 40, 1: 44, 2: 28, 3: 28}  # in HDF5's superblock, by its version


class Column:
    """An array in a file, of which a slice of rows is read at a time.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with create_hdf5(f"{folder}/a.hdf5") as file:
    ...         _ = file.create_dataset("a", data=np.arange(5))
    ...     with open_hdf5(f"{folder}/a.hdf5") as file:
    ...         file.columns(["a"])["a"][1:3]
    array([1, 2])
    """

    def __init__(self, dataset: Any, errors: Callable[[], Any]) -> None:
        self.dataset, self._errors = dataset, errors
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype = dataset.dtype
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        self.chunk_rows: int = dataset.chunks[0] if dataset.chunks else 1

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        with self._errors():
            return self.dataset[rows]


def row_blocks(array: np.ndarray | Column) -> Iterator[tuple[int, int]]:
    """The first row and the one after the last of blocks of rows, such that no chunk of a file is
    read twice.

    >>> list(row_blocks(np.zeros(100_000)))
    [(0, 65536), (65536, 100000)]
    """
    chunk = array.chunk_rows if isinstance(array, Column) else 1
    step = max(1, _BLOCK // chunk) * chunk
    for start in range(0, len(array), step):
        yield start, min(start + step, len(array))


class Hdf5File:
    """An open file whose arrays have been checked before they are read."""

    def __init__(self, path: Path, file: h5py.File, raw: BinaryIO, large: dict[int, Any]) -> None:
        self.path, self.file, self._raw, self._large = path, file, raw, large
        self._size = os.fstat(raw.fileno()).st_size

    def columns(
        self, wanted: Sequence[str] | None = None, every: bool = False
    ) -> dict[str, Column]:
        """The arrays of numbers by their path in the file, not yet read.

        Args:
            wanted: paths; missing ones are left out. Default: all.
            every: also give columns of other types, which must not be read.

        Raises:
            InputError: an array is outside the file, damaged, or too large for the file's size.
        """
        with self._errors():
            found: dict[str, Any] = {}
            _walk(self.file, "", None if wanted is None else set(wanted), found, self.path, set())
        checked, total = {}, 0
        limit = RATIO * self._size + FREE_SIZE
        for name, dataset in found.items():
            where = f"{self.path}: {name!r}"
            with self._errors():
                if not _holds_numbers(dataset, where, wanted is not None):
                    if every and dataset.shape is not None:
                        checked[name] = Column(dataset, self._errors)
                    continue
                _refuse_other_files(dataset, where)
                total += math.prod(dataset.shape) * dataset.dtype.itemsize
                _check_chunks(dataset, limit, where)
            if total > limit:
                raise InputError(
                    f"{self.path} has {readable_size(self._size)} but its arrays would take "
                    f"{readable_size(total)}, more than {RATIO} times as much; if you trust it, "
                    "unpack it first with `h5repack -f NONE`."
                )
            with self._errors():
                self._check_place(dataset, where)
            checked[name] = Column(dataset, self._errors)
        require_memory(self.path, total)
        return checked

    def is_group(self, name: str) -> bool:
        """Whether a name at the root is a group of arrays, not a link."""
        with self._errors():
            link = self.file.get(name, getlink=True)
            return isinstance(link, h5py.HardLink) and isinstance(self.file[name], h5py.Group)

    def attributes(self) -> dict[str, Any]:
        """The attributes at the root: numbers, arrays of numbers, and strings."""
        found: dict[str, Any] = {}
        with self._errors():
            for name in self.file.attrs:
                about = self.file.attrs.get_id(name)
                numeric = about.dtype.kind in "biufc"
                if about.get_storage_size() > _PIECE or not (numeric or about.shape == ()):
                    continue
                value = self.file.attrs[name]
                found[name] = value.item() if isinstance(value, np.generic) else value
        return found

    def _check_place(self, dataset: Any, where: str) -> None:
        """Raise unless an array that is stored in one piece is in the file, and is undamaged."""
        offset, size = dataset.id.get_offset(), dataset.id.get_storage_size()
        if offset is None:
            return
        declared = math.prod(dataset.shape) * dataset.dtype.itemsize
        if offset + size > self._size or size < declared:
            raise InputError(f"{where} is larger than the file; create or download it again.")
        known = self._large.get(offset)
        if known is None:
            return
        pieces = _pieces_in(self._raw, offset, size)  # the size has been compared with the file's
        if known[0] != size or known[1] != _page_digest(pieces):
            raise InputError(f"{where} is damaged: its values do not match their digest.")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with _hdf5_errors(self.path):
            yield


@contextmanager
def open_hdf5(path: str | os.PathLike[str], what: str = WHAT) -> Iterator[Hdf5File]:
    """Open an HDF5 file for reading.

    Args:
        path: a regular file.
        what: as for :func:`idql_func.files.open_regular`.

    Raises:
        InputError: there is no such file, it is not HDF5, it is damaged or cut off.

    >>> with open_hdf5("no/such.hdf5"):
    ...     pass
    Traceback (most recent call last):
    ...
    idql_func.files.FileReadError: There is no file no/such.hdf5; give the path of an HDF5 file in \
D4RL's format.
    """
    path = Path(path)
    with open_regular(path, what) as raw:
        size = os.fstat(raw.fileno()).st_size
        with _hdf5_errors(path):
            is_hdf5 = h5py.is_hdf5(path)
        if not is_hdf5:
            raise InputError(
                f"{path} ({size} bytes) is not an HDF5 file; give an HDF5 file in D4RL's format."
            )
        refuse_sparse(raw, path)
        large = _check_digests(raw, size, path)
        try:
            file = h5py.File(path, "r")
        except Exception:  # h5py raises errors of many types for a damaged file
            raise InputError(
                f"{path} is a truncated or damaged HDF5 file of {size} bytes; create or download "
                "it again."
            ) from None
        with file:
            yield Hdf5File(path, file, raw, large)


@contextmanager
def create_hdf5(
    path: str | os.PathLike[str], size: int | None = None, **options: Any
) -> Iterator[h5py.File]:
    """Write an HDF5 file atomically: yield an empty one for the block to fill.

    HDF5 cannot cope with a full disk, so it writes to a file object that accepts everything; the
    first error of the system is raised once HDF5 has closed its file.

    Args:
        path: the file; an existing one is replaced.
        size: number of bytes of the arrays, if known.
        options: of ``h5py.File``.

    Raises:
        FileWriteError: the disk is full or read-only, or the permission is missing.
    """
    with atomic_file(path, size) as output:
        stored = _Uninterrupted(output)
        large: list[list[Any]] = []
        try:
            with h5py.File(stored, "w", **options) as file:
                yield file
                file.visititems(lambda _, item: _note_large(item, large))
        except Exception:
            stored.raise_error()
            raise
        stored.raise_error()
        _append_digests(output, large, stored.digests)


class _Uninterrupted(io.RawIOBase):
    """A file for HDF5 to write to, without errors: the first is kept, later writes are dropped.

    Attributes:
        digests: those of the large pieces that were written at once and not changed later, by
            offset and size.
    """

    def __init__(self, output: OutputFile) -> None:
        self._output, self._error, self._end = output, None, 0
        self.digests: dict[tuple[int, int], str] = {}

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        at, size = self.tell(), len(data)
        if at < self._end:  # most writes only append
            for other in [*self.digests]:
                if other[0] < at + size and at < sum(other):
                    del self.digests[other]
        self._end = max(self._end, at + size)
        if size > _LARGE:
            self.digests[at, size] = _page_digest(_pieces_of(data))
        self._attempt(lambda: self._output.write(data))
        return size

    def truncate(self, size: int | None = None) -> int:
        self._attempt(lambda: self._output.truncate(size))
        return size or 0

    def readinto(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        view[:] = bytes(len(view))
        self._attempt(lambda: self._output.readinto(view))
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._output.seek(offset, whence)

    def tell(self) -> int:
        return self._output.tell()

    def flush(self) -> None:
        pass

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def _attempt(self, call: Callable[[], Any]) -> None:
        if self._error is None:
            try:
                call()
            except BaseException as error:  # Ctrl-C too must not pass through HDF5
                self._error = error


# --- checks ---------------------------------------------------------------------------


def _walk(
    group: Any,
    prefix: str,
    wanted: set[str] | None,
    found: dict[str, Any],
    path: Path,
    seen: set[int],
) -> None:
    """Collect the datasets of a file. Soft links are left out, and each object is seen once."""
    if prefix.count("/") > _DEPTH:
        raise InputError(f"{path}: its groups are nested more than {_DEPTH} levels deep.")
    for key in group:
        name = f"{prefix}{key}"
        if not _is_wanted(name, wanted):
            continue
        link = group.get(key, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"{path}: {name!r} is a link to another file ({link.filename}); only arrays in the "
                "file itself are read."
            )
        if not isinstance(link, h5py.HardLink):
            if wanted is None:
                continue
            raise InputError(
                f"{path}: {name!r} is a link; only arrays in the file itself are read."
            )
        item = group[key]
        address = h5py.h5o.get_info(item.id).addr  # pyright: ignore[reportAttributeAccessIssue]
        if address in seen:
            continue
        seen.add(address)
        if isinstance(item, h5py.Dataset):
            found[name] = item
        elif isinstance(item, h5py.Group):
            _walk(item, f"{name}/", wanted, found, path, seen)


def _is_wanted(name: str, wanted: set[str] | None) -> bool:
    """Whether an array of this path, or one in the group of this path, is to be read."""
    return wanted is None or name in wanted or any(w.startswith(f"{name}/") for w in wanted)


def _holds_numbers(dataset: Any, where: str, required: bool) -> bool:
    """Whether a dataset can be read; one that is required and is something else raises."""
    kind = dataset.dtype.kind
    if dataset.shape is not None and (
        kind in "biufc" or (not required and kind in "SO" and dataset.shape == ())
    ):
        return True
    if required:
        what = "is empty" if dataset.shape is None else f"has dtype {dataset.dtype}"
        raise InputError(f"{where} {what}; it must hold real numbers.")
    return False


def _refuse_other_files(dataset: Any, where: str) -> None:
    settings = dataset.id.get_create_plist()
    if settings.get_layout() == h5py.h5d.VIRTUAL or settings.get_external_count():
        raise InputError(
            f"{where} is stored in another file; only arrays in the file itself are read."
        )


def _check_chunks(dataset: Any, limit: int, where: str) -> None:
    """Raise if reading a chunk may take much more memory than it declares."""
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    unknown = set(filters) - _KNOWN_FILTERS
    if unknown:
        raise InputError(
            f"{where} is compressed by the filter {min(unknown)}, which is not part of HDF5; "
            "unpack it first with `h5repack -f NONE`."
        )
    if not dataset.chunks:
        return
    declared = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if declared > limit:
        raise InputError(f"{where} has chunks of {readable_size(declared)}, larger than the file.")
    if 1 not in filters:
        return
    suspects = []

    def note(chunk: Any) -> None:
        if chunk.size * _INFLATES > FREE_SIZE:
            suspects.append(chunk.chunk_offset)

    dataset.id.chunk_iter(note)
    for place in suspects:
        _, packed = dataset.id.read_direct_chunk(place)
        inflate, size = zlib.decompressobj(), 0
        try:
            while size <= declared and not inflate.eof and packed:
                size += len(inflate.decompress(packed, _PIECE))
                packed = inflate.unconsumed_tail
        except zlib.error:
            continue  # HDF5 reports it when it reads the chunk
        if size > declared:
            raise InputError(f"{where} has a chunk that unpacks to more than it declares.")


@contextmanager
def _hdf5_errors(path: Path) -> Iterator[None]:
    """Turn h5py's errors, which are of many types, into one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception:
        raise InputError(f"{path} is a damaged HDF5 file; create or download it again.") from None


# --- digests --------------------------------------------------------------------------


def _note_large(item: Any, large: list[list[Any]]) -> None:
    if isinstance(item, h5py.Dataset) and item.id.get_storage_size() > _LARGE:
        offset = item.id.get_offset()
        if offset is not None:
            large.append([offset, item.id.get_storage_size()])


def _append_digests(
    file: OutputFile, large: list[list[Any]], known: Mapping[tuple[int, int], str]
) -> None:
    end = file.seek(0, os.SEEK_END)
    places = [
        [at, size, known.get((at, size)) or _page_digest(_pieces_in(file, at, size))]
        for at, size in sorted(large)
    ]
    rest = _digest_around(file, end, places)
    text = json.dumps(add_digest({"end": end, "large": places, "rest": rest})).encode()
    file.seek(end)
    file.write(text + _MARK + b"%08d" % len(text))


def _check_digests(file: BinaryIO, size: int, path: Path) -> dict[int, Any]:
    """Check all of a file but its large arrays, and return their digests by their place."""
    file.seek(max(0, size - _FOOT))
    foot = file.read(_FOOT)
    if not foot.startswith(_MARK) and not _has_remains(file):
        return {}
    damaged = InputError(
        f"{path} is truncated or damaged: its content does not match its digest; create or "
        "download it again."
    )
    try:
        length = int(foot[len(_MARK) :])
        start = size - _FOOT - length
        if start < 0:
            raise damaged
        file.seek(start)
        about = parse_json(file.read(length), str(path))
        if about["end"] != start or not check_digest(about, str(path)):
            raise damaged
        places = [(int(at), int(count), str(value)) for at, count, value in about["large"]]
        if _digest_around(file, start, places) != about["rest"]:
            raise damaged
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise damaged from None
    return {at: (count, value) for at, count, value in places}


def _has_remains(file: BinaryIO) -> bool:
    """Whether digests begin after the end of what HDF5 reads: the file has been cut off."""
    file.seek(0)
    head = file.read(64)
    place = _ENDS_AT.get(head[8]) if len(head) == 64 else None
    if place is None:
        return False
    end = int.from_bytes(head[place : place + 8], "little")
    file.seek(min(end, os.fstat(file.fileno()).st_size))
    rest = file.read(7)
    return bool(rest) and b'{"end":'.startswith(rest)


def _digest_around(file: Any, end: int, places: Sequence[Sequence[Any]]) -> str:
    """The SHA-256 digest of a file's first ``end`` bytes without some places."""
    found, at = hashlib.sha256(), 0
    for start, size, _ in [*places, [end, 0, ""]]:
        file.seek(at)
        while at < start:
            piece = file.read(min(_PIECE, start - at))
            if not piece:
                raise ValueError("the file is shorter")
            found.update(piece)
            at += len(piece)
        at = max(at, start + size)
    return found.hexdigest()


def _page_digest(pieces: Iterator[np.ndarray]) -> str:
    """A digest of many bytes at the speed of reading them: SHA-256 of a sum for each 4096 bytes.

    Each word of 8 bytes has its own odd weight in the sum, so a change of one word is always found,
    and other damage with a probability of 1 - 2^-64.
    """
    found = hashlib.sha256()
    for piece in pieces:
        sums: np.ndarray = np.einsum("ij,j->i", piece.reshape(-1, _PAGE), _WEIGHTS)
        found.update(sums.tobytes())
    return found.hexdigest()


def _pieces_of(data: Any) -> Iterator[np.ndarray]:
    """The bytes of a buffer as arrays of words, the last one filled with zeros."""
    view = memoryview(data).cast("B")
    for at in range(0, len(view), _PIECE):
        piece = view[at : at + _PIECE]
        if len(piece) < _PIECE:
            piece = bytes(piece).ljust(_PIECE, b"\0")
        yield np.frombuffer(piece, "<u8")


def _pieces_in(file: Any, offset: int, size: int) -> Iterator[np.ndarray]:
    """The bytes at a place in a file likewise; each array is overwritten by the next.

    Raises:
        ValueError: the file is shorter.
    """
    piece = np.zeros(_PIECE // 8, "<u8")
    file.seek(offset)
    view = piece.data.cast("B")
    while size > 0:
        count = min(size, _PIECE)
        got = 0
        while got < count:
            read = file.readinto(view[got:count])
            if not read:
                raise ValueError("the file is shorter")
            got += read
        view[count:] = bytes(_PIECE - count)
        yield piece
        size -= count
