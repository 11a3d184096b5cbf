"""``idql evaluate``: a checkpoint in its environment, for several N."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from idql_func.training.configs.options import Device, Matmul

__all__ = ["EvaluateOptions", "main"]


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a trained policy: mean returns, for IDQL with several numbers of candidates."""

    checkpoint: tyro.conf.Positional[Path]
    """A run's folder (its newest checkpoint is taken) or one checkpoint."""
    n: tuple[int, ...] | None = None
    """IDQL only: numbers of sampled actions; N = 1 is the actor without the critic's choice.
    None: 1 and the learner's own."""
    episodes: int = 50
    """Episodes for each N."""
    seed: int = 0
    """Seed of the environments."""
    num_envs: int | None = None
    """Environments that run side by side; None: as many as is sensible."""
    env: str | None = None
    """Environment. None: the one the policy was trained for."""
    device: Device = "cpu"
    matmul: Matmul = "auto"
    output: Path | None = None
    """JSON file for the results. None: evaluation.json beside the checkpoints."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status."""
    options = tyro.cli(EvaluateOptions, prog="idql evaluate", args=list(arguments))
    from idql_func.training.evaluate import evaluate_checkpoint
    from idql_func.training.runs.console import Reporter

    evaluate_checkpoint(
        options.checkpoint,
        n=options.n,
        episodes=options.episodes,
        seed=options.seed,
        num_envs=options.num_envs,
        env=options.env,
        device=options.device,
        matmul=options.matmul,
        output=options.output,
        reporter=Reporter(),
    )
    return 0
