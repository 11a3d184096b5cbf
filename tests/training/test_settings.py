"""Settings converted to JSON and back, and the errors of malformed ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from idql_func.training.configs.learners import SACConfig, TD3Config
from idql_func.training.configs.settings import (
    changed_settings,
    settings_from_dict,
    settings_to_dict,
)
from idql_func.types import InputError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    command: ClassVar[str] = "online"

    folder: Path = Path("runs")
    name: str | None = None
    mode: Literal["a", "b"] = "a"
    on: bool = False
    inner: Inner = field(default_factory=Inner)
    learner: SACConfig | TD3Config = field(default_factory=SACConfig)


@dataclass(frozen=True)
class Plain:
    seed: int = 0


@pytest.mark.parametrize(
    "settings",
    [
        Outer(),
        Outer(Path("x/y"), "n", "b", True, Inner(1.0, (3,)), TD3Config(actor_delay=3)),
    ],
)
def test_settings_round_trip_through_json(settings: Outer) -> None:
    data = json.loads(json.dumps(settings_to_dict(settings)))
    assert data["command"] == "online"
    assert settings_from_dict(Outer, data) == settings
    assert changed_settings(settings_from_dict(Outer, data), settings) == []


def test_missing_settings_have_their_defaults() -> None:
    assert settings_from_dict(Outer, {"command": "online", "inner": {}}) == Outer()


def test_changed_settings_have_dotted_names() -> None:
    other = Outer(on=True, inner=Inner(rate=0.25), learner=SACConfig(tau=0.1))
    assert changed_settings(Outer(), other) == ["inner.rate", "learner.tau", "on"]
    assert "learner.class" in changed_settings(Outer(), Outer(learner=TD3Config()))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([], "the settings have the type list"),
        ({"inner": 3}, "the settings inner have the type int"),
        ({"inner": {"rat": 1}}, "no setting is called 'inner.rat'"),
        ({"on": 1}, "the setting on is 1"),
        ({"mode": "c"}, "the setting mode is 'c'"),
        ({"inner": {"sizes": [1, "2"]}}, "the setting inner.sizes is '2'"),
        ({"learner": {"class": "BCLearner"}}, "'BCLearner'; it may be of SACLearner, TD3Learner"),
        ({"command": "train"}, "of a run of `idql train`, not of `idql online`"),
    ],
)
def test_malformed_settings_are_named(data: object, sentence: str) -> None:
    data = {"command": "online", **data} if isinstance(data, dict) else data
    with pytest.raises(InputError, match=sentence.replace("`", ".")):
        settings_from_dict(Outer, data)


def test_runs_without_a_command_are_those_of_train() -> None:
    assert "command" not in settings_to_dict(Plain())
    assert settings_from_dict(Plain, {"seed": 3}) == Plain(3)
    with pytest.raises(InputError, match=r"idql online.*not of.*idql train"):
        settings_from_dict(Plain, settings_to_dict(Outer()))
