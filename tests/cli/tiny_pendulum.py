"""The environment of the command's tests, and a dataset for it."""

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
