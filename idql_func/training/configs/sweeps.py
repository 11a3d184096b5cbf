"""Grids of settings, one run for each cell and seed, after ``launcher/hyperparameters.py``.

A cell is a list of command-line options, so that every command can be swept and every line can be
copied and run alone. Upstream replaces the seeds of a sweep by unseeded random ones (quirk L6) and
empties the caller's dictionary (L7); this module does neither.
"""

from __future__ import annotations

import itertools
import shlex
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from idql_func.errors import InputError

__all__ = [
    "LAUNCHERS",
    "Axis",
    "Cell",
    "Sweep",
    "axis_label",
    "cells_of",
    "over_seeds",
    "parse_axis",
]


@dataclass(frozen=True)
class Axis:
    """An option of a command, without its dashes, and its values in the sweep."""

    option: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """A preset of a command and its axes; every combination of their values is a cell."""

    command: str
    preset: str
    axes: tuple[Axis, ...] = ()
    seeds: int = 1


@dataclass(frozen=True)
class Cell:
    """One run.

    Example:
        >>> Cell("train", "bc", (("learner.dropout-rate", "0.1"),), seed=3, name="bc-seed3").line
        'idql train bc --learner.dropout-rate 0.1 --seed 3 --name bc-seed3'
    """

    command: str
    preset: str
    settings: tuple[tuple[str, str], ...]
    seed: int
    name: str

    @property
    def arguments(self) -> list[str]:
        """The arguments of the command; a value with spaces becomes several arguments."""
        chosen = [
            part for option, value in self.settings for part in (f"--{option}", *value.split())
        ]
        return [self.preset, *chosen, "--seed", str(self.seed), "--name", self.name]

    @property
    def line(self) -> str:
        """The command line of the run, for a shell."""
        return shlex.join(["idql", self.command, *self.arguments])

    @property
    def label(self) -> str:
        """The name without the seed: equal for cells that differ in the seed alone."""
        return self.name.rpartition("-seed")[0]


def parse_axis(text: str) -> Axis:
    """Parse an axis as it is written on the command line.

    Raises:
        InputError: if it does not have the form ``option=value,value,…``.

    Example:
        >>> parse_axis("learner.critic-hyperparam=0.7,0.9").values
        ('0.7', '0.9')
        >>> parse_axis("evaluation.N=1 64,256").values
        ('1 64', '256')
    """
    option, equals, values = text.partition("=")
    parts = tuple(value.strip() for value in values.split(","))
    if not equals or not option.strip("-") or not all(parts):
        raise InputError(
            f"the grid has {text!r}, but must be written like learner.critic-hyperparam=0.7,0.9"
        )
    option = option.strip("-")
    if option in ("seed", "name"):
        raise InputError(f"the grid has {option!r}, which the sweep sets itself; use --seeds")
    if len(set(parts)) < len(parts):
        raise InputError(f"the grid has a value twice in {text!r}; its runs would be the same")
    return Axis(option, parts)


def cells_of(sweeps: Iterable[Sweep], first_seed: int = 0) -> list[Cell]:
    """Return all runs of some sweeps; the seeds vary fastest.

    Raises:
        InputError: if there is no seed, an option has two axes, or runs would share a folder.

    Example:
        >>> axis = Axis("learner.expectile", ("0.7", "0.9"))
        >>> [cell.name for cell in cells_of([Sweep("train", "iql-mujoco", (axis,), seeds=2)])]
        ['iql-mujoco-expectile=0.7-seed0', 'iql-mujoco-expectile=0.7-seed1', \
'iql-mujoco-expectile=0.9-seed0', 'iql-mujoco-expectile=0.9-seed1']
    """
    cells = []
    for sweep in sweeps:
        if sweep.seeds < 1:
            raise InputError(f"seeds is {sweep.seeds}, but must be at least 1")
        options = [axis.option.replace("_", "-") for axis in sweep.axes]
        if len(set(options)) < len(options):
            raise InputError(f"the grid names an option twice, of {', '.join(options)}")
        varied = [axis.option for axis in sweep.axes if len(axis.values) > 1]
        for values in itertools.product(*(axis.values for axis in sweep.axes)):
            settings = tuple(zip((axis.option for axis in sweep.axes), values, strict=True))
            label = "-".join(
                [sweep.preset, *(axis_label(o, v) for o, v in settings if o in varied)]
            )
            for seed in range(first_seed, first_seed + sweep.seeds):
                name = f"{label}-seed{seed}"
                cells.append(Cell(sweep.command, sweep.preset, settings, seed, name))
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise InputError("two runs of the sweep would have the same name")
    return cells


