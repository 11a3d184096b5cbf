"""Presets of each command by name, as their settings; ``presets.toml`` defines them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from idql_func.errors import InputError
from idql_func.training.configs.catalogue import presets_of
from idql_func.training.configs.finetune import FinetuneConfig
from idql_func.training.configs.learners import DDPMIQLConfig, GeneralDDPMIQLConfig, learner_config
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.online import OnlineConfig

__all__ = [
    "ANTMAZE",
    "DESCRIPTIONS",
    "FINETUNE_PRESETS",
    "LOCOMOTION",
    "ONLINE_PRESETS",
    "POINTMAZE",
    "PRESETS",
    "preset_for",
]


def _configs(command: str) -> Mapping[str, Any]:
    return MappingProxyType({name: e.config for name, e in presets_of(command).items()})


PRESETS: Mapping[str, TrainConfig] = _configs("train")
"""All presets of ``idql train`` by name."""

ONLINE_PRESETS: Mapping[str, OnlineConfig] = _configs("online")
"""All presets of ``idql online`` by name."""

FINETUNE_PRESETS: Mapping[str, FinetuneConfig] = _configs("finetune")
"""All presets of ``idql finetune`` by name."""

DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {name: entry.description for name, entry in presets_of("train").items()}
)
"""One line about each preset of ``idql train``."""

POINTMAZE = PRESETS["pointmaze"]
LOCOMOTION = PRESETS["locomotion"]
ANTMAZE = PRESETS["antmaze"]

_SYNONYMS = {
    "critic_hyperparam": "expectile",
    "expectile": "critic_hyperparam",
    "critic_hidden_dims": "hidden_dims",
    "hidden_dims": "critic_hidden_dims",
}
_IDQL = (DDPMIQLConfig, GeneralDDPMIQLConfig)


def preset_for(name: str, learner_class: str | None = None) -> TrainConfig:
    """Return a preset, optionally with another learner.

    With another ``learner_class``, keywords that both learners have keep the preset's value if it
    differs from the default of the preset's own learner. All others are the new learner's defaults.

    Raises:
        InputError: if no preset or no learner has that name.

    Example:
        >>> preset_for("antmaze").learner.critic_hyperparam
        0.9
        >>> preset_for("antmaze", "GeneralDDPMIQLLearner").learner.time_dim
        64
        >>> preset_for("pointmaze", "IQLLearner").learner.expectile
        0.9
    """
    if name not in PRESETS:
        raise InputError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    config = PRESETS[name]
    if learner_class is None or learner_class == config.learner.class_name:
        return config
    other, own_defaults = learner_config(learner_class), type(config.learner)()
    known = {f.name for f in dataclasses.fields(other)}
    chosen: dict[str, Any] = {}
    for key, value in config.learner.keywords().items():
        same = key if key in known else _SYNONYMS.get(key)
        if same in known and value != getattr(own_defaults, key):
            chosen[same] = value
    if isinstance(other, GeneralDDPMIQLConfig) and isinstance(config.learner, DDPMIQLConfig):
        # The preset's number of blocks and dropout rate are settings of the residual actor.
        chosen["actor_architecture"] = "ln_resnet"
        chosen["actor_layer_norm"] = True
        chosen["actor_num_blocks"] = config.learner.actor_num_blocks
    if isinstance(other, _IDQL) and config.cosine_decay:
        chosen["decay_steps"] = config.max_steps
        config = dataclasses.replace(config, cosine_decay=False)
    return dataclasses.replace(config, learner=type(other)(**chosen))
