"""What the tests of every command share: short episodes, no compilation, and how one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gymnasium as gym
import pytest
from tiny_pendulum import ENVIRONMENT

from idql_func import disable_jit
from idql_func.cli import main


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Pendulum with short episodes; compilation, which here only costs time, is off."""
    gym.register(ENVIRONMENT, "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=8)
    with disable_jit():
        yield
    del gym.registry[ENVIRONMENT]


@pytest.fixture(autouse=True)
def undrawn(blank_pictures: None) -> None:
    """Only what a module's tests share is a run with pictures."""


@pytest.fixture
def failure(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """The one line on standard error of a command that must end with status 2."""

    def run(arguments: list[str]) -> str:
        assert main(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0]

    return run
