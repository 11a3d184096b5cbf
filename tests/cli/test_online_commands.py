"""``idql online``, ``idql finetune`` and ``idql collect`` as a user meets them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_pendulum import ENVIRONMENT

from idql_func.cli import collect, finetune, main, online
from idql_func.data.hdf5 import read_d4rl_hdf5
from idql_func.training.configs.online_presets import FINETUNE_PRESETS, ONLINE_PRESETS
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
def test_every_preset_is_parsed(name: str) -> None:
    config, resume, overwrite = online.parse([name])
    assert (config, resume, overwrite) == (ONLINE_PRESETS[name], None, False)


@pytest.mark.parametrize("name", FINETUNE_PRESETS)
def test_every_preset_of_finetune_is_parsed(name: str) -> None:
    assert finetune.parse([name]) == (FINETUNE_PRESETS[name], None, False)


def test_the_defaults_are_the_first_presets() -> None:
    assert online.parse([])[0] == ONLINE_PRESETS["pendulum"]
    assert finetune.parse([])[0] == FINETUNE_PRESETS["pointmaze"]


def test_settings_are_options() -> None:
    config, _, overwrite = online.parse(
        ["td3", "--learner.actor-delay", "3", "--evaluation.interval", "7", "--overwrite"]
    )
    assert (config.learner.actor_delay, config.evaluation.interval, overwrite) == (3, 7, True)  # type: ignore[union-attr]
    config, _, _ = finetune.parse(["antmaze", "--offline.learner.N", "3", "--train-actor"])
    assert (config.offline.learner.N, config.train_actor) == (3, True)  # type: ignore[union-attr]
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


def test_a_run_to_start_from_keeps_its_settings(tmp_path: Path) -> None:
    from idql_func.training.configs.presets import ANTMAZE, POINTMAZE
    from idql_func.training.runs.directory import RunDirectory

    for settings, name in ((ANTMAZE, "antmaze"), (POINTMAZE, "pointmaze")):
        run = RunDirectory(tmp_path / name)
        run.start()
        run.write_config(settings)
        config, _, _ = finetune.parse([str(run.path)])
        assert (config.start, config.offline) == (run.path, settings)
        assert config.max_steps == FINETUNE_PRESETS[name].max_steps
        config, _, _ = finetune.parse(["pointmaze-actor", "--start", str(run.path)])
        assert config.train_actor and config.offline == settings


def test_mistakes_are_one_line(tmp_path: Path, failure: Callable[[list[str]], str]) -> None:
    assert "is called 'iql'; there are pendulum" in failure(["online", "iql"])
    assert "neither a preset nor a run" in failure(["finetune", "nothing"])
    assert "no run at gone" in failure(["online", "--resume", "gone"])
    assert "give no preset" in failure(["online", "sac", "--resume", "gone"])
    assert "give no preset" in failure(["finetune", "antmaze", "--resume", "gone"])
    assert "must end in .hdf5" in failure(["collect", "a", "--output", "b.csv"])
    assert "no run or checkpoint at gone" in failure(
        ["collect", "gone", "--output", str(tmp_path / "a.hdf5")]
    )
    assert "batch_size is 0" in failure(["online", "--batch-size", "0"])
    with pytest.raises(InputError, match="are both runs to start from"):
        finetune.parse([str(tmp_path), "--start", str(tmp_path)])
