"""The settings of a run that collects its own data, as frozen dataclasses.

After the flags of upstream's ``examples/states/train_online.py`` and
``examples/pixels/train_online_pixels.py``. The text under each field is what ``idql online --help``
shows; the learners' own settings are in ``idql_func.training.configs.learners``, options that other
commands have too in ``idql_func.training.configs.options``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from idql_func.training.configs.field_help import field_help
from idql_func.training.configs.learners import DrQConfig, SACConfig, TD3Config
from idql_func.training.configs.options import (
    Device,
    EvaluationOptions,
    Matmul,
    RunsDir,
    Threads,
    check_at_least,
    check_run,
)

__all__ = [
    "OnlineConfig",
    "OnlineEvaluationConfig",
    "OnlineLearnerConfig",
    "PixelConfig",
]

OnlineLearnerConfig = SACConfig | TD3Config | DrQConfig
"""Settings of the learners that explore by themselves; REDQ and DroQ are settings of SAC."""


@field_help
@dataclass(frozen=True)
class OnlineEvaluationConfig(EvaluationOptions):
    """How the policy is tried out, in environments of its own (quirk E14)."""

    episodes: int = 20
    """Episodes of the evaluation at the end."""


@field_help
@dataclass(frozen=True)
class PixelConfig:
    """How an environment is seen by a learner from images; no matter to the others."""

    image_size: int = 64
    """Height and width of the images, pixels."""
    num_stack: int = 3
    """Frames in an observation."""
    action_repeat: int | None = None
    """Steps of the environment for each action; None: PlaNet's number for its tasks (arXiv
    1811.04551), 2 for all others."""
    camera_id: int | None = None
    """Camera of the images; None: 0, but 2 for quadrupeds."""
    memory_efficient: bool = True
    """Keep each frame once in the replay buffer, not once for every stack that it is in."""
    prefetch: int = 2
    """Batches held ready, so that copying them to a GPU takes no time. Each is then that many steps
    (less one) old when it is learned from, and a resumed run draws them anew (quirk D21). 1: each
    batch is drawn when it is needed."""


@field_help
@dataclass(frozen=True)
class OnlineConfig:
    """Train a policy on what it does itself.

    Example:
        >>> OnlineConfig(seed=3).learner.class_name
        'SACLearner'
    """

    command: ClassVar[str] = "online"

    env: str = "HalfCheetah-v5"
    """Environment: a Gymnasium id, a D4RL name, or the built-in maze."""
    seed: int = 0
    """Seed of the learner, the environment, the random steps and the order of the batches."""
    batch_size: int = 256
    """Transitions in the batch of one update of the Q networks."""
    max_steps: int = 1_000_000
    """Steps of the environment. With repeated actions each repetition counts."""
    start_training: int = 10_000
    """Actions that are drawn at random before the policy acts and learns."""
    utd_ratio: int = 1
    """Updates of the Q networks for each action (20 for REDQ and DroQ)."""
    replay_capacity: int | None = None
    """Transitions that the replay buffer holds; None: all of the run."""
    bootstrap_at_limit: bool = True
    """Take an episode that ends in the very last step its time limit allows for one that the limit
    cut, even if it would have ended there anyway (quirk D17). Off: an end is an end."""
    log_interval: int = 1_000
    """Actions between two records of the losses."""
    checkpoint_interval: int = 50_000
    """Actions between two checkpoints; one is written at the end and on Ctrl-C in any case."""
    keep_checkpoints: int = 20
    """How many of the newest checkpoints stay. The replay buffer is kept for the newest only."""
    solved_return: float | None = None
    """Mean return at which the task counts as solved, for pictures and tables. None: the usual one
    of the environment, if it has one."""
    runs_dir: RunsDir = Path("runs")
    name: str | None = None
    """Name of the run's folder in it. None: <preset>-seed<seed>, and a number if that exists."""
    preset: Annotated[str, tyro.conf.Suppress] = "sac"
    """The preset these settings started from; only a note, and part of the default name."""
    device: Device = "auto"
    threads: Threads = None
    matmul: Matmul = "auto"
    learner: OnlineLearnerConfig = field(default_factory=SACConfig)
    pixels: PixelConfig = field(default_factory=PixelConfig)
    evaluation: OnlineEvaluationConfig = field(default_factory=OnlineEvaluationConfig)

    @property
    def from_pixels(self) -> bool:
        """Whether the learner sees images."""
        return isinstance(self.learner, DrQConfig)

    def validate(self) -> None:
        """Check what the loop itself relies on; the learner checks its own keywords.

        Raises:
            InputError: a number is out of range; the sentence names the option.
        """
        pixels = self.pixels
        check_run(self)
        check_at_least(
            1,
            batch_size=self.batch_size,
            max_steps=self.max_steps,
            start_training=self.start_training,
            utd_ratio=self.utd_ratio,
            replay_capacity=self.replay_capacity,
            **{
                "pixels.image_size": pixels.image_size,
                "pixels.num_stack": pixels.num_stack,
                "pixels.action_repeat": pixels.action_repeat,
                "pixels.prefetch": pixels.prefetch,
            },
        )
