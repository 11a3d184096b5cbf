"""The draws of the random workload."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable

import jax

DRAWS: dict[str, Callable[[jax.Array, int], jax.Array]] = {
    "normal": lambda key, count: jax.random.normal(key, (count,)),
    "dropout": lambda key, count: jax.random.bernoulli(key, 0.9, (count,)),
    "split": jax.random.split,
    "randint": lambda key, count: jax.random.randint(key, (count,), 0, 100_000),
}
"""``draw(key, count)`` by its name in the settings."""
