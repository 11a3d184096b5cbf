"""``MinariDataset``: transitions from recordings in Minari's format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from idql_func.boundary import explained_methods
from idql_func.data.arrays import as_flags, map_arrays
from idql_func.data.d4rl import CLIP_ADVICE, d4rl_transitions
from idql_func.data.dataset import Dataset
from idql_func.data.minari_format import read_minari
from idql_func.data.scores import attribute_scores
from idql_func.data.validation import (
    check_actions,
    check_loader_options,
    clip_actions,
    validate_transitions,
)
from idql_func.deprecation import moved_names
from idql_func.types import InputError

__all__ = ["MinariDataset", "transitions_from_episodes"]


@explained_methods("__init__", strict=False)
class MinariDataset(Dataset):
    """The transitions of a Minari recording, in the layout of :class:`D4RLDataset`.

    ``dones`` marks the last transition of each episode. Observations of ``Dict`` spaces are nested
    dicts, unless ``observation_keys`` is given; images (uint8) stay uint8.

    Args:
        source: the dataset's folder, its ``data`` folder or its HDF5 file; or its Minari name, such
            as ``"D4RL/pen/human-v2"``, if it is in ``MINARI_DATASETS_PATH`` (default
            ``~/.minari/datasets``); or an object with ``iterate_episodes()``, such as the result of
            ``minari.load_dataset(...)``, in any storage format.
        timeouts: ``"keep"`` the last step before a timeout, since Minari records its next
            observation; or ``"drop"`` it and the last step of the recording, which gives the arrays
            of :class:`~idql_func.data.D4RLDataset` for the same steps.
        observation_keys: entries of ``Dict`` observations to concatenate along the last axis, in
            this order.

    The other arguments are those of :class:`~idql_func.data.D4RLDataset`.

    Attributes:
        name: the recording's name, or None.
        attributes: its metadata.
        reference_scores: as for :class:`~idql_func.data.D4RLDataset`.

    Raises:
        InputError: if the recording does not exist or is damaged; if images are JPEG (load them
            with the ``minari`` package); if fields are missing or lengths differ; if a value is NaN
            or infinite; if an action lies outside [-1, 1]; or if there is no transition.

    Example:
        >>> import tempfile
        >>> from gymnasium.spaces import Box
        >>> from idql_func.data.minari_writer import write_minari_dataset
        >>> episode = {
        ...     "observations": np.arange(4.0)[:, None], "actions": np.zeros((3, 1)),
        ...     "rewards": np.arange(3.0), "terminations": np.zeros(3, bool),
        ...     "truncations": np.array([False, False, True]),
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_minari_dataset(
        ...         f"{folder}/toy-v0", [episode, episode],
        ...         observation_space=Box(-9, 9, (1,)), action_space=Box(-1, 1, (1,)),
        ...     )
        ...     ds, as_d4rl = MinariDataset(path), MinariDataset(path, timeouts="drop")
        >>> ds.dataset_dict["rewards"], ds.dataset_dict["next_observations"][:, 0]
        (array([0., 1., 2., 0., 1., 2.], dtype=float32), \
array([1., 2., 3., 1., 2., 3.], dtype=float32))
        >>> as_d4rl.dataset_dict["rewards"], as_d4rl.dataset_dict["dones"]
        (array([0., 1., 0., 1.], dtype=float32), array([False,  True, False,  True]))
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Any,
        clip_to_eps: bool = True,
        eps: float = 1e-5,
        *,
        timeouts: Literal["keep", "drop"] = "keep",
        observation_keys: Sequence[str] | None = None,
        seed: int | None = None,
        device: Any = "cpu",
        out_of_range: Literal["error", "clip"] = "error",
    ):
        check_loader_options("MinariDataset", eps, out_of_range)
        if timeouts not in ("keep", "drop"):
            raise InputError(f"MinariDataset: timeouts must be 'keep' or 'drop', got {timeouts!r}.")
        episodes, self.attributes, where = read_minari(source)
        self.name: str | None = self.attributes.get("dataset_id")
        self.reference_scores = attribute_scores(self.attributes, where)
        if observation_keys is not None:
            episodes = [_join_observations(e, observation_keys, where) for e in episodes]

        arrays = transitions_from_episodes(episodes, timeouts, where)
        if out_of_range == "error":
            check_actions(arrays["actions"], where, CLIP_ADVICE)
        if out_of_range == "clip" or clip_to_eps:
            arrays["actions"] = clip_actions(arrays["actions"], clip_to_eps, eps)
        validate_transitions(arrays, where=where)
        super().__init__(arrays, seed=seed, device=device)


