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

Choice = tuple[NDArray[Any], Any]
"""Actions ``[E, A]`` and the learner with its next key."""


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


def run_episodes(
    learner: Any,
    method: str,
    envs: list[gym.Env],
    seeds: list[int],
    progress: bool,
    overlap: bool = True,
) -> list[Episode]:
    """Run one episode for each seed; a free environment takes the next one that waits.

    Several environments form two groups that take turns: while a thread chooses the actions of one
    group, the other is stepped here. The next choice begins when the last one has ended, with the
    learner that it gave, and all stepping is done by one thread in one order, so that the result
    depends on the learner, the seeds and the number of environments, and never on the timing.
    Without ``overlap`` they are one group, and no thread is started.

    >>> class Rest:
    ...     def eval_actions(self, observations):
    ...         return np.zeros((len(observations), 2), np.float32), self
    >>> from idql_func.envs import make_env
    >>> envs = [make_env("pointmaze-umaze-builtin") for _ in range(3)]
    >>> [episode.length for episode in run_episodes(Rest(), "eval_actions", envs, [0] * 3, False)]
    [300, 300, 300]
    """
    waiting = iter(enumerate(seeds))
    episodes: dict[int, Episode] = {}
    rows = (len(envs) + 1) // 2 if overlap else len(envs)
    groups = [
        _Group(envs[i : i + rows], rows, waiting, episodes) for i in range(0, len(envs), rows)
    ]

    def choose(learner: Any, observations: Any) -> Choice:
        actions, learner = getattr(learner, method)(observations)
        return checked_actions(actions, rows), learner

    with (
        _beginner(in_thread=len(groups) > 1) as begin,
        tqdm(total=len(seeds), disable=not progress, desc="evaluating", unit="episode") as bar,
    ):
        group, other = groups[0], groups[-1]
        choice = begin(partial(choose, learner, group.observations()))
        while group.busy():
            actions, learner = choice()
            ahead = other is not group and other.busy()
            if ahead:
                choice = begin(partial(choose, learner, other.observations()))
            bar.update(group.step(actions))
            if ahead:
                group, other = other, group
            elif group.busy():
                choice = begin(partial(choose, learner, group.observations()))
    return [episodes[number] for number in range(len(seeds))]


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
