"""An environment of 8 x 8 pixels, and episodes of a random policy in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from idql_func.data import MemoryEfficientReplayBuffer
from idql_func.data.hdf5 import write_d4rl_hdf5
from idql_func.training.configs.learners import PixelBCConfig
from idql_func.training.task import pixel_environment_factory

TINY_DOT = "TinyDot-v0"
SIZE, STACK, STEPS = 8, 2, 9

TINY_PIXEL_BC = PixelBCConfig(
    cnn_features=(3,),
    cnn_filters=(3,),
    cnn_strides=(2,),
    latent_dim=4,
    hidden_dims=(8,),
    dropout_rate=0.1,
)


class TinyDot(gym.Env):
    """The action moves a dot over a dark image; the reward is the action's first component."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(0.3, 0.7, 2).astype(np.float32)
        return self.position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.position = np.clip(self.position + np.float32(0.1) * action, 0, 0.99)
        return self.position.copy(), float(action[0]), False, False, {}

    def render(self) -> Any:
        image = np.full((SIZE, SIZE, 3), 10, np.uint8)
        row, column = (self.position * SIZE).astype(int)
        image[row, column] = (250, 120, 60)
        return image


def roll_out(folder: Path, episodes: int = 12) -> tuple[Path, Path]:
    """A buffer file and an HDF5 file of the same episodes."""
    env = pixel_environment_factory(TINY_DOT, SIZE, STACK, action_repeat=1)()
    buffer = MemoryEfficientReplayBuffer(
        env.observation_space, env.action_space, capacity=episodes * (STEPS + STACK), seed=0
    )
    rng = np.random.default_rng(0)
    rows: dict[str, list[Any]] = {
        name: [] for name in ("observations/pixels", "actions", "rewards", "terminals", "timeouts")
    }
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        truncated = False
        while not truncated:
            action = rng.uniform(-1, 1, 2).astype(np.float32)
            next_observation, reward, _, truncated, _ = env.step(action)
            values = (observation["pixels"], action, reward, False, truncated)
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
            buffer.insert(
                {
                    "observations": observation,
                    "next_observations": next_observation,
                    "actions": action,
                    "rewards": reward,
                    "masks": 1.0,
                    "dones": truncated,
                }
            )
            observation = next_observation
    env.close()
    arrays = {name: np.array(values) for name, values in rows.items()}
    arrays["rewards"] = arrays["rewards"].astype(np.float32)
    return (
        buffer.save(folder / "buffer.safetensors"),
        write_d4rl_hdf5(folder / "images.hdf5", arrays, {"env": TINY_DOT}),
    )