def transitions_from_episodes(
    episodes: Sequence[Mapping[str, Any]],
    timeouts: Literal["keep", "drop"] = "keep",
    where: str = "The recording",
) -> dict[str, Any]:
    """Convert episodes to transitions and concatenate them.

    Args:
        episodes: as :func:`idql_func.data.minari_format.read_minari` returns them.
        timeouts: as for :class:`MinariDataset`.
        where: the file or folder, for the messages.

    Returns:
        ``observations, actions, next_observations, rewards, masks, dones`` as in
        :class:`MinariDataset`.

    Raises:
        InputError: if observations are nested and timeouts are dropped, or no transition remains.

    Example:
        >>> steps = {"actions": np.zeros((2, 1)), "rewards": np.ones(2)}
        >>> ends = {"terminations": np.array([0, 1]), "truncations": np.zeros(2)}
        >>> arrays = transitions_from_episodes([{"observations": np.eye(3), **steps, **ends}])
        >>> arrays["masks"], arrays["dones"]
        (array([1., 0.], dtype=float32), array([False,  True]))
    """

    def joined(name: str, rows: slice = slice(None)) -> Any:
        return _concatenate([map_arrays(e[name], lambda v: v[rows]) for e in episodes], name, where)

    terminations = as_flags(joined("terminations"), "terminations", where)
    last = np.cumsum([len(e["rewards"]) for e in episodes]) - 1
    if timeouts == "drop":
        cut = as_flags(joined("truncations"), "truncations", where)
        cut[last] |= ~terminations[last]  # an episode that the recording ends is truncated
        observations = joined("observations", slice(-1))
        if isinstance(observations, dict):
            raise InputError(
                f"{where}: the observations are a dict of {', '.join(map(repr, observations))}; "
                "D4RL's layout needs one array, so pass the keys to join as observation_keys."
            )
        steps = {"terminals": terminations, "timeouts": cut, "observations": observations}
        steps |= {name: joined(name) for name in ("actions", "rewards")}
        return d4rl_transitions(steps, None, where)
    dones = terminations | as_flags(joined("truncations"), "truncations", where)
    dones[last] = True
    fields = {
        "observations": joined("observations", slice(-1)),
        "actions": joined("actions"),
        "next_observations": joined("observations", slice(1, None)),
        "rewards": joined("rewards"),
        "masks": 1.0 - terminations,
    }
    with np.errstate(over="ignore"):  # a float64 too large for float32 is reported as infinite
        fields = map_arrays(fields, lambda v: v if v.dtype == np.uint8 else v.astype(np.float32))
    return {**fields, "dones": dones}


def _join_observations(episode: dict[str, Any], keys: Sequence[str], where: str) -> dict[str, Any]:
    """Replace the observations by one array ``[T + 1, O]`` of the given entries."""
    observations = episode["observations"]
    if not isinstance(observations, Mapping):
        raise InputError(
            f"{where}: the observations are one array; observation_keys needs a dict of arrays."
        )
    for key in keys:
        if key not in observations or isinstance(observations[key], Mapping):
            raise InputError(
                f"{where}: the observations have no array {key!r}; their keys are "
                f"{', '.join(map(repr, observations))}."
            )
    parts = [np.asarray(observations[key]).reshape(len(episode["rewards"]) + 1, -1) for key in keys]
    return {**episode, "observations": np.concatenate(parts, axis=-1)}


def _concatenate(parts: Sequence[Any], name: str, where: str) -> Any:
    """Concatenate arrays, or nested dicts of arrays, along the first axis."""
    if isinstance(parts[0], Mapping):
        keys = parts[0].keys()
        if any(not isinstance(p, Mapping) or p.keys() != keys for p in parts):
            raise InputError(f"{where}: {name!r} has different keys in different episodes.")
        return {k: _concatenate([p[k] for p in parts], f"{name}/{k}", where) for k in keys}
    try:
        return np.concatenate(parts)
    except ValueError as error:
        raise InputError(f"{where}: {name!r} of the episodes cannot be joined ({error}).") from None


__getattr__ = moved_names(__name__)
