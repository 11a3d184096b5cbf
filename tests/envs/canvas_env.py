"""The canvas as a Gymnasium environment."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from canvas import Canvas
from gymnasium.spaces import Box, Dict


class CanvasEnv(gym.Env):
    """An environment drawn without OpenGL; ``reset`` without a seed uses the last seed plus 1.

    Args:
        nested: observe a Dict of the image, the state and a part of the state.
        render_mode: Gymnasium's render mode.
        size: height and width of ``render()``'s image in pixels.
        truncate: end an episode by truncation instead of termination.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 12}

    def __init__(
        self,
        nested: bool = False,
        render_mode: str | None = "rgb_array",
        size: tuple[int, int] = (8, 8),
        truncate: bool = False,
    ) -> None:
        self.canvas, self.nested, self.size, self.truncate = Canvas(), nested, size, truncate
        self.render_mode, self.next_seed, self.closed = render_mode, 0, False
        self.action_space = Box(Canvas.low, Canvas.high, dtype=np.float32)
        state = Box(-np.inf, np.inf, (3,), np.float64)
        self.observation_space = state
        if nested:
            picture, half = Box(0, 255, (6, 5, 3), np.uint8), Box(0, 1, (2,), np.float32)
            self.observation_space = Dict(
                {"pixels": picture, "b": state, "a": Dict({"half": half})}
            )

    def _observe(self) -> Any:
        state = self.canvas.state()
        if not self.nested:
            return state
        half = state[:2].astype(np.float32)
        return {"pixels": self.canvas.picture(6, 5), "b": state, "a": {"half": half}}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.next_seed = self.next_seed if seed is None else seed
        self.canvas.reset(self.next_seed)
        self.next_seed += 1
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, reward, done, info = self.canvas.step(action)
        return self._observe(), reward, done and not self.truncate, done and self.truncate, info

    def render(self) -> Any:
        return self.canvas.picture(*self.size)

    def close(self) -> None:
        self.closed = True
