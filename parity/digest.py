"""A small excerpt of a large parameter tree.

Whole trees of the default sizes would take megabytes per case. Instead, the record has up to
:data:`KEEP` evenly spaced entries of each leaf, and for each tree the norms of all its leaves,
which cover the entries in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity import inputs

KEEP = 96


def excerpt(leaf: np.ndarray, keep: int = KEEP) -> np.ndarray:
    """Evenly spaced entries of ``leaf``, first and last included; all if there are few.

    >>> excerpt(np.arange(10), keep=4)
    array([0, 3, 6, 9])
    """
    flat = leaf.reshape(-1)
    if flat.size <= keep:
        return flat
    return flat[np.linspace(0, flat.size - 1, keep).astype(np.int64)]


def norm(leaf: np.ndarray) -> float:
    """Euclidean norm in float64, without BLAS: its sums depend on the number of its threads.

    >>> norm(np.array([[3.0, 0.0], [0.0, 4.0]], np.float32))
    5.0
    """
    return float(np.sqrt(np.sum(np.square(leaf.astype(np.float64)))))


def digest(tree: Mapping[str, Any], name: str, keep: int = KEEP) -> dict[str, np.ndarray]:
    """Excerpts ``params/<name>/<path>`` and the float64 norms ``norms/<name>`` in path order."""
    flat = {path: np.asarray(leaf) for path, leaf in inputs.flatten(tree).items()}
    out = {f"params/{name}/{path}": excerpt(leaf, keep) for path, leaf in flat.items()}
    out[f"norms/{name}"] = np.array([norm(leaf) for leaf in flat.values()], np.float64)
    return out
