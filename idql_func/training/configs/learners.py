"""The settings of each learner, as frozen dataclasses: the one source of defaults and help.

The fields are the keywords of the learner's ``create``, with upstream's names and defaults
(``jaxrl5/agents/*/*_learner.py``; the two IDQL learners differ, quirk N16). The text under each
field is what ``idql train --help`` shows.

This module imports neither torch nor the learners, so that the command line answers at once.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

__all__ = [
    "LEARNERS",
    "BCConfig",
    "DDPMIQLConfig",
    "DrQConfig",
    "GeneralDDPMIQLConfig",
    "IQLConfig",
    "LearnerConfig",
    "OfflineLearnerConfig",
    "PixelBCConfig",
    "SACConfig",
    "TD3Config",
    "learner_config",
]

BetaSchedule = Literal["vp", "cosine", "linear"]
"""Names of the noise schedules."""


@dataclass(frozen=True)
class _Keywords:
    class_name: ClassVar[str]

    def keywords(self) -> dict[str, Any]:
        """The keyword arguments for the learner's ``create``."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


@dataclass(frozen=True)
class DDPMIQLConfig(_Keywords):
    """Keywords of ``DDPMIQLLearner.create``, the learner that upstream exports.

    Example:
        >>> DDPMIQLConfig(critic_hyperparam=0.9).keywords()["critic_hyperparam"]
        0.9
    """

    class_name: ClassVar[str] = "DDPMIQLLearner"

    actor_lr: float = 3e-4
    """Learning rate of the diffusion actor (AdamW), where the cosine decay starts."""
    critic_lr: float = 3e-4
    """Learning rate of the Q ensemble (Adam)."""
    value_lr: float = 3e-4
    """Learning rate of the value network V (Adam)."""
    critic_hidden_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of Q and V."""
    discount: float = 0.99
    """Discount factor gamma of future rewards, per environment step."""
    tau: float = 0.005
    """Share of the new Q weights that enters the target Q at each update."""
    critic_hyperparam: float = 0.7
    """Expectile of the value loss, in (0, 1): the nearer to 1, the nearer V is to the best action
    in the data (0.7 for locomotion, 0.9 for mazes)."""
    ddpm_temperature: float = 1.0
    """Factor on the noise added in each denoising step when actions are sampled."""
    num_qs: int = 2
    """Number of Q networks; the smallest of their values counts."""
    actor_num_blocks: int = 3
    """Residual blocks of the actor's network."""
    actor_tau: float = 0.001
    """Share of the new actor weights that enters the averaged actor at each update. Actions are
    chosen with the averaged actor."""
    actor_dropout_rate: float | None = None
    """Dropout rate in the actor's blocks while training; None for none."""
    actor_layer_norm: bool = True
    """Normalise the input of each of the actor's blocks."""
    value_layer_norm: bool = True
    """Normalise the observations that V sees (not those of Q, quirk N1)."""
    policy_temperature: float = 3.0
    """Kept for upstream's sake: this learner never reads it (quirk U10)."""
    T: int = 5
    """Number of diffusion steps, at least 1."""
    time_dim: int = 128
    """Size of the embedding of the diffusion step."""
    N: int = 64
    """Actions sampled per observation, of which the one with the highest Q is taken."""
    M: int = 0
    """How many times the last denoising step is repeated."""
    clip_sampler: bool = True
    """Clip actions to [-1, 1] after every denoising step, not after the last only."""
    beta_schedule: BetaSchedule = "vp"
    """Noise schedule. 'linear' hardly reaches noise with few steps (quirk N10)."""
    decay_steps: int | None = 3_000_000
    """Updates over which the actor's learning rate falls to 0 along a cosine, and where it stays
    from then on; None for a constant rate."""


