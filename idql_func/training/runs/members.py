"""The learners of a run: where each writes, what it is resumed from, how far it has come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from idql_func.training.runs.checkpoint import CheckpointMetadata
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.runs.metrics import MetricsLogger
from idql_func.types import InputError

__all__ = ["Member", "Position", "TrainingInterrupted", "reading_loop_state"]


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
