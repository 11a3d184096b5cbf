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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idql_func.boundary import explain_module
from idql_func.compiler.trace import inside_transform
from idql_func.kernels import draws
from idql_func.kernels.order import (
    cumulative_sum,
    search_sorted,
    stable_argsort,
)
from idql_func.kernels.threefry import MASK
from idql_func.kernels.words import (
    bits64,
    flush,
    low_bits,
    narrow_bits,
    narrow_erfinv,
    narrow_sqrt2,
    randint64,
    remainder_of_two,
    signed,
    unit_floats,
)
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
    threefry_partitionable,
    x64_enabled,
)
from idql_func.tree import NUMPY, array_tensor, as_tensor
from idql_func.types import PRNGKey as Key

__all__ = [
    "PRNGKey",
    "bernoulli",
    "bits",
    "categorical",
    "choice",
    "fold_in",
    "gumbel",
    "key",
    "key_data",
    "normal",
    "permutation",
    "randint",
    "split",
    "split_chain",
    "threefry_partitionable",
    "truncated_normal",
    "uniform",
    "wrap_key_data",
]

Shape = int | Sequence[int]


# --- keys ---------------------------------------------------------------------------


def PRNGKey(seed: int | Tensor | np.ndarray, device: torch.device | str | None = None) -> Key:
    """Make a key ``[2]`` from an integer seed (``jax.random.PRNGKey``).

    Outside :func:`idql_func.enable_x64` only the low 32 bits of the seed are used, as in
    JAX with 32-bit integers. The seed may be a traced or mapped tensor without axes.

    Raises:
        TypeError: if the seed is not one integer.
        ValueError: if it does not fit into 64 bits.

    >>> PRNGKey(42).tolist()
    [0, 42]
    """
    if isinstance(seed, np.ndarray) and seed.dtype.kind in "iub":
        seed = torch.from_numpy(seed.astype(np.int64))
    if isinstance(seed, Tensor):
        if seed.ndim or seed.is_floating_point():
            raise TypeError(
                f"PRNGKey: the seed must be one integer, got {seed.dtype} of shape "
                f"{tuple(seed.shape)}; use vmap(PRNGKey) for several."
            )
        wide = seed.to(device=device, dtype=torch.int64)
        high = (wide >> 32) & MASK if x64_enabled() and seed.dtype == torch.int64 else wide * 0
        return torch.stack([high, wide & MASK])
    if not isinstance(seed, (int, np.integer)):
        raise TypeError(f"PRNGKey: the seed must be an integer, got {type(seed).__name__}.")
    value = int(seed)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"PRNGKey: the seed must fit into 64 bits, got {value}.")
    high = (value >> 32) & MASK if x64_enabled() else 0
    return torch.tensor([high, value & MASK], dtype=torch.int64, device=device)


def key(seed: int | Tensor, device: torch.device | str | None = None) -> Key:
    """Make a key (``jax.random.key``); here it is the same tensor as that of :func:`PRNGKey`.

    >>> key(42).tolist()
    [0, 42]
    """
    return PRNGKey(seed, device)


def key_data(keys: Tensor) -> Tensor:
    """The words of keys ``[..., 2]`` (``jax.random.key_data``); here the keys themselves.

    >>> key_data(key(42)).tolist()
    [0, 42]
    """
    return wrap_key_data(keys)


def wrap_key_data(words: Tensor) -> Tensor:
    """Keys ``[..., 2]`` of words (``jax.random.wrap_key_data``); here the words themselves.

    Raises:
        ValueError: if the last axis does not hold two integer words.

    >>> wrap_key_data(torch.tensor([0, 42])).tolist()
    [0, 42]
    """
    words = as_tensor(words)
    if words.ndim == 0 or words.shape[-1] != 2 or words.is_floating_point():
        raise ValueError(
            f"wrap_key_data: keys are integers of shape (..., 2), got {words.dtype} of shape "
            f"{tuple(words.shape)}."
        )
    return words.to(torch.int64)


