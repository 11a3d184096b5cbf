"""The built-in point maze: gymnasium-robotics' U-shaped maze with one fixed goal.

A ball of radius 0.1 is pushed by a force through a U of seven unit cells. The episode lasts 300
steps whatever happens, and every step that ends within 0.6 of the goal is worth 1, so the return of
an episode is the number of steps spent at the goal. The goal is fixed and therefore no part of the
observation: ``[x, y, vx, vy]``, in metres and metres per second.
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

# 1 is a wall of one metre square, 0 is free; row 0 is at the top. Written out so that the picture
# of a run can be drawn where gymnasium-robotics is not installed; a test holds it to theirs.
MAZE_MAP: tuple[tuple[int, ...], ...] = (
    (1, 1, 1, 1, 1),
    (1, 0, 0, 0, 1),
    (1, 1, 1, 0, 1),
    (1, 0, 0, 0, 1),
    (1, 1, 1, 1, 1),
)
CELLS: tuple[tuple[int, int], ...] = tuple(
    (row, column)
    for row, line in enumerate(MAZE_MAP)
    for column, wall in enumerate(line)
    if not wall
)


def cell_centre(cell: tuple[int, int]) -> NDArray[np.float64]:
    """Centre ``[2]`` (x to the right, y upwards, metres) of the cell ``(row, column)``.

    Example:
        >>> cell_centre((3, 1))
        array([-1., -1.])
    """
    row, column = cell
    return np.array([column + 0.5 - len(MAZE_MAP[0]) / 2, len(MAZE_MAP) / 2 - row - 0.5])


def cell_of(position: ArrayLike) -> tuple[int, int]:
    """The cell ``(row, column)`` that holds a position ``[2]``, be it free or a wall.

    Raises:
        InputError: the position is no pair of finite numbers, or outside the maze.

    Example:
        >>> cell_of([-1.2, -0.7])
        (3, 1)
    """
    point = np.asarray(position, dtype=np.float64)
    if point.shape != (2,) or not np.isfinite(point).all():
        raise InputError(f"A position is two finite numbers (x, y); got {position!r}.")
    row = int(np.floor(len(MAZE_MAP) / 2 - point[1]))
    column = int(np.floor(point[0] + len(MAZE_MAP[0]) / 2))
    if not (0 <= row < len(MAZE_MAP) and 0 <= column < len(MAZE_MAP[0])):
        raise InputError(f"Position {point.tolist()} is outside the maze, which spans ±2.5.")
    return row, column


def wall_rectangles() -> list[tuple[float, float, float, float]]:
    """The walls as rectangles ``(left, bottom, width, height)`` in metres.

    Example:
        >>> len(wall_rectangles()), wall_rectangles()[0]
        (18, (-2.5, 1.5, 1.0, 1.0))
    """
    return [
        (float(x - 0.5), float(y - 0.5), 1.0, 1.0)
        for row, line in enumerate(MAZE_MAP)
        for column, wall in enumerate(line)
        if wall
        for x, y in [cell_centre((row, column))]
    ]


# The dead end of the lower arm: the far end of the upper arm is six cells away, so that a policy
# has to chain what the behaviour did in pieces.
GOAL: tuple[float, float] = (-1.0, -1.0)
# Wide enough for the whole dead end: the ball's centre is 0.57 away when it rests in the corner,
# and a policy that presses into the corner has arrived by any reading of the task.
GOAL_RADIUS = 0.6


def sparse_reward(
    positions: NDArray[Any], goal: ArrayLike = GOAL, radius: float = GOAL_RADIUS
) -> NDArray[np.float32]:
    """1 where a position is within the radius of the goal, else 0.

    Environment and dataset both call this on the float32 observation, so that they agree on every
    step, border cases included.

    Args:
        positions: ``[..., 2]`` (further entries of an observation are not looked at), metres.
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

    Observation ``[4]`` float32, action ``[2]`` in [-1, 1] (force as a share of 100 N). An episode
    starts at rest in a random free cell other than the goal's. ``info["success"]`` says whether
    the goal has been reached so far in the episode.

    Args:
        env: ``PointMaze_UMaze-v3`` made with ``continuing_task=True, reset_target=False``.
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
        """A new environment of the same make, to be reset before use.

        The maze would copy itself by calling its constructor, which leaves a file behind.
        """
        steps = self.spec.max_episode_steps if self.spec is not None else None
        return make_pointmaze_env(
            self.goal, self.goal_radius, steps or EPISODE_STEPS, self.render_mode
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start at a random place drawn from the seed; observation ``[4]`` and info."""
        # The goal cell is what the maze keeps the start away from.
        options = {"goal_cell": self._goal_cell, **(options or {})}
        observation, _ = self.env.reset(seed=seed, options=options)
        maze: Any = self.env.unwrapped
        # The maze jitters its goal at each reset; only its rendering still uses it.
        maze.goal = self.goal.copy()
        maze.update_target_site_pos()
        flat = observation["observation"].astype(np.float32)
        self._reached = bool(sparse_reward(flat, self.goal, self.goal_radius))
        return flat, {"success": self._reached}

    def step(
        self, action: NDArray[Any]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One physics step of 0.01 s; the reward is that of the position reached."""
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
    """The environment that the built-in dataset was collected in, and is evaluated in.

    Args:
        goal: ``[2]``, in a free cell, metres.
        goal_radius: metres.
        episode_steps: the episode is truncated after this many steps.
        render_mode: as Gymnasium's; the pictures, 480 by 480 from above, need no display.

    Raises:
        InputError: the goal lies in a wall, or ``episode_steps`` is below 1.
        ImportError: gymnasium-robotics or MuJoCo is not installed.

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
        # The checker warns about every step of goal environments and halves the speed.
        disable_env_checker=True,
    )
    # The maze leaves its generated model in the temporary folder, one file for every environment.
    maze: Any = env.unwrapped
    with contextlib.suppress(OSError):
        os.remove(maze.tmp_xml_file_path)
    maze.point_env.mujoco_renderer.default_cam_config = dict(_FROM_ABOVE)
    if render_mode in ("rgb_array", "depth_array"):
        env = OffscreenRender(env)
    return FixedGoalPointMaze(env, goal, goal_radius)


# With x to the right and y upwards; from the side, as in gymnasium-robotics, walls hide the ball.
_FROM_ABOVE = {"distance": 4.7, "elevation": -90.0, "azimuth": 90.0, "lookat": np.zeros(3)}


def checked_goal(goal: ArrayLike) -> NDArray[np.float64]:
    """The goal ``[2]`` as an array.

    Raises:
        InputError: it is no pair of finite numbers, or lies in a wall or outside the maze.

    Example:
        >>> checked_goal((-1, -1))
        array([-1., -1.])
    """
    row, column = cell_of(goal)
    if MAZE_MAP[row][column]:
        raise InputError(
            f"Goal {np.asarray(goal).tolist()} lies in a wall; choose a point in one of the free "
            f"cells around {', '.join(str(tuple(cell_centre(c).tolist())) for c in CELLS)}."
        )
    return np.asarray(goal, dtype=np.float64)


@functools.cache
def register_robotics() -> None:
    """Make gymnasium-robotics' environments known to Gymnasium.

    Raises:
        ImportError: gymnasium-robotics or MuJoCo is not installed, in one sentence.

    Example:
        >>> register_robotics()
    """
    try:
        # Its import prints advice about hand environments that nobody here asked for.
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stderr(nowhere),
            contextlib.redirect_stdout(nowhere),
        ):
            import gymnasium_robotics
            import mujoco  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"This environment needs gymnasium-robotics and MuJoCo ({error}); install them with "
            "`pip install 'idql_func[all]'`."
        ) from error
    gym.register_envs(gymnasium_robotics)
