"""The library's three public switches, and two that ``matmul_precision`` sets.

Each is a context manager: it holds within the ``with`` block, and in the thread, that sets it. A
new thread starts with the defaults, as in JAX; :func:`with_current_switches` carries the values of
one thread into another. Code under ``torch.compile`` may read the switches: torch compiles it again
when they change. This module imports nothing of the library, because the random streams, the layers
and the transforms all read the switches.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


class _Switches(threading.local):
    """The values in one thread. ``torch.compile`` reads such an object, but no ``ContextVar``."""

    def __init__(self) -> None:
        self.x64 = False
        self.disable_jit = False
        self.bfloat16_matmul = False
        self.native_matmul = False
        self.partitionable = False


_SWITCHES = _Switches()


@contextmanager
def _set(name: str, flag: bool) -> Iterator[None]:
    if not isinstance(flag, bool | int):
        raise TypeError(f"{name}: flag must be True or False, got {type(flag).__name__}.")
    before = getattr(_SWITCHES, name)
    setattr(_SWITCHES, name, bool(flag))
    try:
        yield
    finally:
        setattr(_SWITCHES, name, before)


def with_current_switches(fn: F) -> F:
    """A function that runs in any thread with the switches of the thread that calls this one.

    >>> import threading
    >>> from idql_func import enable_x64, switches
    >>> seen = []
    >>> with enable_x64():
    ...     carried = switches.with_current_switches(lambda: seen.append(switches.x64_enabled()))
    >>> thread = threading.Thread(target=carried)
    >>> thread.start(), thread.join(), seen
    (None, None, [True])
    """
    values = dict(vars(_SWITCHES))

    @functools.wraps(fn)
    def carried(*args: Any, **kwargs: Any) -> Any:
        before = dict(vars(_SWITCHES))
        vars(_SWITCHES).update(values)
        try:
            return fn(*args, **kwargs)
        finally:
            vars(_SWITCHES).update(before)

    return carried  # type: ignore[return-value]


def enable_x64(flag: bool = True):
    """Use JAX's double-precision semantics inside the block (``jax_enable_x64``).

    A draw without an explicit dtype has 64 bits (made of other random bits than the 32-bit draw,
    as in JAX), and Python floats passed to a jitted function become float64.

    >>> from idql_func import enable_x64, random
    >>> with enable_x64():
    ...     random.normal(random.PRNGKey(0), (2,)).dtype
    torch.float64
    """
    return _set("x64", flag)


def disable_jit(flag: bool = True):
    """Run every jitted function eagerly inside the block (``jax.disable_jit``).

    The environment variable ``IDQL_DISABLE_JIT=1`` does the same for a whole process.

    >>> import torch
    >>> from idql_func import disable_jit, jit
    >>> with disable_jit():
    ...     jit(lambda x: x + 1)(torch.zeros(()))
    tensor(1.)
    """
    return _set("disable_jit", flag)


def threefry_partitionable(flag: bool = True):
    """Choose the layout of the random streams (``jax_threefry_partitionable``).

    False, the default here, is JAX's older layout, which upstream used; True is the layout that
    JAX uses by default since version 0.5.

    >>> from idql_func import random
    >>> with random.threefry_partitionable(True):
    ...     random.split(random.PRNGKey(0)).tolist()
    [[1797259609, 2579123966], [928981903, 3453687069]]
    """
    return _set("partitionable", flag)


def x64_enabled() -> bool:
    """Whether :func:`enable_x64` is active."""
    return _SWITCHES.x64


def jit_disabled() -> bool:
    """Whether :func:`disable_jit` or ``IDQL_DISABLE_JIT`` is active."""
    return _SWITCHES.disable_jit or os.environ.get("IDQL_DISABLE_JIT", "") not in ("", "0")


def set_bfloat16_matmul(flag: bool = True):
    """Let layers multiply matrices in bfloat16; ``matmul_precision("bf16")`` sets it."""
    return _set("bfloat16_matmul", flag)


def bfloat16_matmul() -> bool:
    """Whether layers multiply matrices in bfloat16."""
    return _SWITCHES.bfloat16_matmul


def set_native_matmul(flag: bool = True):
    """Let compiled CPU programs use ``kernels/matmul.py``; ``matmul_precision`` sets it."""
    return _set("native_matmul", flag)


def native_matmul() -> bool:
    """Whether compiled CPU programs use ``kernels/matmul.py`` for matrix products."""
    return _SWITCHES.native_matmul


def partitionable() -> bool:
    """Whether the newer layout of random streams is active."""
    return _SWITCHES.partitionable


def float_dtype() -> torch.dtype:
    """The default float dtype: float32, or float64 under :func:`enable_x64`."""
    return torch.float64 if x64_enabled() else torch.float32


def int_dtype() -> torch.dtype:
    """The default integer dtype: int32, or int64 under :func:`enable_x64`."""
    return torch.int64 if x64_enabled() else torch.int32
