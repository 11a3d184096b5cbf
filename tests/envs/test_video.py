"""Videos contain the frames of the episode; a file is complete or absent."""

from __future__ import annotations

import errno
import importlib
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from canvas_env import CanvasEnv
from PIL import Image, ImageSequence

from idql_func.envs import VideoRecorder, WANDBVideo, make_env, video, wrap_pixels, write_video
from idql_func.files import FileWriteError, system
from idql_func.types import InputError


def grey_frames(count: int, height: int = 12, width: int = 16) -> np.ndarray:
    """Grey frames, each brighter than the one before."""
    shades = np.linspace(20, 230, count).astype(np.uint8)
    return np.broadcast_to(shades[:, None, None, None], (count, height, width, 3)).copy()


def read_gif(path: Path) -> tuple[np.ndarray, list[int]]:
    with Image.open(path) as image:
        pictures = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
        times = [int(frame.info["duration"]) for frame in ImageSequence.Iterator(image)]
    return np.stack(pictures), times


def run(env: Any, episodes: int, seed: int = 0) -> list[int]:
    """The number of steps of each episode."""
    lengths = []
    for episode in range(episodes):
        env.reset(seed=seed + episode)
        steps, done = 0, False
        while not done:
            _, _, terminated, truncated, _ = env.step(np.full(2, 0.3, np.float32))
            steps, done = steps + 1, terminated or truncated
        lengths.append(steps)
    return lengths


@pytest.fixture
def no_ffmpeg(monkeypatch) -> None:
    real = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name == "imageio_ffmpeg":
            raise ImportError(f"No module named {name!r}")
        return real(name, *args)

    monkeypatch.setattr(video.importlib, "import_module", without)


def test_gif_holds_frames_and_durations(tmp_path: Path) -> None:
    frames = grey_frames(5)
    path = write_video(tmp_path / "deep" / "film.gif", frames, fps=10)
    pictures, times = read_gif(path)
    assert (path, times) == (tmp_path / "deep" / "film.gif", [100] * 5)
    np.testing.assert_array_equal(pictures, frames)


def test_equal_frames_keep_their_duration(tmp_path: Path) -> None:
    frames = np.concatenate([grey_frames(2), grey_frames(2)[1:]])
    pictures, times = read_gif(write_video(tmp_path / "film.gif", frames, fps=20))
    assert sum(times) == 150
    np.testing.assert_array_equal(pictures[-1], frames[-1])


@pytest.mark.parametrize("size", [(12, 16), (13, 17), (84, 84)])
def test_mp4_holds_frames(tmp_path: Path, size: tuple[int, int]) -> None:
    imageio = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    frames = grey_frames(6, *size)
    path = write_video(tmp_path / "film.mp4", frames, fps=12)
    pictures = np.stack(list(imageio.imiter(path, plugin="FFMPEG")))
    height, width = size
    assert pictures.shape == (6, height + height % 2, width + width % 2, 3)
    # lossy, and colours go through YUV
    assert np.abs(pictures[:, :height, :width].astype(int) - frames).max() < 8
    assert imageio.immeta(path, plugin="FFMPEG")["fps"] == 12


def test_one_channel_is_grey(tmp_path: Path) -> None:
    pictures, _ = read_gif(write_video(tmp_path / "film.gif", grey_frames(3)[..., :1]))
    np.testing.assert_array_equal(pictures, grey_frames(3))


