"""A full disk while a command writes: one sentence, no litter, equal once there is room."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from full_disk_process import attempt, line, no_room, problem_with
from killed_process import (
    ENVIRONMENT,
    NEVER,
    commands,
    content,
    differences,
    members,
    spread,
    write_data,
)
from rich.console import Console

from idql_func import disable_jit
from idql_func.files import system
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.seeds.loop import open_members, train_seeds

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("blank_pictures")]

LONG = {
    "train": 16,
    "line": 12,
    "online": 14,
    "finetune": 8,
    "groups": 12,
    "sweep": 10,
    "collect": NEVER,
    "data make": NEVER,
    "evaluate": NEVER,
    "export": NEVER,
}
"""At how many of each command's changes of the disk it gets full; NEVER is more than there are."""


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
    for number, at in enumerate(spread(changes, 6)):
        place = tmp_path / f"full{at}"
        place.mkdir()
        with monkeypatch.context() as patch:
            found = attempt(command, place, at, number % 2 == 1, patch.setattr)
        assert problem_with(found, place, "line") == ""
        assert found["raised"] == "sentence"
        command.again(place)
        assert differences(content(place), content(whole)) == []


def test_a_run_is_complete_without_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_pictures(handle: int, data: memoryview) -> int:
        if ".png." in os.readlink(f"/proc/self/fd/{handle}"):
            raise no_room()
        return os.write(handle, data)

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
@pytest.mark.parametrize("name", LONG)
def test_commands_go_on_once_there_is_room(tmp_path: Path, name: str) -> None:
    if name == "data make":
        pytest.importorskip("gymnasium_robotics")
    script = Path(__file__).with_name("full_disk_process.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "trials", str(LONG[name]), name],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["failures"] == []
    assert name in commands() or found["trials"] == min(found["changes"], LONG[name])
