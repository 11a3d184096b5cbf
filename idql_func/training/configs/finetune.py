"""The settings of offline-to-online fine-tuning, as frozen dataclasses.

After the online half of upstream's ``examples/states/train_diffusion_offline.py`` and its launcher,
``launcher/examples/train_ddpm_iql_finetune.py``. The text under each field is what
``idql finetune --help`` shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from idql_func.errors import InputError
from idql_func.training.configs.field_help import field_help
from idql_func.training.configs.learners import DDPMIQLConfig, GeneralDDPMIQLConfig
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.online import OnlineEvaluationConfig
from idql_func.training.configs.options import (
    Device,
    Matmul,
    RunsDir,
    Threads,
    check_at_least,
    check_candidates,
    check_run,
)

__all__ = ["FinetuneConfig", "FinetuneEvaluationConfig"]


@field_help
@dataclass(frozen=True)
class FinetuneEvaluationConfig(OnlineEvaluationConfig):
    """How the policy is tried out, in environments of its own (quirk E14)."""

    N: tuple[int, ...] = (64,)
    """Numbers of sampled actions to evaluate with."""

    def validate(self) -> None:
        """Check the numbers.

        Raises:
            InputError: one is out of range; the sentence names the option.
        """
        super().validate()
        check_candidates(self.N)


@field_help
@dataclass(frozen=True)
class FinetuneConfig:
    """Go on with a policy that was trained offline, on what it does itself and the old data.

    Example:
        >>> FinetuneConfig(seed=3).train_actor
        False
    """

    command: ClassVar[str] = "finetune"

    start: Annotated[Path | None, tyro.conf.Suppress] = None
    """Run or checkpoint whose policy is fine-tuned; None: one is trained first, as ``offline``
    says."""
    seed: int = 0
    """Seed of the environment, of the order of the batches and, if it is trained first, of the
    offline policy."""
    max_steps: int = 1_000_001
    """One more than the steps of the environment that are taken, as upstream counts (quirk L5)."""
    start_training: int = 5_000
    """Steps that are taken before the first update."""
    online_batch: int = 128
    """Transitions of each update's batch that come from the replay buffer (quirk L4)."""
    offline_batch: int = 128
    """Transitions of each update's batch that come from the offline data (quirk L4)."""
    train_actor: bool = False
    """Keep training the actor on both kinds of data: the paper's second variant. Off: the actor is
    frozen and only Q and V learn, the paper's first variant (upstream's switch of this name is
    never read, quirk L3)."""
    exploration: Literal["greedy", "implicit"] = "greedy"
    """How actions are chosen while data is collected: the candidate with the highest Q, as in the
    paper's first variant, or one drawn by its weight, as in the second (quirk L3)."""
    collect_N: int | None = None
    """Candidates for each action while data is collected. None: the last of evaluation.N, which is
    what upstream's loop arrives at (quirk E10)."""
    normalize_online_rewards: bool = False
    """Scale online rewards as the offline ones were, where those were scaled by their returns
    (upstream leaves them unscaled, quirk D16). A reward that the offline data has one less of
    always has one less here."""
    bootstrap_at_limit: bool = True
    """Take an episode that ends in the very last step its time limit allows for one that the limit
    cut, even if it would have ended there anyway (quirk D17). Off: an end is an end."""
    log_interval: int = 1_000
    """Steps between two records of the losses."""
    checkpoint_interval: int = 25_000
    """Steps between two checkpoints; one is written at the end and on Ctrl-C in any case."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    runs_dir: RunsDir = Path("runs")
    name: str | None = None
    """Name of the run's folder in it. None: <preset>-finetune-seed<seed>, and a number if that
    exists."""
    preset: Annotated[str, tyro.conf.Suppress] = "pointmaze-finetune"
    """The preset these settings started from; only a note, and part of the default name."""
    device: Device = "auto"
    threads: Threads = None
    matmul: Matmul = "auto"
    evaluation: FinetuneEvaluationConfig = field(default_factory=FinetuneEvaluationConfig)
    offline: TrainConfig = field(default_factory=TrainConfig)
    """The offline run: as it was, or as it is to be."""

    @property
    def last(self) -> int:
        """The number of steps taken: ``range(1, max_steps)`` in upstream's loop (quirk L5)."""
        return self.max_steps - 1

    @property
    def candidates(self) -> int:
        """Candidates for each action while data is collected."""
        return self.evaluation.N[-1] if self.collect_N is None else self.collect_N

    def validate(self) -> None:
        """Check what the loop itself relies on; the learner checks its own keywords.

        Raises:
            InputError: a number is out of range; the sentence names the option.
        """
        check_run(self)
        check_at_least(2, max_steps=self.max_steps)
        check_at_least(
            1,
            online_batch=self.online_batch,
            offline_batch=self.offline_batch,
            collect_N=self.collect_N,
        )
        check_at_least(0, start_training=self.start_training)
        if not isinstance(self.offline.learner, DDPMIQLConfig | GeneralDDPMIQLConfig):
            raise InputError(
                f"the offline run trains a {self.offline.learner.class_name}, but what is "
                "fine-tuned must be a DDPMIQLLearner or a GeneralDDPMIQLLearner"
            )
        self.offline.validate()