@pytest.mark.parametrize(
    ("name", "frames", "fps", "message"),
    [
        ("film.avi", grey_frames(2), 20, r"must end in .mp4 or .gif, got 'film.avi'"),
        ("film.gif", grey_frames(2), 0, "fps must be positive, got 0"),
        ("film.gif", [], 20, "at least one frame, got none"),
        ("film.gif", grey_frames(2).astype(float), 20, r"got float64 \(2, 12, 16, 3\)"),
        ("film.gif", grey_frames(2)[..., :2], 20, r"got uint8 \(2, 12, 16, 2\)"),
        ("film.gif", [grey_frames(1)[0], grey_frames(1, 8)[0]], 20, "got frames of several sizes"),
    ],
)
def test_bad_frames_raise_input_error(
    tmp_path: Path, name: str, frames: Any, fps: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_video(tmp_path / name, frames, fps)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = write_video(tmp_path / "film.gif", grey_frames(2))
    before = path.read_bytes()
    suffixes = {".gif", video.video_suffix()}

    def full(handle: int, data: memoryview) -> int:
        os.write(handle, data[:4])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(system, "write", full)
    for suffix in suffixes:
        with pytest.raises(FileWriteError, match=rf"film{suffix} could not be written: No space"):
            write_video(path.with_suffix(suffix), grey_frames(3))
    assert [file.name for file in tmp_path.iterdir()] == ["film.gif"]
    assert path.read_bytes() == before


def test_file_mode_follows_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    path = write_video(tmp_path / "film.gif", grey_frames(2))
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_without_ffmpeg_videos_are_gifs(tmp_path: Path, no_ffmpeg: None) -> None:
    assert video.video_suffix() == ".gif"
    with pytest.raises(InputError, match=r"needs imageio and imageio-ffmpeg.*idql_func\[video\]"):
        write_video(tmp_path / "film.mp4", grey_frames(2))
    recorder = VideoRecorder(CanvasEnv(), tmp_path, size=8)
    run(recorder, 1)
    assert [path.suffix for path in recorder.files] == [".gif"]


def test_recorder_renders_episodes(tmp_path: Path) -> None:
    canvas_env = CanvasEnv()
    env = VideoRecorder(canvas_env, tmp_path, "try", size=8, every=2, suffix=".gif")
    lengths = run(env, 4)
    assert [path.name for path in env.files] == ["try-0000.gif", "try-0002.gif"]
    pictures, times = read_gif(env.files[1])
    assert len(pictures) == lengths[2] + 1
    assert times[0] == 80  # milliseconds: 12 frames a second, in whole hundredths
    np.testing.assert_array_equal(pictures[-1, ..., 0] == 255, last_dot(lengths[2], seed=2))


def last_dot(steps: int, seed: int) -> np.ndarray:
    canvas_env = CanvasEnv()
    canvas_env.reset(seed=seed)
    for _ in range(steps):
        canvas_env.step(np.full(2, 0.3, np.float32))
    return canvas_env.canvas.picture(8, 8)[..., 0] == 255


def test_recorder_stops_after_its_last_video(tmp_path: Path) -> None:
    env = VideoRecorder(CanvasEnv(), tmp_path, size=8, max_videos=2, suffix=".gif")
    run(env, 5)
    assert len(env.files) == len(list(tmp_path.iterdir())) == 2


def test_unfinished_episode_is_discarded(tmp_path: Path) -> None:
    env = VideoRecorder(CanvasEnv(), tmp_path, size=8, suffix=".gif")
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    lengths = run(env, 1)
    assert [path.name for path in env.files] == ["episode-0001.gif"]
    assert sum(read_gif(env.files[0])[1]) <= 80 * (lengths[0] + 1)


def test_recorder_uses_pixel_observations(tmp_path: Path) -> None:
    inner = CanvasEnv(size=(6, 6))
    env = VideoRecorder(wrap_pixels(inner, image_size=6)[0], tmp_path, suffix=".gif")
    run(env, 1)
    pictures, _ = read_gif(env.files[0])
    np.testing.assert_allclose(pictures[-1], inner.canvas.picture(6, 6), atol=1)


def test_recorder_of_mujoco_and_bad_arguments(tmp_path: Path) -> None:
    env = VideoRecorder(
        make_env("InvertedPendulum-v5", max_episode_steps=2), tmp_path, size=24, suffix=".gif"
    )
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.ones(1, np.float32))
    assert read_gif(env.files[0])[0].shape[1:] == (24, 24, 3)
    env.close()
    with pytest.raises(InputError, match="every and size must be at least 1, got 0 and None"):
        VideoRecorder(CanvasEnv(), tmp_path, every=0)


def test_wandb_logs_each_episode_without_commit(monkeypatch, no_ffmpeg: None) -> None:
    logged: list[tuple[dict, bool]] = []

    def read(path: str, format: str) -> tuple[np.ndarray, str]:  # before the file is deleted
        return read_gif(Path(path))[0], format

    fake = SimpleNamespace(
        Video=read, log=lambda values, commit: logged.append((values, commit)), run=object()
    )
    monkeypatch.setitem(__import__("sys").modules, "wandb", fake)
    env = WANDBVideo(CanvasEnv(), "film", pixel_hw=8, render_kwargs={"camera_id": 0}, max_videos=1)
    lengths = run(env, 2)
    [(values, commit)] = logged
    pictures, kind = values["film"]
    assert (commit, kind, len(pictures)) == (False, "gif", lengths[0] + 1)


def test_wandb_missing_or_bad_arguments_raise_input_error(monkeypatch) -> None:
    with pytest.raises(InputError, match="render_kwargs accepts only camera_id, got mode"):
        WANDBVideo(CanvasEnv(), render_kwargs={"mode": "rgb_array"})
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(
        InputError, match=r"WANDBVideo needs wandb.*pip install 'idql_func\[wandb\]'"
    ):
        WANDBVideo(CanvasEnv())


def test_installed_wandb_stores_the_video(tmp_path: Path, monkeypatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(dir=tmp_path, project="films", settings={"x_disable_stats": True}) as started:
        run(WANDBVideo(CanvasEnv(), "film", pixel_hw=16, max_videos=1), 2)
        wandb.log({"return": 1.0})
        folder = Path(started.dir)
    files = [path for path in folder.rglob("film_*") if path.suffix in (".mp4", ".gif")]
    assert len(files) == 1
    assert files[0].stat().st_size > 500
