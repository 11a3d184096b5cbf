"""Run upstream's wrappers in the reference environment and save their outputs.

Needs upstream's checkout on PYTHONPATH and gym 0.23.1; nothing of this project but canvas.py.

    python tests/envs/upstream_wrappers.py tests/envs/reference/wrappers.safetensors
"""

from __future__ import annotations

import platform
import sys
import types
from typing import Any, ClassVar

import numpy as np
from canvas import Canvas, episode_actions


def record(path: str) -> None:
    import gym  # pyright: ignore
    from gym.spaces import Box, Dict  # pyright: ignore
    from safetensors.numpy import save_file

    # jaxrl5.wrappers imports wandb, but nothing here uses it.
    sys.modules.setdefault("wandb", types.ModuleType("wandb"))
    from jaxrl5.wrappers import wrap_gym, wrap_pixels  # pyright: ignore
    from jaxrl5.wrappers.frame_stack import FrameStack  # pyright: ignore
    from jaxrl5.wrappers.repeat_action import RepeatAction  # pyright: ignore
    from jaxrl5.wrappers.single_precision import SinglePrecision  # pyright: ignore

    class OldCanvas(gym.Env):
        metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

        def __init__(self, nested: bool = False) -> None:
            self.canvas, self.nested, self.next_seed = Canvas(), nested, 0
            self.action_space = Box(Canvas.low, Canvas.high, dtype=np.float32)
            state = Box(-np.inf, np.inf, (3,), np.float64)
            self.observation_space = state
            if nested:
                spaces = {
                    "pixels": Box(0, 255, (6, 5, 3), np.uint8),
                    "b": state,
                    "a": Dict({"half": Box(0, 1, (2,), np.float32)}),
                }
                self.observation_space = Dict(spaces)

        def _observe(self, state: np.ndarray) -> Any:
            if not self.nested:
                return state
            half = state[:2].astype(np.float32)
            return {"pixels": self.canvas.picture(6, 5), "b": state, "a": {"half": half}}

        def reset(self) -> Any:
            self.canvas.reset(self.next_seed)
            self.next_seed += 1
            return self._observe(self.canvas.state())

        def step(self, action: np.ndarray) -> Any:
            state, reward, done, info = self.canvas.step(action)
            return self._observe(state), reward, done, info

        def render(
            self, mode: str = "human", height: int = 9, width: int = 9, camera_id: int = 0
        ) -> np.ndarray:
            return self.canvas.picture(height, width, camera_id)

    class NoPixels(gym.ObservationWrapper):
        """A Dict observation without the image, for ``wrap_gym``."""

        def __init__(self, env: Any) -> None:
            super().__init__(env)
            spaces = env.observation_space.spaces
            self.observation_space = Dict({key: spaces[key] for key in ("b", "a")})

        def observation(self, observation: Any) -> Any:
            return {key: observation[key] for key in ("b", "a")}

    tensors: dict[str, np.ndarray] = {}

    def play(name: str, env: Any, canvas: Canvas) -> None:
        canvas.received.clear()
        base = env.unwrapped
        base.next_seed = 0
        observations, rewards, dones, counts = [], [], [], []
        for actions in episode_actions(3, 3):
            observation, done = env.reset(), False
            observations.append(observation)
            for action in actions:
                if done:
                    break
                observation, reward, done, info = env.step(action)
                observations.append(observation)
                rewards.append(reward)
                dones.append(done)
                counts.append(len(info))
        for key, value in _leaves(observations):
            tensors[f"{name}/observations{key}"] = value
        tensors[f"{name}/rewards"] = np.array(rewards)
        tensors[f"{name}/dones"] = np.array(dones)
        tensors[f"{name}/infos"] = np.array(counts)
        tensors[f"{name}/received"] = np.stack(canvas.received)

    for repeat in (1, 2, 4):
        env = OldCanvas()
        play(f"repeat_{repeat}", RepeatAction(env, repeat), env.canvas)
    for stack in (1, 2, 3):
        env = OldCanvas(nested=True)
        play(f"stack_{stack}", FrameStack(env, stack), env.canvas)
    env = OldCanvas(nested=True)
    play("single", SinglePrecision(env), env.canvas)
    env = OldCanvas(nested=True)
    play("gym", wrap_gym(NoPixels(env)), env.canvas)
    for repeat, stack, camera in ((1, 3, 0), (2, 3, 2), (4, 1, 0)):
        env = OldCanvas()
        env.reset()  # the pixel wrapper draws once when it is made
        wrapped, keys = wrap_pixels(env, repeat, image_size=8, num_stack=stack, camera_id=camera)
        assert keys == ("pixels",)
        play(f"pixels_{repeat}_{stack}_{camera}", wrapped, env.canvas)
    metadata = {
        "gym": gym.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "upstream": "philippe-eecs/IDQL 7582571",
        "command": " ".join(["python", *sys.argv]),
    }
    save_file(tensors, path, metadata)


def _leaves(observations: list[Any], path: str = "") -> list[tuple[str, np.ndarray]]:
    if not isinstance(observations[0], dict):
        return [(path, np.stack(observations))]
    return [
        leaf
        for key in sorted(observations[0])
        for leaf in _leaves([o[key] for o in observations], f"{path}/{key}")
    ]


if __name__ == "__main__":
    record(sys.argv[1])
