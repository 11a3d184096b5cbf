"""DeepMind Control as in upstream's ``dmcgym``: flat observations, 1,000 steps.

Optional: needs ``dm_control`` and ``shimmy`` (the extra ``dm-control``).
"""

from __future__ import annotations

import functools
import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from idql_func.types import InputError

__all__ = ["SUITE_TASKS", "FlatDmControl", "make_dm_control", "suite_id"]

_TABLE = Path(__file__).with_name("dm_control_tasks.toml").read_text(encoding="utf-8")
SUITE_TASKS: dict[str, list[str]] = tomllib.loads(_TABLE)
"""Domain -> tasks of ``dm_control.suite``, listed so that names resolve without the package."""

PREFIX = "dm_control/"
EPISODE_STEPS = 1000


def suite_id(name: str) -> str | None:
    """Return shimmy's id of a task, given as ``dm_control/…`` or as ``dmcgym``'s name.

    Args:
        name: any name.

    Returns:
        The id, or None if the name is not a task of DeepMind Control.

    Example:
        >>> suite_id("cheetah-run-v0"), suite_id("hopper-medium-v2")
        ('dm_control/cheetah-run-v0', None)
    """
    if name.startswith(PREFIX):
        return name
    match = re.fullmatch(r"(?P<domain>\w+)-(?P<task>\w+)-v0", name)
    if match is None or match["task"] not in SUITE_TASKS.get(match["domain"], ()):
        return None
    return PREFIX + name


class FlatDmControl(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """A ``dm_control`` task with a flat observation and float32 actions.

    The entries of the observation are concatenated in the order of ``dm_control``, as in upstream's
    wrappers; Gymnasium would sort them. A time limit truncates the episode and does not terminate
    it.

    Args:
        env: an environment from shimmy.
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        base: Any = env.unwrapped
        space, action_space = env.observation_space, env.action_space
        if not isinstance(space, Dict) or not isinstance(action_space, Box):
            raise InputError(
                f"This dm_control task has observations {space} and actions {action_space}; they "
                "must be a Dict of arrays and a Box."
            )
        self._parts = tuple(base.observation_spec())
        sizes = (int(np.prod(space[name].shape or ())) for name in self._parts)
        self.observation_space = Box(-np.inf, np.inf, (sum(sizes),), np.float64)
        low, high = action_space.low.astype(np.float32), action_space.high.astype(np.float32)
        self.action_space = Box(low, high, dtype=np.float32)
        # Shimmy sets 1,000 times the step length in seconds, which is not a frame rate.
        self.metadata = {**env.metadata, "render_fps": round(1 / base.dt)}

    def __deepcopy__(self, memo: dict[int, Any]) -> gym.Env:
        """Create a new environment with the same settings; reset it before use."""
        spec = self.spec
        assert spec is not None
        steps = spec.max_episode_steps or EPISODE_STEPS
        return make_dm_control(spec.id, steps, **{"render_mode": self.render_mode, **spec.kwargs})

    def step(
        self, action: NDArray[Any]
    ) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Make one control step."""
        result = super().step(np.asarray(action, np.float64))
        observation, reward, terminated, truncated, info = result
        return observation, float(reward), terminated, truncated, info

    def observation(self, observation: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        """The flat observation ``[O]``."""
        parts = [np.ravel(observation[name]).astype(np.float64) for name in self._parts]
        return np.concatenate(parts)


def make_dm_control(name: str, max_episode_steps: int = EPISODE_STEPS, **kwargs: Any) -> gym.Env:
    """Create a task of DeepMind Control.

    Args:
        name: ``dm_control/DOMAIN-TASK-v0`` or another id of shimmy.
        max_episode_steps: time limit; most tasks have the same limit as ``dmcgym``, 1,000.
        kwargs: passed to shimmy: ``render_mode``, ``task_kwargs``, ``environment_kwargs``, ….

    Raises:
        InputError: if the packages are not installed, or the task does not exist.
        TypeError: if shimmy does not accept a keyword.
    """
    register_dm_control(name)
    try:
        # The checker warns about entries of shape (), which are flattened here.
        env = gym.make(
            name, max_episode_steps=max_episode_steps, disable_env_checker=True, **kwargs
        )
    except gym.error.Error as error:
        domain = name.removeprefix(PREFIX).split("-", maxsplit=1)[0]
        tasks = [f"{PREFIX}{domain}-{task}-v0" for task in SUITE_TASKS.get(domain, ())]
        known = f"{domain} has {', '.join(tasks)}"
        if not tasks:
            known = f"the domains of DeepMind Control are {', '.join(SUITE_TASKS)}"
        raise InputError(f"There is no environment {name!r}; {known}.") from error
    return FlatDmControl(env)


@functools.cache
def register_dm_control(name: str) -> None:
    """Register shimmy's ids with Gymnasium.

    Args:
        name: the environment that needs them, for the message.

    Raises:
        InputError: if ``dm_control`` or ``shimmy`` is not installed.
    """
    try:
        # dm_control warns on import if there is no display, but rendering here does not need one.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import dm_control  # noqa: F401
            import shimmy
    except ImportError as error:
        raise InputError(
            f"{name} needs dm_control and shimmy ({error}); install them with "
            "`pip install 'idql_func[dm-control]'`."
        ) from error
    gym.register_envs(shimmy)
