"""``D4RLDataset``: transitions from D4RL's recordings (``jaxrl5/data/d4rl_datasets.py``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np

from idql_func.boundary import explained_methods
from idql_func.data.arrays import as_flags
from idql_func.data.d4rl_names import D4RL_NAMES, similar_names
from idql_func.data.dataset import Dataset
from idql_func.data.download import download_hdf5
from idql_func.data.hdf5_file import open_hdf5, row_blocks
from idql_func.data.scores import attribute_scores
from idql_func.data.validation import (
    check_actions,
    check_column,
    check_finite,
    check_loader_options,
    check_row_counts,
    clip_actions,
    is_finite,
    require_fields,
    validate_transitions,
)
from idql_func.types import InputError

__all__ = ["D4RLDataset", "d4rl_cache_dir", "d4rl_transitions", "episode_ends", "qlearning_arrays"]

_KEYS = ("observations", "actions", "rewards", "terminals")
CLIP_ADVICE = "pass out_of_range='clip' to clip them, or scale them to [-1, 1] in the data"


@explained_methods("__init__", strict=False)
class D4RLDataset(Dataset):
    """The transitions of a D4RL recording, equal to those of upstream's class.

    ``dataset_dict`` holds float32 ``observations [N, O]``, ``actions [N, A]``,
    ``next_observations [N, O]``, ``rewards [N]``, ``masks [N]`` (0 where the episode terminated)
    and bool ``dones [N]`` (the last transition of each run of consecutive ones, D11).

    Args:
        source: an HDF5 file in D4RL's format; or a D4RL name, whose file is read from the folder
            ``D4RL_DATASET_DIR`` (default ``~/.d4rl/datasets``) or downloaded to it; or an object
            with ``get_dataset()``, such as an environment of the ``d4rl`` package.
        clip_to_eps: clip the actions to ±(1 - eps) (D12).
        eps: see clip_to_eps; in [0, 1).
        max_episode_steps: time limit of the environment. Needed only for a recording without
            ``timeouts`` whose limit is not known from the D4RL name, the file's attribute
            ``max_episode_steps`` or the object's ``_max_episode_steps``.
        seed: as for :class:`~idql_func.data.Dataset`.
        device: as for :class:`~idql_func.data.Dataset`.
        out_of_range: what to do if actions lie outside [-1, 1] by more than rounding: raise an
            ``"error"``, or ``"clip"`` them silently as upstream does.

    Attributes:
        name: the D4RL name, if that was the source.
        attributes: root attributes of the file, empty for an object.
        reference_scores: the returns that D4RL's scores 0 and 100 stand for, or None if unknown.

    Raises:
        InputError: if the file or name does not exist or cannot be downloaded; if the file is not
            HDF5 or is damaged; if keys are missing or shapes, dtypes or lengths are wrong; if a
            value is NaN or infinite; if an action lies outside [-1, 1]; if no transition remains;
            or if the time limit is needed and unknown. (Upstream reports any failure as a missing
            package: D13.)

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
        check_loader_options("D4RLDataset", eps, out_of_range)
        with ExitStack() as files:
            recording = _Recording(source, files)
            steps = max_episode_steps or recording.max_episode_steps
            arrays = d4rl_transitions(recording.arrays, steps, recording.where)
            if out_of_range == "error":
                check_actions(recording.arrays["actions"], recording.where, CLIP_ADVICE)
        self.name = recording.name
        self.attributes = recording.attributes
        self.reference_scores = recording.reference_scores
        if out_of_range == "clip" or clip_to_eps:
            arrays["actions"] = clip_actions(arrays["actions"], clip_to_eps, eps)
        validate_transitions(arrays, where=recording.where)
        super().__init__(arrays, seed=seed, device=device)


