"""A run from its folder to its summary: opened, resumed, recorded, saved, interrupted, finished.

Every loop works through a :class:`Run`: offline with one learner or with several that are trained
as one program, online, and fine-tuning. A run has one member for each learner. The folder of a
single learner is that of the run; several members have a folder each inside it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from matplotlib.figure import Figure
from rich.table import Table

from idql_func.switches import jit_disabled
from idql_func.training.configs.settings import changed_settings, flat_settings
from idql_func.training.runs.checkpoint import (
    CheckpointMetadata,
    find_checkpoint,
    read_metadata,
    restore_learner,
    save_checkpoint,
)
from idql_func.training.runs.console import (
    Reporter,
    TrainingBar,
    duration,
    files_table,
    policy_name,
)
from idql_func.training.runs.directory import (
    RunDirectory,
    choose_run_directory,
    open_run_directory,
    write_json,
)
from idql_func.training.runs.metrics import MetricsLogger
from idql_func.training.runs.plots import save_figure
from idql_func.training.runs.results import (
    Evaluator,
    Results,
    evaluation_record,
    fetch_losses,
    for_numbers,
    mean_return,
    not_numbers,
)
from idql_func.training.runtime.device import choose_device
from idql_func.training.runtime.matmul_precision import MatmulChoice, matmul_precision
from idql_func.training.runtime.threads import cpu_threads
from idql_func.types import InputError

__all__ = [
    "RESUMABLE",
    "Member",
    "Position",
    "Run",
    "TrainingInterrupted",
    "open_run",
    "reading_loop_state",
]

T = TypeVar("T")

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


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training, after the checkpoint was written."""

    def __init__(self, run: RunDirectory, updates: int, done: str | None = None) -> None:
        done = f"{updates} updates" if done is None else done
        super().__init__(f"interrupted after {done}; continue with --resume {run.path}")
        self.run = run
        self.updates = updates


class Position(NamedTuple):
    """How far a run has come.

    ``step`` labels the records of the metrics, ``updates`` counts the learner's updates, ``done``
    is what the user reads (updates offline, environment steps online), and ``number`` names the
    checkpoint.
    """

    step: int
    updates: int
    done: int
    number: int


@dataclass
class Member:
    """One learner of a run: its settings, its folder and its metrics.

    ``checkpoint`` and ``saved`` are the checkpoint that it is resumed from and its metadata;
    ``metadata`` is what its own checkpoints hold besides the learner.
    """

    config: Any
    directory: RunDirectory
    checkpoint: Path | None = None
    saved: CheckpointMetadata | None = None
    metadata: CheckpointMetadata = field(init=False)
    metrics: MetricsLogger = field(init=False)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.directory.path.name

    @property
    def resumed_from(self) -> tuple[Path, CheckpointMetadata]:
        """The checkpoint that it is resumed from, and its metadata."""
        assert self.checkpoint is not None and self.saved is not None
        return self.checkpoint, self.saved


