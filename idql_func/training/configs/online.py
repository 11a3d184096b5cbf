"""The settings of ``idql online`` as frozen dataclasses.

After the flags of upstream's ``examples/states/train_online.py`` and
``examples/pixels/train_online_pixels.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import tyro

from idql_func.errors import InputError
from idql_func.training.configs.learners import DrQConfig, SACConfig, TD3Config
from idql_func.training.configs.options import EvaluationOptions, Positive, RunConfig

__all__ = ["OnlineConfig", "OnlineEvaluationConfig", "OnlineLearnerConfig", "PixelConfig"]

OnlineLearnerConfig = SACConfig | TD3Config | DrQConfig
"""Settings of the learners that explore by themselves; REDQ and DroQ are settings of SAC."""


@dataclass(frozen=True)
class OnlineEvaluationConfig(EvaluationOptions):
    """How the policy is evaluated, in separate environments (quirk E14).

    Attributes:
        episodes: Episodes of the final evaluation.
    """

    episodes: Positive = 20


@dataclass(frozen=True)
class PixelConfig:
    """The images of the environment, for learners from images.

    Attributes:
        image_size: Height and width of the images, pixels.
        num_stack: Frames in an observation.
        action_repeat: Steps of the environment for each action; None: PlaNet's number for its
            tasks (arXiv 1811.04551), 2 for all others.
        camera_id: Camera of the images; None: 0, but 2 for quadrupeds.
        memory_efficient: Store each frame once in the replay buffer, not once for each stack.
        prefetch: Number of batches to prefetch, which hides the copy to a GPU. A batch is then
            prefetch - 1 steps old when it is used, and a resumed run samples them again (quirk
            D21). With 1 each batch is sampled when it is needed.
    """

    image_size: Positive = 64
    num_stack: Positive = 3
    action_repeat: Positive | None = None
    camera_id: int | None = None
    memory_efficient: bool = True
    prefetch: Positive = 2


@dataclass(frozen=True)
class OnlineConfig(RunConfig):
    """Train a policy on data that it collects itself.

    Example:
        >>> OnlineConfig(seed=3).learner.class_name
        'SACLearner'

    Attributes:
        env: Environment: a Gymnasium id, a D4RL name, or the built-in maze.
        batch_size: Transitions in the batch of one update of the Q networks.
        max_steps: Steps of the environment. With repeated actions each repetition counts.
        start_training: Random actions before the policy acts and learns.
        utd_ratio: Updates of the Q networks for each action (20 for REDQ and DroQ).
        replay_capacity: Capacity of the replay buffer, transitions. None: all of the run.
        bootstrap_at_limit: Treat an episode that ends exactly at its time limit as truncated, even
            if it also terminated there (quirk D17). Off: as terminated.
        solved_return: Mean return at which the task counts as solved, for pictures and tables.
            None: that of the environment, if it has one.
    """

    command: ClassVar[str] = "online"

    env: str = "HalfCheetah-v5"
    batch_size: Positive = 256
    max_steps: Positive = 1_000_000
    start_training: Positive = 10_000
    utd_ratio: Positive = 1
    replay_capacity: Positive | None = None
    bootstrap_at_limit: bool = True
    checkpoint_interval: Positive = 50_000
    keep_checkpoints: Positive = 20
    solved_return: float | None = None
    preset: Annotated[str, tyro.conf.Suppress] = "sac"
    learner: OnlineLearnerConfig = field(default_factory=SACConfig)
    pixels: PixelConfig = field(default_factory=PixelConfig)
    evaluation: OnlineEvaluationConfig = field(default_factory=OnlineEvaluationConfig)

    @property
    def from_pixels(self) -> bool:
        """Whether the learner sees images."""
        return isinstance(self.learner, DrQConfig)

    def validate(self) -> None:
        super().validate()
        if self.start_training >= self.max_steps:
            raise InputError(
                f"start_training is {self.start_training}, but must be below max_steps, which is "
                f"{self.max_steps}: nothing would be learned"
            )
