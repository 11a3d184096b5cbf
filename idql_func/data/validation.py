"""Check a dataset once, when it is loaded, for what the learners rely on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from idql_func.boundary import explain_module
from idql_func.data.arrays import named_leaves
from idql_func.data.hdf5_file import Column, row_blocks
from idql_func.deprecation import moved_names
from idql_func.types import InputError

__all__ = [
    "ACTION_TOLERANCE",
    "check_actions",
    "check_column",
    "check_finite",
    "check_loader_options",
    "check_numeric",
    "check_row_counts",
    "clip_actions",
    "is_finite",
    "require_fields",
    "validate_transitions",
]

ACTION_TOLERANCE = 1e-5
"""How far outside [-1, 1] an action may lie and still count as a rounding error."""

_REQUIRED = ("observations", "actions", "rewards", "masks", "next_observations")


def validate_transitions(
    dataset_dict: Mapping[str, Any],
    *,
    observation_shape: Sequence[int] | None = None,
    action_dim: int | None = None,
    where: str = "The dataset",
) -> None:
    """Raise unless a dict of arrays holds transitions for a continuous-action learner.

    Args:
        dataset_dict: ``observations`` and ``next_observations`` ``[N, ...]`` (or nested dicts of
            them), ``actions`` ``[N, A]`` in [-1, 1], ``rewards`` ``[N]``, ``masks`` ``[N]`` in
            [0, 1] (0 where the episode terminated), and optionally ``dones`` ``[N]``. Other fields
            are not checked.
        observation_shape: required shape of an observation; default: any.
        action_dim: required A; default: any.
        where: the file or name, for the messages.

    Raises:
        InputError: if a field is missing; if a shape, dtype or length is wrong; if the dataset is
            empty; if a value is NaN or infinite; if an action lies outside [-1, 1] (quirk D14); or
            if a mask or done lies outside [0, 1].

    Example:
        >>> data = {
        ...     "observations": np.zeros((3, 2)), "next_observations": np.zeros((3, 2)),
        ...     "actions": np.full((3, 1), 2.0), "rewards": np.zeros(3), "masks": np.ones(3),
        ... }
        >>> validate_transitions(data)
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: The dataset: 3 of 3 values of 'actions' lie outside [-1, 1] \
(the largest is 2.0, in row 0); scale the actions to [-1, 1] or clip them.
    """
    if not isinstance(dataset_dict, Mapping):
        raise TypeError(f"{where}: transitions must be a dict of arrays, got {type(dataset_dict)}.")
    require_fields(dataset_dict, _REQUIRED, f"{where}: the dict of transitions")
    present = [*_REQUIRED, "dones"] if "dones" in dataset_dict else _REQUIRED
    leaves = {path: v for name in present for path, v in named_leaves(dataset_dict[name], name)}
    length = check_row_counts(leaves, "rewards", where)
    if length == 0:
        raise InputError(f"{where}: there are no transitions; give at least one.")
    for name in ("rewards", "masks", "dones"):
        if name in leaves:
            check_column(leaves[name], name, where)
    _check_observations(leaves, observation_shape, where)
    actions = leaves["actions"]
    size = actions.shape[1] if actions.ndim == 2 else 0
    if size == 0 or size != (action_dim or size):
        expected = "A" if action_dim is None else action_dim
        raise InputError(
            f"{where}: 'actions' has shape {actions.shape}; it must be [{length}, {expected}]."
        )
    if actions.dtype.kind != "f":
        raise InputError(
            f"{where}: 'actions' has dtype {actions.dtype}; continuous actions must be floats."
        )
    for path, value in leaves.items():
        check_finite(value, path, where)
    check_actions(actions, where)
    for name in ("masks", "dones"):
        if name in leaves and not ((leaves[name] >= 0) & (leaves[name] <= 1)).all():
            raise InputError(
                f"{where}: {name!r} ranges from {leaves[name].min()} to {leaves[name].max()}; its "
                "values must lie in [0, 1]."
            )


def require_fields(fields: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """Raise unless a dict has all of the named fields.

    Example:
        >>> require_fields({"rewards": 1, "dones": 2}, ["rewards", "masks"], "a.hdf5")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.hdf5 lacks 'masks'; it has 'rewards', 'dones'.
    """
    if missing := [name for name in names if name not in fields]:
        have = ", ".join(map(repr, fields)) or "no field"
        raise InputError(f"{where} lacks {', '.join(map(repr, missing))}; it has {have}.")


def check_numeric(value: Any, name: str, where: str) -> None:
    """Raise unless ``value`` is an array ``[N, ...]`` of real numbers or booleans.

    Example:
        >>> check_numeric(np.array(["a"]), "rewards", "a.hdf5")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.hdf5: 'rewards' has dtype <U1; it must hold real numbers.
    """
    if not isinstance(value, np.ndarray | Column) or value.ndim == 0:
        what = "a single number" if getattr(value, "ndim", 1) == 0 else type(value).__name__
        raise InputError(f"{where}: {name!r} is {what}; it must be a NumPy array [N, ...].")
    if value.dtype.kind not in "biuf":
        raise InputError(f"{where}: {name!r} has dtype {value.dtype}; it must hold real numbers.")


def check_row_counts(fields: Mapping[str, Any], reference: str, where: str) -> int:
    """Raise unless all fields are numeric arrays with as many rows as one of them.

    Returns:
        The number of rows.

    Example:
        >>> check_row_counts({"rewards": np.zeros(3), "masks": np.zeros(2)}, "rewards", "a.hdf5")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.hdf5: 'masks' has 2 rows and 'rewards' has 3; all fields \
