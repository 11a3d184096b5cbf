"""The system calls that change a disk. Tests replace them to inject faults."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys
from pathlib import Path
from typing import Any


def write(handle: int, data: memoryview) -> int:
    return os.write(handle, data)


def reserve(handle: int, size: int) -> None:
    try:
        os.posix_fallocate(handle, 0, size)
    except AttributeError:  # not a POSIX system
        pass
    except OSError as error:
        # some network file systems cannot
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def sync(handle: int) -> None:
    os.fsync(handle)


def rename(source: Path, target: Path) -> None:
    os.replace(source, target)


def exchange(first: Path, second: Path) -> bool:
    """Let two paths exchange their names in one step; False where the system cannot."""
    function = _renameat2()
    if function is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return function(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0


@functools.cache
def _renameat2() -> Any:
    if sys.platform != "linux":
        return None
    try:
        function = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):  # an old C library
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p) * 2 + (ctypes.c_uint,)
    return function


def sync_path(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        sync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries; some network file systems cannot, and lose nothing by it."""
    try:
        sync_path(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
