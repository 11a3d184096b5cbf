"""``MemoryEfficientReplayBuffer``: stacked frames, each stored once.

After ``jaxrl5/data/memory_efficient_replay_buffer.py``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from idql_func import random
from idql_func.data.arrays import map_arrays
from idql_func.data.dataset import check_integer
from idql_func.data.replay_buffer import ReplayBuffer
from idql_func.data.storage import Row, allocate, check_row, row_of
from idql_func.types import InputError, PRNGKey

__all__ = ["MemoryEfficientReplayBuffer"]


class MemoryEfficientReplayBuffer(ReplayBuffer):
    """A replay buffer of stacked frames that keeps each frame once.

    An observation is a dict whose ``pixel_keys`` hold the ``S`` newest frames in the last axis,
    ``[H, W, C, S]``. Of two successive observations ``S - 1`` frames are the same, so a row stores
    only the newest frame of the *next* observation; ``S`` rows of padding before each episode hold
    its first frames. The two stacks of the transition in row ``i`` are then the frames of rows
    ``i - S .. i - 1`` and ``i - S + 1 .. i``. Only rows marked as transitions are drawn: padding is
    not, nor are the ``S`` rows after the newest one, whose frames are being overwritten.

    ``len(buffer)`` counts rows, padding included, since indices are drawn from these and rejected
    where they are no transition, which keeps upstream's index stream;
    :attr:`num_transitions` counts transitions.

    Where this departs from upstream:

    - An episode whose padding meets the end of the ring goes on at its start, and the frames of its
      first transitions lie across the end. They are gathered across it. Upstream reads ``S + 1``
      frames that end in one of the last rows, whatever these show (D22). The indices drawn are the
      same on both sides; only the frames of transitions in rows ``0 .. S - 1`` differ.
    - A buffer without a transition raises instead of drawing for ever (D24), rows can be given
      (D25), and :meth:`split`, :meth:`filter` and returns see transitions, not padding (D20).

    Args:
        observation_space: a ``Dict`` space with the ``pixel_keys`` at its top level.
        action_space: as for :class:`~idql_func.data.ReplayBuffer`.
        capacity: number of rows, at least ``S + 1``; an episode takes its steps and ``S`` more.
        pixel_keys: the keys that hold stacked frames, all with the same ``S``.
        storage: as for :class:`~idql_func.data.ReplayBuffer`.
        seed: as for :class:`~idql_func.data.Dataset`.
        device: as for :class:`~idql_func.data.Dataset`.

    Raises:
        InputError: a capacity that holds no transition, stacks of different sizes, or a storage
            folder that holds something else.
        TypeError: the observation space is no ``Dict`` with these keys.

    Example:
        >>> from gymnasium.spaces import Box, Dict
        >>> space = Dict({"pixels": Box(0, 255, (2, 2, 3, 4), np.uint8)})
        >>> buffer = MemoryEfficientReplayBuffer(space, Box(-1, 1, (1,)), capacity=50, seed=0)
        >>> frames = np.arange(9, dtype=np.uint8) + np.zeros((2, 2, 3, 1), np.uint8)
        >>> for t in range(5):
        ...     buffer.insert({
        ...         "observations": {"pixels": frames[..., t : t + 4]},
        ...         "next_observations": {"pixels": frames[..., t + 1 : t + 5]},
        ...         "actions": np.zeros(1), "rewards": t, "masks": 1.0, "dones": t == 4,
        ...     })
        >>> len(buffer), buffer.num_transitions, buffer.dataset_dict["observations"]["pixels"].shape
        (9, 5, (50, 2, 2, 3))
        >>> batch = buffer.sample(2)
        >>> batch["rewards"], batch["next_observations"]["pixels"][:, 0, 0, 0]
        (array([3., 1.], dtype=float32), array([[4, 5, 6, 7],
               [2, 3, 4, 5]], dtype=uint8))
    """

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        capacity: int,
        pixel_keys: Sequence[str] = ("pixels",),
        *,
        storage: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ):
        observation = row_of(observation_space, "observation_space")
        self.pixel_keys = (pixel_keys,) if isinstance(pixel_keys, str) else tuple(pixel_keys)
        self._num_stack = _check_stacks(observation, self.pixel_keys)
        capacity = check_integer(capacity, "capacity", at_least=1)
        if capacity <= self._num_stack:
            raise InputError(
                f"capacity must be at least {self._num_stack + 1}, the rows of one transition of "
                f"{self._num_stack} stacked frames, got {capacity}."
            )
        frames = {
            key: Row(observation[key].shape[:-1], observation[key].dtype) for key in self.pixel_keys
        }
        others = {key: row for key, row in observation.items() if key not in frames}
        scalar = Row((), np.dtype(np.float32))
        rows = {
            "observations": {**observation, **frames},
            "next_observations": others,
            "actions": row_of(action_space, "action_space"),
            "rewards": scalar,
            "masks": scalar,
            "dones": Row((), np.dtype(bool)),
        }
        self._adopt(allocate(rows, capacity, storage), seed, device)

    def _adopt(self, storage: Any, seed: int | None, device: torch.device | str = "cpu") -> None:
        super()._adopt(storage, seed, device)
        self._is_transition = np.zeros(self.capacity, dtype=bool)
        self._inserted = [0]  # shared by the halves of a split, to tell that they are outdated
        self._split_at: int | None = None
        # what insert takes: stand-ins without memory of their own, for the check of its argument
        frames = self.dataset_dict["observations"]
        stacks = {
            key: np.broadcast_to(
                np.zeros((), frames[key].dtype), (1, *frames[key].shape[1:], self._num_stack)
            )
            for key in self.pixel_keys
        }
        self._accepted = {
            **self.dataset_dict,
            "observations": {**frames, **stacks},
            "next_observations": {**self.dataset_dict["next_observations"], **stacks},
        }

    @property
    def num_transitions(self) -> int:
        """The number of transitions that can be drawn."""
        return int(np.count_nonzero(self._is_transition))

    def insert(self, data_dict: Mapping[str, Any]) -> None:
        """Write one transition, with padding before it when it is the first of an episode.

        An episode begins at the first call and after each transition whose ``dones`` is set.

        Args:
            data_dict: as for :class:`~idql_func.data.ReplayBuffer`, with the stacks
                ``[H, W, C, S]`` under the pixel keys of both observations.

        Raises:
            InputError: as for :class:`~idql_func.data.ReplayBuffer`.
        """
        if self._split_at is not None:
            raise InputError("insert: this is a half of a split, whose rows are another buffer's.")
        row = check_row(self._accepted, data_dict, "insert")
        stacks, next_stacks = (
            {key: row[name].pop(key) for key in self.pixel_keys}
            for name in ("observations", "next_observations")
        )
        self._inserted[0] += 1
        first = len(self) == 0 or self.dataset_dict["dones"][self._insert_index - 1]
        # An episode that reaches the end of the ring goes on after a copy of its newest frames.
        if self._insert_index == 0 and not first:
            for newest in range(self.capacity - self._num_stack, self.capacity):
                self._write_frame(map_arrays(self.dataset_dict, lambda v, i=newest: v[i]), False)
        if first:
            for age in range(self._num_stack):
                frame = {key: stack[..., age] for key, stack in stacks.items()}
                row["observations"].update(frame)
                self._write_frame(row, False)
        row["observations"].update({key: stack[..., -1] for key, stack in next_stacks.items()})
        self._write_frame(row, True)
        # Their windows reach back to frames that are gone now (D23: rows that were never written
        # are no transitions anyway, so the capacity serves where upstream takes the length).
        gone = (self._insert_index + np.arange(self._num_stack)) % self.capacity
        self._is_transition[gone] = False

    def _write_frame(self, row: Mapping[str, Any], is_transition: bool) -> None:
        self._is_transition[self._insert_index] = is_transition
        self._write(row)

    def sample(
        self,
        batch_size: int,
        keys: Iterable[str] | None = None,
        indx: np.ndarray | None = None,
        pack_obs_and_next_obs: bool = False,
    ) -> dict[str, Any]:
        """Draw transitions with replacement, as NumPy arrays.

        Args:
            batch_size: number of transitions, at least 1; not looked at when ``indx`` is given.
            keys: fields to return. Default: all.
            indx: rows to return in place of drawn ones, ``[B]``; each must hold a transition
                (see :attr:`transition_rows`).
            pack_obs_and_next_obs: give the ``S + 1`` frames of both observations together under
                ``observations`` and none under ``next_observations``, which nearly halves what is
                copied to a device; pixel learners take them apart there.

        Returns:
            Field name -> array ``[B, ...]``; stacks are ``[B, H, W, C, S]``, packed ones
            ``[B, H, W, C, S + 1]``.

        Raises:
            InputError: the buffer holds no transition, a row that is none, batch_size below 1, or
                an unknown key.
            IndexError: a row in ``indx`` that is not there.

        Example:
            >>> from gymnasium.spaces import Box, Dict
            >>> space = Dict({"pixels": Box(0, 255, (2, 2, 3, 4), np.uint8)})
            >>> MemoryEfficientReplayBuffer(space, Box(-1, 1, (1,)), 50).sample(2)
            Traceback (most recent call last):
            ...
            idql_func.errors.InputError: The replay buffer holds no transition to draw; insert one \
