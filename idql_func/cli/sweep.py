"""``idql sweep``: a grid of settings, one run for each cell and seed, or their command lines."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from idql_func.errors import InputError
from idql_func.training.configs.sweeps import LAUNCHERS, Axis, Cell, Sweep, cells_of, parse_axis

__all__ = ["SweepOptions", "main"]


@dataclass(frozen=True)
class SweepOptions:
    """Run a preset once for each cell of a grid of settings and each seed, one after the other.

    Runs that are finished are left alone and one that was stopped goes on, so the same line takes a
    sweep up again. The launchers of upstream are there by name, with their own grids.
    """

    preset: tyro.conf.Positional[str]
    """A preset, or a launcher: train_ddpm_iql_offline, train_ddpm_iql_finetune or
    train_iql_oneparam."""
    grid: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An option of the preset's command and its values: learner.critic-hyperparam=0.7,0.9. May be
    given several times; one value sets an option for all runs."""
    seeds: int | None = None
    """Number of seeds for each cell. None: 1, or as many as the launcher has."""
    first_seed: int = 0
    """The first of the seeds."""
    command: str | None = None
    """Command of the preset, where several have one of that name: train, online or finetune."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the command lines, one for each run, and do nothing."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status: 1 if some of the runs failed."""
    options = tyro.cli(SweepOptions, prog="idql sweep", args=list(arguments))
    cells = cells_of(_sweeps(options), options.first_seed)
    # All lines are read before the first is run: a misspelt option must not show up hours later.
    folders = _runs_dirs(cells)
    if options.dry_run:
        print("\n".join(cell.line for cell in cells))
        return 0
    return _run_all(cells, folders)


def _sweeps(options: SweepOptions) -> list[Sweep]:
    axes = tuple(parse_axis(text) for text in options.grid)
    if options.preset in LAUNCHERS:
        sweeps = LAUNCHERS[options.preset]
    else:
        sweeps = (Sweep(_command_of(options), options.preset),)
    changes: dict[str, Any] = {} if options.seeds is None else {"seeds": options.seeds}
    return [dataclasses.replace(s, axes=_merged(s.axes, axes), **changes) for s in sweeps]


def _merged(own: tuple[Axis, ...], given: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """The given axes take the place of the launcher's of the same option."""
    replaced = {axis.option for axis in given}
    return (*(axis for axis in own if axis.option not in replaced), *given)


def _command_of(options: SweepOptions) -> str:
    from idql_func.training.configs.catalogue import presets_called

    commands = [entry.command for entry in presets_called(options.preset)]
    if options.command is None:
        return commands[0]
    if options.command not in commands:
        raise InputError(
            f"{options.preset!r} is a preset of {' and '.join(commands)}, not of {options.command}"
        )
    return options.command


def _module(cell: Cell) -> Any:
    return importlib.import_module(f"idql_func.cli.{cell.command}")


def _settings_of(cell: Cell) -> Any:
    return _module(cell).parse(cell.arguments)[0]


def _runs_dirs(cells: Sequence[Cell]) -> list[Path]:
    """Where the runs lie; one line of each setting is read, as seeds tell nothing new."""
    parsed: dict[str, Any] = {}
    for cell in cells:
        if cell.label not in parsed:
            parsed[cell.label] = _settings_of(cell)
    return [parsed[cell.label].runs_dir for cell in cells]


def _run_all(cells: Sequence[Cell], folders: Sequence[Path]) -> int:
    from idql_func.training.runs.console import Reporter
    from idql_func.training.runs.directory import RunDirectory

    reporter = Reporter()
    runs = [RunDirectory(f / cell.name) for f, cell in zip(folders, cells, strict=True)]
    for run, cell in zip(runs, cells, strict=True):
        if run.config.is_file():
            _check_same_settings(run, _settings_of(cell))
    failed = 0
    for number, (cell, run) in enumerate(zip(cells, runs, strict=True), start=1):
        reporter.stage(f"Run {number} of {len(cells)}: {cell.line}")
        if run.summary.is_file():
            reporter.detail("is finished already")
            continue
        if run.config.is_file() and any(run.checkpoints.glob("step_*")):
            arguments = ["--resume", str(run.path)]
        else:
            # What may lie there was stopped before its first checkpoint.
            arguments = [*cell.arguments, "--overwrite"]
        try:
            _module(cell).main(arguments)
        except (ValueError, TypeError, OSError, ImportError) as error:
            failed += 1
            print(f"error: {cell.name}: {' '.join(str(error).split())}", file=sys.stderr)
    summaries = {
        cell.name: json.loads(run.summary.read_text(encoding="utf-8"))
        for cell, run in zip(cells, runs, strict=True)
        if run.summary.is_file()
    }
    reporter.table(_table(cells, summaries))
    return 1 if failed else 0


def _check_same_settings(run: Any, config: Any) -> None:
    from idql_func.training.configs.settings import changed_settings

    changed = changed_settings(run.read_config(type(config)), config)
    if changed:
        raise InputError(
            f"{run.path} holds a run with other settings ({', '.join(changed)}); remove it, or put "
            "the sweep into another folder with --grid runs-dir=FOLDER"
        )


def _table(cells: Sequence[Cell], summaries: dict[str, Any]) -> Any:
    """The mean over the seeds of each run's last evaluation."""
    from rich import box
    from rich.table import Table

    from idql_func.training.configs.sweeps import over_seeds

    table = Table(title="Returns over seeds", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("settings", "policy", "return", "seeds"):
        table.add_column(column, justify="right" if column in ("return", "seeds") else "left")
    for label, policy, mean, error, seeds in over_seeds(cells, summaries):
        spread = "" if error is None else f" ± {error:.1f}"
        table.add_row(label, policy, f"{mean:.1f}{spread}", str(seeds))
    return table
