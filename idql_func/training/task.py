"""What a run learns from and is evaluated in: the prepared dataset, and the environment."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from idql_func.data import Dataset, ReplayBuffer
from idql_func.data.scores import normalized_score
from idql_func.env_imports import check_env_name
from idql_func.training.configs.learners import LearnerConfig, PixelBCConfig, ReBRACConfig
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.sources import load_source, spaces_of
from idql_func.types import InputError

__all__ = [
    "NO_ENVIRONMENT",
    "PLANET_ACTION_REPEAT",
    "Behaviour",
    "Task",
    "action_repeat_of",
    "camera_of",
    "check_spaces",
    "environment_factory",
    "pixel_environment_factory",
    "prepare_task",
    "shapes_of",
]

NO_ENVIRONMENT = "none"
"""The environment's name that turns evaluation off."""


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


@dataclass(frozen=True)
class Behaviour:
    """The returns of the policy that made the data, in the rewards of the environment.

    ``mean`` is its mean undiscounted return, ``std`` the spread over episodes, ``score`` the mean
    on D4RL's scale if reference scores are known.
    """

    mean: float
    std: float
    episodes: int
    score: float | None = None

    def as_result(self) -> dict[str, Any]:
        """The same with the names that an evaluation uses."""
        return {
            "return": self.mean,
            "return_std": self.std,
            "episodes": self.episodes,
            "normalized_score": self.score,
        }


@dataclass(frozen=True)
class Task:
    """Everything that the loop needs besides its settings.

    ``held_out`` is None if all transitions are trained on. ``observations [n, O]`` are those of
    all transitions in stored order, for pictures of the maze; None if they are not one array.
    ``make_env`` is None if there is no environment to evaluate in; ``pixels`` are the arguments of
    ``pixel_environment_factory`` if its observations are images.
    """

    train: Any
    held_out: Any
    observation_space: gym.spaces.Space
    action_space: gym.spaces.Box
    behaviour: Behaviour | None
    observations: np.ndarray | None
    dones: np.ndarray | None
    path: Path | None
    env_name: str | None
    make_env: Callable[[], gym.Env] | None
    score_name: str | None
    pixels: Mapping[str, int] | None = None


def prepare_task(
    config: TrainConfig, device: torch.device | str = "cpu", progress: bool = False
) -> Task:
    """Load or make the dataset, change its rewards, split it, and find its environment.

    As upstream's ``examples/states/train_diffusion_offline.py``: filter, then change the rewards
    (D15), then split 95/5 (D5); but all randomness comes from the run's seed (D1, D4).

    Args:
        config: the settings of the run.
        device: where batches are put.
        progress: show a bar while the built-in dataset is made.

    Raises:
        InputError: the dataset is damaged, has unknown content, or does not fit the environment.
        FileNotFoundError: the dataset's file does not exist.
    """
    settings = config.dataset
    source = load_source(settings, progress)
    dataset, score_name = source.dataset, source.score_name
    behaviour = _behaviour(dataset, source.attributes, score_name)
    observations, dones = _stored_trajectories(dataset)

    if isinstance(config.learner, ReBRACConfig):
        dataset.dataset_dict = with_next_actions(dataset.dataset_dict, len(dataset))

    if settings.take_top is not None or settings.filter_threshold is not None:
        dataset.filter(take_top=settings.take_top, threshold=settings.filter_threshold)
    if settings.rewards == "normalize_returns":
        dataset.normalize_returns()
    elif settings.rewards == "minus_one":
        rewards = np.asarray(dataset.dataset_dict["rewards"])
        dataset.dataset_dict = {**dataset.dataset_dict, "rewards": rewards - rewards.dtype.type(1)}
    dataset.seed(config.seed)
    fraction = settings.train_fraction
    train, held_out = (dataset, None) if fraction == 1 else dataset.split(fraction)

    spaces = spaces_of(dataset)
    _check_learner(config.learner, spaces[0])
    env_name = config.evaluation.env or source.attributes.get("env") or settings.source
    make_env, pixels = None, None
    if env_name == NO_ENVIRONMENT:
        env_name = None
    else:
        env_name = str(env_name)
        pixels = _pixels(config, env_name, spaces[0])
        make_env = environment_factory(env_name, pixels)
        advice = f"with --evaluation.env, or '{NO_ENVIRONMENT}' to train without evaluation"
        try:
            env = make_env()
        except InputError as error:
            raise InputError(f"{str(error).rstrip('.')}; name the environment {advice}") from error
        spaces = check_spaces(env, env_name, spaces, "the dataset", f"; name another {advice}")
    return Task(
        train=train.to(device),
        held_out=None if held_out is None else held_out.to(device),
        observation_space=spaces[0],
        action_space=spaces[1],
        behaviour=behaviour,
        observations=observations,
        dones=dones,
        path=source.path,
        env_name=env_name,
        make_env=make_env,
        score_name=score_name,
        pixels=pixels,
    )


