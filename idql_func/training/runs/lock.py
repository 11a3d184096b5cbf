"""Who works in a folder: a lock that ends with the process that holds it.

The lock is the file ``.lock`` in the folder, held with ``flock``. The kernel releases it when the
process ends, however it ends, so a file without a lock on it is what a killed process has left.
File systems without ``flock`` get a file that exists while the lock is held; it names the process,
and the lock of a process that is gone counts as released.

A folder may lie in the folder of another run: the members of a group do, and the offline run of a
fine-tuning run. Who locks the inner folder also takes a shared lock of the outer one, so that one
process cannot work on a group while another works on one of its members.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from idql_func.files import system, write_bytes
from idql_func.files.leftovers import start_of_process
from idql_func.types import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "FolderInUse", "FolderLock", "Owner", "lock_folder", "owner_of"]

LOCK = ".lock"
"""The name of the lock's file."""

_PATIENCE = 0.3
"""Seconds to wait for a lock: a reader holds it for a moment to see whether it is free."""

_LONGEST_GUARD = 10.0
"""Seconds after which the guard of a lock by existence is that of a killed process."""

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
"""What ``flock`` reports on a file system that has no locks."""

_held: dict[tuple[int, int], int] = {}
"""The lock files that this process holds, by device and number, and their handles."""


class FolderInUse(InputError):
    """Another process, or another run of this one, works in the folder."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock; what its file does not say is None."""

    pid: int | None = None
    host: str | None = None
    since: str | None = None
    ticks: int | None = None  # the process's start, so that another one of the same number differs

    def __str__(self) -> str:
        if self.pid is None:
            return "another process"
        where = "" if self.host in (None, socket.gethostname()) else f" on {self.host}"
        since = "" if self.since is None else f", since {self.since}"
        return f"process {self.pid}{where}{since}"

    @property
    def may_live(self) -> bool:
        """Whether the process may still run: not known of other machines."""
        if self.pid is None or self.host != socket.gethostname():
            return self.pid is not None
        started = start_of_process(self.pid)
        return started is not None and (not self.ticks or started in (0, self.ticks))


@dataclass
class FolderLock:
    """A lock that is held; :meth:`release` ends it.

    Args:
        folder: the folder.
        inode: device and number of the lock's file; None on a file system without ``flock``.
        outer: the shared lock of the enclosing run's folder.
    """

    folder: Path
    inode: tuple[int, int] | None
    outer: FolderLock | None = None
    _token: str = field(default="", repr=False)

    def lost(self) -> bool:
        """Whether the folder was removed or moved away since the lock was taken."""
        try:
            found = os.stat(self.folder / LOCK)
        except OSError:
            return True
        return self.inode is not None and self.inode != (found.st_dev, found.st_ino)

    def release(self) -> None:
        """Release the lock and remove its file."""
        path = self.folder / LOCK
        if self.inode is None:
            if self._token and _read(path).get("token") == self._token:
                path.unlink(missing_ok=True)
        elif (handle := _held.pop(self.inode, None)) is not None:
            # The file is removed while it is locked: whoever opened it before sees the difference.
            with suppress(OSError):
                # a shared lock may have other holders, and then its file stays
                _flock(handle, shared=False)
                if not self.lost():
                    path.unlink()
            os.close(handle)
        if self.outer is not None:
            self.outer.release()


def lock_folder(folder: Path, outer: Path | None = None, patience: float = _PATIENCE) -> FolderLock:
    """Lock an existing folder for this run.

    Args:
        folder: the folder.
        outer: the folder of the run that it is a part of; it is locked for others too, unless this
            process has locked it already.
        patience: seconds to wait if another process holds the lock.

    Raises:
        FolderInUse: another run works in it, or in a folder around it or inside it.
        OSError: the folder does not exist or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     lock = lock_folder(Path(name))
        ...     owner_of(Path(name)).pid == os.getpid()
        ...     lock.release()
        ...     owner_of(Path(name)), os.listdir(name)
        True
        (None, [])
    """
    shared = None
    if outer is not None and not _is_ours(outer / LOCK):
        shared = _lock(outer, patience, shared=True)
    try:
        lock = _lock(folder, patience, shared=False)
    except BaseException:
        if shared is not None:
            shared.release()
        raise
    lock.outer = shared
    return lock