before sampling.
        """
        fields = self._fields(keys)
        if indx is None:
            rows = self._draw(check_integer(batch_size, "batch_size", at_least=1))
        else:
            rows = self._given_rows(indx)
        return self._take(fields, rows, pack_obs_and_next_obs)

    def sample_torch(
        self, batch_size: int, key: PRNGKey | None = None, keys: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Draw transitions with a threefry key, as tensors on :attr:`device`.

        Uniform over transitions: upstream's ``sample_jax`` knows nothing of padding and stacks, so
        there is no stream to follow.

        Args:
            batch_size: as for :class:`~idql_func.data.Dataset`, and so are the others.
            key: a key ``[2]`` to split in place of :attr:`rng`.
            keys: fields to return. Default: all.
        """
        return super().sample_torch(batch_size, key, keys)

    @property
    def transition_rows(self) -> np.ndarray:
        """The rows that can be drawn ``[num_transitions]``, in the order of their insertion."""
        rows = super().transition_rows
        return rows[self._is_transition[rows]]

    def split(
        self, ratio: float
    ) -> tuple[MemoryEfficientReplayBuffer, MemoryEfficientReplayBuffer]:
        """Share the transitions out to two buffers over the same frames.

        Nothing is copied, so the halves are to be read only, and no longer after this buffer was
        inserted into. Else as :meth:`idql_func.data.Dataset.split`.

        Args:
            ratio: share of the transitions that goes to the first half, in (0, 1).

        Raises:
            InputError: ratio outside (0, 1), or a half without transitions.
        """
        first, second = (self._part(rows, seed) for rows, seed in self.split_rows(ratio))
        return first, second

    # --- rows that are drawn and rows that are not: see Dataset -----------------------

    def _draw(self, batch_size: int) -> np.ndarray:
        self._check_filled()
        rows = self.np_random.integers(len(self), size=batch_size)
        wrong = np.flatnonzero(~self._is_transition[rows])
        # Upstream draws one index after the other until each slot has a transition. Slots need a
        # draw each, so drawing that many at once takes the same numbers and leaves the same state.
        while len(wrong):
            drawn = self.np_random.integers(len(self), size=len(wrong))
            drawn = drawn[self._is_transition[drawn]]
            rows[wrong[: len(drawn)]] = drawn
            wrong = wrong[len(drawn) :]
        return rows

    def _draw_torch(self, key: PRNGKey, batch_size: int) -> torch.Tensor:
        rows = torch.from_numpy(self._transitions())
        return rows[random.randint(key, (batch_size,), 0, len(rows)).long()]

    def _check_filled(self) -> None:
        if self._split_at not in (None, self._inserted[0]):
            raise InputError(
                "This half of a split is outdated: its buffer was inserted into; split it anew."
            )
        if not self._is_transition.any():  # D24
            raise InputError(
                "The replay buffer holds no transition to draw; insert one before sampling."
            )

    def _given_rows(self, indx: Any) -> Any:  # D25
        self._check_filled()
        rows = super()._given_rows(indx)
        wrong = ~self._is_transition[rows]
        if wrong.any():
            raise InputError(
                f"Row {int(rows[wrong][0])} of the replay buffer holds no transition that can be "
                "drawn; transition_rows lists those that do."
            )
        return rows

    def _take(self, fields: Iterable[str], rows: Any, pack: bool = False) -> dict[str, Any]:
        fields = list(fields)
        frames = self.dataset_dict["observations"]
        others = {key: value for key, value in frames.items() if key not in self.pixel_keys}
        plain = {**self.dataset_dict, "observations": others}
        batch = {name: map_arrays(plain[name], lambda v: v[rows]) for name in fields}
        # modulo the capacity, so that a window may lie across the end of the ring (D22)
        ages = np.arange(-self._num_stack, 1)
        window = (np.asarray(rows)[..., None] + ages) % self.capacity
        for key in self.pixel_keys:
            if "observations" in fields:
                shown = window if pack else window[..., :-1]
                batch["observations"][key] = _stacked(frames[key], shown)
            if "next_observations" in fields and not pack:
                batch["next_observations"][key] = _stacked(frames[key], window[..., 1:])
        return batch

    def _part(self, rows: np.ndarray, seed: int) -> MemoryEfficientReplayBuffer:
        half = copy.copy(self)
        half._keep(rows)
        half._split_at = self._inserted[0]
        # normalize_returns of a half writes to its own
        half.dataset_dict = {**self.dataset_dict, "rewards": self.dataset_dict["rewards"].copy()}
        half.seed(seed)
        return half

    def _keep(self, rows: np.ndarray) -> None:
        # The frames stay where they are: some belong to transitions that stay.
        self._is_transition = np.zeros(self.capacity, dtype=bool)
        self._is_transition[rows] = True

    def _description(self) -> dict[str, Any]:
        about = {"pixel_keys": list(self.pixel_keys), "num_stack": self._num_stack}
        return {**super()._description(), **about}

    def _more_arrays(self) -> dict[str, np.ndarray]:
        return {"is_transition": self._is_transition}

    def _restore(self, about: Mapping[str, Any]) -> None:
        self.pixel_keys = tuple(about["pixel_keys"])
        self._num_stack = about["num_stack"]