def d4rl_cache_dir() -> Path:
    """Return D4RL's cache folder: ``D4RL_DATASET_DIR`` or ``~/.d4rl/datasets``.

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
    """Convert consecutive steps to transitions, as ``d4rl.qlearning_dataset`` does.

    The last step before a timeout is left out, since its next observation is not recorded; so is
    the last step of the recording. Without ``timeouts`` they are derived from
    ``max_episode_steps``, which is otherwise ignored.

    Args:
        recording: ``observations [T, O]``, ``actions [T, A]``, ``rewards [T]`` or ``[T, 1]``,
            ``terminals`` and optionally ``timeouts`` likewise, as arrays or as
            :class:`~idql_func.data.hdf5_file.Column`, which is read a block at a time. Other fields
            are ignored.
        max_episode_steps: at least 1.
        where: the file or name, for the messages.

    Returns:
        float32 ``observations, actions, next_observations [N, ...]``, ``rewards [N]``, and bool
        ``terminals [N]``.

    Raises:
        InputError: if keys are missing, shapes, dtypes or lengths are wrong, no transition remains,
            or ``max_episode_steps`` is needed and missing.

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
    terminals = as_flags(fields["terminals"], "terminals", where)[:-1]
    if "timeouts" in fields:
        cut = as_flags(fields["timeouts"], "timeouts", where)[:-1]
    elif max_episode_steps is None:
        raise InputError(
            f"{where} has no 'timeouts'; pass max_episode_steps, the time limit of the environment "
            "in steps."
        )
    elif max_episode_steps < 1:
        raise InputError(f"{where}: max_episode_steps must be at least 1, got {max_episode_steps}.")
    else:
        cut = _counted_timeouts(terminals, int(max_episode_steps))
    kept = np.flatnonzero(~cut)
    if len(kept) == 0:
        raise InputError(
            f"{where}: none of the {len(rewards)} steps gives a transition; each is the last one "
            "before a timeout or of the recording."
        )
    next_observations, now = _take(observations, kept, "observations", where, following=True)
    return {
        "observations": now,
        "actions": _take(actions, kept, "actions", where)[1],
        "next_observations": next_observations,
        "rewards": _take(rewards, kept, "rewards", where)[1],
        "terminals": terminals[kept],
    }


def d4rl_transitions(
    recording: Mapping[str, Any], max_episode_steps: int | None, where: str
) -> dict[str, np.ndarray]:
    """Do :func:`qlearning_arrays`, with float32 ``masks`` and bool ``dones`` for ``terminals``.

    Example:
        >>> steps = {
        ...     "observations": np.arange(3.0)[:, None], "actions": np.zeros((3, 1)),
        ...     "rewards": np.arange(3.0), "terminals": np.array([False, True, False]),
        ... }
        >>> arrays = d4rl_transitions(steps, max_episode_steps=9, where="steps")
        >>> arrays["masks"], arrays["dones"]
        (array([1., 0.], dtype=float32), array([False,  True]))
    """
    arrays = qlearning_arrays(recording, max_episode_steps, where)
    terminals = arrays.pop("terminals")
    dones = episode_ends(arrays["observations"], arrays["next_observations"], terminals)
    return {**arrays, "masks": (1.0 - terminals).astype(np.float32), "dones": dones}


def episode_ends(
    observations: np.ndarray, next_observations: np.ndarray, terminals: np.ndarray
) -> np.ndarray:
    """Mark the last transition of each run of consecutive ones (D11).

    A transition is the last one if it is terminal, if the next row's observation is more than 1e-6
    (Euclidean) away from its next observation, or at the end of the data. Used only for returns and
    filtering, never in a loss.

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
    for start in range(0, len(dones) - 1, 1 << 16):  # in blocks, to limit memory
        stop = min(start + (1 << 16), len(dones) - 1)
        later = observations[start + 1 : stop + 1].reshape(stop - start, -1)
        after = next_observations[start:stop].reshape(stop - start, -1)
        # few rows differ, since most transitions are consecutive; this is faster than any(axis=1)
        rows = np.flatnonzero((later != after).ravel()) // later.shape[1]
        rows = rows[np.diff(rows, prepend=-1) > 0]
        gap = later[rows] - after[rows]
        distance = np.sqrt(np.einsum("ij,ij->i", gap, gap, dtype=np.float64))
        jumped = distance > 1e-6
        # Upstream's norm is rounded to float32, so near the limit its own formula is used.
        for i in np.flatnonzero(np.abs(distance - 1e-6) < 1e-8):
            jumped[i] = float(np.linalg.norm(gap[i])) > 1e-6
        dones[start + rows] |= jumped
    return dones


def _take(
    column: Any, kept: np.ndarray, name: str, where: str, following: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The rows after ``kept`` (if ``following``) and those of ``kept``, in float32.

    A column in a file is read once, in blocks, straight into the results.
    """
    now = np.empty((len(kept), *column.shape[1:]), np.float32)
    after = np.empty_like(now) if following else now
    with np.errstate(over="ignore"):  # a float64 too large for float32 is reported as infinite
        for start, stop in row_blocks(column):
            # the last row of the block before is read again: its next row is in this block
            first = max(0, start - 1)
            block = column[first:stop]
            if not is_finite(block):
                check_finite(column[:], name, where)
            low, high = np.searchsorted(kept, (start, stop))
            now[low:high] = block[kept[low:high] - first]
            if following:
                low, high = np.searchsorted(kept, (first, stop - 1))
                after[low:high] = block[kept[low:high] + 1 - first]
    return after, now


