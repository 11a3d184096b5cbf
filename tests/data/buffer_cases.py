"""The port's side of the scenarios of ``upstream_buffers``, and small buffers for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import upstream_buffers
from gymnasium import spaces

from idql_func.data import MemoryEfficientReplayBuffer, ReplayBuffer

ACTIONS = spaces.Box(-1, 1, (2,), np.float32)


def port_samples(name: str) -> dict[str, np.ndarray]:
    """The samples of the port's buffer in a scenario."""
    scenario = upstream_buffers.SCENARIOS[name]
    space = upstream_buffers.observation_space(scenario, spaces)
    buffer: Any
    if scenario.stack:
        keys = upstream_buffers.pixel_keys(scenario)
        buffer = MemoryEfficientReplayBuffer(space, ACTIONS, scenario.capacity, keys)
    else:
        buffer = ReplayBuffer(space, ACTIONS, scenario.capacity)
    rows: list[Any] = []
    gather = buffer._gather

    def recorded(fields: Any, drawn: Any, *more: Any) -> Any:
        rows.append(drawn)
        return gather(fields, drawn, *more)

    buffer._gather = recorded
    return upstream_buffers.run_scenario(buffer, name, rows)


def transition(number: float = 0.0, done: bool = False, **changes: Any) -> dict[str, Any]:
    """A transition of a plain buffer with observations of three numbers."""
    return {
        "observations": np.full(3, number, np.float32),
        "next_observations": np.full(3, number + 1, np.float32),
        "actions": np.zeros(2, np.float32),
        "rewards": number,
        "masks": 1.0,
        "dones": done,
        **changes,
    }


def plain_buffer(capacity: int = 10, filled: int = 0, **options: Any) -> ReplayBuffer:
    """A buffer with rewards 0, 1, 2, ...; every third transition ends an episode."""
    buffer = ReplayBuffer(spaces.Box(-1, 1, (3,)), ACTIONS, capacity, **options)
    for number in range(filled):
        buffer.insert(transition(number, number % 3 == 2))
    return buffer


def frame_space(stack: int) -> spaces.Dict:
    """A space of one pixel key and a state."""
    pixels = spaces.Box(0, 255, (2, 1, 1, stack), np.uint8)
    return spaces.Dict({"pixels": pixels, "state": spaces.Box(-1, 1, (1,))})


def episodes(lengths: list[int], stack: int) -> Iterator[dict[str, Any]]:
    """Transitions with stacked frames; all frames differ, and ``rewards`` counts transitions."""
    frame = number = 0

    def next_frame() -> np.ndarray:
        nonlocal frame
        frame += 1
        return np.array([frame % 256, frame // 256], np.uint8).reshape(2, 1, 1, 1)

    for length in lengths:
        pixels = np.concatenate([next_frame()] * stack, axis=-1)
        for step in range(length):
            after = np.concatenate([pixels[..., 1:], next_frame()], axis=-1)
            yield {
                "observations": {"pixels": pixels, "state": np.full(1, number)},
                "next_observations": {"pixels": after, "state": np.full(1, number + 1)},
                "actions": np.zeros(2),
                "rewards": float(number),
                "masks": 1.0,
                "dones": step == length - 1,
            }
            pixels = after
            number += 1


def frame_buffer(
    lengths: list[int], capacity: int = 50, stack: int = 3, **options: Any
) -> MemoryEfficientReplayBuffer:
    """A buffer that holds episodes of these lengths."""
    buffer = MemoryEfficientReplayBuffer(frame_space(stack), ACTIONS, capacity, **options)
    for step in episodes(lengths, stack):
        buffer.insert(step)
    return buffer
