"""What an environment that is seen through its images is made with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gymnasium as gym

__all__ = ["PLANET_ACTION_REPEAT", "action_repeat_of", "camera_of", "pixel_environment_factory"]

PLANET_ACTION_REPEAT: Mapping[str, int] = MappingProxyType(
    {
        "cartpole-swingup": 8,
        "reacher-easy": 4,
        "cheetah-run": 4,
        "finger-spin": 2,  # upstream's table has it misspelt and falls back to the same 2 (L15)
        "ball_in_cup-catch": 4,
        "walker-walk": 2,
    }
)
"""Steps for each action in PlaNet's tasks (arXiv 1811.04551, appendix A), as in
``examples/pixels/train_online_pixels.py``."""


def action_repeat_of(env_name: str) -> int:
    """How often an action is repeated: PlaNet's number for its tasks, 2 for all others.

    Example:
        >>> action_repeat_of("dm_control/cartpole-swingup-v0"), action_repeat_of("Pendulum-v1")
        (8, 2)
    """
    task = env_name.rpartition("/")[2].rpartition("-v")[0]
    return PLANET_ACTION_REPEAT.get(task, 2)


def camera_of(env_name: str) -> int:
    """The camera that looks at a task: 0, but 2 for quadrupeds, as upstream has it.

    Example:
        >>> camera_of("dm_control/quadruped-walk-v0"), camera_of("Pendulum-v1")
        (2, 0)
    """
    return 2 if "quadruped" in env_name else 0


def pixel_environment_factory(
    env_name: str,
    image_size: int = 64,
    num_stack: int = 3,
    action_repeat: int | None = None,
    camera_id: int | None = None,
) -> Callable[[], gym.Env]:
    """A function that makes the environment anew at each call, observed as stacked images.

    Args:
        env_name: as for :func:`idql_func.envs.make_env`.
        image_size: height and width of the images, pixels.
        num_stack: frames in an observation.
        action_repeat: steps for each action; None: :func:`action_repeat_of`.
        camera_id: None: :func:`camera_of`.

    Example:
        >>> factory = pixel_environment_factory("Pendulum-v1", action_repeat=4)
        >>> factory.keywords["action_repeat"], factory.keywords["camera_id"]
        (4, 0)
    """
    return functools.partial(
        _make_wrapped,
        env_name,
        image_size=image_size,
        num_stack=num_stack,
        action_repeat=action_repeat_of(env_name) if action_repeat is None else action_repeat,
        camera_id=camera_of(env_name) if camera_id is None else camera_id,
    )


def _make_wrapped(env_name: str, **settings: Any) -> gym.Env:
    from idql_func.envs import make_env, wrap_pixels

    env, _ = wrap_pixels(make_env(env_name, render_mode="rgb_array"), **settings)
    return env
