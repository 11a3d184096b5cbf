"""Create environments by name: the built-in maze, D4RL, DeepMind Control, any Gymnasium id."""

from __future__ import annotations

import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from idql_func.boundary import explain_module
from idql_func.envs.dm_control import make_dm_control, suite_id
from idql_func.envs.frames import OffscreenRender, is_mujoco
from idql_func.envs.pointmaze import ENV_NAME, make_pointmaze_env, register_robotics
from idql_func.types import InputError

__all__ = ["D4RL_ENVIRONMENTS", "PlainAntMaze", "gymnasium_id", "make_env"]

_TABLE = tomllib.loads(
    Path(__file__).with_name("d4rl_environments.toml").read_text(encoding="utf-8")
)
_NO_COUNTERPART: dict[str, str] = _TABLE.pop("no_counterpart")
D4RL_ENVIRONMENTS: dict[str, tuple[str, str]] = {
    family: (identifier, group["difference"])
    for group in _TABLE.values()
    for family, identifier in group["ids"].items()
}
"""D4RL family -> Gymnasium id, and how that environment differs from D4RL's."""

_FAMILIES = "|".join([*D4RL_ENVIRONMENTS, *_NO_COUNTERPART])
_D4RL_NAME = re.compile(rf"(?P<family>{_FAMILIES})-[a-z0-9-]*v\d+")


class PlainAntMaze(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """The ant maze with D4RL's flat observation: position ``[2]``, ant ``[27]``, no goal."""

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        space = env.observation_space
        assert isinstance(space, Dict)
        shape = space["observation"].shape
        assert shape is not None
        self.observation_space = Box(-np.inf, np.inf, (2 + shape[0],), np.float64)

    def observation(self, observation: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """The flat observation ``[29]``."""
        return np.concatenate([observation["achieved_goal"], observation["observation"]])


def gymnasium_id(name: str) -> tuple[str, str | None]:
    """Return the Gymnasium id for a name, and for a D4RL name how the environment differs.

    Args:
        name: a D4RL dataset name or a Gymnasium id, which is returned unchanged.

    Raises:
        InputError: if the environment of a D4RL name has no counterpart in Gymnasium.

    Example:
        >>> gymnasium_id("hopper-medium-replay-v2")[0], gymnasium_id("Pendulum-v1")
        ('Hopper-v5', ('Pendulum-v1', None))
    """
    # D4RL's "-eval-" mazes differ in how goals are drawn, not in the robot.
    match = _D4RL_NAME.fullmatch(name.replace("antmaze-eval-", "antmaze-"))
    if match is None:
        return name, None
    family = match["family"]
    if family in _NO_COUNTERPART:
        raise InputError(f"{name} has no environment in Gymnasium: {_NO_COUNTERPART[family]}.")
    return D4RL_ENVIRONMENTS[family]


def make_env(name: str, **kwargs: Any) -> gym.Env:
    """Create an environment by name, without :func:`idql_func.envs.wrap_gym`.

    Args:
        name: ``pointmaze-umaze-builtin``; a D4RL dataset name such as ``halfcheetah-medium-v2``
            (gives the nearest Gymnasium environment, with a warning about differences); a task of
            DeepMind Control such as ``cheetah-run-v0`` or ``dm_control/cheetah-run-v0``; or an id
            of Gymnasium or gymnasium-robotics.
        kwargs: passed to the environment; for the built-in maze see
            :func:`idql_func.envs.make_pointmaze_env`. With ``render_mode="rgb_array"`` or
            ``"depth_array"`` a MuJoCo environment renders without a display.

    Returns:
        The environment with native action bounds and native observations, except that those of
        DeepMind Control are flat (:class:`idql_func.envs.dm_control.FlatDmControl`).

    Raises:
        InputError: if there is no such environment, it does not accept these arguments, or it needs
            DeepMind Control, which is not installed.
        ImportError: if MuJoCo or gymnasium-robotics is needed and not installed.

    Example:
        >>> make_env("pointmaze-umaze-builtin").observation_space.shape
        (4,)
        >>> make_env("Pendulum-v1").spec.id
        'Pendulum-v1'
    """
    task = suite_id(name)
    identifier, caveat = (name, None) if task is not None else gymnasium_id(name)
    try:
        if identifier == ENV_NAME:
            return make_pointmaze_env(**kwargs)
        env = _make(identifier, kwargs) if task is None else make_dm_control(task, **kwargs)
    except TypeError as error:
        raise InputError(f"{name} does not accept these arguments: {error}.") from error
    if caveat is not None:
        warnings.warn(f"{name} is evaluated in {identifier}: {caveat}.", stacklevel=2)
    if env.render_mode in ("rgb_array", "depth_array") and is_mujoco(env):
        env = OffscreenRender(env)
    return PlainAntMaze(env) if name.startswith("antmaze-") else env


def _make(identifier: str, kwargs: dict[str, Any]) -> gym.Env:
    if identifier not in gym.registry and ":" not in identifier:
        try:
            register_robotics()
        except ImportError:
            if identifier.startswith(("AntMaze", "PointMaze", "Adroit", "Franka", "Fetch", "Hand")):
                raise
    # Gymnasium warns about ids that are not the newest version; here they are chosen on purpose.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*out of date.*")
        try:
            return gym.make(identifier, **kwargs)
        except gym.error.DependencyNotInstalled as error:
            raise ImportError(
                f"{identifier} needs a package that is not installed ({error}); install it with "
                "`pip install 'idql_func[all]'`."
            ) from error
        except gym.error.Error as error:
            reason = str(error).split(". ", maxsplit=1)[0].strip().rstrip(".")
            raise InputError(
                f"There is no environment {identifier!r} ({reason}); give "
                f"{ENV_NAME!r}, a D4RL name such as 'halfcheetah-medium-v2', or a Gymnasium id."
            ) from error


explain_module(__name__)
