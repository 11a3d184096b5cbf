"""How a run takes its folder: made exclusively, locked, and given back if the run does not begin.

A run locks its folder when it is opened, before the data are loaded, and until it ends. Two
commands that start together therefore never share one: the second takes the next name, or ends with
one sentence. The folder is filled by :meth:`Ownership.begin`, when all input has been found valid.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idql_func.files import explain_write_errors
from idql_func.training.runs.directory import RunDirectory, choose_run_directory
from idql_func.training.runs.lock import FolderInUse, FolderLock, lock_folder

__all__ = ["Ownership", "own_new_run", "own_run"]


@dataclass
class Ownership:
    """A run's folder that is locked.

    Args:
        directory: the folder.
        lock: its lock.
        replaces: whether it holds an earlier run, which :meth:`begin` removes.
        made: the folders that were made for the run, the outermost first; they are removed again if
            the run does not begin.
    """

    directory: RunDirectory
    lock: FolderLock
    replaces: bool = False
    made: Sequence[Path] = ()
    begun: bool = field(default=False, init=False)

    def begin(self) -> None:
        """Remove an earlier run and what killed processes have left."""
        self.begun = True
        if self.replaces:
            self.directory.discard()
            self.replaces = False
        self.directory.clean()

    def check(self) -> None:
        """Raise unless the folder is still there.

        Raises:
            FileNotFoundError: it was removed or moved away, by whomever.
        """
        if self.lock.lost():
            raise FileNotFoundError(
                f"the folder {self.directory.path} was removed or moved while its run was in "
                "progress: what the run has written is not there any more, and it was stopped"
            )

    def release(self) -> None:
        """Release the lock; remove the folder if the run has not begun or got no settings."""
        unused = bool(self.made) and self.directory.state == "absent" and not self.lock.lost()
        if unused and self.begun:
            self.directory.discard()
        self.lock.release()
        if unused:
            _remove_empty(self.made)


def own_new_run(config: Any, overwrite: bool = False, default: str | None = None) -> Ownership:
    """Choose, make and lock the folder of a new run.

    The arguments are those of :func:`choose_run_directory`.

    Raises:
        InputError: as for :func:`choose_run_directory`, or another run works in the named folder.
        FileWriteError: the folder cannot be made.
    """
    while True:
        directory = choose_run_directory(config, overwrite, default)
        with explain_write_errors(directory.path):
            made = _make_folders(directory.path)
            try:
                lock = _lock(directory)
            except FileNotFoundError:
                continue  # another run that did not begin has removed the folder
            except FolderInUse:
                if config.name is not None or overwrite:
                    raise
                continue  # another run was faster: the next name
            except BaseException:
                _remove_empty(made)
                raise
        try:
            # only now does nobody else change the folder
            if config.name is None and not overwrite and directory.state != "absent":
                lock.release()
                continue
            directory.check_is_free(overwrite)
        except BaseException:
            lock.release()
            _remove_empty(made)
            raise
        return Ownership(directory, lock, directory.state != "absent", made)


def own_run(directory: RunDirectory) -> Ownership:
    """Lock the folder of a run that exists, to continue it.

    Raises:
        FolderInUse: another run works in it.
        FileWriteError: it cannot be written.
    """
    with explain_write_errors(directory.path):
        return Ownership(directory, _lock(directory))


def _lock(directory: RunDirectory) -> FolderLock:
    """Lock a folder, and for others the run that it is a part of, such as a group."""
    outer = directory.path.resolve().parent
    is_run = RunDirectory(outer).state not in ("absent", "foreign")
    return lock_folder(directory.path, outer if is_run else None)


def _make_folders(path: Path) -> list[Path]:
    """Make a folder and those around it; return those that were made here."""
    missing = [path]
    while not os.path.lexists(missing[0].parent) and missing[0] != missing[0].parent:
        missing.insert(0, missing[0].parent)
    made = []
    for folder in missing:
        with suppress(FileExistsError):
            folder.mkdir()
            made.append(folder)
    return made


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()
