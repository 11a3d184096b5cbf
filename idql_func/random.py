"""JAX's random streams, bit for bit, as pure tensor functions.

A key is an int64 tensor ``[2]`` that holds two unsigned 32-bit words. Every function
takes the key first and returns the numbers that ``jax.random`` returns on a CPU: the
same bits for keys, bits, uniform, randint, bernoulli, permutation and choice, and
normals within 4 ulp. The functions run eagerly, inside :func:`idql_func.jit` and under
:func:`idql_func.vmap`, on the device of the key.

Sources: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011) for
threefry-2x32; M. Giles, "Approximating the erfinv function" (2010); ``jax._src.prng``
and ``jax._src.random`` for how JAX lays counters out and turns bits into numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from idql_func.kernels import draws
from idql_func.kernels.threefry import MASK, threefry2x32
from idql_func.kernels.xla_math import (
    erf,
    erfinv,
    fused_multiply_add,
    fused_multiply_add_once,
    log,
    sqrt2,
)
from idql_func.switches import (
    float_dtype,
    int_dtype,
    partitionable,
    threefry_partitionable,
    x64_enabled,
)
from idql_func.types import PRNGKey as Key

__all__ = [
    "PRNGKey",
    "bernoulli",
    "bits",
    "categorical",
    "choice",
    "fold_in",
    "gumbel",
    "normal",
    "permutation",
    "randint",
    "split",
    "split_chain",
    "threefry_partitionable",
    "truncated_normal",
    "uniform",
]

Shape = Sequence[int]


# --- keys ---------------------------------------------------------------------------


def PRNGKey(seed: int, device: torch.device | str | None = None) -> Key:
    """Make a key ``[2]`` from an integer seed (``jax.random.PRNGKey``).

    Outside :func:`idql_func.enable_x64` only the low 32 bits of the seed are used, as in
    JAX with 32-bit integers.

    Raises:
        TypeError: if the seed is not an integer.

    >>> PRNGKey(42).tolist()
    [0, 42]
    """
    if isinstance(seed, (bool, float)) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"PRNGKey: the seed must be an integer, got {type(seed).__name__}.")
    value = int(seed)
    high = (value >> 32) & MASK if x64_enabled() else 0
    return torch.tensor([high, value & MASK], dtype=torch.int64, device=device)


def split(key: Key, num: int = 2) -> Tensor:
    """Split a key into ``num`` new keys, ``[num, 2]`` (``jax.random.split``).

    >>> split(PRNGKey(0)).tolist()
    [[4146024105, 967050713], [2718843009, 1272950319]]
    """
    return draws.draw("split", _check_key(key), (num, 2))


def split_chain(key: Key, num: int, carry: int = 0) -> Tensor:
    """Split a key ``num`` times in succession; returns ``[num + 1, 2]``.

    One call equals the loop ``rng, key = split(rng)`` of a sampler: the first ``num`` rows are
    the keys, the last row is the final ``rng``. With ``carry=1`` it equals the loop
    ``key, rng = split(rng)``.

    Raises:
        ValueError: if ``num`` is negative, or ``carry`` is neither 0 nor 1.

    >>> keys = split_chain(PRNGKey(0), 2)
    >>> rng, first = split(PRNGKey(0))
    >>> rng, second = split(rng)
    >>> bool((keys == torch.stack([first, second, rng])).all())
    True
    """
    if num < 0 or carry not in (0, 1):
        raise ValueError(
            "split_chain: num must not be negative and carry must be 0 or 1, "
            f"got num={num} and carry={carry}."
        )
    return draws.draw("split_chain", _check_key(key), (num + 1, 2), carry)


def fold_in(key: Key, data: int | Tensor) -> Key:
    """Make a new key ``[2]`` from a key and a 32-bit integer (``jax.random.fold_in``).

    Raises:
        ValueError: if ``data`` is a tensor with more than one element.

    >>> fold_in(PRNGKey(0), 7).tolist()
    [2716826189, 292468403]
    """
    key = _check_key(key)
    if not isinstance(data, Tensor):
        data = int(data)
    elif data.ndim:
        raise ValueError(f"fold_in: data must be one integer, got shape {tuple(data.shape)}.")
    return draws.fold_in(key, data)


# --- numbers ------------------------------------------------------------------------


def bits(key: Key, shape: Shape = (), dtype: torch.dtype | None = None) -> Tensor:
    """Draw uniform unsigned integers (``jax.random.bits``).

    32-bit draws are returned as int64 values in ``[0, 2**32)``, because torch supports few
    operations on uint32. ``dtype=torch.uint64`` (the default under ``enable_x64``) draws 64 bits.

    Raises:
        TypeError: if dtype is neither torch.uint32 nor torch.uint64.

    >>> bits(PRNGKey(0), (3,)).tolist()
    [4146024105, 1351547692, 2718843009]
    """
    key, shape = _check_key(key), _check_shape(shape)
    if dtype is None:
        dtype = torch.uint64 if x64_enabled() else torch.uint32
    if dtype == torch.uint64:
        return _bits64(key, shape).view(torch.uint64)
    if dtype == torch.uint32:
        return draws.draw("bits", key, shape)
    raise TypeError(f"bits: dtype must be torch.uint32 or torch.uint64, got {dtype}.")


def uniform(
    key: Key,
    shape: Shape = (),
    dtype: torch.dtype | None = None,
    minval: float | Tensor = 0.0,
    maxval: float | Tensor = 1.0,
) -> Tensor:
    """Draw uniform floats in ``[minval, maxval)`` (``jax.random.uniform``).

    The final scale and shift are one fused multiply-add, as in XLA, and so rounded once.
    Subnormal numbers are zero, as in XLA.

    >>> uniform(PRNGKey(0), (2,)).tolist()
    [0.21629536151885986, 0.804124116897583]
    """
    key, shape, dtype = _check_key(key), _check_shape(shape), _check_float("uniform", dtype)
    if dtype == torch.float32 and not (isinstance(minval, Tensor) or isinstance(maxval, Tensor)):
        low, high = (float(np.float32(x)) for x in (minval, maxval))
        tiny = torch.finfo(dtype).tiny
        low, high = (math.copysign(0.0, x) if abs(x) < tiny else x for x in (low, high))
        numbers = draws.draw("uniform", key, shape, low, low if abs(high - low) < tiny else high)
        return _flush(numbers) if max(abs(low), abs(high)) < 2.0**-60 else numbers
    low, high = (
        _flush(torch.as_tensor(x, dtype=dtype, device=key.device)) for x in (minval, maxval)
    )
    unit = _unit_floats(key, shape, dtype)
    scale = fused_multiply_add_once if dtype == torch.float32 else fused_multiply_add
    return torch.maximum(low, _flush(scale(unit, _flush(high - low), low)))


def normal(key: Key, shape: Shape = (), dtype: torch.dtype | None = None) -> Tensor:
    """Draw standard normal floats, ``sqrt(2) * erfinv(u)`` (``jax.random.normal``).

    >>> [round(x, 4) for x in normal(PRNGKey(0), (2,)).tolist()]
    [-0.7848, 0.8564]
    """
    key, shape, dtype = _check_key(key), _check_shape(shape), _check_float("normal", dtype)
    if dtype == torch.float32:
        return draws.draw("normal", key, shape)
    # u is uniform on (nextafter(-1, 0), 1). Its width rounds to 2, so scaling is exact and only
    # the shift is rounded.
    low = math.nextafter(-1.0, 0.0)
    unit = _unit_floats(key, shape, dtype)
    return erfinv(torch.clamp(unit * 2.0 + low, min=low)) * sqrt2(dtype)


def truncated_normal(
    key: Key,
    lower: float,
    upper: float,
    shape: Shape = (),
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw standard normal floats within ``(lower, upper)`` (``jax.random.truncated_normal``).

    Raises:
        ValueError: if lower is not below upper.

    >>> bool(truncated_normal(PRNGKey(0), -2.0, 2.0, (100,)).abs().max() < 2)
    True
    """
    dtype = _check_float("truncated_normal", dtype)
    if not lower < upper:
        raise ValueError(f"truncated_normal: lower must be below upper, got {lower} and {upper}.")
    key = _check_key(key)
    low, high = (torch.tensor(x, dtype=dtype, device=key.device) for x in (lower, upper))
    u = uniform(key, shape, dtype, erf(low / sqrt2(dtype)), erf(high / sqrt2(dtype)))
    infinity = torch.full_like(low, math.inf)
    return torch.clamp(
        erfinv(u) * sqrt2(dtype),
        torch.nextafter(low, infinity),
        torch.nextafter(high, -infinity),
    )


