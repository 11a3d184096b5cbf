"""32-bit random draws, each one operator that makes numbers from a key in one pass over memory.

The C form and the tensor form give the same bits. The tensor form runs on other devices and
without a C compiler, and the tests compare the C form with it. Keys are ``[..., 2]``, so a stack
of keys under :func:`idql_func.vmap` is still one call.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from idql_func.kernels.build import mapped_first, operator
from idql_func.kernels.threefry import MASK, functions, threefry2x32_tensors, uses_c
from idql_func.kernels.xla_math import erfinv, fused_multiply_add_once, sqrt2
from idql_func.switches import partitionable

Shape = tuple[int, ...]

_LARGEST = 2**32 - 2


def draw(name: str, key: Tensor, shape: Shape, *parameters: Any) -> Tensor:
    """Draw ``shape`` from a key.

    ===============  ===================  =======================================================
    name             parameters           result
    ===============  ===================  =======================================================
    ``split``                             new keys, for a shape ``[num, 2]``
    ``split_chain``  carry                the keys of consecutive splits and the final carried key
    ``bits``                              32-bit words as int64 values
    ``uniform``      low, high (float)    float32 in ``[low, high)``; scale and shift rounded once
    ``normal``                            standard normal float32
    ``bernoulli``    p (float)            booleans that are True with probability ``p``
    ``randint``      low, span            int32 in ``[low, low + span)``, ``0 < span <= 2**32``
    ===============  ===================  =======================================================
    """
    if math.prod(shape) > _LARGEST:
        raise ValueError(
            f"random: a draw of {math.prod(shape)} words exceeds 2**32 - 2, the most from one key."
        )
    form = _OPERATORS[name] if uses_c(key) else _TENSOR_FORMS[name]
    return form(key, shape, partitionable(), *parameters)


def fold_in(key: Tensor, data: int | Tensor) -> Tensor:
    """Make a new key ``[2]`` from a key and a 32-bit integer (a number or a tensor ``[]``)."""
    if uses_c(key):
        if isinstance(data, Tensor):
            return _fold_in_op(key, data.to(key.device), 0)
        return _fold_in_op(key, None, data & MASK)
    return _fold_in_tensors(key, data)


# --- tensor forms: from keys [..., 2] to numbers [..., *shape] -----------------------------------


def _hash_pairs(key: Tensor, size: int) -> Tensor:
    """Words of the newer layout, ``[..., 2, size]``: each 64-bit counter is hashed separately.

    The high word of a counter is zero.
    """
    counts = torch.arange(size, dtype=torch.int64, device=key.device)
    return threefry2x32_tensors(key, torch.stack([torch.zeros_like(counts), counts]))


def _hash_halves(key: Tensor, size: int) -> Tensor:
    """Words of the older layout, ``[..., size]``.

    Each counter of the first half is hashed together with one of the second half.
    """
    half = (size + 1) // 2
    counts = torch.arange(2 * half, dtype=torch.int64, device=key.device)
    if size % 2:  # an odd number of counters is padded with a zero
        counts = torch.where(counts == size, 0, counts)
    words = threefry2x32_tensors(key, counts.reshape(2, half))
    return words.reshape(*key.shape[:-1], 2 * half)[..., :size]


def _split_tensors(key: Tensor, shape: Shape, newer: bool) -> Tensor:
    size = math.prod(shape)
    words = _hash_pairs(key, size // 2).mT if newer else _hash_halves(key, size)
    return words.reshape((*key.shape[:-1], *shape))


def _split_chain_tensors(key: Tensor, shape: Shape, newer: bool, carry: int) -> Tensor:
    keys = []
    for _ in range(shape[0] - 1):
        halves = _split_tensors(key, (2, 2), newer).unbind(-2)
        keys.append(halves[1 - carry])
        key = halves[carry]
    return torch.stack([*keys, key], dim=-2)


def _bits_tensors(key: Tensor, shape: Shape, newer: bool) -> Tensor:
    size = math.prod(shape)
    if newer:
        first, second = _hash_pairs(key, size).unbind(-2)
        words = first ^ second
    else:
        words = _hash_halves(key, size)
    return words.reshape((*key.shape[:-1], *shape))


def _unit(key: Tensor, shape: Shape, newer: bool) -> Tensor:
    """Make floats in [0, 1) of the top 23 bits of each word."""
    return (_bits_tensors(key, shape, newer) >> 9).to(torch.float32) * 2.0**-23


def _uniform_tensors(key: Tensor, shape: Shape, newer: bool, low: float, high: float) -> Tensor:
    start, stop = (torch.full((), x, dtype=torch.float32, device=key.device) for x in (low, high))
    value = fused_multiply_add_once(_unit(key, shape, newer), stop - start, start)
    return torch.maximum(start, value)


def _normal_tensors(key: Tensor, shape: Shape, newer: bool) -> Tensor:
    # u is uniform on (nextafter(-1, 0), 1). Its width rounds to 2, so scaling is exact and only
    # the shift is rounded.
    low = -1.0 + 2.0**-24
    u = torch.clamp(_unit(key, shape, newer) * 2.0 + low, min=low)
    return erfinv(u) * sqrt2(torch.float32)


def _bernoulli_tensors(key: Tensor, shape: Shape, newer: bool, p: float) -> Tensor:
    return _unit(key, shape, newer) < torch.full((), p, dtype=torch.float32, device=key.device)


def _randint_tensors(key: Tensor, shape: Shape, newer: bool, low: int, span: int) -> Tensor:
    first, second = _split_tensors(key, (2, 2), newer).unbind(-2)
    high_bits, low_bits = (_bits_tensors(k, shape, newer) for k in (first, second))
    return randint_from_bits(high_bits, low_bits, low, span)


def randint_from_bits(high_bits: Tensor, low_bits: Tensor, low: Any, span: Any) -> Tensor:
    """``low`` plus 64 random bits modulo ``span``, in JAX's wrapping 32-bit arithmetic.

    As in JAX, a span of 2**32 wraps to zero, and the remainder is then the low bits.
    """
    multiplier = ((2**16 % span) ** 2 & MASK) % span
    offset = ((((high_bits % span) * multiplier) & MASK) + low_bits % span & MASK) % span
    return (((low + offset + 2**31) & MASK) - 2**31).to(torch.int32)


def _fold_in_tensors(key: Tensor, data: int | Tensor) -> Tensor:
    if isinstance(data, Tensor):
        low = data.to(device=key.device, dtype=torch.int64) & MASK
    else:
        low = torch.full((), int(data) & MASK, dtype=torch.int64, device=key.device)
    counts = torch.stack([torch.zeros_like(low), low]).unsqueeze(1)
    return threefry2x32_tensors(key, counts).squeeze(1)


# --- operators ------------------------------------------------------------------------------


def _operator(
    name: str,
    parameters: str,
    dtype: torch.dtype,
    tensor_form: Callable[..., Tensor],
    kind: int | None = None,
) -> Any:
    """Register the operator of a draw.

    ``kind`` is the number by which the C function ``draw`` knows a draw that makes one number from
    each word; any other draw has a C function of its name.
    """

    def run(key: Tensor, shape: Shape, newer: bool, *arguments: Any) -> Tensor:
        built = functions()
        if built is None:  # traced with a C compiler, run without one
            return tensor_form(key, shape, newer, *arguments)
        if not key.is_contiguous():
            key = key.contiguous()
        out = torch.empty((*key.shape[:-1], *shape), dtype=dtype)
        words = key.data_ptr(), key.numel() // 2, math.prod(shape), newer
        if kind is None:
            built[name](*words, *arguments, out.data_ptr())
        else:
            bounds = array("d", (*arguments, 0.0, 0.0)[:2])
            built["draw"](kind, *words, torch.get_num_threads(), out.data_ptr(), bounds)
        return out

    def fake(key: Tensor, shape: Shape, newer: bool, *arguments: Any) -> Tensor:
        return key.new_empty((*key.shape[:-1], *shape), dtype=dtype)

    def vmap(info, in_dims, key: Tensor, shape: Shape, newer: bool, *arguments: Any):
        return registered(key.movedim(in_dims[0], 0), shape, newer, *arguments), 0

    schema = f"{name}(Tensor key, SymInt[] shape, bool newer{parameters}) -> Tensor"
    registered = operator(schema, run, fake=fake, vmap=vmap, has_derivative=False)
    _TENSOR_FORMS[name] = tensor_form
    return registered


_TENSOR_FORMS: dict[str, Callable[..., Tensor]] = {}
_OPERATORS: dict[str, Any] = {
    name: _operator(name, *form)
    for name, form in {
        "split": ("", torch.int64, _split_tensors),
        "split_chain": (", int carry", torch.int64, _split_chain_tensors),
        "bits": ("", torch.int64, _bits_tensors, 0),
        "uniform": (", float low, float high", torch.float32, _uniform_tensors, 1),
        "normal": ("", torch.float32, _normal_tensors, 2),
        "bernoulli": (", float p", torch.bool, _bernoulli_tensors, 3),
        "randint": (", int low, int span", torch.int32, _randint_tensors),
    }.items()
}


def _run_fold_in(key: Tensor, data: Tensor | None, number: int) -> Tensor:
    built = functions()
    if built is None:
        rows = key.reshape(-1, 2).unbind(0)
        numbers = [number] * len(rows) if data is None else data.reshape(-1).unbind(0)
        folded = [_fold_in_tensors(k, n) for k, n in zip(rows, numbers, strict=True)]
        return torch.stack(folded).reshape(key.shape)
    key = key.contiguous()
    if data is not None:
        data = data.to(torch.int64).contiguous()
    out = torch.empty(key.shape, dtype=torch.int64)
    address = 0 if data is None else data.data_ptr()
    built["fold_in"](key.data_ptr(), key.numel() // 2, address, number, out.data_ptr())
    return out


def _fake_fold_in(key: Tensor, data: Tensor | None, number: int) -> Tensor:
    return key.new_empty(key.shape)


def _map_fold_in(info, in_dims, key: Tensor, data: Tensor | None, number: int):
    key = mapped_first(info.batch_size, key, in_dims[0])
    if data is not None:
        data = mapped_first(info.batch_size, data, in_dims[1])
    return _fold_in_op(key, data, number), 0


_fold_in_op = operator(
    "fold_in(Tensor key, Tensor? data, int number) -> Tensor",
    _run_fold_in,
    fake=_fake_fold_in,
    vmap=_map_fold_in,
    has_derivative=False,
)
