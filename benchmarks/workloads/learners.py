"""One update of each learner, on batches that rotate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LearnerName = Literal[
    "idql", "idql-general", "iql", "bc", "sac", "td3", "redq", "droq", "drq", "pixel-bc"
]


@dataclass(frozen=True)
class Settings:
    """``update`` of a learner of default keywords but for these; one call is one ``update``.

    ``redq`` is SAC with ten critics of which two make the target, ``droq`` SAC with dropout 0.01
    and layer norm in the critics; a batch has ``batch * utd`` rows, which they cut into ``utd``
    parts. The image learners see ``[image, image, 3, frames]`` uint8 pixels, not packed.
    """

    learner: LearnerName = "iql"
    batch: int = 256
    observations: int = 17
    actions: int = 6
    hidden: int = 256
    utd: int = 1
    image: int = 64
    frames: int = 3
    seed: int = 0
    inputs: int = 8
    """How many batches rotate; they lie on the device."""
