"""``idql evaluate``: returns of a trained policy, for several numbers of candidate actions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from idql_func.cli.options import parse_options
from idql_func.training.configs.options import Device, Matmul

__all__ = ["EvaluateOptions", "main", "parse"]


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a trained policy: mean returns, for IDQL with several numbers of candidates.

    Attributes:
        checkpoint: A run's folder, of which the newest checkpoint is evaluated, or one checkpoint.
        n: IDQL only: numbers of candidate actions. With N = 1 the critic has no influence. None: 1
            and the learner's own number.
        episodes: Episodes for each N.
        seed: Seed of the environments.
        num_envs: Environments that run side by side. None: one for each episode, up to a limit.
        env: Environment. None: the one that the policy was trained for.
        output: JSON file for the results. None: evaluation.json in the run's folder.
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN|CHECKPOINT")]
    n: tuple[int, ...] | None = None
    episodes: int = 50
    seed: int = 0
    num_envs: int | None = None
    env: str | None = None
    device: Device = "cpu"
    matmul: Matmul = "auto"
    output: Path | None = None


parse = functools.partial(parse_options, EvaluateOptions, "idql evaluate")
"""Parse the options; see :func:`parse_options`."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    from idql_func.training.evaluate import evaluate_checkpoint
    from idql_func.training.runs.console import Reporter

    keywords = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    evaluate_checkpoint(keywords.pop("checkpoint"), **keywords, reporter=Reporter())
    return 0