def randint(
    key: Key,
    shape: Shape,
    minval: int | Tensor,
    maxval: int | Tensor,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw integers in ``[minval, maxval)`` (``jax.random.randint``).

    Each is the remainder of a number made of two random words, which is nearly unbiased.
    ``maxval <= minval`` gives ``minval``, as in JAX; a bound outside the range of the dtype is
    clipped to it. Bounds of 32-bit draws may be integer tensors that broadcast to ``shape``.

    Raises:
        TypeError: if dtype is neither torch.int32 nor torch.int64, or a bound of a 64-bit draw
            is a tensor.
        ValueError: if the range of a 64-bit draw is 2**63 or wider.

    >>> randint(PRNGKey(0), (4,), 0, 10).tolist()
    [8, 1, 7, 0]
    """
    key, shape = _check_key(key), _check_shape(shape)
    dtype = dtype or int_dtype()
    if dtype not in (torch.int32, torch.int64):
        raise TypeError(f"randint: dtype must be torch.int32 or torch.int64, got {dtype}.")
    width = 32 if dtype == torch.int32 else 64
    largest = 2 ** (width - 1) - 1
    if isinstance(minval, Tensor) or isinstance(maxval, Tensor):
        if width == 64:
            raise TypeError("randint: bounds of 64-bit draws must be Python integers.")
        bounds = [
            torch.as_tensor(x, dtype=torch.int64, device=key.device) for x in (minval, maxval)
        ]
        low, high = (torch.clamp(x, -largest - 1, largest) for x in bounds)
        span = torch.where(high <= low, 1, high - low + (bounds[1] > largest))
        high_bits, low_bits = (draws.draw("bits", k, shape) for k in split(key))
        return draws.randint_from_bits(high_bits, low_bits, low, span)
    past_largest = int(maxval) > largest
    low, high = (min(max(int(x), -largest - 1), largest) for x in (minval, maxval))
    span = 1 if high <= low else high - low + int(past_largest)
    if width == 32:
        return draws.draw("randint", key, shape, low, span)
    high_bits, low_bits = (_bits64(k, shape) for k in split(key))
    if span >= 2**63:
        raise ValueError(f"randint: the range [{low}, {high}) is wider than 2**63 - 1.")
    multiplier = ((2**32 % span) ** 2 % 2**64) % span
    # the multiplication wraps at 64 bits, as in JAX's unsigned arithmetic
    wrapped = _unsigned_remainder(high_bits, span) * multiplier
    offset = _unsigned_remainder(wrapped + _unsigned_remainder(low_bits, span), span)
    return offset + low


def bernoulli(key: Key, p: float | Tensor = 0.5, shape: Shape | None = None) -> Tensor:
    """Draw booleans that are True with probability ``p`` (``jax.random.bernoulli``).

    >>> bernoulli(PRNGKey(0), 0.5, (4,)).tolist()
    [False, True, False, True]
    """
    key = _check_key(key)
    if not isinstance(p, Tensor) and float_dtype() == torch.float32:
        shape = _check_shape(() if shape is None else shape)
        return draws.draw("bernoulli", key, shape, float(p))
    if not isinstance(p, Tensor):
        p = torch.full((), p, dtype=float_dtype(), device=key.device)
    return uniform(key, tuple(p.shape) if shape is None else shape, p.dtype) < p


def permutation(key: Key, x: int | Tensor, axis: int = 0, independent: bool = False) -> Tensor:
    """Permute ``range(x)``, or the tensor ``x`` along ``axis`` (``jax.random.permutation``).

    Sorts by random 32-bit words, in as many rounds as JAX. With ``independent`` each slice along
    ``axis`` is permuted separately.

    Raises:
        TypeError: if ``x`` is a tensor without axes.

    >>> permutation(PRNGKey(0), 5).tolist()
    [1, 0, 4, 3, 2]
    """
    key = _check_key(key)
    if not isinstance(x, Tensor):
        return _shuffle(key, torch.arange(int(x), dtype=int_dtype(), device=key.device), 0)
    if x.ndim == 0:
        raise TypeError("permutation: x must be an integer or have at least one axis.")
    axis = axis % x.ndim
    if independent or x.ndim == 1:
        return _shuffle(key, x, axis)
    index = _shuffle(key, torch.arange(x.shape[axis], device=key.device), 0)
    return x.index_select(axis, index)


def choice(
    key: Key,
    a: int | Tensor,
    shape: Shape = (),
    replace: bool = True,
    p: Tensor | None = None,
    axis: int = 0,
) -> Tensor:
    """Draw from ``range(a)``, or from ``a`` along ``axis`` (``jax.random.choice``).

    ``p`` need not sum to one: a binary search finds ``total * (1 - u)`` in the cumulative sum
    (quirk E3).

    Raises:
        ValueError: if there is nothing to draw from, more entries are drawn without replacement
            than there are, or ``p`` has another length.

    >>> choice(PRNGKey(0), 5, (3,), replace=False).tolist()
    [1, 0, 4]
    """
    key, shape = _check_key(key), _check_shape(shape)
    array = a if isinstance(a, Tensor) and a.ndim else None
    count = array.shape[axis] if array is not None else int(a)
    num = math.prod(shape)
    if num and count <= 0:
        raise ValueError("choice: there must be at least one entry to draw from, got 0.")
    if not replace and num > count:
        raise ValueError(
            f"choice: at most {count} entries can be drawn without replacement, got {num}."
        )
    if p is not None and tuple(p.shape) != (count,):
        raise ValueError(f"choice: p must have shape ({count},), got {tuple(p.shape)}.")
    if num == 0:
        index = torch.zeros(shape, dtype=int_dtype(), device=key.device)
    elif p is None and replace:
        index = randint(key, shape, 0, count)
    elif p is None and array is not None:
        kept = permutation(key, array, axis).narrow(axis, 0, num)
        return kept.unflatten(axis, tuple(shape)) if shape else kept.squeeze(axis)
    elif p is None:
        index = permutation(key, count)[:num]
    elif replace:
        total = _cumulative_sum(p)
        r = total[-1] * (1 - uniform(key, shape, p.dtype))
        index = _search_sorted(total, r).to(int_dtype())
    else:
        # Gumbel top-k: the smallest of (-g - log p)
        index = torch.sort(-gumbel(key, (count,), p.dtype) - p.log(), stable=True)[1][:num]
        index = index.to(int_dtype())
    index = index.reshape(shape)
    if array is None:
        return index
    picked = array.index_select(axis, index.reshape(-1).long())
    return picked.unflatten(axis, tuple(shape)) if shape else picked.squeeze(axis)


def gumbel(key: Key, shape: Shape = (), dtype: torch.dtype | None = None) -> Tensor:
    """Draw standard Gumbel floats, ``-log(-log(u))`` (``jax.random.gumbel``).

    >>> [round(x, 3) for x in gumbel(PRNGKey(0), (1,)).tolist()]
    [0.138]
    """
    dtype = _check_float("gumbel", dtype)
    u = uniform(key, shape, dtype, torch.finfo(dtype).tiny, 1.0)
    return -log(-log(u))


def categorical(key: Key, logits: Tensor, axis: int = -1, shape: Shape | None = None) -> Tensor:
    """Draw indices with probability ``softmax(logits)`` along ``axis`` (Gumbel-max).

    ``shape`` is the shape of the result; it must end in the batch shape of the logits.

    Raises:
        ValueError: if ``shape`` does not end in the batch shape of the logits.

    >>> categorical(PRNGKey(0), torch.tensor([0.0, 5.0, 0.0])).item()
    1
    """
    axis = axis % logits.ndim
    batch = tuple(n for i, n in enumerate(logits.shape) if i != axis)
    shape = batch if shape is None else tuple(shape)
    if shape[len(shape) - len(batch) :] != batch:
        raise ValueError(
            f"categorical: shape {shape} must end in the batch shape of the logits, {batch}."
        )
    extra = shape[: len(shape) - len(batch)]
    noise = gumbel(key, (*extra, *logits.shape), logits.dtype)
    return torch.argmax(noise + logits, dim=len(extra) + axis).to(int_dtype())


# --- words --------------------------------------------------------------------------


def _bits64(key: Tensor, shape: tuple[int, ...]) -> Tensor:
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


# --- from bits to numbers -------------------------------------------------------------


def _unit_floats(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Draw floats in [0, 1) from the top bits of words, as many as the mantissa holds."""
    if dtype == torch.float64:
        mantissa = (_bits64(key, shape) >> 12) & (2**52 - 1)
        return mantissa.to(torch.float64) * 2.0**-52
    return draws.draw("uniform", key, shape, 0.0, 1.0)


def _flush(x: Tensor) -> Tensor:
    """Replace subnormal numbers by zero, as XLA does on a CPU."""
    return torch.where(x.abs() < torch.finfo(x.dtype).tiny, x * 0, x)


def _unsigned_remainder(x: Tensor, span: int) -> Tensor:
    """Compute ``x mod span`` for unsigned 64-bit ``x`` stored as int64, ``0 < span < 2**63``."""
    half = ((x >> 1) & (2**63 - 1)) % span
    # 2 * half mod span, without overflow of int64
    doubled = torch.where(half >= span - half, half - (span - half), half + half)
    bit = x & 1
    return torch.where(doubled == span - 1, torch.where(bit == 1, 0, doubled), doubled + bit)


_SMALL = 32
"""The longest axis that is sorted by comparing all pairs."""


def _shuffle(key: Tensor, x: Tensor, axis: int) -> Tensor:
    """Shuffle by stable sorts of random words; the number of rounds is JAX's heuristic."""
    rounds = math.ceil(3 * math.log(max(1, x.numel())) / math.log(MASK))
    for _ in range(rounds):
        key, subkey = split(key).unbind(0)
        words = draws.draw("bits", subkey, tuple(x.shape))
        if x.ndim == 1 and len(x) <= _SMALL:
            order = _stable_argsort_small(words)
        else:
            order = torch.sort(words, dim=axis, stable=True)[1]
        x = torch.gather(x, axis, order)
    return x


def _stable_argsort_small(words: Tensor) -> Tensor:
    """The indices of a stable sort of ``[n]``, in arithmetic that a compiler fuses with its users.

    The rank of an element is the number of elements that come before it.
    """
    place = torch.arange(len(words), device=words.device)
    smaller, equal = words < words[:, None], words == words[:, None]
    rank = (smaller | (equal & (place < place[:, None]))).sum(1)
    return ((rank == place[:, None]) * place).sum(1)


def _cumulative_sum(x: Tensor) -> Tensor:
    """Prefix sums ``[n]`` in the order of JAX's associative scan, for the same rounding."""
    n = x.shape[0]
    if n < 2:
        return x
    odd = _cumulative_sum(x[: n - n % 2 : 2] + x[1::2])
    even = torch.cat([x[:1], (odd[:-1] if n % 2 == 0 else odd) + x[2::2]])
    paired = torch.stack([even[: odd.shape[0]], odd], dim=1).reshape(-1)
    return paired if n % 2 == 0 else torch.cat([paired, even[-1:]])


def _search_sorted(ordered: Tensor, query: Tensor) -> Tensor:
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


# --- checks of arguments ----------------------------------------------------------------


def _check_key(key: Tensor) -> Tensor:
    if not isinstance(key, Tensor):
        key = torch.from_numpy(np.asarray(key).astype(np.int64))
    if key.shape != (2,):
        raise ValueError(
            f"random: a key is an integer tensor of shape (2,), got {tuple(key.shape)}; "
            "use split(key, n)[i], or vmap over a stack of keys."
        )
    return key if key.dtype == torch.int64 else key.to(torch.int64)


def _check_shape(shape: Shape) -> tuple[int, ...]:
    if isinstance(shape, int):
        raise TypeError(f"random: shape must be a sequence of integers, got the integer {shape}.")
    if any(n < 0 for n in shape):
        raise ValueError(f"random: shape must not have negative sizes, got {tuple(shape)}.")
    return tuple(int(n) for n in shape)


def _check_float(name: str, dtype: torch.dtype | None) -> torch.dtype:
    dtype = dtype or float_dtype()
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name}: dtype must be torch.float32 or torch.float64, got {dtype}.")
    return dtype