must have the same number of rows.
    """
    for path, value in fields.items():
        check_numeric(value, path, where)
    length = len(fields[reference])
    for path, value in fields.items():
        if len(value) != length:
            raise InputError(
                f"{where}: {path!r} has {len(value)} rows and {reference!r} has {length}; all "
                "fields must have the same number of rows."
            )
    return length


def check_column(value: np.ndarray, name: str, where: str) -> None:
    """Raise unless an array has one number per row.

    Example:
        >>> check_column(np.zeros((2, 1)), "rewards", "a.hdf5")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.hdf5: 'rewards' has shape (2, 1); it must be [2].
    """
    if value.ndim != 1:
        raise InputError(f"{where}: {name!r} has shape {value.shape}; it must be [{len(value)}].")


def check_finite(value: Any, name: str, where: str) -> None:
    """Raise if an array ``[N, ...]`` holds NaN or infinity.

    Example:
        >>> check_finite(np.array([0.0, np.nan]), "rewards", "a.hdf5")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.hdf5: 1 of 2 values of 'rewards' is NaN or infinite (the \
first in row 1); all must be finite.
    """
    # A finite sum proves that all values are finite, in one pass without a temporary array. A sum
    # that is not finite proves nothing, since it may have overflowed.
    if is_finite(value):
        return
    bad = ~np.isfinite(value)
    count = int(bad.sum())
    if count:
        row = int(np.argmax(bad.reshape(len(value), -1).any(axis=1)))
        raise InputError(
            f"{where}: {count} of {value.size} values of {name!r} {'is' if count == 1 else 'are'} "
            f"NaN or infinite (the first in row {row}); all must be finite."
        )


def is_finite(value: np.ndarray) -> bool:
    """Whether the sum of an array is finite, and so all its values; False proves nothing.

    >>> is_finite(np.array([1.0, np.inf])), is_finite(np.array([1, 2]))
    (False, True)
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return value.dtype.kind != "f" or bool(np.isfinite(value.sum()))


def check_actions(actions: Any, where: str, advice: str = "") -> None:
    """Raise if an action ``[N, A]`` lies outside [-1, 1] by more than :data:`ACTION_TOLERANCE`.

    The learners' samplers clip to [-1, 1], and :func:`idql_func.envs.wrap_gym` rescales an
    environment's actions to it. Data on another scale would train a wrong policy silently (D14).

    Example:
        >>> check_actions(np.array([[1.0], [1.0 + 1e-7]]), "a.hdf5")
    """
    limit = 1 + ACTION_TOLERANCE
    for start, stop in row_blocks(actions):
        block = actions[start:stop]
        # NaN, which check_finite reports, needs the exact count below too
        if block.size and not (block.min() >= -limit and block.max() <= limit):
            break
    else:
        return
    actions = actions[:]
    size = np.abs(actions)
    bad = size > limit
    if bad.any():
        row, column = np.unravel_index(int(np.argmax(size)), size.shape)
        raise InputError(
            f"{where}: {int(bad.sum())} of {actions.size} values of 'actions' lie outside [-1, 1] "
            f"(the largest is {actions[row, column]}, in row {row}); "
            f"{advice or 'scale the actions to [-1, 1] or clip them'}."
        )


def check_loader_options(loader: str, eps: float, out_of_range: str = "error") -> None:
    """Raise unless the options that :func:`clip_actions` takes are valid.

    Example:
        >>> check_loader_options("D4RLDataset", eps=1.0)
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: D4RLDataset: eps must lie in [0, 1), got 1.0.
    """
    if not 0 <= eps < 1:
        raise InputError(f"{loader}: eps must lie in [0, 1), got {eps}.")
    if out_of_range not in ("error", "clip"):
        raise InputError(f"{loader}: out_of_range must be 'error' or 'clip', got {out_of_range!r}.")


def clip_actions(actions: np.ndarray, clip_to_eps: bool, eps: float) -> np.ndarray:
    """Clip actions to ±(1 - eps), or to ±1 where ``clip_to_eps`` is false (D12).

    Example:
        >>> clip_actions(np.array([[2.0], [0.5]]), True, 0.25)
        array([[0.75],
               [0.5 ]])
    """
    bound = 1 - eps if clip_to_eps else 1.0
    return np.clip(actions, -bound, bound)


def _check_observations(
    leaves: Mapping[str, np.ndarray], shape: Sequence[int] | None, where: str
) -> None:
    parts, next_parts = (
        {p.removeprefix(name): v for p, v in leaves.items() if p.split("/")[0] == name}
        for name in ("observations", "next_observations")
    )
    if parts.keys() != next_parts.keys():
        raise InputError(
            f"{where}: 'observations' and 'next_observations' have different keys: "
            f"{sorted(parts)} and {sorted(next_parts)}."
        )
    for part, value in parts.items():
        if value.shape != next_parts[part].shape:
            raise InputError(
                f"{where}: 'observations{part}' has shape {value.shape} and "
                f"'next_observations{part}' has {next_parts[part].shape}; they must be equal."
            )
    if "" not in parts:
        return
    array = parts[""]
    if array.ndim < 2 or array.size == 0:
        raise InputError(
            f"{where}: 'observations' has shape {array.shape}; it must be [{len(array)}, ...] with "
            "at least one number per row."
        )
    if shape is not None and array.shape[1:] != tuple(shape):
        raise InputError(
            f"{where}: an observation has shape {array.shape[1:]}; the environment's observations "
            f"have {tuple(shape)}."
        )


explain_module(__name__, strict=False)
__getattr__ = moved_names(__name__)
