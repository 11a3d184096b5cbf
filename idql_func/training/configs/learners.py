"""The settings of each learner as frozen dataclasses, derived from the learner's ``create``.

Names, types and defaults are those of ``create`` in ``idql_func/agents``, which are upstream's
(``jaxrl5/agents/*/*_learner.py``; the two IDQL learners differ, quirk N16). This module adds the
help texts that ``idql train --help`` shows, and the choices of keywords that are names.

It imports neither torch nor the learners, so that the command line answers at once.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from idql_func.errors import InputError
from idql_func.training.configs.create_keywords import create_keywords

__all__ = [
    "LEARNERS",
    "BCConfig",
    "DDPMIQLConfig",
    "DrQConfig",
    "GeneralDDPMIQLConfig",
    "IQLConfig",
    "LearnerConfig",
    "LearnerSettings",
    "OfflineLearnerConfig",
    "PixelBCConfig",
    "SACConfig",
    "TD3Config",
    "learner_config",
]

CHOICES: Mapping[str, Any] = MappingProxyType(
    {
        "actor_architecture": Literal["mlp", "ln_resnet"],
        "actor_objective": Literal["bc", "soft_adv", "hard_adv", "exp_adv"],
        "beta_schedule": Literal["vp", "cosine", "linear"],
        "cnn_padding": Literal["VALID", "SAME"],
        "critic_objective": Literal["expectile", "quantile", "exponential"],
        "distr_name": Literal["TanhNormal", "Normal"],
        "encoder": Literal["d4pg", "resnet"],
    }
)
"""The values of the keywords that are names."""

_HELP = {
    "M": "How many times the last denoising step is repeated.",
    "N": "Actions sampled per observation; the one with the highest Q is taken.",
    "T": "Number of diffusion steps, at least 1.",
    "actor_delay": "Updates of the Q networks for each update of the actor.",
    "actor_lr": "Learning rate of the actor (Adam).",
    "actor_tau": "Weight of the new actor parameters in the averaged actor at each update. Actions "
    "are chosen with the averaged actor.",
    "backup_entropy": "Include the entropy of the next action in the target of Q.",
    "beta_schedule": "Noise schedule. With few steps 'linear' stays far from noise (quirk N10).",
    "clip_sampler": "Clip actions to [-1, 1] after every denoising step. Off: after the last only.",
    "cnn_features": "Channels of the convolutions of the 'd4pg' encoder.",
    "cnn_filters": "Filter sizes of these convolutions, pixels.",
    "cnn_padding": "Padding of these convolutions, by Flax's rules.",
    "cnn_strides": "Strides of these convolutions, pixels.",
    "critic_dropout_rate": "Dropout rate of the Q networks (0.01 for DroQ, arXiv 2110.02034). "
    "None: no dropout.",
    "critic_hidden_dims": "Sizes of the hidden layers of Q and V.",
    "critic_layer_norm": "Layer normalisation of the input of the Q networks (of no other layer, "
    "quirk N1; on for DroQ).",
    "critic_lr": "Learning rate of the Q ensemble (Adam).",
    "ddpm_temperature": "Factor on the noise that each denoising step adds to sampled actions.",
    "depth_keys": "Names of the depth maps in an observation: one for each image, or none.",
    "discount": "Discount factor gamma of future rewards, per environment step.",
    "dropout_rate": "Dropout rate in training. None: no dropout.",
    "encoder": "Network over the images: four convolutions, or a ResNet V2 of 18 layers.",
    "entropy_bonus": "Weight of the entropy bonus in the actor's loss. None: no bonus.",
    "exploration_noise": "Standard deviation of the noise on actions while data is collected.",
    "hidden_dims": "Sizes of the hidden layers of all networks.",
    "init_temperature": "Initial temperature.",
    "latent_dim": "Size of the vector that encodes an image.",
    "num_min_qs": "Size of the random subset of the target Q networks, drawn at each update, whose "
    "minimum is the target (2 for REDQ, arXiv 2101.05982). None: all of them.",
    "num_qs": "Number of Q networks; the minimum of their values is used.",
    "pixel_keys": "Names of the images in an observation.",
    "target_entropy": "Entropy that the temperature is tuned for, nats. None: minus half the "
    "number of action dimensions (quirk A4).",
    "target_policy_noise": "Standard deviation of the noise on the target policy's actions.",
    "target_policy_noise_clip": "Largest absolute value of that noise.",
    "tau": "Weight of the new Q parameters in the target Q at each update.",
    "temp_lr": "Learning rate of the temperature (Adam).",
    "time_dim": "Size of the embedding of the diffusion step, an even number.",
    "value_lr": "Learning rate of the value network V (Adam).",
}
"""The help text of each keyword, for the learners that give it no other."""

_EXPECTILE = (
    "Expectile of the value loss, in (0, 1). The nearer to 1, the nearer V is to the value of the "
    "best action in the data (0.7 for locomotion, 0.9 for mazes)."
)
_DIFFUSION_LR = (
    "Learning rate of the diffusion actor (AdamW), at the start of a cosine decay if there is one."
)
_DECAY_STEPS = (
    "Updates over which the actor's learning rate falls to 0 along a cosine; it stays 0 after them "
    "(quirk U16). None: a constant rate."
)


@dataclass(frozen=True)
class LearnerSettings:
    """The keywords of a learner's ``create``; each learner has a subclass.

    Example:
        >>> DDPMIQLConfig(critic_hyperparam=0.9).keywords()["critic_hyperparam"]
        0.9
    """

    class_name: ClassVar[str]

    if TYPE_CHECKING:  # the fields of the subclasses are not visible to a type checker

        def __init__(self, **keywords: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

    def keywords(self) -> dict[str, Any]:
        """Return the keyword arguments for the learner's ``create``."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


