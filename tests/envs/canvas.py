"""A small environment with images, in NumPy alone, so that upstream can run it too."""

from __future__ import annotations

from typing import Any

import numpy as np


class Canvas:
    """A bright dot moves with the action over a gradient; an episode has 5 to 9 steps.

    State: position ``[2]`` and step number, float64. Reward: the sum of the action times the step.
    """

    low, high = np.array([-2.0, -1.0], np.float32), np.array([4.0, 1.0], np.float32)

    def __init__(self) -> None:
        self.received: list[np.ndarray] = []

    def reset(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        self.length = int(rng.integers(5, 10))
        self.position = rng.uniform(0, 1, 2)
        self.count = 0
        return self.state()

    def state(self) -> np.ndarray:
        return np.array([*self.position, self.count], np.float64)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
        self.received.append(np.array(action))
        self.count += 1
        self.position = (self.position + np.asarray(action, np.float64) / 7) % 1.0
        reward = float(np.sum(np.asarray(action, np.float64)) * self.count)
        info = {"count": self.count, f"at_{self.count}": True}
        return self.state(), reward, self.count >= self.length, info

    def picture(self, height: int, width: int, camera_id: int = 0) -> np.ndarray:
        """``[H, W, 3]`` uint8."""
        rows, columns = np.mgrid[0:height, 0:width]
        picture = np.stack(
            [rows * 7 % 256, columns * 11 % 256, np.full_like(rows, camera_id * 50 + 20)], axis=-1
        ).astype(np.uint8)
        row, column = (self.position * [height, width]).astype(int)
        picture[row, column] = (255, 255, 10 * self.count)
        return picture


def episode_actions(seed: int, episodes: int) -> list[list[np.ndarray]]:
    """Actions ``[2]`` float32 of each episode, some beyond ±1; long enough for any episode."""
    rng = np.random.default_rng(seed)
    return [list(rng.uniform(-1.5, 1.5, (12, 2)).astype(np.float32)) for _ in range(episodes)]
