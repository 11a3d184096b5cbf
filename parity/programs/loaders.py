"""Programs of the loaders: recordings in D4RL's and in AWAC's format, and the normaliser."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Settings


def recording(settings: Settings) -> dict[str, np.ndarray]:
    """Consecutive steps as in D4RL's files.

    Some rows move by 0 or by about 1e-6, the gap that separates episodes (quirk D11); some actions
    are at their bounds (quirk D12).
    """
    length, dtype = settings["length"], "float64" if settings.get("wide") else "float32"
    observations = inputs.uniform("d4rl/observations", (length, 3), -2.0, 2.0).astype(dtype)
    for place, row in enumerate(range(20, length, 9)):
        gap = (0.0, 5e-7, 1e-6, 2e-6)[place % 4]
        observations[row] = observations[row - 1] + np.dtype(dtype).type(gap)
    actions = np.clip(inputs.uniform("d4rl/actions", (length, 2), -1.2, 1.2), -1.0, 1.0)
    arrays = {
        "observations": observations,
        "actions": actions.astype(dtype),
        "rewards": inputs.uniform("d4rl/rewards", (length,)).astype(dtype),
        "terminals": inputs.uniform("d4rl/terminals", (length,), 0.0, 1.0) < 0.06,
    }
    if settings.get("timeouts"):
        arrays["timeouts"] = inputs.uniform("d4rl/timeouts", (length,), 0.0, 1.0) < 0.05
    if settings.get("columns"):
        arrays["rewards"] = arrays["rewards"][:, None]
        arrays["terminals"] = arrays["terminals"][:, None].astype(np.uint8)
    return arrays


def _arrays(dataset: Any) -> Outputs:
    out: Outputs = {"arrays/length": np.array(len(dataset))}
    for name, value in dataset.dataset_dict.items():
        # Columns of width 1 stay columns in the original; the port makes vectors of them.
        whole = name in ("observations", "actions", "next_observations")
        out[f"arrays/{name}"] = np.asarray(value) if whole else np.asarray(value).reshape(-1)
    return out


def d4rl(backend: Backend, settings: Settings) -> Outputs:
    """The dataset from a recording, through an object with ``get_dataset()``."""
    arrays = recording(settings)
    source = SimpleNamespace(
        get_dataset=lambda: {name: value.copy() for name, value in arrays.items()},
        _max_episode_steps=settings.get("max_episode_steps"),
    )
    return _arrays(backend.d4rl(source, settings["args"]))


def _demonstrations(lengths: list[int]) -> list[dict[str, Any]]:
    episodes = []
    for number, length in enumerate(lengths):
        tag = f"awac/{number}"
        states = inputs.uniform(f"{tag}/states", (length + 1, 3))
        steps = [{"state_observation": state, "desired": state[:1]} for state in states]
        later = [dict(step) for step in steps[1:]]
        if length > 5:  # a jump within an episode
            later[2]["state_observation"] = states[3] + 1e-3
        actions = np.clip(inputs.uniform(f"{tag}/actions", (length, 2), -1.2, 1.2), -1.0, 1.0)
        rewards = -(inputs.uniform(f"{tag}/rewards", (length + 1,), 0.0, 1.0) < 0.5).astype(float)
        episodes.append(
            {
                "observations": steps[:-1],
                "next_observations": later,
                "actions": list(actions),
                "rewards": rewards,  # one more than there are steps
                "terminals": np.arange(length) == length - 1,
            }
        )
    return episodes


def _clones(lengths: list[int]) -> list[dict[str, Any]]:
    episodes = []
    for number, length in enumerate(lengths):
        tag = f"awac/clone/{number}"
        states = inputs.uniform(f"{tag}/states", (length + 1, 3)).astype(np.float32)
        actions = inputs.uniform(f"{tag}/actions", (length, 2), -1.0, 1.0)
        episodes.append(
            {
                "observations": states[:-1],
                "next_observations": states[1:],
                "actions": actions,
                "rewards": inputs.uniform(f"{tag}/rewards", (length, 1)),
                "terminals": np.zeros((length, 1), bool),
                "env_infos": [{} for _ in range(length)],
            }
        )
    return episodes


def binary(backend: Backend, settings: Settings) -> Outputs:
    """The dataset from demonstrations and behaviour cloning in AWAC's two files."""
    files = {
        "pen2_sparse.npy": _demonstrations(settings["lengths"]),
        "pen_bc_sparse4.npy": _clones(settings["clones"]),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, episodes in files.items():
            array = np.empty(len(episodes), dtype=object)
            array[:] = episodes
            np.save(Path(folder) / name, array, allow_pickle=True)
        return _arrays(backend.binary(Path(folder), "pen-binary", settings["args"]))


def normalised(backend: Backend, settings: Settings) -> Outputs:
    """Observations and actions normalised to mean 0 and deviation 1, and back."""

    def fields(tag: str, size: int) -> dict[str, np.ndarray]:
        observations = inputs.uniform(f"{tag}/observations", (size, 4), -2.0, 5.0)
        actions = inputs.uniform(f"{tag}/actions", (size, 2))
        return {
            "observations": (observations * np.array([1.0, 10.0, 0.1, 3.0])).astype(np.float32),
            "actions": actions.astype(np.float32),
        }

    made = backend.normalised(fields("fitted", settings["size"]), fields("x", settings["batch"]))
    return {f"forward/{name}": np.asarray(value) for name, value in made.items()}
