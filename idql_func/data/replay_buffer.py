"""``ReplayBuffer``: a ring buffer of transitions (``jaxrl5/data/replay_buffer.py``)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from idql_func.boundary import explained_methods
from idql_func.data.arrays import make_transfer, map_arrays, named_leaves, subselect
from idql_func.data.buffer_file import open_buffer, read_generator, save_buffer, write_generator
from idql_func.data.dataset import Dataset, check_integer
from idql_func.data.storage import (
    FieldSpec,
    allocate,
    check_row,
    field_spec,
    numpy_views,
    transition_spec,
    write_rows,
)
from idql_func.types import InputError

if TYPE_CHECKING:
    from tensordict import TensorDict

__all__ = ["ReplayBuffer"]

Self = TypeVar("Self", bound="ReplayBuffer")


@explained_methods("__init__", "insert", strict=False)
class ReplayBuffer(Dataset):
    """A dataset to insert transitions into; a full buffer overwrites the oldest.

    ``dataset_dict`` has ``capacity`` rows of ``observations, next_observations, actions`` (shapes
    and dtypes of the spaces, ``Dict`` spaces as nested dicts), ``rewards, masks`` (float32) and
    ``dones`` (bool). They are views of :attr:`storage`, a TensorDict of fixed size; rows not yet
    written are zero and use no memory. ``len(buffer)`` is the number of rows in use, and all
    methods of :class:`~idql_func.data.Dataset` see only those rows (D20: some of upstream's use the
    capacity).

    Args:
        observation_space: Gymnasium space of ``observations``.
        action_space: Gymnasium space of ``actions``.
        capacity: maximum number of transitions, at least 1.
        next_observation_space: space of ``next_observations``. Default: ``observation_space``.
        storage: memory-map the rows from files in this folder instead of holding them in memory.
            The folder belongs to one buffer: files of an earlier buffer are replaced. Use
            :meth:`save` to keep a buffer.
        seed: as for :class:`~idql_func.data.Dataset`.
        device: as for :class:`~idql_func.data.Dataset`.

    Raises:
        InputError: if capacity is below 1, or the storage folder holds other files.
        TypeError: if arrays cannot represent a space, or capacity is not an integer.

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
        spec = transition_spec(
            field_spec(observation_space, "observation_space"),
            field_spec(next_observation_space, "next_observation_space"),
            field_spec(action_space, "action_space"),
        )
        capacity = check_integer(capacity, "capacity", at_least=1)
        self._set_storage(allocate(spec, capacity, storage), seed, device)

    def _set_storage(
        self, storage: TensorDict, seed: int | None, device: torch.device | str = "cpu"
    ) -> None:
        """Initialise an empty buffer that uses this storage."""
        self.storage = storage
        self._capacity: int = storage.batch_size[0]
        super().__init__(numpy_views(storage), seed, device=device)
        self.dataset_len = 0
        self._insert_index = 0

    @property
    def capacity(self) -> int:
        """The maximum number of rows."""
        return self._capacity

    @property
    def transition_rows(self) -> np.ndarray:
        """The rows that can be drawn ``[n]``, in order of insertion."""
        start = self._insert_index if len(self) == self.capacity else 0
        return (np.arange(len(self)) + start) % self.capacity

    def insert(self, data_dict: Mapping[str, Any]) -> None:
        """Write one transition to a free row, or over the oldest one.

        Args:
            data_dict: ``observations, next_observations, actions, rewards, masks, dones`` without
                a batch axis, as arrays, tensors or numbers; nested where the space is a ``Dict``.

        Raises:
            InputError: if fields are missing or unknown, shapes are wrong, or floats are given for
                a space of integers. The buffer is then unchanged.

        Example:
            >>> from gymnasium.spaces import Box
            >>> ReplayBuffer(Box(-1, 1, (2,)), Box(-1, 1, (1,)), 9).insert({"rewards": 1.0})
            Traceback (most recent call last):
            ...
            idql_func.errors.InputError: insert: a transition lacks 'observations', \
'next_observations', 'actions', 'masks', 'dones'; its keys must be 'observations', \
'next_observations', 'actions', 'rewards', 'masks', 'dones'.
        """
        self._write_row(check_row(self.dataset_dict, data_dict, "insert"))

    def end_episode(self) -> None:
        """Set ``dones`` of the newest transition, after a caller stopped the episode early.

        The next inserted transition then starts a new episode.
        """
        if len(self):
            self.dataset_dict["dones"][self._insert_index - 1] = True

    def _write_row(self, row: Mapping[str, Any]) -> None:
        write_rows(self.dataset_dict, row, self._insert_index)
        self._insert_index = (self._insert_index + 1) % self.capacity
        self.dataset_len = min(self.dataset_len + 1, self.capacity)

    # --- on disk ----------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the rows in use, the insert position and both random streams to one file.

        The file is written atomically and contains no code (safetensors). Missing folders are
        created, an existing file is replaced.

        Raises:
            OSError: if the disk is full or the path is not writable.

        Example:
            >>> import tempfile
            >>> from gymnasium.spaces import Box
            >>> buffer = ReplayBuffer(Box(-1, 1, (2,)), Box(-1, 1, (1,)), capacity=7, seed=3)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     loaded = ReplayBuffer.load(buffer.save(f"{folder}/buffer.safetensors"))
            >>> loaded.capacity, loaded.rng.tolist()
            (7, [0, 3])
        """
        arrays = {"rows": map_arrays(self.dataset_dict, lambda v: v[: len(self)])}
        return save_buffer(path, {**arrays, **self._extra_arrays()}, self._description())

    @classmethod
    def load(
        cls: type[Self],
        path: str | os.PathLike[str],
        *,
        storage: str | os.PathLike[str] | None = None,
        device: torch.device | str = "cpu",
        capacity: int | None = None,
    ) -> Self:
        """Load a buffer saved by :meth:`save`; it continues exactly like the saved one.

        Args:
            capacity: increase the capacity to this number of rows. Ignored if the saved buffer's
                capacity is at least as large, or if it has already overwritten a row.
            storage, device: as for the class, independent of the saved buffer's.

        Raises:
            InputError: if the file does not exist, is damaged, or holds another class of buffer.
        """
        with open_buffer(path) as file:
            about = file.description
            if about["class"] != cls.__name__:
                raise InputError(f"{path} holds a {about['class']}, not a {cls.__name__}.")
            spec = map_arrays(file.rows()["rows"], lambda leaf: FieldSpec(leaf[0][1:], leaf[1]))
            # A file has no empty groups: this one is empty if all observations are stacked frames.
            spec.setdefault("next_observations", {})
            size, index, rows = _counts(
                about, map_arrays(file.rows()["rows"], lambda leaf: leaf[0])
            )
            buffer = cls.__new__(cls)
            buffer._restore_settings(about)
            if capacity is not None and capacity > rows and index == size % rows:
                index, rows = size, capacity
            buffer._set_storage(allocate(spec, rows, storage), about["seed"], device)
            buffer.dataset_len = size
            buffer._insert_index = index
            file.read_into({"rows": buffer.dataset_dict, **buffer._extra_arrays()})
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

    def _extra_arrays(self) -> dict[str, np.ndarray]:
        """Further arrays ``[capacity, ...]`` that a subclass saves."""
        return {}

    def _restore_settings(self, about: Mapping[str, Any]) -> None:
        """Set a subclass's attributes from the description, before the storage is allocated."""

    # --- overrides of Dataset, for rows that change -----------------------------------

    def on_device(self, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """Return a copy of the rows in use on the device; later insertions do not change it."""
        self._check_not_empty()
        transfer = make_transfer(self.device)
        return {
            name: map_arrays(self.dataset_dict[name], lambda v: transfer(v[: len(self)].copy()))
            for name in self._fields(keys)
        }

    def _check_not_empty(self) -> None:
        if len(self) == 0:
            raise InputError("The replay buffer is empty; insert a transition before sampling.")

    def _check_rows(self, indx: Any) -> Any:
        rows = np.asarray(indx)
        if rows.dtype.kind not in "iu":
            raise InputError(f"indx must hold integer row numbers, got an array of {rows.dtype}.")
        outside = (rows < 0) | (rows >= len(self))
        if outside.any():
            raise IndexError(
                f"Row {int(rows[outside][0])} is not in the replay buffer, which has rows 0 to "
                f"{len(self) - 1}."
            )
        return rows

    def _gather_torch(self, fields: Iterable[str], rows: torch.Tensor) -> dict[str, Any]:
        # Gathered on the host: the rows change at each insertion, so the device holds no copy.
        return map_arrays(self._gather(fields, rows.numpy()), make_transfer(self.device))

    def _transitions(self) -> np.ndarray:
        self._check_not_empty()
        return self.transition_rows

    def _scalar_field(self, name: str) -> np.ndarray:
        return super()._scalar_field(name)[self._transitions()]

    def _keep_rows(self, rows: np.ndarray) -> None:
        write_rows(self.dataset_dict, subselect(self.dataset_dict, rows), slice(len(rows)))
        self.dataset_len = len(rows)
        self._insert_index = len(rows) % self.capacity

    def _replace_rewards(self, rewards: np.ndarray) -> None:
        self.dataset_dict["rewards"][self._transitions()] = rewards


def _counts(about: Mapping[str, Any], shapes: Mapping[str, Any]) -> tuple[int, int, int]:
    """The number of rows in use, the insert position and the capacity of a saved buffer.

    Raises:
        ValueError: they do not agree with each other or with the shapes of the saved rows.
    """
    size, index, capacity = (about[name] for name in ("size", "insert_index", "capacity"))
    fields = {"observations", "actions", "rewards", "masks", "dones"}
    rows = {shape[:1] for _, shape in named_leaves(shapes)}
    if not (
        all(type(number) is int for number in (size, index, capacity))
        and 0 <= size <= capacity
        and 0 <= index < capacity
        and rows == {(size,)}
        and fields <= shapes.keys()
    ):
        raise ValueError("the counts of a replay buffer do not agree")
    return size, index, capacity
