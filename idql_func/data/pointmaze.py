"""The built-in dataset: a noisy way-point controller that moves through the point maze.

The behaviour policy does not use the goal. It drives to random way-points and stays at each for a
random time; then the transitions are relabelled with the sparse reward of one fixed goal. Every
part of the best route is in the data, but hardly any episode follows all of it: an offline learner
improves on the behaviour only by stitching parts together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from idql_func.data.dataset import check_integer
from idql_func.data.hdf5 import read_d4rl_hdf5, write_d4rl_hdf5
from idql_func.data.validation import require_fields
from idql_func.deprecation import moved_names
from idql_func.envs.pointmaze import (
    CELLS,
    ENV_NAME,
    EPISODE_STEPS,
    GOAL,
    GOAL_RADIUS,
    GYMNASIUM_ID,
    FixedGoalPointMaze,
    cell_centre,
    cell_of,
    checked_goal,
    make_pointmaze_env,
    sparse_reward,
)
from idql_func.files import remove_leftovers
from idql_func.types import InputError

__all__ = [
    "ENV_NAME",
    "REF_MAX_SCORE",
    "REF_MIN_SCORE",
    "ControllerConfig",
    "WaypointController",
    "arrays_sha256",
    "behaviour_returns",
    "cache_dir",
    "collect",
    "make_pointmaze_dataset",
    "make_pointmaze_env",
    "relabel",
    "route",
]

# Increased whenever the same seed would give other arrays, so that old cache files are not used.
FORMAT_VERSION = 1

# Reference returns of the scores 0 and 100: means over 200 episodes (seeds 0 to 199) of uniformly
# random actions and of the noise-free controller with the goal as target. A test measures them.
REF_MIN_SCORE = 15.74
REF_MAX_SCORE = 224.635

_PACKAGES = ("gymnasium", "gymnasium-robotics", "mujoco", "numpy")


@dataclass(frozen=True)
class ControllerConfig:
    """Parameters of the way-point controller.

    Args:
        speed: maximum desired speed, m/s (the maze limits each component to 5).
        approach: desired speed per metre of distance, 1/s.
        gain: action per m/s of speed error.
        noise: standard deviation of the Gaussian added to each action before clipping.
        dwell: maximum number of steps at a way-point; the number is drawn from 0 to this.
        jitter: maximum distance of a way-point from its cell's centre in x and y, metres.
        passing: distance at which an intermediate way-point is reached, metres.
        arriving: distance at which the last way-point is reached, metres.
    """

    speed: float = 4.0
    approach: float = 5.0
    gain: float = 0.5
    noise: float = 0.5
    dwell: int = 40
    jitter: float = 0.3
    passing: float = 0.3
    arriving: float = 0.15


BEHAVIOUR = ControllerConfig()
EXPERT = ControllerConfig(speed=6.0, gain=1.0, noise=0.0)


def route(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Find the shortest path between two free cells ``(row, column)``, both included.

    Raises:
        InputError: if a cell is a wall or outside the maze.

    Example:
        >>> route((2, 3), (3, 2))
        [(2, 3), (3, 3), (3, 2)]
    """
    for cell in (start, end):
        if cell not in CELLS:
            raise InputError(
                f"Cell {cell} is not a free cell of the maze; the free cells are {CELLS}."
            )
    # searched from the end, so that each entry is the next cell towards it
    came_from: dict[tuple[int, int], tuple[int, int] | None] = {end: None}
    frontier = deque([end])
    while start not in came_from:
        row, column = frontier.popleft()
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            neighbour = (row + down, column + right)
            if neighbour in CELLS and neighbour not in came_from:
                came_from[neighbour] = (row, column)
                frontier.append(neighbour)
    path = [start]
    while (following := came_from[path[-1]]) is not None:
        path.append(following)
    return path