def over_seeds(
    cells: Iterable[Cell], summaries: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, float, float | None, int]]:
    """Average the final returns over the seeds of each cell.

    Args:
        cells: the runs.
        summaries: the content of ``summary.json`` of the finished ones, by the runs' names.

    Returns:
        Rows ``(label, policy, mean, standard error, number of seeds)``; the policy is N or
        ``"policy"``, the error None for a single seed.

    Example:
        >>> cells = cells_of([Sweep("train", "bc", seeds=2)])
        >>> over_seeds(cells, {cell.name: {"evaluation": {"policy": {"return": float(cell.seed)}}}
        ...                    for cell in cells})
        [('bc', 'policy', 0.5, 0.5, 2)]
    """
    returns: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        for policy, result in summaries.get(cell.name, {}).get("evaluation", {}).items():
            returns.setdefault((cell.label, policy), []).append(float(result["return"]))
    rows = []
    for (label, policy), values in returns.items():
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
        rows.append((label, policy, statistics.fmean(values), error, len(values)))
    return rows


def axis_label(option: str, value: str) -> str:
    """Return the part of a run's name that stands for a setting.

    Example:
        >>> axis_label("learner.critic-hyperparam", "0.9")
        'critic-hyperparam=0.9'
    """
    plain = value.replace("/", "_").replace("\\", "_").replace(" ", "+")
    return f"{option.rpartition('.')[2]}={plain}"


_LOCOMOTION = tuple(
    f"{body}-{data}-v2"
    for body in ("walker2d", "halfcheetah", "hopper")
    for data in ("medium", "medium-replay", "medium-expert")
)
_ANTMAZE = (
    "antmaze-umaze",
    "antmaze-umaze-diverse",
    "antmaze-medium-diverse",
    "antmaze-medium-play",
    "antmaze-large-diverse",
    "antmaze-large-play",
)
_MAZE2D = ("maze2d-umaze-v1", "maze2d-medium-v1", "maze2d-large-v1")


def _antmaze(version: int) -> tuple[str, ...]:
    return tuple(f"{name}-v{version}" for name in _ANTMAZE)


_SOURCE = "dataset.source"
_TEMPERATURE = Axis("learner.temperature", ("3", "6.5", "10"))

LAUNCHERS: Mapping[str, tuple[Sweep, ...]] = MappingProxyType(
    {
        "train_ddpm_iql_offline": (
            Sweep("train", "locomotion", (Axis(_SOURCE, _LOCOMOTION),), seeds=10),
            Sweep("train", "antmaze", (Axis(_SOURCE, _antmaze(2)),), seeds=10),
        ),
        "train_ddpm_iql_finetune": (
            Sweep("finetune", "antmaze", (Axis(f"offline.{_SOURCE}", _antmaze(0)),), seeds=10),
        ),
        "train_iql_oneparam": (
            Sweep("train", "iql-oneparam", (Axis(_SOURCE, _LOCOMOTION), _TEMPERATURE), seeds=5),
            Sweep(
                "train", "iql-oneparam-antmaze", (Axis(_SOURCE, _antmaze(0)), _TEMPERATURE), seeds=5
            ),
            # The name has neither locomotion nor antmaze, so upstream keeps the rewards (D15).
            Sweep(
                "train",
                "iql-oneparam",
                (Axis(_SOURCE, _MAZE2D), Axis("dataset.rewards", ("as_stored",)), _TEMPERATURE),
                seeds=5,
            ),
        ),
    }
)
"""The sweeps of upstream's launchers, by the names of their files."""
