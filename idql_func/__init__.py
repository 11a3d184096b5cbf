"""IDQL and the ``jaxrl5`` package as functional PyTorch, equal to the JAX original."""

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
