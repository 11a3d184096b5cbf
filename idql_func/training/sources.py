"""Load the dataset that the settings name: built-in, D4RL, HDF5, Minari or a saved buffer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from idql_func import data, random
from idql_func.data.buffer_file import open_buffer
from idql_func.data.hdf5 import read_d4rl_hdf5
from idql_func.data.hdf5_file import open_hdf5
from idql_func.data.minari_format import find_recording
from idql_func.data.pointmaze import ENV_NAME, make_pointmaze_dataset
from idql_func.data.scores import reference_scores
from idql_func.training.configs.offline import MINARI, DatasetConfig
from idql_func.types import InputError

__all__ = ["Source", "count_transitions", "load_buffer", "load_source", "spaces_of"]

_BUFFERS = ("ReplayBuffer", "MemoryEfficientReplayBuffer")
_EDGE = 1 - 1e-5  # actions are clipped to this, as D4RLDataset does (D12)


@dataclass(frozen=True)
class Source:
    """A loaded dataset and its metadata.

    ``path`` is its file if it has one, ``attributes`` are those of an HDF5 file, the metadata of a
    Minari recording or the environment of a buffer, ``score_name`` is the D4RL name or recording
    whose reference scores normalise its returns, or None.
    """

    dataset: data.Dataset
    path: Path | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    score_name: str | None = None


def load_source(settings: DatasetConfig, progress: bool = False) -> Source:
    """Load or make the dataset that the settings name, without changes to it.

    Args:
        settings: ``source``, ``pointmaze_steps`` and ``pointmaze_seed`` are used. An
            HDF5 file whose ``observations`` are a group (such as ``observations/pixels``) gives a
            dataset with nested observations.
        progress: show a bar while the built-in dataset is made.

    Raises:
        InputError: the file is damaged or holds something else, or the name is unknown.
        FileNotFoundError: there is no such file.
    """
    name, path = settings.source, Path(settings.source)
    if name == ENV_NAME:
        path = make_pointmaze_dataset(
            seed=settings.pointmaze_seed, steps=settings.pointmaze_steps, progress=progress
        )
    elif name.startswith(MINARI) or path.is_dir():
        return _load_minari(name.removeprefix(MINARI))
    elif path.suffix == ".safetensors":
        return Source(load_buffer(path), path, {"env": _env_of_buffer(path)})
    elif path.suffix not in (".hdf5", ".h5") and not path.is_file():
        return Source(data.D4RLDataset(name), None, score_name=_score_name(name))
    dataset = _nested_dataset(path) if _is_nested(path) else data.D4RLDataset(path)
    attributes = read_d4rl_hdf5(path, keys=())[1]
    return Source(dataset, path, attributes, _score_name(name, str(path)))


def count_transitions(dataset: data.Dataset) -> int:
    """The number of transitions, without the rows of an image buffer that are only frames.

    Example:
        >>> count_transitions(data.Dataset({"rewards": np.zeros(3)}))
        3
    """
    if isinstance(dataset, data.MemoryEfficientReplayBuffer):
        return dataset.num_transitions
    return len(dataset)


def spaces_of(dataset: data.Dataset) -> tuple[gym.spaces.Space, gym.spaces.Box]:
    """The spaces of a dataset's observations and actions; bytes and actions are bounded.

    Example:
        >>> dataset = data.Dataset({"observations": np.zeros((2, 3)), "actions": np.zeros((2, 1))})
        >>> [space.shape for space in spaces_of(dataset)]
        [(3,), (1,)]
    """
    # With a separate key, so that the dataset's own key does not change.
    fields = ("observations", "actions")
    row = dataset.sample_torch(1, key=random.PRNGKey(0), keys=fields)
    actions = gym.spaces.Box(-1.0, 1.0, tuple(row["actions"].shape[1:]), np.float32)
    return _observation_space(row["observations"]), actions


def _observation_space(row: Any) -> gym.spaces.Space:
    if isinstance(row, Mapping):
        return gym.spaces.Dict({name: _observation_space(part) for name, part in row.items()})
    shape, dtype = tuple(row.shape[1:]), row.numpy(force=True).dtype
    if dtype == np.uint8:
        return gym.spaces.Box(0, 255, shape, np.uint8)
    return gym.spaces.Box(-np.inf, np.inf, shape, np.float32)


def load_buffer(path: Path) -> data.ReplayBuffer:
    """A saved replay buffer of either class.

    Raises:
        InputError: the file is damaged or holds something else.
    """
    with open_buffer(path) as file:
        name = str(file.description["class"])
    if name not in _BUFFERS:
        raise InputError(f"{path} holds a {name!r}; it must hold one of {', '.join(_BUFFERS)}")
    return getattr(data, name).load(path)


def _load_minari(source: str) -> Source:
    file = find_recording(source)
    dataset = data.MinariDataset(file)
    about = dict(dataset.attributes)
    if "env" not in about and (env := _env_of_minari(about)):
        about["env"] = env
    score_name = None if dataset.reference_scores is None else str(file.parent)
    return Source(dataset, file, about, score_name)


def _env_of_minari(about: Mapping[str, Any]) -> str | None:
    """The environment to evaluate a recording in, if its id describes it completely."""
    try:
        spec = json.loads(about.get("eval_env_spec") or about["env_spec"])
        return None if spec.get("kwargs") else str(spec["id"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _env_of_buffer(path: Path) -> str:
    """The environment of the run that wrote a buffer, else the file's name, as upstream does."""
    config = path.parent.parent / "config.json"
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["env"])
    except (OSError, ValueError, KeyError, TypeError):
        return path.stem


def _is_nested(path: Path) -> bool:
    with open_hdf5(path) as file:
        return file.is_group("observations")


def _nested_dataset(path: Path) -> data.Dataset:
    """Images and vectors from an HDF5 file in D4RL's layout, one group for each observation."""
    arrays, _ = read_d4rl_hdf5(path)
    fields: dict[str, Any] = {}
    for name, array in arrays.items():
        group, _, key = name.partition("/")
        if group in ("observations", "next_observations") and key:
            fields.setdefault(group, {})[key] = array
    missing = [name for name in ("actions", "rewards", "terminals") if name not in arrays]
    if missing:
        raise InputError(f"{path} has no {missing[0]!r}, which a file in D4RL's layout must have")
    terminals = np.asarray(arrays["terminals"], bool)
    dones = terminals | np.asarray(arrays.get("timeouts", np.zeros_like(terminals)), bool)
    dones[-1] = True  # the end of the data ends the last episode, as in D4RLDataset (D11)
    fields["actions"] = np.clip(np.asarray(arrays["actions"], np.float32), -_EDGE, _EDGE)
    fields["rewards"] = np.asarray(arrays["rewards"], np.float32)
    fields["masks"] = 1 - terminals.astype(np.float32)
    fields["dones"] = dones
    return data.Dataset(fields)


def _score_name(*names: str) -> str | None:
    return next((name for name in names if reference_scores(name) is not None), None)