class WaypointController:
    """Drives to random way-points, or to one fixed target and stays there.

    Args:
        rng: draws way-points, dwell times and noise.
        target: ``[2]``, metres. Default: random way-points.

    Example:
        >>> controller = WaypointController(np.random.default_rng(0), EXPERT, target=GOAL)
        >>> controller.reset()
        >>> controller.act(np.array([1.0, 1.0, 0.0, 0.0]))  # first down the right-hand side
        array([ 0., -1.], dtype=float32)
    """

    def __init__(
        self,
        rng: np.random.Generator,
        config: ControllerConfig = BEHAVIOUR,
        target: ArrayLike | None = None,
    ) -> None:
        self.rng = rng
        self.config = config
        self.target = None if target is None else checked_goal(target)
        self._waypoints: deque[NDArray[np.float64]] = deque()
        self._dwell = 0

    def reset(self) -> None:
        """Clear the planned path, at the start of an episode."""
        self._waypoints.clear()
        self._dwell = 0

    def act(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Action ``[2]`` in [-1, 1] for an observation ``[4]``."""
        config = self.config
        position, velocity = observation[:2].astype(np.float64), observation[2:].astype(np.float64)
        if not self._waypoints:
            self._waypoints.extend(self._plan(position))
        offset = self._waypoints[0] - position
        distance = float(np.hypot(*offset))
        if len(self._waypoints) > 1:
            if distance < config.passing:
                self._waypoints.popleft()
                offset = self._waypoints[0] - position
        elif self.target is None and distance < config.arriving:
            self._dwell -= 1
            if self._dwell <= 0:
                self._waypoints.clear()
        desired = offset * config.approach
        # It slows down only near the last way-point.
        speed = float(np.hypot(*desired))
        if speed > config.speed or len(self._waypoints) > 1:
            desired *= config.speed / max(speed, 1e-9)
        action = config.gain * (desired - velocity)
        if config.noise:
            action = action + config.noise * self.rng.standard_normal(2)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _plan(self, position: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        start = cell_of(position)
        if self.target is not None:
            return [*map(cell_centre, route(start, cell_of(self.target))[1:-1]), self.target]
        jitter = self.config.jitter
        end = CELLS[self.rng.integers(len(CELLS))]
        self._dwell = int(self.rng.integers(self.config.dwell + 1))
        cells = route(start, end)[1:] or [end]
        return [cell_centre(cell) + self.rng.uniform(-jitter, jitter, 2) for cell in cells]


def collect(
    env: FixedGoalPointMaze,
    controller: WaypointController,
    steps: int,
    seed: int,
    progress: bool = False,
) -> dict[str, NDArray[Any]]:
    """Collect transitions of a controller in D4RL's layout, with the maze's rewards.

    Args:
        steps: transitions to collect; the last episode is truncated there.
        seed: draws the start of each episode.
        progress: show a progress bar.

    Returns:
        ``observations, next_observations [steps, 4]``, ``actions [steps, 2]`` and
        ``rewards [steps]``, float32; ``terminals`` (all False: the task continues) and
        ``timeouts [steps]``, bool.

    Raises:
        InputError: if ``steps`` is below 1.

    Example:
        >>> env = make_pointmaze_env()
        >>> arrays = collect(env, WaypointController(np.random.default_rng(0)), steps=10, seed=0)
        >>> {name: array.shape for name, array in arrays.items()}["observations"]
        (10, 4)
    """
    starts = np.random.default_rng(seed)
    steps = check_integer(steps, "steps", at_least=1)
    arrays = {
        "observations": np.zeros((steps, 4), np.float32),
        "actions": np.zeros((steps, 2), np.float32),
        "rewards": np.zeros(steps, np.float32),
        "terminals": np.zeros(steps, bool),
        "timeouts": np.zeros(steps, bool),
        "next_observations": np.zeros((steps, 4), np.float32),
    }
    fresh, observation = True, np.zeros(4, np.float32)
    for step in tqdm(range(steps), disable=not progress, desc="creating the maze dataset"):
        if fresh:
            observation, _ = env.reset(seed=int(starts.integers(2**31)))
            controller.reset()
        action = controller.act(observation)
        following, reward, terminated, truncated, _ = env.step(action)
        row = (observation, action, reward, terminated, truncated, following)
        for array, value in zip(arrays.values(), row, strict=True):
            array[step] = value
        fresh, observation = terminated or truncated, following
    # The next observation of the last step is not in the data, so the step ends its episode.
    arrays["timeouts"][-1] = not arrays["terminals"][-1]
    return arrays


def relabel(
    arrays: Mapping[str, NDArray[Any]], goal: ArrayLike = GOAL, radius: float = GOAL_RADIUS
) -> dict[str, NDArray[Any]]:
    """Return the transitions with the sparse reward of another goal; the input is not changed.

    Args:
        arrays: the result of :func:`collect`; only ``next_observations [n, 4]`` is used.
        goal: ``[2]``, in a free cell, metres.
        radius: metres.

    Raises:
        InputError: if ``next_observations`` is missing, or the goal is in a wall.

    Example:
        >>> arrays = {"next_observations": np.array([[1.0, 1, 0, 0], [-1, -1, 0, 0]], np.float32)}
        >>> relabel(arrays, goal=(1.0, 1.0))["rewards"]
        array([1., 0.], dtype=float32)
    """
    require_fields(arrays, ["next_observations"], "relabel: the dict of arrays")
    rewards = sparse_reward(arrays["next_observations"], checked_goal(goal), radius)
    return {**arrays, "rewards": rewards}


def behaviour_returns(
    arrays: Mapping[str, NDArray[Any]], episode_steps: int = EPISODE_STEPS
) -> NDArray[np.float64]:
    """Undiscounted returns ``[episodes]`` of the full-length episodes in the data.

    The last episode is left out if the data end before it does: its return would be too low. The
    result is empty without a full-length episode.

    Example:
        >>> behaviour_returns({"rewards": np.ones(5), "terminals": np.zeros(5, bool),
        ...                    "timeouts": np.array([0, 1, 0, 1, 1], bool)}, episode_steps=2)
        array([2., 2.])
    """
    ends = np.flatnonzero(arrays["timeouts"] | arrays["terminals"]) + 1
    starts = np.concatenate([[0], ends[:-1]])
    total = np.concatenate([[0.0], np.cumsum(arrays["rewards"], dtype=np.float64)])
    full = ends - starts == episode_steps
    return (total[ends] - total[starts])[full]


def arrays_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Hash the arrays' names, dtypes, shapes and bytes with SHA-256, independent of the file.

    Example:
        >>> arrays_sha256({"a": np.zeros(2)}) == arrays_sha256({"a": np.zeros((2, 1))})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def cache_dir() -> Path:
    """Return the folder for generated data: ``$IDQL_DATA_DIR``, else ``~/.cache/idql_func``.

    Example:
        >>> isinstance(cache_dir(), Path)
        True
    """
    folder = os.environ.get("IDQL_DATA_DIR")
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "idql_func"


def make_pointmaze_dataset(
    path: str | os.PathLike[str] | None = None,
    seed: int = 0,
    steps: int = 100_000,
    progress: bool = True,
    goal: ArrayLike = GOAL,
) -> Path:
    """Create the built-in dataset or use its cached file; 100,000 steps take a few seconds.

    The arrays depend only on the arguments and the versions of MuJoCo, gymnasium-robotics,
    Gymnasium and NumPy. The file's attributes contain all of these, the SHA-256 of the arrays, the
    behaviour's mean return and the reference returns of the normalised score.

    Args:
        path: the HDF5 file; default: a file in :func:`cache_dir` named after all of these.
        seed: draws the starts, the way-points and the noise.
        steps: transitions.
        progress: show a progress bar.
        goal: ``[2]``, in a free cell, metres.

    Returns:
        The path of a file in D4RL's format, which is written atomically.

    Raises:
        InputError: if ``steps`` is below 1, the seed is negative, the goal is in a wall, or
            ``path`` exists and is another file.
        ImportError: if gymnasium-robotics or MuJoCo is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = make_pointmaze_dataset(f"{folder}/maze.hdf5", steps=50, progress=False)
        ...     arrays, attributes = read_d4rl_hdf5(path)
        >>> arrays["observations"].shape, attributes["env"]
        ((50, 4), 'pointmaze-umaze-builtin')
    """
    steps = check_integer(steps, "steps", at_least=1)
    seed = check_integer(seed, "seed", at_least=0)
    goal = checked_goal(goal)
    env = make_pointmaze_env(goal)
    try:
        recipe = _recipe(seed, steps, goal)
        if path is None:
            digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
            target = cache_dir() / f"{ENV_NAME}-seed{seed}-steps{steps}-{digest}.hdf5"
        else:
            target = Path(path)
        if _is_cached(target, recipe):
            return target
        if path is not None and target.exists():
            raise InputError(
                f"{target} exists and is not the maze dataset of seed {seed} and {steps} steps "
                "for these library versions; delete it or choose another path."
            )
        remove_leftovers(target.parent)
        # Two streams from one seed: the starts do not depend on the controller.
        controller = WaypointController(np.random.default_rng([seed, 1]), BEHAVIOUR)
        arrays = relabel(collect(env, controller, steps, seed, progress), goal)
    finally:
        env.close()
    returns = behaviour_returns(arrays)
    measured: dict[str, Any] = {
        "sha256": arrays_sha256(arrays),
        "behaviour_episodes": len(returns),
        "ref_min_score": REF_MIN_SCORE,
        "ref_max_score": REF_MAX_SCORE,
    }
    if len(returns):
        measured["behaviour_return"] = float(returns.mean())
        measured["behaviour_return_std"] = float(returns.std())
    return write_d4rl_hdf5(target, arrays, {**recipe, **measured})


def _recipe(seed: int, steps: int, goal: NDArray[np.float64]) -> dict[str, Any]:
    """All settings that determine the arrays, as HDF5 attributes."""
    return {
        "env": ENV_NAME,
        "gymnasium_id": GYMNASIUM_ID,
        "format_version": FORMAT_VERSION,
        "seed": seed,
        "steps": steps,
        "goal": " ".join(map(repr, goal.tolist())),
        "goal_radius": GOAL_RADIUS,
        "episode_steps": EPISODE_STEPS,
        "versions": " ".join(f"{package}=={version(package)}" for package in _PACKAGES),
    }


def _is_cached(path: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether the file exists, is complete, and has these settings."""
    if not path.is_file():
        return False
    try:
        arrays, attributes = read_d4rl_hdf5(path)
    except InputError:
        return False
    same = all(attributes.get(name) == value for name, value in recipe.items())
    return same and attributes.get("sha256") == arrays_sha256(arrays)


__getattr__ = moved_names(__name__)
