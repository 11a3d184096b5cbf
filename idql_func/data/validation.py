"""What a learner may rely on in a dataset, checked once where the data comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from idql_func.data.arrays import named_leaves
from idql_func.types import InputError

__all__ = ["ACTION_SLACK", "check_actions", "check_finite", "validate_transitions"]

ACTION_SLACK = 1e-5
"""How far past ±1 an action may lie before it is no rounding error."""

_REQUIRED = ("observations", "actions", "rewards", "masks", "next_observations")


def validate_transitions(
    dataset_dict: Mapping[str, Any],
    *,
    observation_shape: Sequence[int] | None = None,
    action_dim: int | None = None,
    where: str = "The dataset",
) -> None:
    """Raise unless a dict of arrays holds transitions that a continuous-action learner can use.

    Args:
        dataset_dict: ``observations`` and ``next_observations`` ``[N, ...]`` (or nested dicts of
            such), ``actions`` ``[N, A]`` in [-1, 1], ``rewards`` ``[N]``, ``masks`` ``[N]`` in
            [0, 1] (0 where the episode really ended), and, if there, ``dones`` ``[N]``. Other
            fields are not looked at.
        observation_shape: what an observation's shape must be; default: anything.
        action_dim: what A must be; default: anything.
        where: the file or name, for the messages.

    Raises:
        InputError: a missing field; a wrong shape, dtype or length; an empty dataset; NaN or
            infinity; an action outside [-1, 1] (quirk D14); a mask or done outside [0, 1].

    Example:
        >>> data = {
        ...     "observations": np.zeros((3, 2)), "next_observations": np.zeros((3, 2)),
        ...     "actions": np.full((3, 1), 2.0), "rewards": np.zeros(3), "masks": np.ones(3),
        ... }
        >>> validate_transitions(data)
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: The dataset: 3 of 3 values of 'actions' lie outside [-1, 1] \
(the furthest is 2.0, in row 0); scale the actions to [-1, 1] or clip them.
    """
    if not isinstance(dataset_dict, Mapping):
        raise TypeError(f"{where}: transitions are a dict of arrays, got {type(dataset_dict)}.")
    missing = [name for name in _REQUIRED if name not in dataset_dict]
    if missing:
        have = ", ".join(map(str, dataset_dict)) or "nothing"
        raise InputError(
            f"{where}: transitions need {', '.join(map(repr, missing))} beside what is there "
            f"({have})."
        )
    present = [*_REQUIRED, "dones"] if "dones" in dataset_dict else _REQUIRED
    leaves = {path: v for name in present for path, v in named_leaves(dataset_dict[name], name)}
    lengths: dict[str, int] = {}
    for path, value in leaves.items():
        check_numeric(value, path, where)
        lengths[path] = len(value)
    length = lengths["rewards"]
    for path, other in lengths.items():
        if other != length:
            raise InputError(
                f"{where}: {path!r} has {other} rows and 'rewards' has {length}; all fields must "
                "have the same."
            )
    if length == 0:
        raise InputError(f"{where}: there are no transitions; give at least one.")
    for name in ("rewards", "masks", "dones"):
        if name in leaves and leaves[name].ndim != 1:
            raise InputError(
                f"{where}: {name!r} has shape {leaves[name].shape}; it must be [{length}]."
            )
    _check_observations(leaves, observation_shape, where)
    actions = leaves["actions"]
    if (
        actions.ndim != 2
        or actions.shape[1] == 0
        or actions.shape[1] != (action_dim or actions.shape[1])
    ):
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
                f"{where}: {name!r} goes from {leaves[name].min()} to {leaves[name].max()}; its "
                "values must lie in [0, 1]."
            )


def check_numeric(value: Any, name: str, where: str) -> None:
    """Raise unless ``value`` is an array ``[N, ...]`` of real numbers or booleans.

    Example:
        >>> check_numeric(np.array(["a"]), "rewards", "a.hdf5")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.hdf5: 'rewards' has dtype <U1; it must hold real numbers.
    """
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        what = "a single number" if np.ndim(value) == 0 else type(value).__name__
        raise InputError(f"{where}: {name!r} is {what}; it must be a NumPy array [N, ...].")
    if value.dtype.kind not in "biuf":
        raise InputError(f"{where}: {name!r} has dtype {value.dtype}; it must hold real numbers.")


def check_finite(value: np.ndarray, name: str, where: str) -> None:
    """Raise if an array ``[N, ...]`` holds NaN or infinity.

    Example:
        >>> check_finite(np.array([0.0, np.nan]), "rewards", "a.hdf5")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.hdf5: 1 of 2 values of 'rewards' is NaN or infinite (the \
first in row 1); all must be finite.
    """
    # One pass without a temporary decides the usual case; a sum may overflow, so it only acquits.
    with np.errstate(invalid="ignore", over="ignore"):
        if value.dtype.kind != "f" or np.isfinite(value.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(value)
    count = int(bad.sum())
    if count:
        row = int(np.argmax(bad.reshape(len(value), -1).any(axis=1)))
        raise InputError(
            f"{where}: {count} of {value.size} values of {name!r} {'is' if count == 1 else 'are'} "
            f"NaN or infinite (the first in row {row}); all must be finite."
        )


def check_actions(actions: np.ndarray, where: str, advice: str = "") -> None:
    """Raise if an action ``[N, A]`` lies outside [-1, 1] by more than :data:`ACTION_SLACK`.

    The learners' samplers clip to [-1, 1], and :func:`idql_func.envs.wrap_gym` rescales an
    environment's actions to it; data on another scale would be learnt wrongly without a word (D14).

    Example:
        >>> check_actions(np.array([[1.0], [1.0 + 1e-7]]), "a.hdf5")
    """
    size = np.abs(actions)
    bad = size > 1 + ACTION_SLACK
    if bad.any():
        row, column = np.unravel_index(int(np.argmax(size)), size.shape)
        raise InputError(
            f"{where}: {int(bad.sum())} of {actions.size} values of 'actions' lie outside [-1, 1] "
            f"(the furthest is {actions[row, column]}, in row {row}); "
            f"{advice or 'scale the actions to [-1, 1] or clip them'}."
        )


def _check_observations(
    leaves: Mapping[str, np.ndarray], shape: Sequence[int] | None, where: str
) -> None:
    now = {
        p.removeprefix("observations"): v for p, v in leaves.items() if _is_under(p, "observations")
    }
    after = {
        p.removeprefix("next_observations"): v
        for p, v in leaves.items()
        if _is_under(p, "next_observations")
    }
    if sorted(now) != sorted(after):
        raise InputError(
            f"{where}: 'observations' and 'next_observations' have different parts: "
            f"{sorted(now)} and {sorted(after)}."
        )
    for part, value in now.items():
        if value.shape != after[part].shape:
            raise InputError(
                f"{where}: 'observations{part}' has shape {value.shape} and "
                f"'next_observations{part}' has {after[part].shape}; they must be equal."
            )
    plain = now.get("")
    if plain is None:
        return
    if plain.ndim < 2 or plain.size == 0:
        raise InputError(
            f"{where}: 'observations' has shape {plain.shape}; it must be [{len(plain)}, ...] with "
            "at least one number a row."
        )
    if shape is not None and plain.shape[1:] != tuple(shape):
        raise InputError(
            f"{where}: an observation has shape {plain.shape[1:]}; the environment's have "
            f"{tuple(shape)}."
        )


def _is_under(path: str, name: str) -> bool:
    return path == name or path.startswith(name + "/")
