"""Plot trajectories through the built-in maze in panels."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import ArrayLike, NDArray

from idql_func.envs.pointmaze import GOAL, GOAL_RADIUS, MAZE_MAP, wall_rectangles
from idql_func.files import write_bytes
from idql_func.types import InputError

__all__ = ["Panel", "plot_trajectories", "trajectory_figure"]

Panel = tuple[str, Sequence[NDArray[Any]]]
"""A title, and trajectories ``[L, 2]`` (further columns are ignored)."""

_WALL, _LINE, _START, _GOAL = "#c8c4bc", "#4477aa", "#222222", "#228833"


def trajectory_figure(
    panels: Sequence[Panel], goal: ArrayLike = GOAL, goal_radius: float = GOAL_RADIUS
) -> Figure:
    """Draw the trajectories of each panel over the walls and the goal.

    Lines darken from start to end; a dot marks the start.

    Args:
        panels: for example the trajectories of the behaviour and of the trained policy.
        goal: ``[2]``, metres.
        goal_radius: metres.

    Raises:
        InputError: if there is no panel, or a trajectory is not ``[L, 2 or more]`` with L >= 1.

    Example:
        >>> figure = trajectory_figure([("a walk", [np.array([[1.0, 1.0], [1.0, 0.0]])])])
        >>> [axes.get_title() for axes in figure.axes]
        ['a walk']
    """
    if not panels:
        raise InputError("There is nothing to plot; give at least one panel.")
    figure = Figure(figsize=(4.6 * len(panels), 4.9), layout="constrained")
    axes_row = figure.subplots(1, len(panels), squeeze=False)[0]
    half_width, half_height = len(MAZE_MAP[0]) / 2, len(MAZE_MAP) / 2
    for axes, (title, trajectories) in zip(axes_row, panels, strict=True):
        for left, bottom, width, height in wall_rectangles():
            axes.add_patch(Rectangle((left, bottom), width, height, color=_WALL, lw=0))
        target = np.asarray(goal, np.float64)
        axes.add_patch(
            Circle((target[0], target[1]), goal_radius, fc=_GOAL, ec=_GOAL, alpha=0.25, zorder=1)
        )
        for number, trajectory in enumerate(trajectories):
            points = _check_trajectory(trajectory, title, number)
            if len(points) > 1:
                axes.add_collection(_fading_line(points, len(trajectories)))
            axes.plot(*points[0], ".", color=_START, ms=4, zorder=3)
        axes.set(
            title=title,
            xlim=(-half_width, half_width),
            ylim=(-half_height, half_height),
            xlabel="x (m)",
            aspect="equal",
        )
    axes_row[0].set_ylabel("y (m)")
    return figure


def plot_trajectories(
    path_png: str | os.PathLike[str],
    panels: Sequence[Panel],
    goal: ArrayLike = GOAL,
    goal_radius: float = GOAL_RADIUS,
) -> Path:
    """Write :func:`trajectory_figure` to a PNG file atomically.

    Returns:
        The path written.

    Raises:
        InputError: as :func:`trajectory_figure`.

    Example:
        >>> import tempfile
        >>> walk = np.array([[1.0, 1.0], [1.0, 0.0]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_trajectories(f"{folder}/maze.png", [("a walk", [walk])]).stat().st_size > 1000
        True
    """
    figure = trajectory_figure(panels, goal, goal_radius)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_bytes(path_png, content.getbuffer())
    return Path(path_png)


def _check_trajectory(trajectory: NDArray[Any], title: str, number: int) -> NDArray[Any]:
    points = np.asarray(trajectory)
    if points.ndim != 2 or points.shape[0] < 1 or points.shape[1] < 2:
        raise InputError(
            f"Trajectory {number} of panel {title!r} has shape {points.shape}; it must be [L, 2]."
        )
    return points[:, :2]


def _fading_line(points: NDArray[Any], count: int) -> LineCollection:
    segments = np.stack([points[:-1], points[1:]], axis=1)
    # Many lines are drawn fainter, so that overlapping ones can be distinguished.
    opacity = float(np.clip(8 / max(count, 1), 0.25, 0.9))
    alpha = np.linspace(0.3 * opacity, opacity, len(segments))
    return LineCollection(list(segments), colors=_LINE, alpha=alpha, linewidths=1.1, zorder=2)
