"""Settings that several commands have, and checks of values.

This module imports neither torch nor the learners, so that the command line answers at once.
"""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import tyro

from idql_func.errors import InputError
from idql_func.training.configs.sizes import check_sizes

__all__ = [
    "AtLeast",
    "Device",
    "EvaluationOptions",
    "Matmul",
    "NotNegative",
    "Positive",
    "RunConfig",
    "RunsDir",
    "Threads",
    "check_at_least",
    "check_name",
    "check_numbers",
    "check_threads",
]

_THREADS_PER_CPU = 16


class AtLeast(NamedTuple):
    """The least value of a number, as a part of its type."""

    least: int


Positive: TypeAlias = Annotated[int, AtLeast(1)]
NotNegative: TypeAlias = Annotated[int, AtLeast(0)]

RunsDir: TypeAlias = Annotated[Path, tyro.conf.arg(help="Folder of all runs.")]

Device: TypeAlias = Annotated[
    str,
    tyro.conf.arg(
        help="Where to compute: 'cpu', 'cuda', 'cuda:1', ...; 'auto' takes a GPU if there is one."
    ),
]

Threads: TypeAlias = Annotated[
    NotNegative | None,
    tyro.conf.arg(
        help="CPU threads. None: torch's own default (OMP_NUM_THREADS). 0: one for each physical "
        "core that this process may use, fewer in a container with a CPU quota."
    ),
]

Matmul: TypeAlias = Annotated[
    Literal["auto", "strict", "bf16"],
    tyro.conf.arg(
        help="Matrix products on the CPU. 'auto' uses torch's oneDNN route if a test shows that "
        "its error is that of float32 and that it is not clearly slower; 'strict' never does. "
        "'bf16', also on a GPU, rounds the factors to bfloat16: about half the time on CPUs with "
        "bfloat16 units, an error of 3e-3 instead of 3e-7."
    ),
]


def check_at_least(least: int, **values: float | None) -> None:
    """Refuse a number below ``least``; None passes.

    Raises:
        InputError: if a value is too small, naming it.

    Example:
        >>> check_at_least(1, batch_size=0)
        Traceback (most recent call last):
        idql_func.errors.InputError: batch_size is 0, but must be at least 1
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise InputError(f"{name} is {value}, but must be at least {least}")


def check_numbers(settings: Any, prefix: str = "") -> None:
    """Refuse numbers below the least value of their type, NaN and infinite numbers, at any depth.

    A tuple of numbers with a least value must not be empty.

    Args:
        settings: a dataclass.
        prefix: what precedes a setting's name in messages, such as ``"dataset."``.

    Raises:
        InputError: if there is one, naming it.

    Example:
        >>> check_numbers(EvaluationOptions(num_envs=0), "evaluation.")
        Traceback (most recent call last):
        idql_func.errors.InputError: evaluation.num_envs is 0, but must be at least 1
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for f in dataclasses.fields(settings):
        name, value = prefix + f.name, getattr(settings, f.name)
        if dataclasses.is_dataclass(value):
            check_numbers(value, f"{name}.")
            continue
        least = _least_value(hints[f.name])
        if least is not None and value == ():
            raise InputError(f"{name} is empty, but must have at least one number")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"{name} is {number}, but must be a finite number")
            if least is not None:
                check_at_least(least, **{name: number})


def _least_value(hint: Any) -> int | None:
    """The least value in a type or in a part of it, such as a member of a union."""
    for part in (*getattr(hint, "__metadata__", ()), *typing.get_args(hint)):
        least = part.least if isinstance(part, AtLeast) else _least_value(part)
        if least is not None:
            return least
    return None


def check_name(name: str | None) -> None:
    """Refuse a name of a run that is not a plain folder name.

    Raises:
        InputError: if it is empty, one or two dots, or contains a slash.

    Example:
        >>> check_name("a/b")
        Traceback (most recent call last):
        idql_func.errors.InputError: name is 'a/b', but must be a plain folder name
    """
    if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
        raise InputError(f"name is {name!r}, but must be a plain folder name")


def check_threads(count: int | None) -> None:
    """Refuse a number of threads that no machine of this size uses; None passes.

    Raises:
        InputError: if it is negative, or so large that the process could not make them.

    Example:
        >>> check_threads(100_000)
        Traceback (most recent call last):
        idql_func.errors.InputError: threads is 100000, but must be at most ...
    """
    check_at_least(0, threads=count)
    most = _THREADS_PER_CPU * (os.cpu_count() or 1)
    if count is not None and count > most:
        raise InputError(
            f"threads is {count}, but must be at most {most} on this machine; 0 takes one for each "
            "physical core"
        )


@dataclass(frozen=True)
class EvaluationOptions:
    """How the policy is evaluated, in separate environments (quirk E14).

    Attributes:
        interval: Steps of the run between evaluations.
        interval_episodes: Episodes of each evaluation during training.
        episodes: Episodes of the final evaluation.
        seed: Seed of the evaluation environments.
        num_envs: Environments that run side by side. None: one for each episode, up to a limit.
    """

    interval: Positive = 5_000
    interval_episodes: Positive = 10
    episodes: Positive = 50
    seed: NotNegative = 1_000
    num_envs: Positive | None = None


@dataclass(frozen=True)
class RunConfig:
    """The settings that every command that trains has.

    Attributes:
        seed: Seed of the learner, of the sampling of data and of the environment.
        log_interval: Steps between two records of the losses (updates of `idql train`, else
            actions).
        checkpoint_interval: Steps between two checkpoints, counted likewise. One is also written at
            the end and on Ctrl-C.
        keep_checkpoints: Number of checkpoints to keep, the newest. Of the replay buffer only the
            newest copy is kept.
        name: Name of the run's folder. None: <preset>-seed<seed>, with a number if that exists.
        preset: Name of the preset, which is part of the default name of the folder.
    """

    seed: NotNegative = 0
    log_interval: Positive = 1_000
    checkpoint_interval: Positive = 5_000
    keep_checkpoints: Positive = 2
    runs_dir: RunsDir = Path("runs")
    name: str | None = None
    preset: Annotated[str, tyro.conf.Suppress] = ""
    device: Device = "auto"
    threads: Threads = None
    matmul: Matmul = "auto"
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)

    def validate(self) -> None:
        """Check the values that the loop relies on; the learner checks its own keywords.

        Raises:
            InputError: if a value is out of range, naming the setting.
        """
        check_numbers(self)
        check_name(self.name)
        check_threads(self.threads)
        check_sizes(self)
