"""Every command, killed at changes of the disk and continued, leaves what the whole run leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trials import AtMost, Tally

pytestmark = pytest.mark.reliability

SHORT = {"train": 2, "finetune": 2, "groups": 2}
BOUNDED = {
    "train compiled": 12,
    "finetune": 24,
    "groups": 24,
    "sweep": 20,
    "train": 28,
    "online": 28,
    "collect": 24,
    "data make": 24,
}
"""How often each command is killed; every fourth one is killed again while it continues."""


@pytest.mark.parametrize("command", SHORT)
def test_a_killed_command_continues_with_equal_bits(
    tmp_path: Path, command: str, trial_server: Callable[..., Any]
) -> None:
    found = trial_server("kills", command, tmp_path, SHORT[command])
    assert found["failures"] == [] and found["counts"]["kills"] == SHORT[command]


@pytest.mark.slow
@pytest.mark.parametrize("command", BOUNDED)
def test_commands_killed_at_all_places_continue_with_equal_bits(
    tmp_path: Path, command: str, trial_server: Callable[..., Any], at_most: AtMost, tally: Tally
) -> None:
    if command == "data make":
        pytest.importorskip("gymnasium_robotics")
    found = trial_server("kills", command, tmp_path, at_most(BOUNDED[command]))
    tally("kills", command, found["counts"])
    assert found["failures"] == []
    assert found["counts"]["kills"] >= found["counts"]["trials"] == found["counts"]["equal"]
