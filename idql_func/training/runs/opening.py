"""The start of a run: its folder is chosen and locked, and a run to resume is compared with it.

A run that is resumed keeps its settings, but for those in ``RESUMABLE``, and goes on from its
newest whole checkpoint or from the one that was named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from idql_func.training.configs.settings import changed_settings, flat_mapping, flat_settings
from idql_func.training.runs.checkpoint import find_checkpoint, read_metadata
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import RunDirectory, open_run_directory
from idql_func.training.runs.members import Member
from idql_func.training.runs.ownership import own_new_run, own_run
from idql_func.training.runs.run import Run
from idql_func.training.runtime.device import choose_device
from idql_func.types import InputError

__all__ = ["RESUMABLE", "open_run"]

RESUMABLE = (
    "max_steps",
    "log_interval",
    "checkpoint_interval",
    "keep_checkpoints",
    "solved_return",
    "evaluation.interval",
    "evaluation.interval_episodes",
    "evaluation.episodes",
    "evaluation.num_envs",
    "evaluation.seed",
)
"""Settings that a resumed run may change: none of them affects what an update computes."""


def open_run(
    configs: Sequence[Any],
    *,
    last: int,
    resume: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    resumable: Sequence[str] = RESUMABLE,
    unit: str = "updates",
    names: Sequence[str] | None = None,
    default_name: str | None = None,
    saved_number: Callable[[RunDirectory, Path], int] = lambda _, path: read_metadata(path).updates,
) -> Run:
    """Choose and lock the folder of a new run, or that of a run to resume.

    The run must be used in a ``with`` block, which releases the folder. Nothing else is written
    before :meth:`Run.begin`. A run without a checkpoint that is resumed starts anew.

    Args:
        configs: the settings of each member.
        last: the number of the last checkpoint that the settings ask for.
        resume: the folder of a run to resume, or a checkpoint in it.
        overwrite: replace a run of the same name.
        resumable: settings that a resumed run may change.
        unit: what the loop counts, ``"updates"`` or ``"steps"``.
        names: the members' folders inside the run's; None: there is one, and its folder is the
            run's.
        default_name: the usual name of the folder, see :func:`choose_run_directory`.
        saved_number: the number of a checkpoint in a run's folder.

    Raises:
        InputError: the device does not exist, the folder is taken or in use, or the run to resume
            has other settings or nothing left to do.
        FileNotFoundError: there is no run or checkpoint to resume.
    """
    first = configs[0]
    device = choose_device(first.device)
    if resume is None:
        owned = own_new_run(first, overwrite, default_name)
    else:
        owned = own_run(open_run_directory(resume))
    directory = owned.directory
    try:
        members = [Member(first, directory)]
        if names is not None:
            members = [
                Member(
                    dataclasses.replace(config, runs_dir=directory.path, name=name),
                    RunDirectory(directory.path / name),
                )
                for config, name in zip(configs, names, strict=True)
            ]
            first = dataclasses.replace(first, name=directory.path.name)
        run = Run(
            owned=owned,
            config=first,
            members=members,
            reporter=reporter if reporter is not None else Reporter(),
            device=device,
            unit=unit,
        )
        if resume is not None:
            owned.begun = True  # the folder is not removed, whatever happens
            _find_start(run, resume, last, resumable, saved_number)
    except BaseException:
        owned.release()
        raise
    return run


def _find_start(
    run: Run,
    resume: str | Path,
    last: int,
    resumable: Sequence[str],
    saved_number: Callable[[RunDirectory, Path], int],
) -> None:
    """The checkpoints from which a run is resumed, if it has some."""
    for member in run.members:
        if member.directory.config.is_file() or not run.is_group:
            _check_settings(member, resumable)
    checkpoints = _common_checkpoints(run) if run.is_group else [_checkpoint_at(run, resume)]
    if None in checkpoints:
        run.reporter.detail(f"{run.directory.path} has no checkpoint yet: the run starts anew")
        return
    for member, checkpoint in zip(run.members, checkpoints, strict=True):
        assert checkpoint is not None
        member.checkpoint, member.saved = checkpoint, read_metadata(checkpoint)
        _compare_with_checkpoint(member, resumable, run.reporter)
        run.start = saved_number(member.directory, checkpoint)
        if run.start > last or (run.start == last and run.directory.is_complete):
            raise InputError(
                f"{checkpoint} already has {run.start:,} of {last:,} {run.unit}: there is nothing "
                "to continue; give a larger --max-steps"
            )
    run.resumed = True


def _checkpoint_at(run: Run, resume: str | Path) -> Path | None:
    """The checkpoint that was named, or the newest whole one of the run; None if it has none."""
    path = Path(resume)
    if path.resolve() not in (run.directory.path.resolve(), run.directory.checkpoints.resolve()):
        return find_checkpoint(path)
    newest = run.directory.newest_checkpoint()
    for other in run.directory.checkpoints.glob("step_*"):
        if newest is None or other.name > newest.name:
            run.reporter.warn(f"{other} is not whole and is left out")
    return newest


def _check_settings(member: Member, resumable: Sequence[str]) -> None:
    saved = member.directory.read_config(type(member.config))
    changed = _fixed(changed_settings(saved, member.config), resumable)
    if changed:
        settings = flat_settings(member.config)
        raise InputError(
            f"a run that is continued cannot change {', '.join(changed)}; it may change "
            + ", ".join(name for name in resumable if name in settings)
        )


def _compare_with_checkpoint(member: Member, resumable: Sequence[str], reporter: Reporter) -> None:
    """Refuse settings other than those under which the checkpoint was written, or say them."""
    checkpoint, metadata = member.resumed_from
    if not metadata.settings:  # of an earlier version
        return
    saved, given = flat_mapping(metadata.settings), flat_settings(member.config)
    # A setting that one side lacks is of another version.
    changed = [name for name in sorted(saved.keys() & given.keys()) if saved[name] != given[name]]
    for name in _fixed(changed, resumable):
        raise InputError(
            f"{member.directory.config} was edited: {name} is {given[name]!r} there, but "
            f"{checkpoint} was written with {saved[name]!r}; restore it to continue the run"
        )
    for name in changed:
        if name in resumable:
            reporter.detail(f"{name} is {given[name]!r} from here, it was {saved[name]!r}")


def _fixed(changed: Sequence[str], resumable: Sequence[str]) -> list[str]:
    """The settings among the changed ones that a run must keep."""
    # The place and name of a run change when its folder is moved.
    free = {*resumable, "runs_dir", "name", "preset", "offline.runs_dir", "offline.name"}
    return [name for name in changed if name not in free]


def _common_checkpoints(run: Run) -> list[Path | None]:
    """The newest checkpoints that all members have; a kill between two writes leaves some ahead."""
    members = run.members
    found = [{path.name for path in m.directory.whole_checkpoints()} for m in members]
    newest = max(set.intersection(*found), default=None)
    return [None if newest is None else m.directory.checkpoints / newest for m in members]
