"""The index stream of upstream's ``sample_jax``, drawn on the host.

One batch of indices costs four small threefry hashes. Eagerly on tensors that is some 800 tiny
operations (1.4 ms); on Python integers and NumPy arrays it takes a tenth of that and never waits
for an accelerator. The hash itself is :mod:`idql_func.random`'s, and so are the numbers: the tests
hold them equal to ``random.split`` and ``random.randint`` in both stream layouts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from idql_func import random
from idql_func._switches import partitionable, x64_enabled
from idql_func.types import PRNGKey

__all__ = ["draw_indices", "next_keys"]

_MASK = 0xFFFFFFFF
_Words = tuple[int, int]


def next_keys(key: PRNGKey) -> tuple[PRNGKey, PRNGKey]:
    """The key that draws this batch and the key that stays for the next (``D:118``, quirk N15).

    Example:
        >>> draw, state = next_keys(random.PRNGKey(0))
        >>> torch.equal(torch.stack([draw, state]), random.split(random.PRNGKey(0)))
        True
    """
    draw, state = _split(_words(key))
    return torch.tensor(draw), torch.tensor(state)


def draw_indices(key: PRNGKey, batch_size: int, length: int) -> np.ndarray:
    """``jax.random.randint(key, (batch_size,), 0, length)``, bit for bit.

    Args:
        key: a threefry key ``[2]`` on any device.
        batch_size: how many indices, at least 1.
        length: the indices lie in ``[0, length)``; at least 1, at most ``2**31 - 1``.

    Returns:
        int64 ``[batch_size]``.

    Example:
        >>> draw_indices(random.PRNGKey(0), 4, 10)
        array([8, 1, 7, 0])
    """
    if x64_enabled():  # 64-bit draws come from other bits; only parity runs ask for them
        return random.randint(key.cpu(), (batch_size,), 0, length).numpy()
    high, low = _bits(np.array(_split(_words(key))), batch_size)
    # As jax.random.randint: 64 random bits modulo the span, in wrapping 32-bit arithmetic.
    multiplier = ((2**16 % length) ** 2 & _MASK) % length
    return ((((high % length) * multiplier & _MASK) + low % length) & _MASK) % length


def _words(key: PRNGKey) -> _Words:
    first, second = key.tolist()
    return first, second


def _hash(key: tuple[Any, Any], x0: Any, x1: Any) -> tuple[Any, Any]:
    # The hash is plain integer arithmetic: it takes Python integers and arrays as it does tensors.
    k0, k1 = key
    return random._threefry2x32(k0, k1, x0, x1)  # pyright: ignore[reportArgumentType]


def _split(key: _Words) -> tuple[_Words, _Words]:
    if partitionable():
        return _hash(key, 0, 0), _hash(key, 0, 1)
    (a, c), (b, d) = _hash(key, 0, 2), _hash(key, 1, 3)
    return (a, b), (c, d)


def _bits(keys: np.ndarray, size: int) -> np.ndarray:
    """``random.bits(key, (size,))`` of several keys ``[K, 2]`` at once: ``[K, size]``."""
    words = (keys[:, :1], keys[:, 1:])
    counts = np.arange(size)
    if partitionable():
        first, second = _hash(words, np.zeros_like(counts), counts)
        return first ^ second
    if size % 2:
        counts = np.append(counts, 0)
    return np.concatenate(_hash(words, *np.split(counts, 2)), axis=1)[:, :size]
