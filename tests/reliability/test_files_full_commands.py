"""A full disk while a command writes: one sentence, no litter, equal once there is room."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from full_disk_process import attempt, line, no_room, problem_with
from killed_process import (
    ENVIRONMENT,
    NEVER,
    content,
    differences,
    finetuned,
    members,
    quiet,
    write_data,
)
from rich.console import Console
from trials import ALL, AtMost, Tally, spread

from idql_func import disable_jit
from idql_func.files import system
from idql_func.training.finetune import finetune
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.seeds.loop import open_members, train_seeds

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("blank_pictures")]

BOUNDED = {
    "finetune": 8,
    "train": 16,
    "line": 12,
    "online": 14,
    "groups": 12,
    "sweep": 10,
    "collect": ALL,
    "data make": ALL,
    "evaluate": ALL,
    "export": ALL,
}
"""At how many of each command's changes of the disk it gets full."""


@pytest.fixture(autouse=True)
def small(tmp_path: Path) -> Iterator[None]:
    """Eager, in episodes of six steps."""
    gym.register(ENVIRONMENT, "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=6)
    write_data(tmp_path / "data.hdf5")
    with disable_jit():
        yield
    del gym.registry[ENVIRONMENT]


def test_a_run_goes_on_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, whole = line(), tmp_path / "whole"
    whole.mkdir()
    with monkeypatch.context() as patch:
        changes = attempt(command, whole, NEVER, replace=patch.setattr)["count"]
    for number, at in enumerate(spread(range(1, changes + 1), 6)):
        place = tmp_path / f"full{at}"
        place.mkdir()
        with monkeypatch.context() as patch:
            found = attempt(command, place, at, number % 2 == 1, patch.setattr)
        assert problem_with(found, place, "line") == ""
        assert found["raised"] == "sentence"
        command.again(place)
        assert differences(content(place), content(whole)) == []


def no_pictures(handle: int, data: memoryview) -> int:
    if ".png." in os.readlink(f"/proc/self/fd/{handle}"):
        raise no_room()
    return os.write(handle, data)


def test_pictures_of_the_offline_phase_are_drawn_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(system, "write", no_pictures)
        run = finetune(finetuned(tmp_path / "full"), reporter=quiet()).run
    (run.path / "learning_curve.png").touch()
    assert run.state == "finished" and not run.is_complete
    finetune(finetuned(tmp_path / "full"), resume=run.path, reporter=quiet())
    assert run.is_complete and (run.path / "offline" / "learning_curve.png").is_file()


def test_a_run_is_complete_without_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(folder: Path, resume: Path | None = None) -> tuple[RunDirectory, str]:
        said = io.StringIO()
        configs = members(folder) if resume is None else open_members(resume)
        reporter = Reporter(Console(file=said, width=1000))
        return train_seeds(configs, resume=resume, reporter=reporter).run, said.getvalue()

    whole, _ = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(system, "write", no_pictures)
        run, said = train(tmp_path / "full")
    warned = re.findall(r"\S+learning_curve.png could not be written: No space .*", said)
    assert len(warned) == 3  # two members and the group
    assert all(text.endswith(f", then draw it with --resume {run.path}") for text in warned)
    assert run.state == "finished" and not run.is_complete
    assert not [*run.path.rglob("*.png")] and not [*run.path.rglob(".*")]
    train(tmp_path / "full", run.path)
    assert run.is_complete
    assert differences(content(run.path), content(whole.path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDED)
def test_commands_go_on_once_there_is_room(
    tmp_path: Path, name: str, trial_server: Callable[..., Any], at_most: AtMost, tally: Tally
) -> None:
    if name == "data make":
        pytest.importorskip("gymnasium_robotics")
    found = trial_server("full disk", name, tmp_path / "of_server", at_most(BOUNDED[name]))
    tally("full disk", name, found["counts"])
    assert found["failures"] == []
    trials = min(found["changes"], at_most(BOUNDED[name]))
    assert found["counts"]["equal"] == found["counts"]["trials"] == trials
