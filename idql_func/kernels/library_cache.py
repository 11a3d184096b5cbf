"""The cache of built C libraries: a folder of the user's own, and files with a digest.

Loading a library runs what is in it, and a damaged one ends the process or computes wrong numbers.
So a library ends with a digest of its bytes, which is compared before it is loaded, and the folder
must belong to the user and be writable by nobody else.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import functools
import os
import shutil
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from idql_func.files import (
    OutputFile,
    atomic_path,
    digest,
    open_regular,
    read_bytes,
    remove_leftovers,
)
from idql_func.types import InputError

__all__ = ["cache_folder", "cached_library", "compiler_answers"]

_SECONDS = 60.0  # a build takes a few
_ANSWER_SECONDS = 10.0
_MARK = b"\nidql_func sha256 "
_LARGEST = 1 << 26


def cache_folder() -> Path:
    """The folder of built libraries: ``$XDG_CACHE_HOME/idql_func`` or ``~/.cache/idql_func``."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "idql_func"


def cached_library(name: str, command: Sequence[str], source: Path) -> ctypes.CDLL:
    """Load the library ``name`` from the cache; it is built first if it is missing or damaged.

    Args:
        name: its file name.
        command: the compiler and its options.
        source: the C file.

    Raises:
        OSError: no folder can be written to, or the library cannot be loaded.
        subprocess.SubprocessError: the compiler fails or takes too long.
    """
    for folder in _folders():
        built = folder / name
        if not _is_whole(built):
            try:
                remove_leftovers(folder)
                _build(command, source, built)
            except OSError as error:  # a full or read-only disk
                _warn(f"{folder} cannot hold the C libraries ({_reason(error)})")
                continue
        return ctypes.CDLL(str(built))
    raise OSError("no folder can hold the C libraries")


def compiler_answers(compiler: str) -> bool:
    """Whether a compiler starts and ends, so that one that hangs costs 10 seconds once.

    >>> compiler_answers("no-such-compiler")
    False
    """
    return compiler not in _TOO_SLOW and _answers(compiler)


_TOO_SLOW: set[str] = set()  # compilers that did not finish a build


@functools.cache
def _answers(compiler: str) -> bool:
    try:
        subprocess.run(
            [compiler, "--version"], check=False, capture_output=True, timeout=_ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired:
        _warn(
            f"the C compiler {compiler} does not answer within {_ANSWER_SECONDS:g} seconds, so the "
            "slower tensor forms run"
        )
        return False
    except (OSError, ValueError):
        return False
    return True


def _folders() -> Iterator[Path]:
    """Folders for libraries that only this user can write to, the usual one first."""
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    try:
        usual = [cache_folder()]
    except RuntimeError:  # no home
        usual = []
    for place in (*usual, None):
        folder = place
        try:
            if folder is None:  # it is asked for only now, since it may fail
                folder = Path(tempfile.gettempdir()) / f"idql_func{user}"
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            problem = _trust_problem(folder)
        except OSError as error:
            problem = f"cannot be made ({_reason(error)})"
        if folder is not None and problem is None:
            yield folder
        else:
            name = folder or "a folder for temporary files"
            _warn(f"{name} {problem}, so the C libraries are not kept there")
    yield _folder_of_this_process()


def _trust_problem(folder: Path) -> str | None:
    """Why libraries in a folder may not be this user's own, or None."""
    if not hasattr(os, "getuid"):
        return None
    found = folder.stat()
    if found.st_uid != os.getuid():
        return "belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written to by other users (run `chmod go-w` on it)"
    return None


@functools.cache
def _folder_of_this_process() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="idql_func-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _is_whole(path: Path) -> bool:
    """Whether a built library is the user's own and unchanged since it was built."""
    try:
        with open_regular(path, "a library") as file:
            found = os.fstat(file.fileno())
            if hasattr(os, "getuid") and found.st_uid != os.getuid():
                return False
        content, mark, written = read_bytes(path, "a library", _LARGEST).rpartition(_MARK)
        return bool(mark) and digest(content).encode() == written
    except (InputError, OSError):
        return False


def _build(command: Sequence[str], source: Path, built: Path) -> None:
    """Compile to a temporary file and rename it, so that no process sees a partial library."""
    with atomic_path(built) as temporary:
        whole = [*command, "-shared", "-fPIC", "-o", str(temporary), str(source), "-lm"]
        # the compiler's own temporary files go to the same disk, which has room
        environment = {**os.environ, "TMPDIR": str(built.parent)}
        try:
            subprocess.run(
                whole, check=True, capture_output=True, timeout=_SECONDS, env=environment
            )
        except subprocess.TimeoutExpired:
            _TOO_SLOW.add(command[0])
            _warn(f"{command[0]} needs more than {_SECONDS:g} seconds, so slower forms run")
            raise
        except subprocess.CalledProcessError as error:
            if os.strerror(errno.ENOSPC).encode() in (error.stderr or b""):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
            raise
        content = temporary.read_bytes()
        temporary.unlink()
        with OutputFile(temporary, "x") as file:
            file.write(content + _MARK + digest(content).encode())
        temporary.chmod(0o700)


@functools.cache
def _warn(text: str) -> None:
    warnings.warn(f"{text}.", RuntimeWarning, stacklevel=2)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
