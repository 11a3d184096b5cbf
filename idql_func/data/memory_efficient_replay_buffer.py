"""``MemoryEfficientReplayBuffer``: stacked frames, each frame stored once.

Port of ``jaxrl5/data/memory_efficient_replay_buffer.py``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from idql_func import random
from idql_func.boundary import explained_methods
from idql_func.data.arrays import map_arrays, subselect
from idql_func.data.dataset import check_integer
from idql_func.data.replay_buffer import ReplayBuffer
from idql_func.data.storage import FieldSpec, allocate, check_row, field_spec, transition_spec
from idql_func.types import InputError, PRNGKey

__all__ = ["MemoryEfficientReplayBuffer"]


@explained_methods("__init__", "insert", strict=False)
class MemoryEfficientReplayBuffer(ReplayBuffer):
    """A replay buffer of stacked frames that stores each frame once.

    An observation is a dict whose ``pixel_keys`` hold the ``S`` newest frames in the last axis,
    ``[H, W, C, S]``. Two successive observations share ``S - 1`` frames, so a row stores only the
    newest frame of the *next* observation; ``S`` rows of padding before each episode hold its first
    frames. The two stacks of the transition in row ``i`` are the frames of rows ``i - S .. i - 1``
    and ``i - S + 1 .. i``. Only rows marked as transitions are drawn: padding is not, and neither
    are the ``S`` rows after the newest one, whose frames are partly overwritten.

    ``len(buffer)`` counts rows including padding, because indices are drawn from all rows and
    rejected if they are not transitions, which keeps upstream's index stream.
    :attr:`num_transitions` counts transitions. :meth:`sample_torch` is uniform over transitions:
    upstream's ``sample_jax`` ignores padding and stacks, so there is no stream to reproduce.

    :meth:`split` copies nothing: the halves are read-only buffers over the same frames, and become
    invalid when this buffer is inserted into.

    Differences from upstream:

    - An episode whose padding reaches the end of the ring continues at its start, and the frames of
      its first transitions are gathered from both ends. Upstream reads ``S + 1`` frames that end in
      one of the last rows, whatever these contain (D22). The drawn indices are equal; only the
      frames of transitions in rows ``0 .. S - 1`` differ.
    - A buffer without a transition raises instead of drawing forever (D24), ``indx`` is supported
      (D25), and :meth:`split`, :meth:`filter` and returns use transitions, not padding (D20).

    Args:
        observation_space: a ``Dict`` space with the ``pixel_keys`` at its top level.
        action_space: as for :class:`~idql_func.data.ReplayBuffer`.
        capacity: number of rows, at least ``S + 1``; an episode needs its steps plus ``S`` rows.
        pixel_keys: the keys that hold stacked frames, all with the same ``S``.
        storage: as for :class:`~idql_func.data.ReplayBuffer`.
        seed: as for :class:`~idql_func.data.Dataset`.
        device: as for :class:`~idql_func.data.Dataset`.

    Raises:
        InputError: if the capacity is too small for a transition, the stacks have different sizes,
            or the storage folder holds other files.
        TypeError: if the observation space is not a ``Dict`` with these keys.

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
        observation = field_spec(observation_space, "observation_space")
        self.pixel_keys = (pixel_keys,) if isinstance(pixel_keys, str) else tuple(pixel_keys)
        self._num_stack = _check_stacks(observation, self.pixel_keys)
        capacity = check_integer(capacity, "capacity", at_least=1)
        if capacity <= self._num_stack:
            raise InputError(
                f"capacity must be at least {self._num_stack + 1}, the rows of one transition with "
                f"{self._num_stack} stacked frames, got {capacity}."
            )
        frames = {
            key: FieldSpec(observation[key].shape[:-1], observation[key].dtype)
            for key in self.pixel_keys
        }
        others = {key: spec for key, spec in observation.items() if key not in frames}
        action = field_spec(action_space, "action_space")
        spec = transition_spec({**observation, **frames}, others, action)
        self._set_storage(allocate(spec, capacity, storage), seed, device)

    def _set_storage(
        self, storage: Any, seed: int | None, device: torch.device | str = "cpu"
    ) -> None:
        super()._set_storage(storage, seed, device)
        self._is_transition = np.zeros(self.capacity, dtype=bool)
        self._insert_count = [0]  # shared with the halves of a split, which check it
        self._split_insert_count: int | None = None
        # shapes and dtypes that insert accepts, as arrays that use no memory
        frames = self.dataset_dict["observations"]
        stacks = {
            key: np.broadcast_to(
                np.zeros((), frames[key].dtype), (1, *frames[key].shape[1:], self._num_stack)
            )
            for key in self.pixel_keys
        }
        self._insert_spec = {
            **self.dataset_dict,
            "observations": {**frames, **stacks},
            "next_observations": {**self.dataset_dict["next_observations"], **stacks},
        }

    @property
    def num_transitions(self) -> int:
        """The number of transitions that can be drawn."""
        return int(np.count_nonzero(self._is_transition))

    def insert(self, data_dict: Mapping[str, Any]) -> None:
        """Write one transition, after padding if it is the first of an episode.

        An episode starts at the first call and after each transition with ``dones`` set.

        Args:
            data_dict: as for :class:`~idql_func.data.ReplayBuffer`, with the stacks
                ``[H, W, C, S]`` under the pixel keys of both observations.

        Raises:
            InputError: as for :class:`~idql_func.data.ReplayBuffer`.
        """
        if self._split_insert_count is not None:
            raise InputError("insert: this buffer is half of a split and read-only.")
        row = check_row(self._insert_spec, data_dict, "insert")
        stacks, next_stacks = (
            {key: row[name].pop(key) for key in self.pixel_keys}
            for name in ("observations", "next_observations")
        )
        self._insert_count[0] += 1
        first = len(self) == 0 or self.dataset_dict["dones"][self._insert_index - 1]
        # An episode that reaches the end of the ring continues after a copy of its newest frames.
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
        # Their stacks include overwritten frames. (D23: rows that were never written are not
        # transitions, so the capacity can be used where upstream uses the length.)
        outdated = (self._insert_index + np.arange(self._num_stack)) % self.capacity
        self._is_transition[outdated] = False

    def _write_frame(self, row: Mapping[str, Any], is_transition: bool) -> None:
        self._is_transition[self._insert_index] = is_transition
        self._write_row(row)

    def sample(
        self,
        batch_size: int,
        keys: Iterable[str] | None = None,
        indx: np.ndarray | None = None,
        pack_obs_and_next_obs: bool = False,
    ) -> dict[str, Any]:
        """Draw transitions with replacement, as NumPy arrays.

        Args:
            batch_size: as for :meth:`idql_func.data.Dataset.sample`.
            keys: as for :meth:`idql_func.data.Dataset.sample`.
            indx: rows to return instead of random ones, ``[B]``; each must hold a transition
                (see :attr:`transition_rows`).
            pack_obs_and_next_obs: return the ``S + 1`` frames of both observations under
                ``observations`` and no frames under ``next_observations``. This nearly halves the
                bytes copied to a device, where pixel learners unpack them.

        Returns:
            Field name -> array ``[B, ...]``; stacks are ``[B, H, W, C, S]``, packed ones
            ``[B, H, W, C, S + 1]``.

        Raises:
            InputError, IndexError: as :meth:`idql_func.data.Dataset.sample`, or if the buffer or a
                row of ``indx`` holds no transition.

        Example:
            >>> from gymnasium.spaces import Box, Dict
            >>> space = Dict({"pixels": Box(0, 255, (2, 2, 3, 4), np.uint8)})
            >>> MemoryEfficientReplayBuffer(space, Box(-1, 1, (1,)), 50).sample(2)
            Traceback (most recent call last):
            ...
            idql_func.errors.InputError: The replay buffer holds no transition to draw; insert one \
before sampling.
        """
        rows = self._rows(batch_size, indx)
        return self._gather(self._fields(keys), rows, pack_obs_and_next_obs)

    @property
    def transition_rows(self) -> np.ndarray:
        """The rows that can be drawn ``[num_transitions]``, in order of insertion."""
        rows = super().transition_rows
        return rows[self._is_transition[rows]]

    def split(
        self, ratio: float
    ) -> tuple[MemoryEfficientReplayBuffer, MemoryEfficientReplayBuffer]:
        """Do :meth:`idql_func.data.Dataset.split` on transitions, without copying frames."""
        first, second = (self._subset(rows, seed) for rows, seed in self.split_rows(ratio))
        return first, second

    # --- overrides of Dataset, for rows that are not transitions ----------------------

    def _draw(self, batch_size: int) -> np.ndarray:
        rows = self.np_random.integers(len(self), size=batch_size)
        wrong = np.flatnonzero(~self._is_transition[rows])
        # Upstream draws single indices until each slot has a transition. Drawing one per open slot
        # at once uses the same numbers and leaves the generator in the same state.
        while len(wrong):
            drawn = self.np_random.integers(len(self), size=len(wrong))
            drawn = drawn[self._is_transition[drawn]]
            rows[wrong[: len(drawn)]] = drawn
            wrong = wrong[len(drawn) :]
        return rows

    def _draw_torch(self, key: PRNGKey, batch_size: int) -> torch.Tensor:
        rows = torch.from_numpy(self._transitions())
        return rows[random.randint(key, (batch_size,), 0, len(rows)).long()]

    def _check_not_empty(self) -> None:
        if self._split_insert_count not in (None, self._insert_count[0]):
            raise InputError(
                "This half of a split is outdated: its buffer was inserted into; split it again."
            )
        if not self._is_transition.any():  # D24
            raise InputError(
                "The replay buffer holds no transition to draw; insert one before sampling."
            )

    def _check_rows(self, indx: Any) -> Any:  # D25
        rows = super()._check_rows(indx)
        wrong = ~self._is_transition[rows]
        if wrong.any():
            raise InputError(
                f"Row {int(rows[wrong][0])} of the replay buffer holds no transition; "
                "transition_rows lists the rows that do."
            )
        return rows

    def _gather(self, fields: Iterable[str], rows: Any, pack: bool = False) -> dict[str, Any]:
        fields = list(fields)
        frames = self.dataset_dict["observations"]
        others = {key: value for key, value in frames.items() if key not in self.pixel_keys}
        plain = {**self.dataset_dict, "observations": others}
        batch = subselect({name: plain[name] for name in fields}, rows)
        # modulo the capacity: a window may extend across the end of the ring (D22)
        ages = np.arange(-self._num_stack, 1)
        window = (np.asarray(rows)[..., None] + ages) % self.capacity
        for key in self.pixel_keys:
            if "observations" in fields:
                stack = window if pack else window[..., :-1]
                batch["observations"][key] = _stack_frames(frames[key], stack)
            if "next_observations" in fields and not pack:
                batch["next_observations"][key] = _stack_frames(frames[key], window[..., 1:])
        return batch

    def _subset(self, rows: np.ndarray, seed: int) -> MemoryEfficientReplayBuffer:
        half = copy.copy(self)
        half._keep_rows(rows)
        half._split_insert_count = self._insert_count[0]
        # normalize_returns of a half writes to its own copy
        half.dataset_dict = {**self.dataset_dict, "rewards": self.dataset_dict["rewards"].copy()}
        half.seed(seed)
        return half

    def _keep_rows(self, rows: np.ndarray) -> None:
        # The frames are not moved: transitions share them.
        self._is_transition = np.zeros(self.capacity, dtype=bool)
        self._is_transition[rows] = True

    def _description(self) -> dict[str, Any]:
        about = {"pixel_keys": list(self.pixel_keys), "num_stack": self._num_stack}
        return {**super()._description(), **about}

    def _extra_arrays(self) -> dict[str, np.ndarray]:
        return {"is_transition": self._is_transition}

    def _restore_settings(self, about: Mapping[str, Any]) -> None:
        self.pixel_keys = tuple(about["pixel_keys"])
        self._num_stack = about["num_stack"]


