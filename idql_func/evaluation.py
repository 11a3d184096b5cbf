"""Evaluate a learner in separate environments, many episodes at a time.

Port of ``jaxrl5/evaluation.py``. Upstream runs one episode after another in the training
environment (quirk E14) and does not seed it (E9). Here the environments are created or copied for
the evaluation, each episode has its own seed, and the running episodes form two groups: the actions
of one are chosen in one batched call while the other is stepped.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from numbers import Integral
from typing import Any, TypedDict, Unpack

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from idql_func import random
from idql_func.boundary import explain_module
from idql_func.data.pointmaze import ENV_NAME, REF_MAX_SCORE, REF_MIN_SCORE
from idql_func.data.scores import ReferenceScores, normalized_score, reference_scores
from idql_func.envs import WANDBVideo, make_env, wrap_gym, write_video
from idql_func.envs.frames import env_name, frames_per_second
from idql_func.envs.offscreen import Camera
from idql_func.envs.rollout import Episode, run_episodes
from idql_func.envs.video import EpisodeFrames
from idql_func.types import InputError

__all__ = [
    "EnvSource",
    "EpisodeOptions",
    "environments_at_once",
    "episode_seeds",
    "evaluate",
    "evaluate_members",
    "implicit_evaluate",
    "record_video",
]

EnvSource = gym.Env | Callable[[], gym.Env] | str
"""An environment (copied, not stepped), a function that creates one, or a name."""

# Larger batches save little time and cost memory: an environment that renders images holds an
# OpenGL context of up to 90 MB, mostly for shadows.
_MAX_ENVS = 64
_MOST_MEMBERS = 10_000
_MAX_PIXEL_ENVS = 8


class EpisodeOptions(TypedDict, total=False):
    """Optional keyword arguments of :func:`evaluate` and :func:`evaluate_members`."""

    method: str
    """Name of the method that chooses actions: ``eval_actions`` (the default),
    ``sample_actions`` or ``sample_implicit_policy``."""
    record_trajectories: bool
    """Add ``trajectories``; default: no."""
    score_name: str | os.PathLike[str] | ReferenceScores | None
    """Reference scores to normalise with: a D4RL name, the built-in maze's name, an HDF5 file with
    reference scores, or the scores. An unknown name, like None, gives no normalised score."""
    progress: bool
    """Show a progress bar over episodes; default: no."""
    overlap: bool
    """Choose the actions of one half of the environments in a thread while the other half is
    stepped; default: yes. A learner that keeps state per row of its batch needs ``False``, which
    puts all environments in one batch."""


def evaluate(
    learner: Any,
    env_or_factory: EnvSource,
    num_episodes: int,
    seed: int = 0,
    num_envs: int | None = None,
    *,
    fold_seed: bool = False,
    save_video: bool = False,
    **options: Unpack[EpisodeOptions],
) -> dict[str, Any]:
    """Run episodes with a learner and average their undiscounted returns.

    Episode ``i`` has the same seed for any ``num_envs``, and a deterministic learner has the same
    result for any ``num_envs``. A learner that samples actions with a key samples them for a batch
    of running episodes, alternately for each half of the environments (see
    ``envs.rollout.run_episodes``). Its result depends on the learner, ``seed``, ``num_envs`` and
    ``overlap``, and never on timing.

    The learner is not changed: its key advances in copies that are discarded at the end, so each
    evaluation starts from the same key (quirk E8). ``fold_seed=True`` also gives evaluations with
    different ``seed`` independent action noise.

    Args:
        learner: has ``eval_actions(observations [E, O]) -> (actions [E, A], learner)``. For Dict
            observations the argument is a dict of arrays ``[E, ...]``.
        env_or_factory: see :data:`EnvSource`; a name goes through ``make_env`` and ``wrap_gym``.
        num_episodes: number of complete episodes.
        seed: draws the seed of each episode.
        num_envs: environments at once; default: one per episode, at most 64, or 8 with images.
        fold_seed: act with the key ``fold_in(learner.rng, seed)`` instead of ``learner.rng``.
        save_video: log the first episode as ``eval_video`` to the active Weights & Biases run, as
            upstream does; :func:`record_video` writes a file.
        options: further options, see :class:`EpisodeOptions`.

    Returns:
        ``return`` and ``return_std`` (mean and standard deviation over episodes), ``length`` (mean,
        steps), ``success`` (fraction of the episodes in which ``info["success"]`` or
        ``info["is_success"]`` was ever true; None if info has neither), ``episodes``, ``returns``
        and ``lengths`` (lists in episode order); ``normalized_score`` (0 to 100 scale) if known;
        ``trajectories``: for each episode the first two entries of its observations (of a Dict: of
        its ``"state"``), ``[length + 1, 2]`` float32, which in the mazes are the positions.

    Raises:
        InputError: if ``num_episodes`` or ``num_envs`` is below 1; if the method does not exist; if
            the spaces are not the learner's; if trajectories are requested without a state, or a
            video without images or wandb; or if an action is not finite.

    Example:
        >>> class Push:
        ...     def eval_actions(self, observations):
        ...         return np.tile(np.float32([0.0, -1.0]), (len(observations), 1)), self
        >>> result = evaluate(Push(), "pointmaze-umaze-builtin", num_episodes=2)
        >>> result["return"], result["length"], result["success"]
        (0.0, 300.0, 0.0)
    """
    if fold_seed:
        learner = learner.replace(rng=random.fold_in(learner.rng, seed))
    episodes = (num_episodes, seed, num_envs)
    [result] = _run(learner, None, env_or_factory, episodes, save_video=save_video, **options)
    return result


def evaluate_members(
    learner: Any,
    members: int,
    env_or_factory: EnvSource,
    num_episodes: int,
    seed: int = 0,
    num_envs: int | None = None,
    **options: Unpack[EpisodeOptions],
) -> list[dict[str, Any]]:
    """Evaluate several stacked learners, whose actions are chosen in one call.

    Each member has its own environments; its seeds and the order of its choices and steps are those
    of :func:`evaluate` for this member. So are its results if its actions are equal. They may
    differ: a product of stacked matrices can differ from a single product in the last bits, and
    then select another of several nearly equal candidates.

    Args:
        learner: has ``eval_actions(observations [K, E, O]) -> (actions [K, E, A], learner)``.
        members: number of stacked learners ``K``.
        num_envs: environments at once per member.
        options: see :class:`EpisodeOptions`.

    The other arguments are those of :func:`evaluate`.

    Returns:
        The result of :func:`evaluate` for each member.

    Raises:
        InputError: as :func:`evaluate`, or if ``members`` is below 1.

    Example:
        >>> class Push:
        ...     def eval_actions(self, observations):
        ...         return np.zeros((*observations.shape[:2], 2), np.float32), self
        >>> results = evaluate_members(Push(), 3, "pointmaze-umaze-builtin", num_episodes=1)
        >>> [result["length"] for result in results]
        [300.0, 300.0, 300.0]
    """
    if members < 1:
        raise InputError(f"members must be at least 1; got {members}.")
    if members > _MOST_MEMBERS:
        raise InputError(f"members must be at most {_MOST_MEMBERS:,}; got {members:,}.")
    episodes = (num_episodes, seed, num_envs)
    return _run(learner, members, env_or_factory, episodes, **options)


def environments_at_once(num_episodes: int, num_envs: int | None = None) -> int:
    """Return the number of environments, without images, that :func:`evaluate` runs at once.

    >>> environments_at_once(10), environments_at_once(1000), environments_at_once(9, num_envs=4)
    (10, 64, 4)
    """
    return min(num_envs or _MAX_ENVS, num_episodes)


def _run(
    learner: Any,
    members: int | None,
    source: EnvSource,
    episodes: tuple[int, int, int | None],
    *,
    method: str = "eval_actions",
    record_trajectories: bool = False,
    score_name: str | os.PathLike[str] | ReferenceScores | None = None,
    progress: bool = False,
    overlap: bool = True,
    save_video: bool = False,
) -> list[dict[str, Any]]:
    """Evaluate each member, or one learner if ``members`` is None, and close the environments.

    ``episodes`` is ``(num_episodes, seed, num_envs)``.
    """
    num_episodes, seed, num_envs = episodes
    _check_method(learner, method)
    if num_episodes < 1:
        raise InputError(f"num_episodes must be at least 1; got {num_episodes}.")
    if num_envs is not None and num_envs < 1:
        raise InputError(f"num_envs must be at least 1; got {num_envs}.")
    envs: list[gym.Env] = []
    try:
        envs.append(_create_env(source))
        _check_spaces(learner, envs[0], record_trajectories)
        limit = num_envs or (_MAX_PIXEL_ENVS if _has_images(envs[0]) else None)
        count = environments_at_once(num_episodes, limit)
        while len(envs) < (members or 1) * count:
            envs.append(_create_env(source))
        if save_video:
            envs[0] = WANDBVideo(envs[0], name="eval_video", max_videos=1)
        each = [envs[i : i + count] for i in range(0, len(envs), count)]
        results = run_episodes(
            learner,
            method,
            each,
            episode_seeds(seed, num_episodes),
            stacked=members is not None,
            progress=progress,
            overlap=overlap,
        )
    finally:
        for env in envs:
            env.close()
    return [_summary(member, score_name, record_trajectories) for member in results]


def implicit_evaluate(
    learner: Any, env_or_factory: EnvSource, num_episodes: int, **options: Any
) -> dict[str, Any]:
    """Do :func:`evaluate` with the method ``sample_implicit_policy`` (upstream's second function).

    Example:
        >>> class Rest:
        ...     def sample_implicit_policy(self, observations):
        ...         return np.zeros((len(observations), 2), np.float32), self
        >>> implicit_evaluate(Rest(), "pointmaze-umaze-builtin", 1)["episodes"]
        1
    """
    options.setdefault("method", "sample_implicit_policy")
    return evaluate(learner, env_or_factory, num_episodes, **options)


def record_video(
    learner: Any,
    env_or_factory: EnvSource,
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    method: str = "eval_actions",
    size: int = 256,
    camera_id: Camera = 0,
    fps: float | None = None,
    max_steps: int | None = None,
) -> dict[str, Any]:
    """Run the first episode of :func:`evaluate` and write it to a video file.

    Args:
        learner: as for :func:`evaluate`.
        env_or_factory: see :data:`EnvSource`. Environments without MuJoCo must have been created
            with ``render_mode="rgb_array"``, which a name implies.
        path: ends in ``.mp4`` or ``.gif``.
        seed: as for :func:`evaluate`.
        method: as for :func:`evaluate`.
        size: height and width in pixels.
        camera_id: camera of the model, by number or name; -1 is the environment's default view.
        fps: frames per second; default: the environment's rate, or 20.
        max_steps: maximum number of recorded steps.

    Returns:
        ``return``, ``length`` (steps), ``success`` (None if info has no success flag) and ``path``.

    Raises:
        InputError: as :func:`evaluate`, :class:`idql_func.envs.FrameSource` and
            :func:`idql_func.envs.write_video`.

    Example:
        >>> import pathlib, tempfile
        >>> class Rest:
        ...     def eval_actions(self, observations):
        ...         return np.zeros((len(observations), 2), np.float32), self
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "rest.gif"
        ...     result = record_video(Rest(), "pointmaze-umaze-builtin", path, size=32, max_steps=3)
        ...     result["length"], path.exists()
        (3, True)
    """
    _check_method(learner, method)
    env = _create_env(env_or_factory, render_mode="rgb_array")
    frames: list[NDArray[np.uint8]] = []
    try:
        _check_spaces(learner, env, False)
        if max_steps is not None:
            env = gym.wrappers.TimeLimit(env, max_steps)
        env = EpisodeFrames(env, frames.extend, size, camera_id)
        seeds = episode_seeds(seed, 1)
        [[episode]] = run_episodes(learner, method, [[env]], seeds, overlap=False)
    finally:
        env.close()
    written = write_video(path, frames, frames_per_second(env) if fps is None else fps)
    summary = {"return": episode.total, "length": episode.length, "success": episode.success}
    return {**summary, "path": written}


_MOST_EPISODES = 10_000_000


def episode_seeds(seed: int, num_episodes: int) -> list[int]:
    """Return the reset seed of each episode; more episodes only extend the list.

    Raises:
        InputError: if the seed is negative.

    Example:
        >>> episode_seeds(0, 3)[:2] == episode_seeds(0, 2)
        True
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise InputError(f"seed must be an integer and not negative; got {seed!r}.")
    if not isinstance(num_episodes, Integral) or num_episodes > _MOST_EPISODES:
        raise InputError(
            f"num_episodes must be an integer of at most {_MOST_EPISODES:,}; got {num_episodes!r}."
        )
    words = (np.random.SeedSequence([seed, i]).generate_state(1)[0] for i in range(num_episodes))
    return [int(word) >> 1 for word in words]  # some environments accept only 31 bits


def _create_env(source: EnvSource, render_mode: str | None = None) -> gym.Env:
    """Create or copy an environment that nothing else uses (quirk E14)."""
    if isinstance(source, str):
        return wrap_gym(make_env(source, **({"render_mode": render_mode} if render_mode else {})))
    if not isinstance(source, gym.Env):
        return source()
    try:
        return copy.deepcopy(source)
    except Exception as error:
        raise InputError(
            f"The environment {source} cannot be copied ({error}); pass a function that creates "
            "one, so that evaluation does not step the environment used in training."
        ) from error


def _check_method(learner: Any, method: str) -> None:
    if not callable(getattr(learner, method, None)):
        raise InputError(
            f"{type(learner).__name__} has no method {method!r} to choose actions with."
        )


def _check_spaces(learner: Any, env: gym.Env, record_trajectories: bool) -> None:
    """Check the spaces before a network fails with a message about matrix shapes."""
    space, name = env.observation_space, env_name(env)
    if not _is_vector(space) and not _is_dict_of_arrays(space):
        raise InputError(
            f"{name} observes {space}, but evaluation needs flat vectors or Dicts of arrays; wrap "
            "it with wrap_gym or wrap_pixels."
        )
    if not _is_vector(env.action_space):
        raise InputError(f"{name} has actions {env.action_space}, but learners need flat vectors.")
    if record_trajectories and isinstance(space, Dict) and "state" not in space.spaces:
        raise InputError(
            f"{name} observes {', '.join(space.spaces)} but no 'state', so there are no positions "
            "to record."
        )
    obs_dim = getattr(learner, "obs_dim", None)  # a size, or pairs of a name and a shape
    if isinstance(space, Dict) and obs_dim is not None:
        _check_entries(obs_dim, space, name)
    elif not isinstance(obs_dim, int | None):
        raise InputError(
            f"The learner needs observations with {', '.join(dict(obs_dim))}, but {name} returns "
            "flat vectors; wrap it with wrap_pixels."
        )
    else:
        _check_size("observations", obs_dim, space, name)
    _check_size("actions", getattr(learner, "act_dim", None), env.action_space, name)


def _check_entries(obs_dim: Any, space: Dict, name: str) -> None:
    if isinstance(obs_dim, int):
        raise InputError(
            f"The learner needs flat observations of size {obs_dim}, but {name} observes "
            f"{', '.join(space.spaces)}; wrap it with wrap_gym."
        )
    for key, shape in dict(obs_dim).items():
        actual = space[key].shape if key in space.spaces else None
        if tuple(shape) != actual:
            raise InputError(
                f"The learner needs {key!r} of shape {tuple(shape)}, but {name} has "
                f"{'none' if actual is None else actual}; wrap it as for training."
            )


def _check_size(what: str, expected: int | None, space: Any, name: str) -> None:
    if expected is not None and (expected,) != space.shape:
        raise InputError(
            f"The learner needs {what} of size {expected}, but {name} has {what} of size "
            f"{space.shape[0]}; evaluate in the environment of the training data."
        )


def _is_vector(space: Any) -> bool:
    return isinstance(space, Box) and len(space.shape) == 1


def _is_dict_of_arrays(space: Any, nested: bool = False) -> bool:
    if isinstance(space, Dict):
        return all(_is_dict_of_arrays(part, True) for part in space.spaces.values())
    return nested and isinstance(space, Box)


def _has_images(env: gym.Env) -> bool:
    space = env.observation_space
    return isinstance(space, Dict) and any(
        len(part.shape or ()) > 2 for part in space.spaces.values()
    )


def _summary(
    episodes: list[Episode],
    score_name: str | os.PathLike[str] | ReferenceScores | None,
    record_trajectories: bool,
) -> dict[str, Any]:
    returns = np.array([episode.total for episode in episodes])
    lengths = [episode.length for episode in episodes]
    successes = [episode.success for episode in episodes if episode.success is not None]
    result: dict[str, Any] = {
        "return": float(returns.mean()),
        "return_std": float(returns.std()),
        "length": float(np.mean(lengths)),
        "success": float(np.mean(successes)) if successes else None,
        "episodes": len(episodes),
        "returns": returns.tolist(),
        "lengths": lengths,
    }
    if score_name == ENV_NAME:
        score_name = ReferenceScores(REF_MIN_SCORE, REF_MAX_SCORE)
    scores = None if score_name is None else reference_scores(score_name)
    if scores is not None:
        result["normalized_score"] = normalized_score(scores, result["return"])
    if record_trajectories:
        result["trajectories"] = [
            np.stack([position for position in episode.positions if position is not None])
            for episode in episodes
        ]
    return result


explain_module(__name__)
