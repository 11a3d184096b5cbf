"""Write files and folders atomically."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from idql_func.errors import InputError
from idql_func.files import system
from idql_func.files.errors import (
    FileWriteError,
    StrPath,
    explain_write_errors,
    free_space,
    readable_size,
)
from idql_func.files.leftovers import temporary_name

_WRITE_AT_MOST = 1 << 30  # bytes in one system call; Linux writes at most 2^31 - 4096


@contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success rename it to ``path``.

    For libraries that write to a path themselves; :func:`atomic_file` is the better choice for
    those that write to an open file. The temporary file is flushed to disk before the rename. If
    the block raises, it is removed and ``path`` keeps its old content. Missing parent folders are
    created.

    Raises:
        FileWriteError: the disk is full or read-only, or the permission is missing.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(f"{folder}/a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     pathlib.Path(folder, "a.txt").read_text(), len(os.listdir(folder))
        ('whole', 1)
    """
    path = Path(path)
    with explain_write_errors(path):
        temporary = _prepare(path)
        try:
            yield temporary
            system.sync_path(temporary)
            system.rename(temporary, path)
            system.sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: StrPath, size: int | None = None) -> Iterator[OutputFile]:
    """Do the same, and yield the temporary file itself, open for writing (and reading) bytes.

    Args:
        path: the file; an existing one is replaced.
        size: number of bytes that will be written, if known: the room is reserved first.

    Raises:
        FileWriteError: as for :func:`atomic_path`.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_file(f"{folder}/a.txt") as file:
        ...         _ = file.write(b"whole")
        ...     pathlib.Path(folder, "a.txt").read_text(), len(os.listdir(folder))
        ('whole', 1)
    """
    with atomic_path(path) as temporary:
        if size is not None:
            require_space(path, size)
        with OutputFile(temporary, "x+") as file:
            yield file


class OutputFile(io.FileIO):
    """An unbuffered binary file; all bytes that the package writes go through :meth:`write`."""

    def write(self, data: Any) -> int:
        """Write all the bytes of a C-contiguous buffer."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += system.write(self.fileno(), view[done : done + _WRITE_AT_MOST])
        return done


@contextmanager
def atomic_folder(path: StrPath) -> Iterator[Path]:
    """Do the same for a folder: yield a temporary path, not created yet, for the block to fill.

    An existing folder ``path`` is replaced at the end: the two exchange their names in one step
    where the system can do this (Linux). Elsewhere the old one is renamed first, and
    :func:`remove_leftovers` gives it its name back after a crash between the two renames.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_folder(f"{folder}/a") as temporary:
        ...         temporary.mkdir()
        ...         _ = (temporary / "b.txt").write_text("whole")
        ...     pathlib.Path(folder, "a", "b.txt").read_text(), len(os.listdir(folder))
        ('whole', 1)
    """
    path = Path(path)
    with explain_write_errors(path):
        temporary = _prepare(path)
        try:
            yield temporary
            for part in (*temporary.rglob("*"), temporary):
                system.sync_path(part)
            if not path.exists():
                system.rename(temporary, path)
            elif not system.exchange(temporary, path):
                old = temporary.with_suffix(".old")
                system.rename(path, old)
                system.rename(temporary, path)
                system.sync_folder(path.parent)
                shutil.rmtree(old, ignore_errors=True)
            system.sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: StrPath, content: bytes | memoryview) -> None:
    """Write a file atomically.

    >>> import tempfile
    >>> from idql_func.files import read_bytes
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_bytes(f"{folder}/a", b"whole")
    ...     read_bytes(f"{folder}/a", "a file")
    b'whole'
    """
    with atomic_file(path, len(content)) as file:
        file.write(content)


def write_json(path: StrPath, data: Mapping[str, Any]) -> None:
    """Write a JSON file atomically.

    Raises:
        InputError: JSON cannot represent a value, such as NaN.

    >>> import tempfile
    >>> from idql_func.files import read_json
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(f"{folder}/a.json", {"a": [1, None]})
    ...     read_json(f"{folder}/a.json", "a file")
    {'a': [1, None]}
    """
    try:
        text = json.dumps(data, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: a value cannot be written as JSON ({error}).") from None
    write_bytes(path, f"{text}\n".encode())


def require_space(path: StrPath, size: int) -> None:
    """Raise unless the disk of ``path``, which need not exist yet, has room for ``size`` bytes.

    Example:
        >>> require_space("a.hdf5", 10**18)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        idql_func.files.FileWriteError: a.hdf5 needs 1000000.0 TB, but ... free on its disk; free \
some space, or choose another folder.
    """
    free = free_space(Path(path))
    if free is not None and free < size:
        raise FileWriteError(
            f"{path} needs {readable_size(size)}, but only {readable_size(free)} are free on its "
            "disk",
            "free some space, or choose another folder",
            errno.ENOSPC,
        )


def reserve(path: StrPath) -> None:
    """Give an existing file all the room on its disk that its size needs.

    Raises:
        FileWriteError: the disk is full.
    """
    with explain_write_errors(path), open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if size:
            system.reserve(file.fileno(), size)


def _prepare(path: Path) -> Path:
    """A temporary path beside ``path``, whose folder exists afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return temporary_name(path)
