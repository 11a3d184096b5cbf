"""Write a file or a folder atomically: readers see the old content or the whole new one."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_folder", "atomic_path"]


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success rename it to ``path``.

    The temporary file is flushed to disk before the rename. If the block raises, it is removed and
    ``path`` keeps its old content. Missing parent folders are created.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(f"{folder}/a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     pathlib.Path(folder, "a.txt").read_text(), len(os.listdir(folder))
        ('whole', 1)
    """
    path, temporary = _prepare(path)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Do the same for a folder: yield a temporary path, not created yet, for the block to fill.

    An existing folder ``path`` is replaced at the end.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_folder(f"{folder}/a") as temporary:
        ...         temporary.mkdir()
        ...         _ = (temporary / "b.txt").write_text("whole")
        ...     pathlib.Path(folder, "a", "b.txt").read_text(), len(os.listdir(folder))
        ('whole', 1)
    """
    path, temporary = _prepare(path)
    try:
        yield temporary
        for part in (*temporary.rglob("*"), temporary):
            _flush(part)
        if path.exists():
            # A folder cannot be renamed to one that is not empty, so the old one is moved first.
            old = temporary.with_suffix(".old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _prepare(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The path, whose parent now exists, and a temporary path beside it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Same folder, since a rename is atomic only within one file system.
    return path, path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")


def _flush(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
