"""The settings of ``idql finetune`` as frozen dataclasses.

After the online half of upstream's ``examples/states/train_diffusion_offline.py`` and its launcher,
``launcher/examples/train_ddpm_iql_finetune.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from idql_func.errors import InputError
from idql_func.training.configs.learners import DDPMIQLConfig, GeneralDDPMIQLConfig
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.online import OnlineEvaluationConfig
from idql_func.training.configs.options import AtLeast, NotNegative, Positive, RunConfig

__all__ = ["FinetuneConfig", "FinetuneEvaluationConfig"]


@dataclass(frozen=True)
class FinetuneEvaluationConfig(OnlineEvaluationConfig):
    """How the policy is evaluated, in separate environments (quirk E14).

    Attributes:
        N: Numbers of candidate actions to evaluate with.
    """

    N: tuple[Positive, ...] = (64,)


@dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """Fine-tune an offline policy on data that it collects and on the offline data.

    Example:
        >>> FinetuneConfig(seed=3).train_actor
        False

    Attributes:
        start: Run or checkpoint whose policy is fine-tuned. None: one is trained first.
        max_steps: Steps of the environment plus 1, as upstream counts (quirk L5).
        start_training: Steps of the environment before the first update.
        online_batch: Transitions of each update's batch that come from the replay buffer (quirk
            L4).
        offline_batch: Transitions of each update's batch that come from the offline data (quirk
            L4).
        train_actor: Keep training the actor on both kinds of data: the paper's second variant. Off:
            the actor is frozen and only Q and V learn, the paper's first variant (upstream never
            reads its flag of this name, quirk L3).
        exploration: How actions are chosen while data is collected: the candidate with the highest
            Q, as in the paper's first variant, or one drawn by its weight, as in the second (quirk
            L3).
        collect_N: Candidates for each action while data is collected. None: the last of
            evaluation.N, as in upstream's loop (quirk E10).
        normalize_online_rewards: Scale online rewards by the factor of the offline rewards, if
            those were scaled by their returns (upstream does not, quirk D16). If 1 was subtracted
            from the offline rewards, it always is from online rewards too.
        bootstrap_at_limit: Treat an episode that ends exactly at its time limit as truncated, even
            if it also terminated there (quirk D17). Off: as terminated.
        offline: Settings of the offline run.
    """

    command: ClassVar[str] = "finetune"

    start: Annotated[Path | None, tyro.conf.Suppress] = None
    max_steps: Annotated[int, AtLeast(2)] = 1_000_001
    start_training: NotNegative = 5_000
    online_batch: Positive = 128
    offline_batch: Positive = 128
    train_actor: bool = False
    exploration: Literal["greedy", "implicit"] = "greedy"
    collect_N: Positive | None = None
    normalize_online_rewards: bool = False
    bootstrap_at_limit: bool = True
    checkpoint_interval: Positive = 25_000
    preset: Annotated[str, tyro.conf.Suppress] = "pointmaze-finetune"
    evaluation: FinetuneEvaluationConfig = field(default_factory=FinetuneEvaluationConfig)
    offline: TrainConfig = field(default_factory=TrainConfig)

    @property
    def last(self) -> int:
        """The number of steps taken: ``range(1, max_steps)`` in upstream's loop (quirk L5)."""
        return self.max_steps - 1

    @property
    def candidates(self) -> int:
        """Candidates for each action while data is collected."""
        return self.evaluation.N[-1] if self.collect_N is None else self.collect_N

    def validate(self) -> None:
        super().validate()
        if self.start_training >= self.last:
            raise InputError(
                f"start_training is {self.start_training}, but must be below the {self.last} steps "
                "that are taken (max_steps - 1): nothing would be learned"
            )
        if not isinstance(self.offline.learner, DDPMIQLConfig | GeneralDDPMIQLConfig):
            raise InputError(
                f"the offline run trains a {self.offline.learner.class_name}, but what is "
                "fine-tuned must be a DDPMIQLLearner or a GeneralDDPMIQLLearner"
            )
        self.offline.validate()
