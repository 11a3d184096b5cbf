"""The settings of an offline training run, as frozen dataclasses: the source of defaults and help.

The learners' own settings are in ``learners.py``. The text under each field is what
``idql train --help`` shows; that of options which other commands have too is in ``options.py``.

This module imports neither torch nor the learners, so that the command line answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from idql_func.deprecation import moved_names
from idql_func.errors import InputError
from idql_func.training.configs.field_help import field_help
from idql_func.training.configs.learners import (
    DDPMIQLConfig,
    GeneralDDPMIQLConfig,
    OfflineLearnerConfig,
)
from idql_func.training.configs.options import (
    Device,
    EvaluationOptions,
    Matmul,
    RunsDir,
    Threads,
    check_at_least,
    check_candidates,
    check_run,
)

__all__ = [
    "MINARI",
    "DatasetConfig",
    "EvaluationConfig",
    "TrainConfig",
]


MINARI = "minari:"
"""What stands before the name or folder of a Minari dataset."""


@field_help
@dataclass(frozen=True)
class DatasetConfig:
    """Which transitions to learn from, and what is done to their rewards."""

    source: str = "pointmaze-umaze-builtin"
    """The built-in maze (made at first use, no network needed), an HDF5 file in D4RL's format, the
    name of a D4RL dataset, the folder of a Minari dataset or its name after 'minari:', or the file
    of a saved replay buffer."""
    rewards: Literal["as_stored", "normalize_returns", "minus_one"] = "as_stored"
    """Change of the rewards before training: none, scaled so that the returns span 1000 (upstream
    for locomotion), or 1 subtracted from each (upstream for antmaze). Upstream chooses by the
    dataset's name; here it is said (quirk D15)."""
    take_top: float | None = None
    """Keep only the best share of the episodes, in percent; None for all."""
    filter_threshold: float | None = None
    """Keep only episodes with a return of at least this; None for all."""
    train_fraction: float = 0.95
    """Share of the transitions to train on; the others are held out and only measured (quirk D5).
    The shuffle behind it follows the seed of the run (quirk D4). 1: nothing is held out, which is
    what upstream does for all learners but IDQL's."""
    pointmaze_steps: int = 100_000
    """Number of transitions of the built-in maze's dataset."""
    pointmaze_seed: int = 0
    """Seed of the built-in maze's dataset."""


@field_help
@dataclass(frozen=True)
class EvaluationConfig(EvaluationOptions):
    """How the policy is tried out in the environment."""

    interval: int = 5_000
    """Updates between evaluations."""
    env: str | None = None
    """Environment: the built-in maze or a Gymnasium id. None: the one that belongs to the dataset.
    'none': no evaluation at all."""
    N: tuple[int, ...] = (1, 64)
    """Numbers of sampled actions to evaluate with. N = 1 is the actor without the critic's
    choice. Learners without such a number are evaluated once."""
    action_repeat: int | None = None
    """For learners from images: steps of the environment for each action. None: PlaNet's number
    for its tasks (arXiv 1811.04551), 2 for all others."""
    camera_id: int | None = None
    """For learners from images: camera of the images. None: 0, but 2 for quadrupeds."""

    def validate(self) -> None:
        """Check the numbers.

        Raises:
            InputError: one is out of range; the sentence names the option.
        """
        super().validate()
        check_candidates(self.N)
        check_at_least(1, **{"evaluation.action_repeat": self.action_repeat})


@field_help
@dataclass(frozen=True)
class TrainConfig:
    """Train a policy on a fixed dataset.

    Example:
        >>> TrainConfig(seed=3).learner.class_name
        'DDPMIQLLearner'
    """

    seed: int = 0
    """Seed of the learner, of the held-out split and of the order of the batches."""
    batch_size: int = 256
    """Transitions in a batch."""
    max_steps: int = 20_000
    """Number of updates."""
    cosine_decay: bool = False
    """Let the actor's learning rate fall to 0 along a cosine over all updates, as upstream's
    configuration files do and its launcher does not (quirk L11). IDQL's learners have
    learner.decay-steps for this."""
    log_interval: int = 100
    """Updates between two records of training and held-out losses."""
    checkpoint_interval: int = 5_000
    """Updates between two checkpoints; one is written at the end and on Ctrl-C in any case."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    runs_dir: RunsDir = Path("runs")
    name: str | None = None
    """Name of the run's folder in it. None: <preset>-seed<seed>, and a number if that exists."""
    preset: Annotated[str, tyro.conf.Suppress] = "pointmaze"
    """The preset these settings started from; only a note, and part of the default name."""
    device: Device = "auto"
    threads: Threads = None
    matmul: Matmul = "auto"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    learner: OfflineLearnerConfig = field(default_factory=DDPMIQLConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def validate(self) -> None:
        """Check what the loop itself relies on; the learner checks its own keywords.

        Raises:
            InputError: a number is out of range; the sentence names the option.
        """
        dataset = self.dataset
        check_run(self)
        check_at_least(
            1,
            batch_size=self.batch_size,
            max_steps=self.max_steps,
            **{"dataset.pointmaze_steps": dataset.pointmaze_steps},
        )
        check_at_least(0, **{"dataset.pointmaze_seed": dataset.pointmaze_seed})
        if not 0.0 < dataset.train_fraction <= 1.0:
            raise InputError(
                f"dataset.train_fraction is {dataset.train_fraction}, "
                "but must be above 0 and at most 1"
            )
        if self.cosine_decay and isinstance(self.learner, DDPMIQLConfig | GeneralDDPMIQLConfig):
            raise InputError(
                f"cosine_decay is on, but {self.learner.class_name} has a decay of its own: "
                "give learner.decay_steps instead"
            )


__getattr__ = moved_names(
    __name__,
    {
        "config_to_dict": "idql_func.training.configs.settings:settings_to_dict",
        "differences": "idql_func.training.configs.settings:changed_settings",
    },
)
