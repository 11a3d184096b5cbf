"""Losses and evaluations: computed, fetched from the device, and put into records and summaries."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from idql_func.evaluation import evaluate
from idql_func.training.runs.console import Reporter, TrainingBar, duration, policy_name
from idql_func.training.runtime.device import eager_on_cpu

__all__ = [
    "Evaluator",
    "Results",
    "evaluation_record",
    "fetch_losses",
    "for_numbers",
    "mean_return",
    "not_numbers",
    "plain_result",
    "plain_results",
]


Results = Mapping[int | None, Mapping[str, Any]]
"""The number of candidates (None for a learner without one) -> its evaluation."""


@dataclass(frozen=True)
class Evaluator:
    """Evaluates learners in environments of its own, always with the same seeds.

    ``seed, num_envs, score_name`` are as for :func:`idql_func.evaluation.evaluate`.
    """

    make_env: Callable[[], gym.Env]
    seed: int
    num_envs: int | None = None
    score_name: str | None = None

    def run(
        self, learner: Any, n: int | None, episodes: int, record: bool = False
    ) -> dict[str, Any]:
        """Evaluate with ``n`` candidates (None: the learner has no such number).

        A copy with its own N is evaluated, and the key that evaluation advances is dropped with it,
        so evaluation does not change the training (E8, E10).
        """
        with eager_on_cpu(learner.rng.device):
            return evaluate(
                learner if n is None else learner.replace(N=n),
                self.make_env,
                episodes,
                seed=self.seed,
                num_envs=self.num_envs,
                record_trajectories=record,
                score_name=self.score_name,
            )

    def run_members(
        self, learner: Any, n: int | None, episodes: int, record: bool = False
    ) -> list[dict[str, Any]]:
        """Evaluate each member of ``learner``, here itself alone."""
        return [self.run(learner, n, episodes, record)]

    def run_each(
        self,
        learner: Any,
        candidates: Sequence[int | None],
        episodes: int,
        reporter: Reporter,
        *,
        record: Callable[[int | None], bool] = lambda n: False,
        bar: TrainingBar | None = None,
    ) -> list[Results]:
        """Evaluate each member with each number of candidates.

        Trajectories are kept for the numbers that ``record`` names. ``bar`` is the progress bar of
        a loop that evaluates between two updates; without one ``reporter`` prints each return.
        """
        found: list[dict[int | None, dict[str, Any]]] = []
        for n in candidates:
            started, name = time.monotonic(), policy_name(n)
            busy: AbstractContextManager[Any] = (
                reporter.console.status(f"{name} …")
                if bar is None
                else bar.busy(f"evaluating {name}, {episodes} episodes")
            )
            with busy:
                results = self.run_members(learner, n, episodes, record(n))
            found = found or [{} for _ in results]
            for own, result in zip(found, results, strict=True):
                own[n] = result
            if bar is None:
                what = "return" if len(results) == 1 else "mean return"
                took = duration(time.monotonic() - started)
                reporter.detail(f"{name}: {what} {mean_return(found, n):.1f} ({took})")
        return list(found)


def mean_return(results: Sequence[Results], n: int | None) -> float:
    """The mean over the members of the return with ``n`` candidates.

    Example:
        >>> mean_return([{1: {"return": 2.0}}, {1: {"return": 4.0}}], 1)
        3.0
    """
    return sum(own[n]["return"] for own in results) / len(results)


def evaluation_record(results: Results) -> dict[str, Any]:
    """Evaluations as entries of a log record, such as ``eval/N=64/return``.

    Example:
        >>> result = {"return": 3.0, "return_std": 2.0, "length": 5.0, "episodes": 4}
        >>> evaluation_record({None: result})["eval/return_std_error"]
        1.0
    """
    record: dict[str, Any] = {}
    for n, result in results.items():
        prefix = "eval" if n is None else f"eval/N={n}"
        for name in ("return", "return_std", "length", "success", "normalized_score"):
            if result.get(name) is not None:
                record[f"{prefix}/{name}"] = float(result[name])
        error = float(result["return_std"]) / max(int(result["episodes"]), 1) ** 0.5
        record[f"{prefix}/return_std_error"] = error
        record[f"{prefix}/episodes"] = int(result["episodes"])
    return record


def fetch_losses(groups: Mapping[str, Mapping[str, torch.Tensor]]) -> list[dict[str, float]]:
    """Losses from the device in one transfer, under ``group/name``, for each member.

    Args:
        groups: group -> name -> scalar, or ``[K]`` for K members.

    Example:
        >>> fetch_losses({"train": {"q": torch.tensor(2.0)}})
        [{'train/q': 2.0}]
        >>> fetch_losses({"train": {"q": torch.tensor([2.0, 3.0])}})
        [{'train/q': 2.0}, {'train/q': 3.0}]
    """
    names = [f"{group}/{name}" for group, info in groups.items() for name in info]
    values = [value for info in groups.values() for value in info.values()]
    stacked = torch.stack([value.detach().to(torch.float64).reshape(-1) for value in values])
    return [dict(zip(names, member, strict=True)) for member in stacked.T.tolist()]


def not_numbers(record: Mapping[str, Any]) -> list[str]:
    """The entries of a record that are NaN.

    Example:
        >>> not_numbers({"train/q": float("nan"), "step": 3})
        ['train/q']
    """
    return [k for k, v in record.items() if isinstance(v, float) and math.isnan(v)]


def for_numbers(numbers: Sequence[int | None]) -> str:
    """The end of a line about an evaluation.

    Example:
        >>> for_numbers((1, 64)), for_numbers((None,))
        (' for N = 1, 64', '')
    """
    return "" if None in numbers else f" for N = {', '.join(map(str, numbers))}"


def plain_results(results: Results) -> dict[str, Any]:
    """Evaluations for JSON, by N as a string, or ``"policy"`` for a learner without N.

    Example:
        >>> plain_results({64: {"return": 1.0}}), list(plain_results({None: {"return": 1.0}}))
        ({'64': {'return': 1.0}}, ['policy'])
    """
    return {
        policy_name(n) if n is None else str(n): plain_result(result)
        for n, result in results.items()
    }


def plain_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation for JSON, without its trajectories.

    Example:
        >>> plain_result({"returns": np.ones(2), "trajectories": []})
        {'returns': [1.0, 1.0]}
    """
    plain: dict[str, Any] = {}
    for name, value in result.items():
        if name == "trajectories":
            continue
        if isinstance(value, list | tuple | np.ndarray):
            plain[name] = [float(item) for item in np.asarray(value).ravel()]
        elif isinstance(value, bool | int | str) or value is None:
            plain[name] = value
        else:
            plain[name] = float(value)
    return plain
