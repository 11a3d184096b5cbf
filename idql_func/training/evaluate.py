"""Evaluate a checkpoint: what ``idql evaluate`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idql_func.training.configs.options import check_at_least
from idql_func.training.configs.sizes import check_size
from idql_func.training.runs.checkpoint import find_checkpoint, load_checkpoint
from idql_func.training.runs.console import Reporter, returns_table
from idql_func.training.runs.directory import write_json
from idql_func.training.runs.results import Evaluator, for_numbers, plain_results
from idql_func.training.runtime.device import choose_device
from idql_func.training.runtime.matmul_precision import matmul_precision
from idql_func.training.task import check_spaces, environment_factory
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
        n: numbers of sampled actions per observation; default: 1 and the learner's own. For
            IDQL's learners only.
        episodes: how many for each N, in ``num_envs`` environments side by side.
        seed: seed of the environments.
        env: the environment's name; default: that of the run.
        device: ``"auto"`` takes a GPU if there is one.
        matmul: as for ``idql_func.training.runtime.matmul_precision.matmul_precision``.
        output: the JSON file; default: ``evaluation.json`` in the run's folder, or beside a
            checkpoint outside a run.

    Returns:
        The content of the JSON file: ``checkpoint, updates, env, seed, evaluation`` (N as a string,
        or ``"policy"`` for a learner without N, to ``return, return_std, length, …``),
        ``behaviour``.

    Raises:
        InputError: a number out of range, no such device, an N for a learner that has none, a
            damaged checkpoint, or an environment with other spaces.
        FileNotFoundError: there is no checkpoint.
    """
    reporter = reporter if reporter is not None else Reporter()
    check_at_least(1, episodes=episodes, n=min(n) if n else None, num_envs=num_envs)
    check_at_least(0, seed=seed)
    for count in n or ():
        check_size("n", count, 16, "candidates")
    check_size("episodes", episodes, 64, "episodes")
    check_size("num_envs", num_envs or 1, 10_000, "environments")
    where = choose_device(device)
    folder = find_checkpoint(checkpoint)
    learner, metadata = load_checkpoint(folder, device=where)
    env_name = env or metadata.extra.get("env")
    if not env_name:
        raise InputError(f"{folder} names no environment; name one with --env")
    factory = environment_factory(str(env_name), metadata.extra.get("pixels"))
    spaces = metadata.observation_space, metadata.action_space
    check_spaces(factory(), str(env_name), spaces, "the policy")
    numbers = _numbers(learner, n)

    reporter.stage(f"{folder}: {type(learner).__name__} after {metadata.updates:,} updates")
    reporter.stage(f"{episodes} episodes in {env_name}{for_numbers(numbers)}")
    score_name = metadata.extra.get("score_name") if env is None else None
    evaluator = Evaluator(factory, seed, num_envs, score_name)
    with matmul_precision(matmul, device=where) as choice:
        reporter.detail(f"matrix products: {choice.reason}")
        [results] = evaluator.run_each(learner, numbers, episodes, reporter)
    behaviour = metadata.extra.get("behaviour") if env is None else None
    reporter.table(returns_table(results, behaviour=behaviour, title=str(env_name)))
    summary = {
        "checkpoint": str(folder),
        "updates": metadata.updates,
        "env": str(env_name),
        "seed": seed,
        "behaviour": behaviour,
        "evaluation": plain_results(results),
    }
    path = Path(output) if output is not None else _default_output(folder)
    write_json(path, summary)
    reporter.detail(f"written to {path}")
    return summary


def _numbers(learner: Any, n: Sequence[int] | None) -> tuple[int | None, ...]:
    if not hasattr(learner, "N"):
        if n:
            raise InputError(
                f"n is given, but {type(learner).__name__} does not choose among several actions; "
                "omit --n"
            )
        return (None,)
    return tuple(n) if n else tuple(sorted({1, int(learner.N)}))


def _default_output(folder: Path) -> Path:
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent
    return run / "evaluation.json"
