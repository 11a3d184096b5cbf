"""Offline training: dataset, held-out split, updates, evaluation, checkpoints, pictures.

One loop for every learner that learns from a fixed dataset, after upstream's three
(``examples/states/train_diffusion_offline.py`` and ``train_offline.py``,
``examples/pixels/train_offline_pixels.py``). What differs is said where it does, with the quirk's
ID.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from idql_func import random
from idql_func.compiler.donation import without_donation
from idql_func.data import ReplayBuffer
from idql_func.switches import jit_disabled
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.settings import changed_settings
from idql_func.training.runs.checkpoint import (
    CheckpointMetadata,
    find_checkpoint,
    read_metadata,
    restore_learner,
)
from idql_func.training.runs.console import (
    Reporter,
    TrainingBar,
    duration,
)
from idql_func.training.runs.directory import (
    RunDirectory,
    choose_run_directory,
    open_run_directory,
)
from idql_func.training.runs.metrics import MetricsLogger
from idql_func.training.runs.offline_records import (
    IDQL,
    OfflineRecords,
    State,
    create,
    fields_of,
    learner_keywords,
)
from idql_func.training.runtime.device import choose_device
from idql_func.training.runtime.eager import eagerly_on_cpu
from idql_func.training.runtime.interrupts import held_interrupts
from idql_func.training.runtime.matmul_precision import matmul_precision
from idql_func.training.runtime.pace import Pace
from idql_func.training.runtime.threads import cpu_threads
from idql_func.training.sources import count_transitions
from idql_func.training.task import Task, prepare_task, shapes_of
from idql_func.training.updates import scan_updates
from idql_func.types import InputError

__all__ = [
    "RESUMABLE",
    "OfflineLoop",
    "TrainResult",
    "TrainingInterrupted",
    "check_resumable",
    "describe_task",
    "learner_keywords",
    "loop_state",
    "train_offline",
    "warn_of_versions",
]

RESUMABLE = (
    "max_steps",
    "log_interval",
    "checkpoint_interval",
    "keep_checkpoints",
    "evaluation.interval",
    "evaluation.interval_episodes",
    "evaluation.episodes",
    "evaluation.N",
    "evaluation.num_envs",
    "evaluation.seed",
)
"""Settings that a resumed run may change: none of them touches what is computed by an update."""


_PATIENCE = 10.0
"""Seconds for which Ctrl-C waits for the end of a scan; a scan takes a fraction of one."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training, after the checkpoint was written."""

    def __init__(self, run: RunDirectory, updates: int, done: str | None = None) -> None:
        done = f"{updates} updates" if done is None else done
        super().__init__(f"interrupted after {done}; continue with --resume {run.path}")
        self.run = run
        self.updates = updates


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    ``evaluations`` maps N (None for a learner without one) to the result of the last evaluation;
    ``summary`` is the content of ``summary.json``.
    """

    learner: Any
    run: RunDirectory
    evaluations: Mapping[int | None, Mapping[str, Any]]
    summary: Mapping[str, Any]


def train_offline(
    config: TrainConfig,
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    on_update: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train a learner on a fixed dataset, evaluate it, and leave a run's folder behind.

    Args:
        config: the settings. For a resumed run they must be those of the run, but for the names in
            ``RESUMABLE`` (``open_run_directory(path).read_config()`` gives them).
        resume: a run's folder, or a checkpoint in one, to continue from; the result has the same
            bits as if the run had never stopped (same machine, same versions).
        overwrite: replace a run of the same name.
        reporter: where to print; default: standard output.
        on_update: called with the number of updates done after each of them.

    Returns:
        The trained learner, its run and its evaluations.

    Raises:
        InputError: settings, data or a checkpoint are not usable; the sentence says what is wrong.
        FileNotFoundError: the dataset or the run to resume does not exist.
        TrainingInterrupted: Ctrl-C; a checkpoint has been written.
    """
    config.validate()
    reporter = reporter if reporter is not None else Reporter()
    device = choose_device(config.device)
    checkpoint = None
    if resume is None:
        run = choose_run_directory(config, overwrite)
    else:
        run = open_run_directory(resume)
        checkpoint = find_checkpoint(resume)
        check_resumable(run, config, checkpoint)

    reporter.stage(f"Data: {config.dataset.source}")
    task = prepare_task(config, device, progress=reporter.console.is_terminal)
    held_out = 0 if task.held_out is None else count_transitions(task.held_out)
    describe_task(task, (count_transitions(task.train), held_out), reporter)

    reporter.stage(f"Learner: {config.learner.class_name}, seed {config.seed}, on {device}")
    learner = create(config, task)
    setting = None
    start = 0
    if checkpoint is None:
        if isinstance(config.learner, IDQL):
            # One batch is drawn and thrown away, as upstream does (D3).
            task.train.sample_torch(config.batch_size)
    else:
        metadata = read_metadata(checkpoint)
        learner = restore_learner(learner, checkpoint)
        setting, data_key = loop_state(metadata, checkpoint)
        task.train.rng = data_key
        start = metadata.updates
        reporter.detail(f"continues {checkpoint} at {start:,} updates")
        warn_of_versions(metadata, reporter)
    if device.type != "cpu":
        learner = learner.to(device)

    # Not before everything above has been found to be in order: bad input leaves no trace.
    if checkpoint is None:
        run.start()
    else:
        run.discard_after(start)
    run.write_config(config)
    state = State(learner, task.train.rng.to(device), start)
    with (
        cpu_threads(config.threads),
        matmul_precision(config.matmul, device=device, setting=setting) as matmul,
        MetricsLogger(run.path, keep_before=start if checkpoint is not None else None) as logger,
    ):
        reporter.detail(f"matrix products: {matmul.reason}")
        records = OfflineRecords(config, task, run, reporter, logger, matmul)
        state = OfflineLoop(config, task, records, state, on_update).train()
        try:
            evaluations = records.final_evaluation(state)
        except KeyboardInterrupt:
            # The checkpoint of the last update is written; what is missing is the evaluation.
            raise TrainingInterrupted(run, state.updates) from None
        summary = records.finish(state, evaluations)
    return TrainResult(state.learner, run, evaluations, summary)


