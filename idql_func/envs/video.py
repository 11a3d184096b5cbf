"""Record videos to files and to Weights & Biases (``jaxrl5/wrappers/wandb_video.py``)."""

from __future__ import annotations

import importlib
import io
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from idql_func.boundary import explain_module
from idql_func.envs.frames import FrameSource, frames_per_second
from idql_func.envs.offscreen import Camera
from idql_func.files import FileWriteError, OutputFile, atomic_path, write_bytes
from idql_func.types import InputError

__all__ = ["EpisodeFrames", "VideoRecorder", "WANDBVideo", "video_suffix", "write_video"]


def video_suffix() -> str:
    """Return ``.mp4`` if imageio and imageio-ffmpeg are installed, else ``.gif``.

    Example:
        >>> video_suffix() in (".mp4", ".gif")
        True
    """
    try:
        _ffmpeg()
    except InputError:
        return ".gif"
    return ".mp4"


def write_video(
    path: str | os.PathLike[str],
    frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    fps: float = 20.0,
) -> Path:
    """Write frames to an MP4 (H.264) or GIF file atomically.

    Args:
        path: ends in ``.mp4`` or ``.gif``; missing folders are created.
        frames: ``[T, H, W, 3]`` (or 1 channel), uint8. MP4 needs even sizes, so the last row or
            column of an odd size is repeated.
        fps: frames per second. GIF stores hundredths of a second and allows at most 50.

    Returns:
        The path.

    Raises:
        InputError: if the suffix is another one, MP4 is requested without ffmpeg, there is no
            frame, the shape or dtype is wrong, or ``fps`` is not positive.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_video(Path(folder) / "black.gif", np.zeros((3, 8, 8, 3), np.uint8))
        ...     path.stat().st_size > 0
        True
    """
    path = Path(path)
    if path.suffix not in (".mp4", ".gif"):
        raise InputError(f"A video file must end in .mp4 or .gif, got {path.name!r}.")
    if not fps > 0:
        raise InputError(f"fps must be positive, got {fps}.")
    if path.suffix == ".mp4":
        _ffmpeg()
    stack = _check_frames(frames)
    if path.suffix == ".mp4":
        _write_mp4(path, stack, fps)
    else:
        write_bytes(path, _gif(stack, fps))
    return path


def _check_frames(frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    if len(frames) == 0:
        raise InputError("A video needs at least one frame, got none.")
    shapes = {np.shape(frame) for frame in frames}
    stack = np.stack(list(frames)) if len(shapes) == 1 else np.empty(0, np.uint8)
    is_image = stack.ndim == 4 and stack.shape[-1] in (1, 3) and stack.size > 0
    if stack.dtype != np.uint8 or not is_image:
        got = "frames of several sizes" if len(shapes) > 1 else f"{stack.dtype} {stack.shape}"
        raise InputError(f"Video frames must be uint8 [T, H, W, 3] or [T, H, W, 1], got {got}.")
    return np.repeat(stack, 3, axis=-1) if stack.shape[-1] == 1 else stack


def _gif(frames: NDArray[np.uint8], fps: float) -> bytes:
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    milliseconds = max(20, round(100 / fps) * 10)
    options = {"duration": milliseconds, "loop": 0, "optimize": False}
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=rest, **options)
    return content.getvalue()


def _write_mp4(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    # The temporary path has another suffix, so imageio and ffmpeg are given the format.
    options = {"macro_block_size": 2, "output_params": ["-f", "mp4"]}
    with atomic_path(path) as temporary:
        try:
            with _ffmpeg().get_writer(str(temporary), format=".mp4", fps=fps, **options) as writer:
                for frame in frames:
                    writer.append_data(frame)
            content = temporary.read_bytes()
        except OSError:  # it says what ffmpeg has printed, in many lines
            content = b""
        if b"moov" not in content:  # the index, which comes last
            raise FileWriteError(
                f"{path} could not be written: ffmpeg stopped before its end",
                "free some space in its folder, or write a .gif file",
            )
        temporary.unlink()
        with OutputFile(temporary, "x") as file:
            file.write(content)


def _ffmpeg() -> Any:
    try:
        importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
        return importlib.import_module("imageio.v2")
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"An .mp4 file needs imageio and imageio-ffmpeg ({error}); install them with "
            "`pip install 'idql_func[video]'`, or write a .gif file."
        ) from error


class EpisodeFrames(gym.Wrapper):
    """Calls ``finish`` with the frames of each episode at its end.

    The other arguments are those of :class:`VideoRecorder`; with ``use_pixels`` a frame of the
    observation ``"pixels"`` is used if there is one.
    """

    def __init__(
        self,
        env: gym.Env,
        finish: Callable[[list[NDArray[np.uint8]]], Any],
        size: int,
        camera_id: Camera = 0,
        use_pixels: bool = False,
        max_videos: int | None = None,
    ) -> None:
        gym.Wrapper.__init__(self, env)
        self._finish, self._size, self._camera = finish, size, camera_id
        self._use_pixels, self._videos_left = use_pixels, max_videos
        self._frames: list[NDArray[np.uint8]] = []
        self._episode = -1
        self._source: FrameSource | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset; frames of an unfinished episode are discarded."""
        self._frames.clear()
        self._episode += 1
        observation, info = self.env.reset(seed=seed, options=options)
        self._add_frame(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; the end of an episode writes its video."""
        result = self.env.step(action)
        self._add_frame(result[0])
        if (result[2] or result[3]) and self._frames:
            if self._videos_left is not None:
                self._videos_left -= 1
            self._finish(self._frames)
            self._frames = []
        return result

    def close(self) -> None:
        """Free the OpenGL context and close the environment."""
        if self._source is not None:
            self._source.close()
        super().close()

    def _add_frame(self, observation: Any) -> None:
        if self._videos_left is not None and self._videos_left <= 0:
            return
        pixels = observation.get("pixels") if isinstance(observation, Mapping) else None
        if pixels is not None and self._use_pixels:
            self._frames.append(np.array(pixels[..., -1] if pixels.ndim == 4 else pixels))
            return
        if self._source is None:
            self._source = FrameSource(self.env, self._size, self._size)
        self._frames.append(self._source.rgb(self._camera))