def split(key: Key, num: Shape = 2) -> Tensor:
    """Split a key into new keys (``jax.random.split``): ``[num, 2]``, or ``[*num, 2]``.

    Raises:
        TypeError: if ``num`` is neither an integer nor a sequence of them.
        ValueError: if it is negative.

    >>> split(PRNGKey(0)).tolist()
    [[4146024105, 967050713], [2718843009, 1272950319]]
    >>> split(PRNGKey(0), (2, 3)).shape
    torch.Size([2, 3, 2])
    """
    shape = _check_shape(num, "split: num")
    keys = draws.draw("split", _check_key(key), (math.prod(shape), 2))
    return keys if len(shape) == 1 else keys.reshape(*shape, 2)


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
        ValueError: if ``data`` is a tensor with axes, or a Python integer of more than 32 bits.

    >>> fold_in(PRNGKey(0), 7).tolist()
    [2716826189, 292468403]
    """
    key = _check_key(key)
    if isinstance(data, NUMPY):
        data = torch.from_numpy(np.array(data).astype(np.int64))
    if not isinstance(data, Tensor):
        data = int(data)
        if not 0 <= data <= MASK:
            raise ValueError(f"fold_in: data must lie in [0, 2**32), got {data}.")
    elif data.ndim:
        raise ValueError(f"fold_in: data must be one integer, got shape {tuple(data.shape)}.")
    return draws.fold_in(key, data)


# --- numbers ------------------------------------------------------------------------


def bits(key: Key, shape: Shape = (), dtype: torch.dtype | None = None) -> Tensor:
    """Draw uniform unsigned integers (``jax.random.bits``).

    32-bit draws are returned as int64 values in ``[0, 2**32)``, because torch supports few
    operations on uint32. ``dtype=torch.uint64`` (the default under ``enable_x64``) draws 64 bits.

    Raises:
        TypeError: if dtype is not an unsigned integer dtype.

    >>> bits(PRNGKey(0), (3,)).tolist()
    [4146024105, 1351547692, 2718843009]
    """
    key, shape = _check_key(key), _check_shape(shape)
    if dtype is None:
        dtype = torch.uint64 if x64_enabled() else torch.uint32
    if dtype == torch.uint64:
        return bits64(key, shape).view(torch.uint64)
    if dtype == torch.uint32:
        return draws.draw("bits", key, shape)
    if dtype in (torch.uint8, torch.uint16):
        return narrow_bits(key, shape, torch.iinfo(dtype).bits).to(dtype)
    raise TypeError(f"bits: dtype must be an unsigned integer dtype, got {dtype}.")


def uniform(
    key: Key,
    shape: Shape = (),
    dtype: torch.dtype | None = None,
    minval: float | Tensor = 0.0,
    maxval: float | Tensor = 1.0,
) -> Tensor:
    """Draw uniform floats in ``[minval, maxval)`` (``jax.random.uniform``).

    The final scale and shift are one fused multiply-add, as in XLA, and so rounded once; in 16 bits
    they are rounded one by one.
    Subnormal numbers are zero, as in XLA.

    >>> uniform(PRNGKey(0), (2,)).tolist()
    [0.21629536151885986, 0.804124116897583]
    """
    key, shape, dtype = _check_key(key), _check_shape(shape), _check_float("uniform", dtype)
    if dtype == torch.float32 and _is_number(minval) and _is_number(maxval):
        low, high = (float(np.float32(x)) for x in (minval, maxval))
        tiny = torch.finfo(dtype).tiny
        low, high = (math.copysign(0.0, x) if abs(x) < tiny else x for x in (low, high))
        numbers = draws.draw("uniform", key, shape, low, low if abs(high - low) < tiny else high)
        return flush(numbers) if max(abs(low), abs(high)) < 2.0**-60 else numbers
    low, high = (flush(as_tensor(x, dtype).to(key.device)) for x in (minval, maxval))
    _check_parameters("uniform", shape, low, high)
    unit, width = unit_floats(key, shape, dtype), flush(high - low)
    if dtype.itemsize == 2:
        scaled = unit * width + low  # rounded twice
    else:
        scale = fused_multiply_add_once if dtype == torch.float32 else fused_multiply_add
        scaled = scale(unit, width, low)
        if dtype == torch.float64:  # its exact steps give NaN for infinite bounds
            plain = unit * width + low
            scaled = torch.where(plain.isfinite(), scaled, plain)
    return torch.maximum(low, flush(scaled)).expand(shape)


def normal(key: Key, shape: Shape = (), dtype: torch.dtype | None = None) -> Tensor:
    """Draw standard normal floats, ``sqrt(2) * erfinv(u)`` (``jax.random.normal``).

    >>> [round(x, 4) for x in normal(PRNGKey(0), (2,)).tolist()]
    [-0.7848, 0.8564]
    """
    key, shape, dtype = _check_key(key), _check_shape(shape), _check_float("normal", dtype)
    if dtype == torch.float32:
        return draws.draw("normal", key, shape)
    if dtype.itemsize == 2:
        low = -1 + torch.finfo(dtype).eps / 2  # the next number after -1
        return narrow_erfinv(uniform(key, shape, dtype, low, 1.0)) * narrow_sqrt2(dtype)
    # u is uniform on (nextafter(-1, 0), 1). Its width rounds to 2, so scaling is exact and only
    # the shift is rounded.
    low = math.nextafter(-1.0, 0.0)
    unit = unit_floats(key, shape, dtype)
    return erfinv(torch.clamp(unit * 2.0 + low, min=low)) * sqrt2(dtype)


def truncated_normal(
    key: Key,
    lower: float | Tensor,
    upper: float | Tensor,
    shape: Shape | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw standard normal floats within ``(lower, upper)`` (``jax.random.truncated_normal``).

    The shape is by default that of the bounds. ``lower >= upper`` gives ``upper``, as in JAX.

    >>> bool(truncated_normal(PRNGKey(0), -2.0, 2.0, (100,)).abs().max() < 2)
    True
    """
    dtype = _check_float("truncated_normal", dtype)
    key = _check_key(key)
    low, high = (as_tensor(x, dtype).to(key.device) for x in (lower, upper))
    if shape is None:
        shape = torch.broadcast_shapes(low.shape, high.shape)
    shape = _check_shape(shape)
    _check_parameters("truncated_normal", shape, low, high)
    if dtype.itemsize == 2:
        ends = [erf((x / narrow_sqrt2(dtype)).float()).to(dtype) for x in (low, high)]
        numbers = narrow_erfinv(uniform(key, shape, dtype, *ends)) * narrow_sqrt2(dtype)
    else:
        # XLA multiplies by the reciprocal where the source divides by a constant
        reciprocal = float(np.array(1 / sqrt2(dtype), str(dtype).removeprefix("torch.")))
        u = uniform(key, shape, dtype, erf(low * reciprocal), erf(high * reciprocal))
        numbers = erfinv(u) * sqrt2(dtype)
    infinity = torch.full_like(low, math.inf)
    smallest = torch.nextafter(low, infinity)
    largest = torch.nextafter(high, torch.full_like(high, -math.inf))
    numbers = torch.minimum(torch.maximum(numbers, smallest), largest)
    return flush(numbers) if dtype == torch.bfloat16 else numbers


