"""A run's folder: names, and that nothing is overwritten silently."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from idql_func.training.configs.offline import TrainConfig
from idql_func.training.runs.checkpoint import METADATA, TENSORS
from idql_func.training.runs.directory import (
    RunDirectory,
    choose_run_directory,
    open_run_directory,
)
from idql_func.types import InputError


def config(tmp_path: Path, name: str | None) -> TrainConfig:
    return TrainConfig(runs_dir=tmp_path, name=name, seed=4)


def start(run: RunDirectory, settings: TrainConfig) -> None:
    run.path.mkdir(parents=True)
    run.write_config(settings)


def add_checkpoint(run: RunDirectory, number: int) -> None:
    run.checkpoint(number).mkdir(parents=True)
    for name in (METADATA, TENSORS):
        (run.checkpoint(number) / name).touch()


def test_unnamed_runs_are_numbered(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        run = choose_run_directory(config(tmp_path, None))
        assert not run.path.exists()
        start(run, config(tmp_path, None))
        names.append(run.path.name)
    assert names == ["pointmaze-seed4", "pointmaze-seed4-2", "pointmaze-seed4-3"]


@pytest.mark.parametrize(("finished", "word"), [(True, "a finished"), (False, "an unfinished")])
def test_named_run_is_not_overwritten_without_overwrite(
    tmp_path: Path, finished: bool, word: str
) -> None:
    run = choose_run_directory(config(tmp_path, "mine"))
    start(run, config(tmp_path, "mine"))
    if finished:
        run.summary.write_text("{}")
    with pytest.raises(InputError, match=f"mine already holds {word} run: .* --resume"):
        choose_run_directory(config(tmp_path, "mine"))
    again = choose_run_directory(config(tmp_path, "mine"), overwrite=True)
    assert run.config.exists()
    again.discard()
    assert list(again.path.iterdir()) == []


def test_folder_that_is_not_a_run_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="something other than a run"):
        choose_run_directory(config(tmp_path, "mine"), overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        choose_run_directory(config(tmp_path, "file"))


def test_open_run_directory_accepts_folder_and_checkpoint(tmp_path: Path) -> None:
    run = choose_run_directory(config(tmp_path, "mine"))
    start(run, config(tmp_path, "mine"))
    run.checkpoint(7).mkdir(parents=True)
    for path in (run.path, run.checkpoints, run.checkpoint(7)):
        found = open_run_directory(path)
        assert found == run and found.read_config() == config(tmp_path, "mine")
    with pytest.raises(FileNotFoundError, match=r"no config\.json in it"):
        open_run_directory(tmp_path / "..")


def test_damaged_settings_raise_with_the_file(tmp_path: Path) -> None:
    run = choose_run_directory(config(tmp_path, "mine"))
    start(run, config(tmp_path, "mine"))
    run.config.write_text('{"bogus": 1}')
    with pytest.raises(InputError, match=r"config.json: no setting is called 'bogus'"):
        run.read_config()
    run.config.write_text('{"seed": ')
    with pytest.raises(InputError, match=r"config.json is damaged"):
        run.read_config()


def test_old_and_discarded_checkpoints_are_removed(tmp_path: Path) -> None:
    run = choose_run_directory(config(tmp_path, "mine"))
    start(run, config(tmp_path, "mine"))
    for updates in (5, 10, 15, 1_000_000_000):
        add_checkpoint(run, updates)
    run.checkpoint(12).mkdir()  # half a checkpoint
    run.discard_after(15)
    run.prune_checkpoints(keep=2)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step_000000010", "step_000000015"]
    assert dataclasses.asdict(run) == {"path": tmp_path / "mine"}


def test_state_of_a_folder_follows_its_files(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "mine")
    states = [run.state]
    run.path.mkdir()
    (run.path / ".config.json.0123456789ab.part").touch()
    states.append(run.state)
    (run.path / "notes.txt").touch()
    states.append(run.state)
    run.write_config(config(tmp_path, "mine"))
    states.append(run.state)
    run.checkpoint(5).mkdir(parents=True)
    states.append(run.state)
    for number in (5, 20_000):
        (run.checkpoint(number)).mkdir(parents=True, exist_ok=True)
        for name in (METADATA, TENSORS):
            (run.checkpoint(number) / name).touch()
        states.append(run.state)
    run.summary.write_text("{}")
    states.append(run.state)
    assert states == [
        *("absent", "absent", "foreign", "started", "started"),
        *("training", "evaluating", "finished"),
    ]


def test_group_is_resumable_when_all_members_have_a_checkpoint(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "group")
    start(run, config(tmp_path, "group"))
    run.members.write_text('{"members": ["seed0", "seed1"]}')
    add_checkpoint(RunDirectory(run.path / "seed0"), 5)
    assert (run.state, run.member_names()) == ("started", ["seed0", "seed1"])
    add_checkpoint(RunDirectory(run.path / "seed1"), 5)
    assert run.state == "training" and run.is_resumable
    RunDirectory(run.path / "seed1").summary.write_text("{}")  # the group's own decides
    assert run.state == "training"
    run.members.write_text("[]")
    assert run.state == "started"
    with pytest.raises(InputError, match=r"members\.json is damaged"):
        run.member_names()
