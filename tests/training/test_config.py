"""Settings: equal to the learners' keywords, to JSON and back, numbers out of range."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idql_func import agents
from idql_func.training.configs import options
from idql_func.training.configs.learners import (
    LEARNERS,
    DDPMIQLConfig,
    GeneralDDPMIQLConfig,
    OfflineLearnerConfig,
    learner_config,
)
from idql_func.training.configs.offline import (
    DatasetConfig,
    EvaluationConfig,
    TrainConfig,
    config_from_dict,
    config_to_dict,
)
from idql_func.training.configs.presets import PRESETS, preset_for
from idql_func.types import InputError

SHARED = (options.Device, options.Matmul, options.RunsDir, options.Threads)
"""Types that carry their help."""
OFFLINE = [cls.class_name for cls in typing.get_args(OfflineLearnerConfig)]


@pytest.mark.parametrize("name", LEARNERS)
def test_settings_are_the_keywords_of_create(name: str) -> None:
    config = learner_config(name)
    create = inspect.signature(getattr(agents, config.class_name).create)
    defaults = {
        name: parameter.default
        for name, parameter in create.parameters.items()
        if name not in ("seed", "observation_space", "action_space")
    }
    assert config.keywords() == defaults


@pytest.mark.parametrize("cls", [*LEARNERS.values(), DatasetConfig, EvaluationConfig, TrainConfig])
def test_every_setting_has_help_text(cls: type) -> None:
    source = "".join(inspect.getsource(base) for base in cls.__mro__[:-1])
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(getattr(cls(), field.name)):
            continue
        if typing.get_type_hints(cls, include_extras=True)[field.name] in SHARED:
            continue
        lines = source.split(f"\n    {field.name}: ", 1)[1].splitlines()
        assert lines[1].strip().startswith('"""'), field.name


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("learner_class", OFFLINE)
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
    learner = config_from_dict(data).learner
    assert isinstance(learner, DDPMIQLConfig)
    discount = learner.discount
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
