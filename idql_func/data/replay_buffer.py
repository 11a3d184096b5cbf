"""``ReplayBuffer``: a ring of transitions (``jaxrl5/data/replay_buffer.py``)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tensordict import TensorDict

from idql_func.data.arrays import map_arrays, placer, subselect
from idql_func.data.buffer_file import open_buffer, read_generator, save_buffer, write_generator
from idql_func.data.dataset import Dataset, check_integer
from idql_func.data.storage import Row, allocate, check_row, numpy_views, row_of, write_row
from idql_func.types import InputError, PRNGKey

__all__ = ["ReplayBuffer"]

Self = TypeVar("Self", bound="ReplayBuffer")


class ReplayBuffer(Dataset):
    """A dataset that transitions are inserted into; when it is full the oldest make room.

    ``dataset_dict`` has ``capacity`` rows of ``observations, next_observations, actions`` (shapes
    and dtypes of the spaces, ``Dict`` spaces as nested dicts), ``rewards, masks`` (float32) and
    ``dones`` (bool). They are views of :attr:`storage`, a TensorDict that never grows; rows not yet
    written are zero and take up no memory. ``len(buffer)`` is the number of rows in use, and all
    methods of :class:`~idql_func.data.Dataset` heed those rows only (D20: some of upstream's go by
    the capacity).

    Args:
        observation_space: Gymnasium space of ``observations``.
        action_space: Gymnasium space of ``actions``.
        capacity: the number of transitions it can hold, at least 1.
        next_observation_space: space of ``next_observations``. Default: ``observation_space``.
        storage: map the rows from files in this folder instead of holding them in memory. It is
            working space for one buffer: an earlier buffer's files there are replaced. To keep a
            buffer use :meth:`save`.
        seed: as for :class:`~idql_func.data.Dataset`.
        device: as for :class:`~idql_func.data.Dataset`.

    Raises:
        InputError: capacity below 1, or a storage folder that holds something else.
        TypeError: a space that no array can hold, or a capacity that is no integer.

    Example:
        >>> from gymnasium.spaces import Box
        >>> buffer = ReplayBuffer(Box(-1, 1, (2,)), Box(-1, 1, (1,)), capacity=100, seed=0)
        >>> for t in range(5):
        ...     buffer.insert({
        ...         "observations": np.full(2, t), "next_observations": np.full(2, t + 1),
        ...         "actions": np.zeros(1), "rewards": t, "masks": 1.0, "dones": False,
        ...     })
        >>> len(buffer), buffer.sample(3)["rewards"]
        (5, array([4., 3., 2.], dtype=float32))
    """

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        capacity: int,
        next_observation_space: Any = None,
        *,
        storage: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ):
        if next_observation_space is None:
            next_observation_space = observation_space
        scalar = Row((), np.dtype(np.float32))
        rows = {
            "observations": row_of(observation_space, "observation_space"),
            "next_observations": row_of(next_observation_space, "next_observation_space"),
            "actions": row_of(action_space, "action_space"),
            "rewards": scalar,
            "masks": scalar,
            "dones": Row((), np.dtype(bool)),
        }
        capacity = check_integer(capacity, "capacity", at_least=1)
        self._adopt(allocate(rows, capacity, storage), seed, device)

    def _adopt(
        self, storage: TensorDict, seed: int | None, device: torch.device | str = "cpu"
    ) -> None:
        """Be an empty buffer over this storage."""
        self.storage = storage
        self._capacity: int = storage.batch_size[0]
        super().__init__(numpy_views(storage), seed, device=device)
        self.dataset_len = 0
        self._insert_index = 0

    @property
    def capacity(self) -> int:
        """The number of rows there is room for."""
        return self._capacity

    @property
    def transition_rows(self) -> np.ndarray:
        """The rows that can be drawn ``[n]``, in the order of their insertion."""
        start = self._insert_index if len(self) == self.capacity else 0
        return (np.arange(len(self)) + start) % self.capacity

    def insert(self, data_dict: Mapping[str, Any]) -> None:
        """Write one transition over the oldest row, or to a free one.

        Args:
            data_dict: ``observations, next_observations, actions, rewards, masks, dones`` without
                a batch axis, as arrays, tensors or numbers; nested where the space is a ``Dict``.

        Raises:
            InputError: missing or unknown fields, wrong shapes, or floats where the space has
                integers. The buffer is then unchanged.

        Example:
            >>> from gymnasium.spaces import Box
            >>> ReplayBuffer(Box(-1, 1, (2,)), Box(-1, 1, (1,)), 9).insert({"rewards": 1.0})
            Traceback (most recent call last):
            ...
            idql_func.errors.InputError: insert: a transition lacks 'observations', \
