"""A recording as a Minari dataset; needs the ``minari`` package."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from idql_func.envs import make_env
from idql_func.training.recording import Recording
from idql_func.types import InputError

__all__ = ["write_minari"]


def write_minari(recording: Recording, name: str, overwrite: bool = False) -> Path:
    """Write the episodes of a recording to the local Minari folder.

    Its environment is named in the dataset where that takes actions in [-1, 1] by itself: those of
    a recording are, whatever the environment's own bounds (quirk D14).

    Args:
        recording: with ``next_observations``, which give each episode its last observation.
        name: such as ``pendulum/sac-v0``.
        overwrite: replace a dataset of that name.

    Returns:
        The folder of the dataset.

    Raises:
        ImportError: ``minari`` is not installed.
        InputError: the name is none or taken, or the recording lacks what Minari needs.
    """
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
    except ImportError as error:
        raise ImportError(
            f"a Minari dataset needs a package that is not installed ({error}); install it with "
            "`pip install 'minari[hdf5]'`"
        ) from error
    arrays = recording.arrays
    if "next_observations" not in arrays:
        raise InputError(
            f"{recording.origin} has no 'next_observations', which a Minari dataset needs"
        )
    ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"]) + 1
    starts = np.concatenate([[0], ends[:-1]])
    episodes: list[Any] = [
        EpisodeBuffer(
            id=number,
            observations=np.concatenate(
                [arrays["observations"][start:end], arrays["next_observations"][end - 1 : end]]
            ),  # type: ignore[arg-type]
            actions=arrays["actions"][start:end],  # type: ignore[arg-type]
            rewards=arrays["rewards"][start:end],  # type: ignore[arg-type]
            terminations=arrays["terminals"][start:end],  # type: ignore[arg-type]
            truncations=arrays["timeouts"][start:end],  # type: ignore[arg-type]
        )
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    try:
        if overwrite and name in minari.list_local_datasets():
            minari.delete_dataset(name)
        with warnings.catch_warnings():
            # It warns of each entry for publication that a set of one's own does without.
            warnings.simplefilter("ignore", UserWarning)
            dataset = minari.create_dataset_from_buffers(
                name,
                buffer=episodes,
                env=_spec(recording.env),
                observation_space=_space(arrays["observations"], np.inf),
                action_space=_space(arrays["actions"], 1.0),
                description=f"{recording.origin}; environment {recording.env}, actions in [-1, 1]",
                data_format="hdf5",
            )
    except ValueError as error:
        raise InputError(f"Minari does not take the dataset {name!r}: {error}") from error
    return Path(dataset.storage.data_path).parent


def _space(array: np.ndarray, bound: float) -> gym.spaces.Box:
    return gym.spaces.Box(-bound, bound, array.shape[1:], np.float32)


def _spec(name: str | None) -> Any:
    """The environment that takes these very actions, if there is one."""
    if name is None:
        return None
    env = make_env(name)
    space = env.action_space
    env.close()
    unit = isinstance(space, gym.spaces.Box) and (space.low == -1).all() and (space.high == 1).all()
    return env.spec if unit and name in gym.registry else None
