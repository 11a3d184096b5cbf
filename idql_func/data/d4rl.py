"""``D4RLDataset``: transitions from D4RL's recordings (``jaxrl5/data/d4rl_datasets.py``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from idql_func.data.d4rl_names import D4RL_NAMES, D4RLName, similar_names
from idql_func.data.dataset import Dataset
from idql_func.data.download import download_hdf5
from idql_func.data.hdf5 import read_d4rl_hdf5
from idql_func.data.scores import ReferenceScores, attribute_scores
from idql_func.data.validation import (
    check_actions,
    check_finite,
    check_numeric,
    validate_transitions,
)
from idql_func.types import InputError

__all__ = ["D4RLDataset", "d4rl_cache_dir", "episode_ends", "qlearning_arrays"]

_KEYS = ("observations", "actions", "rewards", "terminals")


class D4RLDataset(Dataset):
    """The transitions of a D4RL recording, as upstream's class gives them.

    ``dataset_dict`` holds float32 ``observations [N, O]``, ``actions [N, A]``,
    ``next_observations [N, O]``, ``rewards [N]``, ``masks [N]`` (0 where the episode really ended)
    and bool ``dones [N]`` (the last transition of each piece of consecutive ones, D11).

    Args:
        source: an HDF5 file in D4RL's format; or a D4RL name, whose file is taken from the folder
            ``D4RL_DATASET_DIR`` (default ``~/.d4rl/datasets``) or downloaded to it; or an object
            with ``get_dataset()``, such as an environment of the ``d4rl`` package.
        clip_to_eps: clip the actions to ±(1 - eps) (D12).
        eps: see clip_to_eps; in [0, 1).
        max_episode_steps: the length at which the environment cuts an episode; needed only for a
            recording without ``timeouts``, and there only if neither the D4RL name, the file's
            attribute ``max_episode_steps`` nor the object (``_max_episode_steps``) tells it.
        seed: as for :class:`~idql_func.data.Dataset`.
        device: as for :class:`~idql_func.data.Dataset`.
        out_of_range: what to do with actions further than a rounding error outside [-1, 1]:
            ``"error"``, or ``"clip"`` them without a word as upstream does.

    Attributes:
        name: the D4RL name, if that was the source.
        attributes: root attributes of the file, empty for an object.
        reference_scores: what 0 and 100 on D4RL's scale stand for, or None if not known.

    Raises:
        InputError: no such file or name, no download, no or a damaged HDF5 file, missing keys,
            wrong shapes or dtypes, unequal lengths, NaN or infinity, actions outside [-1, 1], no
            transition left, or an episode length that is needed and not known. (Upstream takes any
            failure for a missing package: D13.)

    Example:
        >>> import tempfile
        >>> from idql_func.data.hdf5 import write_d4rl_hdf5
        >>> recording = {
        ...     "observations": np.arange(6.0)[:, None], "actions": np.ones((6, 1)),
        ...     "rewards": np.arange(6.0), "terminals": np.array([0, 0, 1, 0, 0, 0], bool),
        ...     "timeouts": np.array([0, 0, 0, 0, 1, 0], bool),
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ds = D4RLDataset(write_d4rl_hdf5(f"{folder}/d.hdf5", recording))
        >>> ds.dataset_dict["rewards"], ds.dataset_dict["masks"], ds.dataset_dict["dones"]
        (array([0., 1., 2., 3.], dtype=float32), array([1., 1., 0., 1.], dtype=float32), \
array([False, False,  True,  True]))
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Any,
        clip_to_eps: bool = True,
        eps: float = 1e-5,
        max_episode_steps: int | None = None,
        *,
        seed: int | None = None,
        device: Any = "cpu",
        out_of_range: Literal["error", "clip"] = "error",
    ):
        if not 0 <= eps < 1:
            raise InputError(f"D4RLDataset: eps must lie in [0, 1), got {eps}.")
        if out_of_range not in ("error", "clip"):
            raise InputError(
                f"D4RLDataset: out_of_range must be 'error' or 'clip', got {out_of_range!r}."
            )
        recording = _Recording(source)
        self.name = recording.name
        self.attributes = recording.attributes
        self.reference_scores = recording.reference_scores

        arrays = qlearning_arrays(
            recording.arrays, max_episode_steps or recording.max_episode_steps, recording.where
        )
        actions = arrays["actions"]
        if out_of_range == "error":
            advice = "pass out_of_range='clip' to clip them, or scale them to [-1, 1] in the file"
            check_actions(recording.arrays["actions"], recording.where, advice)
        else:
            actions = np.clip(actions, -1.0, 1.0)
        if clip_to_eps:  # D12
            actions = np.clip(actions, -(1 - eps), 1 - eps)
        terminals = arrays.pop("terminals")
        arrays["actions"] = actions
        arrays["masks"] = (1.0 - terminals).astype(np.float32)
        arrays["dones"] = episode_ends(
            arrays["observations"], arrays["next_observations"], terminals
        )
        validate_transitions(arrays, where=recording.where)
        super().__init__(arrays, seed=seed, device=device)


