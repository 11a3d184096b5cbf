"""Settings: equal to the learners' keywords, to JSON and back, presets as upstream's launcher."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idql_func import agents
from idql_func.training.config import (
    DatasetConfig,
    EvaluationConfig,
    TrainConfig,
    config_from_dict,
    config_to_dict,
    differences,
)
from idql_func.training.learners import DDPMIQLConfig, GeneralDDPMIQLConfig, learner_config
from idql_func.training.presets import DESCRIPTIONS, PRESETS, preset_for
from idql_func.types import InputError


@pytest.mark.parametrize("config", [DDPMIQLConfig(), GeneralDDPMIQLConfig()])
def test_settings_are_the_keywords_of_create(
    config: DDPMIQLConfig | GeneralDDPMIQLConfig,
) -> None:
    create = inspect.signature(getattr(agents, config.class_name).create)
    defaults = {
        name: parameter.default
        for name, parameter in create.parameters.items()
        if name not in ("seed", "observation_space", "action_space")
    }
    assert config.keywords() == defaults


@pytest.mark.parametrize(
    "cls", [DDPMIQLConfig, GeneralDDPMIQLConfig, DatasetConfig, EvaluationConfig, TrainConfig]
)
def test_every_setting_has_help_text(cls: type) -> None:
    source = inspect.getsource(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(getattr(cls(), field.name)):
            continue
        lines = source.split(f"\n    {field.name}: ", 1)[1].splitlines()
        assert lines[1].strip().startswith('"""'), field.name


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("learner_class", ["DDPMIQLLearner", "GeneralDDPMIQLLearner"])
def test_json_and_back(name: str, learner_class: str) -> None:
    config = preset_for(name, learner_class)
    config.validate()
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


@given(
    seed=st.integers(0, 2**32),
    rate=st.floats(1e-9, 1e3),
    dropout=st.none() | st.floats(0, 0.9),
    numbers=st.lists(st.integers(1, 512), min_size=1).map(tuple),
    name=st.none() | st.text(min_size=1),
)
def test_json_and_back_keeps_every_digit(
    seed: int, rate: float, dropout: float | None, numbers: tuple[int, ...], name: str | None
) -> None:
    config = TrainConfig(
        seed=seed,
        name=name,
        runs_dir=Path("a/b"),
        learner=GeneralDDPMIQLConfig(actor_lr=rate, actor_dropout_rate=dropout),
        evaluation=EvaluationConfig(N=numbers),
    )
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_an_integer_is_taken_for_a_float_but_nothing_for_an_integer() -> None:
    data = config_to_dict(TrainConfig())
    data["learner"]["discount"] = 1
    discount = config_from_dict(data).learner.discount
    assert discount == 1.0 and isinstance(discount, float)
    data["batch_size"] = 2.0
    with pytest.raises(InputError, match=r"batch_size is 2\.0"):
        config_from_dict(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bogus": 1}, "no setting is called 'bogus'"),
        ({"learner": {"class": "DDPMIQLLearner", "bogus": 1}}, "'learner.bogus'"),
        ({"learner": {"class": "Nobody"}}, "no learner is called 'Nobody'"),
        ({"learner": {"class": "DDPMIQLLearner", "beta_schedule": "x"}}, "beta_schedule is 'x'"),
        ({"seed": "0"}, "seed is '0'"),
        ({"seed": True}, "seed is True"),
        ({"evaluation": {"N": [1, "2"]}}, "evaluation.N is '2'"),
    ],
)
def test_damaged_settings_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config_from_dict({**config_to_dict(TrainConfig()), **change})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainConfig(batch_size=0), "batch_size is 0"),
        (TrainConfig(max_steps=-1), "max_steps is -1"),
        (TrainConfig(seed=-1), "seed is -1"),
        (TrainConfig(name="a/b"), "plain folder name"),
        (TrainConfig(evaluation=EvaluationConfig(N=())), "evaluation.N is empty"),
        (TrainConfig(evaluation=EvaluationConfig(N=(0, 64))), "evaluation.N is 0"),
        (TrainConfig(evaluation=EvaluationConfig(num_envs=0)), "evaluation.num_envs is 0"),
        (TrainConfig(cosine_decay=True), "learner.decay_steps instead"),
        (TrainConfig(dataset=DatasetConfig(train_fraction=1.1)), "train_fraction is 1.1"),
    ],
)
def test_numbers_out_of_range(config: TrainConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config.validate()


def test_presets_are_upstreams_launcher() -> None:
    """``launcher/examples/train_ddpm_iql_offline.py`` of upstream, line by line."""
    locomotion, antmaze = PRESETS["locomotion"], PRESETS["antmaze"]
    for config in (locomotion, antmaze):
        assert (config.max_steps, config.batch_size, config.log_interval) == (3_000_001, 512, 1_000)
        assert (config.evaluation.episodes, config.evaluation.interval) == (50, 250_000)
        assert config.evaluation.interval_episodes == 50
        assert config.evaluation.N == (16, 64, 256)
        learner = config.learner.keywords()
        upstream = {
            "actor_lr": 3e-4,
            "critic_lr": 3e-4,
            "value_lr": 3e-4,
            "T": 5,
            "N": 64,
            "M": 0,
            "actor_dropout_rate": 0.1,
            "actor_num_blocks": 3,
            "decay_steps": 3_000_000,
            "actor_layer_norm": True,
            "value_layer_norm": True,
            "actor_tau": 0.001,
            "beta_schedule": "vp",
            "clip_sampler": True,
        }
        assert {name: learner[name] for name in upstream} == upstream
    assert locomotion.learner.critic_hyperparam == 0.7
    assert locomotion.dataset.rewards == "normalize_returns"
    assert antmaze.learner.critic_hyperparam == 0.9
    assert antmaze.dataset.rewards == "minus_one"
    assert set(differences(locomotion, antmaze)) == {
        "preset",
        "dataset.source",
        "dataset.rewards",
        "learner.critic_hyperparam",
    }
    assert DESCRIPTIONS.keys() == PRESETS.keys()


def test_a_preset_for_the_other_learner_keeps_what_both_know() -> None:
    config = preset_for("antmaze", "GeneralDDPMIQLLearner")
    assert isinstance(config.learner, GeneralDDPMIQLConfig)
    assert config.learner.actor_architecture == "ln_resnet"
    assert config.learner.actor_num_blocks == 3
    assert config.learner.actor_dropout_rate == 0.1
    assert config.learner.critic_hyperparam == 0.9
    assert config.learner.time_dim == learner_config("GeneralDDPMIQLLearner").time_dim == 64
    with pytest.raises(InputError, match="no preset is called 'mars'"):
        preset_for("mars")
