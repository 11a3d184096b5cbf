"""Digests of the files in torch's cache of compiled programs.

Torch loads what it finds in its cache: a flipped bit in a library or in a saved graph gives wrong
numbers, or ends the process. So the digest of each file that appears during a compilation is noted
in a file of the cache. Before a process compiles for the first time, files that have changed since
are removed, and torch makes them again.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from idql_func.errors import InputError
from idql_func.files import OutputFile, digest, read_bytes
from idql_func.files.torch_cache import cache_folder

__all__ = ["NOTES", "checked_cache"]

NOTES = "idql_func.sha256"
"""The file of the digests: lines of a digest, the file's name, and a digest of the line."""

_LIMIT = 1 << 26
_LINE = re.compile(rb"(([0-9a-f]{64})  (\w[\w./+-]*))  ([0-9a-f]{8})")
_KEPT = re.compile(r".*\.(so|cpp|py|h|cubin|o)|(fxgraph|aotautograd)/[\w./-]+")
_checked: dict[Path, set[str]] = {}
"""The caches that were checked, and their files after the last compilation of this process."""
_lock = threading.RLock()


@contextmanager
def checked_cache() -> Iterator[None]:
    """Within the block torch may compile: its cache holds no damaged file of this library.

    A cache that cannot be read or written is left as it is.
    """
    with _lock:
        folder = cache_folder()
        if folder is None:
            yield
            return
        if folder not in _checked:
            _remove_damaged(folder)
            _checked[folder] = _files(folder)
        yield
        with suppress(OSError):  # a failed compilation may have left files that are not whole
            before, _checked[folder] = _checked[folder], _files(folder)
            _note(folder, _checked[folder] - before)


def _remove_damaged(folder: Path) -> None:
    notes, are_whole = _notes(folder)
    names = set(notes) if are_whole else _files(folder)
    damaged = []
    for name in sorted(names):
        path = folder / name
        try:
            if path.is_file() and digest(path.read_bytes()) not in notes.get(name, ()):
                path.unlink()
                damaged.append(name)
        except OSError:
            continue
    if not are_whole:
        with suppress(OSError):
            (folder / NOTES).unlink()
            _append(folder, [(name, known) for name in notes for known in notes[name]])
    if damaged:
        warnings.warn(
            f"torch's cache {folder} held damaged files ({', '.join(damaged[:3])}, {len(damaged)} "
            "in all): they were removed and are compiled again.",
            RuntimeWarning,
            stacklevel=2,
        )


def _notes(folder: Path) -> tuple[dict[str, set[str]], bool]:
    """The digests of each file, and whether the notes themselves are whole.

    A file has several if it was made again, or noted while another process wrote it.
    """
    path = folder / NOTES
    if not os.path.lexists(path):
        return {}, True
    try:
        content = read_bytes(path, "digests", _LIMIT)
    except (InputError, OSError):
        return {}, False
    found: dict[str, set[str]] = {}
    are_whole = True
    for line in content.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or digest(match[1])[:8].encode() != match[4] or b".." in match[3]:
            are_whole = False
        else:
            found.setdefault(match[3].decode(), set()).add(match[2].decode())
    return found, are_whole


def _files(folder: Path) -> set[str]:
    """The names of the files that torch writes once, named after their content."""
    names = set()
    for place, _, files in os.walk(folder):
        inside = os.path.relpath(place, folder)
        names.update(os.path.normpath(os.path.join(inside, name)) for name in files)
    return {name for name in names if _KEPT.fullmatch(name)}


def _note(folder: Path, names: set[str]) -> None:
    found = []
    for name in sorted(names):
        with suppress(OSError):
            found.append((name, digest((folder / name).read_bytes())))
    _append(folder, found)


def _append(folder: Path, notes: Sequence[tuple[str, str]]) -> None:
    """Append lines, each with a digest of its own."""
    lines = [f"{known}  {name}" for name, known in notes]
    if lines:
        text = "".join(f"{line}  {digest(line.encode())[:8]}\n" for line in lines)
        with OutputFile(folder / NOTES, "a") as file:
            file.write(text.encode())