def owner_of(folder: Path) -> Owner | None:
    """The process that works in a folder now, or None.

    Example:
        >>> owner_of(Path("/no/such/folder")) is None
        True
    """
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDONLY | _CLOSED | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        if fcntl is None:
            raise OSError(errno.ENOLCK, "no locks")
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _owner(_read(path))
    except OSError:
        owner = _owner(_read(path))
        return owner if owner.may_live else None
    finally:
        os.close(handle)


def _lock(folder: Path, patience: float, shared: bool) -> FolderLock:
    until = time.monotonic() + patience
    while True:
        try:
            return _try_lock(folder, shared)
        except FolderInUse:
            if time.monotonic() >= until:
                raise
        time.sleep(0.02)


def _try_lock(folder: Path, shared: bool) -> FolderLock:
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _CLOSED | _NO_LINKS, 0o644)
        try:
            _flock(handle, shared)
            found, there = os.fstat(handle), _stat(path)
            if there is None or (found.st_dev, found.st_ino) != (there.st_dev, there.st_ino):
                os.close(handle)  # its last holder has removed it in between
                continue
        except BlockingIOError:
            os.close(handle)
            raise FolderInUse(_sentence(folder, _owner(_read(path)))) from None
        except OSError as error:
            os.close(handle)
            if error.errno not in _NO_LOCKS:
                raise
            return _lock_by_existence(folder, shared)
        except BaseException:
            os.close(handle)
            raise
        _remember((found.st_dev, found.st_ino), handle)
        if not shared:
            with suppress(OSError):  # on a full disk the lock holds, and names no process
                os.ftruncate(handle, 0)
                system.write(handle, memoryview(_description()))
        return FolderLock(folder, (found.st_dev, found.st_ino))


def _flock(handle: int, shared: bool) -> None:
    if fcntl is None:
        raise OSError(errno.ENOLCK, "no locks")
    fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _lock_by_existence(folder: Path, shared: bool) -> FolderLock:
    """A lock on a file system without ``flock``: the file exists while the lock is held."""
    path, token = folder / LOCK, uuid.uuid4().hex
    with _one_at_a_time(folder):
        owner = _owner(_read(path))
        if owner.may_live:
            hint = f"; if that process is gone, remove {path}"
            raise FolderInUse(_sentence(folder, owner) + hint)
        if not shared:  # of an outer run it is enough that nobody works there
            write_bytes(path, _description(token))
    return FolderLock(folder, None, _token=token)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Within the block no other process takes a lock by existence."""
    guard = folder / f"{LOCK}.guard"
    with suppress(OSError):
        if time.time() - guard.stat().st_mtime > _LONGEST_GUARD:  # of a killed process
            guard.unlink()
    try:
        os.close(os.open(guard, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOSED, 0o644))
    except FileExistsError:
        raise FolderInUse(_sentence(folder, Owner())) from None
    try:
        yield
    finally:
        guard.unlink(missing_ok=True)


_CLOSED = getattr(os, "O_CLOEXEC", 0)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def _sentence(folder: Path, owner: Owner) -> str:
    return (
        f"{folder} is in use by {owner}: wait until that run ends or stop it, or choose another "
        "--name"
    )


def _is_ours(path: Path) -> bool:
    found = _stat(path)
    return found is not None and (found.st_dev, found.st_ino) in _held


def _remember(inode: tuple[int, int], handle: int) -> None:
    _register_once()
    _held[inode] = handle


@functools.cache
def _register_once() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_close_in_child)


def _close_in_child() -> None:
    """A child that outlives its parent must not hold the parent's locks."""
    for handle in _held.values():
        with suppress(OSError):
            os.close(handle)
    _held.clear()


def _description(token: str = "") -> bytes:
    pid = os.getpid()
    about = {
        "pid": pid,
        "host": socket.gethostname(),
        "since": datetime.now().isoformat(sep=" ", timespec="seconds"),
        "ticks": start_of_process(pid),
        "token": token,
    }
    return (json.dumps(about) + "\n").encode()


def _owner(about: Mapping[str, Any]) -> Owner:
    def take(name: str, kind: type) -> Any:
        value = about.get(name)
        return value if type(value) is kind else None

    return Owner(take("pid", int), take("host", str), take("since", str), take("ticks", int))


def _read(path: Path) -> Mapping[str, Any]:
    """What a lock's file says; empty if it cannot be read or is damaged."""
    try:
        handle = os.open(path, os.O_RDONLY | _CLOSED | _NO_LINKS)
    except OSError:
        return {}
    try:
        about = json.loads(os.read(handle, 4096))
    except (OSError, ValueError, RecursionError):
        return {}
    finally:
        os.close(handle)
    return about if isinstance(about, dict) else {}


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
