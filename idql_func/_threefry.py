"""Threefry-2x32, the hash behind every random stream, as one operator.

On a CPU it is a few lines of C, built once by the machine's C compiler and kept in the
cache folder: a graph sees one node where the tensor form has 160, and an eager draw
takes microseconds. On other devices, or without a compiler, the tensor form runs.

Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
"""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from idql_func._native import library

MASK = 0xFFFFFFFF
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

_SOURCE = """
#include <stdint.h>

#define ROUND(r) a += b; b = (b << r) | (b >> (32 - r)); b ^= a;
#define ROUNDS_EVEN ROUND(13) ROUND(15) ROUND(26) ROUND(6)
#define ROUNDS_ODD ROUND(17) ROUND(29) ROUND(16) ROUND(24)

/* words[i] = hash(keys[i], counts): counts and words hold 32-bit words in int64 */
void threefry2x32(const int64_t *keys, int64_t rows, const int64_t *counts, int64_t n,
                  int64_t *words)
{
    for (int64_t row = 0; row < rows; row++) {
        const uint32_t k0 = (uint32_t)keys[2 * row], k1 = (uint32_t)keys[2 * row + 1];
        const uint32_t k2 = k0 ^ k1 ^ 0x1BD11BDAu;
        const int64_t *restrict c0 = counts, *restrict c1 = counts + n;
        int64_t *restrict w0 = words + 2 * n * row, *restrict w1 = w0 + n;
        for (int64_t i = 0; i < n; i++) {
            uint32_t a = (uint32_t)c0[i] + k0, b = (uint32_t)c1[i] + k1;
            ROUNDS_EVEN a += k1; b += k2 + 1u;
            ROUNDS_ODD  a += k2; b += k0 + 2u;
            ROUNDS_EVEN a += k0; b += k1 + 3u;
            ROUNDS_ODD  a += k1; b += k2 + 4u;
            ROUNDS_EVEN a += k2; b += k0 + 5u;
            w0[i] = a;
            w1[i] = b;
        }
    }
}
"""


def threefry2x32(key: Tensor, counts: Tensor) -> Tensor:
    """The hash ``[2, n]`` of counters ``[2, n]`` under a key ``[2]``; all int64 words.

    >>> threefry2x32(torch.tensor([0, 0]), torch.tensor([[0], [0]])).flatten().tolist()
    [1797259609, 2579123966]
    """
    if key.device.type == "cpu" and _kernel() is not None:
        return _threefry_op(key, counts)
    return threefry2x32_tensors(key, counts)


def threefry2x32_tensors(key: Tensor, counts: Tensor) -> Tensor:
    """The same in tensor operations, on any device.

    >>> threefry2x32_tensors(torch.tensor([0, 0]), torch.tensor([[0], [0]])).flatten().tolist()
    [1797259609, 2579123966]
    """
    k0, k1 = key[..., 0, None], key[..., 1, None]
    keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    x0 = counts[0] + keys[0]
    x1 = (counts[1] + keys[1]) & MASK
    for i in range(5):
        for rotation in _ROTATIONS[i % 2]:
            # x0 may grow past 32 bits (below 2**38 in all): only x1 is shifted right
            x0 = x0 + x1
            doubled = x1 << rotation
            x1 = ((doubled | (doubled >> 32)) ^ x0) & MASK
        x0 = x0 + keys[(i + 1) % 3]
        x1 = (x1 + (keys[(i + 2) % 3] + (i + 1))) & MASK
    return torch.stack([x0 & MASK, x1], dim=-2)


@torch.library.custom_op("idql_func::threefry2x32", mutates_args=())
def _threefry_op(key: Tensor, counts: Tensor) -> Tensor:
    """Keys ``[..., 2]`` and counters ``[2, n]`` to words ``[..., 2, n]``, on the CPU."""
    kernel = _kernel()
    if kernel is None:  # a graph made where there was a compiler, run where there is none
        return threefry2x32_tensors(key, counts)
    key, counts = key.contiguous(), counts.contiguous()
    words = torch.empty((*key.shape[:-1], *counts.shape), dtype=torch.int64)
    kernel(key.data_ptr(), key.numel() // 2, counts.data_ptr(), counts.shape[1], words.data_ptr())
    return words


@_threefry_op.register_fake
def _(key: Tensor, counts: Tensor) -> Tensor:
    return key.new_empty((*key.shape[:-1], *counts.shape))


@_threefry_op.register_vmap
def _(info, in_dims, key: Tensor, counts: Tensor):
    key_dim, counts_dim = in_dims
    if key_dim is not None:
        key = key.movedim(key_dim, 0)
    else:
        key = key.expand(info.batch_size, *key.shape)
    if counts_dim is None:
        return threefry2x32(key, counts), 0
    rows = counts.movedim(counts_dim, 0).unbind(0)
    return torch.stack([threefry2x32(key[i], row) for i, row in enumerate(rows)]), 0


@functools.cache
def _kernel():
    """The compiled function, or None where there is no C compiler."""
    built = library("threefry", _SOURCE)
    if built is None:
        return None
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    function = built.threefry2x32
    function.argtypes = [pointer, integer, pointer, integer, pointer]
    function.restype = None
    return function
