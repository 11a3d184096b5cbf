"""An ensemble of critics under ``vmap``, against a loop over its members."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Value and gradient of ``mean((Q_i(s, a) - y)^2)`` of all members by their parameters."""

    members: int = 2
    batch: int = 256
    observations: int = 17
    actions: int = 6
    hidden: int = 256
    """Width of each of the two layers."""
    seed: int = 0
    inputs: int = 8
    """How many batches rotate."""