def randint(
    key: Key,
    shape: Shape,
    minval: int | Tensor,
    maxval: int | Tensor,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw integers in ``[minval, maxval)`` (``jax.random.randint``).

    Each is the remainder of a number made of two random words, which is nearly unbiased. Draws of 8
    and 16 bits are those of 32 bits, as in JAX 0.10.
    ``maxval <= minval`` gives ``minval``, as in JAX; a bound outside the range of the dtype is
    clipped to it. Outside :func:`idql_func.enable_x64` a Python integer must fit into 32 bits,
    except for draws of 64 bits. Bounds may be integer tensors that
    broadcast to ``shape``. Draws of uint32 are returned as int64 values, as those of :func:`bits`.

    Raises:
        TypeError: if dtype is no integer dtype.
        OverflowError: if a Python integer is too large.
        ValueError: if bounds do not broadcast.

    >>> randint(PRNGKey(0), (4,), 0, 10).tolist()
    [8, 1, 7, 0]
    """
    key, shape = _check_key(key), _check_shape(shape)
    dtype = dtype or int_dtype()
    if dtype not in _INTEGERS:
        raise TypeError(f"randint: dtype must be an integer dtype, got {dtype}.")
    width, smallest, largest = _INTEGERS[dtype]
    for bound in (minval, maxval):
        _check_bound(bound, 64 if x64_enabled() or width == 64 else 32)
    if width < 32:  # JAX draws 32 bits; bounds of 64 bits wrap before they are clipped
        low, high = (low_bits(as_tensor(x).to(key.device)) for x in (minval, maxval))
        low, high = low.clamp(smallest, largest), high.clamp(smallest, largest + 1)
        return randint(key, shape, low, high, torch.int32).to(dtype)
    plain = _is_number(minval) and _is_number(maxval)
    if plain and dtype != torch.uint32:
        past_largest = int(maxval) > largest
        low, high = (min(max(int(x), smallest), largest) for x in (minval, maxval))
        span = 1 if high <= low else high - low + int(past_largest)
        if width == 32:
            return draws.draw("randint", key, shape, low, span)
        ends = [torch.tensor(signed(x), device=key.device) for x in (low, span)]
        first, second = (bits64(k, shape) for k in split(key))
        return randint64(first, second, ends[0], ends[1])
    bounds = [as_tensor(x).to(key.device, torch.int64) for x in (minval, maxval)]
    _check_parameters("randint", shape, *bounds)
    low, high = (torch.clamp(x, smallest, largest) for x in bounds)
    span = torch.where(high <= low, 1, high - low + (bounds[1] > largest))
    if width == 64:
        first, second = (bits64(k, shape) for k in split(key))
        return randint64(first, second, low, span).expand(shape)
    high_word, low_word = (draws.draw("bits", k, shape) for k in split(key))
    if dtype == torch.int32:
        return draws.randint_from_bits(high_word, low_word, low, span).expand(shape)
    drawn = low + remainder_of_two(high_word, low_word, span & MASK)
    return drawn.bitwise_and(MASK).expand(shape)


def bernoulli(key: Key, p: float | Tensor = 0.5, shape: Shape | None = None) -> Tensor:
    """Draw booleans that are True with probability ``p`` (``jax.random.bernoulli``).

    >>> bernoulli(PRNGKey(0), 0.5, (4,)).tolist()
    [False, True, False, True]
    """
    key = _check_key(key)
    if isinstance(p, float | np.floating) and float_dtype() == torch.float32:
        return draws.draw("bernoulli", key, _check_shape(() if shape is None else shape), float(p))
    probability = p if isinstance(p, Tensor) else array_tensor(p)
    if probability is None or not probability.is_floating_point():
        raise TypeError("bernoulli: p must be a floating number or array.")
    probability = probability.to(key.device)
    shape = _check_shape(tuple(probability.shape) if shape is None else shape)
    _check_parameters("bernoulli", shape, probability)
    return uniform(key, shape, probability.dtype) < probability


def permutation(key: Key, x: int | Tensor, axis: int = 0, independent: bool = False) -> Tensor:
    """Permute ``range(x)``, or the tensor ``x`` along ``axis`` (``jax.random.permutation``).

    Sorts by random 32-bit words, in as many rounds as JAX. With ``independent`` each slice along
    ``axis`` is permuted separately.

    Raises:
        TypeError: if ``x`` is neither an integer nor an array with axes.
        ValueError: if there is no such axis.

    >>> permutation(PRNGKey(0), 5).tolist()
    [1, 0, 4, 3, 2]
    """
    key = _check_key(key)
    x = _entries("permutation", x, key.device)
    if not isinstance(x, Tensor):
        _check_axis("permutation", axis, 1)
        return _shuffle(key, torch.arange(max(x, 0), dtype=int_dtype(), device=key.device), 0)
    axis = _check_axis("permutation", axis, x.ndim)
    if independent or x.ndim == 1:
        return _shuffle(key, x, axis)
    index = _shuffle(key, torch.arange(x.shape[axis], device=key.device), 0)
    return x.index_select(axis, index)


def choice(
    key: Key,
    a: int | Tensor,
    shape: Sequence[int] = (),
    replace: bool = True,
    p: Tensor | np.ndarray | Sequence[float] | None = None,
    axis: int = 0,
) -> Tensor:
    """Draw from ``range(a)``, or from ``a`` along ``axis`` (``jax.random.choice``).

    ``p`` need not sum to one: a binary search finds ``total * (1 - u)`` in the cumulative sum
    (quirk E3).

    Raises:
        ValueError: if there is nothing to draw from, more entries are drawn without replacement
            than there are, there is no such axis, or ``p`` has another length, a weight that is
            negative or not finite, or no positive one.

    >>> choice(PRNGKey(0), 5, (3,), replace=False).tolist()
    [1, 0, 4]
    """
    if isinstance(shape, int | np.integer):
        raise TypeError(f"choice: shape must be a sequence of integers, got {shape!r}.")
    key, shape = _check_key(key), _check_shape(shape)
    entries = _entries("choice", a, key.device)
    array = entries if isinstance(entries, Tensor) else None
    if array is not None:
        axis = _check_axis("choice", axis, array.ndim)
    count = array.shape[axis] if array is not None else int(entries)
    num = math.prod(shape)
    if num == 0:
        dtype = int_dtype() if array is None else array.dtype
        return torch.zeros(shape, dtype=dtype, device=key.device)
    if count <= 0:
        raise ValueError("choice: there must be at least one entry to draw from, got 0.")
    if not replace and num > count:
        raise ValueError(
            f"choice: at most {count} entries can be drawn without replacement, got {num}."
        )
    p = None if p is None else _check_weights(p, count)
    if p is None and replace:
        index = randint(key, shape, 0, count)
    elif p is None and array is not None:
        kept = permutation(key, array, axis).narrow(axis, 0, num)
        return kept.unflatten(axis, tuple(shape)) if shape else kept.squeeze(axis)
    elif p is None:
        index = permutation(key, count)[:num]
    elif replace:
        total = cumulative_sum(p)
        r = total[-1] * (1 - uniform(key, shape, p.dtype))
        index = search_sorted(total, r).to(int_dtype())
    else:
        # Gumbel top-k: the largest of (g + log p)
        scores = gumbel(key, (count,), p.dtype) + p.log()
        index = torch.sort(-scores, stable=True)[1][:num].to(int_dtype())  # NaN comes last
    index = index.reshape(shape)
    if array is None:
        return index
    picked = array.index_select(axis, index.reshape(-1).long().clamp(max=count - 1))
    return picked.unflatten(axis, tuple(shape)) if shape else picked.squeeze(axis)


def gumbel(key: Key, shape: Shape = (), dtype: torch.dtype | None = None) -> Tensor:
    """Draw standard Gumbel floats, ``-log(-log(u))`` (``jax.random.gumbel``).

    >>> [round(x, 3) for x in gumbel(PRNGKey(0), (1,)).tolist()]
    [0.138]
    """
    dtype = _check_float("gumbel", dtype)
    tiny = torch.finfo(dtype).tiny
    if dtype.itemsize == 2:  # XLA folds the bound into the constants, where it rounds away
        u = unit_floats(_check_key(key), _check_shape(shape), dtype).clamp(min=tiny)
        once = -log(u.float()).to(dtype)
        return -log(once.float()).to(dtype)
    u = uniform(key, shape, dtype, tiny, 1.0)
    return -log(-log(u))


def categorical(key: Key, logits: Tensor, axis: int = -1, shape: Shape | None = None) -> Tensor:
    """Draw indices with probability ``softmax(logits)`` along ``axis`` (Gumbel-max).

    ``shape`` is the shape of the result; it must end in the batch shape of the logits.

    Raises:
        ValueError: if ``shape`` does not end in the batch shape of the logits.

    >>> categorical(PRNGKey(0), torch.tensor([0.0, 5.0, 0.0])).item()
    1
    """
    logits = logits if isinstance(logits, Tensor) else _floats(logits)
    if not logits.is_floating_point():
        raise TypeError(f"categorical: logits must be floating, got {logits.dtype}.")
    axis = _check_axis("categorical", axis, logits.ndim)
    if logits.shape[axis] == 0:
        raise ValueError("categorical: there must be at least one logit along the axis.")
    batch = tuple(n for i, n in enumerate(logits.shape) if i != axis)
    shape = batch if shape is None else _check_shape(shape)
    if shape[len(shape) - len(batch) :] != batch:
        raise ValueError(
            f"categorical: shape {shape} must end in the batch shape of the logits, {batch}."
        )
    extra = shape[: len(shape) - len(batch)]
    noise = gumbel(key, (*extra, *logits.shape), logits.dtype)
    return torch.argmax(noise + logits, dim=len(extra) + axis).to(int_dtype())


def _shuffle(key: Tensor, x: Tensor, axis: int) -> Tensor:
    """Shuffle by stable sorts of random words; the number of rounds is JAX's heuristic."""
    rounds = math.ceil(3 * math.log(max(1, x.numel())) / math.log(MASK))
    for _ in range(rounds):
        key, subkey = split(key).unbind(0)
        words = draws.draw("bits", subkey, tuple(x.shape))
        x = torch.gather(x, axis, stable_argsort(words, axis))
    return x


# --- checks of arguments ----------------------------------------------------------------


_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_INTEGERS = {
    dtype: (torch.iinfo(dtype).bits, torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    for dtype in (
        *(torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.uint8, torch.uint16, torch.uint32),
    )
}
"""The bits of an integer dtype, and its smallest and largest value."""


def _check_key(key: Tensor) -> Tensor:
    if not isinstance(key, Tensor):
        key = torch.from_numpy(np.asarray(key).astype(np.int64))
    if key.shape != (2,) or key.is_floating_point():
        raise ValueError(
            f"random: a key is an integer tensor of shape (2,), got {tuple(key.shape)}; "
            "use split(key, n)[i], or vmap over a stack of keys."
        )
    return key if key.dtype == torch.int64 else key.to(torch.int64)


def _check_shape(shape: Shape, what: str = "random: shape") -> tuple[int, ...]:
    if isinstance(shape, int | np.integer) and not isinstance(shape, bool):
        shape = (int(shape),)
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise TypeError(f"{what} must be a sequence of integers, got {shape!r}.")
    for n in shape:
        if not isinstance(n, int | np.integer | torch.SymInt) or isinstance(n, bool):
            raise TypeError(f"{what} must hold integers, got {n!r}.")
        if n < 0:
            raise ValueError(f"{what} must not have negative sizes, got {tuple(shape)}.")
    return tuple(int(n) for n in shape)


def _check_float(name: str, dtype: torch.dtype | None) -> torch.dtype:
    dtype = dtype or float_dtype()
    if dtype not in _FLOATS:
        raise TypeError(f"{name}: dtype must be a floating dtype, got {dtype}.")
    return dtype


def _check_parameters(name: str, shape: tuple[int, ...], *parameters: Tensor) -> None:
    for x in parameters:
        if x.ndim > len(shape) or any(
            n not in (1, size) for n, size in zip(x.shape[::-1], shape[::-1], strict=False)
        ):
            raise ValueError(
                f"{name}: a parameter of shape {tuple(x.shape)} does not broadcast to the shape "
                f"{shape}."
            )


def _check_bound(bound: Any, width: int) -> None:
    if isinstance(bound, int) and not -(2 ** (width - 1)) <= bound < 2 ** (width - 1):
        more = "; use enable_x64 for 64 bits" if width == 32 else ""
        raise OverflowError(f"randint: the bound {bound} does not fit into {width} bits{more}.")


def _check_axis(name: str, axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise ValueError(f"{name}: there is no axis {axis} in an array of {ndim} axes.")
    return axis % ndim


def _check_weights(p: Any, count: int) -> Tensor:
    """Weights as a floating tensor ``[count]``; their values are checked unless they are traced."""
    p = p if isinstance(p, Tensor) else _floats(p)
    p = p if p.is_floating_point() else p.to(float_dtype())
    if tuple(p.shape) != (count,):
        raise ValueError(f"choice: p must have shape ({count},), got {tuple(p.shape)}.")
    unknown = inside_transform() or p.is_meta
    if not unknown and not bool((p >= 0).all() & p.sum().isfinite() & (p.sum() > 0)):
        raise ValueError(
            "choice: the weights p must be finite, not negative, and one of them positive."
        )
    return p


def _floats(values: Any) -> Tensor:
    tensor = array_tensor(np.asarray(values))
    assert tensor is not None
    return tensor


def _entries(name: str, x: Any, device: torch.device) -> int | Tensor:
    """``x`` as an integer, or as a tensor with axes."""
    if isinstance(x, int | np.integer):
        return int(x)
    tensor = x if isinstance(x, Tensor) else array_tensor(np.asarray(x))
    if tensor is None or (tensor.ndim == 0 and tensor.is_floating_point()):
        raise TypeError(f"{name}: x must be an integer or have at least one axis.")
    return tensor.to(device) if tensor.ndim else int(tensor)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating)


explain_module(__name__)