def _stacked(frames: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Frames ``[capacity, H, W, C]`` of rows ``[..., S]`` as ``[..., H, W, C, S]``."""
    stacks = np.empty((*window.shape[:-1], *frames.shape[1:], window.shape[-1]), frames.dtype)
    for place in range(window.shape[-1]):  # several times as fast as one gather and a transposition
        stacks[..., place] = frames[window[..., place]]
    return stacks


def _check_stacks(observation: Any, pixel_keys: Sequence[str]) -> int:
    """The number of frames in the last axis of each pixel key."""
    if not isinstance(observation, Mapping):
        raise TypeError(
            "MemoryEfficientReplayBuffer: observation_space must be a Dict space with the keys "
            f"{', '.join(map(repr, pixel_keys))}."
        )
    sizes: dict[str, int] = {}
    for key in pixel_keys:
        row = observation.get(key)
        if not isinstance(row, Row) or not row.shape:
            raise TypeError(
                f"MemoryEfficientReplayBuffer: observation_space has no stacked frames under "
                f"{key!r}; its keys are {', '.join(map(repr, observation))}."
            )
        sizes[key] = row.shape[-1]
    if len(set(sizes.values())) != 1:
        raise InputError(
            "MemoryEfficientReplayBuffer: all pixel keys need the same number of stacked frames, "
            f"got {sizes or 'no pixel key'}."
        )
    return next(iter(sizes.values()))