def d4rl_cache_dir() -> Path:
    """The folder where D4RL keeps its files: ``D4RL_DATASET_DIR`` or ``~/.d4rl/datasets``.

    Example:
        >>> d4rl_cache_dir().is_absolute() or "D4RL_DATASET_DIR" in os.environ
        True
    """
    configured = os.environ.get("D4RL_DATASET_DIR")
    return Path(configured) if configured else Path.home() / ".d4rl" / "datasets"


def qlearning_arrays(
    recording: Mapping[str, Any],
    max_episode_steps: int | None = None,
    where: str = "The recording",
) -> dict[str, np.ndarray]:
    """Turn consecutive steps into transitions, as ``d4rl.qlearning_dataset`` does.

    The step at which an episode is cut by time is left out, since what it led to is not recorded;
    so is the very last step. Without ``timeouts`` the cuts are counted out from
    ``max_episode_steps``; with them that argument is not looked at.

    Args:
        recording: ``observations [T, O]``, ``actions [T, A]``, ``rewards [T]`` or ``[T, 1]``,
            ``terminals`` likewise, ``timeouts`` likewise or absent. Other fields are ignored.
        max_episode_steps: at least 1.
        where: the file or name, for the messages.

    Returns:
        float32 ``observations, actions, next_observations [N, ...]``, ``rewards [N]``, and bool
        ``terminals [N]``.

    Raises:
        InputError: missing keys, wrong shapes, dtypes or lengths, no transition left, or no
            episode length where one is needed.

    Example:
        >>> steps = {
        ...     "observations": np.arange(5.0)[:, None], "actions": np.zeros((5, 1)),
        ...     "rewards": np.arange(5.0), "terminals": np.zeros(5),
        ... }
        >>> qlearning_arrays(steps, max_episode_steps=2)["rewards"]
        array([0., 2.], dtype=float32)
    """
    fields = _check_recording(recording, where)
    observations, actions, rewards = (fields[k] for k in ("observations", "actions", "rewards"))
    terminals = fields["terminals"].astype(bool)[:-1]
    if "timeouts" in fields:
        cut = fields["timeouts"].astype(bool)[:-1]
    elif max_episode_steps is None:
        raise InputError(
            f"{where} has no 'timeouts'; pass max_episode_steps, the number of steps after which "
            "the environment cuts an episode."
        )
    elif max_episode_steps < 1:
        raise InputError(f"{where}: max_episode_steps must be at least 1, got {max_episode_steps}.")
    else:
        cut = _counted_timeouts(terminals, int(max_episode_steps))
    kept = np.flatnonzero(~cut)
    if len(kept) == 0:
        raise InputError(
            f"{where}: none of the {len(rewards)} steps makes a transition; each is the last one "
            "before a cut by time or of the recording."
        )
    with np.errstate(over="ignore"):  # a float64 too large for float32 is reported as infinite
        return {
            "observations": observations[kept].astype(np.float32),
            "actions": actions[kept].astype(np.float32),
            "next_observations": observations[kept + 1].astype(np.float32),
            "rewards": rewards[kept].astype(np.float32),
            "terminals": terminals[kept],
        }


def episode_ends(
    observations: np.ndarray, next_observations: np.ndarray, terminals: np.ndarray
) -> np.ndarray:
    """The last transition of each piece of consecutive ones (D11).

    A transition is the last one where it is terminal, where the next row's observation lies more
    than 1e-6 (Euclidean) from the one it led to, and at the end of the data. Used only for returns
    and filtering, never in a loss.

    Args:
        observations: ``[N, ...]``.
        next_observations: ``[N, ...]``.
        terminals: bool ``[N]``.

    Returns:
        bool ``[N]``.

    Example:
        >>> now, after = np.array([[0.0], [1.0], [5.0]]), np.array([[1.0], [2.0], [6.0]])
        >>> episode_ends(now, after, np.zeros(3, bool))
        array([False,  True,  True])
    """
    dones = terminals.astype(bool)
    dones[-1] = True
    for start in range(0, len(dones) - 1, 1 << 16):  # in pieces, for the sake of memory
        stop = min(start + (1 << 16), len(dones) - 1)
        rows = slice(start, stop)
        later = observations[start + 1 : stop + 1].reshape(stop - start, -1)
        gap = later - next_observations[rows].reshape(stop - start, -1)
        distance = np.sqrt(np.einsum("ij,ij->i", gap, gap, dtype=np.float64))
        jumped = distance > 1e-6
        # Upstream's norm is rounded to float32 on the way: near the limit its own formula decides.
        for i in np.flatnonzero(np.abs(distance - 1e-6) < 1e-8):
            jumped[i] = float(np.linalg.norm(gap[i])) > 1e-6
        dones[rows] |= jumped
    return dones


