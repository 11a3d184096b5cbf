"""Named settings of ``idql train``: the built-in runs, and every offline setting of upstream.

Each preset is one ``TrainConfig`` and names only what differs from the defaults, which are those of
``offline.py`` and of the learner's ``create``. Any setting can be changed on the command line.
The presets of ``idql online`` and ``idql finetune`` are in ``online_presets.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from idql_func.errors import InputError
from idql_func.training.configs.learners import (
    BCConfig,
    DDPMIQLConfig,
    GeneralDDPMIQLConfig,
    IQLConfig,
    PixelBCConfig,
    learner_config,
)
from idql_func.training.configs.offline import DatasetConfig, EvaluationConfig, TrainConfig

__all__ = ["ANTMAZE", "DESCRIPTIONS", "LOCOMOTION", "POINTMAZE", "PRESETS", "preset_for"]

POINTMAZE = TrainConfig(
    max_steps=7_000,
    checkpoint_interval=2_500,
    learner=DDPMIQLConfig(
        critic_hyperparam=0.9,
        # For a run of minutes: values propagate along the maze faster with a smaller discount and a
        # larger tau, and the layer norm of V (N1) would remove two of the four observed numbers.
        discount=0.98,
        tau=0.02,
        value_layer_norm=False,
        decay_steps=None,
    ),
    evaluation=EvaluationConfig(interval=2_500),
)
"""The built-in maze: a policy in a few minutes on two CPU cores, without a network."""

POINTMAZE_IQL = dataclasses.replace(
    POINTMAZE,
    preset="pointmaze-iql",
    cosine_decay=True,
    learner=IQLConfig(expectile=0.9, temperature=10.0, discount=0.98, tau=0.02),
)
"""The built-in maze with plain IQL: upstream's settings for mazes, the discount of a short run."""

POINTMAZE_BC = dataclasses.replace(
    POINTMAZE, preset="pointmaze-bc", cosine_decay=True, learner=BCConfig(dropout_rate=0.1)
)
"""The built-in maze with behaviour cloning: upstream's settings."""

LOCOMOTION = TrainConfig(
    preset="locomotion",
    batch_size=512,
    # One more than 3M, as in upstream, so that the evaluation at step 3,000,000 takes place.
    max_steps=3_000_001,
    log_interval=1_000,
    checkpoint_interval=250_000,
    dataset=DatasetConfig(source="walker2d-medium-v2", rewards="normalize_returns"),
    learner=DDPMIQLConfig(actor_dropout_rate=0.1),
    evaluation=EvaluationConfig(N=(16, 64, 256), interval=250_000, interval_episodes=50),
)
"""Upstream's ``launcher/examples/train_ddpm_iql_offline.py`` for halfcheetah, hopper, walker2d."""

ANTMAZE = dataclasses.replace(
    LOCOMOTION,
    preset="antmaze",
    dataset=DatasetConfig(source="antmaze-umaze-v2", rewards="minus_one"),
    learner=dataclasses.replace(LOCOMOTION.learner, critic_hyperparam=0.9),
)
"""Upstream's settings for antmaze: those of locomotion except the rewards and the expectile."""

IQL_ONEPARAM = TrainConfig(
    preset="iql-oneparam",
    max_steps=1_500_001,
    log_interval=1_000,
    checkpoint_interval=100_000,
    # Plain IQL trains on all of the data (D5).
    dataset=DatasetConfig(
        source="walker2d-medium-expert-v2", rewards="normalize_returns", train_fraction=1.0
    ),
    learner=IQLConfig(actor_lr=3e-4, expectile=0.7, temperature=3.0),
    evaluation=EvaluationConfig(interval=100_000, interval_episodes=50),
)
"""Upstream's ``launcher/iql/train_iql_oneparam.py``; it sweeps the temperature over 3, 6.5, 10."""

IQL_ONEPARAM_ANTMAZE = dataclasses.replace(
    IQL_ONEPARAM,
    preset="iql-oneparam-antmaze",
    dataset=dataclasses.replace(
        IQL_ONEPARAM.dataset, source="antmaze-medium-diverse-v0", rewards="minus_one"
    ),
    learner=dataclasses.replace(IQL_ONEPARAM.learner, expectile=0.9),
)
"""The same launcher for antmaze."""

# Upstream's `train_offline.py` has no settings of the loop, so these are the launcher's. The
# configuration files add a cosine decay, which the launcher does not use (L11).
IQL_MUJOCO = dataclasses.replace(
    IQL_ONEPARAM,
    preset="iql-mujoco",
    cosine_decay=True,
    dataset=dataclasses.replace(IQL_ONEPARAM.dataset, source="halfcheetah-medium-v2"),
    learner=IQLConfig(expectile=0.7, temperature=3.0),
)
"""Upstream's ``examples/states/configs/iql_mujoco_config.py``."""

IQL_ANTMAZE = dataclasses.replace(
    IQL_MUJOCO,
    preset="iql-antmaze",
    dataset=dataclasses.replace(IQL_ONEPARAM_ANTMAZE.dataset, source="antmaze-umaze-v2"),
    learner=IQLConfig(expectile=0.9, temperature=10.0),
)
"""Upstream's ``examples/states/configs/iql_antmaze_config.py``."""

BC = dataclasses.replace(
    IQL_MUJOCO,
    preset="bc",
    dataset=DatasetConfig(source="halfcheetah-expert-v2", train_fraction=1.0),
    learner=BCConfig(dropout_rate=0.1),
)
"""Upstream's ``examples/states/configs/bc_config.py``, on the dataset of its README."""

PIXEL_BC = TrainConfig(
    preset="pixel-bc",
    seed=42,
    max_steps=500_000,
    log_interval=1_000,
    checkpoint_interval=50_000,
    cosine_decay=True,
    dataset=DatasetConfig(source="buffers/cheetah-run-v0.safetensors", train_fraction=1.0),
    learner=PixelBCConfig(
        actor_lr=3e-4,
        cnn_features=(32, 64, 128, 256),
        cnn_strides=(2, 2, 2, 2),
        dropout_rate=0.1,
    ),
    evaluation=EvaluationConfig(episodes=10),
)
"""Upstream's ``examples/pixels/configs/pixel_bc_config.py`` in ``train_offline_pixels.py``."""

_DESCRIBED = (
    (POINTMAZE, "the built-in maze, minutes on a CPU (the default)"),
    (POINTMAZE_IQL, "the same with plain IQL"),
    (POINTMAZE_BC, "the same with behaviour cloning"),
    (LOCOMOTION, "upstream's settings for D4RL's halfcheetah, hopper and walker2d"),
    (ANTMAZE, "upstream's settings for D4RL's antmaze"),
    (IQL_MUJOCO, "plain IQL for D4RL's locomotion data, cosine decay of the actor's rate"),
    (IQL_ANTMAZE, "plain IQL for D4RL's antmaze, cosine decay of the actor's rate"),
    (IQL_ONEPARAM, "plain IQL with the settings of upstream's launcher, for locomotion"),
    (IQL_ONEPARAM_ANTMAZE, "plain IQL with the settings of upstream's launcher, for antmaze"),
    (BC, "behaviour cloning"),
    (PIXEL_BC, "behaviour cloning from the images of a saved replay buffer"),
)

PRESETS: Mapping[str, TrainConfig] = MappingProxyType({c.preset: c for c, _ in _DESCRIBED})
"""All presets by name."""

DESCRIPTIONS: Mapping[str, str] = MappingProxyType({c.preset: text for c, text in _DESCRIBED})
"""One line about each preset, for help texts."""

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