_Settings = TypeVar("_Settings", bound=LearnerSettings)


def _from_create(file: str, **help_texts: str) -> Callable[[type[_Settings]], type[_Settings]]:
    """Give a class the keywords of its learner's ``create`` as fields.

    Args:
        file: the learner's file in ``idql_func/agents``.
        help_texts: the help texts that differ from those of ``_HELP``.
    """

    def decorate(cls: type[_Settings]) -> type[_Settings]:
        keywords = create_keywords(file, cls.class_name)
        for name, keyword in keywords.items():
            setattr(cls, name, keyword.default)
        cls.__annotations__ = {n: CHOICES.get(n, k.type) for n, k in keywords.items()}
        lines = [f"    {n}: {help_texts.get(n) or _HELP[n]}" for n in keywords]
        cls.__doc__ = "\n".join([f"{cls.__doc__}\n", "Attributes:", *lines])
        return dataclass(frozen=True)(cls)

    return decorate


@_from_create(
    "ddpm_iql_learners.py",
    actor_lr=_DIFFUSION_LR,
    critic_hyperparam=_EXPECTILE,
    actor_num_blocks="Residual blocks of the actor's network.",
    actor_dropout_rate="Dropout rate of the actor's blocks in training. None: no dropout.",
    actor_layer_norm="Layer normalisation of the input of each of the actor's blocks.",
    value_layer_norm="Layer normalisation of the observations that V gets (not of those that Q "
    "gets, quirk N1).",
    policy_temperature="Has no effect, as in upstream: this learner never reads it (quirk U10).",
    decay_steps=_DECAY_STEPS,
)
class DDPMIQLConfig(LearnerSettings):
    """Keywords of ``DDPMIQLLearner.create``, the learner that upstream exports."""

    class_name = "DDPMIQLLearner"


