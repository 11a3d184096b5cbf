"""Recordings: consecutive steps of episodes in D4RL's layout, from policies, buffers or files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from idql_func.data import ReplayBuffer
from idql_func.data.hdf5 import read_d4rl_hdf5, write_d4rl_hdf5
from idql_func.data.minari_writer import episodes_from_transitions, write_minari_dataset
from idql_func.training.interaction import Interaction, episode_seed
from idql_func.types import InputError

__all__ = ["Actor", "Recording", "join", "of_buffer", "of_file", "roll_out"]

Actor = Callable[[NDArray[Any]], NDArray[Any]]
"""Observations ``[E, O]`` to actions ``[E, A]``."""

_FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")


@dataclass(frozen=True)
class Recording:
    """Consecutive steps.

    ``arrays`` holds float32 ``observations [T, O]``, ``actions [T, A]``, ``rewards [T]``, bool
    ``terminals [T]`` (the episode ended by itself), ``timeouts [T]`` (it was cut), and
    ``next_observations [T, O]`` unless one of its sources has none.

    ``env`` is the environment's name and ``limit`` its longest episode, if known; ``origin``
    describes where the steps come from.
    """

    arrays: Mapping[str, NDArray[Any]]
    env: str | None = None
    limit: int | None = None
    origin: str = ""

    def __len__(self) -> int:
        return len(self.arrays["rewards"])

    def first(self, steps: int | None) -> Recording:
        """The first ``steps`` steps; an episode that continued after the last one counts as cut.

        None, or more steps than there are: all of them.

        Example:
            >>> zeros = np.zeros((3, 1), np.float32)
            >>> flags = np.zeros(3, bool)
            >>> steps = Recording({"observations": zeros, "actions": zeros, "rewards": zeros[:, 0],
            ...                    "terminals": flags, "timeouts": flags})
            >>> steps.first(2).arrays["timeouts"]
            array([False,  True])
        """
        arrays = {name: array[:steps].copy() for name, array in self.arrays.items()}
        arrays["timeouts"][-1] = not arrays["terminals"][-1]
        return dataclasses.replace(self, arrays=arrays)

    def returns(self) -> NDArray[np.float64]:
        """Undiscounted returns of the complete episodes, without those that the recording cut.

        If the longest episode is not known, only the last episode may be a cut one.
        """
        ends = np.flatnonzero(self.arrays["terminals"] | self.arrays["timeouts"]) + 1
        starts = np.concatenate([[0], ends[:-1]])
        total = np.concatenate([[0.0], np.cumsum(self.arrays["rewards"], dtype=np.float64)])
        whole = self.arrays["terminals"][ends - 1]
        if self.limit is not None:
            whole = whole | (ends - starts >= self.limit)
        else:
            whole = whole | (np.arange(len(ends)) < len(ends) - 1)
        return (total[ends] - total[starts])[whole]

    def attributes(self) -> dict[str, Any]:
        """The attributes of a file of these steps; ``idql train`` reads ``env`` and the return of
        the behaviour from there."""
        returns = self.returns()
        known: dict[str, Any] = {
            "env": self.env,
            "max_episode_steps": self.limit,
            "origin": self.origin,
        }
        if len(returns):
            known |= {
                "behaviour_return": float(returns.mean()),
                "behaviour_return_std": float(returns.std()),
                "behaviour_episodes": len(returns),
            }
        return {name: value for name, value in known.items() if value is not None}

    def write(self, path: Path) -> Path:
        """Write an HDF5 file in D4RL's format atomically.

        Raises:
            OSError: the disk is full or the path cannot be written.
        """
        return write_d4rl_hdf5(path, self.arrays, self.attributes())

    def write_minari(self, folder: Path) -> Path:
        """Write a Minari dataset atomically; its actions are in [-1, 1] for any bounds of the
        environment (quirk D14).

        Raises:
            InputError: a source of the recording has no ``next_observations``, which give each
                episode its last observation; or the folder holds something else.
        """
        arrays = self.arrays
        if "next_observations" not in arrays:
            raise InputError(
                f"{self.origin} has no 'next_observations', which a Minari dataset needs"
            )
        terminals = arrays["terminals"]
        ends = {"masks": 1.0 - terminals, "dones": terminals | arrays["timeouts"]}
        return write_minari_dataset(
            folder,
            episodes_from_transitions({**arrays, **ends}),
            observation_space=_box(arrays["observations"], np.inf),
            action_space=_box(arrays["actions"], 1.0),
            attributes={"description": self.origin, **self.attributes()},
        )


def _box(array: NDArray[Any], bound: float) -> gym.spaces.Box:
    return gym.spaces.Box(-bound, bound, array.shape[1:], np.float32)


def join(recordings: Sequence[Recording]) -> Recording:
    """Concatenate several recordings, such as medium and expert ones.

    Raises:
        InputError: their environments or sizes differ.

    Example:
        >>> zeros, flags = np.zeros((2, 1), np.float32), np.array([False, True])
        >>> one = Recording({"observations": zeros, "actions": zeros, "rewards": zeros[:, 0],
        ...                  "terminals": flags, "timeouts": ~flags & flags}, "A-v0", 2, "one")
        >>> both = join([one, one])
        >>> len(both), both.origin, both.attributes()["behaviour_episodes"]
        (4, 'one; one', 2)
    """
    first = recordings[0]
    for other in recordings[1:]:
        for name in ("observations", "actions"):
            if other.arrays[name].shape[1:] != first.arrays[name].shape[1:]:
                raise InputError(
                    f"{other.origin} has {name} of the shape {other.arrays[name].shape[1:]}, but "
                    f"{first.origin} has {first.arrays[name].shape[1:]}; only recordings of one "
                    "environment can be mixed"
                )
        if None not in (first.env, other.env) and first.env != other.env:
            raise InputError(
                f"{first.origin} is of {first.env} and {other.origin} of {other.env}; only "
                "recordings of one environment can be mixed"
            )
    names = [name for name in _FIELDS if all(name in r.arrays for r in recordings)]
    return Recording(
        {name: np.concatenate([r.arrays[name] for r in recordings]) for name in names},
        env=next((r.env for r in recordings if r.env is not None), None),
        limit=next((r.limit for r in recordings if r.limit is not None), None),
        origin="; ".join(r.origin for r in recordings),
    )


def of_buffer(
    buffer: ReplayBuffer,
    steps: int | None = None,
    *,
    env: str | None = None,
    limit: int | None = None,
    origin: str = "",
) -> Recording:
    """The transitions of a replay buffer in the order in which they were inserted.

    Args:
        buffer: of observations that are vectors.
        steps: how many of the first; None: all.
        env, limit, origin: see :class:`Recording`.

    Raises:
        InputError: the buffer is empty.
    """
    rows = buffer.transition_rows
    if len(rows) == 0:
        raise InputError(f"{origin or 'the replay buffer'} is empty")
    batch = buffer.sample(1, indx=rows)
    terminals = batch["masks"] == 0
    arrays = {
        "observations": batch["observations"],
        "actions": batch["actions"],
        "rewards": batch["rewards"],
        "terminals": terminals,
        "timeouts": batch["dones"] & ~terminals,
        "next_observations": batch["next_observations"],
    }
    return Recording(arrays, env, limit, origin).first(steps)


def of_file(path: Path, steps: int | None = None) -> Recording:
    """The first ``steps`` steps (None: all) in an HDF5 file in D4RL's format.

    Raises:
        InputError: it is damaged, or lacks ``timeouts`` (which separate its episodes from the steps
            that follow) or another field.
    """
    arrays, attributes = read_d4rl_hdf5(path, keys=_FIELDS)
    missing = [name for name in _FIELDS[:-1] if name not in arrays]
    if missing:
        raise InputError(f"{path} has no {missing[0]!r}; a recording to be mixed must have it")
    fields = {
        name: np.asarray(array, bool if name in ("terminals", "timeouts") else np.float32)
        for name, array in arrays.items()
    }
    for name in ("rewards", "terminals", "timeouts"):
        fields[name] = fields[name].reshape(-1)
    limit = attributes.get("max_episode_steps")
    limit = None if limit is None else int(limit)
    return Recording(fields, attributes.get("env"), limit, path.name).first(steps)


def roll_out(
    actor: Actor,
    make_env: Callable[[], gym.Env],
    steps: int,
    *,
    seed: int = 0,
    num_envs: int = 1,
    progress: Callable[[int], None] | None = None,
    env: str | None = None,
    origin: str = "",
) -> Recording:
    """Record the steps of a policy.

    Each environment contributes an equal share of the steps and is cut at its end, so short
    episodes are not over-represented.

    Args:
        actor: the policy.
        make_env: makes a wrapped environment of vectors.
        steps: how many, over all environments.
        num_envs: how many environments act in one batch.
        progress: called with the number of steps taken.
        env, origin: see :class:`Recording`.

    Example:
        >>> from idql_func.training.task import environment_factory
        >>> rest = lambda observations: np.zeros((len(observations), 1), np.float32)
        >>> recording = roll_out(rest, environment_factory("Pendulum-v1"), 405, num_envs=2)
        >>> len(recording), np.flatnonzero(recording.arrays["timeouts"]), len(recording.returns())
        (405, array([199, 202, 402, 404]), 2)
    """
    shares = [steps // num_envs + (i < steps % num_envs) for i in range(min(num_envs, steps))]
    tracks: list[Interaction] = []
    try:
        for i, share in enumerate(shares):
            made = make_env()
            buffer = ReplayBuffer(made.observation_space, made.action_space, share)
            # Environments of one recording have seeds of their own.
            own_seed = episode_seed(seed, i)
            tracks.append(Interaction(made, buffer, own_seed, bootstrap_at_limit=False))
        space: Any = tracks[0].env.action_space
        for taken in range(shares[0]):
            # All act, also those that are done: a batch of one size is compiled once.
            actions = actor(np.stack([track.observation for track in tracks]))
            actions = np.clip(np.asarray(actions, space.dtype), space.low, space.high)
            for track, share, action in zip(tracks, shares, actions, strict=True):
                if taken < share:
                    track.step(action)
            if progress is not None:
                progress(min(steps, (taken + 1) * len(tracks)))
    finally:
        for track in tracks:
            track.env.close()
    spec = tracks[0].env.spec
    limit = None if spec is None else spec.max_episode_steps
    parts = [of_buffer(track.buffer, env=env, limit=limit) for track in tracks]
    return dataclasses.replace(join(parts), origin=origin)
