"""Threefry-2x32, the hash function of every random stream, as one operator.

On a CPU it runs in C and is one node of a graph; the tensor form has 160 nodes. The tensor form
runs on other devices and without a C compiler.

Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from idql_func.kernels.build import CFunction, c_functions, mapped_first, operator

MASK = 0xFFFFFFFF
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry2x32(key: Tensor, counts: Tensor) -> Tensor:
    """Hash counters ``[2, n]`` under a key ``[2]`` to words ``[2, n]``, all 32 bits in int64.

    >>> threefry2x32(torch.tensor([0, 0]), torch.tensor([[0], [0]])).flatten().tolist()
    [1797259609, 2579123966]
    """
    if uses_c(key):
        return _threefry_op(key, counts)
    return threefry2x32_tensors(key, counts)


def threefry2x32_tensors(key: Tensor, counts: Tensor) -> Tensor:
    """Compute :func:`threefry2x32` with tensor operations, on any device.

    Keys ``[..., 2]`` and counters ``[2, n]`` give words ``[..., 2, n]``.

    >>> threefry2x32_tensors(torch.tensor([0, 0]), torch.tensor([[0], [0]])).flatten().tolist()
    [1797259609, 2579123966]
    """
    k0, k1 = key[..., 0, None], key[..., 1, None]
    keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    x0 = counts[0] + keys[0]
    x1 = (counts[1] + keys[1]) & MASK
    for i in range(5):
        for rotation in _ROTATIONS[i % 2]:
            # x0 may exceed 32 bits (it stays below 2**38); only x1 is shifted right
            x0 = x0 + x1
            doubled = x1 << rotation
            x1 = ((doubled | (doubled >> 32)) ^ x0) & MASK
        x0 = x0 + keys[(i + 1) % 3]
        x1 = (x1 + (keys[(i + 2) % 3] + (i + 1))) & MASK
    return torch.stack([x0 & MASK, x1], dim=-2)


def uses_c(key: Tensor) -> bool:
    """Whether draws from this key run in C."""
    return key.device.type == "cpu" and available()


def available() -> bool:
    """Whether the C functions can be used.

    >>> available() in (True, False)
    True
    """
    return functions() is not None


@functools.cache
def functions() -> dict[str, CFunction] | None:
    """The functions of ``csrc/threefry.c``, or None without a C compiler."""
    signatures = {
        "threefry2x32": "pnpnp",
        "draw": "npnnnnpc",
        "split": "pnnnp",
        "split_chain": "pnnnnp",
        "fold_in": "pnpnp",
        "randint": "pnnnnnp",
    }
    return c_functions("threefry", signatures)


def _run(key: Tensor, counts: Tensor) -> Tensor:
    built = functions()
    if built is None:  # traced with a C compiler, run without one
        return threefry2x32_tensors(key, counts)
    key, counts = key.contiguous(), counts.contiguous()
    words = torch.empty((*key.shape[:-1], *counts.shape), dtype=torch.int64)
    rows, n = key.numel() // 2, counts.shape[1]
    built["threefry2x32"](key.data_ptr(), rows, counts.data_ptr(), n, words.data_ptr())
    return words


def _fake(key: Tensor, counts: Tensor) -> Tensor:
    return key.new_empty((*key.shape[:-1], *counts.shape))


def _map(info, in_dims, key: Tensor, counts: Tensor):
    key_dim, counts_dim = in_dims
    key = mapped_first(info.batch_size, key, key_dim)
    if counts_dim is None:
        return threefry2x32(key, counts), 0
    rows = counts.movedim(counts_dim, 0).unbind(0)
    return torch.stack([threefry2x32(key[i], row) for i, row in enumerate(rows)]), 0


_threefry_op = operator(
    "threefry2x32(Tensor key, Tensor counts) -> Tensor",
    _run,
    fake=_fake,
    vmap=_map,
    has_derivative=False,
)
