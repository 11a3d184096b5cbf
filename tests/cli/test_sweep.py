"""``idql sweep`` and ``idql presets``: runs, failures, tables, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_pendulum import short_run, write_dataset

from idql_func.cli import main
from idql_func.training import offline
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.runs.lock import LOCK


@pytest.fixture
def grid(tmp_path: Path) -> list[str]:
    """The options that make a run of `iql-mujoco` short."""
    write_dataset(tmp_path / "data.hdf5")
    settings = {**short_run(tmp_path, max_steps=3), "learner.hidden-dims": "8 8"}
    return [part for k, v in settings.items() for part in ("--grid", f"{k}={v}")]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "runs").iterdir())


def test_sweep_makes_each_run_once_and_continues_after_an_interruption(
    tmp_path: Path, grid: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["sweep", "iql-mujoco", "--grid", "learner.expectile=0.7,0.8,0.9", *grid]
    assert main([*line, "--seeds", "2", "--dry-run"]) == 0
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 6 and not (tmp_path / "runs").exists()
    assert commands[5].startswith("idql train iql-mujoco ")
    assert commands[5].endswith("--seed 1 --name iql-mujoco-expectile=0.9-seed1")

    assert main(line) == 0
    wanted = [f"iql-mujoco-expectile={x}-seed0" for x in (0.7, 0.8, 0.9)]
    assert names(tmp_path) == wanted
    out = capsys.readouterr().out
    assert "Run 3 of 3" in out and "Returns over seeds" in out and "already finished" not in out
    configs = [RunDirectory(tmp_path / "runs" / name).read_config() for name in wanted]
    assert [(c.learner.keywords()["expectile"], c.seed) for c in configs] == [
        (0.7, 0),
        (0.8, 0),
        (0.9, 0),
    ]
    assert configs[0].cosine_decay and configs[0].learner.keywords()["hidden_dims"] == (8, 8)

    # One run is stopped between its last checkpoint and its summary, another before its first.
    run = RunDirectory(tmp_path / "runs" / wanted[1])
    summary = run.summary.read_bytes()
    run.summary.unlink()
    early = RunDirectory(tmp_path / "runs" / wanted[2])
    early.summary.unlink()
    for path in early.checkpoints.glob("step_*/*"):
        path.unlink()
    for path in early.checkpoints.glob("step_*"):
        path.rmdir()
    killed = RunDirectory(tmp_path / "runs" / wanted[0]).path / LOCK
    killed.write_text("{}")  # left by a process that was killed after the summary
    assert main(line) == 0
    assert capsys.readouterr().out.count("already finished") == 1
    assert not killed.exists()
    again, before = (json.loads(text) for text in (run.summary.read_bytes(), summary))
    assert again["evaluation"] == before["evaluation"]
    assert early.summary.is_file()


def test_sweep_checks_all_settings_before_the_first_run(
    tmp_path: Path, grid: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "iql-mujoco", "--grid", "learner.expectile=0.7,high", *grid]) == 2
    assert "--learner.expectile must be a number, got 'high'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(["sweep", "iql-mujoco", "--grid", "learner.tau=0.1,nan", *grid]) == 2
    assert "learner.tau is nan" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(["sweep", "bc", "--command", "online", *grid]) == 2
    assert "'bc' is a preset of train, not of online" in capsys.readouterr().err
    assert main(["sweep", "mars"]) == 2
    assert "no preset is called 'mars'" in capsys.readouterr().err


def test_run_with_bad_settings_does_not_stop_the_others(
    tmp_path: Path, grid: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["sweep", "iql-mujoco", "--grid", "learner.expectile=1.5,0.9", *grid]
    assert main(line) == 1
    assert names(tmp_path) == ["iql-mujoco-expectile=0.9-seed0"]
    captured = capsys.readouterr()
    assert "error: iql-mujoco-expectile=1.5-seed0: " in captured.err
    rows = [text.split() for text in captured.out.splitlines()]
    assert ["iql-mujoco-expectile=1.5", "failed", "seed", "0"] in rows
    assert main([*line, "--grid", "learner.tau=0.1"]) == 2
    assert "holds a run with other settings (learner.tau)" in capsys.readouterr().err


def test_crash_of_a_run_does_not_stop_the_others(
    tmp_path: Path,
    grid: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Errors other than InputError count too, such as torch's out of memory."""
    train_offline = offline.train_offline

    def failing(config: TrainConfig, **keywords: Any) -> Any:
        if config.seed == 0:
            raise RuntimeError("out of\nmemory")
        return train_offline(config, **keywords)

    monkeypatch.setattr(offline, "train_offline", failing)
    assert main(["sweep", "iql-mujoco", "--seeds", "2", *grid]) == 1
    assert names(tmp_path) == ["iql-mujoco-seed1"]
    assert "error: iql-mujoco-seed0: out of memory\n" in capsys.readouterr().err


def test_presets_are_listed_with_upstreams_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["presets"]) == 0
    text = capsys.readouterr().out
    for part in ("idql train bc ", "idql online redq ", "idql finetune antmaze ", "drq_config.py"):
        assert part in text, part
    assert main(["presets", "antmaze"]) == 0
    text = capsys.readouterr().out
    for part in ("idql train antmaze: ", "idql finetune antmaze: ", "learner.critic_hyperparam"):
        assert part in text, part
    assert "launcher/examples/train_ddpm_iql_offline.py" in text
    assert main(["presets", "td3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["idql online td3"]["learner"]["target_policy_noise"] == 0.2
    assert main(["presets", "mars"]) == 2
    assert "no preset is called 'mars'; there are pointmaze, " in capsys.readouterr().err
