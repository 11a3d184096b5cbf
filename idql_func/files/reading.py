"""Open regular files alone, and read them within a bound on memory."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO

from idql_func.errors import InputError
from idql_func.files.errors import FileReadError, StrPath, readable_size
from idql_func.files.json_text import JSON_LIMIT, parse_json

_SPARSE_FROM = 1 << 26


def open_regular(path: StrPath, what: str) -> BinaryIO:
    """Open a regular file for reading bytes; a symbolic link to one is fine.

    Args:
        path: the file.
        what: what the file should be, with its article, for the messages: ``"a saved policy"``.

    Raises:
        FileReadError: there is none, it cannot be read, or it is a folder, a pipe or a device.

    Example:
        >>> open_regular("/dev/zero", "a saved policy")
        Traceback (most recent call last):
        ...
        idql_func.files.FileReadError: /dev/zero is a device, not a file; give a saved policy.
    """
    name = os.fspath(path)
    give = f"give {what}"
    try:
        _refuse_other(os.stat(name).st_mode, name, give)
        # without waiting, should a pipe have taken its place
        handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC)
        try:
            _refuse_other(os.fstat(handle).st_mode, name, give)
            return os.fdopen(handle, "rb")
        except BaseException:
            os.close(handle)
            raise
    except (FileNotFoundError, NotADirectoryError) as error:
        if isinstance(error, FileReadError):
            raise
        raise FileReadError(f"There is no file {name}; {give}.") from None
    except OSError as error:
        reason = "the permission is missing" if error.errno == errno.EACCES else error.strerror
        raise FileReadError(f"{name} cannot be read ({reason}); {give}.") from None
    except ValueError:  # a zero byte in the name
        raise FileReadError(f"{name!r} is not the name of a file; {give}.") from None


def refuse_sparse(file: BinaryIO, path: StrPath) -> None:
    """Raise for a file of which almost all was never written: it would be read for nothing."""
    about = os.fstat(file.fileno())
    used = 512 * getattr(about, "st_blocks", 0)  # 0 where the file system does not know
    if about.st_size > _SPARSE_FROM and 0 < used < about.st_size // 64:
        raise InputError(
            f"{path} has {readable_size(about.st_size)}, of which only {readable_size(used)} were "
            "written; create or download it again."
        )


def _refuse_other(mode: int, name: str, give: str) -> None:
    if stat.S_ISREG(mode):
        return
    kind = "a device"
    for test, found in ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe")):
        kind = found if test(mode) else kind
    kind = "a socket" if stat.S_ISSOCK(mode) else kind
    raise FileReadError(f"{name} is {kind}, not a file; {give}.")


def read_bytes(path: StrPath, what: str, limit: int | None = None) -> bytes:
    """Read a regular file in full.

    Args:
        path: the file.
        what: as for :func:`open_regular`.
        limit: the largest size that is read, in bytes.

    Raises:
        FileReadError: as for :func:`open_regular`.
        InputError: the file is larger than ``limit`` or than the free memory.
    """
    with open_regular(path, what) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise InputError(
                f"{path} has {readable_size(size)}, but at most {readable_size(limit)} are read; "
                f"give {what}."
            )
        refuse_sparse(file, path)
        require_memory(path, size)
        try:
            return file.read(size)
        except OSError as error:
            raise FileReadError(f"{path} cannot be read ({error.strerror}).") from None


def require_memory(path: StrPath, size: int) -> None:
    """Raise unless ``size`` bytes of memory are free, to read ``path``.

    Example:
        >>> require_memory("a.npy", 10**18)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.npy needs 1000000.0 TB of memory, but only ... are free.
    """
    free = _free_memory() if size > 1 << 26 else None
    if free is not None and size > free:
        raise InputError(
            f"{path} needs {readable_size(size)} of memory, but only {readable_size(free)} are "
            "free."
        )


def _free_memory() -> int | None:
    """Bytes of memory that Linux calls available; None elsewhere."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return None if match is None else 1024 * int(match[1])


def read_json(path: StrPath, what: str, limit: int = JSON_LIMIT) -> Any:
    """Read a JSON file; see :func:`parse_json`.

    Raises:
        FileReadError: as for :func:`open_regular`.
        InputError: the file is too large, damaged, or nested too deeply.
    """
    return parse_json(read_bytes(path, what, limit), str(path))