@dataclass
class Run:
    """An open run.

    Args:
        directory: the folder of the run.
        config: its settings; those of the first member, except for name and place, in a group.
        members: one for each learner.
        reporter: where to print.
        device: where to compute.
        unit: what the loop counts, ``"updates"`` or ``"steps"``.
        start: the checkpoint's number from which the run is resumed; 0 for a new run.
        resumed: whether the run existed before.
        evaluator: evaluates the learner; None: there is no environment.
        candidates: numbers of candidates to evaluate with; ``(None,)`` for learners without one.
        behaviour_return: mean return of the dataset's own episodes, for comparison.
    """

    directory: RunDirectory
    config: Any
    members: Sequence[Member]
    reporter: Reporter
    device: torch.device
    unit: str = "updates"
    start: int = 0
    resumed: bool = False
    evaluator: Evaluator | None = None
    candidates: Sequence[int | None] = (None,)
    behaviour_return: float | None = None
    matmul: MatmulChoice = field(init=False)
    seconds: dict[str, float] = field(init=False)
    _done_here: int = 0
    _warned: bool = False
    _compiled: bool = False

    def __post_init__(self) -> None:
        self.seconds = {"training": 0.0, self.unit: 0.0, "compilation": 0.0}

    @property
    def is_group(self) -> bool:
        """Whether the members have folders of their own."""
        return self.members[0].directory != self.directory

    # --- begin and resume ---------------------------------------------------------------------

    def restore(self, learners: Sequence[Any]) -> list[Any]:
        """The members' learners with the values of the checkpoints that they are resumed from.

        Raises:
            InputError: a checkpoint is of another learner or size, or damaged.
        """
        restored = [
            restore_learner(learner, member.resumed_from[0])
            for member, learner in zip(self.members, learners, strict=True)
        ]
        checkpoint, metadata = self.members[0].resumed_from
        place = self.directory.path if self.is_group else checkpoint
        self.reporter.detail(f"continues {place} at {self.start:,} {self.unit}")
        written_by = metadata.versions.get("torch")
        if written_by != torch.__version__:
            self.reporter.warn(
                f"the run was begun with torch {written_by} and continues with "
                f"{torch.__version__}: the last bits of its numbers may differ"
            )
        return restored

    def begin(self) -> None:
        """Make or clean the folders and write the settings.

        Call it when everything else has been found to be valid: bad input leaves no trace.
        """
        folders = [self.directory, *(m.directory for m in self.members if self.is_group)]
        for folder in folders:
            folder.discard_after(self.start) if self.resumed else folder.start()
        self.directory.write_config(self.config)
        if self.is_group:
            write_json(self.directory.members, {"members": [m.name for m in self.members]})
            for member in self.members:
                member.directory.write_config(member.config)

    @contextmanager
    def recording(self, keep_before: int) -> Iterator[None]:
        """Within the block: threads, matmul precision and metrics files as the settings say.

        Args:
            keep_before: records of a resumed run whose ``step`` is below this are kept.
        """
        route, keep = None, None
        if self.members[0].checkpoint is not None:
            checkpoint, metadata = self.members[0].resumed_from
            with reading_loop_state(checkpoint, "a training run"):
                route, keep = str(metadata.extra["matmul"]), keep_before
        with ExitStack() as stack:
            stack.enter_context(cpu_threads(self.config.threads))
            self.matmul = stack.enter_context(
                matmul_precision(self.config.matmul, device=self.device, setting=route)
            )
            for member in self.members:
                member.metrics = stack.enter_context(MetricsLogger(member.directory.path, keep))
            self.reporter.detail(f"matrix products: {self.matmul.reason}")
            yield

    # --- train --------------------------------------------------------------------------------

    @contextmanager
    def training(self, done: int, total: int) -> Iterator[TrainingBar]:
        """Within the block a progress bar from ``done`` to ``total``; its time is measured."""
        began = time.monotonic()
        with self.reporter.bar(total, done, self.unit) as bar:
            yield bar
            took = time.monotonic() - began
            self.seconds["training"] += took
            self.seconds[self.unit] += took - bar.meter.paused
            self._done_here += bar.done - done

    def first_call(
        self,
        update: Callable[[], tuple[T, Mapping[str, torch.Tensor]]],
        bar: TrainingBar,
        expected: str = "up to a minute",
    ) -> tuple[T, Mapping[str, torch.Tensor]]:
        """Make an update; the first one compiles, which is reported and timed.

        ``update`` makes it and returns its losses too; ``expected`` is how long compiling takes.
        """
        if self._compiled or jit_disabled():
            return update()
        self._compiled = True
        self.reporter.detail(
            f"The first update is being compiled for this machine: {expected} on two cores when it "
            "is new, less when torch still has it in its cache. All others are fast because of it."
        )
        began = time.monotonic()
        with bar.busy("compiling the update"):
            result, info = update()
            wait_for(info)
        self.seconds["compilation"] = time.monotonic() - began
        self.reporter.detail(f"compiled in {duration(self.seconds['compilation'])}")
        return result, info

    def save(
        self, at: Position, learners: Sequence[Any], extras: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write a checkpoint of each member; remove old ones when all are written.

        ``extras`` is the state of the loop for each member, as JSON can hold it.
        """
        for member, learner, extra in zip(self.members, learners, extras, strict=True):
            values = {**member.metadata.extra, **extra, "matmul": self.matmul.setting}
            save_checkpoint(
                member.directory.checkpoint(at.number),
                learner,
                dataclasses.replace(member.metadata, updates=at.updates, extra=values),
            )
        for member in self.members:
            member.directory.prune_checkpoints(member.config.keep_checkpoints)

    def interrupted(self, at: Position) -> TrainingInterrupted:
        """What to raise when Ctrl-C was pressed and everything is saved."""
        return TrainingInterrupted(self.directory, at.updates, f"{at.done:,} {self.unit}")

    # --- record -------------------------------------------------------------------------------

    def log(self, at: Position, values: Sequence[Mapping[str, Any]]) -> None:
        """Append a record to each member's metrics."""
        for member, own in zip(self.members, values, strict=True):
            member.metrics.log({"step": at.step, "updates": at.updates, **own})

    def log_losses(
        self, at: Position, groups: Mapping[str, Mapping[str, torch.Tensor]], bar: TrainingBar
    ) -> dict[str, Any]:
        """Record losses, and warn once if one is NaN. This waits for the device.

        ``groups`` maps ``"train"`` and ``"val"`` to losses by name, ``[]`` or ``[K]`` for K
        members; ``bar`` gives the speed. Returns the record, with means over the members.
        """
        losses = fetch_losses(groups)
        speed = {f"{self.unit}_per_second": round(bar.meter.rate, 2) or None}
        self.log(at, [{**own, **speed} for own in losses])
        bad = {m.name: not_numbers(own) for m, own in zip(self.members, losses, strict=True)}
        diverged = [name for name, names in bad.items() if names]
        if diverged and not self._warned:
            self._warned = True
            what = f"{', '.join(bad[diverged[0]])} is not a number"
            if self.is_group:
                what = f"the losses of {', '.join(diverged)} are not numbers"
            self.reporter.warn(
                f"{what} since {self.unit.removesuffix('s')} {at.done:,}: the training has "
                "diverged; a smaller learning rate may help"
            )
        means = {name: sum(own[name] for own in losses) / len(losses) for name in losses[0]}
        return {"step": at.step, "updates": at.updates, **means}

    def evaluate_interval(self, at: Position, learner: Any, bar: TrainingBar) -> Results:
        """Evaluate between two updates, with few episodes; the first member's results."""
        assert self.evaluator is not None
        episodes, numbers = self.config.evaluation.interval_episodes, self.candidates
        results = self.evaluator.run_each(learner, numbers, episodes, self.reporter, bar=bar)
        self.log(at, [evaluation_record(own) for own in results])
        returns = ", ".join(f"{policy_name(n)}: {mean_return(results, n):.1f}" for n in numbers)
        reference = self.behaviour_return
        beside = "" if reference is None else f" (behaviour {reference:.1f})"
        self.reporter.detail(f"return after {at.done:,} {self.unit}: {returns}{beside}")
        return results[0]

    def evaluate_all(
        self,
        at: Position,
        learner: Any,
        title: str,
        record: Callable[[int | None], bool] = lambda n: False,
    ) -> list[Results]:
        """Evaluate with all episodes, for each number of candidates.

        Everything up to ``at`` must have been saved. ``record`` says for which number of candidates
        trajectories are kept. Returns results for each member, empty ones without an environment.

        Raises:
            TrainingInterrupted: Ctrl-C.
        """
        if self.evaluator is None:
            return [{} for _ in self.members]
        episodes = self.config.evaluation.episodes
        each = f" of each of {len(self.members)} members" if self.is_group else ""
        self.reporter.stage(f"{title}: {episodes} episodes{for_numbers(self.candidates)}{each}")
        try:
            return self.evaluator.run_each(
                learner, self.candidates, episodes, self.reporter, record=record
            )
        except KeyboardInterrupt:
            raise self.interrupted(at) from None

    def final_evaluation(
        self, at: Position, learner: Any, record: Callable[[int | None], bool] = lambda n: False
    ) -> list[Results]:
        """Evaluate the finished policy and record it; see :meth:`evaluate_all`."""
        results = self.evaluate_all(at, learner, "Evaluation", record)
        if self.evaluator is not None:
            self.log(at, [evaluation_record(own) for own in results])
        return results

    # --- finish -------------------------------------------------------------------------------

    def common_summary(self, at: Position) -> dict[str, Any]:
        """The part of a summary that all runs have: how much was done, in which time."""
        speed = self._done_here / max(self.seconds[self.unit], 1e-9)
        return {
            self.unit: at.done,
            "updates": at.updates,
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            f"{self.unit}_per_second": round(speed, 2),
        }

    def finish_member(
        self,
        member: Member,
        at: Position,
        results: Mapping[str, Any],
        curve: Figure,
        pictures: Mapping[str, Path],
    ) -> tuple[dict[str, Any], dict[str, Path]]:
        """Write a member's learning curve and summary, the last file of a run.

        ``results`` is what this kind of run reports, ``pictures`` are other pictures that were
        written, by name. Returns the summary, and the files of the run by name.
        """
        directory = member.directory
        save_figure(curve, directory.learning_curve)
        buffer = directory.buffer(at.number)
        files = {
            "checkpoint": directory.checkpoint(at.number),
            **({"replay buffer": buffer} if buffer.exists() else {}),
            "metrics": member.metrics.jsonl,
            "as a table": member.metrics.csv,
            "learning curve": directory.learning_curve,
            **pictures,
            "summary": directory.summary,
        }
        summary = {
            **results,
            **self.common_summary(at),
            "matmul": dataclasses.asdict(self.matmul),
            "files": {n: str(path.relative_to(directory.path)) for n, path in files.items()},
        }
        write_json(directory.summary, summary)
        return summary, files

    def report_end(self, files: Mapping[str, Path], table: Table | None) -> None:
        """Print the results, the time, and where everything is."""
        if table is not None:
            self.reporter.table(table)
        self.reporter.stage(f"Done: trained for {duration(self.seconds['training'])}. Files:")
        self.reporter.table(files_table(files))


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
    needs_checkpoint: bool = True,
) -> Run:
    """Choose the folder of a new run, or find that of a run to resume. Nothing is written yet.

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
        needs_checkpoint: refuse to resume a run that has no checkpoint yet.

    Raises:
        InputError: the device does not exist, the folder is taken, or the run to resume has other
            settings or nothing left to do.
        FileNotFoundError: there is no run or checkpoint to resume.
    """
    first = configs[0]
    device = choose_device(first.device)
    if resume is None:
        directory = choose_run_directory(first, overwrite, default_name)
    else:
        directory = open_run_directory(resume)
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
        directory=directory,
        config=first,
        members=members,
        reporter=reporter if reporter is not None else Reporter(),
        device=device,
        unit=unit,
        resumed=resume is not None,
    )
    if resume is None or not (needs_checkpoint or directory.checkpoints.is_dir()):
        return run
    checkpoints = [find_checkpoint(resume)] if names is None else _common_checkpoints(members)
    for member, checkpoint in zip(members, checkpoints, strict=True):
        _check_settings(member, resumable)
        member.checkpoint, member.saved = checkpoint, read_metadata(checkpoint)
        run.start = saved_number(member.directory, checkpoint)
        if run.start > last or (run.start == last and member.directory.state == "finished"):
            raise InputError(
                f"{checkpoint} already has {run.start:,} of {last:,} {unit}: there is nothing to "
                "continue; give a larger --max-steps"
            )
    return run