@_from_create(
    "ddpm_iql_learners.py",
    actor_architecture="Network of the actor: an MLP, or residual blocks.",
    actor_lr=_DIFFUSION_LR,
    actor_hidden_dims="Sizes of the hidden layers of the 'mlp' actor ('ln_resnet' has a fixed "
    "size, quirk U14).",
    critic_hyperparam="Parameter of the critic objective: the expectile or the quantile in (0, 1), "
    "or the inverse temperature of 'exponential'.",
    actor_num_blocks="Residual blocks of the 'ln_resnet' actor.",
    actor_weight_decay="Weight decay of the actor's kernels. None: 1e-4 on all its parameters, "
    "which is what upstream does for any value (quirks U12, U13).",
    actor_dropout_rate="Dropout rate of the 'ln_resnet' actor in training. None: no dropout.",
    actor_layer_norm="Layer normalisation in the actor.",
    policy_temperature="Factor on the advantage in the 'exp_adv' objective: an inverse temperature "
    "(quirk U10).",
    actor_objective="Weights of the samples in the actor's loss: all 1, or by the advantage.",
    critic_objective="Loss of the value network.",
    decay_steps=_DECAY_STEPS,
    hard_adv_threshold="Smallest advantage of the samples that the 'hard_adv' objective uses "
    "(quirk U9).",
)
class GeneralDDPMIQLConfig(LearnerSettings):
    """Keywords of ``GeneralDDPMIQLLearner.create``, upstream's full learner."""

    class_name = "GeneralDDPMIQLLearner"


@_from_create(
    "iql.py",
    actor_lr="Learning rate of the Gaussian actor (Adam).",
    expectile=_EXPECTILE,
    temperature="Factor on the advantage in the weights of the actor's loss: an inverse "
    "temperature (3 for locomotion, 10 for mazes).",
)
class IQLConfig(LearnerSettings):
    """Keywords of ``IQLLearner.create`` (implicit Q-learning, arXiv 2110.06169)."""

    class_name = "IQLLearner"


@_from_create(
    "bc.py",
    actor_lr="Learning rate of the actor (Adam, or AdamW with a weight decay).",
    hidden_dims="Sizes of the hidden layers.",
    use_layer_norm="Layer normalisation of the observations (of no other layer, quirk N1).",
    weight_decay="Weight decay of all parameters but biases. None: no decay.",
)
class BCConfig(LearnerSettings):
    """Keywords of ``BCLearner.create`` (behaviour cloning, Gaussian with a fixed deviation)."""

    class_name = "BCLearner"


@_from_create("sac.py")
class SACConfig(LearnerSettings):
    """Keywords of ``SACLearner.create`` (arXiv 1812.05905); REDQ and DroQ are settings of it."""

    class_name = "SACLearner"


@_from_create(
    "td3.py", tau="Weight of the new parameters in the target networks at each update of them."
)
class TD3Config(LearnerSettings):
    """Keywords of ``TD3Learner.create`` (arXiv 1802.09477)."""

    class_name = "TD3Learner"


@_from_create("drq.py")
class DrQConfig(LearnerSettings):
    """Keywords of ``DrQLearner.create`` (SAC from images, arXiv 2107.09645)."""

    class_name = "DrQLearner"


@_from_create(
    "pixel_bc.py",
    actor_lr="Learning rate of the actor and its encoder (Adam).",
    hidden_dims="Sizes of the hidden layers after the encoder.",
    use_layer_norm="Layer normalisation of the encoder's output.",
    dropout_rate="Dropout rate after the encoder in training. None: no dropout.",
    distr_name="Distribution of the actions; in upstream only the first can be selected.",
)
class PixelBCConfig(LearnerSettings):
    """Keywords of ``PixelBCLearner.create`` (behaviour cloning from images)."""

    class_name = "PixelBCLearner"


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
    """Return a learner's settings with the defaults of its ``create``.

    Raises:
        InputError: if no learner has that name.

    Example:
        >>> learner_config("GeneralDDPMIQLLearner").time_dim
        64
    """
    if class_name not in LEARNERS:
        raise InputError(f"no learner is called {class_name!r}; there are {', '.join(LEARNERS)}")
    return LEARNERS[class_name]()