class VideoRecorder(EpisodeFrames, gym.utils.RecordConstructorArgs):
    """Writes a video file of each episode: ``FOLDER/episode-0000.mp4`` and so on.

    Args:
        env: see :class:`idql_func.envs.FrameSource`; pixel environments have no requirements.
        folder: destination, created if missing.
        name: file name before the episode number.
        size: render frames of this height and width. Default: use the newest frame of the
            observation ``"pixels"``, or render at 256 if there is none.
        camera_id: the camera for rendering.
        every: write every ``every``-th episode, starting with the first.
        max_videos: maximum number of videos.
        fps: frames per second; default: the environment's rate, or 20.
        suffix: ``.mp4`` or ``.gif``; default: see :func:`video_suffix`.

    Raises:
        InputError: if ``every`` or ``size`` is below 1, or as for :func:`write_video`.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     env = VideoRecorder(
        ...         gym.make("InvertedPendulum-v5", max_episode_steps=3), folder, size=32
        ...     )
        ...     _ = env.reset(seed=0)
        ...     for _ in range(3):
        ...         _ = env.step(np.zeros(1, np.float32))
        ...     [path.stem for path in env.files]
        ['episode-0000']
    """

    def __init__(
        self,
        env: gym.Env,
        folder: str | os.PathLike[str],
        name: str = "episode",
        *,
        size: int | None = None,
        camera_id: Camera = 0,
        every: int = 1,
        max_videos: int | None = None,
        fps: float | None = None,
        suffix: str | None = None,
    ) -> None:
        if every < 1 or (size is not None and size < 1):
            raise InputError(f"every and size must be at least 1, got {every} and {size}.")
        gym.utils.RecordConstructorArgs.__init__(
            self,
            folder=str(folder),
            name=name,
            size=size,
            camera_id=camera_id,
            every=every,
            max_videos=max_videos,
            fps=fps,
            suffix=suffix,
        )
        EpisodeFrames.__init__(
            self, env, self._write, size or 256, camera_id, size is None, max_videos
        )
        self.files: list[Path] = []
        self._folder, self._name, self._every = Path(folder), name, every
        self._fps = frames_per_second(env) if fps is None else fps
        self._suffix = suffix or video_suffix()

    def _add_frame(self, observation: Any) -> None:
        if self._episode % self._every == 0:
            super()._add_frame(observation)

    def _write(self, frames: list[NDArray[np.uint8]]) -> None:
        path = self._folder / f"{self._name}-{self._episode:04d}{self._suffix}"
        self.files.append(write_video(path, frames, self._fps))


class WANDBVideo(EpisodeFrames, gym.utils.RecordConstructorArgs):
    """Logs a video of each episode to the active Weights & Biases run.

    It does not commit the step, as upstream. The file is written here, so W&B's media packages are
    not needed.

    Args:
        env: see :class:`idql_func.envs.FrameSource`; for pixel environments the newest frame of the
            observation is used.
        name: the key of the log entry.
        pixel_hw: height and width of rendered frames.
        render_kwargs: ``{"camera_id": …}`` for rendering.
        max_videos: maximum number of videos.

    Raises:
        InputError: if wandb is not installed, or ``render_kwargs`` has other entries.
    """

    def __init__(
        self,
        env: gym.Env,
        name: str = "video",
        pixel_hw: int = 84,
        render_kwargs: Mapping[str, Any] | None = None,
        max_videos: int | None = None,
    ) -> None:
        kwargs = dict(render_kwargs or {})
        camera_id = kwargs.pop("camera_id", 0)
        if kwargs:
            raise InputError(
                f"render_kwargs accepts only camera_id, got {', '.join(map(str, kwargs))}."
            )
        try:
            self._wandb: Any = importlib.import_module("wandb")
        except ImportError as error:
            raise InputError(
                f"WANDBVideo needs wandb ({error}); install it with `pip install "
                "'idql_func[wandb]'`, or write files with VideoRecorder."
            ) from error
        gym.utils.RecordConstructorArgs.__init__(
            self, name=name, pixel_hw=pixel_hw, render_kwargs=render_kwargs, max_videos=max_videos
        )
        EpisodeFrames.__init__(self, env, self._log, pixel_hw, camera_id, True, max_videos)
        self._name = name

    def _log(self, frames: list[NDArray[np.uint8]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = write_video(Path(folder) / f"video{video_suffix()}", frames, fps=20)
            video = self._wandb.Video(str(path), format=path.suffix[1:])
            self._wandb.log({self._name: video}, commit=False)


explain_module(__name__, strict=False)
