"""Settings: one source of defaults, help texts, conversion to JSON, and range checks."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docstring_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idql_func import agents, losses
from idql_func.agents import ddpm_iql_build, fql, pixel_bc, pixels
from idql_func.training.configs import catalogue, collect, finetune, offline, online, options
from idql_func.training.configs import learners as settings_of_learners
from idql_func.training.configs.create_keywords import create_keywords
from idql_func.training.configs.learners import (
    CHOICES,
    LEARNERS,
    DDPMIQLConfig,
    GeneralDDPMIQLConfig,
    OfflineLearnerConfig,
    SACConfig,
    learner_config,
)
from idql_func.training.configs.offline import DatasetConfig, EvaluationConfig, TrainConfig
from idql_func.training.configs.online import OnlineConfig
from idql_func.training.configs.presets import PRESETS, preset_for
from idql_func.training.configs.settings import settings_from_dict, settings_to_dict
from idql_func.types import InputError

SHARED = (options.Device, options.Matmul, options.RunsDir, options.Threads)
"""Types that carry a help text."""
OFFLINE = [cls.class_name for cls in typing.get_args(OfflineLearnerConfig)]
OLD_SETTINGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "reference" / "settings_4700dd1.json").read_text(encoding="utf-8")
)
"""The config.json of version 4700dd1, by command and preset."""


# --- one source of defaults ---------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_settings_of_a_learner_equal_the_keywords_of_create(name: str) -> None:
    create = inspect.signature(getattr(agents, name).create)
    defaults = {
        keyword: parameter.default
        for keyword, parameter in create.parameters.items()
        if keyword not in ("seed", "observation_space", "action_space")
    }
    settings = learner_config(name).keywords()
    assert settings == defaults and list(settings) == list(defaults)
    assert {k: type(v) for k, v in settings.items()} == {k: type(v) for k, v in defaults.items()}


def test_settings_of_a_learner_repeat_no_default() -> None:
    """Each class defines only the learner's name; everything else is read from ``create``."""
    for name in LEARNERS:
        source = inspect.getsource(LEARNERS[name])
        [definition] = ast.parse(source).body
        assert isinstance(definition, ast.ClassDef)
        stated = [ast.unparse(n) for n in definition.body if not isinstance(n, ast.Expr)]
        assert stated == [f"class_name = {name!r}"]