def _counted_timeouts(terminals: np.ndarray, max_episode_steps: int) -> np.ndarray:
    """Mark the steps at which d4rl's step counter reaches the time limit, bool ``[T - 1]``.

    The counter restarts at 0 after a timeout but at 1 after a terminal step: d4rl resets it before
    it counts the terminal step itself.
    """
    cut = np.zeros(len(terminals), dtype=bool)
    start, counter = 0, 0
    for end in [*np.flatnonzero(terminals), len(terminals) - 1]:
        first = start + max_episode_steps - 1 - counter
        # A counter that starts past the limit (1 of 1) does not reach it again before a reset.
        if first >= start:
            cut[first : end + 1 : max_episode_steps] = True
        start, counter = end + 1, 0 if cut[end] else 1
    return cut


def _check_recording(recording: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check the fields that are used, read columns ``[T]`` and ``[T, 1]`` and return those as
    ``[T]``; observations and actions are checked when they are read."""
    require_fields(recording, _KEYS, where)
    fields = {key: recording[key] for key in (*_KEYS, "timeouts") if key in recording}
    length = check_row_counts(fields, "observations", where)
    for key in ("rewards", "terminals", "timeouts"):
        if key in fields:
            value = fields[key]
            if value.shape in ((length,), (length, 1)):
                fields[key] = value = value[:].reshape(length)
            check_column(value, key, where)
    for key in ("observations", "actions"):
        if fields[key].ndim < 2 or 0 in fields[key].shape[1:]:
            raise InputError(
                f"{where}: {key!r} has shape {fields[key].shape}; it must be [{length}, n] with n "
                "at least 1."
            )
    if length < 2:
        raise InputError(
            f"{where} holds {length} step{'' if length == 1 else 's'}; a transition needs two."
        )
    for key in ("rewards", "terminals", "timeouts"):
        if key in fields:
            check_finite(fields[key], key, where)
    return fields


class _Recording:
    """The arrays of a source, and its name, time limit and reference scores if known."""

    def __init__(self, source: Any, files: ExitStack):
        self.name: str | None = None
        self._files = files  # a file stays open while its arrays are read
        self.attributes: dict[str, Any] = {}
        if isinstance(source, (str, os.PathLike)):
            settings = self._from_file(source)
        elif callable(getattr(source, "get_dataset", None)):
            settings = self._from_object(source)
        else:
            raise TypeError(
                "D4RLDataset: source must be an HDF5 file, a D4RL name or an object with "
                f"get_dataset(), got {type(source).__name__}."
            )
        steps = settings.get("max_episode_steps")
        self.max_episode_steps = None if steps is None else int(steps)
        self.reference_scores = attribute_scores(settings, self.where)

    def _from_file(self, source: str | os.PathLike[str]) -> Mapping[str, Any]:
        """Read a file, and return the registered settings of its name or its own."""
        text = os.fspath(source)
        path = Path(text)
        known = None if path.exists() else D4RL_NAMES.get(text)
        if known is not None:
            self.name, path = text, d4rl_cache_dir() / known.file_name
            if not path.exists():
                download_hdf5(known.url, path)
        elif not path.exists() and path.name == text and not path.suffix:
            close = similar_names(text)
            advice = "give the path of an HDF5 file."
            hint = f"did you mean {', '.join(close)}?" if close else advice
            raise InputError(f"{text!r} is neither a file nor a D4RL name; {hint}")
        self.where = str(path)
        file = self._files.enter_context(open_hdf5(path))
        self.arrays, self.attributes = file.columns([*_KEYS, "timeouts"]), file.attributes()
        return self.attributes if known is None else known._asdict()

    def _from_object(self, source: Any) -> Mapping[str, Any]:
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
        scores = {name: getattr(source, name, None) for name in ("ref_min_score", "ref_max_score")}
        return {**scores, "max_episode_steps": steps}
