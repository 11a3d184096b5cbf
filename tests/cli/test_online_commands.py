"""``idql online``, ``idql finetune`` and ``idql collect``: options, runs, and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_pendulum import ENVIRONMENT

from idql_func.cli import collect, finetune, main, online
from idql_func.data.hdf5 import read_d4rl_hdf5
from idql_func.training.configs.presets import (
    ANTMAZE,
    FINETUNE_PRESETS,
    ONLINE_PRESETS,
    POINTMAZE,
)
from idql_func.types import InputError

RUN = [
    *("--env", ENVIRONMENT, "--max-steps", "18", "--start-training", "12", "--batch-size", "4"),
    *("--learner.hidden-dims", "4", "--evaluation.episodes", "1", "--matmul", "strict"),
]
OFFLINE = [
    *("--max-steps", "3", "--batch-size", "4", "--evaluation.N", "2", "--evaluation.episodes", "1"),
    *("--learner.critic-hidden-dims", "4", "--learner.actor-num-blocks", "1", "--learner.T", "2"),
    *("--learner.time-dim", "4", "--learner.N", "2", "--matmul", "strict"),
]
ONLINE = [
    *("--max-steps", "7", "--start-training", "2", "--evaluation.N", "2"),
    *("--evaluation.episodes", "1", "--matmul", "strict"),
]


@pytest.mark.parametrize("name", ONLINE_PRESETS)
def test_presets_of_online_are_parsed(name: str) -> None:
    assert online.parse([name]) == online.OnlineOptions(ONLINE_PRESETS[name])


@pytest.mark.parametrize("name", FINETUNE_PRESETS)
def test_presets_of_finetune_are_parsed(name: str) -> None:
    assert finetune.parse([name]) == finetune.FinetuneOptions(FINETUNE_PRESETS[name])


def test_the_first_preset_is_the_default() -> None:
    assert online.parse([]).config == ONLINE_PRESETS["pendulum"]
    assert finetune.parse([]).config == FINETUNE_PRESETS["pointmaze"]


def test_options_change_settings() -> None:
    options = online.parse(
        ["td3", "--learner.actor-delay", "3", "--evaluation.interval", "7", "--overwrite"]
    )
    config = options.config
    assert (config.learner.actor_delay, config.evaluation.interval) == (3, 7)
    assert options.overwrite
    tuned = finetune.parse(["antmaze", "--offline.learner.N", "3", "--train-actor"]).config
    assert (tuned.offline.learner.N, tuned.train_actor) == (3, True)
    assert collect.parse(["a", "b.hdf5", "--output", "c.hdf5"]).sources == (
        Path("a"),
        Path("b.hdf5"),
    )


def test_online_then_collect_then_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["--runs-dir", str(tmp_path / "runs")]
    assert main(["online", "sac", *RUN, *runs]) == 0
    run = tmp_path / "runs" / "sac-seed0"
    assert "everything goes to" in capsys.readouterr().out
    longer = ["--max-steps", "20"]
    assert main(["online", "--resume", str(run), *longer]) == 0
    assert (run / "checkpoints" / "step_000000020").is_dir()
    assert main(["evaluate", str(run), "--episodes", "1", "--matmul", "strict"]) == 0

    data = tmp_path / "data.hdf5"
    assert main(["collect", str(run), "--output", str(data), "--steps", "40"]) == 0
    assert read_d4rl_hdf5(data)[1]["env"] == ENVIRONMENT
    settings = [*OFFLINE, "--dataset.source", str(data), "--name", "offline"]
    assert main(["train", "pointmaze", *settings, *runs]) == 0
    offline = tmp_path / "runs" / "offline"
    assert main(["finetune", str(offline), *ONLINE, *runs, "--name", "tuned"]) == 0
    assert "before" in capsys.readouterr().out
    replay = tmp_path / "replay.hdf5"
    assert main(["collect", str(run), "--buffer", "--output", str(replay)]) == 0
    tuned = ["collect", str(tmp_path / "runs" / "tuned"), "--N", "2", "--steps", "8"]
    assert main([*tuned, "--output", str(tmp_path / "tuned.hdf5")]) == 0


def test_finetuning_a_run_keeps_its_settings(tmp_path: Path) -> None:
    from idql_func.training.runs.directory import RunDirectory

    for settings, name in ((ANTMAZE, "antmaze"), (POINTMAZE, "pointmaze")):
        run = RunDirectory(tmp_path / name)
        run.path.mkdir()
        run.write_config(settings)
        config = finetune.parse([str(run.path)]).config
        assert (config.start, config.offline) == (run.path, settings)
        assert config.max_steps == FINETUNE_PRESETS[name].max_steps
        config = finetune.parse(["pointmaze-actor", "--start", str(run.path)]).config
        assert config.train_actor and config.offline == settings


def test_mistakes_end_with_one_line_and_status_2(
    tmp_path: Path, failure: Callable[[list[str]], str]
) -> None:
    assert "is called 'iql'; there are pendulum" in failure(["online", "iql"])
    assert "neither a preset nor a run" in failure(["finetune", "nothing"])
    assert "no run at gone" in failure(["online", "--resume", "gone"])
    assert "give no preset" in failure(["online", "sac", "--resume", "gone"])
    assert "give no preset" in failure(["finetune", "antmaze", "--resume", "gone"])
    assert "give no --start" in failure(["finetune", "--start", "a", "--resume", "gone"])
    nan = ["online", "--learner.tau", "nan", "--runs-dir", str(tmp_path / "runs")]
    assert "learner.tau is nan, but must be a finite number" in failure(nan)
    assert not (tmp_path / "runs").exists()
    assert "must end in .hdf5" in failure(["collect", "a", "--output", "b.csv"])
    assert "no run or checkpoint at gone" in failure(
        ["collect", "gone", "--output", str(tmp_path / "a.hdf5")]
    )
    assert "batch_size is 0" in failure(["online", "--batch-size", "0"])
    with pytest.raises(InputError, match="are both runs to start from"):
        finetune.parse([str(tmp_path), "--start", str(tmp_path)])
