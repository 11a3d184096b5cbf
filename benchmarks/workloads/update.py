"""One IDQL update with its batch drawn inside the program."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """A ``DDPMIQLLearner`` of default keywords but for these, on a dataset on the device.

    ``rows`` transitions lie on the device; each call splits its key, draws ``batch`` row numbers by
    ``randint`` inside the program, gathers the five fields and updates.
    """

    batch: int = 512
    observations: int = 17
    actions: int = 6
    dropout: float = 0.1
    hidden: int = 256
    """Width of the actor's residual blocks and of each of the two layers of Q and V."""
    blocks: int = 3
    T: int = 5
    rows: int = 100_000
    seed: int = 0
