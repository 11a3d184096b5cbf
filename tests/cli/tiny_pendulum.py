"""The environment of the command's tests, a dataset for it, and options of short runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from idql_func.data.hdf5 import write_d4rl_hdf5

ENVIRONMENT = "EightStepPendulum-v0"
"""Pendulum with episodes of 8 steps; ``conftest.py`` registers it."""


def write_dataset(path: Path) -> Path:
    """120 random transitions of Pendulum's size, in episodes of 20."""
    rng = np.random.default_rng(1)
    n = 120
    fields = {
        "observations": rng.standard_normal((n, 3)).astype(np.float32),
        "next_observations": rng.standard_normal((n, 3)).astype(np.float32),
        "actions": rng.uniform(-0.9, 0.9, (n, 1)).astype(np.float32),
        "rewards": rng.standard_normal(n).astype(np.float32),
        "terminals": np.arange(n) % 20 == 19,
        "timeouts": np.zeros(n, bool),
    }
    return write_d4rl_hdf5(path, fields, {"env": ENVIRONMENT})


def short_run(folder: Path, **more: object) -> dict[str, object]:
    """Options by name that make a run on the dataset in the folder short."""
    return {
        "dataset.source": folder / "data.hdf5",
        "runs-dir": folder / "runs",
        "batch-size": 4,
        "matmul": "strict",
        "device": "cpu",
        "evaluation.episodes": 2,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


def as_line(options: dict[str, object]) -> list[str]:
    """Options as the words of a command line."""
    return [part for k, v in options.items() for part in (f"--{k}", *str(v).split())]
