"""IDQL and the ``jaxrl5`` package as functional PyTorch, equal to the JAX original.

A name is imported at its first use, so that a command that needs no torch, such as
``idql --help``, starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idql_func import debug, random, struct
    from idql_func.transforms import (
        ShapeDtypeStruct,
        disable_jit,
        dynamic_index_in_dim,
        dynamic_slice,
        dynamic_slice_in_dim,
        dynamic_update_slice,
        dynamic_update_slice_in_dim,
        enable_x64,
        eval_shape,
        grad,
        jit,
        logsumexp,
        scan,
        stop_gradient,
        tree_flatten,
        tree_leaves,
        tree_map,
        tree_stack,
        tree_unflatten,
        tree_unstack,
        value_and_grad,
        vmap,
    )

__version__ = "0.2.0"  # pyproject.toml reads it

__all__ = [
    "ShapeDtypeStruct",
    "debug",
    "disable_jit",
    "dynamic_index_in_dim",
    "dynamic_slice",
    "dynamic_slice_in_dim",
    "dynamic_update_slice",
    "dynamic_update_slice_in_dim",
    "enable_x64",
    "eval_shape",
    "grad",
    "jit",
    "logsumexp",
    "random",
    "scan",
    "stop_gradient",
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
    if name in __all__ and name not in ("debug", "random", "struct"):
        return getattr(import_module(f"{__name__}.transforms"), name)
    module = f"{__name__}.{name}"
    try:
        if not name.startswith("_"):
            return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