class LoopRecords(Protocol):
    """What the loop writes down; those of one learner, or of several that it trains as one."""

    run: RunDirectory
    reporter: Reporter
    seconds: dict[str, float]
    updates_made: int

    def save(self, state: State) -> Any:
        """Write a checkpoint."""
        ...

    def log_losses(
        self, step: int, groups: Mapping[str, Mapping[str, torch.Tensor]], bar: TrainingBar
    ) -> Mapping[str, Any]:
        """Record a step's losses by group, ``train`` and ``val``; what the bar is to show."""
        ...

    def evaluate_on_the_way(self, step: int, learner: Any, bar: TrainingBar) -> None:
        """Evaluate the learner after a step."""
        ...


@dataclass
class OfflineLoop:
    """The loop over updates and what happens at its intervals.

    Between two events the updates run in scans that reuse the learner's memory. The update before
    an event works on a copy: whatever interrupts the event, the state before it is still whole.
    """

    config: TrainConfig
    task: Task
    records: LoopRecords
    state: State | None
    """None in the middle of a scan, when the learner's memory is being written to."""
    on_update: Callable[[int], None] | None = None

    @property
    def reporter(self) -> Reporter:
        """Where to print."""
        return self.records.reporter

    def train(self) -> State:
        """All updates from the state on. On Ctrl-C the last whole state is written first."""
        assert self.state is not None
        records, last = self.records, self.config.max_steps
        self.reporter.stage(
            f"Training: {last:,} updates of {self.config.batch_size} transitions; "
            f"everything goes to {records.run.path}"
        )
        began, start, pace = time.monotonic(), self.state.updates, Pace()
        try:
            with self.reporter.bar(last, start) as bar:
                state = self.state
                while state.updates < last:
                    quiet = self._updates_before_event(state.updates)
                    if state.updates == start or quiet == 0:
                        state = self._update_and_record(state, bar, first=state.updates == start)
                    else:
                        count = 1 if self.on_update is not None else min(quiet, pace.updates)
                        state = self._scan(state, count, pace)
                        bar.advance(state.updates)
                    if state.updates % self.config.checkpoint_interval == 0 or (
                        state.updates == last
                    ):
                        records.save(state)
                    if self.on_update is not None:
                        self.on_update(state.updates)
                records.seconds["training"] = time.monotonic() - began
                records.seconds["updates"] = records.seconds["training"] - bar.meter.paused
                records.updates_made = state.updates - start
        except KeyboardInterrupt:
            if self.state is None:
                raise  # in the middle of an update that hangs: the last checkpoint stands
            self.reporter.warn("Interrupted: writing a checkpoint.")
            records.save(self.state)
            raise TrainingInterrupted(records.run, self.state.updates) from None
        return state

    def _logs(self, step: int) -> bool:
        # Intervals are counted as upstream counts them: the records of step i come after its
        # update, so after i + 1 updates (E13).
        return step % self.config.log_interval == 0

    def _evaluates(self, step: int) -> bool:
        there = self.task.make_env is not None and 0 < step < self.config.max_steps - 1
        return there and step % self.config.evaluation.interval == 0

    def _updates_before_event(self, step: int) -> int:
        """How many updates can be made from ``step`` on before one that is followed by an event.

        The one that a checkpoint follows is among them.
        """
        config = self.config
        intervals = [config.log_interval]
        if self.task.make_env is not None:
            intervals.append(config.evaluation.interval)
        events = [step + -step % interval for interval in intervals]
        saved = step - step % config.checkpoint_interval + config.checkpoint_interval
        return min(*events, saved, config.max_steps) - step

    @functools.cached_property
    def _arrays(self) -> dict[str, Any] | None:
        """The dataset on the device; None for a buffer, whose rows are put together on the host."""
        data = self.task.train
        return None if isinstance(data, ReplayBuffer) else data.on_device(fields_of(self.config))

    def _advance(
        self, state: State, count: int, donate: bool
    ) -> tuple[State, Mapping[str, torch.Tensor]]:
        """The state so many updates later, and the losses of the last one."""
        size, data = self.config.batch_size, self.task.train
        if self._arrays is not None:
            learner, key, info = scan_updates(
                state.learner,
                self._arrays,
                state.data_key,
                count,
                size,
                metrics="last",
                donate=donate,
            )
            return State(learner, key, state.updates + count), info
        learner = state.learner if donate else without_donation(state.learner)
        info: Mapping[str, torch.Tensor] = {}
        data.rng = state.data_key
        for _ in range(count):
            batch = data.sample_torch(size, keys=fields_of(self.config))
            learner, info = learner.update(batch, donate=True)
        return State(learner, data.rng, state.updates + count), info

    def _scan(self, state: State, count: int, pace: Pace) -> State:
        """So many updates in one go, which Ctrl-C does not part."""
        began = time.monotonic()
        with held_interrupts(patience=_PATIENCE) as interrupt:
            self.state = None
            state, info = self._advance(state, count, donate=True)
            _wait_for(info)
            self.state = state
        if interrupt.pending:
            raise KeyboardInterrupt
        pace.took(count, time.monotonic() - began)
        return state

    def _update_and_record(self, before: State, bar: TrainingBar, first: bool) -> State:
        """One update and the events after it."""
        if first:
            state, info = self._first_update(before, bar)
        else:
            state, info = self._advance(before, 1, donate=False)
        bar.advance(state.updates)
        step = before.updates
        if self._logs(step):
            self._log_losses(step, state.learner, info, bar)
        if self._evaluates(step):
            self.records.evaluate_on_the_way(step, state.learner, bar)
        # From here on, and not before, the step counts as done: an interrupt above leaves a
        # checkpoint from which all of it is done again.
        self.state = state
        return state

    def _first_update(
        self, state: State, bar: TrainingBar
    ) -> tuple[State, Mapping[str, torch.Tensor]]:
        """The first call compiles; say so, and wait for its end to know how long it took."""
        if jit_disabled():
            return self._advance(state, 1, donate=False)
        took = "20 to 30 s" if isinstance(self.config.learner, IDQL) else "up to a minute"
        self.reporter.detail(
            f"The first update is being compiled for this machine: {took} on two cores when it "
            "is new, less when torch still has it in its cache. All others are fast because of it."
        )
        with bar.busy("compiling the update") as busy:
            state, info = self._advance(state, 1, donate=False)
            _wait_for(info)
        self.records.seconds["compilation"] = busy.seconds
        self.reporter.detail(f"compiled in {duration(busy.seconds)}")
        return state, info

    def _log_losses(
        self, step: int, learner: Any, info: Mapping[str, torch.Tensor], bar: TrainingBar
    ) -> None:
        """One record of training and held-out losses; the only place that waits for the device."""
        # Its time is kept out of the rate.
        with bar.busy("measuring held-out losses"):
            held_out = self._held_out_losses(step, learner)
            groups = {"train": info} if held_out is None else {"train": info, "val": held_out}
            shown = self.records.log_losses(step, groups, bar)
        bar.losses(shown)

    def _held_out_losses(self, step: int, learner: Any) -> Mapping[str, torch.Tensor] | None:
        """Losses only: upstream updates on the held-out batch and drops the result (E11).

        Neither the learner's key nor the data's moves, so logging does not touch the training.
        """
        if self.task.held_out is None:
            return None
        key = random.fold_in(random.PRNGKey(self.config.seed), step)
        batch = self.task.held_out.sample_torch(
            self.config.batch_size, key=key, keys=fields_of(self.config)
        )
        with eagerly_on_cpu(learner.rng.device):
            return learner.eval_loss(batch)[1]


