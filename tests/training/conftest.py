"""A dataset and settings so small that a whole run takes a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console
from short_pendulum import SHORT_PENDULUM
from tiny_images import STEPS, TINY_DOT, roll_out

from idql_func import disable_jit
from idql_func.data.hdf5 import write_d4rl_hdf5
from idql_func.training.configs.learners import DDPMIQLConfig
from idql_func.training.configs.offline import DatasetConfig, EvaluationConfig, TrainConfig
from idql_func.training.runs.console import Reporter


@pytest.fixture(scope="session", autouse=True)
def short_pendulum() -> Iterator[None]:
    """Register the environment during the tests."""
    gym.register(SHORT_PENDULUM, "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=10)
    gym.register(TINY_DOT, "tiny_images:TinyDot", max_episode_steps=STEPS)
    yield
    del gym.registry[SHORT_PENDULUM], gym.registry[TINY_DOT]


@pytest.fixture(autouse=True)
def eager(blank_pictures: None) -> Iterator[None]:
    """Disable compilation, which takes time and is tested in other folders."""
    with disable_jit():
        yield


@pytest.fixture(scope="session")
def pendulum_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random transitions of Pendulum's size: 3 observations, 1 action, episodes of 40 steps."""
    rng = np.random.default_rng(0)
    n = 400
    observations = rng.standard_normal((n, 3)).astype(np.float32)
    timeouts = np.arange(n) % 40 == 39
    return write_d4rl_hdf5(
        tmp_path_factory.mktemp("data") / "pendulum.hdf5",
        {
            "observations": observations,
            "next_observations": observations + np.float32(0.1),
            "actions": rng.uniform(-0.9, 0.9, (n, 1)).astype(np.float32),
            "rewards": rng.standard_normal(n).astype(np.float32),
            "terminals": np.zeros(n, bool),
            "timeouts": timeouts,
        },
        {"env": SHORT_PENDULUM},
    )


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twelve episodes of nine steps as images: a saved buffer and an HDF5 file."""
    return roll_out(tmp_path_factory.mktemp("images"))


@pytest.fixture
def tiny(tmp_path: Path, pendulum_file: Path) -> TrainConfig:
    """Twelve updates of a learner with a few hundred weights, without evaluation."""
    return TrainConfig(
        name="tiny",
        runs_dir=tmp_path / "runs",
        batch_size=8,
        max_steps=12,
        log_interval=2,
        checkpoint_interval=5,
        keep_checkpoints=10,
        matmul="strict",
        device="cpu",
        dataset=DatasetConfig(source=str(pendulum_file), rewards="normalize_returns"),
        learner=DDPMIQLConfig(
            critic_hidden_dims=(8,),
            actor_num_blocks=1,
            time_dim=4,
            T=2,
            N=2,
            actor_dropout_rate=0.1,
            decay_steps=100,
        ),
        evaluation=EvaluationConfig(env="none", N=(1, 2), episodes=2, interval_episodes=1),
    )


@pytest.fixture
def quiet() -> Reporter:
    """A reporter that prints nowhere."""
    return Reporter(Console(quiet=True))
