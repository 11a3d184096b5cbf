"""The loop of every run that collects data: act, store, learn; log, evaluate, save.

What a step does is a :class:`Strategy`; training from nothing and fine-tuning differ in it only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from idql_func.data import ReplayBuffer
from idql_func.training.interaction import Episode, Interaction
from idql_func.training.runs.checkpoint import find_checkpoint, read_metadata
from idql_func.training.runs.console import TrainingBar
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.runs.members import Position, reading_loop_state
from idql_func.training.runs.opening import open_run
from idql_func.training.runs.run import Run
from idql_func.training.runtime.interrupts import delayed_interrupts
from idql_func.types import InputError

__all__ = [
    "LoopState",
    "OnlineLoop",
    "SavedLoop",
    "Strategy",
    "open_online_run",
    "read_saved_loop",
    "resume_loop",
]


class Strategy(Protocol):
    """What is done at each step, counted from 1."""

    def act(self, learner: Any, interaction: Interaction, step: int) -> tuple[np.ndarray, Any]:
        """The action ``[A]``, and the learner with its key advanced."""
        ...

    def learns(self, step: int) -> bool:
        """Whether the step ends with an update."""
        ...

    def update(self, learner: Any) -> tuple[Any, Mapping[str, torch.Tensor]]:
        """The learner after an update, and its losses; the update may donate the one before it."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, as JSON can hold it."""
        ...


@dataclass(frozen=True)
class LoopState:
    """Everything that changes from step to step, except the environment and its buffer."""

    learner: Any
    step: int = 0
    updates: int = 0


@dataclass
class OnlineLoop:
    """The loop over steps and what happens at its intervals.

    Args:
        run: where everything is recorded; its evaluator has environments of its own (quirk E14).
        strategy: what is done at a step.
        interaction: the environment and the buffer.
        last: the last step.
        frames: steps of the environment in one step of the loop (repeated actions).
        offset: added to the ``step`` of records: updates made before the first step.
        on_step: called with the number of steps done after each of them.
    """

    run: Run
    strategy: Strategy
    interaction: Interaction
    last: int
    frames: int = 1
    offset: int = 0
    on_step: Callable[[int], None] | None = None
    _recent: list[float] = field(default_factory=list)
    _evaluated: str = ""

    def position(self, state: LoopState) -> Position:
        """How far the run has come."""
        done = state.step * self.frames
        return Position(self.offset + done, state.updates, done, state.step)

    def train(self, state: LoopState) -> LoopState:
        """Take all remaining steps. On Ctrl-C the last whole step is saved first."""
        reporter, start = self.run.reporter, state.step
        stop = delayed_interrupts(lambda: reporter.warn("Interrupted: finishing this step first."))
        with self.run.training(start * self.frames, self.last * self.frames) as bar:
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
                    raise  # a second Ctrl-C in the middle of a step: the last checkpoint is valid
                reporter.warn("Interrupted: writing a checkpoint and the replay buffer.")
                self._save(state)
                raise self.run.interrupted(self.position(state)) from None
        return state

    def _save(self, state: LoopState) -> None:
        """Write the checkpoint of a state, and the buffer that belongs to it."""
        directory = self.run.directory
        buffer = directory.buffer(state.step)
        # The buffer comes first: a checkpoint that names one exists only if that one is complete.
        self.interaction.buffer.save(buffer)
        loop = {
            "step": state.step,
            "buffer": str(buffer.relative_to(directory.path)),
            "interaction": self.interaction.state(),
            "course": self.strategy.state(),
        }
        self.run.save(self.position(state), [state.learner], [{"loop": loop}])

    def _step(self, state: LoopState, step: int, bar: TrainingBar) -> LoopState:
        config = self.run.config
        action, learner = self.strategy.act(state.learner, self.interaction, step)
        episode = self.interaction.step(action)
        info, updates = None, state.updates
        if self.strategy.learns(step):
            before = learner
            learner, info = self.run.first_call(lambda: self.strategy.update(before), bar)
            updates += 1
        state = LoopState(learner, step, updates)
        bar.advance(step * self.frames)
        if episode is not None:
            self._log_episode(state, episode, bar)
        if info is not None and step % config.log_interval == 0:
            self.run.log_losses(self.position(state), {"train": info}, bar)
        if step % config.evaluation.interval == 0 and step < self.last:
            results = self.run.evaluate_interval(self.position(state), learner, bar)
            self._evaluated = f"evaluation {results[self.run.candidates[-1]]['return']:.1f}"
        if step % config.checkpoint_interval == 0 or step == self.last:
            with bar.busy("saving"):
                self._save(state)
        return state

    def _log_episode(self, state: LoopState, episode: Episode, bar: TrainingBar) -> None:
        record: dict[str, Any] = {
            "episode/return": episode.total,
            "episode/length": episode.length * self.frames,
        }
        if episode.success is not None:
            record["episode/success"] = float(episode.success)
        self.run.log(self.position(state), [record])
        self._recent = [*self._recent[-9:], episode.total]
        mean = f"return {np.mean(self._recent):.1f} (last {len(self._recent)})"
        bar.show(", ".join(part for part in (mean, self._evaluated) if part))


