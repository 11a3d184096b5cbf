"""A run from its folder to its summary: restored, recorded, saved, interrupted, finished.

Every loop works through a :class:`Run`: offline with one learner or with several that are trained
as one program, online, and fine-tuning. A run has one member for each learner. The folder of a
single learner is that of the run; several members have a folder each inside it. ``opening.py``
makes a run, ``members.py`` has its learners.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from matplotlib.figure import Figure
from rich.table import Table

from idql_func.files import FileWriteError, write_json
from idql_func.switches import jit_disabled
from idql_func.training.configs.settings import settings_to_dict
from idql_func.training.runs.checkpoint import restore_learner, save_checkpoint
from idql_func.training.runs.console import (
    Reporter,
    TrainingBar,
    duration,
    files_table,
    policy_name,
)
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.runs.members import (
    Member,
    Position,
    TrainingInterrupted,
    reading_loop_state,
)
from idql_func.training.runs.metrics import MetricsLogger
from idql_func.training.runs.ownership import Ownership
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
from idql_func.training.runtime.interrupts import stop_signals
from idql_func.training.runtime.matmul_precision import MatmulChoice, matmul_precision
from idql_func.training.runtime.threads import cpu_threads

__all__ = ["Run", "wait_for"]

T = TypeVar("T")

_THEN = ", then continue with --resume "


@dataclass
class Run:
    """An open run: within a ``with`` block it owns its folder, which no other run then changes.

    Args:
        owned: the folder of the run, locked.
        config: its settings; those of the first member, except for name and place, in a group.
        members: one for each learner.
        reporter: where to print.
        device: where to compute.
        unit: what the loop counts, ``"updates"`` or ``"steps"``.
        start: the checkpoint's number from which the run is resumed; 0 for a run without one.
        resumed: whether it continues from a checkpoint.
        evaluator: evaluates the learner; None: there is no environment.
        candidates: numbers of candidates to evaluate with; ``(None,)`` for learners without one.
        behaviour_return: mean return of the dataset's own episodes, for comparison.
    """

    owned: Ownership
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
    _stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.seconds = {"training": 0.0, self.unit: 0.0, "compilation": 0.0}

    @property
    def directory(self) -> RunDirectory:
        """The folder of the run."""
        return self.owned.directory

    @property
    def is_group(self) -> bool:
        """Whether the members have folders of their own."""
        return self.members[0].directory != self.directory

    def __enter__(self) -> Run:
        self._stack.enter_context(stop_signals())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        self._stack.close()
        self.owned.release()
        if isinstance(error, FileWriteError) and self.owned.begun:
            begun = self.directory.config.is_file()
            then = f"{_THEN}{self.directory.path}" if begun else ", then start the run again"
            raise _then(error, then) from error
        if type(error) is KeyboardInterrupt and not error.args and self.owned.begun:
            raise KeyboardInterrupt(
                f"interrupted; continue with --resume {self.directory.path}"
            ) from error

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

        Call it when everything else has been found to be valid: bad input leaves no trace. The
        settings of the run are written last: a folder without them counts as empty.
        """
        self.owned.begin()
        self.directory.discard_after(self.start)
        if self.is_group:
            write_json(self.directory.members, {"members": [m.name for m in self.members]})
            for member in self.members:
                member.directory.clean()
                member.directory.discard_after(self.start)
                member.directory.write_config(member.config)
        if self.resumed:
            self._prune(self.start)
        self.directory.write_config(self.config)

    def _prune(self, number: int) -> None:
        """Remove all but the newest checkpoints, and all replay buffers but the newest."""
        for member in self.members:
            member.directory.prune_checkpoints(member.config.keep_checkpoints)
            member.directory.prune_buffers(number)

    @contextmanager
    def recording(self, keep_before: int) -> Iterator[None]:
        """Within the block: threads, matmul precision and metrics files as the settings say.

        Args:
            keep_before: records of a resumed run whose ``step`` is below this are kept, as far as
                they were written before the checkpoint.
        """
        route = None
        if self.members[0].checkpoint is not None:
            checkpoint, metadata = self.members[0].resumed_from
            with reading_loop_state(checkpoint, "a training run"):
                route = str(metadata.extra["matmul"])
        with ExitStack() as stack:
            stack.enter_context(cpu_threads(self.config.threads))
            self.matmul = stack.enter_context(
                matmul_precision(self.config.matmul, device=self.device, setting=route)
            )
            for member in self.members:
                member.metrics = stack.enter_context(self._metrics_of(member, keep_before))
            self.reporter.detail(f"matrix products: {self.matmul.reason}")
            yield

    def _metrics_of(self, member: Member, keep_before: int) -> MetricsLogger:
        if member.checkpoint is None:
            return MetricsLogger(member.directory.path)
        extra = member.resumed_from[1].extra
        saved = extra.get("records")
        saved = saved if type(saved) is int else None  # None: of an earlier version
        metrics = MetricsLogger(member.directory.path, keep_before, saved)
        if saved is not None and metrics.found < saved:
            self.reporter.warn(
                f"{metrics.jsonl} has {metrics.found} of the {saved} records that were written "
                f"before {member.checkpoint}: the others are lost, the learner is not affected"
            )
        elif saved is not None and metrics.found_digest != extra.get(
            "records_sha256", metrics.found_digest
        ):
            self.reporter.warn(
                f"{metrics.jsonl} was changed after {member.checkpoint} was written: its records "
                "are kept as they are, the learner is not affected"
            )
        return metrics

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

        Raises:
            FileNotFoundError: the run's folder is not there any more.
            FileWriteError: the disk is full or cannot be written.
        """
        self.check_folders()
        for member, learner, extra in zip(self.members, learners, extras, strict=True):
            # A checkpoint counts on the records before it.
            if member.metrics.flush_to_disk():
                self.reporter.warn(
                    f"{member.metrics.jsonl} was changed by somebody else: it is written again"
                )
            values = {
                **member.metadata.extra,
                **extra,
                "matmul": self.matmul.setting,
                "records": len(member.metrics.records),
                "records_sha256": member.metrics.digest,
            }
            save_checkpoint(
                member.directory.checkpoint(at.number),
                learner,
                dataclasses.replace(
                    member.metadata,
                    updates=at.updates,
                    extra=values,
                    settings=settings_to_dict(member.config),
                ),
            )
        self._prune(at.number)

    def check_folders(self) -> None:
        """Raise unless the folders of the run and its members are still there.

        Raises:
            FileNotFoundError: one was removed or moved away.
        """
        self.owned.check()
        for member in self.members:
            if not member.directory.config.is_file():
                raise FileNotFoundError(
                    f"{member.directory.config} was removed or moved while its run was in "
                    "progress: the run was stopped"
                )

    def interrupted(self, at: Position) -> TrainingInterrupted:
        """What to raise when Ctrl-C was pressed and everything is saved."""
        return TrainingInterrupted(self.directory, at.updates, f"{at.done:,} {self.unit}")

    # --- record -------------------------------------------------------------------------------

    def log(self, at: Position, values: Sequence[Mapping[str, Any]]) -> None:
        """Append a record to each member's metrics."""
        self.owned.check()
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

    def save_picture(self, write: Callable[[], Any]) -> None:
        """Write a picture; a run that is complete does not fail by a disk without room for it.

        A finished run that lacks a picture may be resumed: it is evaluated and drawn again.
        """
        try:
            write()
        except FileWriteError as error:
            again = f", then draw it with --resume {self.directory.path}"
            self.reporter.warn(str(_then(error, again)).removesuffix("."))

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
        self.check_folders()
        if member.metrics.flush_to_disk():
            self.reporter.warn(
                f"{member.metrics.jsonl} was changed by somebody else: it is written again"
            )
        self.save_picture(lambda: save_figure(curve, directory.learning_curve))
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


def _then(error: FileWriteError, then: str) -> FileWriteError:
    """The same error, with how to go on after its advice."""
    return error.with_advice(
        error.advice.partition(", then ")[0].removesuffix(" and try again") + then
    )


def wait_for(info: Mapping[str, torch.Tensor]) -> None:
    """Wait until the device has computed the losses."""
    next(iter(info.values())).reshape(-1)[0].item()
