"""The folder of a run: its name, its files, and when it may be overwritten.

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

The folder of several members that are trained as one program has ``config.json``,
``learning_curve.png`` and ``summary.json`` for all of them, ``members.json`` with their names,
``members.csv`` with their results, and for each member a folder as above.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from idql_func.files import atomic_path
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.settings import Settings, settings_from_dict, settings_to_dict
from idql_func.types import InputError

__all__ = ["RunDirectory", "RunState", "choose_run_directory", "open_run_directory", "write_json"]

RunState = Literal["absent", "foreign", "started", "resumable", "finished"]
"""What a folder holds: nothing, something that is no run, a run without a checkpoint, one with a
checkpoint, or one with its summary."""


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
        """How far the run is, by the files in the folder.

        Example:
            >>> RunDirectory(Path("no/such/folder")).state
            'absent'
        """
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return "absent"
        if not self.config.is_file():
            return "foreign"
        if self.summary.is_file():
            return "finished"
        try:
            folders = [RunDirectory(self.path / name) for name in self.member_names()] or [self]
        except InputError:
            return "started"
        saved = all(any(folder.checkpoints.glob("step_*")) for folder in folders)
        return "resumable" if saved else "started"

    def member_names(self) -> list[str]:
        """The names of the members, none for the run of a single learner.

        Raises:
            InputError: ``members.json`` is damaged.
        """
        if not self.members.is_file():
            return []
        try:
            return [str(name) for name in json.loads(self.members.read_text("utf-8"))["members"]]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.members} is damaged: {error}") from None

    def checkpoint(self, number: int) -> Path:
        """The checkpoint after so many updates (offline) or actions (online)."""
        return self.checkpoints / f"step_{number:09d}"

    def buffer(self, step: int) -> Path:
        """The replay buffer that belongs to the checkpoint after so many actions."""
        return self.path / "replay_buffer" / f"step_{step:09d}.safetensors"

    def prune_buffers(self, keep: Path) -> None:
        """Remove all replay buffers but one."""
        for path in keep.parent.iterdir():
            if path != keep:
                path.unlink(missing_ok=True)

    def prune_checkpoints(self, keep: int) -> None:
        """Remove all but the newest ``keep`` checkpoints, and the remains of interrupted writes."""
        if not self.checkpoints.is_dir():
            return
        for path in sorted(self.checkpoints.glob("step_*"))[:-keep]:
            shutil.rmtree(path, ignore_errors=True)
        for path in self.checkpoints.glob(".step_*.part"):
            shutil.rmtree(path, ignore_errors=True)

    def start(self) -> None:
        """Make the folder, and empty it if it holds a run."""
        if self.config.is_file():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)

    def discard_after(self, number: int) -> None:
        """Remove what a run that is resumed from a checkpoint writes again."""
        self.summary.unlink(missing_ok=True)
        for path in self.checkpoints.glob("step_*"):
            if path.name > self.checkpoint(number).name:
                shutil.rmtree(path, ignore_errors=True)

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
        try:
            return settings_from_dict(cls, json.loads(self.config.read_text(encoding="utf-8")))
        except InputError as error:
            raise InputError(f"{self.config}: {error}") from None
        except ValueError as error:
            raise InputError(f"{self.config} is damaged or truncated: {error}") from None


def choose_run_directory(
    config: Any, overwrite: bool = False, default: str | None = None
) -> RunDirectory:
    """Choose the folder of a new run. ``RunDirectory.start`` makes it; nothing is written here.

    Without a name in the settings it is ``default``, which is ``<preset>-seed<seed>`` if None, or
    the first free one of ``<default>-2``, ``-3``, …. ``overwrite`` replaces a run of that name.

    Raises:
        InputError: the named folder holds something and ``overwrite`` is off; or it is no run.
    """
    default = f"{config.preset}-seed{config.seed}" if default is None else default
    run, number = RunDirectory(config.runs_dir / (config.name or default)), 2
    while config.name is None and not overwrite and run.state != "absent":
        run = RunDirectory(config.runs_dir / f"{default}-{number}")
        number += 1
    path, state = run.path, run.state
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, but the run needs a folder of that name")
    if state == "foreign":
        raise InputError(f"{path} holds something other than a run; choose another --name")
    if state != "absent" and not overwrite:
        held = "a finished run" if state == "finished" else "an unfinished run"
        raise InputError(
            f"{path} already holds {held}: continue it with --resume {path}, replace it with "
            "--overwrite, or choose another --name"
        )
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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
