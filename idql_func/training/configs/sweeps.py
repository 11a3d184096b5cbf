"""Grids of settings, one run for each cell and seed, after ``launcher/hyperparameters.py``.

A cell is a list of command-line options, so that every command can be swept and every line can be
copied and run alone. Upstream replaces the seeds of a sweep by unseeded random ones (quirk L6) and
empties the caller's dictionary (L7); this module does neither.
"""

from __future__ import annotations

import itertools
import math
import shlex
import statistics
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from idql_func.errors import InputError

__all__ = [
    "LAUNCHERS",
    "MOST_RUNS",
    "Axis",
    "Cell",
    "MeanOverSeeds",
    "Sweep",
    "axis_label",
    "cells_of",
    "combinations",
    "means_over_seeds",
    "option_arguments",
    "parse_axis",
]


MOST_RUNS = 10_000
"""The largest number of runs in a sweep, and of members in a program."""


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
        """The arguments of the command."""
        chosen = option_arguments(self.settings)
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


def combinations(axes: Sequence[Axis]) -> list[tuple[tuple[str, str], ...]]:
    """Return every combination of values, as pairs of an option and its value.

    Raises:
        InputError: if an option has two axes.

    Example:
        >>> combinations([Axis("learner.tau", ("0.1", "0.2")), Axis("seed", ("8",))])
        [(('learner.tau', '0.1'), ('seed', '8')), (('learner.tau', '0.2'), ('seed', '8'))]
    """
    options = [axis.option.replace("_", "-") for axis in axes]
    if len(set(options)) < len(options):
        raise InputError(f"the grid names an option twice, of {', '.join(options)}")
    return list(itertools.product(*([(axis.option, v) for v in axis.values] for axis in axes)))


def option_arguments(settings: Iterable[tuple[str, str]]) -> list[str]:
    """Return settings as command-line arguments; a value with spaces becomes several arguments.

    Example:
        >>> option_arguments([("evaluation.N", "1 64")])
        ['--evaluation.N', '1', '64']
    """
    return [part for option, value in settings for part in (f"--{option}", *value.split())]


def cells_of(sweeps: Iterable[Sweep], first_seed: int = 0) -> list[Cell]:
    """Return all runs of some sweeps; the seeds vary fastest.

    Raises:
        InputError: if there is no seed, an option has two axes, runs would share a folder, or
            there are more than :data:`MOST_RUNS`.

    Example:
        >>> axis = Axis("learner.expectile", ("0.7", "0.9"))
        >>> [cell.name for cell in cells_of([Sweep("train", "iql-mujoco", (axis,), seeds=2)])]
        ['iql-mujoco-expectile=0.7-seed0', 'iql-mujoco-expectile=0.7-seed1', \
'iql-mujoco-expectile=0.9-seed0', 'iql-mujoco-expectile=0.9-seed1']
    """
    cells, sweeps = [], list(sweeps)
    count = sum(math.prod(len(axis.values) for axis in s.axes) * s.seeds for s in sweeps)
    if count > MOST_RUNS:
        raise InputError(
            f"the sweep would have {count:,} runs, but at most {MOST_RUNS:,} are made; divide it "
            "into several, or give fewer values or seeds"
        )
    for sweep in sweeps:
        if sweep.seeds < 1:
            raise InputError(f"seeds is {sweep.seeds}, but must be at least 1")
        varied = [axis.option for axis in sweep.axes if len(axis.values) > 1]
        for settings in combinations(sweep.axes):
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


@dataclass(frozen=True)
class MeanOverSeeds:
    """The mean of a quantity over the ``count`` runs that differ only in their seeds.

    ``members`` names these runs by their other settings; ``standard_error`` is None for one run.
    """

    members: str
    quantity: str
    mean: float
    standard_error: float | None
    count: int


def means_over_seeds(
    values: Mapping[str, Mapping[str, float]], labels: Mapping[str, str]
) -> list[MeanOverSeeds]:
    """Average quantities over the runs of each label.

    Args:
        values: run -> quantity -> value.
        labels: run -> its settings without the seed.

    Example:
        >>> values = {"seed0": {"N = 1": 1.0}, "seed1": {"N = 1": 3.0}}
        >>> means_over_seeds(values, {"seed0": "", "seed1": ""})
        [MeanOverSeeds(members='', quantity='N = 1', mean=2.0, standard_error=1.0, count=2)]
    """
    found: dict[tuple[str, str], list[float]] = {}
    for run, quantities in values.items():
        for quantity, value in quantities.items():
            found.setdefault((labels[run], quantity), []).append(value)
    rows = []
    for (label, quantity), own in found.items():
        error = statistics.stdev(own) / len(own) ** 0.5 if len(own) > 1 else None
        rows.append(MeanOverSeeds(label, quantity, statistics.fmean(own), error, len(own)))
    return rows


def axis_label(option: str, value: str) -> str:
    """Return the part of a run's name that stands for a setting.

    Example:
        >>> axis_label("learner.critic-hyperparam", "0.9")
        'critic-hyperparam=0.9'
    """
    plain = value.replace("/", "_").replace("\\", "_").replace(" ", "+")
    return f"{option.rpartition('.')[2]}={plain}"


def _launchers() -> dict[str, tuple[Sweep, ...]]:
    text = Path(__file__).with_name("launchers.toml").read_text(encoding="utf-8")
    return {
        name: tuple(
            Sweep(
                *sweep["preset"].split(),
                axes=tuple(Axis(option, tuple(values)) for option, values in sweep["grid"].items()),
                seeds=sweep["seeds"],
            )
            for sweep in sweeps
        )
        for name, sweeps in tomllib.loads(text).items()
    }


LAUNCHERS: Mapping[str, tuple[Sweep, ...]] = MappingProxyType(_launchers())
"""The sweeps of upstream's launchers, by the names of their files."""
