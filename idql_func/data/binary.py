"""``BinaryDataset``: the sparse-reward hand tasks of AWAC (``jaxrl5/data/binary_datasets.py``)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from idql_func.data.d4rl import episode_ends
from idql_func.data.dataset import Dataset
from idql_func.data.safe_npy import load_objects
from idql_func.data.validation import check_numeric, validate_transitions
from idql_func.types import InputError

__all__ = ["BinaryDataset"]

_FIELDS = ("observations", "next_observations", "actions", "rewards", "terminals")
_TRAIN_SHARE = 0.9  # AWAC's own split: the last tenth of the episodes is left out


class BinaryDataset(Dataset):
    """Demonstrations, and episodes of behaviour cloning, for pen, door and relocate.

    ``dataset_dict`` holds float32 ``observations [N, O]``, ``next_observations [N, O]``,
    ``actions [N, A]``, ``rewards [N]``, ``masks [N]`` and bool ``dones [N]`` (the last transition
    of each piece of consecutive ones, D11), of the first nine tenths of each file's episodes.

    The files are pickles; they are read by :func:`idql_func.data.safe_npy.load_objects`, which
    runs nothing in them (D19).

    Args:
        source: the demonstrations, such as ``pen2_sparse.npy``; or, as upstream has it, an
            environment (``env.spec.name``) or its name, such as ``"pen-binary-v0"``, whose files
            ``pen2_sparse.npy`` and ``pen_bc_sparse4.npy`` lie in ``data_dir``.
        clip_to_eps: clip the actions to ±(1 - eps) (D12).
        eps: see clip_to_eps; in [0, 1).
        remove_terminals: take no transition for the end of an episode: every mask is 1 (D18).
        include_bc_data: add the episodes of behaviour cloning.
        bc_path: their file. Default: ``pen_bc_sparse4.npy`` beside ``pen2_sparse.npy``.
        data_dir: where the files lie when ``source`` is no file. Default: the environment variable
            ``AWAC_DATA_DIR``, or ``~/.datasets/awac_data`` (upstream's is a folder of its authors'
            cluster).
        seed: as for :class:`~idql_func.data.Dataset`.
        device: as for :class:`~idql_func.data.Dataset`.

    Raises:
        InputError: no such file, a damaged one, one that asks for more than NumPy arrays, missing
            keys, unequal lengths, NaN or infinity, or actions outside [-1, 1] that are not clipped.

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
        if not 0 <= eps < 1:
            raise InputError(f"BinaryDataset: eps must lie in [0, 1), got {eps}.")
        path = _demonstrations(source, data_dir)
        parts = [_expert_arrays(_episodes(path), path)]
        if include_bc_data:
            bc = Path(bc_path) if bc_path is not None else _bc_beside(path)
            parts.append(_bc_arrays(_episodes(bc), bc))
        arrays = {name: _joined([part[name] for part in parts], name, path) for name in _FIELDS}

        if clip_to_eps:  # D12
            arrays["actions"] = np.clip(arrays["actions"], -(1 - eps), 1 - eps)
        terminals = arrays.pop("terminals")
        dones = episode_ends(arrays["observations"], arrays["next_observations"], terminals == 1.0)
        if remove_terminals:  # D18
            terminals = np.zeros_like(terminals)
        arrays["masks"] = 1 - terminals
        arrays["dones"] = dones
        validate_transitions(arrays, where=str(path))
        super().__init__(arrays, seed=seed, device=device)


def _demonstrations(source: Any, data_dir: str | os.PathLike[str] | None) -> Path:
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
                "BinaryDataset: source must be a .npy file, or an environment or its name, got "
                f"{type(source).__name__}."
            )
    folder = data_dir or os.environ.get("AWAC_DATA_DIR") or "~/.datasets/awac_data"
    return Path(folder).expanduser() / f"{name.split('-')[0]}2_sparse.npy"


def _bc_beside(path: Path) -> Path:
    prefix, found, _ = path.name.partition("2_sparse")
    if not found:
        raise InputError(
            f"BinaryDataset: the file of behaviour cloning that goes with {path.name} is not "
            "known; give it as bc_path, or pass include_bc_data=False."
        )
    return path.with_name(f"{prefix}_bc_sparse4.npy")


def _episodes(path: Path) -> Sequence[Mapping[str, Any]]:
    """The first nine tenths of the file's episodes."""
    loaded = load_objects(path)
    if loaded.ndim != 1 or not all(isinstance(episode, dict) for episode in loaded):
        raise InputError(f"{path} holds no list of episodes, each a dict of arrays.")
    kept = loaded[: int(_TRAIN_SHARE * len(loaded))]
    if len(kept) == 0:
        raise InputError(f"{path} holds {len(loaded)} episodes; at least two are needed.")
    for number, episode in enumerate(kept):
        if missing := [name for name in _FIELDS if name not in episode]:
            raise InputError(
                f"{path}: episode {number} lacks {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(repr, episode))}."
            )
    return kept


def _expert_arrays(episodes: Sequence[Mapping[str, Any]], path: Path) -> dict[str, np.ndarray]:
    def states(episode: Mapping[str, Any], name: str) -> np.ndarray:
        try:
            return np.vstack([step["state_observation"] for step in episode[name]])
        except (KeyError, TypeError, ValueError, IndexError):
            raise InputError(
                f"{path}: {name!r} of an episode is no list of dicts with 'state_observation'."
            ) from None

    columns = {name: [states(e, name) for e in episodes] for name in _FIELDS[:2]}
    columns["actions"] = [np.vstack(list(e["actions"])) for e in episodes]
    # one reward more than there are steps, which rlkit leaves out too
    columns["rewards"] = [np.asarray(e["rewards"])[:-1] for e in episodes]
    columns["terminals"] = [np.asarray(e["terminals"]) for e in episodes]
    return {name: _joined(column, name, path) for name, column in columns.items()}


def _bc_arrays(episodes: Sequence[Mapping[str, Any]], path: Path) -> dict[str, np.ndarray]:
    return {name: _joined([np.asarray(e[name]) for e in episodes], name, path) for name in _FIELDS}


def _joined(pieces: Sequence[np.ndarray], name: str, path: Path) -> np.ndarray:
    """One after the other in float32: ``[N, n]``, and ``[N]`` for rewards and terminals."""
    for piece in pieces:
        check_numeric(piece, name, str(path))
    try:
        with np.errstate(over="ignore"):  # a float64 too large is reported as infinite
            whole = np.concatenate(pieces, dtype=np.float32, casting="same_kind")
    except ValueError as error:
        raise InputError(f"{path}: the episodes' {name!r} do not fit together ({error}).") from None
    return whole.reshape(len(whole)) if name in _FIELDS[3:] and whole.size == len(whole) else whole
