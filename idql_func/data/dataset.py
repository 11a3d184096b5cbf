"""``Dataset``: batches, splits and filters over a dict of arrays (``jaxrl5/data/dataset.py``)."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import gymnasium.utils.seeding
import numpy as np
import torch

from idql_func import random
from idql_func.data.arrays import check_lengths, map_arrays, named_leaves, placer, subselect
from idql_func.data.prefetch import prefetch
from idql_func.switches import x64_enabled
from idql_func.types import InputError, PRNGKey

__all__ = ["DEFAULT_SEED", "Dataset", "check_integer"]

DEFAULT_SEED = 42
"""The seed of a dataset that was given none: upstream's default key is ``PRNGKey(42)`` (D1)."""


class Dataset:
    """Arrays with equal first axes, and the two random streams that draw batches from them.

    Any dict of arrays will do, nested ones too; only :meth:`filter`, :meth:`normalize_returns` and
    the trajectories need ``rewards`` and ``dones``.

    Two streams, each upstream's:

    - :meth:`sample` draws with NumPy's PCG64 seeded as Gym seeds;
    - :meth:`sample_torch` draws with the threefry key :attr:`rng`, ``PRNGKey(seed)``.

    A dataset without a seed has the seed 42 for both, so that a run repeats by default. (Upstream's
    key is ``PRNGKey(42)`` there, and for seed 0 too (D1); its NumPy stream then differs from run to
    run (D4).)

    Args:
        dataset_dict: field name -> array ``[N, ...]`` or a nested dict of such arrays. The dict is
            kept, the arrays are not copied and never written to.
        seed: a non-negative integer.
        device: where :meth:`sample_torch` puts its batches.

    Raises:
        InputError: no array, no row, or arrays of unequal lengths, nested ones included (D9).
        TypeError: a field is no array, or the seed no integer.

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
        self._placed: dict[str, tuple[tuple[Any, ...], Any]] = {}
        self.seed(DEFAULT_SEED if seed is None else seed)

    def __len__(self) -> int:
        return self.dataset_len

    # --- streams --------------------------------------------------------------------

    @property
    def np_random(self) -> np.random.Generator:
        """The generator behind :meth:`sample`, :meth:`split` and nothing else."""
        return self._np_random

    @property
    def rng(self) -> PRNGKey:
        """The key ``[2]`` that :meth:`sample_torch` splits next; set it to resume or to replay."""
        return self._rng

    @rng.setter
    def rng(self, key: PRNGKey) -> None:
        self._rng = _check_key(key, "rng").clone()

    def seed(self, seed: int | None = None) -> list[int]:
        """Restart both streams.

        Args:
            seed: a non-negative integer; None takes fresh entropy from the operating system.

        Returns:
            The seed in a list, as Gym does.

        Raises:
            TypeError: the seed is no integer.
            InputError: it is negative.

        Example:
            >>> ds = Dataset({"a": np.arange(9.0)})
            >>> ds.seed(3), ds.rng.tolist()
            ([3], [0, 3])
        """
        if seed is not None:
            seed = check_integer(seed, "seed", at_least=0)
        self._np_random, used = gymnasium.utils.seeding.np_random(seed)
        self._seed = int(used)
        # With 32-bit integers PRNGKey takes the low word of a seed, fresh entropy included.
        self._rng = random.PRNGKey(self._seed)
        return [self._seed]

    # --- batches --------------------------------------------------------------------

    def sample(
        self,
        batch_size: int,
        keys: Iterable[str] | None = None,
        indx: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Draw rows with replacement, as NumPy arrays.

        Args:
            batch_size: number of rows, at least 1; not looked at when ``indx`` is given.
            keys: fields to return. Default: all.
            indx: rows to return in place of drawn ones, ``[B]``.

        Returns:
            Field name -> array ``[B, ...]`` of the field's own dtype, nested as the field is.

        Raises:
            InputError: batch_size below 1, or an unknown key.
            IndexError: a row in ``indx`` that is not there.

        Example:
            >>> ds = Dataset({"a": np.arange(100.0), "b": np.zeros(100)}, seed=0)
            >>> ds.sample(3, keys=["a"])
            {'a': array([85., 63., 51.])}
        """
        fields = self._fields(keys)
        if indx is None:
            rows = self._draw(check_integer(batch_size, "batch_size", at_least=1))
        else:
            rows = self._given_rows(indx)
        return self._take(fields, rows)

    def sample_torch(
        self,
        batch_size: int,
        key: PRNGKey | None = None,
        keys: Iterable[str] | None = None,
    ) -> dict[str, Any]:
        """Draw rows with replacement, as tensors on :attr:`device` (upstream's ``sample_jax``).

        The key is split once a call; the first half draws the indices with ``randint``, the second
        half is the key of the next call. Each call heeds its own ``batch_size`` and ``keys``, which
        upstream froze at the first call (D2).

        A field lives on the device from its first draw on, and is placed anew after :meth:`filter`,
        :meth:`normalize_returns`, or when an entry of :attr:`dataset_dict` is replaced. After
        writing *into* an array call :meth:`refresh`.

        Args:
            batch_size: number of rows, at least 1.
            key: a key ``[2]`` to split in place of :attr:`rng`, which then stays as it is.
            keys: fields to return. Default: all.

        Returns:
            Field name -> tensor ``[batch_size, ...]``, nested as the field is. Dtypes are JAX's:
            float64 comes as float32 and int64 as int32 unless under ``enable_x64``; bool stays.

        Raises:
            InputError: batch_size below 1, an unknown key, or a ``key`` that is no threefry key.

        Example:
            >>> ds = Dataset({"a": np.arange(100.0)}, seed=0)
            >>> ds.sample_torch(3)["a"], ds.rng.tolist()
            (tensor([92., 52., 87.]), [2718843009, 1272950319])
        """
        batch_size = check_integer(batch_size, "batch_size", at_least=1)
        fields = self._fields(keys)
        # drawn on the host, which never waits for an accelerator then
        draw, state = random.split((self._rng if key is None else _check_key(key, "key")).cpu())
        batch = self._take_torch(fields, self._draw_torch(draw, batch_size))
        if key is None:
            self._rng = state.clone()
        return batch

    def get_iterator(
        self,
        queue_size: int = 2,
        sample_args: Mapping[str, Any] = MappingProxyType({}),
        device: torch.device | str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Endless batches of :meth:`sample` as tensors on a device, drawn ahead of their use.

        Batches come in the order in which they were drawn. With ``queue_size=2``, upstream's
        default, each was drawn one call before it is handed out, so it knows nothing of what was
        inserted since (D21); ``queue_size=1`` draws it at the call itself. See
        :func:`idql_func.data.prefetch.prefetch`.

        Args:
            queue_size: number of batches held, at least 1.
            sample_args: keyword arguments of :meth:`sample`, ``batch_size`` among them.
            device: where the batches go. Default: :attr:`device`.

        Returns:
            An iterator over field name -> tensor ``[B, ...]``, nested as the field is, with JAX's
            dtypes as in :meth:`sample_torch`.

        Raises:
            InputError: queue_size below 1.

        Example:
            >>> batches = Dataset({"a": np.arange(100.0)}, seed=0).get_iterator(
            ...     sample_args={"batch_size": 3}
            ... )
            >>> next(batches)["a"], next(batches)["a"]
            (tensor([85., 63., 51.]), tensor([26., 30.,  4.]))
        """
        return prefetch(
            lambda: self.sample(**sample_args),
            queue_size,
            self.device if device is None else device,
        )

    def to(self, device: torch.device | str) -> Dataset:
        """Put later batches on ``device``; returns this dataset.

        Example:
            >>> Dataset({"a": np.zeros(2)}).to("cpu").device
            device(type='cpu')
        """
        self.device = torch.device(device)
        self.refresh()
        return self

    def on_device(self, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """The fields themselves on :attr:`device`, as :meth:`sample_torch` takes its rows from.

        For programs that draw rows inside. A replay buffer gives a copy of the rows in use.

        Args:
            keys: fields to return. Default: all.

        Returns:
            Field name -> tensor ``[N, ...]``, nested as the field is; not to be written to.

        Raises:
            InputError: an unknown key.

        Example:
            >>> Dataset({"a": np.zeros((3, 2))}).on_device()["a"].shape
            torch.Size([3, 2])
        """
        return {name: self._on_device(name) for name in self._fields(keys)}

    def refresh(self) -> None:
        """Place the fields on the device anew at the next :meth:`sample_torch`.

        Example:
            >>> ds = Dataset({"a": np.zeros(2)})
            >>> before = ds.sample_torch(1)["a"].item()
            >>> ds.dataset_dict["a"] += 1
            >>> ds.refresh()
            >>> before, ds.sample_torch(1)["a"].item()
            (0.0, 1.0)
        """
        self._placed = {}

    # --- subsets and returns ----------------------------------------------------------

    def split(self, ratio: float) -> tuple[Dataset, Dataset]:
        """Shuffle the rows with the seeded generator and cut them in two (D4).

        Each half gets a seed of its own, spawned from this dataset's (upstream's halves have none,
        and so draw the same indices in every run: D1). To replay upstream set ``half.rng``.

        Args:
            ratio: share of the rows that goes to the first half, in (0, 1).

        Returns:
            The first ``int(N * ratio)`` shuffled rows and the rest, each a :class:`Dataset`.

        Raises:
            InputError: ratio outside (0, 1), or a half without rows.

        Example:
            >>> train, held_out = Dataset({"a": np.arange(100)}, seed=0).split(0.95)
            >>> len(train), len(held_out), train.rng.tolist() != held_out.rng.tolist()
            (95, 5, True)
        """
        first, second = (self._part(rows, seed) for rows, seed in self.split_rows(ratio))
        return first, second

    def split_rows(self, ratio: float) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
        """The rows ``[n]`` (int32) and the seed of each half of :meth:`split`, without the halves.

        For several splits of one dataset that are never copied: seed it, ask, and seed it again.

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
        if not 0 < ratio < 1:
            raise InputError(f"split: ratio must lie between 0 and 1, got {ratio}.")
        index = self._transitions().astype(np.int32)
        cut = int(len(index) * ratio)
        if cut == 0 or cut == len(index):
            raise InputError(
                f"split: ratio {ratio} of {len(index)} rows leaves the "
                f"{'second' if cut else 'first'} half empty; give another ratio or more data."
            )
        self.np_random.shuffle(index)
        # Spawning derives seeds from the generator's seed without drawing from its stream.
        seeds = self.np_random.bit_generator.seed_seq.spawn(2)  # pyright: ignore
        first, second = (int(seed.generate_state(1)[0]) for seed in seeds)
        return (index[:cut], first), (index[cut:], second)

    def trajectory_boundaries_and_returns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where episodes start and end, by ``dones``, and what each returned.

        Returns:
            ``(starts, ends, returns)``: first rows ``[S]``, rows after the last ``[E]``, and the
            undiscounted returns ``[E]`` summed row by row in float64 whatever the rewards' dtype
            (D10). When the last row is not done there is one start more than there are ends.

        Raises:
            InputError: ``rewards`` or ``dones`` is missing or not ``[N]``.

        Example:
            >>> ds = Dataset({"rewards": np.ones(5), "dones": np.array([0, 1, 0, 0, 1])})
            >>> ds.trajectory_boundaries_and_returns()
            (array([0, 2]), array([2, 5]), array([2., 3.]))
        """
        rewards, dones = self._vector("rewards"), self._vector("dones").astype(bool)
        ends = np.flatnonzero(dones) + 1
        starts = np.concatenate([[0], ends[ends < len(dones)]])
        episode = np.cumsum(dones) - dones  # number of ends before each row
        # bincount adds in row order from 0.0 in float64, as the loop it stands for does.
        returns = np.bincount(episode, weights=rewards.astype(np.float64), minlength=len(ends))
        return starts, ends, returns[: len(ends)]

    def _trajectory_boundaries_and_returns(self) -> tuple[list, list, list]:
        """Upstream's name for :meth:`trajectory_boundaries_and_returns`, as lists."""
        starts, ends, returns = self.trajectory_boundaries_and_returns()
        return starts.tolist(), ends.tolist(), returns.tolist()

    def filter(self, take_top: float | None = None, threshold: float | None = None) -> None:
        """Keep whole episodes of high return, in place; an unfinished last episode goes.

        Args:
            take_top: keep the episodes at or above this percentage from the top, in [0, 100].
            threshold: keep the episodes that return at least this much.

        Raises:
            InputError: both or none of the two given, take_top outside [0, 100], no finished
                episode, or no episode that would stay (the dataset is then unchanged).

        Example:
            >>> ds = Dataset({"rewards": np.arange(6.0), "dones": np.array([0, 1, 0, 1, 0, 1])})
            >>> ds.filter(threshold=5)
            >>> ds.dataset_dict["rewards"]
            array([2., 3., 4., 5.])
        """
        if (take_top is None) == (threshold is None):
            raise InputError("filter: give either take_top or threshold, not both or none.")
        if take_top is not None and not 0 <= take_top <= 100:
            raise InputError(f"filter: take_top is a percentage in [0, 100], got {take_top}.")
        starts, ends, returns = self.trajectory_boundaries_and_returns()
        if len(ends) == 0:
            raise InputError("filter: the dataset has no finished episode; no row of dones is set.")
        if take_top is not None:
            threshold = float(np.percentile(returns, 100 - take_top))
        kept = returns >= threshold
        if not kept.any():
            raise InputError(
                f"filter: no episode returns {threshold} or more; the best returns {returns.max()}."
            )
        transitions = self._transitions()
        mask = np.zeros(len(transitions), dtype=bool)
        mask[: ends[-1]] = np.repeat(kept, ends - starts[: len(ends)])
        self._keep(transitions[mask])

    def normalize_returns(self, scaling: float = 1000) -> None:
        """Scale the rewards so that the best and the worst episode are ``scaling`` apart.

        The rewards are divided and then multiplied in their own dtype (D10), into a new array: the
        one passed in stays as it was.

        Args:
            scaling: the new distance between the highest and the lowest return.

        Raises:
            InputError: no finished episode, or all episodes return the same.

        Example:
            >>> ds = Dataset({"rewards": np.array([1.0, 3.0]), "dones": np.ones(2, bool)})
            >>> ds.normalize_returns()
            >>> ds.dataset_dict["rewards"]
            array([ 500., 1500.])
        """
        _, _, returns = self.trajectory_boundaries_and_returns()
        span = np.ptp(returns) if len(returns) else 0.0
        if not span > 0:
            raise InputError(
                f"normalize_returns: the {len(returns)} finished episodes need two different "
                "returns to scale by."
            )
        rewards = self._vector("rewards")
        dtype = np.result_type(rewards.dtype, np.float32)
        self._replace_rewards(rewards.astype(dtype) / dtype.type(span) * dtype.type(scaling))

    # --- inside -----------------------------------------------------------------------

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

    # What a subclass whose rows come and go does in its own way:

    def _draw(self, batch_size: int) -> np.ndarray:
        """Rows ``[B]`` from NumPy's stream."""
        return self.np_random.integers(len(self), size=batch_size)

    def _draw_torch(self, key: PRNGKey, batch_size: int) -> torch.Tensor:
        """Rows ``[B]`` from a threefry key."""
        return random.randint(key, (batch_size,), 0, len(self))

    def _given_rows(self, indx: Any) -> Any:
        """The caller's rows, checked; NumPy's own indexing checks those of a plain dataset."""
        return indx

    def _take(self, fields: Iterable[str], rows: Any) -> dict[str, Any]:
        return {name: map_arrays(self.dataset_dict[name], lambda v: v[rows]) for name in fields}

    def _take_torch(self, fields: Iterable[str], rows: torch.Tensor) -> dict[str, Any]:
        rows = rows.to(self.device, non_blocking=True)
        return {
            name: map_arrays(self._on_device(name), lambda v: v.index_select(0, rows))
            for name in fields
        }

    def _transitions(self) -> np.ndarray:
        """The rows that hold transitions, in the order in which they were made."""
        return np.arange(len(self))

    def _part(self, rows: np.ndarray, seed: int) -> Dataset:
        """One half of a split."""
        return Dataset(subselect(self.dataset_dict, rows), seed=seed, device=self.device)

    def _keep(self, rows: np.ndarray) -> None:
        """Only these rows stay."""
        self.dataset_dict = subselect(self.dataset_dict, rows)
        self.dataset_len = check_lengths(self.dataset_dict)
        self.refresh()

    def _replace_rewards(self, rewards: np.ndarray) -> None:
        """New rewards for the rows of :meth:`_transitions`, the caller's array left alone."""
        self.dataset_dict = {**self.dataset_dict, "rewards": rewards}
        self.refresh()

    def _vector(self, name: str) -> np.ndarray:
        """The field ``[N]`` of a number a row, in the order of :meth:`_transitions`."""
        value = self.dataset_dict.get(name)
        if not isinstance(value, np.ndarray) or value.ndim != 1:
            have = "no such field" if value is None else f"{type(value).__name__} {np.shape(value)}"
            raise InputError(
                f"Trajectories need the field {name!r} as an array [{len(self)}]; there is {have}."
            )
        return value

    def _on_device(self, name: str) -> Any:
        """One field as tensors on the device, placed anew when an array of it was replaced."""
        field = self.dataset_dict[name]
        sources = (x64_enabled(), *(v for _, v in named_leaves(field)))
        placed = self._placed.get(name)
        if placed is None or not _same_objects(placed[0], sources):
            self.dataset_len = check_lengths(self.dataset_dict)
            placed = self._placed[name] = (sources, map_arrays(field, placer(self.device)))
        return placed[1]


def _same_objects(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    return len(first) == len(second) and all(map(operator.is_, first, second))


def check_integer(value: Any, name: str, at_least: int) -> int:
    """The value as an int.

    Raises:
        TypeError: it is no integer (a bool is none either).
        InputError: it is below the bound.

    Example:
        >>> check_integer(np.int64(3), "capacity", at_least=1)
        3
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}.")
    if value < at_least:
        raise InputError(f"{name} must be at least {at_least}, got {value}.")
    return int(value)


def _check_key(key: Any, name: str) -> PRNGKey:
    if not isinstance(key, torch.Tensor) or tuple(key.shape) != (2,) or key.dtype != torch.int64:
        what = f"{key.dtype} {tuple(key.shape)}" if isinstance(key, torch.Tensor) else repr(key)
        raise InputError(
            f"{name} must be a key, an int64 tensor of shape (2,) as random.PRNGKey gives, "
            f"got {what}."
        )
    return key