@dataclass(frozen=True)
class SavedLoop:
    """The state of the loop in a checkpoint."""

    checkpoint: Path
    step: int
    updates: int
    buffer: Path
    interaction: Mapping[str, Any]
    strategy: Mapping[str, Any]

    def load_buffer(self, cls: type[ReplayBuffer], capacity: int) -> ReplayBuffer:
        """The replay buffer that belongs to the checkpoint, with room for a longer run.

        Raises:
            InputError: it is missing, since only the newest one is kept, or damaged.
        """
        if not self.buffer.exists():
            raise InputError(
                f"{self.checkpoint} cannot be continued: its replay buffer {self.buffer} is gone "
                "(only that of the newest checkpoint is kept)"
            )
        return cls.load(self.buffer, capacity=capacity)


def read_saved_loop(directory: RunDirectory, path: str | Path) -> SavedLoop:
    """The state of the loop in a checkpoint of a run, or in the newest one at a path.

    Raises:
        InputError: the checkpoint was not written by such a loop, or is damaged.
        FileNotFoundError: there is none.
    """
    checkpoint = find_checkpoint(path)
    metadata = read_metadata(checkpoint)
    with reading_loop_state(checkpoint, "a run that collects data"):
        loop = metadata.extra["loop"]
        return SavedLoop(
            checkpoint=checkpoint,
            step=int(loop["step"]),
            updates=metadata.updates,
            buffer=directory.path / str(loop["buffer"]),
            interaction=dict(loop["interaction"]),
            strategy=dict(loop["course"]),
        )


def open_online_run(config: Any, last: int, **options: Any) -> tuple[Run, SavedLoop | None]:
    """:func:`open_run` for a run that collects data, and the loop's state that it resumes from."""
    run = open_run(
        [config],
        last=last,
        unit="steps",
        saved_number=lambda directory, checkpoint: read_saved_loop(directory, checkpoint).step,
        **options,
    )
    checkpoint = run.members[0].checkpoint
    try:
        return run, None if checkpoint is None else read_saved_loop(run.directory, checkpoint)
    except BaseException:
        run.owned.release()
        raise


def resume_loop(run: Run, saved: SavedLoop, learner: Any, interaction: Interaction) -> LoopState:
    """The state in a run's checkpoint; the environment is returned to the state it had then.

    Raises:
        InputError: the checkpoint is of another learner or size, or damaged.
    """
    [learner] = run.restore([learner])
    if not interaction.restore(saved.interaction):
        run.reporter.detail("the environment is not deterministic: a new episode begins")
    return LoopState(learner, saved.step, saved.updates)
