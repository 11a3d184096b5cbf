"""A full disk at each write: one sentence that names the file, nothing left, equal afterwards."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from idql_func import files, interop
from idql_func.agents import IQLLearner
from idql_func.data import ReplayBuffer
from idql_func.data.hdf5 import read_d4rl_hdf5, write_d4rl_hdf5
from idql_func.data.minari_writer import write_minari_dataset
from idql_func.files import FileWriteError, leftovers, system

pytestmark = pytest.mark.reliability
BOX = gym.spaces.Box(-1, 1, (2,))


def _hdf5(folder: Path) -> None:
    arrays = {"observations": np.ones((5000, 4)), "rewards": np.ones(5000)}
    write_d4rl_hdf5(folder / "a.hdf5", arrays, {"env": "x"})


def _buffer(folder: Path) -> None:
    ReplayBuffer(BOX, BOX, capacity=9).save(folder / "buffer.safetensors")


def _policy(folder: Path) -> None:
    learner = IQLLearner.create(0, BOX, BOX, hidden_dims=(4,))
    interop.save_policy(interop.policy_module(learner), folder / "policy.safetensors")


def _minari(folder: Path) -> None:
    episode = {
        "observations": np.zeros((3, 2)), "actions": np.zeros((2, 2)), "rewards": np.zeros(2),
        "terminations": [False, True], "truncations": [False, False],
    }  # fmt: skip
    write_minari_dataset(folder / "toy-v0", [episode], observation_space=BOX, action_space=BOX)


def _json(folder: Path) -> None:
    files.write_json(folder / "a.json", {"a": 1})


WRITERS: list[Callable[[Path], None]] = [_hdf5, _buffer, _policy, _minari, _json]


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("write", WRITERS)
def test_full_disk_at_each_write(
    write: Callable[[Path], None], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = system.write, [0]

    def counted(handle: int, data: memoryview) -> int:
        count[0] += 1
        return real(handle, data)

    monkeypatch.setattr(system, "write", counted)
    write(tmp_path / "right")
    right, writes = _content(tmp_path / "right"), count[0]
    assert writes > 0
    for failing in range(1, writes + 1):
        count[0] = 0

        def full(handle: int, data: memoryview, failing: int = failing) -> int:
            count[0] += 1
            if count[0] >= failing:
                raise OSError(code, os.strerror(code))
            return real(handle, data)

        folder = tmp_path / "full"
        monkeypatch.setattr(system, "write", full)
        with pytest.raises(FileWriteError, match=r"could not be written: .*; ") as caught:
            write(folder)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
        assert _content(folder) == {}
        monkeypatch.setattr(system, "write", real)
        write(folder)
        assert _content(folder) == right
        monkeypatch.setattr(system, "write", full)
        count[0] = 0
        with pytest.raises(FileWriteError):
            write(folder)
        assert _content(folder) == right  # and kept by a write that fails
        shutil.rmtree(folder)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "write", lambda handle, data: os.write(handle, data[:100]))
    _hdf5(tmp_path)
    assert read_d4rl_hdf5(tmp_path / "a.hdf5")[0]["rewards"].sum() == 5000


def test_mapped_buffer_needs_its_room_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(system, "reserve", full)
    with pytest.raises(FileWriteError, match=r"No space left .*give a smaller capacity"):
        ReplayBuffer(BOX, BOX, capacity=100, storage=tmp_path / "rows")
    assert not list(tmp_path.rglob("*.memmap"))
    monkeypatch.undo()
    with pytest.raises(FileWriteError, match=r"needs .* TB, but only .* are free on its disk"):
        ReplayBuffer(BOX, BOX, capacity=10**13, storage=tmp_path / "rows")
    buffer: Any = ReplayBuffer(BOX, BOX, capacity=100, storage=tmp_path / "rows")
    used = sum(512 * path.stat().st_blocks for path in tmp_path.rglob("*.memmap"))
    assert used >= sum(array.nbytes for array in buffer.dataset_dict.values())


def test_folder_is_whole_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash between the two renames the next start gives the old folder its name back."""
    place = tmp_path / "a"

    def fill(text: str) -> None:
        with files.atomic_folder(place) as folder:
            folder.mkdir()
            (folder / "b.txt").write_text(text)

    real, calls = system.rename, [0]

    def killed(source: Path, target: Path) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        real(source, target)

    fill("old")
    monkeypatch.setattr(system, "_renameat2", lambda: None)  # two renames, not one exchange
    monkeypatch.setattr(system, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        fill("new")
    monkeypatch.setattr(system, "rename", real)
    monkeypatch.setattr(leftovers, "_writer_may_live", lambda path, match: False)
    files.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (place / "b.txt").read_text() == "old"
