"""Evaluation of a learner in environments of its own, many episodes at a time.

After ``jaxrl5/evaluation.py``. Upstream runs one episode after the other in the very environment
that training steps (quirk E14) and never seeds it (E9); here the environments are made or copied
for the evaluation, each episode has a seed of its own, and the running episodes are two groups: the
actions of one are chosen in one batched call while the other is stepped.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any, TypedDict, TypeGuard, Unpack

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from idql_func import random
from idql_func.data.pointmaze import ENV_NAME, REF_MAX_SCORE, REF_MIN_SCORE
from idql_func.data.scores import ReferenceScores, normalized_score, reference_scores
from idql_func.envs import FrameSource, WANDBVideo, make_env, wrap_gym, write_video
from idql_func.envs.frames import env_name, frames_per_second
from idql_func.envs.offscreen import Camera
from idql_func.envs.rollout import (
    Chooser,
    Episode,
    alone,
    checked_actions,
    either,
    run_episodes,
    said,
    side_by_side,
    stacked,
)
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
"""An environment (it is copied, not stepped), a function that makes one, or a name."""

# More at once save little, since the batch is large by then, and cost memory: of environments
# that draw pictures each holds an OpenGL context, mostly shadows, of up to 90 MB.
_MOST_ENVS = 64
_MOST_PIXEL_ENVS = 8


class EpisodeOptions(TypedDict, total=False):
    """What :func:`evaluate` and :func:`evaluate_members` take by name; each may be left out."""

    method: str
    """The learner's method that chooses actions: ``eval_actions`` (the default),
    ``sample_actions`` or ``sample_implicit_policy``."""
    record_trajectories: bool
    """Add ``trajectories``; default: no."""
    score_name: str | os.PathLike[str] | ReferenceScores | None
    """What to normalise by: a D4RL name, the built-in maze's name, an HDF5 file with reference
    scores, or the scores themselves. Unknown names, as none, give no normalised score."""
    progress: bool
    """Show a progress bar over episodes; default: no."""
    overlap: bool
    """Choose the actions of one half of the environments, in a thread, while the other half is
    stepped, which is the default. Without it all act at once, as a learner needs that keeps
    something for each row of its batch."""


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

    Episode ``i`` starts from the same seed whatever ``num_envs`` is, and a learner that acts
    without chance gets the same result for any ``num_envs``. A learner that draws its actions from
    a key draws them for a batch of running episodes, half of the environments at a time and by
    turns (see ``envs.rollout.run_episodes``), so that its result depends on ``num_envs`` and
    ``overlap``, and on nothing else besides the learner and ``seed``: not on how long anything
    takes.

    The learner that is passed in stays as it was: its key advances in copies that are dropped at
    the end, so each evaluation of it starts from the same key (quirk E8). ``fold_seed=True`` gives
    evaluations with different ``seed`` independent action noise too.

    Args:
        learner: has ``eval_actions(observations [E, O]) -> (actions [E, A], learner)``. Where the
            environment observes a Dict, it is given a dict of arrays ``[E, ...]``.
        env_or_factory: see :data:`EnvSource`; a name is made by ``make_env`` and ``wrap_gym``.
        num_episodes: how many to run to their end.
        seed: draws the seed of every episode.
        num_envs: how many run at once; default: all, but at most 64, or 8 that observe pictures.
        fold_seed: act under ``fold_in(learner.rng, seed)`` instead of ``learner.rng``.
        save_video: log the first episode as ``eval_video`` to the Weights & Biases run that is
            open, as upstream does; :func:`record_video` writes a file.
        options: the other options, see :class:`EpisodeOptions`.

    Returns:
        ``return`` and ``return_std`` (mean and standard deviation over episodes), ``length`` (mean,
        steps), ``success`` (share of the episodes in which ``info["success"]`` or
        ``info["is_success"]`` was ever true; None if the environment never says), ``episodes``,
        ``returns`` and ``lengths`` (lists in episode order); ``normalized_score`` (0 to 100 scale)
        where known; ``trajectories``: for each episode the first two entries of its observations
        (of a Dict: of its ``"state"``), ``[length + 1, 2]`` float32, which in the mazes is the
        position.

    Raises:
        InputError: ``num_episodes`` or ``num_envs`` below 1, no such method, an environment whose
            observations or actions differ in size from the learner's, or are no flat vectors (or
            Dicts of arrays), trajectories of an environment without a state, a video of what cannot
            be drawn or without wandb, or an action that is not finite.

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
    [result] = _run(learner, (alone, 1), env_or_factory, episodes, save_video=save_video, **options)
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
    """:func:`evaluate` of several learners side by side, whose actions are chosen in one call.

    Each member has environments of its own, its episodes have the seeds that they have alone, and
    its choices and steps come in the order that they have alone. So each result is what
    :func:`evaluate` gives of the member, as far as its actions are: the last bits of a product of
    stacked matrices may differ from those of one, and where candidates are almost as good as each
    other another one may then be the best.

    Args:
        learner: has ``eval_actions(observations [K, E, O]) -> (actions [K, E, A], learner)``.
        members: how many learners it stands for, ``K``.
        num_envs: how many run at once, of each member.
        options: see :class:`EpisodeOptions`.

    The other arguments are those of :func:`evaluate`.

    Returns:
        The members' results, as :func:`evaluate` gives them.

    Raises:
        InputError: as :func:`evaluate`, or ``members`` below 1.

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
    episodes = (num_episodes, seed, num_envs)
    return _run(learner, (side_by_side, members), env_or_factory, episodes, **options)


