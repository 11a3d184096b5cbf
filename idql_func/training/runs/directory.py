"""The folder of a run: its name, its files, and what state it is in.

::

    runs/<name>/config.json         the settings, as given
                metrics.jsonl       one record a line: losses, evaluations
                metrics.csv         the same as a table
                checkpoints/step_000005000/…
                replay_buffer/      of the newest checkpoint, if the run collects data
                learning_curve.png
                trajectories.png    for the maze only
                frames.png          what a learner from images observes, if it collects data
                summary.json        written last: a run that has one is finished
                .lock               while a process works in the folder (see ``lock.py``)

The folder of several members that are trained as one program has ``config.json``,
``learning_curve.png`` and ``summary.json`` for all of them, ``members.json`` with their names,
``members.csv`` with their results, and for each member a folder as above. A fine-tuning run that
trains its offline policy has that run's folder in ``offline``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from idql_func.files import read_json, remove_folder, remove_leftovers, system, write_json
from idql_func.training.configs.catalogue import SETTINGS
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.online import OnlineConfig
from idql_func.training.configs.settings import Settings, settings_from_dict, settings_to_dict
from idql_func.training.runs.lock import LOCK, FolderInUse, lock_folder, owner_of
from idql_func.types import InputError

__all__ = [
    "OFFLINE",
    "RunDirectory",
    "RunState",
    "choose_run_directory",
    "is_checkpoint",
    "open_run_directory",
    "write_json",
]

RunState = Literal["absent", "foreign", "started", "training", "evaluating", "finished"]
"""What a folder holds: nothing, something that is no run, a run without a checkpoint, one with a
checkpoint, one with its last checkpoint, or one with its summary."""

OFFLINE = "offline"
"""The folder of the offline run in that of a fine-tuning run."""

_FILES = {
    *("config.json", "metrics.jsonl", "metrics.csv", "summary.json", "evaluation.json"),
    *("learning_curve.png", "trajectories.png", "frames.png", "members.json", "members.csv"),
}
_CHECKPOINT = ("checkpoint.json", "learner.safetensors")
_DISCARDED = ".discarded"
"""Where the settings of a run are moved that is being removed."""
_LEFTOVER = re.compile(r"\.lock(\..+)?|\.discarded|\..+\.(part|old)")
"""Names of files and folders that a killed process leaves; readers ignore them."""


class _Inside:
    """An attribute of a run's folder: the path of a file in it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: RunDirectory, owner: type) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside a run's folder; the module's docstring says what the files contain.

    Example:
        >>> RunDirectory(Path("runs/x")).checkpoint(5_000).as_posix()
        'runs/x/checkpoints/step_000005000'
    """

    path: Path

    config = _Inside("config.json")
    summary = _Inside("summary.json")
    members = _Inside("members.json")
    checkpoints = _Inside("checkpoints")
    learning_curve = _Inside("learning_curve.png")
    trajectories = _Inside("trajectories.png")
    frames = _Inside("frames.png")

    @property
    def state(self) -> RunState:
        """How far the run is, by the files in the folder; this is decided nowhere else.

        A group is finished when its own summary is written, and has a checkpoint when all of its
        members have one. A fine-tuning run without a checkpoint of its own is as far as its offline
        run, but not beyond training.

        Example:
            >>> RunDirectory(Path("no/such/folder")).state
            'absent'
        """
        if not self.path.is_dir():
            return "absent"
        if not self.config.is_file():
            return "absent" if self._is_empty() else "foreign"
        try:
            config = self.read_any_config()
        except (InputError, OSError):
            return "foreign"
        if self.summary.is_file():
            return "finished"
        try:
            folders = [RunDirectory(self.path / name) for name in self.member_names()] or [self]
        except InputError:
            return "started"
        newest = [folder.newest_checkpoint() for folder in folders]
        if None in newest:
            if getattr(config, "command", "") != "finetune":
                return "started"
            inner = RunDirectory(self.path / OFFLINE).state
            return "started" if inner in ("absent", "foreign", "started") else "training"
        last = self.checkpoint(_last_number(config)).name
        return "evaluating" if all(path and path.name >= last for path in newest) else "training"

    @property
    def is_resumable(self) -> bool:
        """Whether the run has a checkpoint to continue from, and something left to do."""
        return self.state in ("training", "evaluating")

    @property
    def is_complete(self) -> bool:
        """Whether the run is finished and has its pictures, for which a disk may lack room."""
        if self.state != "finished":
            return False
        try:
            files = read_json(self.summary, "the summary of a run").get("files", {})
            names = {*map(str, files.values()), self.learning_curve.name}
            parts = [RunDirectory(self.path / name) for name in self.member_names()]
        except (InputError, AttributeError):
            return True
        if (offline := RunDirectory(self.path / OFFLINE)).state != "absent":
            parts.append(offline)  # of a fine-tuning run
        pictures = [name for name in names if name.endswith(".png")]
        return all((self.path / name).is_file() for name in pictures) and all(
            part.is_complete for part in parts
        )

    def newest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint."""
        return max(self.whole_checkpoints(), key=lambda path: path.name, default=None)

    def whole_checkpoints(self) -> list[Path]:
        """All checkpoints that have both of their files."""
        return [path for path in self.checkpoints.glob("step_*") if is_checkpoint(path)]

    def foreign_entries(self) -> list[str]:
        """What the folder holds besides the files of a run, as paths inside it.

        Example:
            >>> RunDirectory(Path("no/such/folder")).foreign_entries()
            []
        """
        return [str(path.relative_to(self.path)) for path in self._foreign()]

    def _foreign(self) -> Iterator[Path]:
        for path in _children(self.path):
            name, is_folder = path.name, path.is_dir() and not path.is_symlink()
            if _LEFTOVER.fullmatch(name) or (name in _FILES and not is_folder):
                continue
            if not is_folder:
                yield path
            elif name == "checkpoints":
                for step in _children(path):
                    names = {inside.name for inside in _children(step)}
                    own = step.name.startswith("step_") and names <= {*_CHECKPOINT}
                    if not (_LEFTOVER.fullmatch(step.name) or (own and step.is_dir())):
                        yield step
            elif name == "replay_buffer":
                for file in _children(path):
                    own = file.name.startswith("step_") and file.suffix == ".safetensors"
                    if not (_LEFTOVER.fullmatch(file.name) or own):
                        yield file
            elif name in self._inner_names():
                yield from RunDirectory(path)._foreign()
            else:
                yield path

    def _inner_names(self) -> list[str]:
        """The names of the folders of members and of an offline run."""
        try:
            return [OFFLINE, *self.member_names()]
        except (InputError, OSError):
            return [OFFLINE]

    def _is_empty(self) -> bool:
        """Whether a folder without settings holds no more than the beginning or the end of a run:
        one that was killed before its settings were written, or while it was replaced."""
        if any(self._foreign()):
            return False
        if (self.path / _DISCARDED).is_dir():
            return True
        made = {"config.json", "members.json"}
        return all(
            _LEFTOVER.fullmatch(path.name) or path.name in made or not path.is_file()
            for path in self.path.rglob("*")
        )

    def check_is_free(self, overwrite: bool) -> None:
        """Refuse a folder in which a new run cannot begin.

        Raises:
            InputError: it holds something that is not a run, or a run and ``overwrite`` is off.
        """
        path, state = self.path, self.state
        if os.path.lexists(path) and not path.is_dir():
            raise InputError(f"{path} is a file, but the run needs a folder of that name")
        if state == "foreign":
            raise InputError(f"{path} holds something other than a run; choose another --name")
        if state == "absent":
            return
        if not overwrite:
            held = "a finished run" if state == "finished" else "an unfinished run"
            raise InputError(
                f"{path} already holds {held}: continue it with --resume {path}, replace it with "
                "--overwrite, or choose another --name"
            )
        if foreign := self.foreign_entries():
            raise InputError(
                f"{path} holds a run and also {', '.join(foreign[:3])}, which --overwrite does not "
                "remove: move that away, or choose another --name"
            )

    def discard(self) -> None:
        """Remove the run, except for its lock.

        The settings are moved first: from then on the folder counts as empty, and whoever starts
        there removes the rest.
        """
        aside = self.path / _DISCARDED
        if self.config.is_file():
            _remove(aside)
            aside.mkdir()
            system.rename(self.config, aside / self.config.name)
        for path in _children(self.path):
            if path.name not in (LOCK, _DISCARDED):
                _remove(path)
        _remove(aside)

    def clean(self) -> None:
        """Remove what killed processes have left in the folder. Its lock must be held."""
        if self.state == "absent":
            self.discard()
        _remove(self.path / _DISCARDED)
        for name in self._inner_names():
            # an inner run that is finished is not opened again: its lock would stay
            RunDirectory(self.path / name).remove_stale_lock()
        for folder in (self.path, self.checkpoints, self.path / "replay_buffer"):
            remove_leftovers(folder)

    def remove_stale_lock(self) -> None:
        """Remove the file of a lock that a killed process has left."""
        if (self.path / LOCK).exists():
            with suppress(FolderInUse, OSError):
                lock_folder(self.path, patience=0).release()

    def member_names(self) -> list[str]:
        """The names of the members, none for the run of a single learner.

        Raises:
            InputError: ``members.json`` is damaged.
        """
        if not self.members.is_file():
            return []
        about = read_json(self.members, "the names of a group's members")
        names = about.get("members") if isinstance(about, dict) else None
        if not isinstance(names, list) or not all(_is_plain(name) for name in names):
            raise InputError(f"{self.members} is damaged: it must name the members' folders")
        return names

    def checkpoint(self, number: int) -> Path:
        """The checkpoint after so many updates (offline) or actions (online)."""
        return self.checkpoints / f"step_{number:09d}"

    def buffer(self, step: int) -> Path:
        """The replay buffer that belongs to the checkpoint after so many actions."""
        return self.path / "replay_buffer" / f"step_{step:09d}.safetensors"

    def prune_buffers(self, step: int) -> None:
        """Remove all replay buffers but that of a checkpoint, if there is one."""
        keep = self.buffer(step)
        for path in _children(keep.parent) if keep.is_file() else ():
            if path != keep:
                path.unlink(missing_ok=True)

    def prune_checkpoints(self, keep: int) -> None:
        """Remove all but the newest ``keep`` checkpoints."""
        for path in sorted(self.checkpoints.glob("step_*"))[:-keep]:
            remove_folder(path)

    def discard_after(self, number: int) -> None:
        """Remove what a run that is resumed from a checkpoint writes again."""
        self.summary.unlink(missing_ok=True)
        for path in self.checkpoints.glob("step_*"):
            if path.name > self.checkpoint(number).name or not is_checkpoint(path):
                remove_folder(path)

    def write_config(self, config: Any) -> None:
        """Write the settings."""
        write_json(self.config, settings_to_dict(config))

    def read_config(self, cls: type[Settings] = TrainConfig) -> Settings:
        """Read the settings; ``cls`` is the class of those of the run's command.

        Raises:
            FileNotFoundError: the folder is no run.
            InputError: the file is damaged, of another command, or holds unknown settings.
        """
        if not self.config.is_file():
            raise FileNotFoundError(
                f"{self.path} is not a run: there is no {self.config.name} in it"
            )
        data = read_json(self.config, "the settings of a run")
        try:
            return settings_from_dict(cls, data)
        except InputError as error:
            raise InputError(f"{self.config}: {error}") from None

    def read_any_config(self) -> Any:
        """Read the settings of a run of any command.

        Raises:
            FileNotFoundError, InputError: as for :meth:`read_config`.
        """
        data = read_json(self.config, "the settings of a run")
        command = data.get("command", "train") if isinstance(data, dict) else None
        cls = SETTINGS.get(str(command))
        if cls is None:
            raise InputError(f"{self.config} does not hold the settings of a run")
        return self.read_config(cls)


