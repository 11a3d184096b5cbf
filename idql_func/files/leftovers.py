"""Temporary names, and what killed processes leave under them."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import socket
import time
import uuid
from pathlib import Path

from idql_func.files import system
from idql_func.files.digests import digest
from idql_func.files.errors import StrPath, explain_write_errors

_OLD_NAMES_AFTER = 3600.0  # seconds after which a temporary file without a known writer is removed
_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?:(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-(?P<start>\d+)-)?"
    r"[0-9a-f]{6,12}\.(?P<kind>part|old)"
)


def temporary_name(path: Path) -> Path:
    # Same folder, since a rename is atomic only within one file system.
    process = os.getpid()
    writer = f"{_machine()}-{process}-{start_of_process(process) or 0}-{uuid.uuid4().hex[:6]}"
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
                system.rename(path, target)
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
        temporary = temporary_name(path)
        system.rename(path, temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def _writer_may_live(path: Path, match: re.Match[str]) -> bool:
    """Whether the process that a temporary name holds may still be writing."""
    if match["machine"] == _machine():
        started = start_of_process(int(match["process"]))
        return started is not None and started in (int(match["start"]), 0)
    try:  # of another machine or container, or of an earlier version
        return time.time() - path.lstat().st_mtime < _OLD_NAMES_AFTER
    except OSError:
        return True


def start_of_process(process: int) -> int | None:
    """When a process started, 0 if that is unknown, None if there is no such process.

    The number of a process is used again after its end, its number and start are not.

    >>> start_of_process(os.getpid()) is None, start_of_process(0) is None
    (False, True)
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
