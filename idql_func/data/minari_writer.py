"""Write recordings in the format that ``minari.load_dataset`` and ``MinariDataset`` read."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from idql_func.boundary import explain_module
from idql_func.data.arrays import check_lengths, named_leaves
from idql_func.data.hdf5_file import create_hdf5
from idql_func.data.minari_format import MAIN_FILE, METADATA_FILE, as_arrays, check_episodes
from idql_func.data.validation import require_fields
from idql_func.files import add_digest, atomic_folder, write_bytes
from idql_func.types import InputError

__all__ = ["episodes_from_transitions", "write_minari_dataset"]

_SPACE_FIELDS = {
    spaces.Box: ("dtype", "shape", "low", "high"),
    spaces.Discrete: ("dtype", "start", "n"),
    spaces.MultiDiscrete: ("dtype", "nvec", "start"),
    spaces.MultiBinary: ("n",),
}
_MINARI_VERSION = "0.5.4"  # the Minari version whose layout is written


def write_minari_dataset(
    folder: str | os.PathLike[str],
    episodes: Sequence[Mapping[str, Any]],
    *,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    dataset_id: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Path:
    """Write episodes as a Minari dataset, atomically.

    Copy or link the folder to ``~/.minari/datasets/<dataset_id>`` so that ``minari.load_dataset``
    finds it by name. Images are stored uncompressed, not as JPEG.

    Args:
        folder: the dataset's folder; an existing Minari dataset is replaced.
        episodes: each with ``observations [T + 1, ...]`` (nested dicts for a ``Dict`` space),
            ``actions [T, ...]``, ``rewards``, ``terminations`` and ``truncations [T]``; see
            :func:`episodes_from_transitions`.
        observation_space: Gymnasium space of the observations (``Box``, ``Discrete``,
            ``MultiBinary``, ``MultiDiscrete`` or ``Dict`` of these).
        action_space: Gymnasium space of the actions.
        dataset_id: Minari's name, ``(namespace/)name-v<number>``. Default: the folder's name, with
            ``-v0`` appended if it has no version.
        attributes: further metadata that JSON can represent, such as ``ref_min_score``,
            ``ref_max_score``, ``algorithm_name``, ``description``, ``env_spec`` (as JSON).

    Returns:
        The folder.

    Raises:
        InputError: if there is no episode, a field is missing, lengths differ, an array does not
            have the shape of its space, the name is invalid, or the folder is not a Minari dataset.

    Example:
        >>> import tempfile
        >>> from gymnasium.spaces import Box
        >>> episode = {
        ...     "observations": np.zeros((3, 2)), "actions": np.zeros((2, 1)),
        ...     "rewards": np.zeros(2), "terminations": [False, True], "truncations": [False] * 2,
        ... }
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     path = write_minari_dataset(
        ...         f"{parent}/toy-v3", [episode], observation_space=Box(-1, 1, (2,)),
        ...         action_space=Box(-1, 1, (1,)),
        ...     )
        ...     path.name, sorted(os.listdir(path / "data"))
        ('toy-v3', ['main_data.hdf5', 'metadata.json'])
    """
    folder = Path(folder)
    if dataset_id is None:
        named = re.search(r"-v\d+$", folder.name) is not None
        dataset_id = folder.name if named else f"{folder.name}-v0"
    if not re.fullmatch(r"(?:[-\w][-\w/]*/)?[-\w]+-v\d+", dataset_id):
        raise InputError(
            f"{dataset_id!r} is not a Minari name; it must look like name-v0 or namespace/name-v0."
        )
    if folder.exists() and not (folder / "data" / METADATA_FILE).is_file():
        raise InputError(f"{folder} exists and is not a Minari dataset; give another folder.")
    spaces_json = {
        "observation_space": json.dumps(_space_json(observation_space)),
        "action_space": json.dumps(_space_json(action_space)),
    }
    arrays = [as_arrays(e) for e in episodes]
    check_episodes(arrays, str(folder))
    for number, episode in enumerate(arrays):
        for name, space in (("observations", observation_space), ("actions", action_space)):
            _check_shapes(episode[name], space, f"{folder}: episode {number}: {name!r}")
    metadata = {
        **(attributes or {}),
        "dataset_id": dataset_id,
        "minari_version": _MINARI_VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": len(arrays),
        "total_steps": sum(len(e["rewards"]) for e in arrays),
        **spaces_json,
    }
    try:
        text = json.dumps(add_digest(metadata))
    except TypeError as error:
        raise InputError(f"{folder}: JSON cannot represent the attributes ({error}).") from None

    with atomic_folder(folder) as temporary:
        (temporary / "data").mkdir(parents=True)
        _write_episodes(temporary / "data" / MAIN_FILE, arrays)
        write_bytes(temporary / "data" / METADATA_FILE, text.encode())
    return folder


def episodes_from_transitions(dataset_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Split consecutive transitions into Minari's episodes.

    An episode ends where ``dones`` is set, and where a next observation differs from the following
    observation. It is terminated where ``masks`` is 0 and truncated otherwise.

    Args:
        dataset_dict: ``observations`` and ``next_observations [N, ...]`` (or nested dicts of them),
            ``actions [N, ...]``, ``rewards``, ``masks`` and ``dones [N]`` in temporal order, such
            as :attr:`idql_func.data.Dataset.dataset_dict`.

    Returns:
        The episodes for :func:`write_minari_dataset`.

    Raises:
        InputError: if a field is missing or lengths differ.

    Example:
        >>> steps = {
        ...     "observations": np.array([[0.0], [1.0], [5.0]]), "actions": np.zeros((3, 1)),
        ...     "next_observations": np.array([[1.0], [2.0], [6.0]]), "rewards": np.ones(3),
        ...     "masks": np.array([1.0, 0.0, 1.0]), "dones": np.array([False, True, False]),
        ... }
        >>> for episode in episodes_from_transitions(steps):
        ...     print(episode["observations"][:, 0], episode["truncations"])
        [0. 1. 2.] [False False]
        [5. 6.] [ True]
    """
    names = ("observations", "next_observations", "actions", "rewards", "masks", "dones")
    require_fields(dataset_dict, names, "episodes_from_transitions: dataset_dict")
    check_lengths({name: dataset_dict[name] for name in names})
    now, after = dataset_dict["observations"], dataset_dict["next_observations"]
    ends = np.asarray(dataset_dict["dones"]).astype(bool)
    ends[-1] = True
    for (_, value), (_, following) in zip(named_leaves(now), named_leaves(after), strict=True):
        differs = value[1:] != following[:-1]
        ends[:-1] |= differs.any(axis=tuple(range(1, differs.ndim)))
    episodes = []
    for start, stop in itertools.pairwise([0, *(np.flatnonzero(ends) + 1).tolist()]):
        rows = slice(start, stop)
        terminations = dataset_dict["masks"][rows] == 0
        truncations = np.zeros(len(terminations), dtype=bool)
        truncations[-1] = not terminations[-1]
        episodes.append({
            "observations": _with_last(now, after, rows),
            "actions": dataset_dict["actions"][rows],
            "rewards": dataset_dict["rewards"][rows],
            "terminations": terminations,
            "truncations": truncations,
        })  # fmt: skip
    return episodes