def named_settings(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each setting in a table of ``presets.toml``."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from named_settings(value, (*path, name))
        elif name not in ("about", "upstream", "base", "class"):
            yield (*path, name)


@pytest.mark.parametrize("entry", catalogue.catalogue(), ids=lambda entry: entry.line)
def test_presets_state_only_what_differs_from_base_and_defaults(
    entry: catalogue.CatalogueEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: Any = catalogue._tables()
    stated = list(named_settings(tables[entry.command][entry.name]))
    assert stated or entry.learner != type(entry.config)().learner.class_name
    for path in stated:
        changed = copy.deepcopy(tables)
        table = changed[entry.command][entry.name]
        for name in path[:-1]:
            table = table[name]
        del table[path[-1]]
        monkeypatch.setattr(catalogue, "_tables", lambda changed=changed: changed)
        settings = {"command": entry.command, **catalogue._settings(entry.command, entry.name)}
        assert settings_from_dict(type(entry.config), settings) != entry.config, path


def test_choices_of_settings_equal_those_of_the_learners() -> None:
    choices = {name: set(typing.get_args(literal)) for name, literal in CHOICES.items()}
    assert choices == {
        "actor_architecture": set(ddpm_iql_build.ARCHITECTURES),
        "actor_objective": set(losses.ACTOR_OBJECTIVES),
        "beta_schedule": set(ddpm_iql_build.BETA_SCHEDULES),
        "cnn_padding": {"VALID", "SAME"},
        "critic_objective": set(losses.CRITIC_OBJECTIVES),
        "distr_name": set(pixel_bc.DISTRIBUTIONS),
        "encoder": set(pixels.ENCODERS),
        "q_agg": set(fql.Q_AGGREGATIONS),
    }


def test_missing_learner_is_named() -> None:
    with pytest.raises(LookupError, match="there is no NoLearner in the file"):
        create_keywords("td3.py", "NoLearner")


@pytest.mark.parametrize("line", OLD_SETTINGS)
def test_settings_of_an_older_version_have_the_same_values(line: str) -> None:
    command, preset, *learner_class = line.replace("--learner-class ", "").split()
    cls = {
        "train": TrainConfig,
        "online": OnlineConfig,
        "finetune": finetune.FinetuneConfig,
    }[command]
    read = settings_from_dict(cls, OLD_SETTINGS[line])
    assert json.loads(json.dumps(settings_to_dict(read))) == OLD_SETTINGS[line]
    if learner_class:
        assert read == preset_for(preset, learner_class[0])
    else:
        [entry] = [e for e in catalogue.catalogue() if e.line == f"idql {line}"]
        assert read == entry.config


# --- help ---------------------------------------------------------------------------------


CLASSES = [
    *LEARNERS.values(),
    *(
        cls
        for module in (collect, finetune, offline, online, options)
        for cls in vars(module).values()
        if dataclasses.is_dataclass(cls) and isinstance(cls, type)
        if cls.__module__ == module.__name__
    ),
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_setting_has_a_help_text(cls: Any) -> None:
    """The text is in a docstring; no line looks like a new paragraph to the option parser."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        parsed = docstring_parser.parse(base.__doc__ or "")
        texts.update({p.arg_name: p.description or "" for p in parsed.params})
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        if hints[field.name] in SHARED or field.name in (
            "dataset",
            "learner",
            "pixels",
            "evaluation",
        ):
            continue
        text = texts[field.name]
        assert text[0].isupper() and text.endswith("."), (field.name, text)
        assert all(line[0].isalpha() for line in text.splitlines()), (field.name, text)


def test_every_help_text_belongs_to_a_keyword() -> None:
    keywords = {name: set(cls().keywords()) for name, cls in LEARNERS.items()}
    texts = dict(settings_of_learners._HELP)
    assert set().union(*keywords.values()) >= texts.pop("every").keys()
    for name, own in texts.items():
        assert keywords[name] >= own.keys()


# --- JSON ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("learner_class", OFFLINE)
def test_presets_round_trip_through_json(name: str, learner_class: str) -> None:
    config = preset_for(name, learner_class)
    config.validate()
    assert (
        settings_from_dict(TrainConfig, json.loads(json.dumps(settings_to_dict(config)))) == config
    )


@given(
    seed=st.integers(0, 2**32),
    rate=st.floats(1e-9, 1e3),
    dropout=st.none() | st.floats(0, 0.9),
    numbers=st.lists(st.integers(1, 512), min_size=1).map(tuple),
    name=st.none() | st.text(min_size=1),
)
def test_conversion_to_json_is_exact(
    seed: int, rate: float, dropout: float | None, numbers: tuple[int, ...], name: str | None
) -> None:
    config = TrainConfig(
        seed=seed,
        name=name,
        runs_dir=Path("a/b"),
        learner=GeneralDDPMIQLConfig(actor_lr=rate, actor_dropout_rate=dropout),
        evaluation=EvaluationConfig(N=numbers),
    )
    assert (
        settings_from_dict(TrainConfig, json.loads(json.dumps(settings_to_dict(config)))) == config
    )


def test_integers_are_accepted_as_floats_but_not_floats_as_integers() -> None:
    data = settings_to_dict(TrainConfig())
    data["learner"]["discount"] = 1
    learner = settings_from_dict(TrainConfig, data).learner
    assert isinstance(learner, DDPMIQLConfig)
    discount = learner.discount
    assert discount == 1.0 and isinstance(discount, float)
    data["batch_size"] = 2.0
    with pytest.raises(InputError, match=r"batch_size is 2\.0"):
        settings_from_dict(TrainConfig, data)


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
def test_errors_of_damaged_settings_name_the_setting(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        settings_from_dict(TrainConfig, {**settings_to_dict(TrainConfig()), **change})


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
        (TrainConfig(learner=DDPMIQLConfig(actor_lr=float("nan"))), "learner.actor_lr is nan"),
        (TrainConfig(dataset=DatasetConfig(take_top=float("inf"))), "dataset.take_top is inf"),
        (OnlineConfig(learner=SACConfig(tau=float("nan"))), "learner.tau is nan, but must be a"),
        (OnlineConfig(solved_return=float("-inf")), "solved_return is -inf"),
        (
            finetune.FinetuneConfig(
                offline=TrainConfig(learner=DDPMIQLConfig(discount=float("nan")))
            ),
            "offline.learner.discount is nan",
        ),
        (
            collect.CollectConfig((Path("a"),), Path("b.hdf5"), noise=float("inf")),
            "noise is inf, but must be a finite number",
        ),
    ],
)
def test_numbers_out_of_range_raise(config: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config.validate()