'next_observations', 'actions', 'masks', 'dones'; it must hold exactly 'observations', \
'next_observations', 'actions', 'rewards', 'masks', 'dones'.
        """
        self._write(check_row(self.dataset_dict, data_dict, "insert"))

    def end_episode(self) -> None:
        """Mark the newest transition as the last of an episode that was cut.

        For whoever breaks an episode off; what is inserted next belongs to another one.
        """
        if len(self):
            self.dataset_dict["dones"][self._insert_index - 1] = True

    def _write(self, row: Mapping[str, Any]) -> None:
        write_row(self.dataset_dict, row, self._insert_index)
        self._insert_index = (self._insert_index + 1) % self.capacity
        self.dataset_len = min(self.dataset_len + 1, self.capacity)

    # --- on disk ----------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the rows in use, the place of the next one and both random streams to one file.

        The file is there whole or not at all, and holds no code (safetensors).

        Args:
            path: the file; folders are made, a file of that name is replaced at the end.

        Returns:
            The path.

        Raises:
            OSError: the disk is full or the place cannot be written to.

        Example:
            >>> import tempfile
            >>> from gymnasium.spaces import Box
            >>> buffer = ReplayBuffer(Box(-1, 1, (2,)), Box(-1, 1, (1,)), capacity=7, seed=3)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     again = ReplayBuffer.load(buffer.save(f"{folder}/buffer.safetensors"))
            >>> again.capacity, again.rng.tolist()
            (7, [0, 3])
        """
        arrays = {"rows": map_arrays(self.dataset_dict, lambda v: v[: len(self)])}
        return save_buffer(path, {**arrays, **self._more_arrays()}, self._description())

    @classmethod
    def load(
        cls: type[Self],
        path: str | os.PathLike[str],
        *,
        storage: str | os.PathLike[str] | None = None,
        device: torch.device | str = "cpu",
        capacity: int | None = None,
    ) -> Self:
        """The buffer of :meth:`save`; it draws and overwrites as the saved one would have.

        Args:
            path: the file.
            capacity: make room for that many rows if the saved buffer has less and no row of it has
                made room for a newer one; otherwise its capacity stays.
            storage: as for the class, whatever the saved buffer had.
            device: as for the class.

        Raises:
            InputError: no such file, a damaged one, or the file of another class of buffer.
        """
        with open_buffer(path) as file:
            about = file.description
            if about["class"] != cls.__name__:
                raise InputError(f"{path} holds a {about['class']}, not a {cls.__name__}.")
            rows = map_arrays(file.rows()["rows"], lambda leaf: Row(leaf[0][1:], leaf[1]))
            # Of images alone, and a group without arrays leaves no trace in a file.
            rows.setdefault("next_observations", {})
            buffer = cls.__new__(cls)
            buffer._restore(about)
            size, index, room = about["size"], about["insert_index"], about["capacity"]
            if capacity is not None and capacity > room and index == size % room:
                index, room = size, capacity
            buffer._adopt(allocate(rows, room, storage), about["seed"], device)
            buffer.dataset_len = size
            buffer._insert_index = index
            file.read_into({"rows": buffer.dataset_dict, **buffer._more_arrays()})
            buffer._np_random = read_generator(about["generator"])
            buffer.rng = torch.tensor(about["rng"], dtype=torch.int64)
        return buffer

    def _description(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "capacity": self.capacity,
            "size": len(self),
            "insert_index": self._insert_index,
            "seed": self._seed,
            "generator": write_generator(self.np_random),
            "rng": self.rng.tolist(),
        }

    def _more_arrays(self) -> dict[str, np.ndarray]:
        """What a subclass saves beside the rows: arrays of the capacity's length."""
        return {}

    def _restore(self, about: Mapping[str, Any]) -> None:
        """What a subclass takes from the description before there is a storage."""

    # --- rows that come and go: see Dataset -------------------------------------------

    def to(self, device: torch.device | str) -> ReplayBuffer:
        """Put later batches on ``device``; the rows stay where they are."""
        self.device = torch.device(device)
        return self

    def on_device(self, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """The rows in use on the device; what is inserted later is not among them."""
        self._check_filled()
        place = placer(self.device)
        return {
            name: map_arrays(self.dataset_dict[name], lambda v: place(v[: len(self)].copy()))
            for name in self._fields(keys)
        }

    def _draw(self, batch_size: int) -> np.ndarray:
        self._check_filled()
        return super()._draw(batch_size)

    def _draw_torch(self, key: PRNGKey, batch_size: int) -> torch.Tensor:
        self._check_filled()
        return super()._draw_torch(key, batch_size)

    def _check_filled(self) -> None:
        if len(self) == 0:
            raise InputError("The replay buffer is empty; insert a transition before sampling.")

    def _given_rows(self, indx: Any) -> Any:
        rows = np.asarray(indx)
        if rows.dtype.kind not in "iu":
            raise InputError(f"indx must hold row numbers, got an array of {rows.dtype}.")
        outside = (rows < 0) | (rows >= len(self))
        if outside.any():
            raise IndexError(
                f"Row {int(rows[outside][0])} is not in the replay buffer, which has rows 0 to "
                f"{len(self) - 1}."
            )
        return rows

    def _take_torch(self, fields: Iterable[str], rows: torch.Tensor) -> dict[str, Any]:
        # Gathered on the host: the rows change all the time, so they are not kept on the device.
        return map_arrays(self._take(fields, rows.numpy()), placer(self.device))

    def _transitions(self) -> np.ndarray:
        self._check_filled()
        return self.transition_rows

    def _vector(self, name: str) -> np.ndarray:
        return super()._vector(name)[self._transitions()]

    def _keep(self, rows: np.ndarray) -> None:
        kept = subselect(self.dataset_dict, rows)
        _fill(self.dataset_dict, kept, slice(len(rows)))
        self.dataset_len = len(rows)
        self._insert_index = len(rows) % self.capacity

    def _replace_rewards(self, rewards: np.ndarray) -> None:
        self.dataset_dict["rewards"][self._transitions()] = rewards


def _fill(fields: Mapping[str, Any], values: Mapping[str, Any], rows: slice) -> None:
    for name, field in fields.items():
        if isinstance(field, Mapping):
            _fill(field, values[name], rows)
        else:
            field[rows] = values[name]
