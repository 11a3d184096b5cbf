"""Episodes of several environments at once, stepped while the next actions are being chosen."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from idql_func.types import InputError

Choice = tuple[Sequence[Any], Any]
"""Actions ``[E, A]`` of each member, and the learner with its next key."""

Chooser = Callable[[Any, Sequence[Any]], Choice]
"""A learner and the observations ``[E, ...]`` of each member to their actions."""


class Episode:
    """What one episode has gathered so far."""

    def __init__(self, observation: Any, info: dict[str, Any]) -> None:
        self.total = 0.0
        self.length = 0
        self.success = said(info)
        self.positions = [position(observation)]

    def add(self, observation: Any, reward: float, info: dict[str, Any]) -> None:
        self.total += float(reward)
        self.length += 1
        self.success = either(self.success, said(info))
        self.positions.append(position(observation))


def said(info: dict[str, Any]) -> bool | None:
    """Whether the environment speaks of success; None where it says nothing.

    >>> said({"is_success": 1.0}), said({})
    (True, None)
    """
    said = info.get("success", info.get("is_success"))
    return None if said is None else bool(said)


def either(one: bool | None, other: bool | None) -> bool | None:
    """Success so far and now, where either may be unknown.

    >>> either(None, False), either(True, None)
    (False, True)
    """
    return one if other is None else bool(one) or other


def position(observation: Any) -> NDArray[Any] | None:
    """The first two entries of an observation or of its ``"state"``, ``[2]``; None without one.

    >>> position({"state": [1.0, 2.0, 3.0]}).tolist()
    [1.0, 2.0]
    """
    state = observation.get("state") if isinstance(observation, dict) else observation
    return None if state is None else single(state)[:2].copy()


class _Group:
    """Environments that act together, each in its slot.

    ``rows`` is the size of the batch they are shown to the learner in, the same for all groups, so
    that one program is compiled for all. A slot without an environment repeats the last row; an
    environment with nothing left to do keeps its own.
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
        for slot in range(len(envs)):
            self._start(slot)

    def busy(self) -> bool:
        """Whether an episode is running."""
        return any(number is not None for number in self.running)

    def observations(self) -> Any:
        """The last observation of every slot, ``[rows, ...]``."""
        return stacked([*self.last, *[self.last[-1]] * (self.rows - len(self.last))])

    def step(self, actions: NDArray[Any]) -> int:
        """Step what is running, start what waits; how many episodes have ended."""
        ended = 0
        for slot, number in enumerate(self.running):
            if number is None:
                continue
            observation, reward, terminated, truncated, info = self.envs[slot].step(actions[slot])
            self.last[slot] = observation
            self.episodes[number].add(observation, float(reward), info)
            if terminated or truncated:
                self._start(slot)
                ended += 1
        return ended

    def _start(self, slot: int) -> None:
        number, seed = next(self.waiting, (None, 0))
        self.running[slot] = number
        if number is not None:
            self.last[slot], info = self.envs[slot].reset(seed=seed)
            self.episodes[number] = Episode(self.last[slot], info)


class _Member:
    """What is a learner's own where several are tried out side by side: its episodes.

    Its environments are two groups that take turns: ``group`` acts next, and then ``other``.
    """

    def __init__(self, envs: list[gym.Env], seeds: Sequence[int], overlap: bool) -> None:
        self.episodes: dict[int, Episode] = {}
        self.rows = (len(envs) + 1) // 2 if overlap else len(envs)
        waiting = iter(enumerate(seeds))
        groups = [
            _Group(envs[i : i + self.rows], self.rows, waiting, self.episodes)
            for i in range(0, len(envs), self.rows)
        ]
        self.group, self.other = groups[0], groups[-1]

    def pass_on(self) -> bool:
        """Make it the other group's turn, if there is one with an episode running."""
        ahead = self.other is not self.group and self.other.busy()
        if ahead:
            self.group, self.other = self.other, self.group
        return ahead