def _wait_for(info: Mapping[str, torch.Tensor]) -> None:
    next(iter(info.values())).reshape(-1)[0].item()


def check_resumable(run: RunDirectory, config: TrainConfig, checkpoint: Path) -> None:
    """Refuse settings that a run cannot go on with, and a run that has nothing left to do.

    Raises:
        InputError: so.
    """
    own = run.read_config()
    # Where the run lies and what it is called changes when its folder is moved.
    free = {*RESUMABLE, "runs_dir", "name", "preset"}
    if own.cosine_decay:
        free.discard("max_steps")  # the decay spans all updates
    changed = [name for name in changed_settings(own, config) if name not in free]
    if changed:
        raise InputError(
            f"a run that is continued cannot change {', '.join(changed)}; it may change "
            + ", ".join(name for name in RESUMABLE if name in free)
        )
    updates = read_metadata(checkpoint).updates
    if updates > config.max_steps or (updates == config.max_steps and run.summary.exists()):
        raise InputError(
            f"{checkpoint} already has {updates:,} updates and max_steps is {config.max_steps:,}: "
            "there is nothing to continue; give a larger --max-steps"
        )


def loop_state(metadata: CheckpointMetadata, checkpoint: Path) -> tuple[str, torch.Tensor]:
    """The matmul route and the dataset's key that a run's checkpoint carries.

    Raises:
        InputError: it carries none.
    """
    try:
        key = torch.tensor(metadata.extra["data_key"], dtype=torch.int64)
        return str(metadata.extra["matmul"]), key
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{checkpoint} was not written by a training run: it lacks the state of the loop"
        ) from None


def warn_of_versions(metadata: CheckpointMetadata, reporter: Reporter) -> None:
    """Say so if a run goes on with another torch than that of its checkpoint."""
    if metadata.versions["torch"] != torch.__version__:
        reporter.warn(
            f"the run was begun with torch {metadata.versions['torch']} and goes on with "
            f"{torch.__version__}: the last bits of its numbers may differ"
        )


def describe_task(task: Task, counts: tuple[int, int], reporter: Reporter) -> None:
    """Print what there is to learn from: ``counts`` transitions to train on and held out."""
    behaviour = task.behaviour
    reporter.detail(
        f"{counts[0]:,} transitions to train on, {counts[1]:,} held out; "
        f"observations {shapes_of(task.observation_space)}, actions {task.action_space.shape}"
    )
    if behaviour is not None:
        score = "" if behaviour.score is None else f", normalised score {behaviour.score:.1f}"
        reporter.detail(
            f"behaviour's mean return {behaviour.mean:.1f} over {behaviour.episodes} episodes"
            + score
        )