def choose_run_directory(
    config: Any, overwrite: bool = False, default: str | None = None
) -> RunDirectory:
    """Choose the folder of a new run; nothing is written, and no lock is taken.

    Without a name in the settings it is ``default``, which is ``<preset>-seed<seed>`` if None, or
    the first free one of ``<default>-2``, ``-3``, …. ``overwrite`` replaces a run of that name.

    Raises:
        InputError: the named folder holds something and ``overwrite`` is off; or it is no run.
    """
    default = f"{config.preset}-seed{config.seed}" if default is None else default
    run, number = RunDirectory(config.runs_dir / (config.name or default)), 2
    while config.name is None and not overwrite and os.path.lexists(run.path):
        if run.path.is_dir() and run.state == "absent" and owner_of(run.path) is None:
            break
        run = RunDirectory(config.runs_dir / f"{default}-{number}")
        number += 1
    try:
        run.check_is_free(overwrite)
    except InputError:
        # another run may replace it at this moment: then the lock says so
        if not overwrite or owner_of(run.path) is None:
            raise
    return run


def open_run_directory(path: str | Path) -> RunDirectory:
    """The run in the folder ``path``, or the run of the checkpoint ``path``.

    Raises:
        FileNotFoundError: there is no run.

    Example:
        >>> open_run_directory("/no/such/run")
        Traceback (most recent call last):
        FileNotFoundError: there is no run at /no/such/run
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no run at {path}")
    for candidate in (path, path.parent, path.parent.parent):
        if (candidate / "config.json").is_file():
            return RunDirectory(candidate)
    raise FileNotFoundError(f"{path} is not a run: there is no config.json in it")


def is_checkpoint(path: Path) -> bool:
    """Whether a folder has both files of a checkpoint.

    Example:
        >>> is_checkpoint(Path("no/such/folder"))
        False
    """
    return all((path / name).is_file() for name in _CHECKPOINT)


def _last_number(config: Any) -> int:
    """The number of the last checkpoint that the settings ask for."""
    if isinstance(config, OnlineConfig):
        if not config.from_pixels:
            return config.max_steps
        from idql_func.training.task import action_repeat_of

        return config.max_steps // (config.pixels.action_repeat or action_repeat_of(config.env))
    return getattr(config, "last", config.max_steps)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        path.unlink(missing_ok=True)


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")
