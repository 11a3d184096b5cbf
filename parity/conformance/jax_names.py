"""The names of ``xp`` on the JAX side."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Pair(NamedTuple):
    """A named tuple."""

    first: Any
    second: Any


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Box:
    """A registered dataclass."""

    left: Any
    right: Any

    def tree_flatten(self) -> tuple[tuple[Any, Any], None]:
        """Children and static part."""
        return (self.left, self.right), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any, Any]) -> Box:
        """From the children."""
        return cls(*children)


@dataclasses.dataclass
class Plain:
    """A dataclass that is not registered."""

    x: Any


def switches(x64: bool, partitionable: bool) -> None:
    """Set double precision and the layout of the streams."""
    jax.config.update("jax_enable_x64", x64)
    jax.config.update("jax_threefry_partitionable", partitionable)


_SWITCHES = ("jax_enable_x64", "jax_threefry_partitionable")
_BEFORE = {name: getattr(jax.config, name) for name in _SWITCHES}


def restore() -> None:
    """Set the switches as they were."""
    for name, value in _BEFORE.items():
        jax.config.update(name, value)


def _array(values: Any, dtype: str, shape: Any = None) -> Any:
    made = jnp.array(values, dtype)
    return made if shape is None else made.reshape(shape)


def _total(parts: list[Any]) -> Any:
    wide = jnp.float64 if jax.config.jax_enable_x64 else jnp.float32
    return sum(
        [jnp.sum(jnp.asarray(x).astype(wide)) for x in jax.tree_util.tree_leaves(parts)],
        jnp.zeros((), wide),
    )


def _mix(x: Any, number: Any) -> Any:
    x = jnp.asarray(x)
    if x.dtype == jnp.bool_:
        return ~x
    if jnp.issubdtype(x.dtype, jnp.integer):
        return x + jnp.ones((), x.dtype)
    return x * jnp.asarray(0.5, x.dtype) + jnp.tanh(number).astype(x.dtype)


def _keys(seed: int, shape: tuple[int, ...]) -> Any:
    count = math.prod(shape)
    if not shape:
        return jax.random.PRNGKey(seed)
    return jax.random.split(jax.random.PRNGKey(seed), max(count, 1))[:count].reshape(*shape, 2)


def _sum(x: Any, axis: int | None = None) -> Any:
    x = jnp.asarray(x)
    return jnp.sum(x, axis, dtype=x.dtype)


def to_numpy(leaf: Any) -> np.ndarray:
    """A leaf of a result as NumPy has it: keys as words, 16-bit floats of bfloat16 as float32."""
    typed = getattr(jax.dtypes, "prng_key", None)  # JAX 0.4.13 has none
    if typed and isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, typed):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(jnp.asarray(leaf))
    return array if array.dtype.kind in "biuf" else array.astype(np.float32)


random = SimpleNamespace(
    **{
        name: getattr(jax.random, name)
        for name in (
            *("PRNGKey", "split", "fold_in", "bits", "uniform", "normal", "truncated_normal"),
            *("randint", "bernoulli", "permutation", "choice", "categorical", "gumbel"),
            *("key", "key_data", "wrap_key_data"),
        )
        if hasattr(jax.random, name)
    }
)
random.key_bits = lambda seed: jax.random.key_data(jax.random.key(seed))

xp = SimpleNamespace(
    switches=switches,
    restore=restore,
    Pair=Pair,
    Box=Box,
    Plain=Plain,
    random=random,
    jit=jax.jit,
    vmap=jax.vmap,
    grad=jax.grad,
    value_and_grad=jax.value_and_grad,
    scan=jax.lax.scan,
    tree_map=jax.tree_util.tree_map,
    tree_leaves=jax.tree_util.tree_leaves,
    tree_flatten=jax.tree_util.tree_flatten,
    tree_unflatten=jax.tree_util.tree_unflatten,
    array=_array,
    zeros=jnp.zeros,
    arange=jnp.arange,
    keys=_keys,
    total=_total,
    mix=_mix,
    sum=_sum,
    copied=lambda x: jax.tree_util.tree_map(jnp.array, x),
    cast=lambda x, dtype: jnp.asarray(x).astype(dtype),
    where=jnp.where,
    maximum=jnp.maximum,
    reshape=jnp.reshape,
    stack=jnp.stack,
    flip=lambda x: jnp.flip(x, 0),
    stop_gradient=jax.lax.stop_gradient,
    sin=jnp.sin,
    tanh=jnp.tanh,
    softplus=lambda x: jnp.log1p(jnp.exp(x)),
    root=lambda x: jnp.sqrt(jnp.abs(x) + 1),
    **{
        name: getattr(jnp, name)
        for name in (
            *("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64"),
            *("uint8", "uint16", "uint32", "uint64"),
        )
    },
)
