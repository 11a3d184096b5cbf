"""The settings of each learner as frozen dataclasses, derived from the learner's ``create``.

Names, types and defaults are those of ``create`` in ``idql_func/agents``, which are upstream's
(``jaxrl5/agents/*/*_learner.py``; the two IDQL learners differ, quirk N16). This module adds the
help texts of ``learner_help.toml``, and the choices of keywords that are names.

It imports neither torch nor the learners, so that the command line answers at once.
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from idql_func.errors import InputError
from idql_func.training.configs.create_keywords import create_keywords

__all__ = [
    "LEARNERS",
    "BCConfig",
    "DDPMIQLConfig",
    "DrQConfig",
    "FQLConfig",
    "GeneralDDPMIQLConfig",
    "IFQLConfig",
    "IQLConfig",
    "LearnerConfig",
    "LearnerSettings",
    "OfflineLearnerConfig",
    "PixelBCConfig",
    "ReBRACConfig",
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
        "q_agg": Literal["mean", "min"],
    }
)
"""The values of the keywords that are names."""

_HELP = tomllib.loads(Path(__file__).with_name("learner_help.toml").read_text(encoding="utf-8"))
"""Help texts of keywords: those of every learner, and those of one learner by its name."""


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


def _from_create(file: str) -> Callable[[type[_Settings]], type[_Settings]]:
    """Give a class the keywords of its learner's ``create`` in ``idql_func/agents`` as fields."""

    def decorate(cls: type[_Settings]) -> type[_Settings]:
        keywords = create_keywords(file, cls.class_name)
        for name, keyword in keywords.items():
            setattr(cls, name, keyword.default)
        cls.__annotations__ = {n: CHOICES.get(n, k.type) for n, k in keywords.items()}
        texts = {**_HELP["every"], **_HELP.get(cls.class_name, {})}
        lines = [f"    {name}: {texts[name]}" for name in keywords]
        cls.__doc__ = "\n".join([f"{cls.__doc__}\n", "Attributes:", *lines])
        return dataclass(frozen=True)(cls)

    return decorate


@_from_create("ddpm_iql_learners.py")
class DDPMIQLConfig(LearnerSettings):
    """Keywords of ``DDPMIQLLearner.create``, the learner that upstream exports."""

    class_name = "DDPMIQLLearner"


@_from_create("ddpm_iql_learners.py")
class GeneralDDPMIQLConfig(LearnerSettings):
    """Keywords of ``GeneralDDPMIQLLearner.create``, upstream's full learner."""

    class_name = "GeneralDDPMIQLLearner"


@_from_create("iql.py")
class IQLConfig(LearnerSettings):
    """Keywords of ``IQLLearner.create`` (implicit Q-learning, arXiv 2110.06169)."""

    class_name = "IQLLearner"


@_from_create("bc.py")
class BCConfig(LearnerSettings):
    """Keywords of ``BCLearner.create`` (behaviour cloning, Gaussian with a fixed deviation)."""

    class_name = "BCLearner"


@_from_create("fql.py")
class FQLConfig(LearnerSettings):
    """Keywords of ``FQLLearner.create`` (flow Q-learning, arXiv 2502.02538)."""

    class_name = "FQLLearner"


@_from_create("ifql.py")
class IFQLConfig(LearnerSettings):
    """Keywords of ``IFQLLearner.create`` (IDQL with a flow as its policy, arXiv 2502.02538)."""

    class_name = "IFQLLearner"


@_from_create("rebrac.py")
class ReBRACConfig(LearnerSettings):
    """Keywords of ``ReBRACLearner.create`` (arXiv 2305.09836)."""

    class_name = "ReBRACLearner"


@_from_create("sac.py")
class SACConfig(LearnerSettings):
    """Keywords of ``SACLearner.create`` (arXiv 1812.05905); REDQ and DroQ are settings of it."""

    class_name = "SACLearner"


@_from_create("td3.py")
class TD3Config(LearnerSettings):
    """Keywords of ``TD3Learner.create`` (arXiv 1802.09477)."""

    class_name = "TD3Learner"


@_from_create("drq.py")
class DrQConfig(LearnerSettings):
    """Keywords of ``DrQLearner.create`` (SAC from images, arXiv 2107.09645)."""

    class_name = "DrQLearner"


@_from_create("pixel_bc.py")
class PixelBCConfig(LearnerSettings):
    """Keywords of ``PixelBCLearner.create`` (behaviour cloning from images)."""

    class_name = "PixelBCLearner"


LearnerConfig = (
    DDPMIQLConfig
    | GeneralDDPMIQLConfig
    | IQLConfig
    | BCConfig
    | FQLConfig
    | IFQLConfig
    | ReBRACConfig
    | SACConfig
    | TD3Config
    | DrQConfig
    | PixelBCConfig
)
"""Settings of any learner."""

OfflineLearnerConfig = (
    DDPMIQLConfig
    | GeneralDDPMIQLConfig
    | IQLConfig
    | BCConfig
    | FQLConfig
    | IFQLConfig
    | ReBRACConfig
    | PixelBCConfig
)
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