def run_episodes(
    learner: Any,
    choose: Chooser,
    envs: Sequence[list[gym.Env]],
    seeds: Sequence[int],
    progress: bool,
    overlap: bool = True,
) -> list[list[Episode]]:
    """Run each member's episode for each seed; a free environment takes the next one that waits.

    A member's environments form two groups that take turns: while a thread chooses the actions of
    one group of each member, the others are stepped here. The next choice begins when the last one
    has ended, with the learner that it gave, and all stepping is done by one thread in one order,
    so that the result depends on the learner, the seeds and the number of environments, and never
    on the timing. The order of a member's choices and steps is that which it has alone, whatever
    the others do. Without ``overlap`` there is one group each, and no thread is started.

    Args:
        learner: what ``choose`` takes.
        choose: see :func:`alone` and :func:`side_by_side`.
        envs: those of each member, as many for each.
        seeds: of the episodes, the same for each member.
        progress: show a bar over episodes.
        overlap: see above.

    Returns:
        Each member's episodes, in the order of the seeds.

    >>> class Rest:
    ...     def eval_actions(self, observations):
    ...         return np.zeros((len(observations), 2), np.float32), self
    >>> from idql_func.envs import make_env
    >>> envs = [make_env("pointmaze-umaze-builtin") for _ in range(3)]
    >>> [episodes] = run_episodes(Rest(), alone("eval_actions"), [envs], [0] * 3, False)
    >>> [episode.length for episode in episodes]
    [300, 300, 300]
    """
    members = [_Member(own, seeds, overlap) for own in envs]
    total = len(members) * len(seeds)

    def choice_of(learner: Any, observations: Sequence[Any]) -> Choice:
        actions, learner = choose(learner, observations)
        each = [checked_actions(own, m.rows) for own, m in zip(actions, members, strict=True)]
        return each, learner

    def begin_next() -> Callable[[], Choice]:
        return begin(partial(choice_of, learner, [m.group.observations() for m in members]))

    with (
        _beginner(in_thread=overlap and len(envs[0]) > 1) as begin,
        tqdm(total=total, disable=not progress, desc="evaluating", unit="episode") as bar,
    ):
        choice = begin_next()
        while any(m.group.busy() for m in members):
            actions, learner = choice()
            meanwhile: list[tuple[_Group, NDArray[Any]]] = []
            for member, own in zip(members, actions, strict=True):
                group = member.group
                if member.pass_on():
                    meanwhile.append((group, own))
                else:  # what it does next depends on this step
                    bar.update(group.step(own))
            if any(m.group.busy() for m in members):
                choice = begin_next()
            for group, own in meanwhile:
                bar.update(group.step(own))
    return [[m.episodes[number] for number in range(len(seeds))] for m in members]


def alone(method: str) -> Chooser:
    """The choice of one learner by a method that takes ``[E, ...]``."""

    def choose(learner: Any, observations: Sequence[Any]) -> Choice:
        actions, learner = getattr(learner, method)(observations[0])
        return [actions], learner

    return choose


def side_by_side(method: str) -> Chooser:
    """The choice of ``K`` learners in one by a method that takes ``[K, E, ...]``."""

    def choose(learner: Any, observations: Sequence[Any]) -> Choice:
        return getattr(learner, method)(stacked(observations))

    return choose


@contextmanager
def _beginner(in_thread: bool) -> Iterator[Callable[[Callable[[], Choice]], Callable[[], Choice]]]:
    """Gives a function that begins a call, and returns one that waits for its result."""
    if not in_thread:
        yield lambda call: call
        return
    context = contextvars.copy_context()  # switches such as disable_jit hold in the thread too
    with ThreadPoolExecutor(1, "idql_func-acting") as pool:
        yield lambda call: pool.submit(context.run, call).result


def stacked(observations: Sequence[Any]) -> Any:
    """``[...]`` each -> ``[E, ...]``, inside of dicts too, float64 as float32.

    >>> stacked([{"state": np.zeros(2)}, {"state": np.ones(2)}])["state"].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    if isinstance(observations[0], dict):
        return {name: stacked([o[name] for o in observations]) for name in observations[0]}
    return np.stack([single(observation) for observation in observations])


def single(observation: Any) -> NDArray[Any]:
    """An observation as an array, float64 as float32.

    >>> single([0.5, 1.0]).dtype
    dtype('float32')
    """
    array = np.asarray(observation)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def checked_actions(actions: Any, count: int) -> NDArray[Any]:
    """A learner's actions ``[count, A]`` as a finite array.

    Raises:
        InputError: they have another shape, or are not finite.

    >>> checked_actions([[0.5, 1.0]], 1).shape
    (1, 2)
    """
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
