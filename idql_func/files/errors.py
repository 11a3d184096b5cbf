"""The errors of files, each one sentence with what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from idql_func.errors import InputError

StrPath = str | os.PathLike[str]


class FileWriteError(InputError, OSError):
    """A file could not be written. The message names the file, the reason and what to do.

    Args:
        problem: what happened, without a full stop.
        advice: what to do.
        code: the ``errno`` of the system's error.

    >>> error = FileWriteError("a.txt could not be written: the disk is full", "free some space")
    >>> str(error), str(error.with_advice("continue with --resume"))[-24:]
    ('a.txt could not be written: the disk is full; free some space.', ' continue with --resume.')
    """

    __module__ = "idql_func.files"

    def __init__(self, problem: str, advice: str, code: int | None = None) -> None:
        super().__init__(f"{problem}; {advice}.")
        self.problem, self.advice, self.errno = problem, advice, code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem, self.advice, self.errno)

    def with_advice(self, advice: str) -> FileWriteError:
        """The same error with other advice, from a caller that knows how to go on."""
        return FileWriteError(self.problem, advice, self.errno)


class FileReadError(InputError, FileNotFoundError):
    """There is no regular file of that name, or it cannot be opened.

    >>> issubclass(FileReadError, OSError)
    True
    """

    __module__ = "idql_func.files"


@contextmanager
def explain_write_errors(path: StrPath) -> Iterator[None]:
    """Turn the system's errors of writing ``path`` into :class:`FileWriteError`.

    >>> with explain_write_errors("a.txt"):
    ...     raise OSError(errno.EROFS, "Read-only file system")
    Traceback (most recent call last):
    ...
    idql_func.files.FileWriteError: a.txt could not be written: the file system is read-only; \
choose another folder.
    """
    try:
        yield
    except FileWriteError:
        raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None or not _concerns(error, Path(path)):
            raise
        problem, advice = reason
        free = free_space(Path(path)) if error.errno == errno.ENOSPC else None
        left = "" if free is None else f" ({readable_size(free)} are free)"
        raise FileWriteError(
            f"{path} could not be written: {problem}{left}", advice, error.errno
        ) from error


_ELSEWHERE = "choose another folder"
_REASONS = {
    errno.ENOSPC: ("No space left on its disk", "free some space and try again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and try again"),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.EACCES: ("the permission is missing", f"change the permissions or {_ELSEWHERE}"),
    errno.EPERM: ("the permission is missing", f"change the permissions or {_ELSEWHERE}"),
    errno.EIO: ("the disk reports an error", "check the disk or choose another one"),
    errno.EFBIG: ("the file would be larger than is allowed here", _ELSEWHERE),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", _ELSEWHERE),
    errno.EEXIST: ("a part of the path is a file, not a folder", _ELSEWHERE),
    errno.EISDIR: ("a folder has this name", "choose another name"),
    errno.ENOTEMPTY: ("a folder has this name", "choose another name"),
    errno.ELOOP: ("the path has too many symbolic links", "choose another path"),
    errno.EMFILE: ("too many files are open", "close some, or raise the limit (ulimit -n)"),
}


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is about ``path``, its temporary file or its folders."""
    if not isinstance(error.filename, str):
        return True
    about = Path(error.filename)
    return path.parent in (about, *about.parents) or about in path.parents


def free_space(path: Path) -> int | None:
    """Free bytes on the disk of a path, None if they are unknown."""
    path = Path(os.path.abspath(path))
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def readable_size(size: int) -> str:
    """A number of bytes for a message.

    >>> readable_size(999), readable_size(2_500_000), readable_size(16 * 10**12)
    ('999 bytes', '2.5 MB', '16.0 TB')
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
