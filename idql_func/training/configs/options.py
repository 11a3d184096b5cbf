"""Settings that several commands have, and checks of values.

This module imports neither torch nor the learners, so that the command line answers at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import tyro

from idql_func.errors import InputError
from idql_func.training.configs.settings import flat_settings

__all__ = [
    "Device",
    "EvaluationOptions",
    "Matmul",
    "RunConfig",
    "RunsDir",
    "Threads",
    "check_at_least",
    "check_candidates",
    "check_finite",
    "check_name",
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


def check_at_least(least: int, **values: int | None) -> None:
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


def check_finite(settings: Any) -> None:
    """Refuse settings with a NaN or an infinite number, at any depth.

    Raises:
        InputError: if there is one, naming it.

    Example:
        >>> check_finite(EvaluationOptions())
    """
    for name, value in flat_settings(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{name} is {value}, but must be a finite number")


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


def check_candidates(numbers: tuple[int, ...]) -> None:
    """Refuse an empty list of numbers of candidate actions, or a number below 1.

    Raises:
        InputError: if it is empty or a number is too small.

    Example:
        >>> check_candidates((1, 0))
        Traceback (most recent call last):
        idql_func.errors.InputError: evaluation.N is 0, but must be at least 1
    """
    if not numbers:
        raise InputError("evaluation.N is empty, but must name at least one number of samples")
    check_at_least(1, **{"evaluation.N": min(numbers)})


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

    interval: int = 5_000
    interval_episodes: int = 10
    episodes: int = 50
    seed: int = 1_000
    num_envs: int | None = None

    def validate(self) -> None:
        """Check the numbers.

        Raises:
            InputError: if one is out of range, naming it.

        Example:
            >>> EvaluationOptions(episodes=0).validate()
            Traceback (most recent call last):
            idql_func.errors.InputError: evaluation.episodes is 0, but must be at least 1
        """
        names = ("interval", "interval_episodes", "episodes", "num_envs")
        check_at_least(1, **{f"evaluation.{name}": getattr(self, name) for name in names})
        check_at_least(0, **{"evaluation.seed": self.seed})


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

    seed: int = 0
    log_interval: int = 1_000
    checkpoint_interval: int = 5_000
    keep_checkpoints: int = 2
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
        check_finite(self)
        intervals = ("log_interval", "checkpoint_interval", "keep_checkpoints")
        check_at_least(1, **{name: getattr(self, name) for name in intervals})
        check_at_least(0, seed=self.seed, threads=self.threads)
        check_name(self.name)
        self.evaluation.validate()
