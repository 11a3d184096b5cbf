"""Every command, killed at changes of the disk and continued, leaves what the whole run leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.reliability

SHORT = {"train": 2, "finetune": 2, "groups": 2}
LONG = {
    "train": 32,
    "train compiled": 4,
    "online": 32,
    "finetune": 36,
    "groups": 32,
    "sweep": 20,
    "collect": 28,
    "data make": 20,
}
"""How often each command is killed; every fourth one is killed again while it continues."""


def examine(folder: Path, command: str, kills: int) -> dict[str, object]:
    script = Path(__file__).with_name("killed_process.py")
    done = subprocess.run(
        [sys.executable, script, folder, str(kills), command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", SHORT)
def test_a_killed_command_continues_with_equal_bits(tmp_path: Path, command: str) -> None:
    found = examine(tmp_path / "trials", command, SHORT[command])
    assert found["failures"] == [] and found["kills"] == SHORT[command]


@pytest.mark.slow
@pytest.mark.parametrize("command", LONG)
def test_commands_killed_at_all_places_continue_with_equal_bits(
    tmp_path: Path, command: str
) -> None:
    if command == "data make":
        pytest.importorskip("gymnasium_robotics")
    found = examine(tmp_path / "trials", command, LONG[command])
    print(found)
    assert found["failures"] == []
