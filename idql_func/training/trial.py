"""Try a checkpoint out: what ``idql evaluate`` does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym

from idql_func.evaluation import evaluate
from idql_func.training.checkpoint import find_checkpoint, load_checkpoint
from idql_func.training.eager import eagerly_on_cpu
from idql_func.training.matmul import matmul_precision
from idql_func.training.offline import plain_result
from idql_func.training.report import Reporter, duration, returns_table
from idql_func.training.rundir import write_json
from idql_func.training.task import environment_factory
from idql_func.types import InputError

__all__ = ["evaluate_checkpoint"]


def evaluate_checkpoint(
    checkpoint: str | Path,
    *,
    n: Sequence[int] | None = None,
    episodes: int = 50,
    seed: int = 0,
    num_envs: int | None = None,
    env: str | None = None,
    device: str = "cpu",
    matmul: str = "auto",
    output: str | Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Evaluate the policy of a checkpoint for several N, print a table and write a JSON file.

    Args:
        checkpoint: a run's folder (its newest checkpoint is taken) or one checkpoint.
        n: numbers of sampled actions per observation; default: 1 and the learner's own.
        episodes: episodes for each N.
        seed: seed of the environments.
        num_envs: environments side by side.
        env: the environment's name; default: that of the run.
        device: where to compute.
        matmul: as for ``idql_func.training.matmul.matmul_precision``.
        output: the JSON file; default: ``evaluation.json`` in the run's folder, or beside a
            checkpoint that lies alone.
        reporter: where to print.

    Returns:
        What stands in the JSON file: ``checkpoint, updates, env, seed, evaluation`` (N as a string
        to ``return, return_std, length, …``), ``behaviour``.

    Raises:
        InputError: a number below 1, a damaged checkpoint, or an environment that does not fit.
        FileNotFoundError: no checkpoint there.
    """
    reporter = reporter if reporter is not None else Reporter()
    for name, value in [("episodes", episodes), *[("n", number) for number in n or ()]]:
        if value < 1:
            raise InputError(f"{name} is {value}, but must be at least 1")
    if seed < 0:
        raise InputError(f"seed is {seed}, but must be 0 or more")
    folder = find_checkpoint(checkpoint)
    learner, metadata = load_checkpoint(folder, device=device)
    env_name = env or metadata.extra.get("env")
    if not env_name:
        raise InputError(f"{folder} names no environment; name one with --env")
    factory = environment_factory(str(env_name))
    _check_spaces(factory(), str(env_name), metadata.observation_space, metadata.action_space)
    numbers = tuple(n) if n else tuple(sorted({1, int(learner.N)}))

    reporter.stage(f"{folder}: {type(learner).__name__} after {metadata.updates:,} updates")
    reporter.stage(f"{episodes} episodes in {env_name} for N = {', '.join(map(str, numbers))}")
    results: dict[int, Mapping[str, Any]] = {}
    score_name = metadata.extra.get("score_name") if env is None else None
    with matmul_precision(matmul, device=device) as choice:
        reporter.detail(f"matrix products: {choice.reason}")
        for number in numbers:
            started = time.monotonic()
            with reporter.console.status(f"N = {number} …"), eagerly_on_cpu(learner.rng.device):
                results[number] = evaluate(
                    learner.replace(N=number),
                    factory,
                    episodes,
                    seed=seed,
                    num_envs=num_envs,
                    score_name=score_name,
                )
            took = duration(time.monotonic() - started)
            reporter.detail(f"N = {number}: return {results[number]['return']:.1f} ({took})")
    behaviour = metadata.extra.get("behaviour") if env is None else None
    reporter.table(returns_table(results, behaviour=behaviour, title=str(env_name)))
    summary = {
        "checkpoint": str(folder),
        "updates": metadata.updates,
        "env": str(env_name),
        "seed": seed,
        "behaviour": behaviour,
        "evaluation": {str(number): plain_result(result) for number, result in results.items()},
    }
    path = Path(output) if output is not None else _default_output(folder)
    write_json(path, summary)
    reporter.detail(f"written to {path}")
    return summary


def _default_output(folder: Path) -> Path:
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent
    return run / "evaluation.json"


def _check_spaces(
    env: gym.Env, name: str, observation: gym.spaces.Box, action: gym.spaces.Box
) -> None:
    shapes = env.observation_space.shape, env.action_space.shape
    env.close()
    for what, have, want in zip(
        ("observations", "actions"), shapes, (observation.shape, action.shape), strict=True
    ):
        if have != want:
            raise InputError(
                f"the environment {name} has {what} of the shape {have}, but the policy was "
                f"trained for {want}"
            )
