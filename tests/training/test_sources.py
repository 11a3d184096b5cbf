"""Datasets named by the settings: Minari recordings (test_offline tests the others)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from short_pendulum import SHORT_PENDULUM

from idql_func.data import MinariDataset, write_minari_dataset
from idql_func.data.scores import ReferenceScores, normalized_score, reference_scores
from idql_func.training.configs.offline import DatasetConfig, TrainConfig
from idql_func.training.data_info import describe_dataset
from idql_func.training.offline import train_offline
from idql_func.training.runs.console import Reporter
from idql_func.training.sources import load_source
from idql_func.types import InputError


def write(folder: Path, **attributes: Any) -> Path:
    """Four random episodes of Pendulum's size, 15 steps each."""
    rng, steps = np.random.default_rng(0), 15
    episodes = [
        {
            "observations": rng.standard_normal((steps + 1, 3)).astype(np.float32),
            "actions": rng.uniform(-0.9, 0.9, (steps, 1)).astype(np.float32),
            "rewards": rng.standard_normal(steps),
            "terminations": np.zeros(steps, bool),
            "truncations": np.arange(steps) == steps - 1,
        }
        for _ in range(4)
    ]
    return write_minari_dataset(
        folder,
        episodes,
        observation_space=gym.spaces.Box(-np.inf, np.inf, (3,), np.float32),
        action_space=gym.spaces.Box(-1, 1, (1,), np.float32),
        attributes=attributes,
    )


def spec(**kwargs: Any) -> str:
    """An environment as Minari's metadata describes it."""
    return json.dumps({"id": SHORT_PENDULUM, "max_episode_steps": 10, "kwargs": kwargs})


@pytest.mark.parametrize("form", ["{folder}", "minari:{folder}", "minari:test/tiny-v0"])
def test_minari_recording_loads_by_folder_or_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    folder = write(tmp_path / "test" / "tiny-v0", env=SHORT_PENDULUM)
    loaded = load_source(DatasetConfig(source=form.format(folder=folder)))
    expected = MinariDataset(folder).dataset_dict
    for name, array in loaded.dataset.dataset_dict.items():
        np.testing.assert_array_equal(array, expected[name])
    assert len(loaded.dataset) == 60
    assert loaded.path == folder / "data" / "main_data.hdf5"
    assert (loaded.attributes["env"], loaded.score_name) == (SHORT_PENDULUM, None)


@pytest.mark.parametrize(
    ("attributes", "env"),
    [
        ({"env_spec": spec()}, SHORT_PENDULUM),
        ({"env_spec": spec(g=5.0), "eval_env_spec": spec()}, SHORT_PENDULUM),
        # an environment with extra arguments cannot be created from its name alone
        ({"env_spec": spec(g=5.0)}, None),
        ({"env_spec": "no JSON"}, None),
        ({}, None),
    ],
)
def test_minari_environment_comes_from_the_metadata(
    tmp_path: Path, attributes: dict[str, str], env: str | None
) -> None:
    folder = write(tmp_path / "tiny-v0", **attributes)
    assert load_source(DatasetConfig(source=str(folder))).attributes.get("env") == env


def test_returns_of_a_minari_recording_are_scored(
    tmp_path: Path, tiny: TrainConfig, quiet: Reporter
) -> None:
    folder = write(tmp_path / "tiny-v0", env_spec=spec(), ref_min_score=-100.0, ref_max_score=100.0)
    config = dataclasses.replace(
        tiny,
        dataset=DatasetConfig(source=str(folder)),
        evaluation=dataclasses.replace(tiny.evaluation, env=None),
    )
    result = train_offline(config, reporter=quiet)
    behaviour = result.summary["behaviour"]
    assert behaviour["episodes"] == 4
    assert behaviour["normalized_score"] == 50.0 + behaviour["return"] / 2
    evaluation = result.summary["evaluation"]["1"]
    assert evaluation["normalized_score"] == pytest.approx(50.0 + evaluation["return"] / 2)
    assert len(describe_dataset(str(folder))) == 3


def test_minari_folder_has_reference_scores(tmp_path: Path) -> None:
    folder = write(tmp_path / "scored-v0", ref_min_score=1.0, ref_max_score=3.0)
    assert reference_scores(folder) == ReferenceScores(1.0, 3.0)
    assert normalized_score(folder, 2.0) == 50.0
    assert reference_scores(write(tmp_path / "plain-v0")) is None


def test_folder_without_a_recording_raises(
    tmp_path: Path, tiny: TrainConfig, quiet: Reporter
) -> None:
    config = dataclasses.replace(tiny, dataset=DatasetConfig(source=str(tmp_path)))
    with pytest.raises(InputError, match="is not a Minari recording"):
        train_offline(config, reporter=quiet)
    with pytest.raises(InputError, match="minari download no/such-v0"):
        load_source(DatasetConfig(source="minari:no/such-v0"))
    assert not (tmp_path / "runs").exists()
