"""Named settings of ``idql online`` and ``idql finetune``: built-in runs, and all of upstream's.

Each preset names only what differs from the defaults, which are those of ``online.py``,
``finetune.py`` and of the learner's ``create``, and upstream's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from idql_func.training.configs.finetune import FinetuneConfig, FinetuneEvaluationConfig
from idql_func.training.configs.learners import (
    DrQConfig,
    GeneralDDPMIQLConfig,
    SACConfig,
    TD3Config,
)
from idql_func.training.configs.offline import DatasetConfig, EvaluationConfig
from idql_func.training.configs.online import OnlineConfig, OnlineEvaluationConfig, PixelConfig
from idql_func.training.configs.presets import LOCOMOTION, POINTMAZE

__all__ = [
    "FINETUNE_DESCRIPTIONS",
    "FINETUNE_PRESETS",
    "ONLINE_DESCRIPTIONS",
    "ONLINE_PRESETS",
]

PENDULUM = OnlineConfig(
    preset="pendulum",
    env="Pendulum-v1",
    max_steps=10_000,
    start_training=1_000,
    log_interval=100,
    checkpoint_interval=2_000,
    learner=SACConfig(actor_lr=1e-3, critic_lr=1e-3, temp_lr=1e-3),
    evaluation=OnlineEvaluationConfig(interval=1_000, episodes=50),
)
"""SAC on the pendulum: solved in minutes on a CPU, without MuJoCo."""

SAC = OnlineConfig(env="HalfCheetah-v4")
"""``examples/states/train_online.py`` with ``configs/sac_config.py``."""

TD3 = dataclasses.replace(SAC, preset="td3", learner=TD3Config())
"""The same with ``configs/td3_config.py``."""

REDQ = dataclasses.replace(SAC, preset="redq", learner=SACConfig(num_qs=10, num_min_qs=2))
"""The same with ``configs/redq_config.py``. Upstream's ``utd_ratio`` is 1, the paper's 20."""

DROQ = dataclasses.replace(
    SAC,
    preset="droq",
    learner=SACConfig(critic_dropout_rate=0.01, critic_layer_norm=True),
)
"""The same with ``configs/droq_config.py``. Upstream's ``utd_ratio`` is 1, the paper's 20."""

DRQ = OnlineConfig(
    preset="drq",
    env="dm_control/cheetah-run-v0",
    max_steps=500_000,
    start_training=1_000,
    learner=DrQConfig(
        init_temperature=0.1,
        cnn_features=(32, 64, 128, 256),
        cnn_strides=(2, 2, 2, 2),
    ),
)
"""``examples/pixels/train_online_pixels.py`` with ``configs/drq_config.py``."""

PENDULUM_PIXELS = dataclasses.replace(
    DRQ,
    preset="pendulum-pixels",
    env="Pendulum-v1",
    max_steps=20_000,
    start_training=300,
    batch_size=64,
    log_interval=50,
    checkpoint_interval=2_500,
    learner=dataclasses.replace(DRQ.learner, cnn_features=(32, 32, 32, 32)),
    pixels=PixelConfig(image_size=48, prefetch=1),
    evaluation=OnlineEvaluationConfig(interval=2_500, interval_episodes=3, episodes=10),
)
"""DrQ on images of the pendulum: small enough to try on a CPU."""

_ONLINE = (
    (PENDULUM, "SAC solves the pendulum in minutes on a CPU (the default)"),
    (PENDULUM_PIXELS, "DrQ on images of the pendulum, small images and batches"),
    (SAC, "upstream's settings for SAC"),
    (TD3, "upstream's settings for TD3"),
    (REDQ, "upstream's settings for REDQ"),
    (DROQ, "upstream's settings for DroQ"),
    (DRQ, "upstream's settings for DrQ, from images of DeepMind Control"),
)

ONLINE_PRESETS: Mapping[str, OnlineConfig] = MappingProxyType({c.preset: c for c, _ in _ONLINE})
"""All presets of ``idql online`` by name."""

ONLINE_DESCRIPTIONS: Mapping[str, str] = MappingProxyType({c.preset: text for c, text in _ONLINE})
"""One line about each preset of ``idql online``, for help texts."""


POINTMAZE_FINETUNE = FinetuneConfig(
    max_steps=6_001,
    start_training=600,
    log_interval=100,
    checkpoint_interval=3_000,
    evaluation=FinetuneEvaluationConfig(interval=1_500, episodes=30),
    offline=dataclasses.replace(
        POINTMAZE,
        max_steps=2_000,
        checkpoint_interval=2_000,
        evaluation=EvaluationConfig(N=(64,), interval=2_000, episodes=5),
    ),
)
"""The built-in maze: a short offline run with a poor policy, then fine-tuning."""

POINTMAZE_ACTOR = dataclasses.replace(
    POINTMAZE_FINETUNE,
    preset="pointmaze-actor-finetune",
    train_actor=True,
    exploration="implicit",
)
"""The same with the actor trained online too, the paper's second variant."""

ANTMAZE_FINETUNE = FinetuneConfig(
    preset="antmaze-finetune",
    evaluation=FinetuneEvaluationConfig(
        N=(128,), interval=25_000, interval_episodes=25, episodes=25
    ),
    offline=dataclasses.replace(
        LOCOMOTION,
        preset="antmaze-finetune",
        dataset=DatasetConfig(source="antmaze-umaze-v0", rewards="minus_one"),
        # Upstream's learner of that name rejects these settings; its full learner has them (L2).
        # The default decay_steps makes the rate 0 for the last third of the offline updates (U16).
        learner=GeneralDDPMIQLConfig(
            actor_architecture="ln_resnet",
            actor_dropout_rate=0.1,
            actor_layer_norm=True,
            actor_num_blocks=3,
            critic_hyperparam=0.9,
        ),
        evaluation=EvaluationConfig(N=(128,), interval=1_000_000, interval_episodes=50),
    ),
)
"""``launcher/examples/train_ddpm_iql_finetune.py``, the paper's first variant."""

ANTMAZE_ACTOR = dataclasses.replace(
    ANTMAZE_FINETUNE,
    preset="antmaze-actor-finetune",
    train_actor=True,
    exploration="implicit",
    offline=dataclasses.replace(
        ANTMAZE_FINETUNE.offline,
        learner=dataclasses.replace(ANTMAZE_FINETUNE.offline.learner, decay_steps=4_000_000),
    ),
)
"""The same launcher with the changes that its comments give for the paper's second variant."""

_FINETUNE = {
    "pointmaze": (
        POINTMAZE_FINETUNE,
        "the built-in maze: Q and V learn online, minutes on a CPU (the default)",
    ),
    "pointmaze-actor": (POINTMAZE_ACTOR, "the built-in maze: the actor learns online too"),
    "antmaze": (ANTMAZE_FINETUNE, "upstream's settings for antmaze: Q and V learn online"),
    "antmaze-actor": (
        ANTMAZE_ACTOR,
        "upstream's settings for antmaze: the actor learns online too",
    ),
}

FINETUNE_PRESETS: Mapping[str, FinetuneConfig] = MappingProxyType(
    {name: config for name, (config, _) in _FINETUNE.items()}
)
"""All presets of ``idql finetune`` by name."""

FINETUNE_DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {name: text for name, (_, text) in _FINETUNE.items()}
)
"""One line about each preset of ``idql finetune``, for help texts."""
