"""``Dataset``: batches, splits and filters over a dict of arrays (``jaxrl5/data/dataset.py``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any

import gymnasium.utils.seeding
import numpy as np
import torch

from idql_func import random
from idql_func.boundary import describe, explained_methods
from idql_func.data.arrays import (
    as_flags,
    check_lengths,
    make_transfer,
    map_arrays,
    named_leaves,
    subselect,
)
from idql_func.data.prefetch import prefetch
from idql_func.kernels.words import signed
from idql_func.switches import x64_enabled
from idql_func.types import InputError, PRNGKey

__all__ = ["DEFAULT_SEED", "Dataset", "check_integer"]

DEFAULT_SEED = 42
"""The default seed of a dataset: upstream's default key is ``PRNGKey(42)`` (D1)."""


@explained_methods(
    "__init__",
    "seed",
    "sample",
    "sample_torch",
    "get_iterator",
    "to",
    "split",
    "filter",
    "normalize_returns",
    strict=False,  # they check their arguments themselves
)
class Dataset:
    """Arrays with equal first axes, and two random streams that draw batches from them.

    The arrays may have any names and may be nested; only :meth:`filter`,
    :meth:`normalize_returns` and the trajectory methods need ``rewards`` and ``dones``.

    Both streams equal upstream's: :meth:`sample` draws with NumPy's PCG64, seeded as Gym does, and
    :meth:`sample_torch` with the threefry key :attr:`rng`, ``PRNGKey(seed)``. The default seed is
    42 for both. (Upstream's default key is ``PRNGKey(42)``, also for seed 0 (D1); its NumPy stream
    is then unseeded (D4).)

    Args:
        dataset_dict: field name -> array ``[N, ...]`` or a nested dict of arrays. The dict is kept;
            the arrays are neither copied nor written to.
        seed: a non-negative integer.
        device: device of the batches of :meth:`sample_torch`.

    Raises:
        InputError: if there is no array or no row, or lengths differ, nested arrays included (D9).
        TypeError: if a field is not an array or the seed is not an integer.

    Example:
        >>> ds = Dataset({"observations": np.eye(4, dtype=np.float32)}, seed=0)
        >>> len(ds), ds.sample(2)["observations"].shape, ds.sample_torch(3)["observations"].shape
        (4, (2, 4), torch.Size([3, 4]))
    """

    def __init__(
        self,
        dataset_dict: dict[str, Any],
        seed: int | None = None,
        *,
        device: torch.device | str = "cpu",
    ):
        self.dataset_dict: dict[str, Any] = dataset_dict
        self.dataset_len = check_lengths(dataset_dict)
        self.device = torch.device(device)
        self._device_fields: dict[str, tuple[tuple[Any, ...], Any]] = {}
        self.seed(DEFAULT_SEED if seed is None else seed)

    def __len__(self) -> int:
        return self.dataset_len

    # --- streams --------------------------------------------------------------------

    @property
    def np_random(self) -> np.random.Generator:
        """The generator that :meth:`sample` and :meth:`split` draw from."""
        return self._np_random

    @property
    def rng(self) -> PRNGKey:
        """The key ``[2]`` that :meth:`sample_torch` splits next; set it to resume or repeat."""
        return self._rng

    @rng.setter
    def rng(self, key: PRNGKey) -> None:
        self._rng = _check_key(key, "rng").clone()

    def seed(self, seed: int | None = None) -> list[int]:
        """Restart both streams.

        Args:
            seed: a non-negative integer; None draws entropy from the operating system.

        Returns:
            The seed in a list, as in Gym.

        Raises:
            TypeError: if the seed is not an integer.
            InputError: if it is negative.

        Example:
            >>> ds = Dataset({"a": np.arange(9.0)})
            >>> ds.seed(3), ds.rng.tolist()
            ([3], [0, 3])
        """
        if seed is not None:
            seed = check_integer(seed, "seed", at_least=0)
        self._np_random, used = gymnasium.utils.seeding.np_random(seed)
        self._seed = int(used)
        # Of the seed, which may have more bits, the low 64 as a signed number. PRNGKey uses the low
        # 32 bits unless 64-bit integers are enabled.
        self._rng = random.PRNGKey(signed(self._seed % 2**64))
        return [self._seed]

    # --- batches --------------------------------------------------------------------

    def sample(
        self, batch_size: int, keys: Iterable[str] | None = None, indx: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Draw rows with replacement, as NumPy arrays.

        Args:
            batch_size: number of rows, at least 1; ignored if ``indx`` is given.
            keys: fields to return. Default: all.
            indx: rows to return instead of random ones, ``[B]``.

        Returns:
            Field name -> array ``[B, ...]`` of the field's dtype, nested like the field.

        Raises:
            InputError: if batch_size is below 1 or a field is unknown.
            IndexError: if a row in ``indx`` is out of range.

        Example:
            >>> ds = Dataset({"a": np.arange(100.0), "b": np.zeros(100)}, seed=0)
            >>> ds.sample(3, keys=["a"])
            {'a': array([85., 63., 51.])}
        """
        return self._gather(self._fields(keys), self._rows(batch_size, indx))

    def sample_torch(
        self, batch_size: int, key: PRNGKey | None = None, keys: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Draw rows with replacement, as tensors on :attr:`device` (upstream's ``sample_jax``).

        Each call splits the key: the first half draws the indices with ``randint``, the second is
        the next key. (Upstream keeps ``batch_size`` and ``keys`` of the first call: D2.)

        A field is copied to the device when it is first drawn, and again after :meth:`filter`,
        :meth:`normalize_returns`, or the replacement of an entry of :attr:`dataset_dict`. After
        writing *into* an array call :meth:`refresh`.

        Args:
            batch_size: number of rows, at least 1.
            key: a key ``[2]`` to split instead of :attr:`rng`, which then does not change.
            keys: fields to return. Default: all.

        Returns:
            Field name -> tensor ``[batch_size, ...]``, nested like the field. Dtypes are JAX's:
            float64 becomes float32 and int64 becomes int32, except under ``enable_x64``.

        Raises:
            InputError: if batch_size is below 1, a field is unknown, or ``key`` is not a key.

        Example:
            >>> ds = Dataset({"a": np.arange(100.0)}, seed=0)
            >>> ds.sample_torch(3)["a"], ds.rng.tolist()
            (tensor([92., 52., 87.]), [2718843009, 1272950319])
        """
        batch_size = check_integer(batch_size, "batch_size", at_least=1)
        fields = self._fields(keys)
        self._check_not_empty()
        # drawn on the host, so that it does not wait for an accelerator
        draw, state = random.split((self._rng if key is None else _check_key(key, "key")).cpu())
        batch = self._gather_torch(fields, self._draw_torch(draw, batch_size))
        if key is None:
            self._rng = state.clone()
        return batch

    def get_iterator(
        self,
        queue_size: int = 2,
        sample_args: Mapping[str, Any] = MappingProxyType({}),
        device: torch.device | str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Iterate over batches of :meth:`sample` as tensors on a device, prefetched, without end.

        With ``queue_size=2``, upstream's default, each batch is drawn one call before it is
        returned, so it misses what was inserted since (D21); with ``queue_size=1`` it is drawn in
        the call itself. See :func:`idql_func.data.prefetch.prefetch`.

        Args:
            queue_size: number of batches in the queue, at least 1.
            sample_args: keyword arguments of :meth:`sample`, including ``batch_size``.
            device: device of the batches. Default: :attr:`device`.

        Returns:
            An iterator over field name -> tensor ``[B, ...]``, nested like the field, with JAX's
            dtypes as in :meth:`sample_torch`.

        Raises:
            InputError: if queue_size is below 1.

        Example:
            >>> batches = Dataset({"a": np.arange(100.0)}, seed=0).get_iterator(
            ...     sample_args={"batch_size": 3}
            ... )
            >>> next(batches)["a"], next(batches)["a"]
            (tensor([85., 63., 51.]), tensor([26., 30.,  4.]))
        """
        device = self.device if device is None else device
        return prefetch(lambda: self.sample(**sample_args), queue_size, device)

    def to(self, device: torch.device | str) -> Dataset:
        """Set the device of later batches; return this dataset.

        Example:
            >>> Dataset({"a": np.zeros(2)}).to("cpu").device
            device(type='cpu')
        """
        self.device = torch.device(device)
        self.refresh()
        return self

    def on_device(self, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the whole fields on :attr:`device`, for programs that draw the rows themselves.

        These are the tensors that :meth:`sample_torch` gathers from. A replay buffer returns a copy
        of the rows in use.

        Args:
            keys: fields to return. Default: all.

        Returns:
            Field name -> tensor ``[N, ...]``, nested like the field. Do not write to it.

        Raises:
            InputError: if a key is unknown.

        Example:
            >>> Dataset({"a": np.zeros((3, 2))}).on_device()["a"].shape
            torch.Size([3, 2])
        """
        return {name: self._device_field(name) for name in self._fields(keys)}

    def refresh(self) -> None:
        """Copy the fields to the device again at the next :meth:`sample_torch`.

        Example:
            >>> ds = Dataset({"a": np.zeros(2)})
            >>> before = ds.sample_torch(1)["a"].item()
            >>> ds.dataset_dict["a"] += 1
            >>> ds.refresh()
            >>> before, ds.sample_torch(1)["a"].item()
            (0.0, 1.0)
        """
        self._device_fields = {}

    # --- subsets and returns ----------------------------------------------------------

    def split(self, ratio: float) -> tuple[Dataset, Dataset]:
        """Shuffle the rows and split them into the first ``int(N * ratio)`` and the others (D4).

        Each half has its own seed, spawned from this dataset's. (Upstream's halves have none and
        draw the same indices in every run: D1. To reproduce upstream set ``half.rng``.)

        Raises:
            InputError: if ratio is outside (0, 1), or a half would be empty.

        Example:
            >>> train, held_out = Dataset({"a": np.arange(100)}, seed=0).split(0.95)
            >>> len(train), len(held_out), train.rng.tolist() != held_out.rng.tolist()
            (95, 5, True)
        """
        first, second = (self._subset(rows, seed) for rows, seed in self.split_rows(ratio))
        return first, second

    def split_rows(self, ratio: float) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
        """Return the rows ``[n]`` (int32) and the seed of each half of :meth:`split`, uncopied.

        To use several splits of one dataset without copies, call :meth:`seed` before each.

        Raises:
            InputError: as :meth:`split`.

        Example:
            >>> ds = Dataset({"a": np.arange(6)}, seed=0)
            >>> (rows, seed), _ = ds.split_rows(0.5)
            >>> ds.seed(0)
            [0]
            >>> rows.tolist() == ds.split(0.5)[0].dataset_dict["a"].tolist()
            True
        """
        if not isinstance(ratio, Real) or not 0 < ratio < 1:
            raise InputError(f"split: ratio must lie between 0 and 1, got {ratio}.")
        index = self._transitions().astype(np.int32)
        cut = int(len(index) * ratio)
        if cut == 0 or cut == len(index):
            raise InputError(
                f"split: ratio {ratio} of {len(index)} rows leaves the "
                f"{'second' if cut else 'first'} half empty; give another ratio or more data."
            )
        self.np_random.shuffle(index)
        # spawn derives seeds from the generator's seed and does not advance its stream
        seeds = self.np_random.bit_generator.seed_seq.spawn(2)  # pyright: ignore
        first, second = (int(seed.generate_state(1)[0]) for seed in seeds)
        return (index[:cut], first), (index[cut:], second)

    def trajectory_boundaries_and_returns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the episodes by ``dones``, and their returns.

        Returns:
            ``(starts, ends, returns)``: first rows ``[S]``, last rows plus one ``[E]``, and the
            undiscounted returns ``[E]``, summed row by row in float64 for any reward dtype (D10).
            If the last row is not done there is one more start than ends.

        Raises:
            InputError: if ``rewards`` or ``dones`` is missing or not ``[N]``.

        Example:
            >>> ds = Dataset({"rewards": np.ones(5), "dones": np.array([0, 1, 0, 0, 1])})
            >>> ds.trajectory_boundaries_and_returns()
            (array([0, 2]), array([2, 5]), array([2., 3.]))
        """
        rewards, dones = self._scalar_field("rewards"), self._scalar_field("dones")
        dones = as_flags(dones, "dones", "The dataset")
        ends = np.flatnonzero(dones) + 1
        starts = np.concatenate([[0], ends[ends < len(dones)]])
        episode = np.cumsum(dones) - dones  # number of ends before each row
        # bincount adds in row order from 0.0 in float64, as upstream's loop does
        returns = np.bincount(episode, weights=rewards.astype(np.float64), minlength=len(ends))
        return starts, ends, returns[: len(ends)]

    def _trajectory_boundaries_and_returns(self) -> tuple[list, list, list]:
        """Return :meth:`trajectory_boundaries_and_returns` as lists, under upstream's name."""
        starts, ends, returns = self.trajectory_boundaries_and_returns()
        return starts.tolist(), ends.tolist(), returns.tolist()

    def filter(self, take_top: float | None = None, threshold: float | None = None) -> None:
        """Keep only episodes of high return, in place; an unfinished last episode is removed.

        Args:
            take_top: keep this percentage of episodes with the highest returns, in [0, 100].
            threshold: keep the episodes with at least this return.

        Raises:
            InputError: if both or neither are given, take_top is outside [0, 100], no episode is
                finished, or none would remain (the dataset is then unchanged).

        Example:
            >>> ds = Dataset({"rewards": np.arange(6.0), "dones": np.array([0, 1, 0, 1, 0, 1])})
            >>> ds.filter(threshold=5)
            >>> ds.dataset_dict["rewards"]
            array([2., 3., 4., 5.])
        """
        if (take_top is None) == (threshold is None):
            raise InputError("filter: give either take_top or threshold, and not both.")
        for name, value in (("take_top", take_top), ("threshold", threshold)):
            if isinstance(value, bool):
                raise TypeError(f"filter: {name} must be a number, got {value}.")
        if take_top is not None and not 0 <= take_top <= 100:
            raise InputError(f"filter: take_top must be a percentage in [0, 100], got {take_top}.")
        starts, ends, returns = self.trajectory_boundaries_and_returns()
        if len(ends) == 0:
            raise InputError("filter: the dataset has no finished episode; dones is never set.")
        if take_top is not None:
            threshold = float(np.percentile(returns, 100 - take_top))
        kept = returns >= threshold
        if not kept.any():
            raise InputError(
                f"filter: no episode has a return of {threshold} or more; the highest is "
                f"{returns.max()}."
            )
        transitions = self._transitions()
        mask = np.zeros(len(transitions), dtype=bool)
        mask[: ends[-1]] = np.repeat(kept, ends - starts[: len(ends)])
        self._keep_rows(transitions[mask])

    def normalize_returns(self, scaling: float = 1000) -> None:
        """Scale the rewards so that the highest and the lowest return differ by ``scaling``.

        The rewards are divided and then multiplied in their own dtype (D10), in a new array: the
        caller's array is not changed.

        Raises:
            InputError: if no episode is finished, or all returns are equal.

        Example:
            >>> ds = Dataset({"rewards": np.array([1.0, 3.0]), "dones": np.ones(2, bool)})
            >>> ds.normalize_returns()
            >>> ds.dataset_dict["rewards"]
            array([ 500., 1500.])
        """
        if isinstance(scaling, bool) or not isinstance(scaling, Real) or not 0 < scaling < np.inf:
            raise InputError(f"normalize_returns: scaling must be above 0, got {scaling!r}.")
        _, _, returns = self.trajectory_boundaries_and_returns()
        span = np.ptp(returns) if len(returns) else 0.0
        if not span > 0:
            raise InputError(
                f"normalize_returns: the {len(returns)} finished episodes must have at least two "
                "different returns."
            )
        rewards = self._scalar_field("rewards")
        dtype = np.result_type(rewards.dtype, np.float32)
        self._replace_rewards(rewards.astype(dtype) / dtype.type(span) * dtype.type(scaling))

    # --- implementation ---------------------------------------------------------------

    def _fields(self, keys: Iterable[str] | None) -> list[str]:
        if keys is None:
            return list(self.dataset_dict)
        fields = [keys] if isinstance(keys, str) else list(keys)
        for name in fields:
            if name not in self.dataset_dict:
                raise InputError(
                    f"The dataset has no field {name!r}; it has {', '.join(self.dataset_dict)}."
                )
        return fields

    def _rows(self, batch_size: int, indx: Any) -> Any:
        """The caller's rows, checked, or ``batch_size`` random ones."""
        if indx is None:
            batch_size = check_integer(batch_size, "batch_size", at_least=1)
        self._check_not_empty()
        return self._draw(batch_size) if indx is None else self._check_rows(indx)

    # Subclasses with changing rows override the following methods.

    def _check_not_empty(self) -> None:
        """Raise if there is no row to draw."""

    def _draw(self, batch_size: int) -> np.ndarray:
        """Draw rows ``[B]`` from NumPy's stream."""
        return self.np_random.integers(len(self), size=batch_size)

    def _draw_torch(self, key: PRNGKey, batch_size: int) -> torch.Tensor:
        """Draw rows ``[B]`` with a threefry key."""
        return random.randint(key, (batch_size,), 0, len(self))

    def _check_rows(self, indx: Any) -> Any:
        """Check the caller's rows; in a plain dataset NumPy's indexing does it."""
        if isinstance(indx, bool | np.bool_):
            raise InputError(f"indx must hold integer row numbers, got {indx}.")
        return indx

    def _gather(self, fields: Iterable[str], rows: Any) -> dict[str, Any]:
        return subselect({name: self.dataset_dict[name] for name in fields}, rows)

    def _gather_torch(self, fields: Iterable[str], rows: torch.Tensor) -> dict[str, Any]:
        rows = rows.to(self.device, non_blocking=True)
        return {
            name: map_arrays(self._device_field(name), lambda v: v.index_select(0, rows))
            for name in fields
        }

    def _transitions(self) -> np.ndarray:
        """The rows that hold transitions, in temporal order."""
        return np.arange(len(self))

    def _subset(self, rows: np.ndarray, seed: int) -> Dataset:
        """Return a dataset of these rows, one half of a split."""
        return Dataset(subselect(self.dataset_dict, rows), seed=seed, device=self.device)

    def _keep_rows(self, rows: np.ndarray) -> None:
        """Remove all other rows."""
        self.dataset_dict = subselect(self.dataset_dict, rows)
        self.dataset_len = check_lengths(self.dataset_dict)
        self.refresh()

    def _replace_rewards(self, rewards: np.ndarray) -> None:
        """Set the rewards of :meth:`_transitions` without writing to the caller's array."""
        self.dataset_dict = {**self.dataset_dict, "rewards": rewards}
        self.refresh()

    def _scalar_field(self, name: str) -> np.ndarray:
        """The field ``[N]`` with one number per row, in the order of :meth:`_transitions`."""
        value = self.dataset_dict.get(name)
        if not isinstance(value, np.ndarray) or value.ndim != 1:
            have = "missing" if value is None else f"{type(value).__name__} {np.shape(value)}"
            raise InputError(
                f"Trajectories need the field {name!r} as an array [{len(self)}]; it is {have}."
            )
        return value

    def _device_field(self, name: str) -> Any:
        """One field as tensors on the device, copied again if one of its arrays was replaced."""
        field = self.dataset_dict[name]
        sources = (x64_enabled(), *(v for _, v in named_leaves(field)))
        cached = self._device_fields.get(name)
        # compared by identity, since comparing arrays compares their elements
        if cached is None or list(map(id, cached[0])) != list(map(id, sources)):
            self.dataset_len = check_lengths(self.dataset_dict)
            tensors = map_arrays(field, make_transfer(self.device))
            cached = self._device_fields[name] = (sources, tensors)
        return cached[1]


def check_integer(value: Any, name: str, at_least: int) -> int:
    """Return the value as an int.

    Raises:
        TypeError: if it is not an integer, or a bool.
        InputError: if it is below the bound.

    Example:
        >>> check_integer(np.int64(3), "capacity", at_least=1)
        3
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {describe(value)}.")
    if value < at_least:
        raise InputError(f"{name} must be at least {at_least}, got {value}.")
    return int(value)


def _check_key(key: Any, name: str) -> PRNGKey:
    if not isinstance(key, torch.Tensor) or tuple(key.shape) != (2,) or key.dtype != torch.int64:
        what = f"{key.dtype} {tuple(key.shape)}" if isinstance(key, torch.Tensor) else repr(key)
        raise InputError(
            f"{name} must be a key, an int64 tensor of shape (2,) such as random.PRNGKey returns, "
            f"got {what}."
        )
    return key
