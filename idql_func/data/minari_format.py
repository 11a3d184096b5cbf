"""Read recordings in Minari's format, without the ``minari`` package.

The format (Minari 0.4 and later, HDF5): ``data/main_data.hdf5`` has one group ``episode_<i>`` an
episode with ``observations [T + 1, ...]`` (groups for ``Dict`` and ``Tuple`` spaces), ``actions [T,
...]``, ``rewards``, ``terminations`` and ``truncations [T]``; ``data/metadata.json`` has the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from idql_func.data.arrays import named_leaves
from idql_func.data.hdf5_file import Column, open_hdf5
from idql_func.data.validation import check_numeric, require_fields
from idql_func.files import check_digest, read_json
from idql_func.types import InputError

__all__ = [
    "MAIN_FILE",
    "METADATA_FILE",
    "as_arrays",
    "check_episodes",
    "find_recording",
    "read_metadata",
    "read_minari",
]

MAIN_FILE = "main_data.hdf5"
METADATA_FILE = "metadata.json"
_VECTORS = ("rewards", "terminations", "truncations")
_FIELDS = ("observations", "actions", *_VECTORS)


def read_minari(
    source: str | os.PathLike[str] | Any,
) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """Read the episodes and the metadata of a Minari recording.

    Args:
        source: as for :class:`idql_func.data.MinariDataset`.

    Returns:
        ``(episodes, metadata, where)``: the arrays of each episode, with nested dicts for ``Dict``
        and ``Tuple`` spaces; the metadata; and the file, for messages.

    Raises:
        InputError: as for :class:`idql_func.data.MinariDataset`.

    Example:
        >>> read_minari("no/such-v0")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: 'no/such-v0' is neither a folder nor the name of a recording \
in Minari's folder; give a path, or fetch it with `minari download no/such-v0`.
    """
    iterate: Any = getattr(source, "iterate_episodes", None)
    if callable(iterate):
        where = type(source).__name__
        stored: Any = iterate()
        episodes = [{k: as_arrays(getattr(e, k)) for k in _FIELDS} for e in stored]
        metadata = dict(getattr(getattr(source, "storage", None), "metadata", {}))
    elif isinstance(source, (str, os.PathLike)):
        file = find_recording(source)
        where = str(file)
        metadata = read_metadata(file.with_name(METADATA_FILE))
        episodes = list(_file_episodes(file))
    else:
        raise TypeError(
            "MinariDataset: source must be a folder, a Minari name or an object with "
            f"iterate_episodes(), got {type(source).__name__}."
        )
    check_episodes(episodes, where)
    return episodes, metadata, where


def check_episodes(episodes: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raise unless the episodes have the form that :func:`read_minari` returns.

    Raises:
        InputError: if there is no episode, a field is missing or not numeric, or lengths differ.

    Example:
        >>> check_episodes([{"rewards": np.zeros(2)}], "a.hdf5")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.hdf5: episode 0 lacks 'observations', 'actions', \
'terminations', 'truncations'; it has 'rewards'.
    """
    if not episodes:
        raise InputError(f"{where}: there is no episode; at least one is needed.")
    for number, episode in enumerate(episodes):
        _check_episode(episode, f"{where}: episode {number}")


def find_recording(source: str | os.PathLike[str]) -> Path:
    """Find the HDF5 file of a recording in Minari's format.

    Args:
        source: its folder, its ``data`` folder, the file itself, or its Minari name.

    Raises:
        InputError: if there is none, or its format is not HDF5.
    """
    path = Path(source).expanduser()
    if not path.exists():
        configured = os.environ.get("MINARI_DATASETS_PATH")
        root = Path(configured) if configured else Path.home() / ".minari" / "datasets"
        if path.is_absolute() or not (root / path / "data").is_dir():
            raise InputError(
                f"{os.fspath(source)!r} is neither a folder nor the name of a recording in "
                f"Minari's folder; give a path, or fetch it with `minari download "
                f"{os.fspath(source)}`."
            )
        path = root / path
    if path.is_file():
        return path
    for folder in (path / "data", path):
        if (folder / MAIN_FILE).is_file():
            return folder / MAIN_FILE
        if (folder / METADATA_FILE).is_file():
            kind = read_metadata(folder / METADATA_FILE).get("data_format")
            raise InputError(
                f"{folder} is a Minari recording in the format {kind!r}; pass "
                "minari.load_dataset(...) instead of the folder."
            )
    raise InputError(f"{path} is not a Minari recording; it has no data/{MAIN_FILE}.")


