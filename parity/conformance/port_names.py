"""The names of ``xp`` on this library's side."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import idql_func
from idql_func import random as streams
from idql_func import switches, tree
from idql_func.struct import PyTreeNode
from idql_func.tree import array_tensor


class Pair(NamedTuple):
    """A named tuple."""

    first: Any
    second: Any


class Box(PyTreeNode):
    """A registered dataclass."""

    left: Any
    right: Any


@dataclasses.dataclass
class Plain:
    """A dataclass that is not registered."""

    x: Any


_ACTIVE = contextlib.ExitStack()
"""The switches of the program that runs now."""


def _switches(x64: bool, partitionable: bool) -> None:
    """Set double precision and the layout of the streams, until ``restore`` or the next call."""
    _ACTIVE.close()
    _ACTIVE.enter_context(switches.enable_x64(x64))
    _ACTIVE.enter_context(switches.threefry_partitionable(partitionable))


def _dtype(name: str) -> torch.dtype:
    return getattr(torch, name)


def _tensor(x: Any) -> Tensor:
    """A tensor as it is; a number or an array as JAX converts it."""
    tensor = x if isinstance(x, Tensor) else array_tensor(x)
    if tensor is None:
        raise TypeError(f"{type(x).__name__} is neither an array nor a number")
    return tensor


def _array(values: Any, dtype: str, shape: Any = None) -> Tensor:
    made = torch.tensor(values, dtype=_dtype(dtype))
    return made if shape is None else made.reshape(shape)


def _total(parts: list[Any]) -> Tensor:
    wide = switches.float_dtype()
    return sum(
        [_tensor(x).to(wide).sum() for x in tree.tree_leaves(parts)], torch.zeros((), dtype=wide)
    )


def _mix(x: Any, number: Tensor) -> Tensor:
    x = _tensor(x)
    if x.dtype == torch.bool:
        return ~x
    if not x.is_floating_point():
        return x + torch.ones((), dtype=x.dtype)
    return x * torch.tensor(0.5, dtype=x.dtype) + number.tanh().to(x.dtype)


def _keys(seed: int, shape: tuple[int, ...]) -> Tensor:
    count = math.prod(shape)
    if not shape:
        return streams.PRNGKey(seed)
    return streams.split(streams.PRNGKey(seed), max(count, 1))[:count].reshape(*shape, 2)


def _sum(x: Any, axis: int | None = None) -> Tensor:
    x = _tensor(x)
    return x.sum(dtype=x.dtype) if axis is None else x.sum(axis, dtype=x.dtype)


def to_numpy(leaf: Any) -> np.ndarray:
    """A leaf of a result as NumPy has it; bfloat16 as float32."""
    tensor = leaf if isinstance(leaf, Tensor) else array_tensor(leaf)
    if tensor is None:
        raise TypeError(f"a result has a leaf of type {type(leaf).__name__}")
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


def _where(condition: Any, x: Any, y: Any) -> Tensor:
    parts = [v if isinstance(v, float) else _tensor(v) for v in (x, y)]
    if all(isinstance(v, float) for v in parts):
        parts = [torch.tensor(v, dtype=switches.float_dtype()) for v in parts]
    return torch.where(_tensor(condition), parts[0], parts[1])


def _stack(parts: Any) -> Tensor:
    return torch.stack([_tensor(x) for x in parts])


random = SimpleNamespace(**{name: getattr(streams, name) for name in streams.__all__})
random.key_bits = lambda seed: streams.key_data(streams.key(seed))

xp = SimpleNamespace(
    switches=_switches,
    restore=_ACTIVE.close,
    Pair=Pair,
    Box=Box,
    Plain=Plain,
    random=random,
    jit=idql_func.jit,
    vmap=idql_func.vmap,
    grad=idql_func.grad,
    value_and_grad=idql_func.value_and_grad,
    scan=idql_func.scan,
    tree_map=tree.tree_map,
    tree_leaves=tree.tree_leaves,
    tree_flatten=tree.tree_flatten,
    tree_unflatten=tree.tree_unflatten,
    array=_array,
    zeros=lambda shape, dtype: torch.zeros(shape, dtype=_dtype(dtype)),
    arange=lambda n: torch.arange(n, dtype=switches.int_dtype()),
    keys=_keys,
    total=_total,
    mix=_mix,
    sum=_sum,
    copied=lambda x: tree.tree_map(lambda x: _tensor(x).clone(), x),
    cast=lambda x, dtype: _tensor(x).to(_dtype(dtype)),
    where=_where,
    maximum=lambda x, y: torch.maximum(_tensor(x), _tensor(y)),
    reshape=lambda x, shape: _tensor(x).reshape(shape),
    stack=_stack,
    flip=lambda x: _tensor(x).flip(0),
    stop_gradient=lambda x: _tensor(x).detach(),
    sin=lambda x: _tensor(x).sin(),
    tanh=lambda x: _tensor(x).tanh(),
    softplus=lambda x: _tensor(x).exp().log1p(),
    root=lambda x: (_tensor(x).abs() + 1).sqrt(),
    **{
        name: _dtype(name)
        for name in (
            *("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64"),
            *("uint8", "uint16", "uint32", "uint64"),
        )
    },
)