def _with_last(now: Any, after: Any, rows: slice) -> Any:
    """Return the observations of some rows, followed by the last row's next observation."""
    if isinstance(now, Mapping):
        return {name: _with_last(now[name], after[name], rows) for name in now}
    return np.concatenate([now[rows], after[rows.stop - 1 : rows.stop]])


def _write_episodes(path: Path, episodes: Sequence[Mapping[str, Any]]) -> None:
    size = sum(leaf.nbytes for e in episodes for _, leaf in named_leaves(dict(e)))
    with create_hdf5(path, size, track_order=True) as file:
        for number, episode in enumerate(episodes):
            group = file.create_group(f"episode_{number}")
            group.attrs["id"] = number
            group.attrs["total_steps"] = len(episode["rewards"])
            for name, array in named_leaves(dict(episode)):
                dtype = bool if name in ("terminations", "truncations") else array.dtype
                group.create_dataset(name, data=array.astype(dtype), track_times=False)


def _check_shapes(value: Any, space: Any, where: str) -> None:
    """Raise unless the arrays have the keys and shapes of the space."""
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or value.keys() != space.spaces.keys():
            have = list(value) if isinstance(value, Mapping) else "one array"
            raise InputError(f"{where}: the space has the keys {list(space.spaces)}, got {have}.")
        for name, part in space.spaces.items():
            _check_shapes(value[name], part, f"{where}: {name!r}")
    elif isinstance(value, Mapping) or value.shape[1:] != space.shape:
        have = "a dict" if isinstance(value, Mapping) else f"shape {value.shape[1:]}"
        raise InputError(f"{where}: an element of the space has shape {space.shape}, got {have}.")


def _space_json(space: Any) -> dict[str, Any]:
    """Represent a space as Minari does."""
    if isinstance(space, spaces.Dict):
        return {
            "type": "Dict",
            "subspaces": {name: _space_json(part) for name, part in space.spaces.items()},
        }
    for kind, fields in _SPACE_FIELDS.items():
        if isinstance(space, kind):
            values = {"dtype": str(space.dtype), "shape": list(space.shape)}
            values |= {k: np.asarray(getattr(space, k)).tolist() for k in fields if k not in values}
            return {"type": kind.__name__, **{k: values[k] for k in fields}}
    raise InputError(
        "write_minari_dataset supports Box, Discrete, MultiDiscrete, MultiBinary and Dict spaces, "
        f"not {space!r}."
    )


explain_module(__name__)
