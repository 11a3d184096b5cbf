"""Options that several commands have, each with its help, and checks that they share.

This module imports neither torch nor the learners, so that the command line answers at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import tyro

from idql_func.errors import InputError
from idql_func.training.configs.field_help import field_help
from idql_func.training.configs.settings import flat_settings

__all__ = [
    "Device",
    "EvaluationOptions",
    "Matmul",
    "RunOptions",
    "RunsDir",
    "Threads",
    "check_at_least",
    "check_candidates",
    "check_finite",
    "check_name",
    "check_run",
]

RunsDir: TypeAlias = Annotated[Path, tyro.conf.arg(help="Folder of all runs.")]

Device: TypeAlias = Annotated[
    str,
    tyro.conf.arg(
        help="Where to compute: 'cpu', 'cuda', 'cuda:1', ...; 'auto' takes a GPU if there is one."
    ),
]

Threads: TypeAlias = Annotated[
    int | None,
    tyro.conf.arg(
        help="CPU threads. None: as many as torch takes by itself (OMP_NUM_THREADS); 0: one for "
        "each physical core that this process may use, fewer in a container with a quota or with "
        "two hardware threads to a core."
    ),
]

Matmul: TypeAlias = Annotated[
    Literal["auto", "strict", "bf16"],
    tyro.conf.arg(
        help="Matrix products on the CPU: 'auto' takes torch's oneDNN route if a probe shows that "
        "its error stays that of float32 and that it is not clearly slower; 'strict' never does. "
        "'bf16', here and on a GPU, rounds the factors to bfloat16: about half the time on CPUs "
        "with units for it, an error of 3e-3 in place of 3e-7."
    ),
]


def check_at_least(least: int, **values: int | None) -> None:
    """Refuse a number below the least; None is no number.

    Raises:
        InputError: the sentence names the option.

    Example:
        >>> check_at_least(1, batch_size=0)
        Traceback (most recent call last):
        idql_func.errors.InputError: batch_size is 0, but must be at least 1
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise InputError(f"{name} is {value}, but must be at least {least}")


def check_finite(settings: Any) -> None:
    """Refuse settings that hold a NaN or an infinite number, at any depth.

    Raises:
        InputError: if there is one; the sentence names it.

    Example:
        >>> check_finite(EvaluationOptions())
    """
    for name, value in flat_settings(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{name} is {value}, but must be a finite number")


def check_name(name: str | None) -> None:
    """Refuse a run's name that is no plain folder name.

    Raises:
        InputError: it is empty, a dot or two, or has a slash in it.

    Example:
        >>> check_name("a/b")
        Traceback (most recent call last):
        idql_func.errors.InputError: name is 'a/b', but must be a plain folder name
    """
    if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
        raise InputError(f"name is {name!r}, but must be a plain folder name")


def check_candidates(numbers: tuple[int, ...]) -> None:
    """Refuse numbers of sampled actions to evaluate with that are none or below 1.

    Raises:
        InputError: so; the sentence names the option.

    Example:
        >>> check_candidates((1, 0))
        Traceback (most recent call last):
        idql_func.errors.InputError: evaluation.N is 0, but must be at least 1
    """
    if not numbers:
        raise InputError("evaluation.N is empty, but must name at least one number of samples")
    check_at_least(1, **{"evaluation.N": min(numbers)})


@field_help
@dataclass(frozen=True)
class EvaluationOptions:
    """How the policy is tried out, in environments of its own (quirk E14)."""

    interval: int = 5_000
    """Steps of the run between evaluations."""
    interval_episodes: int = 10
    """Episodes of each evaluation on the way."""
    episodes: int = 50
    """Episodes of the evaluation at the end."""
    seed: int = 1_000
    """Seed of the evaluation environments."""
    num_envs: int | None = None
    """Environments that run side by side; None: as many as there are episodes, within reason."""

    def validate(self) -> None:
        """Check the numbers.

        Raises:
            InputError: one is out of range; the sentence names the option.

        Example:
            >>> EvaluationOptions(episodes=0).validate()
            Traceback (most recent call last):
            idql_func.errors.InputError: evaluation.episodes is 0, but must be at least 1
        """
        names = ("interval", "interval_episodes", "episodes", "num_envs")
        check_at_least(1, **{f"evaluation.{name}": getattr(self, name) for name in names})
        check_at_least(0, **{"evaluation.seed": self.seed})


class RunOptions(Protocol):
    """What the settings of every run that trains have."""

    @property
    def seed(self) -> int: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def log_interval(self) -> int: ...
    @property
    def checkpoint_interval(self) -> int: ...
    @property
    def keep_checkpoints(self) -> int: ...
    @property
    def name(self) -> str | None: ...
    @property
    def evaluation(self) -> EvaluationOptions: ...


def check_run(run: RunOptions) -> None:
    """Check the settings that every run has, those of its evaluation among them.

    Raises:
        InputError: a number is out of range or the name is none for a folder; the sentence names
            the option.
    """
    check_finite(run)
    check_at_least(
        1,
        log_interval=run.log_interval,
        checkpoint_interval=run.checkpoint_interval,
        keep_checkpoints=run.keep_checkpoints,
    )
    check_at_least(0, seed=run.seed, threads=run.threads)
    check_name(run.name)
    run.evaluation.validate()
