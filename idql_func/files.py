"""Write files and folders atomically; read files within a bound on time and memory.

Writing: the content goes to a temporary name in the same folder, is flushed to disk and renamed, so
that a reader or a crash finds the old content or the whole new one. All bytes pass through
:class:`OutputFile`. A full disk, a read-only one or a missing permission is a
:class:`FileWriteError`: one sentence that names the file. A temporary name holds its writer's
process, so that :func:`remove_leftovers` can tell the files of a killed process from those of a
living one.

Reading: only regular files are opened, so a pipe or a device is refused at once, and the size is
compared with a limit before anything is read.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import io
import json
import os
import re
import shutil
import socket
import stat
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from idql_func.errors import InputError

__all__ = [
    "FileReadError",
    "FileWriteError",
    "OutputFile",
    "add_digest",
    "atomic_file",
    "atomic_folder",
    "atomic_path",
    "check_digest",
    "digest",
    "explain_write_errors",
    "open_regular",
    "parse_json",
    "read_bytes",
    "read_json",
    "readable_size",
    "refuse_sparse",
    "remove_folder",
    "remove_leftovers",
    "require_memory",
    "require_space",
    "reserve",
    "write_bytes",
    "write_json",
]

StrPath = str | os.PathLike[str]

JSON_LIMIT = 1 << 22
"""Largest JSON text that is read, in bytes: parsed, it takes up to 25 times as much memory."""
JSON_DEPTH = 64
_WRITE_AT_MOST = 1 << 30  # bytes in one system call; Linux writes at most 2^31 - 4096
_SPARSE_FROM = 1 << 26
_OLD_NAMES_AFTER = 3600.0  # seconds after which a temporary file without a known writer is removed


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


# --- writing --------------------------------------------------------------------------


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
            _sync_path(temporary)
            _rename(temporary, path)
            _sync_folder(path.parent)
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
            done += _write(self.fileno(), view[done : done + _WRITE_AT_MOST])
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
                _sync_path(part)
            if not path.exists():
                _rename(temporary, path)
            elif not _exchange(temporary, path):
                old = temporary.with_suffix(".old")
                _rename(path, old)
                _rename(temporary, path)
                _sync_folder(path.parent)
                shutil.rmtree(old, ignore_errors=True)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: StrPath, content: bytes | memoryview) -> None:
    """Write a file atomically.

    >>> import tempfile
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
    free = _free_space(Path(path))
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
            _reserve(file.fileno(), size)


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
        free = _free_space(Path(path)) if error.errno == errno.ENOSPC else None
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


def _free_space(path: Path) -> int | None:
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


# The system calls that change a disk. Tests replace them to inject faults.


def _write(handle: int, data: memoryview) -> int:
    return os.write(handle, data)


def _reserve(handle: int, size: int) -> None:
    try:
        os.posix_fallocate(handle, 0, size)
    except AttributeError:  # not a POSIX system
        pass
    except OSError as error:
        # some network file systems cannot
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _sync(handle: int) -> None:
    os.fsync(handle)


def _rename(source: Path, target: Path) -> None:
    os.replace(source, target)


def _exchange(first: Path, second: Path) -> bool:
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