@dataclass(frozen=True)
class GeneralDDPMIQLConfig(_Keywords):
    """Keywords of ``GeneralDDPMIQLLearner.create``, upstream's full learner.

    Example:
        >>> GeneralDDPMIQLConfig().keywords()["actor_objective"]
        'bc'
    """

    class_name: ClassVar[str] = "GeneralDDPMIQLLearner"

    actor_architecture: Literal["mlp", "ln_resnet"] = "mlp"
    """Network of the actor: a plain MLP, or residual blocks with layer normalisation."""
    actor_lr: float = 3e-4
    """Learning rate of the diffusion actor (AdamW), where the cosine decay starts."""
    critic_lr: float = 3e-4
    """Learning rate of the Q ensemble (Adam)."""
    value_lr: float = 3e-4
    """Learning rate of the value network V (Adam)."""
    critic_hidden_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of Q and V."""
    actor_hidden_dims: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of the 'mlp' actor ('ln_resnet' has a fixed width, quirk U14)."""
    discount: float = 0.99
    """Discount factor gamma of future rewards, per environment step."""
    tau: float = 0.005
    """Share of the new Q weights that enters the target Q at each update."""
    critic_hyperparam: float = 0.7
    """Parameter of the critic objective: the expectile or the quantile in (0, 1), or the inverse
    temperature of 'exponential'."""
    ddpm_temperature: float = 1.0
    """Factor on the noise added in each denoising step when actions are sampled."""
    num_qs: int = 2
    """Number of Q networks; the smallest of their values counts."""
    actor_num_blocks: int = 2
    """Residual blocks of the 'ln_resnet' actor."""
    actor_weight_decay: float | None = None
    """Weight decay of the actor's kernels. None: 1e-4 on all its weights, which is what upstream
    does whatever it is told (quirks U12, U13)."""
    actor_tau: float = 0.001
    """Share of the new actor weights that enters the averaged actor at each update. Actions are
    chosen with the averaged actor."""
    actor_dropout_rate: float | None = None
    """Dropout rate of the 'ln_resnet' actor while training; None for none."""
    actor_layer_norm: bool = False
    """Layer normalisation in the actor."""
    policy_temperature: float = 3.0
    """Factor on the advantage in the 'exp_adv' objective: an inverse temperature (quirk U10)."""
    T: int = 5
    """Number of diffusion steps, at least 1."""
    time_dim: int = 64
    """Size of the embedding of the diffusion step."""
    N: int = 64
    """Actions sampled per observation, of which the one with the highest Q is taken."""
    M: int = 0
    """How many times the last denoising step is repeated."""
    clip_sampler: bool = True
    """Clip actions to [-1, 1] after every denoising step, not after the last only."""
    actor_objective: Literal["bc", "soft_adv", "hard_adv", "exp_adv"] = "bc"
    """Weights of the samples in the actor's loss: all one, or by their advantage."""
    critic_objective: Literal["expectile", "quantile", "exponential"] = "expectile"
    """Loss of the value network."""
    beta_schedule: BetaSchedule = "vp"
    """Noise schedule. 'linear' hardly reaches noise with few steps (quirk N10)."""
    decay_steps: int | None = 2_000_000
    """Updates over which the actor's learning rate falls to 0 along a cosine, and where it stays
    from then on (quirk U16); None for a constant rate."""
    hard_adv_threshold: float = -0.01
    """Least advantage of the samples that the 'hard_adv' objective keeps (quirk U9)."""


@dataclass(frozen=True)
class IQLConfig(_Keywords):
    """Keywords of ``IQLLearner.create`` (implicit Q-learning, arXiv 2110.06169).

    Example:
        >>> IQLConfig().keywords()["temperature"]
        0.1
    """

    class_name: ClassVar[str] = "IQLLearner"

    actor_lr: float = 1e-3
    """Learning rate of the Gaussian actor (Adam)."""
    critic_lr: float = 3e-4
    """Learning rate of the Q ensemble (Adam)."""
    value_lr: float = 3e-4
    """Learning rate of the value network V (Adam)."""
    hidden_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of all networks."""
    discount: float = 0.99
    """Discount factor gamma of future rewards, per environment step."""
    tau: float = 0.005
    """Share of the new Q weights that enters the target Q at each update."""
    expectile: float = 0.8
    """Expectile of the value loss, in (0, 1): the nearer to 1, the nearer V is to the best action
    in the data (0.7 for locomotion, 0.9 for mazes)."""
    temperature: float = 0.1
    """Factor on the advantage in the weights of the actor's loss: an inverse temperature (3 for
    locomotion, 10 for mazes)."""
    num_qs: int = 2
    """Number of Q networks; the smallest of their values counts."""


@dataclass(frozen=True)
class BCConfig(_Keywords):
    """Keywords of ``BCLearner.create`` (behaviour cloning with a Gaussian of fixed width).

    Example:
        >>> BCConfig(dropout_rate=0.1).keywords()["dropout_rate"]
        0.1
    """

    class_name: ClassVar[str] = "BCLearner"

    actor_lr: float = 1e-3
    """Learning rate of the actor (Adam, or AdamW with a weight decay)."""
    hidden_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers."""
    use_layer_norm: bool = False
    """Normalise the observations (the network's input only, quirk N1)."""
    dropout_rate: float | None = None
    """Dropout rate while training; None for none."""
    weight_decay: float | None = None
    """Weight decay of all weights but biases; None for none."""
    entropy_bonus: float | None = None
    """Weight of the entropy bonus in the actor's loss; None for none."""


