"""The library's three public switches, and two that ``matmul_precision`` sets.

Each is a context manager around a :class:`contextvars.ContextVar`: it holds within the ``with``
block, and in the thread, that sets it. This module imports nothing of the library, because the
random streams, the layers and the transforms all read the switches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_X64: ContextVar[bool] = ContextVar("idql_func_x64", default=False)
_DISABLE_JIT: ContextVar[bool] = ContextVar("idql_func_disable_jit", default=False)
_BFLOAT16: ContextVar[bool] = ContextVar("idql_func_bfloat16_products", default=False)
_NATIVE: ContextVar[bool] = ContextVar("idql_func_native_products", default=False)
_PARTITIONABLE: ContextVar[bool] = ContextVar("idql_func_threefry_partitionable", default=False)


@contextmanager
def _set(variable: ContextVar[bool], flag: bool) -> Iterator[None]:
    token = variable.set(bool(flag))
    try:
        yield
    finally:
        variable.reset(token)


def enable_x64(flag: bool = True):
    """Use JAX's double-precision semantics inside the block (``jax_enable_x64``).

    A draw without an explicit dtype has 64 bits (made of other random bits than the 32-bit draw,
    as in JAX), and Python floats passed to a jitted function become float64.

    >>> from idql_func import enable_x64, random
    >>> with enable_x64():
    ...     random.normal(random.PRNGKey(0), (2,)).dtype
    torch.float64
    """
    return _set(_X64, flag)


def disable_jit(flag: bool = True):
    """Run every jitted function eagerly inside the block (``jax.disable_jit``).

    The environment variable ``IDQL_DISABLE_JIT=1`` does the same for a whole process.

    >>> import torch
    >>> from idql_func import disable_jit, jit
    >>> with disable_jit():
    ...     jit(lambda x: x + 1)(torch.zeros(()))
    tensor(1.)
    """
    return _set(_DISABLE_JIT, flag)


def threefry_partitionable(flag: bool = True):
    """Choose the layout of the random streams (``jax_threefry_partitionable``).

    False, the default here, is JAX's older layout, which upstream used; True is the layout that
    JAX uses by default since version 0.5.

    >>> from idql_func import random
    >>> with random.threefry_partitionable(True):
    ...     random.split(random.PRNGKey(0)).tolist()
    [[1797259609, 2579123966], [928981903, 3453687069]]
    """
    return _set(_PARTITIONABLE, flag)


def x64_enabled() -> bool:
    """Whether :func:`enable_x64` is active."""
    return _X64.get()


def jit_disabled() -> bool:
    """Whether :func:`disable_jit` or ``IDQL_DISABLE_JIT`` is active."""
    return _DISABLE_JIT.get() or os.environ.get("IDQL_DISABLE_JIT", "") not in ("", "0")


def set_bfloat16_matmul(flag: bool = True):
    """Let layers multiply matrices in bfloat16; ``matmul_precision("bf16")`` sets it."""
    return _set(_BFLOAT16, flag)


def bfloat16_matmul() -> bool:
    """Whether layers multiply matrices in bfloat16."""
    return _BFLOAT16.get()


def set_native_matmul(flag: bool = True):
    """Let compiled CPU programs use ``kernels/matmul.py``; ``matmul_precision`` sets it."""
    return _set(_NATIVE, flag)


def native_matmul() -> bool:
    """Whether compiled CPU programs use ``kernels/matmul.py`` for matrix products."""
    return _NATIVE.get()


def partitionable() -> bool:
    """Whether the newer layout of random streams is active."""
    return _PARTITIONABLE.get()


def float_dtype() -> torch.dtype:
    """The default float dtype: float32, or float64 under :func:`enable_x64`."""
    return torch.float64 if x64_enabled() else torch.float32


def int_dtype() -> torch.dtype:
    """The default integer dtype: int32, or int64 under :func:`enable_x64`."""
    return torch.int64 if x64_enabled() else torch.int32
