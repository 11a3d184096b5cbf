"""The settings of ``idql train`` as frozen dataclasses.

The learners' settings are in ``learners.py``, settings that other commands have too in
``options.py``. ``idql train --help`` shows the texts of the docstrings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from idql_func.deprecation import moved_names
from idql_func.errors import InputError
from idql_func.training.configs.learners import (
    DDPMIQLConfig,
    GeneralDDPMIQLConfig,
    OfflineLearnerConfig,
)
from idql_func.training.configs.options import EvaluationOptions, NotNegative, Positive, RunConfig

__all__ = ["MINARI", "DatasetConfig", "EvaluationConfig", "TrainConfig"]


MINARI = "minari:"
"""Prefix of the name or folder of a Minari dataset."""


@dataclass(frozen=True)
class DatasetConfig:
    """The transitions to learn from, and the change of their rewards.

    Attributes:
        source: The built-in maze (made at first use, no network needed), an HDF5 file in D4RL's
            format, the name of a D4RL dataset, the folder of a Minari dataset or its name
            after 'minari:', or the file of a saved replay buffer.
        rewards: Change of the rewards before training: none, scaled so that the returns
            span 1000 (upstream for locomotion), or minus 1 (upstream for antmaze).
            Upstream chooses by the dataset's name (quirk D15).
        take_top: Use only this percentage of the episodes, the best. None: all.
        filter_threshold: Use only episodes with at least this return. None: all.
        train_fraction: Fraction of the transitions to train on. The others are held out and only
            measured (quirk D5); the run's seed decides which (quirk D4). With 1 nothing is held
            out, as in upstream for all learners except IDQL's.
        pointmaze_steps: Number of transitions of the built-in maze's dataset.
        pointmaze_seed: Seed of the built-in maze's dataset.
    """

    source: str = "pointmaze-umaze-builtin"
    rewards: Literal["as_stored", "normalize_returns", "minus_one"] = "as_stored"
    take_top: float | None = None
    filter_threshold: float | None = None
    train_fraction: float = 0.95
    pointmaze_steps: Positive = 100_000
    pointmaze_seed: NotNegative = 0


@dataclass(frozen=True)
class EvaluationConfig(EvaluationOptions):
    """How the policy is evaluated in the environment.

    Attributes:
        interval: Updates between evaluations.
        env: Environment: the built-in maze or a Gymnasium id. None: that of the dataset.
            With 'none' there is no evaluation.
        N: Numbers of candidate actions to evaluate with. With N = 1 the critic has no influence.
            Learners without candidates are evaluated once.
        action_repeat: For learners from images: steps of the environment for each action. None:
            PlaNet's number for its tasks (arXiv 1811.04551), 2 for all others.
        camera_id: For learners from images: camera of the images. None: 0, but 2 for quadrupeds.
    """

    interval: Positive = 5_000
    env: str | None = None
    N: tuple[Positive, ...] = (1, 64)
    action_repeat: Positive | None = None
    camera_id: int | None = None


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Train a policy on a fixed dataset; a step is an update.

    Example:
        >>> TrainConfig(seed=3).learner.class_name
        'DDPMIQLLearner'

    Attributes:
        batch_size: Transitions in a batch.
        max_steps: Number of updates.
        cosine_decay: Let the actor's learning rate fall to 0 along a cosine over all updates, as
            upstream's configuration files do and its launcher does not (quirk L11). IDQL's learners
            have learner.decay-steps for this.
    """

    batch_size: Positive = 256
    max_steps: Positive = 20_000
    cosine_decay: bool = False
    log_interval: Positive = 100
    preset: Annotated[str, tyro.conf.Suppress] = "pointmaze"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    learner: OfflineLearnerConfig = field(default_factory=DDPMIQLConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def validate(self) -> None:
        super().validate()
        dataset = self.dataset
        if not 0.0 < dataset.train_fraction <= 1.0:
            raise InputError(
                f"dataset.train_fraction is {dataset.train_fraction}, "
                "but must be above 0 and at most 1"
            )
        if self.cosine_decay and isinstance(self.learner, DDPMIQLConfig | GeneralDDPMIQLConfig):
            raise InputError(
                f"cosine_decay is on, but {self.learner.class_name} has its own decay: "
                "give learner.decay_steps instead"
            )


__getattr__ = moved_names(__name__)
