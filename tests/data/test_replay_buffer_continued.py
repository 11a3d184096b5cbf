"""A loaded replay buffer continues: with a larger capacity, and after an interrupted episode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from idql_func.data import MemoryEfficientReplayBuffer, ReplayBuffer


def put(buffer: ReplayBuffer, number: int, done: bool = False) -> None:
    buffer.insert(
        {
            "observations": np.full(2, number),
            "next_observations": np.full(2, number + 1),
            "actions": np.zeros(1),
            "rewards": number,
            "masks": 1.0,
            "dones": done,
        }
    )


@pytest.mark.parametrize(
    ("count", "capacity", "rewards"),
    [(3, 9, [0, 1, 2, 3, 4, 5]), (5, 9, [0, 1, 2, 3, 4, 5, 6, 7]), (7, 5, [5, 6, 7, 8, 9])],
)
def test_capacity_grows_unless_rows_were_overwritten(
    tmp_path: Path, count: int, capacity: int, rewards: list[int]
) -> None:
    buffer = ReplayBuffer(Box(-1, 1, (2,)), Box(-1, 1, (1,)), 5, seed=0)
    for number in range(count):
        put(buffer, number)
    grown = ReplayBuffer.load(buffer.save(tmp_path / "b.safetensors"), capacity=9)
    for number in range(count, count + 3):
        put(grown, number)
    assert grown.capacity == capacity
    assert grown.dataset_dict["rewards"][: len(grown)].tolist() == rewards


def test_end_episode_sets_dones() -> None:
    buffer = ReplayBuffer(Box(-1, 1, (2,)), Box(-1, 1, (1,)), 2, seed=0)
    buffer.end_episode()
    for number in range(2):
        put(buffer, number)
    buffer.end_episode()
    assert buffer.dataset_dict["dones"].tolist() == [False, True]


def test_end_episode_starts_new_padding() -> None:
    space = Dict({"pixels": Box(0, 255, (1, 1, 1, 2), np.uint8)})
    buffer = MemoryEfficientReplayBuffer(space, Box(-1, 1, (1,)), 20, seed=0)

    def insert(frame: int) -> None:
        stacks = np.array([frame, frame + 1, frame + 2], np.uint8)[None, None, None]
        buffer.insert(
            {
                "observations": {"pixels": stacks[..., :2]},
                "next_observations": {"pixels": stacks[..., 1:]},
                "actions": np.zeros(1),
                "rewards": frame,
                "masks": 1.0,
                "dones": False,
            }
        )

    insert(10)
    buffer.end_episode()
    insert(50)
    batch = buffer.sample(1, indx=buffer.transition_rows)
    assert batch["observations"]["pixels"].reshape(2, 2).tolist() == [[10, 11], [50, 51]]
