"""Words of 16 and 64 bits, unsigned arithmetic on them, and the numbers made of their bits.

torch has few operations on unsigned integers: a 32-bit word is stored as a number in int64, a
64-bit word as the int64 of the same bits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from idql_func.kernels import draws
from idql_func.kernels.threefry import MASK, threefry2x32
from idql_func.kernels.xla_math import erfinv
from idql_func.switches import partitionable


def bits64(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw 64-bit words, each as the int64 of the same bit pattern, ``shape``."""
    size = math.prod(shape)
    if 2 * size >= 2**32 - 1:
        raise ValueError(
            f"random: a draw of {2 * size} words exceeds 2**32 - 2, the most from one key."
        )
    counts = torch.arange(2 * size, dtype=torch.int64, device=key.device)
    if partitionable():  # 64-bit counters, whose high words are zero
        counts = torch.cat([torch.zeros_like(counts[:size]), counts[:size]])
    words = threefry2x32(key, counts.reshape(2, size))
    return ((words[0] << 32) | words[1]).reshape(shape)


def narrow_bits(key: Tensor, shape: tuple[int, ...], width: int) -> Tensor:
    """Draw words of 8, 16 or 32 bits as int64 values, ``shape``."""
    if width == 32:
        return draws.draw("bits", key, shape)
    mask = 2**width - 1
    if partitionable():
        return draws.draw("bits", key, shape) & mask
    # the older layout cuts each 32-bit word into narrower ones, lowest bits first
    size, each = math.prod(shape), 32 // width
    words = draws.draw("bits", key, (math.ceil(size / each),))
    shifts = torch.arange(0, 32, width, device=key.device)
    return ((words[:, None] >> shifts) & mask).reshape(-1)[:size].reshape(shape)


def unit_floats(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Draw floats in [0, 1) from the top bits of words, as many as the mantissa holds."""
    if dtype == torch.float64:
        mantissa = (bits64(key, shape) >> 12) & (2**52 - 1)
        return mantissa.to(torch.float64) * 2.0**-52
    if dtype == torch.float16:
        return ((narrow_bits(key, shape, 16) >> 6) * 2.0**-10).to(dtype)
    if dtype == torch.bfloat16:
        return ((narrow_bits(key, shape, 8) >> 1) * 2.0**-7).to(dtype)
    return draws.draw("uniform", key, shape, 0.0, 1.0)


def flush(x: Tensor) -> Tensor:
    """Replace subnormal numbers by zero, as XLA does on a CPU."""
    subnormal = (x.abs() < torch.finfo(x.dtype).tiny) & (x != 0)  # 0 keeps its derivative
    return torch.where(subnormal, x * 0, x)


def randint64(first: Tensor, second: Tensor, low: Tensor, span: Tensor) -> Tensor:
    """int64 numbers in ``[low, low + span)`` from two 64-bit words each; ``span`` is unsigned."""
    factor = unsigned_remainder(torch.full_like(span, 2**32), span)
    factor = unsigned_remainder(factor * factor, span)
    # products and sums wrap at 64 bits, as in JAX's unsigned arithmetic
    offset = unsigned_remainder(first, span) * factor + unsigned_remainder(second, span)
    return low + unsigned_remainder(offset, span)


def signed(word: int) -> int:
    """The signed 64-bit number with the bits of an unsigned one."""
    return (word + 2**63) % 2**64 - 2**63


def unsigned_remainder(x: Tensor, span: Tensor) -> Tensor:
    """``x mod span`` of unsigned 64-bit words stored as int64; no change for a span of 0."""
    small = span.clamp(min=1)  # for spans below 2**63
    half = ((x >> 1) & (2**63 - 1)) % small
    # 2 * half mod span, without overflow of int64
    doubled = torch.where(half >= small - half, half - (small - half), half + half)
    last = doubled == small - 1
    remainder = torch.where(last, torch.where(x & 1 == 1, 0, doubled), doubled + (x & 1))
    # a larger span goes into x once at most; the lowest int64 flips the order to the unsigned one
    once = torch.where((x ^ -(2**63)) >= (span ^ -(2**63)), x - span, x)
    return torch.where(span == 0, x, torch.where(span < 0, once, remainder))


def remainder_of_two(high: Tensor, low: Tensor, span: Tensor) -> Tensor:
    """``(high * 2**32 + low) mod span`` in JAX's steps of unsigned words; no change for 0."""

    def rest(x: Tensor) -> Tensor:
        return torch.where(span == 0, x, x % span.clamp(min=1))

    factor = rest(torch.full_like(span, 2**16))
    factor = rest((factor * factor) & MASK)
    return rest(((rest(high) * factor) + rest(low)) & MASK)


def low_bits(x: Tensor) -> Tensor:
    """The lowest 32 bits of integers, as signed numbers in int64."""
    return ((x.to(torch.int64) + 2**31) & MASK) - 2**31


def narrow_erfinv(u: Tensor) -> Tensor:
    """``erfinv`` of 16-bit floats, computed in float32 as in XLA."""
    return erfinv(u.float()).to(u.dtype)


def narrow_sqrt2(dtype: torch.dtype) -> Tensor:
    """The square root of two in 16 bits."""
    return torch.tensor(math.sqrt(2), dtype=dtype)