def _sync_path(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    """Flush a folder's entries; some network file systems cannot, and lose nothing by it."""
    try:
        _sync_path(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise


# --- temporary names ------------------------------------------------------------------


_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?:(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-(?P<start>\d+)-)?"
    r"[0-9a-f]{6,12}\.(?P<kind>part|old)"
)


def _prepare(path: Path) -> Path:
    """A temporary path beside ``path``, whose folder exists afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return _temporary_name(path)


def _temporary_name(path: Path) -> Path:
    # Same folder, since a rename is atomic only within one file system.
    process = os.getpid()
    writer = f"{_machine()}-{process}-{_start_of(process) or 0}-{uuid.uuid4().hex[:6]}"
    return path.with_name(f".{path.name}.{writer}.part")


def remove_leftovers(folder: StrPath) -> list[Path]:
    """Remove what killed processes left in a folder, not in the folders inside it.

    A file or folder that is being written by a living process stays. A folder that was about to be
    replaced, and whose new version did not get its name, gets its name back.

    Returns:
        The paths that were removed or renamed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dead = Path(folder, f".a.json.{_machine()}-0-1-abcdef.part")
        ...     dead.touch()
        ...     remove_leftovers(folder) == [dead], os.listdir(folder)
        (True, [])
    """
    folder = Path(folder)
    done = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or _writer_may_live(path, match):
            continue
        target = path.with_name(match["name"])
        with contextlib.suppress(OSError):
            if match["kind"] == "old" and not os.path.lexists(target):
                _rename(path, target)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
            done.append(path)
    return done


def remove_folder(path: StrPath) -> None:
    """Remove a folder with its content; after a crash it is whole, or a leftover.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "a", "b").mkdir(parents=True)
        ...     remove_folder(f"{folder}/a")
        ...     os.listdir(folder)
        []
    """
    path = Path(path)
    if not path.is_dir():
        return
    with explain_write_errors(path):
        temporary = _temporary_name(path)
        _rename(path, temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def _writer_may_live(path: Path, match: re.Match[str]) -> bool:
    """Whether the process that a temporary name holds may still be writing."""
    if match["machine"] == _machine():
        started = _start_of(int(match["process"]))
        return started is not None and started in (int(match["start"]), 0)
    try:  # of another machine or container, or of an earlier version
        return time.time() - path.lstat().st_mtime < _OLD_NAMES_AFTER
    except OSError:
        return True


def _start_of(process: int) -> int | None:
    """When a process started, 0 if that is unknown, None if there is no such process.

    The number of a process is used again after its end, its number and start are not.
    """
    if process <= 0:
        return None
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return 0


@functools.cache
def _machine() -> str:
    """A digest of the machine, its boot and the container, within which process numbers differ."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    return digest("\n".join(parts).encode())[:8]


# --- reading --------------------------------------------------------------------------


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


def parse_json(text: bytes | str, where: str) -> Any:
    """Parse JSON of bounded depth; NaN, infinity and a key that stands twice are refused.

    Args:
        text: the JSON, in UTF-8.
        where: the file or part of a file, for the message.

    Raises:
        InputError: the text is not JSON, or nested deeper than 64 levels.

    Example:
        >>> parse_json('{"a": 1, "a": 2}', "a.json")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.json is damaged: it has the key 'a' twice.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} is damaged: byte {error.start} is not part of a text in UTF-8."
        ) from None
    level = deepest = 0
    for match in _BRACKET_OR_STRING.finditer(decoded):
        if bracket := match[1]:
            level += 1 if bracket in "[{" else -1
            deepest = max(deepest, level)
    if deepest > JSON_DEPTH:
        raise InputError(
            f"{where} is damaged: its JSON is nested {deepest} levels deep; {JSON_DEPTH} are read."
        )
    try:
        return json.loads(decoded, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is damaged: it is not JSON in line {error.lineno}, column {error.colno}."
        ) from None
    except _JSONError as error:
        raise InputError(f"{where} is damaged: {error}.") from None
    except (ValueError, RecursionError):  # an integer of thousands of digits
        raise InputError(f"{where} is damaged: a number in it is too long.") from None


# possessive, so that a string without an end takes no more than one pass
_BRACKET_OR_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?|([\[\]{}])', re.DOTALL)


class _JSONError(Exception):
    """What is wrong with a JSON text; :func:`parse_json` adds the place."""


def _refuse_constant(name: str) -> Any:
    raise _JSONError(f"{name} is not a number in JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _JSONError(f"it has the key {twice!r} twice")
    return found


# --- digests --------------------------------------------------------------------------


def digest(content: Any) -> str:
    """The SHA-256 digest of bytes or a C-contiguous buffer.

    >>> digest(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def add_digest(data: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a JSON object with the digest of all of them as the last entry, ``digest``.

    >>> list(add_digest({"a": 1}))
    ['a', 'digest']
    """
    plain = {name: value for name, value in data.items() if name != "digest"}
    return {**plain, "digest": _digest_of_values(plain)}


def check_digest(data: Mapping[str, Any], where: str) -> bool:
    """Check what :func:`add_digest` added; False if there is no digest (of an earlier version).

    Raises:
        InputError: the digest does not match the values.

    Example:
        >>> check_digest(add_digest({"a": 1}), "a.json"), check_digest({"a": 1}, "a.json")
        (True, False)
        >>> check_digest({**add_digest({"a": 1}), "a": 2}, "a.json")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.json is damaged: its values do not match their digest.
    """
    if "digest" not in data:
        return False
    if add_digest(data)["digest"] != data["digest"]:
        raise InputError(f"{where} is damaged: its values do not match their digest.")
    return True


def _digest_of_values(data: Mapping[str, Any]) -> str:
    # after a round trip through JSON: tuples are lists then, and keys are strings
    text = json.dumps(json.loads(json.dumps(data)), sort_keys=True, separators=(",", ":"))
    return digest(text.encode())
