"""IDQL and the ``jaxrl5`` package as functional PyTorch, equal to the JAX original.

Its names are imported when they are first asked for, so that what needs no torch, such as
``idql --help``, need not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idql_func import random, struct
    from idql_func.transforms import (
        disable_jit,
        enable_x64,
        grad,
        jit,
        scan,
        tree_flatten,
        tree_leaves,
        tree_map,
        tree_stack,
        tree_unflatten,
        tree_unstack,
        value_and_grad,
        vmap,
    )

__all__ = [
    "disable_jit",
    "enable_x64",
    "grad",
    "jit",
    "random",
    "scan",
    "struct",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_stack",
    "tree_unflatten",
    "tree_unstack",
    "value_and_grad",
    "vmap",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("random", "struct"):
        return import_module(f"{__name__}.{name}")
    return getattr(import_module(f"{__name__}.transforms"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
