"""Gymnasium wrappers, environments by name, roll-outs, and the built-in point maze."""

from idql_func.boundary import explain_classes
from idql_func.env_imports import allow_env_imports
from idql_func.envs.frame_stack import FrameStack
from idql_func.envs.frames import FrameSource, OffscreenRender
from idql_func.envs.make_env import gymnasium_id, make_env
from idql_func.envs.offscreen import OffscreenView
from idql_func.envs.pixels import PixelObservation, wrap_pixels
from idql_func.envs.pointmaze import ENV_NAME, FixedGoalPointMaze, make_pointmaze_env
from idql_func.envs.video import VideoRecorder, WANDBVideo, write_video
from idql_func.envs.wrappers import (
    BoundedActions,
    RepeatAction,
    SinglePrecision,
    UniversalSeed,
    wrap_gym,
)

__all__ = [
    "ENV_NAME",
    "BoundedActions",
    "FixedGoalPointMaze",
    "FrameSource",
    "FrameStack",
    "OffscreenRender",
    "OffscreenView",
    "PixelObservation",
    "RepeatAction",
    "SinglePrecision",
    "UniversalSeed",
    "VideoRecorder",
    "WANDBVideo",
    "allow_env_imports",
    "gymnasium_id",
    "make_env",
    "make_pointmaze_env",
    "wrap_gym",
    "wrap_pixels",
    "write_video",
]

explain_classes(FixedGoalPointMaze, FrameSource, FrameStack, OffscreenRender, OffscreenView)
explain_classes(PixelObservation, VideoRecorder, WANDBVideo, BoundedActions, UniversalSeed)