def _counted_timeouts(terminals: np.ndarray, max_episode_steps: int) -> np.ndarray:
    """Where d4rl's own step counter reaches the end of an episode, bool ``[T - 1]``.

    The counter starts at 0 and after a cut at 0, but after a terminal step at 1: d4rl resets it
    before it counts the terminal step itself.
    """
    cut = np.zeros(len(terminals), dtype=bool)
    start, counter = 0, 0
    for end in [*np.flatnonzero(terminals), len(terminals) - 1]:
        first = start + max_episode_steps - 1 - counter
        # A counter that starts past the limit (1 of 1) never meets it again before a reset.
        if first >= start:
            cut[first : end + 1 : max_episode_steps] = True
        start, counter = end + 1, 0 if cut[end] else 1
    return cut


def _check_recording(recording: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """The fields that matter, with D4RL's ``[T, 1]`` columns flattened."""
    missing = [key for key in _KEYS if key not in recording]
    if missing:
        have = ", ".join(sorted(map(str, recording))) or "nothing"
        raise InputError(f"{where} lacks D4RL's {', '.join(map(repr, missing))}; it has {have}.")
    fields = {key: recording[key] for key in (*_KEYS, "timeouts") if key in recording}
    for key, value in fields.items():
        check_numeric(value, key, where)
    length = len(fields["observations"])
    for key, value in fields.items():
        if len(value) != length:
            raise InputError(
                f"{where}: {key!r} has {len(value)} rows and 'observations' has {length}; all must "
                "have the same."
            )
    for key in ("rewards", "terminals", "timeouts"):
        value = fields.get(key)
        if value is not None and value.shape not in ((length,), (length, 1)):
            raise InputError(f"{where}: {key!r} has shape {value.shape}; it must be [{length}].")
        if value is not None:
            fields[key] = value.reshape(length)
    for key in ("observations", "actions"):
        if fields[key].ndim < 2 or 0 in fields[key].shape[1:]:
            raise InputError(
                f"{where}: {key!r} has shape {fields[key].shape}; it must be [{length}, n] with n "
                "at least 1."
            )
    if length < 2:
        raise InputError(
            f"{where} holds {length} step{'' if length == 1 else 's'}; a transition takes two."
        )
    for key, value in fields.items():
        check_finite(value, key, where)
    return fields


class _Recording:
    """The arrays behind a source, and what the source tells about them."""

    def __init__(self, source: Any):
        self.name: str | None = None
        self.attributes: dict[str, Any] = {}
        self.max_episode_steps: int | None = None
        self.reference_scores: ReferenceScores | None = None
        if isinstance(source, (str, os.PathLike)):
            self._from_file(source)
        elif callable(getattr(source, "get_dataset", None)):
            self._from_object(source)
        else:
            raise TypeError(
                "D4RLDataset: source must be an HDF5 file, a D4RL name or an object with "
                f"get_dataset(), got {type(source).__name__}."
            )

    def _from_file(self, source: str | os.PathLike[str]) -> None:
        text = os.fspath(source)
        known: D4RLName | None = None
        path = Path(text)
        if not path.exists() and text in D4RL_NAMES:
            known, self.name = D4RL_NAMES[text], text
            path = d4rl_cache_dir() / known.file_name
            if not path.exists():
                download_hdf5(known.url, path)
            self.max_episode_steps = known.max_episode_steps
            self.reference_scores = ReferenceScores(known.ref_min_score, known.ref_max_score)
        elif not path.exists() and path.name == text and not path.suffix:
            close = similar_names(text)
            hint = (
                f"did you mean {', '.join(close)}?" if close else "give the path of an HDF5 file."
            )
            raise InputError(f"{text!r} is neither a file nor a D4RL name; {hint}")
        self.where = str(path)
        self.arrays, self.attributes = read_d4rl_hdf5(path, keys=(*_KEYS, "timeouts"))
        if known is None:
            self.reference_scores = attribute_scores(self.attributes, self.where)
            steps = self.attributes.get("max_episode_steps")
            self.max_episode_steps = None if steps is None else int(steps)

    def _from_object(self, source: Any) -> None:
        self.where = f"{type(source).__name__}.get_dataset()"
        arrays = source.get_dataset()
        if not isinstance(arrays, Mapping):
            raise TypeError(
                f"{self.where} must return a dict of arrays, got {type(arrays).__name__}."
            )
        self.arrays = arrays
        steps = getattr(source, "_max_episode_steps", None)
        if steps is None:
            steps = getattr(getattr(source, "spec", None), "max_episode_steps", None)
        self.max_episode_steps = steps
        low = getattr(source, "ref_min_score", None)
        high = getattr(source, "ref_max_score", None)
        self.reference_scores = attribute_scores(
            {"ref_min_score": low, "ref_max_score": high}, self.where
        )