def read_metadata(path: Path) -> dict[str, Any]:
    """Read a ``metadata.json``; an HDF5 file alone has none and gives an empty dict.

    Raises:
        InputError: if it is damaged.
    """
    if not path.is_file():
        return {}
    metadata = read_json(path, "the metadata of a Minari recording")
    if not isinstance(metadata, dict):
        raise InputError(f"{path} is damaged: it must hold a JSON object.")
    try:
        check_digest(metadata, str(path))
    except InputError:
        raise InputError(
            f"{path} is damaged, or was edited: its values do not match its entry 'digest'; delete "
            "this entry to use them as they are."
        ) from None
    return {name: value for name, value in metadata.items() if name != "digest"}


def _file_episodes(path: Path) -> Iterator[dict[str, Any]]:
    with open_hdf5(path, "the HDF5 file of a Minari recording") as file:
        episodes: dict[int, dict[str, Any]] = {}
        for name, column in file.columns(every=True).items():
            group, _, inner = name.partition("/")
            number = group.removeprefix("episode_")
            if number.isdecimal() and inner.partition("/")[0] in _FIELDS:
                episodes.setdefault(int(number), {})[inner] = column
        for number in sorted(episodes):
            episode: dict[str, Any] = {}
            for name, column in episodes[number].items():
                *groups, last = name.split("/")
                level = episode
                for group in groups:
                    level = level.setdefault(group, {})
                level[last] = _read(column, f"{path}: episode_{number}/{name}")
            yield episode


def _read(column: Column, where: str) -> np.ndarray:
    array = column[()] if column.dtype.kind in "biufc" else None
    if array is None or _is_jpeg(array):
        raise InputError(
            f"{where} holds JPEG images; pass minari.load_dataset(...), which decodes them."
        )
    return array


def _is_jpeg(array: np.ndarray) -> bool:
    start = array[0][:3] if array.dtype == np.uint8 and array.ndim == 2 and len(array) else b""
    return bytes(start) == b"\xff\xd8\xff"


def as_arrays(value: Any) -> Any:
    """Convert to nested dicts of arrays; tuples become dicts with Minari's keys.

    Example:
        >>> as_arrays({"a": ([1], [2])})
        {'a': {'_index_0': array([1]), '_index_1': array([2])}}
    """
    if isinstance(value, tuple):
        return {f"_index_{i}": as_arrays(part) for i, part in enumerate(value)}
    if isinstance(value, Mapping):
        return {name: as_arrays(part) for name, part in value.items()}
    return np.asarray(value)


def _check_episode(episode: Mapping[str, Any], where: str) -> None:
    require_fields(episode, _FIELDS, where)
    for name in ("actions", *_VECTORS):
        if isinstance(episode[name], Mapping):
            raise InputError(f"{where}: {name!r} is a dict; it must be one array.")
    for name, leaf in named_leaves(dict(episode)):
        check_numeric(leaf, name, where)
    steps = len(episode["rewards"])
    for name in _FIELDS:
        expected = steps + (name == "observations")
        for path, leaf in named_leaves(episode[name], name):
            if len(leaf) != expected or (name in _VECTORS and leaf.ndim != 1):
                raise InputError(
                    f"{where}: {path!r} has shape {leaf.shape}; it must have {expected} rows for "
                    f"{steps} rewards{'' if expected == steps else ', one more than steps'}."
                )