@dataclass(frozen=True)
class _OffPolicy(_Keywords):
    actor_lr: float = 3e-4
    """Learning rate of the actor (Adam)."""
    critic_lr: float = 3e-4
    """Learning rate of the Q ensemble (Adam)."""
    hidden_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of all networks."""
    discount: float = 0.99
    """Discount factor gamma of future rewards, per environment step."""
    tau: float = 0.005
    """Share of the new weights that enters a target network at each update."""
    num_qs: int = 2
    """Number of Q networks (10 for REDQ)."""
    num_min_qs: int | None = None
    """How many of the target Q networks, drawn anew at each update, the target takes the smallest
    value of (2 for REDQ, arXiv 2101.05982); None: all of them."""
    critic_dropout_rate: float | None = None
    """Dropout rate of the Q networks (0.01 for DroQ, arXiv 2110.02034); None for none."""
    critic_layer_norm: bool = False
    """Normalise what the Q networks see (their input only, quirk N1; on for DroQ)."""


@dataclass(frozen=True)
class _SoftActorCritic(_OffPolicy):
    temp_lr: float = 3e-4
    """Learning rate of the temperature (Adam)."""
    target_entropy: float | None = None
    """Entropy that the temperature steers towards, nats; None: minus half the number of action
    dimensions (quirk A4)."""
    init_temperature: float = 1.0
    """Temperature at the start."""
    backup_entropy: bool = True
    """Count the entropy of the next action in the target of Q."""


@dataclass(frozen=True)
class _Pixels(_Keywords):
    cnn_features: tuple[int, ...] = (32, 32, 32, 32)
    """Channels of the convolutions of the 'd4pg' encoder."""
    cnn_filters: tuple[int, ...] = (3, 3, 3, 3)
    """Widths of their filters, pixels."""
    cnn_strides: tuple[int, ...] = (2, 1, 1, 1)
    """Their strides, pixels."""
    cnn_padding: Literal["VALID", "SAME"] = "VALID"
    """Their padding, by Flax's rules."""
    latent_dim: int = 50
    """Size of the vector that an encoded image becomes."""
    encoder: Literal["d4pg", "resnet"] = "d4pg"
    """Network over the images: four convolutions, or a ResNet V2 of 18 layers."""
    pixel_keys: tuple[str, ...] = ("pixels",)
    """Names of the images in an observation."""
    depth_keys: tuple[str, ...] = ()
    """Names of the depth maps in an observation, one for each image or none."""


@dataclass(frozen=True)
class SACConfig(_SoftActorCritic):
    """Keywords of ``SACLearner.create`` (arXiv 1812.05905); REDQ and DroQ are settings of it.

    Example:
        >>> SACConfig(num_qs=10, num_min_qs=2).keywords()["init_temperature"]
        1.0
    """

    class_name: ClassVar[str] = "SACLearner"


@dataclass(frozen=True)
class TD3Config(_OffPolicy):
    """Keywords of ``TD3Learner.create`` (arXiv 1802.09477).

    Example:
        >>> TD3Config().keywords()["actor_delay"]
        2
    """

    class_name: ClassVar[str] = "TD3Learner"

    exploration_noise: float = 0.1
    """Standard deviation of the noise on actions while data is collected."""
    target_policy_noise: float = 0.2
    """Standard deviation of the noise on the target policy's actions."""
    target_policy_noise_clip: float = 0.5
    """Greatest absolute value of that noise."""
    actor_delay: int = 2
    """Updates of the Q networks for each update of the actor."""


@dataclass(frozen=True)
class DrQConfig(_Pixels, _SoftActorCritic):
    """Keywords of ``DrQLearner.create`` (SAC from images, arXiv 2107.09645).

    Example:
        >>> DrQConfig().keywords()["latent_dim"]
        50
    """

    class_name: ClassVar[str] = "DrQLearner"


@dataclass(frozen=True)
class PixelBCConfig(_Pixels):
    """Keywords of ``PixelBCLearner.create`` (behaviour cloning from images).

    Example:
        >>> PixelBCConfig().keywords()["distr_name"]
        'TanhNormal'
    """

    class_name: ClassVar[str] = "PixelBCLearner"

    actor_lr: float = 1e-3
    """Learning rate of the actor and its encoder (Adam)."""
    hidden_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers behind the encoder."""
    use_layer_norm: bool = False
    """Normalise what comes out of the encoder."""
    dropout_rate: float | None = None
    """Dropout rate behind the encoder while training; None for none."""
    distr_name: Literal["TanhNormal", "Normal"] = "TanhNormal"
    """Distribution of the actions; upstream gets at the first only."""
    entropy_bonus: float | None = None
    """Weight of the entropy bonus in the actor's loss; None for none."""


LearnerConfig = (
    DDPMIQLConfig
    | GeneralDDPMIQLConfig
    | IQLConfig
    | BCConfig
    | SACConfig
    | TD3Config
    | DrQConfig
    | PixelBCConfig
)
"""Settings of any learner."""

OfflineLearnerConfig = DDPMIQLConfig | GeneralDDPMIQLConfig | IQLConfig | BCConfig | PixelBCConfig
"""Settings of the learners that learn from a fixed dataset."""

LEARNERS: Mapping[str, type[LearnerConfig]] = MappingProxyType(
    {cls.class_name: cls for cls in typing.get_args(LearnerConfig)}
)
"""The class of settings for each learner's name."""


def learner_config(class_name: str) -> LearnerConfig:
    """Upstream's default settings of a learner.

    Raises:
        InputError: no learner has that name.

    Example:
        >>> learner_config("GeneralDDPMIQLLearner").time_dim
        64
    """
    if class_name not in LEARNERS:
        from idql_func.errors import InputError

        raise InputError(f"no learner is called {class_name!r}; there are {', '.join(LEARNERS)}")
    return LEARNERS[class_name]()
