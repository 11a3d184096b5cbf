"""Recordings: consecutive steps of episodes, as D4RL keeps them, from wherever they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from idql_func.data import ReplayBuffer
from idql_func.data.hdf5 import read_d4rl_hdf5, write_d4rl_hdf5
from idql_func.data.minari_writer import episodes_from_transitions, write_minari_dataset
from idql_func.training.interaction import episode_seed
from idql_func.types import InputError

__all__ = ["Actor", "Recording", "join", "of_buffer", "of_file", "roll_out"]

Actor = Callable[[NDArray[Any]], NDArray[Any]]
"""Observations ``[E, O]`` to actions ``[E, A]``."""

_FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")


@dataclass(frozen=True)
class Recording:
    """Steps one after the other.

    ``arrays`` holds float32 ``observations [T, O]``, ``actions [T, A]``, ``rewards [T]``, bool
    ``terminals [T]`` (the episode really ended), ``timeouts [T]`` (it was cut), and
    ``next_observations [T, O]`` unless a part of it came without.

    ``env`` is the environment's name and ``limit`` its longest episode, where known; ``origin``
    says in words what the steps come from.
    """

    arrays: Mapping[str, NDArray[Any]]
    env: str | None = None
    limit: int | None = None
    origin: str = ""

    def __len__(self) -> int:
        return len(self.arrays["rewards"])

    def first(self, steps: int) -> Recording:
        """The first steps, the last of them being a cut if its episode went on.

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
        return Recording(arrays, self.env, self.limit, self.origin)

    def returns(self) -> NDArray[np.float64]:
        """Undiscounted returns of the whole episodes; those that the recording cut do not count.

        Where the longest episode is not known, only the last one may be cut.
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
        """What a file of these steps says of itself; ``idql train`` reads ``env`` and the
        behaviour's return from there."""
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
        """Write an HDF5 file in D4RL's format, whole or not at all.

        Raises:
            OSError: the disk is full or the place cannot be written to.
        """
        return write_d4rl_hdf5(path, self.arrays, self.attributes())

    def write_minari(self, folder: Path) -> Path:
        """Write a Minari dataset, whole or not at all; its actions lie in [-1, 1], whatever the
        environment's own bounds (quirk D14).

        Raises:
            InputError: a part of the recording came without ``next_observations``, which give each
                episode its last observation; or the folder holds something else.
        """
        arrays = self.arrays
        if "next_observations" not in arrays:
            raise InputError(
                f"{self.origin} has no 'next_observations', which a Minari dataset needs"
            )
        terminals = arrays["terminals"]
        episodes = episodes_from_transitions(
            {
                **{name: arrays[name] for name in ("observations", "next_observations", "actions")},
                "rewards": arrays["rewards"],
                "masks": 1.0 - terminals,
                "dones": terminals | arrays["timeouts"],
            }
        )
        return write_minari_dataset(
            folder,
            episodes,
            observation_space=_box(arrays["observations"], np.inf),
            action_space=_box(arrays["actions"], 1.0),
            attributes={"description": self.origin, **self.attributes()},
        )


def _box(array: NDArray[Any], bound: float) -> gym.spaces.Box:
    return gym.spaces.Box(-bound, bound, array.shape[1:], np.float32)


def join(recordings: Sequence[Recording]) -> Recording:
    """Several recordings one after the other, such as medium and expert ones.

    Raises:
        InputError: they are of different environments or sizes.

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
        steps: the first so many; None: all.
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
    recording = Recording(arrays, env, limit, origin)
    return recording.first(len(rows) if steps is None else min(steps, len(rows)))


def of_file(path: Path, steps: int | None = None) -> Recording:
    """The recording in an HDF5 file in D4RL's format.

    Args:
        path: the file.
        steps: the first so many; None: all.

    Raises:
        InputError: it is damaged, or lacks ``timeouts`` (without which its episodes cannot be told
            apart once other steps follow) or another field.
    """
    arrays, attributes = read_d4rl_hdf5(path, keys=_FIELDS)
    missing = [name for name in _FIELDS[:-1] if name not in arrays]
    if missing:
        raise InputError(f"{path} has no {missing[0]!r}; a recording to be mixed must have it")
    flags = {name: np.asarray(arrays[name]).astype(bool) for name in ("terminals", "timeouts")}
    floats = {
        name: np.asarray(array, np.float32) for name, array in arrays.items() if name not in flags
    }
    floats["rewards"] = floats["rewards"].reshape(-1)
    limit = attributes.get("max_episode_steps")
    recording = Recording(
        {**floats, **{name: flag.reshape(-1) for name, flag in flags.items()}},
        attributes.get("env"),
        None if limit is None else int(limit),
        path.name,
    )
    return recording.first(len(recording) if steps is None else min(steps, len(recording)))


@dataclass
class _Track:
    """What one environment goes through."""

    env: gym.Env
    steps: int
    seed: tuple[int, int]
    rows: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _FIELDS})
    episode: int = 0
    observation: Any = None

    def reset(self) -> None:
        seed, number = self.seed
        # Environments of one recording have streams of their own.
        seed = episode_seed(episode_seed(seed, number), self.episode)
        self.observation, _ = self.env.reset(seed=seed)
        self.episode += 1

    def step(self, action: NDArray[Any]) -> None:
        after, reward, terminated, truncated, _ = self.env.step(action)
        row = (self.observation, action, reward, terminated, truncated and not terminated, after)
        for name, value in zip(_FIELDS, row, strict=True):
            self.rows[name].append(value)
        self.observation = after
        if terminated or truncated:
            self.reset()


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
    """Let a policy act and keep what happens.

    Each of the environments gives its share of the steps, episode after episode, and is cut at the
    end; so short episodes are not preferred to long ones.

    Args:
        actor: the policy.
        make_env: makes a wrapped environment of vectors.
        steps: how many, over all environments.
        seed: of the environments.
        num_envs: how many run side by side.
        progress: called with the number of steps taken.
        env, origin: see :class:`Recording`.

    Example:
        >>> from idql_func.training.task import environment_factory
        >>> rest = lambda observations: np.zeros((len(observations), 1), np.float32)
        >>> recording = roll_out(rest, environment_factory("Pendulum-v1"), 405, num_envs=2)
        >>> len(recording), np.flatnonzero(recording.arrays["timeouts"]), len(recording.returns())
        (405, array([199, 202, 402, 404]), 2)
    """
    shares = [steps // num_envs + (i < steps % num_envs) for i in range(num_envs)]
    tracks = [_Track(make_env(), share, (seed, i)) for i, share in enumerate(shares) if share]
    try:
        spec = tracks[0].env.spec
        for track in tracks:
            track.reset()
        space: Any = tracks[0].env.action_space
        for taken in range(tracks[0].steps):
            running = [track for track in tracks if taken < track.steps]
            # All act, also those that are done: a batch of one size is compiled once.
            actions = actor(np.stack([track.observation for track in tracks]))
            actions = np.clip(np.asarray(actions, space.dtype), space.low, space.high)
            for track, action in zip(running, actions, strict=False):
                track.step(action)
            if progress is not None:
                progress(min(steps, (taken + 1) * len(tracks)))
    finally:
        for track in tracks:
            track.env.close()
    limit = None if spec is None else spec.max_episode_steps
    parts = [Recording(_arrays(track), env, limit).first(track.steps) for track in tracks]
    return dataclasses.replace(join(parts), origin=origin)


def _arrays(track: _Track) -> dict[str, NDArray[Any]]:
    flags = ("terminals", "timeouts")
    return {
        name: np.asarray(rows, bool if name in flags else np.float32)
        for name, rows in track.rows.items()
    }