def with_next_actions(arrays: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The arrays of a dataset with ``next_actions``, the action of the next of its ``rows`` rows.

    That of the last row is its own. At the end of an episode it is the first action of the next
    one, as in seohongpark/fql; the mask removes it from the target where the episode terminated.

    >>> with_next_actions({"actions": np.array([[1], [2], [3]])}, 3)["next_actions"].ravel()
    array([2, 3, 3])
    """
    actions = np.asarray(arrays["actions"])
    following = actions.copy()
    following[: rows - 1] = actions[1:rows]
    return {**arrays, "next_actions": following}


def environment_factory(
    name: str, pixels: Mapping[str, int] | None = None
) -> Callable[[], gym.Env]:
    """A function that makes a new wrapped environment at each call.

    Args:
        name: as for :func:`idql_func.envs.make_env`; it may come from a file.
        pixels: further arguments of :func:`pixel_environment_factory`;
            None: observations are not images.

    Raises:
        InputError: the name would import a module, and nobody has allowed that.

    Example:
        >>> env = environment_factory("Pendulum-v1")()
        >>> env.action_space.shape
        (1,)
    """
    if pixels is not None:
        return pixel_environment_factory(name, **pixels)
    return functools.partial(_make_wrapped, check_env_name(name))


def _make_wrapped(name: str) -> gym.Env:
    from idql_func.envs import make_env, wrap_gym

    return wrap_gym(make_env(name))


def action_repeat_of(env_name: str) -> int:
    """How often an action is repeated: PlaNet's number for its tasks, 2 for all others.

    Example:
        >>> action_repeat_of("dm_control/cartpole-swingup-v0"), action_repeat_of("Pendulum-v1")
        (8, 2)
    """
    task = env_name.rpartition("/")[2].rpartition("-v")[0]
    return PLANET_ACTION_REPEAT.get(task, 2)


def camera_of(env_name: str) -> int:
    """The camera of a task: 0, but 2 for quadrupeds, as upstream has it.

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
    """A function that makes a new environment at each call whose observations are stacked images.

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
        _make_pixels,
        check_env_name(env_name),
        image_size=image_size,
        num_stack=num_stack,
        action_repeat=action_repeat_of(env_name) if action_repeat is None else action_repeat,
        camera_id=camera_of(env_name) if camera_id is None else camera_id,
    )


def _make_pixels(env_name: str, **settings: Any) -> gym.Env:
    from idql_func.envs import make_env, wrap_pixels

    env, _ = wrap_pixels(make_env(env_name, render_mode="rgb_array"), **settings)
    return env


def _behaviour(
    dataset: Dataset, attributes: Mapping[str, Any], score_name: str | None
) -> Behaviour | None:
    """From the file's attributes if it has them: they count complete episodes only."""
    if "behaviour_return" in attributes:
        mean = float(attributes["behaviour_return"])
        std = float(attributes.get("behaviour_return_std", 0.0))
        episodes = int(attributes.get("behaviour_episodes", 1))
    else:
        _, _, returns = dataset.trajectory_boundaries_and_returns()
        if len(returns) == 0:
            return None
        mean, std, episodes = float(returns.mean()), float(returns.std()), len(returns)
    score = None if score_name is None else float(normalized_score(score_name, mean))
    return Behaviour(mean, std, episodes, score)


def shapes_of(space: gym.spaces.Space) -> str:
    """The shape of a space, or the shapes of its parts, for messages.

    Example:
        >>> shapes_of(gym.spaces.Dict({"pixels": gym.spaces.Box(0, 255, (84, 84, 3, 3), np.uint8)}))
        'pixels (84, 84, 3, 3)'
    """
    if isinstance(space, gym.spaces.Dict):
        return ", ".join(f"{name} {shapes_of(part)}" for name, part in space.spaces.items())
    return str(space.shape)


def _stored_trajectories(dataset: Dataset) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Observations and ends of episodes in stored order, if observations are one array."""
    observations = dataset.dataset_dict["observations"]
    if isinstance(dataset, ReplayBuffer) or not isinstance(observations, np.ndarray):
        return None, None
    return observations, np.asarray(dataset.dataset_dict["dones"])


def _check_learner(learner: LearnerConfig, observation_space: gym.spaces.Space) -> None:
    images = isinstance(learner, PixelBCConfig)
    has = isinstance(observation_space, gym.spaces.Dict)
    if images != has:
        kinds = ("vectors", "images under names")
        raise InputError(
            f"{learner.class_name} learns from {kinds[images]}, but the dataset's observations are "
            f"{kinds[has]} ({shapes_of(observation_space)}); choose another learner with "
            "--learner-class"
        )


def _pixels(
    config: TrainConfig, env_name: str, observation_space: gym.spaces.Space
) -> dict[str, int] | None:
    """The arguments of the environment whose images the dataset holds."""
    if not isinstance(observation_space, gym.spaces.Dict):
        return None
    assert isinstance(config.learner, PixelBCConfig)
    for key in config.learner.pixel_keys:
        image = observation_space.spaces.get(key)
        if image is None or image.shape is None or len(image.shape) != 4:
            raise InputError(
                f"the dataset has no images [height, width, channels, frames] under {key!r}; its "
                f"observations are {shapes_of(observation_space)}; name theirs with "
                "--learner.pixel-keys"
            )
    shape: Any = observation_space[config.learner.pixel_keys[0]].shape
    factory: Any = pixel_environment_factory(
        env_name,
        image_size=shape[0],
        num_stack=shape[-1],
        action_repeat=config.evaluation.action_repeat,
        camera_id=config.evaluation.camera_id,
    )
    return dict(factory.keywords)


def check_spaces(
    env: gym.Env,
    name: str,
    wanted: tuple[gym.spaces.Space, gym.spaces.Box],
    owner: str,
    advice: str = "",
) -> tuple[gym.spaces.Space, gym.spaces.Box]:
    """Close an environment and return its spaces, if they have the shapes of the ``wanted`` ones.

    Raises:
        InputError: they differ; the message names the ``owner`` of the wanted ones.
    """
    spaces: Any = env.observation_space, env.action_space
    env.close()
    for what, space, own in zip(("observations", "actions"), spaces, wanted, strict=True):
        if type(space) is not type(own) or shapes_of(space) != shapes_of(own):
            same_kind = isinstance(space, gym.spaces.Box | gym.spaces.Dict)
            have = shapes_of(space) if same_kind else type(space).__name__
            raise InputError(
                f"the {what} of the environment {name} are {have}, but those of {owner} are "
                f"{shapes_of(own)}{advice}"
            )
    return spaces
