"""The library's three documented switches, and two behind ``matmul_precision``.

Each is a context manager and nothing more. They live below every other module, because
the random streams, the layers and the transforms read them. A switch is a
:class:`contextvars.ContextVar`: it is scoped to the ``with`` block (and to the thread)
that sets it, and is never flipped by an import.
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
    """Give draws and Python scalars JAX's double-precision semantics (``jax_enable_x64``).

    Inside the block a draw without an explicit dtype is 64 bits wide (and comes from
    other random bits than the 32-bit draw, as in JAX), and Python floats that enter a
    jitted function become float64.

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

    False is JAX's older layout, the one upstream was written under and the default
    here; True is the layout that JAX has used by default since version 0.5.

    >>> from idql_func import random
    >>> with random.threefry_partitionable(True):
    ...     random.split(random.PRNGKey(0)).tolist()
    [[1797259609, 2579123966], [928981903, 3453687069]]
    """
    return _set(_PARTITIONABLE, flag)


def x64_enabled() -> bool:
    """Whether :func:`enable_x64` is in force."""
    return _X64.get()


def jit_disabled() -> bool:
    """Whether :func:`disable_jit` or ``IDQL_DISABLE_JIT`` is in force."""
    return _DISABLE_JIT.get() or os.environ.get("IDQL_DISABLE_JIT", "") not in ("", "0")


def set_bfloat16_matmul(flag: bool = True):
    """Let layers multiply in bfloat16; what ``matmul_precision("bf16")`` does for its block."""
    return _set(_BFLOAT16, flag)


def bfloat16_matmul() -> bool:
    """Whether layers multiply in bfloat16."""
    return _BFLOAT16.get()


def set_native_matmul(flag: bool = True):
    """Let compiled programs multiply by ``kernels/matmul.py``, as ``matmul_precision`` does."""
    return _set(_NATIVE, flag)


def native_matmul() -> bool:
    """Whether compiled programs on the CPU multiply by the library's own products."""
    return _NATIVE.get()


def partitionable() -> bool:
    """Whether the newer stream layout is in force."""
    return _PARTITIONABLE.get()


def float_dtype() -> torch.dtype:
    """The default float dtype of draws: float32, or float64 under :func:`enable_x64`."""
    return torch.float64 if x64_enabled() else torch.float32


def int_dtype() -> torch.dtype:
    """The default integer dtype of draws: int32, or int64 under :func:`enable_x64`."""
    return torch.int64 if x64_enabled() else torch.int32
