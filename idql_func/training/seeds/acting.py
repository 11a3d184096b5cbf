"""Evaluation of the members of a group in one program."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idql_func.evaluation import environments_at_once, evaluate_members
from idql_func.training.runs.results import Evaluator
from idql_func.training.runtime.device import eager_on_cpu
from idql_func.training.seeds.memory import available_memory, peak_bytes_of_fake
from idql_func.training.seeds.stack import stack_members
from idql_func.transforms import jit, vmap
from idql_func.tree import tree_map
from idql_func.types import PRNGKey

__all__ = ["StackEvaluator", "StackedActor", "acting_memory", "members_at_once"]

_CPU_ROWS = 4096
"""Rows of a product above which more rows are no faster on a CPU.

The layers' values then no longer fit into its caches: four members with 2,048 rows each act at 0.8
times the speed of one after the other, with 10 rows at 1.6 times.
"""
_MOST_ENVS = 512
"""Environments of all members at a time; each needs the memory of a simulator."""


@dataclass(frozen=True)
class StackedActor:
    """Stacked learners that act together, with ``count`` candidates if they have such a number."""

    stacked: Any
    count: int | None = None

    @property
    def obs_dim(self) -> Any:
        """The size of the members' observations."""
        return self.stacked.obs_dim

    @property
    def act_dim(self) -> int:
        """The size of their actions."""
        return self.stacked.act_dim

    def eval_actions(self, observations: np.ndarray) -> tuple[np.ndarray, StackedActor]:
        """The members' ``eval_actions`` in one program, ``[K, E, O]`` to ``[K, E, A]``.

        >>> import gymnasium as gym
        >>> from idql_func import disable_jit
        >>> from idql_func.agents import BCLearner
        >>> space = gym.spaces.Box(-1, 1, (2,))
        >>> stacked, _ = stack_members([BCLearner.create(seed, space, space) for seed in (2, 3)])
        >>> with disable_jit():
        ...     actions, _ = StackedActor(stacked).eval_actions(np.zeros((2, 5, 2)))
        >>> actions.shape
        (2, 5, 2)
        """
        inputs = torch.as_tensor(observations).to(
            dtype=self.stacked.float_dtype, device=self.stacked.rng.device
        )
        actions, keys = _greedy_actions(self.stacked, inputs, count=self.count)
        return actions.cpu().numpy(), dataclasses.replace(
            self, stacked=self.stacked.replace(rng=keys)
        )


@functools.partial(jit, static_argnames="count")
def _greedy_actions(
    stacked: Any, observations: Tensor, *, count: int | None
) -> tuple[Tensor, PRNGKey]:
    def member(learner: Any, observations: Tensor) -> tuple[Tensor, PRNGKey]:
        own = learner if count is None else learner.replace(N=count)
        return own.greedy_actions(observations)

    return vmap(member)(stacked, observations)


@dataclass(frozen=True)
class StackEvaluator(Evaluator):
    """Evaluates the members of a stack side by side.

    ``memory`` maps the number of candidates to the bytes that one member needs to choose actions.
    """

    memory: Mapping[int | None, int] = field(default_factory=dict)

    def run_members(
        self, learner: Any, n: int | None, episodes: int, record: bool = False
    ) -> list[dict[str, Any]]:
        """Evaluate each of the stacked members, with the results of the member alone."""
        environments = environments_at_once(episodes, self.num_envs)
        at_once = members_at_once(environments, n, self.memory[n], learner.rng.device)
        results = []
        for part in _parts(learner.to_act(), at_once):
            with eager_on_cpu(part.rng.device):
                results += evaluate_members(
                    StackedActor(part, n),
                    part.rng.shape[0],
                    self.make_env,
                    episodes,
                    seed=self.seed,
                    num_envs=self.num_envs,
                    record_trajectories=record,
                    score_name=self.score_name,
                )
        return results


def members_at_once(environments: int, n: int | None, each: int, device: torch.device) -> int:
    """How many members act in one program: few large ones on a CPU, all that fit elsewhere.

    Args:
        environments: of one member; half of them act together.
        n: the number of candidates; None: the learners have no such number.
        each: bytes that one member needs to choose actions.
        device: where they act.

    >>> cpu = torch.device("cpu")
    >>> [members_at_once(10, n, 1, cpu) for n in (None, 64, 1000)]
    [51, 12, 1]
    """
    most = _MOST_ENVS // environments
    free = available_memory(device)
    if free is not None:
        most = min(most, free // max(1, each))
    if device.type == "cpu":
        most = min(most, _CPU_ROWS // (-(-environments // 2) * (n or 1)))
    return max(1, most)


def acting_memory(learner: Any, rows: int, n: int | None) -> int:
    """Bytes that one member needs to choose actions, in ``rows`` environments together.

    ``n`` is the number of candidates, None for a learner that has no such number.

    >>> import gymnasium as gym
    >>> from idql_func.agents import BCLearner
    >>> space = gym.spaces.Box(-1, 1, (2,))
    >>> learner = BCLearner.create(0, space, space, hidden_dims=(8,))
    >>> acting_memory(learner, 1, None) < acting_memory(learner, 10, None)
    True
    """
    stacked, _ = stack_members([learner])

    def act(fake: Any) -> Any:
        device = learner.rng.device
        seen = torch.empty(1, rows, learner.obs_dim, dtype=learner.float_dtype, device=device)
        return _greedy_actions(fake, seen, count=n)

    return peak_bytes_of_fake(act, stacked.to_act())


def _parts(stacked: Any, size: int) -> list[Any]:
    """The stack divided into stacks of at most ``size`` members."""
    members = stacked.rng.shape[0]
    return [tree_map(lambda x, i=i: x[i : i + size], stacked) for i in range(0, members, size)]
