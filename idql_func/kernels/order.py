"""Sorting, prefix sums and binary search in JAX's order of operations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALL = 32
"""The longest axis that is sorted by comparing all pairs."""


def stable_argsort(x: Tensor, axis: int) -> Tensor:
    """The indices of a stable sort along an axis."""
    if x.ndim == 1 and len(x) <= SMALL:
        return _argsort_of_pairs(x)
    return torch.sort(x, dim=axis, stable=True)[1]


def _argsort_of_pairs(words: Tensor) -> Tensor:
    """The indices of a stable sort of ``[n]``, in arithmetic that a compiler fuses with its users.

    The rank of an element is the number of elements that come before it.
    """
    place = torch.arange(len(words), device=words.device)
    smaller, equal = words < words[:, None], words == words[:, None]
    rank = (smaller | (equal & (place < place[:, None]))).sum(1)
    return ((rank == place[:, None]) * place).sum(1)


def cumulative_sum(x: Tensor) -> Tensor:
    """Prefix sums ``[n]`` in the order of JAX's associative scan, for the same rounding."""
    n = x.shape[0]
    if n < 2:
        return x
    odd = cumulative_sum(x[: n - n % 2 : 2] + x[1::2])
    even = torch.cat([x[:1], (odd[:-1] if n % 2 == 0 else odd) + x[2::2]])
    paired = torch.stack([even[: odd.shape[0]], odd], dim=1).reshape(-1)
    return paired if n % 2 == 0 else torch.cat([paired, even[-1:]])


def search_sorted(ordered: Tensor, query: Tensor) -> Tensor:
    """Left binary search with JAX's steps, which gives JAX's results on unordered sums too (E1)."""
    count = ordered.shape[0]
    low = torch.zeros_like(query, dtype=torch.int64)
    high = torch.full_like(low, count)
    for _ in range(math.ceil(math.log2(count + 1))):
        middle = (low + high) // 2
        # not ordered[middle]: tracing would convert an index without axes to a Python number
        go_left = query <= ordered.index_select(0, middle.reshape(-1)).reshape(middle.shape)
        low, high = torch.where(go_left, low, middle), torch.where(go_left, middle, high)
    return high