def environments_at_once(num_episodes: int, num_envs: int | None = None) -> int:
    """How many environments without pictures :func:`evaluate` runs at once.

    >>> environments_at_once(10), environments_at_once(1000), environments_at_once(9, num_envs=4)
    (10, 64, 4)
    """
    return min(num_envs or _MOST_ENVS, num_episodes)


def _run(
    learner: Any,
    acting: tuple[Callable[[str], Chooser], int],
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
    """The results of each member, in environments that are closed again.

    ``acting`` is how the learner chooses, and for how many members; ``episodes`` how many, from
    which seed, and how many at once.
    """
    (chooser, members), (num_episodes, seed, num_envs) = acting, episodes
    _check_method(learner, method)
    if num_episodes < 1:
        raise InputError(f"num_episodes must be at least 1; got {num_episodes}.")
    if num_envs is not None and num_envs < 1:
        raise InputError(f"num_envs must be at least 1; got {num_envs}.")
    envs: list[gym.Env] = []
    try:
        envs.append(_own_env(source))
        _check_spaces(learner, envs[0], record_trajectories)
        most = num_envs or (_MOST_PIXEL_ENVS if _has_pictures(envs[0]) else None)
        count = environments_at_once(num_episodes, most)
        while len(envs) < members * count:
            envs.append(_own_env(source))
        if save_video:
            envs[0] = WANDBVideo(envs[0], name="eval_video", max_videos=1)
        each = [envs[i : i + count] for i in range(0, len(envs), count)]
        seeds = episode_seeds(seed, num_episodes)
        found = run_episodes(learner, chooser(method), each, seeds, progress, overlap)
    finally:
        for env in envs:
            env.close()
    return [_summary(member, score_name, record_trajectories) for member in found]


def implicit_evaluate(
    learner: Any, env_or_factory: EnvSource, num_episodes: int, **options: Any
) -> dict[str, Any]:
    """:func:`evaluate` with the actions of ``sample_implicit_policy`` (upstream's second function).

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
    """Run one episode and write it to a video file; the episode is the first of :func:`evaluate`.

    Args:
        learner: as :func:`evaluate`'s.
        env_or_factory: see :data:`EnvSource`. What is not simulated by MuJoCo must have been made
            with ``render_mode="rgb_array"``; a name is made so.
        path: ends in ``.mp4`` or ``.gif``.
        seed: as :func:`evaluate`'s.
        method: as :func:`evaluate`'s.
        size: pixels a side.
        camera_id: which camera of the model, by number or name; -1 is the environment's own view.
        fps: pictures a second; default: the environment's own time, or 20.
        max_steps: stop the recording after this many steps.

    Returns:
        ``return``, ``length`` (steps), ``success`` (None where the environment does not say) and
        ``path``.

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
        ...     told = record_video(Rest(), "pointmaze-umaze-builtin", path, size=32, max_steps=3)
        ...     told["length"], path.exists()
        (3, True)
    """
    _check_method(learner, method)
    env = _own_env(env_or_factory, render_mode="rgb_array")
    pictures: list[NDArray[np.uint8]] = []
    source: FrameSource | None = None
    try:
        _check_spaces(learner, env, False)
        source = FrameSource(env, size, size)
        observation, info = env.reset(seed=episode_seeds(seed, 1)[0])
        total, success, ended = 0.0, said(info), False
        pictures.append(source.rgb(camera_id))
        while not ended and (max_steps is None or len(pictures) <= max_steps):
            actions, learner = getattr(learner, method)(stacked([observation]))
            action = checked_actions(actions, 1)[0]
            observation, reward, terminated, truncated, info = env.step(action)
            total, ended = total + float(reward), terminated or truncated
            success = either(success, said(info))
            pictures.append(source.rgb(camera_id))
    finally:
        if source is not None:
            source.close()
        env.close()
    written = write_video(path, pictures, frames_per_second(env) if fps is None else fps)
    return {"return": total, "length": len(pictures) - 1, "success": success, "path": written}


def episode_seeds(seed: int, num_episodes: int) -> list[int]:
    """The reset seed of each episode; more episodes only add to the list.

    Raises:
        InputError: the seed is negative.

    Example:
        >>> episode_seeds(0, 3)[:2] == episode_seeds(0, 2)
        True
    """
    if seed < 0:
        raise InputError(f"seed must not be negative; got {seed}.")
    words = (np.random.SeedSequence([seed, i]).generate_state(1)[0] for i in range(num_episodes))
    return [int(word) >> 1 for word in words]  # some environments take 31 bits only


def _own_env(source: EnvSource, render_mode: str | None = None) -> gym.Env:
    """An environment that nobody else holds (quirk E14)."""
    if isinstance(source, str):
        return wrap_gym(make_env(source, **({"render_mode": render_mode} if render_mode else {})))
    if not isinstance(source, gym.Env):
        return source()
    try:
        return copy.deepcopy(source)
    except Exception as error:
        raise InputError(
            f"The environment {source} cannot be copied ({error}); pass a function that makes "
            "one, so that evaluation does not step the one that training uses."
        ) from error


def _check_method(learner: Any, method: str) -> None:
    if not callable(getattr(learner, method, None)):
        raise InputError(
            f"{type(learner).__name__} has no method {method!r} to choose actions with."
        )


def _check_spaces(learner: Any, env: gym.Env, record_trajectories: bool) -> None:
    """One sentence now rather than a matrix-shape error from inside a network."""
    space, action_space, name = env.observation_space, env.action_space, env_name(env)
    if not _is_vector(space) and not _is_dict_of_arrays(space):
        raise InputError(
            f"{name} observes {space}, but evaluation takes flat vectors or Dicts of arrays; wrap "
            "it with wrap_gym or wrap_pixels."
        )
    if not _is_vector(action_space):
        raise InputError(f"{name} takes {action_space}, but the learners act with flat vectors.")
    if record_trajectories and isinstance(space, Dict) and "state" not in space.spaces:
        raise InputError(
            f"{name} observes {', '.join(space.spaces)} and no 'state', so that there are no "
            "positions to record."
        )
    _check_observations(_observation_shape(learner), space, name)
    act_dim = getattr(learner, "act_dim", None)
    if isinstance(act_dim, int) and act_dim != action_space.shape[0]:
        raise InputError(_other_size("actions", act_dim, name, action_space.shape[0]))


def _check_observations(own: Any, space: Any, name: str) -> None:
    """``own``: a size, or the shape of each entry of a Dict by name; None where it is unknown."""
    if isinstance(own, int):
        if isinstance(space, Dict):
            raise InputError(
                f"The learner was made for flat observations of size {own}, but {name} observes "
                f"{', '.join(space.spaces)}; wrap it with wrap_gym."
            )
        if own != space.shape[0]:
            raise InputError(_other_size("observations", own, name, space.shape[0]))
    elif own is not None:
        if not isinstance(space, Dict):
            raise InputError(
                f"The learner was made for observations with {', '.join(own)}, but {name} gives "
                "flat vectors; wrap it with wrap_pixels."
            )
        for key, shape in own.items():
            theirs = space[key].shape if key in space.spaces else None
            if tuple(shape) != theirs:
                raise InputError(
                    f"The learner was made for {key!r} of shape {tuple(shape)}, but {name} has "
                    f"{'none' if theirs is None else theirs}; wrap it as for training."
                )


def _other_size(what: str, own: int, name: str, theirs: int) -> str:
    return (
        f"The learner was made for {what} of size {own}, but {name} has {what} of size {theirs}; "
        "evaluate in the environment that the data come from."
    )


def _is_vector(space: Any) -> TypeGuard[Box]:
    return isinstance(space, Box) and len(space.shape) == 1


def _is_dict_of_arrays(space: Any, nested: bool = False) -> bool:
    if isinstance(space, Dict):
        return all(_is_dict_of_arrays(part, True) for part in space.spaces.values())
    return nested and isinstance(space, Box)


def _has_pictures(env: gym.Env) -> bool:
    space = env.observation_space
    return isinstance(space, Dict) and any(
        len(part.shape or ()) > 2 for part in space.spaces.values()
    )


def _observation_shape(learner: Any) -> int | dict[str, tuple[int, ...]] | None:
    """What a learner was made for, as far as it says: a size, or the shapes of a Dict's entries."""
    own = getattr(learner, "obs_dim", None)
    if own is not None:
        return own if isinstance(own, int) else dict(own)
    node = getattr(getattr(learner, "value", None), "params", None)
    while isinstance(node, dict):
        if "Dense_0" in node:
            kernel = node["Dense_0"].get("kernel")
            return None if kernel is None else int(kernel.shape[-2])
        node = next((part for name, part in node.items() if name.startswith("MLP")), None)
    return None


def _summary(
    episodes: list[Episode],
    score_name: str | os.PathLike[str] | ReferenceScores | None,
    record_trajectories: bool,
) -> dict[str, Any]:
    returns = np.array([episode.total for episode in episodes])
    lengths = [episode.length for episode in episodes]
    told = [episode.success for episode in episodes if episode.success is not None]
    result: dict[str, Any] = {
        "return": float(returns.mean()),
        "return_std": float(returns.std()),
        "length": float(np.mean(lengths)),
        "success": float(np.mean(told)) if told else None,
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
