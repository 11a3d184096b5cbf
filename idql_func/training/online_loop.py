"""The loop of every run that collects data: act, keep, learn; log, evaluate, save.

What a step does is a :class:`Course`: training from scratch and fine-tuning differ in that alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.table import Table

from idql_func.data import ReplayBuffer
from idql_func.switches import jit_disabled
from idql_func.training.configs.online import OnlineEvaluationConfig
from idql_func.training.interaction import Episode, Interaction
from idql_func.training.offline import TrainingInterrupted
from idql_func.training.runs.checkpoint import (
    CheckpointMetadata,
    find_checkpoint,
    read_metadata,
    save_checkpoint,
)
from idql_func.training.runs.console import (
    Reporter,
    TrainingBar,
    duration,
    files_table,
    policy_name,
)
from idql_func.training.runs.directory import RunDirectory, write_json
from idql_func.training.runs.metrics import MetricsLogger
from idql_func.training.runs.results import (
    Evaluator,
    evaluation_record,
    fetch_scalars,
    for_numbers,
    not_numbers,
)
from idql_func.training.runtime.interrupts import held_interrupts
from idql_func.training.runtime.matmul_precision import MatmulChoice
from idql_func.types import InputError

__all__ = ["Course", "Intervals", "LoopState", "OnlineLoop", "SavedLoop", "read_saved_loop"]

Results = dict[int | None, dict[str, Any]]


class Course(Protocol):
    """What is done at each step, counted from 1."""

    def act(self, learner: Any, interaction: Interaction, step: int) -> tuple[np.ndarray, Any]:
        """The action ``[A]``, and the learner with its key advanced."""
        ...

    def learns(self, step: int) -> bool:
        """Whether the step ends with an update."""
        ...

    def update(self, learner: Any) -> tuple[Any, Mapping[str, torch.Tensor]]:
        """The learner after an update, and its losses; the update may use up the one before it."""
        ...


@dataclass(frozen=True)
class LoopState:
    """All that changes from step to step, but for the environment and its buffer."""

    learner: Any
    step: int = 0
    updates: int = 0


@dataclass(frozen=True)
class Intervals:
    """Steps between records, evaluations and checkpoints, and how many of the last ones stay."""

    log: int
    evaluation: int
    checkpoint: int
    keep: int


@dataclass
class OnlineLoop:
    """The loop over steps and what happens at its intervals.

    Args:
        course: what is done at a step.
        interaction: the environment and the buffer.
        run, reporter, logger, matmul: where everything goes, and the route of matrix products.
        evaluator: tries learners out, in environments of its own (quirk E14).
        evaluation: how often, and how many episodes.
        numbers: candidates to evaluate with; ``(None,)`` for a learner without such a number.
        intervals: see :class:`Intervals`.
        metadata: the metadata of a checkpoint, but for its ``updates`` and the loop's own part.
        last: the last step.
        frames: steps of the environment in one step of the loop (repeated actions).
        offset: what the records' ``step`` starts from: updates made before the first step.
        record: keep the positions of the evaluation at the end, for a picture.
        on_step: called with the number of steps done after each of them.
    """

    course: Course
    interaction: Interaction
    run: RunDirectory
    reporter: Reporter
    logger: MetricsLogger
    matmul: MatmulChoice
    evaluator: Evaluator
    evaluation: OnlineEvaluationConfig
    numbers: Sequence[int | None]
    intervals: Intervals
    metadata: CheckpointMetadata
    last: int
    frames: int = 1
    offset: int = 0
    record: bool = False
    on_step: Callable[[int], None] | None = None
    seconds: dict[str, float] = field(
        default_factory=lambda: {"training": 0.0, "steps": 0.0, "compilation": 0.0}
    )
    steps_made: int = 0
    _warned: bool = False
    _compiled: bool = False
    _recent: list[float] = field(default_factory=list)
    _evaluated: str = ""

    def train(self, state: LoopState) -> LoopState:
        """All steps after those of ``state``. On Ctrl-C the last whole step is written first."""
        began, start = time.monotonic(), state.step
        stop = held_interrupts(lambda: self.reporter.warn("Ctrl-C: finishing this step first."))
        with self.reporter.bar(self.last * self.frames, start * self.frames, "steps") as bar:
            try:
                with stop as interrupt:
                    for step in range(start + 1, self.last + 1):
                        state = self._step(state, step, bar)
                        if self.on_step is not None:
                            self.on_step(step)
                        if interrupt.pending:
                            raise KeyboardInterrupt
            except KeyboardInterrupt:
                if self.interaction.steps != state.step:
                    raise  # a second Ctrl-C in the middle of a step: the last checkpoint stands
                self.reporter.warn("Interrupted: writing a checkpoint and the replay buffer.")
                self.save(state)
                raise self.interrupted(state) from None
            self.seconds["training"] += time.monotonic() - began
            self.seconds["steps"] += time.monotonic() - began - bar.meter.paused
            self.steps_made += state.step - start
        return state

    def interrupted(self, state: LoopState) -> TrainingInterrupted:
        """What to raise when Ctrl-C was pressed and all is saved."""
        steps = f"{state.step * self.frames:,} steps"
        return TrainingInterrupted(self.run, state.updates, steps)

    def save(self, state: LoopState) -> Path:
        """Write the checkpoint of a state, and the buffer that belongs to it."""
        buffer = self.run.buffer(state.step)
        # The buffer comes first: a checkpoint that names one is there only if that one is whole.
        self.interaction.buffer.save(buffer)
        metadata = self.metadata
        path = save_checkpoint(
            self.run.checkpoint(state.step),
            state.learner,
            CheckpointMetadata(
                updates=state.updates,
                seed=metadata.seed,
                create=metadata.create,
                observation_space=metadata.observation_space,
                action_space=metadata.action_space,
                extra={
                    **metadata.extra,
                    "loop": {
                        "step": state.step,
                        "buffer": str(buffer.relative_to(self.run.path)),
                        "interaction": self.interaction.state(),
                        "course": getattr(self.course, "state", dict)(),
                    },
                    "matmul": self.matmul.setting,
                },
            ),
        )
        self.run.prune_checkpoints(self.intervals.keep)
        self.run.prune_buffers(keep=buffer)
        return path

    def final_evaluation(self, state: LoopState) -> Results:
        """The evaluation of the finished policy, with all its episodes."""
        episodes = self.evaluation.episodes
        self.reporter.stage(f"Evaluation: {episodes} episodes{for_numbers(self.numbers)}")
        results = self.evaluator.run_each(
            state.learner, self.numbers, episodes, self.reporter, lambda n: self.record
        )
        self._log(state, evaluation_record(results))
        return results

    def evaluate_at(self, state: LoopState) -> Results:
        """An evaluation on the way."""
        results = {
            n: self.evaluator.run(state.learner, n, self.evaluation.interval_episodes)
            for n in self.numbers
        }
        self._log(state, evaluation_record(results))
        returns = ", ".join(
            f"{policy_name(n)}: {result['return']:.1f}" for n, result in results.items()
        )
        self.reporter.detail(
            f"return after {state.step * self.frames:,} steps: {returns} "
            f"({self.evaluation.interval_episodes} episodes)"
        )
        self._evaluated = f"evaluation {results[self.numbers[-1]]['return']:.1f}"
        return results

    def conclude(
        self,
        state: LoopState,
        summary: Mapping[str, Any],
        table: Table,
        pictures: Mapping[str, Path],
    ) -> dict[str, Any]:
        """Write the summary, the last file of a run, and say how it went and where everything is.

        Args:
            state: the last one.
            summary: what this kind of run has to say.
            table: the returns.
            pictures: what was drawn besides the learning curve.

        Returns:
            The summary, with the numbers and files that all such runs have.
        """
        run = self.run
        files = {
            "checkpoint": run.checkpoint(state.step),
            "replay buffer": run.buffer(state.step),
            "metrics": self.logger.jsonl,
            "as a table": self.logger.csv,
            "learning curve": run.learning_curve,
            **pictures,
            "summary": run.summary,
        }
        speed = self.steps_made * self.frames / max(self.seconds["steps"], 1e-9)
        whole = {
            **summary,
            "steps": state.step * self.frames,
            "updates": state.updates,
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "steps_per_second": round(speed, 2),
            "matmul": dataclasses.asdict(self.matmul),
            "files": {name: str(path.relative_to(run.path)) for name, path in files.items()},
        }
        write_json(run.summary, whole)
        self.reporter.table(table)
        self.reporter.stage(f"Done: trained for {duration(self.seconds['training'])}. Files:")
        self.reporter.table(files_table(files))
        return whole

    def _step(self, state: LoopState, step: int, bar: TrainingBar) -> LoopState:
        action, learner = self.course.act(state.learner, self.interaction, step)
        episode = self.interaction.step(action)
        info, updates = None, state.updates
        if self.course.learns(step):
            learner, info = self._update(learner, bar)
            updates += 1
        state = LoopState(learner, step, updates)
        bar.advance(step * self.frames)
        if episode is not None:
            self._log_episode(state, episode, bar)
        if info is not None and step % self.intervals.log == 0:
            self._log_losses(state, info, bar)
        if step % self.intervals.evaluation == 0 and step < self.last:
            with bar.busy("evaluating"):
                self.evaluate_at(state)
        if step % self.intervals.checkpoint == 0 or step == self.last:
            with bar.busy("saving"):
                self.save(state)
        return state

    def _update(self, learner: Any, bar: TrainingBar) -> tuple[Any, Mapping[str, torch.Tensor]]:
        """The first call compiles; say so, and wait for its end to know how long it took."""
        if self._compiled or jit_disabled():
            return self.course.update(learner)
        self._compiled = True
        self.reporter.detail(
            "The first update is being compiled for this machine: up to a minute on two cores when "
            "it is new, less when torch still has it in its cache."
        )
        with bar.busy("compiling the update") as busy:
            learner, info = self.course.update(learner)
            next(iter(info.values())).item()
        self.seconds["compilation"] = busy.seconds
        self.reporter.detail(f"compiled in {duration(busy.seconds)}")
        return learner, info

    def _log(self, state: LoopState, values: Mapping[str, Any]) -> None:
        step = self.offset + state.step * self.frames
        self.logger.log({"step": step, "updates": state.updates, **values})

    def _log_episode(self, state: LoopState, episode: Episode, bar: TrainingBar) -> None:
        record: dict[str, Any] = {
            "episode/return": episode.total,
            "episode/length": episode.length * self.frames,
        }
        if episode.success is not None:
            record["episode/success"] = float(episode.success)
        self._log(state, record)
        self._recent = [*self._recent[-9:], episode.total]
        mean = f"return {np.mean(self._recent):.1f} (last {len(self._recent)})"
        bar.show(", ".join(part for part in (mean, self._evaluated) if part))

    def _log_losses(
        self, state: LoopState, info: Mapping[str, torch.Tensor], bar: TrainingBar
    ) -> None:
        """One record of losses; the only place that waits for the device."""
        record: dict[str, Any] = fetch_scalars({"train": info})
        bad = not_numbers(record)
        record["steps_per_second"] = round(bar.meter.rate, 2) or None
        self._log(state, record)
        if bad and not self._warned:
            self._warned = True
            self.reporter.warn(
                f"{', '.join(bad)} is not a number since step {state.step:,}: the training has "
                "diverged; a smaller learning rate may help"
            )


@dataclass(frozen=True)
class SavedLoop:
    """What a checkpoint says of the loop that wrote it."""

    checkpoint: Path
    step: int
    updates: int
    matmul: str
    buffer: Path
    interaction: Mapping[str, Any]
    course: Mapping[str, Any]
    torch_version: str | None

    def load_buffer(self, cls: type[ReplayBuffer], capacity: int) -> ReplayBuffer:
        """The replay buffer that belongs to the checkpoint, with room for a longer run.

        Raises:
            InputError: it is gone, since only the newest one is kept, or damaged.
        """
        if not self.buffer.exists():
            raise InputError(
                f"{self.checkpoint} cannot be continued: its replay buffer {self.buffer} is gone "
                "(only that of the newest checkpoint is kept)"
            )
        return cls.load(self.buffer, capacity=capacity)


def read_saved_loop(run: RunDirectory, path: str | Path) -> SavedLoop:
    """The state of the loop in a checkpoint, or in the newest one of a run.

    Raises:
        InputError: the checkpoint was not written by such a loop, or is damaged.
        FileNotFoundError: there is none.
    """
    checkpoint = find_checkpoint(path)
    metadata = read_metadata(checkpoint)
    try:
        loop = metadata.extra["loop"]
        return SavedLoop(
            checkpoint=checkpoint,
            step=int(loop["step"]),
            updates=metadata.updates,
            matmul=str(metadata.extra["matmul"]),
            buffer=run.path / str(loop["buffer"]),
            interaction=dict(loop["interaction"]),
            course=dict(loop["course"]),
            torch_version=metadata.versions.get("torch"),
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{checkpoint} was not written by a run that collects data: it lacks the state of the "
            "loop"
        ) from None
