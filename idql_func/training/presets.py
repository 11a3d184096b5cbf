"""Named settings: the built-in run, and upstream's own for D4RL's locomotion and antmaze data.

Each preset is one ``TrainConfig``; what is not written in it is the default of
``idql_func.training.config``. Any part can be replaced on the command line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from idql_func.training.config import DatasetConfig, EvaluationConfig, TrainConfig
from idql_func.training.learners import DDPMIQLConfig, learner_config

__all__ = ["ANTMAZE", "DESCRIPTIONS", "LOCOMOTION", "POINTMAZE", "PRESETS", "preset_for"]

POINTMAZE = TrainConfig(
    preset="pointmaze",
    batch_size=256,
    max_steps=7_000,
    log_interval=100,
    checkpoint_interval=2_500,
    dataset=DatasetConfig(source="pointmaze-umaze-builtin", rewards="as_stored"),
    learner=DDPMIQLConfig(
        critic_hyperparam=0.9,
        # A run of minutes: values spread along the maze faster with a shorter horizon and a
        # quicker target, and the layer norm of V (N1) would take two of four numbers away.
        discount=0.98,
        tau=0.02,
        value_layer_norm=False,
        actor_dropout_rate=None,
        decay_steps=None,
    ),
    evaluation=EvaluationConfig(
        N=(1, 64),
        interval=2_500,
        interval_episodes=10,
        episodes=50,
    ),
)
"""The built-in maze: a policy in a few minutes on two CPU cores, without a network."""

LOCOMOTION = TrainConfig(
    preset="locomotion",
    batch_size=512,
    # One more than 3M, as upstream has it, so that the evaluation at step 3,000,000 takes place.
    max_steps=3_000_001,
    log_interval=1_000,
    checkpoint_interval=250_000,
    dataset=DatasetConfig(source="walker2d-medium-v2", rewards="normalize_returns"),
    learner=DDPMIQLConfig(
        critic_hyperparam=0.7,
        actor_dropout_rate=0.1,
        actor_num_blocks=3,
        decay_steps=3_000_000,
    ),
    evaluation=EvaluationConfig(
        N=(16, 64, 256),
        interval=250_000,
        interval_episodes=50,
        episodes=50,
    ),
)
"""Upstream's ``launcher/examples/train_ddpm_iql_offline.py`` for halfcheetah, hopper, walker2d."""

ANTMAZE = dataclasses.replace(
    LOCOMOTION,
    preset="antmaze",
    dataset=DatasetConfig(source="antmaze-umaze-v2", rewards="minus_one"),
    learner=dataclasses.replace(LOCOMOTION.learner, critic_hyperparam=0.9),
)
"""Upstream's settings for antmaze: locomotion's, but for the rewards and the expectile."""

PRESETS: Mapping[str, TrainConfig] = MappingProxyType(
    {"pointmaze": POINTMAZE, "locomotion": LOCOMOTION, "antmaze": ANTMAZE}
)
"""All presets by name."""

DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "pointmaze": "the built-in maze, minutes on a CPU (the default)",
        "locomotion": "upstream's settings for D4RL's halfcheetah, hopper and walker2d",
        "antmaze": "upstream's settings for D4RL's antmaze",
    }
)
"""One line about each preset, for help texts."""


def preset_for(name: str, learner_class: str | None = None) -> TrainConfig:
    """A preset, if wanted for the other learner.

    With another ``learner_class`` every keyword that both learners know keeps the preset's value
    where that differs from the preset's learner's default; the others are that learner's defaults.

    Raises:
        InputError: no preset or no learner has that name.

    Example:
        >>> preset_for("antmaze").learner.critic_hyperparam
        0.9
        >>> preset_for("antmaze", "GeneralDDPMIQLLearner").learner.time_dim
        64
    """
    if name not in PRESETS:
        from idql_func.types import InputError

        raise InputError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    config = PRESETS[name]
    if learner_class is None or learner_class == config.learner.class_name:
        return config
    other, own_defaults = learner_config(learner_class), type(config.learner)()
    known = {f.name for f in dataclasses.fields(other)}
    chosen = {
        key: value
        for key, value in config.learner.keywords().items()
        if key in known and value != getattr(own_defaults, key)
    }
    # The blocks and the dropout of upstream's settings are those of the residual actor.
    chosen["actor_architecture"] = "ln_resnet"
    chosen["actor_layer_norm"] = True
    chosen["actor_num_blocks"] = config.learner.actor_num_blocks
    return dataclasses.replace(config, learner=dataclasses.replace(other, **chosen))
