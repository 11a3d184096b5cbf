"""``idql evaluate``: returns of a trained policy, for several numbers of candidate actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from idql_func.cli.options import parse_options
from idql_func.training.configs.field_help import field_help
from idql_func.training.configs.options import Device, Matmul

__all__ = ["EvaluateOptions", "main", "parse"]


@field_help
@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a trained policy: mean returns, for IDQL with several numbers of candidates."""

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN|CHECKPOINT")]
    """A run's folder, of which the newest checkpoint is evaluated, or one checkpoint."""
    n: tuple[int, ...] | None = None
    """IDQL only: numbers of candidate actions. With N = 1 the critic has no influence. None: 1 and
    the learner's own number."""
    episodes: int = 50
    """Episodes for each N."""
    seed: int = 0
    """Seed of the environments."""
    num_envs: int | None = None
    """Environments that run side by side. None: one for each episode, up to a limit."""
    env: str | None = None
    """Environment. None: the one that the policy was trained for."""
    device: Device = "cpu"
    matmul: Matmul = "auto"
    output: Path | None = None
    """JSON file for the results. None: evaluation.json in the run's folder."""


def parse(arguments: Sequence[str]) -> EvaluateOptions:
    """Parse the options.

    Raises:
        SystemExit: if help was requested (0), or an option is unknown or has an invalid value (2).

    Example:
        >>> parse(["runs/a", "--n", "1", "64"]).n
        (1, 64)
    """
    return parse_options(EvaluateOptions, "idql evaluate", arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    from idql_func.training.evaluate import evaluate_checkpoint
    from idql_func.training.runs.console import Reporter

    keywords = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    evaluate_checkpoint(keywords.pop("checkpoint"), **keywords, reporter=Reporter())
    return 0