def _stack_frames(frames: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Gather rows ``[..., S]`` of frames ``[capacity, H, W, C]`` as ``[..., H, W, C, S]``."""
    stacks = np.empty((*window.shape[:-1], *frames.shape[1:], window.shape[-1]), frames.dtype)
    for i in range(window.shape[-1]):  # several times faster than one gather and a transpose
        stacks[..., i] = frames[window[..., i]]
    return stacks


def _check_stacks(observation: Any, pixel_keys: Sequence[str]) -> int:
    """The number of frames in the last axis of each pixel key."""
    if not isinstance(observation, Mapping):
        raise TypeError(
            "MemoryEfficientReplayBuffer: observation_space must be a Dict space with the keys "
            f"{', '.join(map(repr, pixel_keys))}."
        )
    for key in pixel_keys:
        spec = observation.get(key)
        if not isinstance(spec, FieldSpec) or not spec.shape:
            raise TypeError(
                f"MemoryEfficientReplayBuffer: observation_space has no stacked frames under "
                f"{key!r}; its keys are {', '.join(map(repr, observation))}."
            )
    sizes = {key: observation[key].shape[-1] for key in pixel_keys}
    if len(set(sizes.values())) != 1:
        raise InputError(
            "MemoryEfficientReplayBuffer: all pixel keys need the same number of stacked frames, "
            f"got {sizes or 'no pixel key'}."
        )
    return next(iter(sizes.values()))
