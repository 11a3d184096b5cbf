"""Run episodes in several environments at once and step them while the next actions are chosen."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from idql_func.switches import with_current_switches
from idql_func.types import InputError

_Actions = tuple[Sequence[NDArray[Any]], Any]
"""Actions ``[E, A]`` of each member, and the learner with its next key."""


class Episode:
    """Return, length, success and positions of an episode so far."""

    def __init__(self, observation: Any, info: dict[str, Any]) -> None:
        self.total = 0.0
        self.length = 0
        self.success = _success(info)
        self.positions = [position(observation)]

    def add(self, observation: Any, reward: float, info: dict[str, Any]) -> None:
        """Record one step."""
        self.total += float(reward)
        self.length += 1
        success = _success(info)
        self.success = self.success if success is None else bool(self.success) or success
        self.positions.append(position(observation))


def _success(info: dict[str, Any]) -> bool | None:
    """The success flag of an info dict; None if it has none."""
    success = info.get("success", info.get("is_success"))
    return None if success is None else bool(success)


def position(observation: Any) -> NDArray[Any] | None:
    """Return the first two entries ``[2]`` of an observation or of its ``"state"``, if it has one.

    >>> position({"state": [1.0, 2.0, 3.0]}).tolist()
    [1.0, 2.0]
    """
    state = observation.get("state") if isinstance(observation, dict) else observation
    return None if state is None else as_float32(state)[:2].copy()


class _Group:
    """Environments of one member that act in one batch.

    ``rows`` is the batch size, the same for all groups, so that one compiled program serves all. A
    row without an environment repeats the last one; an environment without an episode keeps its
    last observation.
    """

    def __init__(
        self,
        envs: list[gym.Env],
        rows: int,
        waiting: Iterator[tuple[int, int]],
        episodes: dict[int, Episode],
    ) -> None:
        self.envs, self.rows, self.waiting, self.episodes = envs, rows, waiting, episodes
        self.running: list[int | None] = [None] * len(envs)
        self.last: list[Any] = [None] * len(envs)
        for i in range(len(envs)):
            self._start(i)

    def busy(self) -> bool:
        """Whether an episode is running."""
        return any(number is not None for number in self.running)

    def observations(self) -> Any:
        """The last observation of each row, ``[rows, ...]``."""
        return stack_observations([*self.last, *[self.last[-1]] * (self.rows - len(self.last))])

    def step(self, actions: NDArray[Any]) -> int:
        """Step the running episodes, start waiting ones, return the number of ended ones."""
        ended = 0
        for i, number in enumerate(self.running):
            if number is None:
                continue
            observation, reward, terminated, truncated, info = self.envs[i].step(actions[i])
            self.last[i] = observation
            self.episodes[number].add(observation, float(reward), info)
            if terminated or truncated:
                self._start(i)
                ended += 1
        return ended

    def _start(self, i: int) -> None:
        number, seed = next(self.waiting, (None, 0))
        self.running[i] = number
        if number is not None:
            self.last[i], info = self.envs[i].reset(seed=seed)
            self.episodes[number] = Episode(self.last[i], info)


class _Member:
    """The episodes of one learner, in two groups of environments: ``group`` acts next."""

    def __init__(self, envs: list[gym.Env], seeds: Sequence[int], overlap: bool) -> None:
        self.episodes: dict[int, Episode] = {}
        self.rows = (len(envs) + 1) // 2 if overlap else len(envs)
        waiting = iter(enumerate(seeds))
        groups = [
            _Group(envs[i : i + self.rows], self.rows, waiting, self.episodes)
            for i in range(0, len(envs), self.rows)
        ]
        self.group, self.other = groups[0], groups[-1]

    def swap_groups(self) -> bool:
        """Swap the groups if there are two and the other has a running episode."""
        swap = self.other is not self.group and self.other.busy()
        if swap:
            self.group, self.other = self.other, self.group
        return swap


def run_episodes(
    learner: Any,
    method: str,
    envs: Sequence[list[gym.Env]],
    seeds: Sequence[int],
    *,
    stacked: bool = False,
    progress: bool = False,
    overlap: bool = True,
) -> list[list[Episode]]:
    """Run one episode per seed for each member; a free environment starts the next waiting one.

    The environments of a member form two groups. While a thread chooses the actions of one group of
    each member, this thread steps the others. A choice begins when the previous one has ended, with
    the learner that it returned, and one thread steps all environments in a fixed order. So the
    result depends on the learner, the seeds and the number of environments, and never on timing. A
    member's choices and steps have the same order as without the other members.

    Args:
        learner: one learner, or several stacked ones.
        method: name of the method that chooses actions for ``[E, ...]``, or for ``[K, E, ...]``.
        envs: the environments of each member, equally many.
        seeds: reset seeds of the episodes, the same for each member.
        stacked: whether ``learner`` holds ``K`` members; otherwise there is one.
        progress: show a progress bar over episodes.
        overlap: use two groups and a thread; otherwise one group per member and no thread.

    Returns:
        The episodes of each member, in the order of the seeds.

    >>> class Rest:
    ...     def eval_actions(self, observations):
    ...         return np.zeros((len(observations), 2), np.float32), self
    >>> from idql_func.envs import make_env
    >>> envs = [make_env("pointmaze-umaze-builtin") for _ in range(3)]
    >>> [episodes] = run_episodes(Rest(), "eval_actions", [envs], [0] * 3)
    >>> [episode.length for episode in episodes]
    [300, 300, 300]
    """
    members = [_Member(own, seeds, overlap) for own in envs]
    total = len(members) * len(seeds)

    def start_choice() -> Callable[[], _Actions]:
        observations = [m.group.observations() for m in members]
        batch = stack_observations(observations) if stacked else observations[0]
        act = getattr(learner, method)

        def choose() -> _Actions:
            actions, following = act(batch)
            per_member = actions if stacked else [actions]
            checked = [check_actions(a, m.rows) for a, m in zip(per_member, members, strict=True)]
            return checked, following

        return start(choose)

    with (
        _starter(in_thread=overlap and len(envs[0]) > 1) as start,
        tqdm(total=total, disable=not progress, desc="evaluating", unit="episode") as bar,
    ):
        choice = start_choice()
        while any(m.group.busy() for m in members):
            actions, learner = choice()
            deferred: list[tuple[_Group, NDArray[Any]]] = []
            for member, own in zip(members, actions, strict=True):
                group = member.group
                if member.swap_groups():
                    deferred.append((group, own))
                else:  # the same group acts next, on the result of this step
                    bar.update(group.step(own))
            if any(m.group.busy() for m in members):
                choice = start_choice()
            for group, own in deferred:
                bar.update(group.step(own))
    return [[m.episodes[number] for number in range(len(seeds))] for m in members]


@contextmanager
def _starter(
    in_thread: bool,
) -> Iterator[Callable[[Callable[[], _Actions]], Callable[[], _Actions]]]:
    """Yield a function that starts a call and returns a function that waits for its result."""
    if not in_thread:
        yield lambda call: call
        return
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, "idql_func-acting") as pool:
        yield lambda call: pool.submit(context.run, with_current_switches(call)).result


def stack_observations(observations: Sequence[Any]) -> Any:
    """Stack observations ``[...]``, nested or not, to ``[E, ...]``, with float64 as float32.

    >>> stack_observations([{"state": np.zeros(2)}, {"state": np.ones(2)}])["state"].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    if isinstance(observations[0], dict):
        return {k: stack_observations([o[k] for o in observations]) for k in observations[0]}
    return np.stack([as_float32(observation) for observation in observations])


def as_float32(observation: Any) -> NDArray[Any]:
    """Convert an observation to an array, with float64 as float32.

    >>> as_float32([0.5, 1.0]).dtype
    dtype('float32')
    """
    array = np.asarray(observation)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def check_actions(actions: Any, count: int) -> NDArray[Any]:
    """Return a learner's actions ``[count, A]`` as a finite array.

    Raises:
        InputError: if they have another shape or are not finite.

    >>> check_actions([[0.5, 1.0]], 1).shape
    (1, 2)
    """
    actions = np.asarray(actions)
    if actions.ndim != 2 or actions.shape[0] != count:
        raise InputError(
            f"The learner returned actions of shape {actions.shape} for {count} observations; "
            f"expected [{count}, A]."
        )
    if not np.isfinite(actions).all():
        raise InputError(
            "The learner returned an action that is not finite; check its parameters for NaN."
        )
    return actions
