"""Threefry draws: normals, dropout masks, keys and row numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Draw = Literal["normal", "dropout", "split", "randint"]


@dataclass(frozen=True)
class Settings:
    """``count`` numbers of one kind from a key, which rotates.

    ``normal``: float32 ``[count]``; ``dropout``: a Bernoulli mask ``[count]`` that keeps 0.9;
    ``split``: ``count`` keys; ``randint``: ``count`` row numbers below 100,000.
    """

    draw: Draw = "normal"
    count: int = 393_216
    """The default is that of the three dropout masks of one update."""
    partitionable: bool = False
    """JAX's newer layout of the stream; both sides take the same."""
    inputs: int = 16
    """How many keys rotate."""
