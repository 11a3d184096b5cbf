"""``BinaryDataset``: the sparse-reward hand tasks of AWAC (``jaxrl5/data/binary_datasets.py``)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from idql_func.boundary import explained_methods
from idql_func.data.d4rl import episode_ends
from idql_func.data.dataset import Dataset
from idql_func.data.safe_npy import load_objects
from idql_func.data.validation import (
    check_loader_options,
    check_numeric,
    clip_actions,
    require_fields,
    validate_transitions,
)
from idql_func.types import InputError

__all__ = ["BinaryDataset"]

_FIELDS = ("observations", "next_observations", "actions", "rewards", "terminals")
_TRAIN_SHARE = 0.9  # AWAC's split: the last tenth of the episodes is not used


@explained_methods("__init__", strict=False)
class BinaryDataset(Dataset):
    """Demonstrations and behaviour-cloning episodes for pen, door and relocate.

    ``dataset_dict`` holds the arrays of :class:`~idql_func.data.D4RLDataset` for the first nine
    tenths of each file's episodes.

    The files are pickles; :func:`idql_func.data.safe_npy.load_objects` reads them without executing
    code from them (D19).

    Args:
        source: the file of demonstrations, such as ``pen2_sparse.npy``; or, as upstream, an
            environment (``env.spec.name``) or its name, such as ``"pen-binary-v0"``, whose files
            ``pen2_sparse.npy`` and ``pen_bc_sparse4.npy`` are in ``data_dir``.
        remove_terminals: treat no transition as terminal: every mask is 1 (D18).
        include_bc_data: add the behaviour-cloning episodes.
        bc_path: their file. Default: ``pen_bc_sparse4.npy`` in the folder of ``pen2_sparse.npy``.
        data_dir: folder of the files when ``source`` is not a file. Default: the environment
            variable ``AWAC_DATA_DIR``, or ``~/.datasets/awac_data`` (upstream: a folder of its
            authors' cluster).

    The other arguments are those of :class:`~idql_func.data.D4RLDataset`.

    Raises:
        InputError: if a file does not exist, is damaged or needs more than NumPy arrays; if keys
            are missing or lengths differ; if a value is NaN or infinite; or if an action outside
            [-1, 1] is not clipped.

    Example:
        >>> import tempfile
        >>> state = [{"state_observation": np.full(2, float(t))} for t in range(4)]
        >>> episode = {
        ...     "observations": state[:3], "next_observations": state[1:], "rewards": np.zeros(4),
        ...     "actions": np.zeros((3, 1)), "terminals": np.array([False, False, True]),
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/pen2_sparse.npy", np.array([episode] * 10, dtype=object))
        ...     ds = BinaryDataset(f"{folder}/pen2_sparse.npy", include_bc_data=False)
        >>> len(ds), ds.dataset_dict["masks"][:3], ds.dataset_dict["dones"][:3]
        (27, array([1., 1., 1.], dtype=float32), array([False, False,  True]))
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Any,
        clip_to_eps: bool = True,
        eps: float = 1e-5,
        remove_terminals: bool = True,
        include_bc_data: bool = True,
        *,
        bc_path: str | os.PathLike[str] | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        device: Any = "cpu",
    ):
        check_loader_options("BinaryDataset", eps)
        path = _demonstration_path(source, data_dir)
        parts = [_expert_arrays(_episodes(path), path)]
        if include_bc_data:
            bc = Path(bc_path) if bc_path is not None else _default_bc_path(path)
            parts.append(_bc_arrays(_episodes(bc), bc))
        arrays = {
            name: _concatenate([part[name] for part in parts], name, path) for name in _FIELDS
        }

        if clip_to_eps:  # D12
            arrays["actions"] = clip_actions(arrays["actions"], clip_to_eps, eps)
        terminals = arrays.pop("terminals")
        dones = episode_ends(arrays["observations"], arrays["next_observations"], terminals == 1.0)
        arrays["masks"] = np.ones_like(terminals) if remove_terminals else 1 - terminals  # D18
        arrays["dones"] = dones
        validate_transitions(arrays, where=str(path))
        super().__init__(arrays, seed=seed, device=device)


def _demonstration_path(source: Any, data_dir: str | os.PathLike[str] | None) -> Path:
    if isinstance(source, (str, os.PathLike)):
        path = Path(source).expanduser()
        if path.suffix == ".npy" or path.exists() or len(path.parts) > 1:
            return path
        name = os.fspath(source)
    else:
        spec = getattr(source, "spec", None)
        name = getattr(spec, "name", None)
        if name is None:
            raise TypeError(
                "BinaryDataset: source must be a .npy file, an environment or its name, got "
                f"{type(source).__name__}."
            )
    folder = data_dir or os.environ.get("AWAC_DATA_DIR") or "~/.datasets/awac_data"
    return Path(folder).expanduser() / f"{name.split('-')[0]}2_sparse.npy"


def _default_bc_path(path: Path) -> Path:
    prefix, found, _ = path.name.partition("2_sparse")
    if not found:
        raise InputError(
            f"BinaryDataset: {path.name} has no known file of behaviour-cloning episodes; give "
            "it as bc_path, or pass include_bc_data=False."
        )
    return path.with_name(f"{prefix}_bc_sparse4.npy")


def _episodes(path: Path) -> Sequence[Mapping[str, Any]]:
    """The first nine tenths of the file's episodes."""
    loaded = load_objects(path)
    if loaded.ndim != 1 or not all(isinstance(episode, dict) for episode in loaded):
        raise InputError(f"{path} must hold a list of episodes, each a dict of arrays.")
    kept = loaded[: int(_TRAIN_SHARE * len(loaded))]
    if len(kept) == 0:
        raise InputError(f"{path} holds {len(loaded)} episodes; at least two are needed.")
    for number, episode in enumerate(kept):
        require_fields(episode, _FIELDS, f"{path}: episode {number}")
    return kept


def _expert_arrays(episodes: Sequence[Mapping[str, Any]], path: Path) -> dict[str, np.ndarray]:
    def states(episode: Mapping[str, Any], name: str) -> np.ndarray:
        try:
            return np.vstack([step["state_observation"] for step in episode[name]])
        except (KeyError, TypeError, ValueError, IndexError):
            raise InputError(
                f"{path}: {name!r} of an episode must be a list of dicts with 'state_observation'."
            ) from None

    columns = {name: [states(e, name) for e in episodes] for name in _FIELDS[:2]}
    columns["actions"] = [np.vstack(list(e["actions"])) for e in episodes]
    # the last reward belongs to no step; rlkit leaves it out too
    columns["rewards"] = [np.asarray(e["rewards"])[:-1] for e in episodes]
    columns["terminals"] = [np.asarray(e["terminals"]) for e in episodes]
    return {name: _concatenate(column, name, path) for name, column in columns.items()}


def _bc_arrays(episodes: Sequence[Mapping[str, Any]], path: Path) -> dict[str, np.ndarray]:
    return {
        name: _concatenate([np.asarray(e[name]) for e in episodes], name, path) for name in _FIELDS
    }


def _concatenate(parts: Sequence[np.ndarray], name: str, path: Path) -> np.ndarray:
    """Concatenate in float32 to ``[N, n]``, or to ``[N]`` for rewards and terminals."""
    for part in parts:
        check_numeric(part, name, str(path))
    try:
        with np.errstate(over="ignore"):  # a float64 too large for float32 is reported as infinite
            whole = np.concatenate(parts, dtype=np.float32, casting="same_kind")
    except ValueError as error:
        raise InputError(f"{path}: {name!r} of the episodes cannot be joined ({error}).") from None
    return whole.reshape(len(whole)) if name in _FIELDS[3:] and whole.size == len(whole) else whole
