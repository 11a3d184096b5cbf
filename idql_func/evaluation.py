"""Evaluation of a learner in environments of its own, many episodes at a time.

After ``jaxrl5/evaluation.py``. Upstream runs one episode after the other in the very environment
that training steps (quirk E14) and never seeds it (E9); here the environments are made or copied
for the evaluation, each episode has a seed of its own, and the actions of all running episodes are
chosen in one batched call.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from tqdm import tqdm

from idql_func import random
from idql_func.data.pointmaze import ENV_NAME, REF_MAX_SCORE, REF_MIN_SCORE
from idql_func.data.scores import ReferenceScores, normalized_score, reference_scores
from idql_func.envs import make_env, wrap_gym
from idql_func.types import InputError

__all__ = ["EnvSource", "episode_seeds", "evaluate", "implicit_evaluate"]

EnvSource = gym.Env | Callable[[], gym.Env] | str
"""An environment (it is copied, not stepped), a function that makes one, or a name."""

# More at once save little, since the batch is large by then, and cost memory.
_MOST_ENVS = 64


def evaluate(
    learner: Any,
    env_or_factory: EnvSource,
    num_episodes: int,
    seed: int = 0,
    num_envs: int | None = None,
    *,
    method: str = "eval_actions",
    record_trajectories: bool = False,
    score_name: str | os.PathLike[str] | ReferenceScores | None = None,
    progress: bool = False,
    fold_seed: bool = False,
) -> dict[str, Any]:
    """Run episodes with a learner and average their undiscounted returns.

    Episode ``i`` starts from the same seed whatever ``num_envs`` is, and a learner that acts
    without chance gets the same result for any ``num_envs``. A learner that draws its actions from
    a key draws them for the whole batch of running episodes, so that its result depends on
    ``num_envs``, and on nothing else besides the learner and ``seed``.

    The learner that is passed in stays as it was: its key advances in copies that are dropped at
    the end, so each evaluation of it starts from the same key (quirk E8). ``fold_seed=True`` gives
    evaluations with different ``seed`` independent action noise too.

    Args:
        learner: has ``eval_actions(observations [E, O]) -> (actions [E, A], learner)``.
        env_or_factory: see :data:`EnvSource`; a name is made by ``make_env`` and ``wrap_gym``.
        num_episodes: how many to run to their end.
        seed: draws the seed of every episode.
        num_envs: how many run at once; default: all, but at most 64.
        method: the learner's method that chooses actions: ``eval_actions``, ``sample_actions`` or
            ``sample_implicit_policy``.
        record_trajectories: add ``trajectories``.
        score_name: what to normalise by: a D4RL name, the built-in maze's name, an HDF5 file with
            reference scores, or the scores themselves. Unknown names give no normalised score.
        progress: show a progress bar over episodes.
        fold_seed: act under ``fold_in(learner.rng, seed)`` instead of ``learner.rng``.

    Returns:
        ``return`` and ``return_std`` (mean and standard deviation over episodes), ``length`` (mean,
        steps), ``success`` (share of the episodes in which ``info["success"]`` or
        ``info["is_success"]`` was ever true; None if the environment never says), ``episodes``,
        ``returns`` and ``lengths`` (lists in episode order); ``normalized_score`` (0 to 100 scale)
        where known; ``trajectories``: for each episode the first two entries of its observations,
        ``[length + 1, 2]`` float32, which in the mazes is the position.

    Raises:
        InputError: ``num_episodes`` or ``num_envs`` below 1, no such method, an environment whose
            observations or actions differ in size from the learner's or are no flat vectors, or an
            action that is not finite.

    Example:
        >>> class Push:
        ...     def eval_actions(self, observations):
        ...         return np.tile(np.float32([0.0, -1.0]), (len(observations), 1)), self
        >>> result = evaluate(Push(), "pointmaze-umaze-builtin", num_episodes=2)
        >>> result["return"], result["length"], result["success"]
        (0.0, 300.0, 0.0)
    """
    if num_episodes < 1:
        raise InputError(f"num_episodes must be at least 1; got {num_episodes}.")
    if num_envs is not None and num_envs < 1:
        raise InputError(f"num_envs must be at least 1; got {num_envs}.")
    if not callable(getattr(learner, method, None)):
        raise InputError(
            f"{type(learner).__name__} has no method {method!r} to choose actions with."
        )
    if fold_seed:
        learner = learner.replace(rng=random.fold_in(learner.rng, seed))
    count = min(num_envs or _MOST_ENVS, num_episodes)
    envs = list(_own_envs(env_or_factory, count))
    try:
        _check_spaces(learner, envs[0])
        episodes = _run(learner, method, envs, episode_seeds(seed, num_episodes), progress)
    finally:
        for env in envs:
            env.close()
    return _summary(episodes, score_name, record_trajectories)


def implicit_evaluate(
    learner: Any, env_or_factory: EnvSource, num_episodes: int, **kwargs: Any
) -> dict[str, Any]:
    """:func:`evaluate` with the actions of ``sample_implicit_policy`` (upstream's second function).

    Example:
        >>> class Rest:
        ...     def sample_implicit_policy(self, observations):
        ...         return np.zeros((len(observations), 2), np.float32), self
        >>> implicit_evaluate(Rest(), "pointmaze-umaze-builtin", 1)["episodes"]
        1
    """
    return evaluate(
        learner, env_or_factory, num_episodes, **{"method": "sample_implicit_policy", **kwargs}
    )


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


class _Episode:
    """What one episode has gathered so far."""

    def __init__(self, observation: NDArray[Any]) -> None:
        self.total = 0.0
        self.success: bool | None = None
        self.positions = [observation[:2].copy()]

    def add(self, observation: NDArray[Any], reward: float, info: dict[str, Any]) -> None:
        self.total += float(reward)
        self.note_success(info)
        self.positions.append(observation[:2].copy())

    def note_success(self, info: dict[str, Any]) -> None:
        said = info.get("success", info.get("is_success"))
        if said is not None:
            self.success = bool(self.success) or bool(said)


def _own_envs(source: EnvSource, count: int) -> Iterator[gym.Env]:
    """Environments that nobody else holds (quirk E14)."""
    for _ in range(count):
        if isinstance(source, str):
            yield wrap_gym(make_env(source))
        elif isinstance(source, gym.Env):
            try:
                yield copy.deepcopy(source)
            except Exception as error:
                raise InputError(
                    f"The environment {source} cannot be copied ({error}); pass a function that "
                    "makes one, so that evaluation does not step the one that training uses."
                ) from error
        else:
            yield source()


def _run(
    learner: Any, method: str, envs: list[gym.Env], seeds: list[int], progress: bool
) -> list[_Episode]:
    """Run one episode for each seed; a free environment takes the next one that waits."""
    waiting = iter(enumerate(seeds))
    episodes: dict[int, _Episode] = {}
    running: list[int | None] = [None] * len(envs)
    batch: list[NDArray[Any]] = [np.empty(0)] * len(envs)

    def start(slot: int) -> None:
        number, seed = next(waiting, (None, 0))
        running[slot] = number
        if number is not None:
            observation, info = envs[slot].reset(seed=seed)
            batch[slot] = _flat(observation)
            episodes[number] = _Episode(batch[slot])
            episodes[number].note_success(info)

    for slot in range(len(envs)):
        start(slot)
    with tqdm(total=len(seeds), disable=not progress, desc="evaluating", unit="episode") as bar:
        while any(number is not None for number in running):
            # An environment with nothing left to do keeps its last row: a batch of one size is
            # compiled once.
            actions, learner = getattr(learner, method)(np.stack(batch))
            actions = _checked_actions(actions, len(envs))
            for slot, number in enumerate(running):
                if number is None:
                    continue
                observation, reward, terminated, truncated, info = envs[slot].step(actions[slot])
                batch[slot] = _flat(observation)
                episodes[number].add(batch[slot], float(reward), info)
                if terminated or truncated:
                    start(slot)
                    bar.update()
    return [episodes[number] for number in range(len(seeds))]


def _flat(observation: Any) -> NDArray[Any]:
    array = np.asarray(observation)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _checked_actions(actions: Any, count: int) -> NDArray[Any]:
    actions = np.asarray(actions)
    if actions.ndim != 2 or actions.shape[0] != count:
        raise InputError(
            f"The learner gave actions of shape {actions.shape} for {count} observations; expected "
            f"[{count}, A]."
        )
    if not np.isfinite(actions).all():
        raise InputError(
            "The learner gave an action that is not finite; its parameters are broken."
        )
    return actions


def _check_spaces(learner: Any, env: gym.Env) -> None:
    """One sentence now rather than a matrix-shape error from inside a network."""
    space, action_space = env.observation_space, env.action_space
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise InputError(
            f"{name} observes {space}, but evaluation takes flat vectors; wrap it with wrap_gym."
        )
    if not isinstance(action_space, Box) or len(action_space.shape) != 1:
        raise InputError(f"{name} takes {action_space}, but the learners act with flat vectors.")
    sizes = (
        ("observations", _observation_size(learner), space.shape[0]),
        ("actions", getattr(learner, "act_dim", None), action_space.shape[0]),
    )
    for what, own, theirs in sizes:
        if isinstance(own, int) and own != theirs:
            raise InputError(
                f"The learner was made for {what} of size {own}, but {name} has {what} of size "
                f"{theirs}; evaluate in the environment that the data come from."
            )


def _observation_size(learner: Any) -> int | None:
    """The width of the observations that a learner was made for, if it has a V network."""
    node = getattr(getattr(learner, "value", None), "params", None)
    while isinstance(node, dict):
        if "Dense_0" in node:
            kernel = node["Dense_0"].get("kernel")
            return None if kernel is None else int(kernel.shape[-2])
        node = next((part for name, part in node.items() if name.startswith("MLP")), None)
    return None


def _summary(
    episodes: list[_Episode],
    score_name: str | os.PathLike[str] | ReferenceScores | None,
    record_trajectories: bool,
) -> dict[str, Any]:
    returns = np.array([episode.total for episode in episodes])
    lengths = [len(episode.positions) - 1 for episode in episodes]
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
        result["trajectories"] = [np.stack(episode.positions) for episode in episodes]
    return result
