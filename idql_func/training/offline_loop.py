"""The loop of every run that learns from a fixed dataset: update; log, evaluate, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from idql_func.training.configs.learners import DDPMIQLConfig, GeneralDDPMIQLConfig
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.runs.console import TrainingBar
from idql_func.training.runs.members import Position
from idql_func.training.runs.run import Run, wait_for
from idql_func.training.runtime.interrupts import delayed_interrupts
from idql_func.types import PRNGKey

__all__ = ["IDQL", "Learners", "OfflineLoop", "ScanLength", "State"]

IDQL = (DDPMIQLConfig, GeneralDDPMIQLConfig)
"""Settings of the learners that choose among several candidate actions."""

_PATIENCE = 10.0
"""Seconds for which Ctrl-C waits for the end of a scan; a scan takes a fraction of a second."""

_LARGEST_GROWTH = 8


@dataclass(frozen=True)
class State:
    """Everything that changes from update to update; replaced as a whole, never in part."""

    learner: Any
    data_key: PRNGKey
    updates: int

    @property
    def position(self) -> Position:
        """How far the run is when all updates are made."""
        return Position(self.updates, self.updates, self.updates, self.updates)


class Learners(Protocol):
    """What the loop trains: one learner, or several stacked into one."""

    def advance(
        self, state: State, count: int, donate: bool
    ) -> tuple[State, Mapping[str, torch.Tensor]]:
        """The state after ``count`` updates, and the losses of the last one."""
        ...

    def held_out_losses(self, step: int, learner: Any) -> Mapping[str, torch.Tensor] | None:
        """Losses on held-out data, without an update; None if nothing is held out."""
        ...

    def members(self, state: State) -> Sequence[State]:
        """The state of each member, as its run alone has it."""
        ...


@dataclass
class ScanLength:
    """The number of updates that take about ``seconds``, by the time that earlier ones took.

    Between two scans the progress bar is drawn and Ctrl-C is handled. The length of the scans
    changes none of the numbers.

    >>> length = ScanLength(seconds=0.5)
    >>> length.record(1, seconds=0.02)
    >>> length.updates  # grows in steps, because one slow or fast scan says little
    8
    >>> length.record(8, seconds=0.16)
    >>> length.updates
    25
    """

    seconds: float = 0.4
    updates: int = 1

    def record(self, updates: int, seconds: float) -> None:
        """Adapt to the time that a scan took."""
        fitting = self.seconds * updates / seconds if seconds > 0 else float("inf")
        self.updates = max(1, int(min(fitting, _LARGEST_GROWTH * self.updates)))


@dataclass
class OfflineLoop:
    """The loop over updates and what happens at its intervals.

    Between two events the updates run in scans that reuse the learner's memory. The update before
    an event works on a copy, so the state before it is intact if the event is interrupted.

    Args:
        run: where everything is recorded.
        learners: what is trained.
        state: where the loop starts; None while a scan writes to the learner's memory.
        on_update: called with the number of updates after each of them.
    """

    run: Run
    learners: Learners
    state: State | None
    on_update: Callable[[int], None] | None = None

    @property
    def _config(self) -> TrainConfig:
        return self.run.config

    def train(self) -> State:
        """Make all remaining updates. On Ctrl-C the last intact state is saved first."""
        assert self.state is not None
        run, last, start = self.run, self._config.max_steps, self.state.updates
        run.reporter.stage(
            f"Training: {last:,} updates of {self._config.batch_size} transitions; "
            f"everything goes to {run.directory.path}"
        )
        scan_length = ScanLength()
        try:
            with run.training(start, last) as bar:
                state = self.state
                while state.updates < last:
                    quiet = self._updates_before_event(state.updates)
                    if state.updates == start or quiet == 0:
                        state = self._update_and_record(state, bar)
                    else:
                        most = 1 if self.on_update is not None else scan_length.updates
                        state = self._scan(state, min(quiet, most), scan_length)
                        bar.advance(state.updates)
                    if state.updates % self._config.checkpoint_interval == 0 or (
                        state.updates == last
                    ):
                        self._save(state)
                    if self.on_update is not None:
                        self.on_update(state.updates)
        except KeyboardInterrupt:
            if self.state is None:
                raise  # in the middle of an update that hangs: the last checkpoint is valid
            run.reporter.warn("Interrupted: writing a checkpoint.")
            self._save(self.state)
            raise run.interrupted(self.state.position) from None
        return state

    def _save(self, state: State) -> None:
        members = self.learners.members(state)
        self.run.save(
            state.position,
            [member.learner for member in members],
            [{"data_key": member.data_key.tolist()} for member in members],
        )

    def _evaluates(self, step: int) -> bool:
        possible = self.run.evaluator is not None and 0 < step < self._config.max_steps - 1
        return possible and step % self._config.evaluation.interval == 0

    def _updates_before_event(self, step: int) -> int:
        """How many updates follow ``step`` before one that is logged or evaluated.

        An update that is followed by a checkpoint is the last of them.
        """
        config = self._config
        intervals = [config.log_interval]
        if self.run.evaluator is not None:
            intervals.append(config.evaluation.interval)
        events = [step + -step % interval for interval in intervals]
        saved = step - step % config.checkpoint_interval + config.checkpoint_interval
        return min(*events, saved, config.max_steps) - step

    def _scan(self, state: State, count: int, length: ScanLength) -> State:
        """``count`` updates in one call, which Ctrl-C does not divide."""
        began = time.monotonic()
        with delayed_interrupts(patience=_PATIENCE) as interrupt:
            self.state = None
            state, info = self.learners.advance(state, count, donate=True)
            wait_for(info)
            self.state = state
        if interrupt.pending:
            raise KeyboardInterrupt
        length.record(count, time.monotonic() - began)
        return state

    def _update_and_record(self, before: State, bar: TrainingBar) -> State:
        """One update and the events after it."""
        expected = "20 to 30 s" if isinstance(self._config.learner, IDQL) else "up to a minute"
        state, info = self.run.first_call(
            lambda: self.learners.advance(before, 1, donate=False), bar, expected
        )
        bar.advance(state.updates)
        # Intervals are counted as upstream counts them: the records of step i come after its
        # update, so after i + 1 updates (E13).
        step = before.updates
        at = state.position._replace(step=step)
        if step % self._config.log_interval == 0:
            # The time of this is kept out of the rate.
            with bar.busy("measuring held-out losses"):
                held_out = self.learners.held_out_losses(step, state.learner)
                groups = {"train": info} if held_out is None else {"train": info, "val": held_out}
                shown = self.run.log_losses(at, groups, bar)
            bar.losses(shown)
        if self._evaluates(step):
            self.run.evaluate_interval(at, state.learner, bar)
        # Only now does the step count as done: after an interrupt above it is repeated as a whole.
        self.state = state
        return state
