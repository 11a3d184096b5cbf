"""The part of the originals' side that is JAX alone: flags, arrays and trees."""
# pyright: reportMissingImports=false, reportPrivateImportUsage=false

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def use_one_thread() -> None:
    """Run JAX on the CPU with one thread, so that any number of cores gives the same bits."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault(
        "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )


def commit_of(checkout: Path) -> str:
    """The commit of a checkout, or ``unknown``."""
    result = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or "unknown"


class JaxArrays:
    """Flags, arrays and trees of :class:`parity.backend.Backend` over JAX."""

    jax: Any
    jnp: Any

    @contextlib.contextmanager
    def flags(self, x64: bool, partitionable: bool) -> Iterator[None]:
        def switch(wide: bool, newer: bool) -> None:
            self.jax.config.update("jax_enable_x64", wide)
            self.jax.config.update("jax_threefry_partitionable", newer)
            # The cache key of some compiled functions does not contain the flags of their trace.
            self.jax.clear_caches()

        now = (self.jax.config.jax_enable_x64, self.jax.config.jax_threefry_partitionable)
        if now != (x64, partitionable):
            switch(x64, partitionable)
        yield

    def array(self, value: np.ndarray) -> Any:
        return self.jnp.asarray(value)

    def numpy(self, value: Any) -> np.ndarray:
        return np.asarray(value)

    def grad(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.jax.grad(function)

    def tree_map(self, function: Callable[..., Any], tree: Any) -> Any:
        return self.jax.tree_util.tree_map(function, tree)

    def nested(self, tree: Any) -> dict[str, Any]:
        return {
            name: self.nested(value) if isinstance(value, Mapping) else np.asarray(value)
            for name, value in tree.items()
        }

    def tree(self, nested: Mapping[str, Any]) -> Any:
        import flax

        return flax.core.freeze(self.jax.tree_util.tree_map(self.jnp.asarray, dict(nested)))