def _check_settings(member: Member, resumable: Sequence[str]) -> None:
    saved = member.directory.read_config(type(member.config))
    # The place and name of a run change when its folder is moved.
    free = {*resumable, "runs_dir", "name", "preset"}
    changed = [name for name in changed_settings(saved, member.config) if name not in free]
    if changed:
        settings = flat_settings(member.config)
        raise InputError(
            f"a run that is continued cannot change {', '.join(changed)}; it may change "
            + ", ".join(name for name in resumable if name in settings)
        )


def _common_checkpoints(members: Sequence[Member]) -> list[Path]:
    """The newest checkpoints that all members have; a kill between two writes leaves some ahead."""
    found = [{path.name for path in m.directory.checkpoints.glob("step_*")} for m in members]
    common = set.intersection(*found)
    if not common:
        raise FileNotFoundError(
            f"the members in {members[0].directory.path.parent} have no checkpoint in common: "
            "there is nothing to continue from; start again with --overwrite"
        )
    return [member.directory.checkpoints / max(common) for member in members]


@contextmanager
def reading_loop_state(checkpoint: Path, writer: str) -> Iterator[None]:
    """Within the block, values of a checkpoint that are missing or malformed are bad input.

    ``writer`` is the kind of run that writes such values, such as ``"a training run"``.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{checkpoint} was not written by {writer}: it lacks the state of the loop"
        ) from None


def wait_for(info: Mapping[str, torch.Tensor]) -> None:
    """Wait until the device has computed the losses."""
    next(iter(info.values())).reshape(-1)[0].item()
