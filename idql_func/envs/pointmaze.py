"""The built-in point maze: gymnasium-robotics' U-shaped maze with one fixed goal.

A force pushes a ball of radius 0.1 through a U of seven unit cells. Every episode has 300 steps,
and each step that ends within 0.6 of the goal has reward 1, so the return is the number of steps at
the goal. The goal is fixed and not part of the observation ``[x, y, vx, vy]``, in metres and metres
per second.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import ArrayLike, NDArray

from idql_func.boundary import describe, explain_module
from idql_func.envs.frames import OffscreenRender
from idql_func.types import InputError

__all__ = [
    "CELLS",
    "ENV_NAME",
    "EPISODE_STEPS",
    "GOAL",
    "GOAL_RADIUS",
    "GYMNASIUM_ID",
    "MAZE_MAP",
    "FixedGoalPointMaze",
    "cell_centre",
    "cell_of",
    "make_pointmaze_env",
    "sparse_reward",
    "wall_rectangles",
]

ENV_NAME = "pointmaze-umaze-builtin"
GYMNASIUM_ID = "PointMaze_UMaze-v3"
EPISODE_STEPS = 300

# 1 is a wall of one metre square, 0 is free; row 0 is at the top. Copied from gymnasium-robotics,
# so that runs can be plotted without that package; a test compares the two.
MAZE_MAP: tuple[tuple[int, ...], ...] = (
    (1, 1, 1, 1, 1),
    (1, 0, 0, 0, 1),
    (1, 1, 1, 0, 1),
    (1, 0, 0, 0, 1),
    (1, 1, 1, 1, 1),
)


def _cells(wall: int) -> tuple[tuple[int, int], ...]:
    """The cells ``(row, column)`` that are walls, or free."""
    found = np.argwhere(np.equal(MAZE_MAP, wall))
    return tuple((row, column) for row, column in found.tolist())


CELLS = _cells(wall=0)


def cell_centre(cell: tuple[int, int]) -> NDArray[np.float64]:
    """Return the centre ``[2]`` of a cell ``(row, column)``: x to the right, y upwards, metres.

    Example:
        >>> cell_centre((3, 1))
        array([-1., -1.])
    """
    row, column = cell
    return np.array([column + 0.5 - len(MAZE_MAP[0]) / 2, len(MAZE_MAP) / 2 - row - 0.5])


def cell_of(position: ArrayLike) -> tuple[int, int]:
    """Return the cell ``(row, column)`` of a position ``[2]``, free or a wall.

    Raises:
        InputError: if the position is not a pair of finite numbers, or outside the maze.

    Example:
        >>> cell_of([-1.2, -0.7])
        (3, 1)
    """
    point = np.asarray(position, dtype=np.float64)
    if point.shape != (2,) or not np.isfinite(point).all():
        raise InputError(f"A position must be two finite numbers (x, y), got {describe(position)}.")
    row = int(np.floor(len(MAZE_MAP) / 2 - point[1]))
    column = int(np.floor(point[0] + len(MAZE_MAP[0]) / 2))
    if not (0 <= row < len(MAZE_MAP) and 0 <= column < len(MAZE_MAP[0])):
        raise InputError(f"Position {point.tolist()} is outside the maze, which spans ±2.5.")
    return row, column


def wall_rectangles() -> list[tuple[float, float, float, float]]:
    """Return the walls as rectangles ``(left, bottom, width, height)`` in metres.

    Example:
        >>> len(wall_rectangles()), wall_rectangles()[0]
        (18, (-2.5, 1.5, 1.0, 1.0))
    """
    centres = [cell_centre(cell).tolist() for cell in _cells(wall=1)]
    return [(x - 0.5, y - 0.5, 1.0, 1.0) for x, y in centres]


# The dead end of the lower arm: the end of the upper arm is six cells away, so a policy has to
# stitch together parts of the behaviour's episodes.
GOAL: tuple[float, float] = (-1.0, -1.0)
# Covers the whole dead end: the ball's centre is 0.57 away when it rests in the corner, which
# counts as reached.
GOAL_RADIUS = 0.6


def sparse_reward(
    positions: NDArray[Any], goal: ArrayLike = GOAL, radius: float = GOAL_RADIUS
) -> NDArray[np.float32]:
    """Return 1 where a position is within the radius of the goal, else 0.

    The environment and the dataset both call this with the float32 observation, so they agree on
    every step, including positions on the boundary.

    Args:
        positions: ``[..., 2]``, metres; further entries of an observation are ignored.
        goal: ``[2]``.
        radius: metres.

    Returns:
        Rewards ``[...]``, float32.

    Example:
        >>> sparse_reward(np.array([[-1.0, -0.6], [0.0, 1.0]], np.float32))
        array([1., 0.], dtype=float32)
    """
    offset = positions[..., :2].astype(np.float32) - np.asarray(goal, np.float32)
    return (np.square(offset).sum(-1) <= np.float32(radius) ** 2).astype(np.float32)


class FixedGoalPointMaze(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """gymnasium-robotics' point maze with one goal, a flat observation and the sparse reward.

    Observation ``[4]`` float32, action ``[2]`` in [-1, 1] (force in units of 100 N). An episode
    starts at rest in a random free cell other than the goal's. ``info["success"]`` is true once
    the goal has been reached in the episode.

    Args:
        env: ``PointMaze_UMaze-v3`` created with ``continuing_task=True, reset_target=False``.
        goal: ``[2]``, in a free cell.
        goal_radius: metres.
    """

    def __init__(
        self, env: gym.Env, goal: ArrayLike = GOAL, goal_radius: float = GOAL_RADIUS
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, goal=goal, goal_radius=goal_radius)
        gym.Wrapper.__init__(self, env)
        self.goal = checked_goal(goal)
        self.goal_radius = float(goal_radius)
        self.observation_space = Box(-np.inf, np.inf, shape=(4,), dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, shape=(2,), dtype=np.float32)
        self._goal_cell = np.array(cell_of(self.goal))
        self._reached = False

    def __deepcopy__(self, memo: dict[int, Any]) -> FixedGoalPointMaze:
        """Create a new environment with the same settings; reset it before use.

        The maze's own copy calls its constructor, which leaves a temporary file.
        """
        steps = self.spec.max_episode_steps if self.spec is not None else None
        return make_pointmaze_env(
            self.goal, self.goal_radius, steps or EPISODE_STEPS, self.render_mode
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start at a random position drawn from the seed; return observation ``[4]`` and info."""
        # The maze excludes the goal cell from the start positions.
        options = {"goal_cell": self._goal_cell, **(options or {})}
        observation, _ = self.env.reset(seed=seed, options=options)
        maze: Any = self.env.unwrapped
        # The maze adds noise to its goal at each reset; only its rendering uses that goal.
        maze.goal = self.goal.copy()
        maze.update_target_site_pos()
        flat = observation["observation"].astype(np.float32)
        self._reached = bool(sparse_reward(flat, self.goal, self.goal_radius))
        return flat, {"success": self._reached}

    def step(
        self, action: NDArray[Any]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Make one physics step of 0.01 s; the reward is that of the new position."""
        observation, _, terminated, truncated, _ = self.env.step(action)
        flat = observation["observation"].astype(np.float32)
        reward = float(sparse_reward(flat, self.goal, self.goal_radius))
        self._reached = self._reached or reward > 0
        return flat, reward, bool(terminated), bool(truncated), {"success": self._reached}


def make_pointmaze_env(
    goal: ArrayLike = GOAL,
    goal_radius: float = GOAL_RADIUS,
    episode_steps: int = EPISODE_STEPS,
    render_mode: str | None = None,
) -> FixedGoalPointMaze:
    """Create the environment in which the built-in dataset is collected and evaluated.

    Args:
        goal: ``[2]``, in a free cell, metres.
        goal_radius: metres.
        episode_steps: time limit.
        render_mode: as in Gymnasium; the images, 480 by 480 from above, need no display.

    Raises:
        InputError: if the goal is in a wall, or ``episode_steps`` is below 1.
        ImportError: if gymnasium-robotics or MuJoCo is not installed.

    Example:
        >>> env = make_pointmaze_env()
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape, info
        ((4,), {'success': False})
        >>> env.close()
    """
    goal = checked_goal(goal)
    if episode_steps < 1:
        raise InputError(f"episode_steps must be at least 1; got {episode_steps}.")
    register_robotics()
    env = gym.make(
        GYMNASIUM_ID,
        max_episode_steps=episode_steps,
        render_mode=render_mode,
        continuing_task=True,
        reset_target=False,
        # The checker warns at every step of goal environments and halves the speed.
        disable_env_checker=True,
    )
    # The maze leaves its generated model in the temporary folder, one file per environment.
    maze: Any = env.unwrapped
    with contextlib.suppress(OSError):
        os.remove(maze.tmp_xml_file_path)
    maze.point_env.mujoco_renderer.default_cam_config = dict(_FROM_ABOVE)
    if render_mode in ("rgb_array", "depth_array"):
        env = OffscreenRender(env)
    return FixedGoalPointMaze(env, goal, goal_radius)


# x to the right and y upwards; in gymnasium-robotics' view from the side, walls hide the ball.
_FROM_ABOVE = {"distance": 4.7, "elevation": -90.0, "azimuth": 90.0, "lookat": np.zeros(3)}


def checked_goal(goal: ArrayLike) -> NDArray[np.float64]:
    """Return the goal ``[2]`` as an array.

    Raises:
        InputError: if it is not a pair of finite numbers, in a wall, or outside the maze.

    Example:
        >>> checked_goal((-1, -1))
        array([-1., -1.])
    """
    row, column = cell_of(goal)
    if MAZE_MAP[row][column]:
        raise InputError(
            f"Goal {np.asarray(goal).tolist()} is in a wall; choose a point in one of the free "
            f"cells around {', '.join(str(tuple(cell_centre(c).tolist())) for c in CELLS)}."
        )
    return np.asarray(goal, dtype=np.float64)


@functools.cache
def register_robotics() -> None:
    """Register gymnasium-robotics' environments with Gymnasium.

    Raises:
        ImportError: if gymnasium-robotics or MuJoCo is not installed.

    Example:
        >>> register_robotics()
    """
    try:
        # Its import prints advice about hand environments, which is irrelevant here.
        with (
            open(os.devnull, "w") as devnull,
            contextlib.redirect_stderr(devnull),
            contextlib.redirect_stdout(devnull),
        ):
            import gymnasium_robotics
            import mujoco  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"This environment needs gymnasium-robotics and MuJoCo ({error}); install them with "
            "`pip install 'idql_func[all]'`."
        ) from error
    gym.register_envs(gymnasium_robotics)


explain_module(__name__, strict=False)
