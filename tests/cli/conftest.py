"""Fixtures of the tests of all commands: short episodes, no compilation, expected failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gymnasium as gym
import pytest
from tiny_pendulum import ENVIRONMENT

from idql_func import disable_jit
from idql_func.cli import main


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Register Pendulum with short episodes, and disable compilation, which only takes time."""
    gym.register(ENVIRONMENT, "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=8)
    with disable_jit():
        yield
    del gym.registry[ENVIRONMENT]


@pytest.fixture(autouse=True)
def without_pictures(blank_pictures: None) -> None:
    """Draw no pictures, except in the fixtures of a module."""


@pytest.fixture
def failure(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Run a command that must end with status 2; return its one line on standard error."""

    def run(arguments: list[str]) -> str:
        assert main(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0]

    return run
