"""One DrQ update from images, drawn from a buffer of single frames and augmented in the program."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """A ``DrQLearner`` of default keywords on a memory-efficient buffer on the device.

    The buffer holds ``rows`` single frames ``[rows, image, image, 3]`` uint8 of one long episode.
    A call splits its key, draws ``batch`` starts by ``randint`` below ``rows - frames``, gathers
    ``frames + 1`` frames in a row for each into packed pixels ``[batch, image, image, 3,
    frames + 1]`` (all but the last are the observation, all but the first the next one) and
    updates, random crops included.
    """

    batch: int = 256
    image: int = 64
    frames: int = 3
    actions: int = 6
    hidden: int = 256
    rows: int = 2_000
    seed: int = 0
