"""``idql sweep``: one run for each combination of settings and seeds, or their commands."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from idql_func.cli import one_line, print_error
from idql_func.cli.options import parse_options
from idql_func.errors import InputError
from idql_func.files import read_json
from idql_func.training.configs.catalogue import presets_called
from idql_func.training.configs.settings import changed_settings
from idql_func.training.configs.sweeps import (
    LAUNCHERS,
    Axis,
    Cell,
    Sweep,
    cells_of,
    means_over_seeds,
    parse_axis,
)

if TYPE_CHECKING:
    from idql_func.training.runs.directory import RunDirectory

__all__ = ["SweepOptions", "main", "parse"]


@dataclass(frozen=True)
class SweepOptions:
    """Run a preset once for each combination of settings and each seed, one run after the other.

    Finished runs are skipped and interrupted ones are continued, so the same command continues a
    sweep. Upstream's launchers can be given by name; they have grids of their own.

    Attributes:
        preset: A preset, or a launcher: train_ddpm_iql_offline, train_ddpm_iql_finetune or
            train_iql_oneparam.
        grid: An option of the preset's command and its values: learner.critic-hyperparam=0.7,0.9.
            May be given several times; one value sets an option for all runs.
        seeds: Number of seeds for each combination. None: 1, or the launcher's number.
        first_seed: The first of the seeds.
        command: Command of the preset, if several have one of that name: train, online or finetune.
        dry_run: Print the command line of each run and do nothing else.
    """

    preset: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PRESET|LAUNCHER")]
    grid: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    seeds: int | None = None
    first_seed: int = 0
    command: str | None = None
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False


parse = functools.partial(parse_options, SweepOptions, "idql sweep")
"""Parse the options; see :func:`parse_options`."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status: 1 if some of the runs failed."""
    options = parse(arguments)
    cells = cells_of(_sweeps(options), options.first_seed)
    # All lines are checked before the first run: a misspelt option must not show up hours later.
    settings = _settings_by_label(cells)
    if options.dry_run:
        print("\n".join(cell.line for cell in cells))
        return 0
    return _run_all(cells, settings)


def _sweeps(options: SweepOptions) -> list[Sweep]:
    axes = tuple(parse_axis(text) for text in options.grid)
    if options.preset in LAUNCHERS:
        sweeps = LAUNCHERS[options.preset]
    else:
        sweeps = (Sweep(_command_of(options), options.preset),)
    changes: dict[str, Any] = {} if options.seeds is None else {"seeds": options.seeds}
    return [dataclasses.replace(s, axes=_merged(s.axes, axes), **changes) for s in sweeps]


def _merged(own: tuple[Axis, ...], given: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """A sweep's own axes, without those of the same option as a given axis, then the given axes."""
    replaced = {axis.option for axis in given}
    return (*(axis for axis in own if axis.option not in replaced), *given)


def _command_of(options: SweepOptions) -> str:
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


def _settings_by_label(cells: Sequence[Cell]) -> dict[str, Any]:
    """The settings of one run for each combination; the runs of other seeds differ in no other."""
    settings: dict[str, Any] = {}
    for cell in cells:
        if cell.label not in settings:
            settings[cell.label] = _module(cell).parse(cell.arguments).config
            settings[cell.label].validate()
    return settings


def _run_all(cells: Sequence[Cell], settings: Mapping[str, Any]) -> int:
    from idql_func.training.runs.console import Reporter, make_table
    from idql_func.training.runs.directory import RunDirectory
    from idql_func.training.runs.lock import owner_of

    reporter = Reporter()
    runs = [RunDirectory(settings[cell.label].runs_dir / cell.name) for cell in cells]
    for run, cell in zip(runs, cells, strict=True):
        if run.config.is_file():
            _check_same_settings(run, _module(cell).parse(cell.arguments).config)
    failed: list[Cell] = []
    busy: list[Cell] = []
    for number, (cell, run) in enumerate(zip(cells, runs, strict=True), start=1):
        reporter.stage(f"Run {number} of {len(cells)}: {cell.line}")
        if run.is_complete:
            run.remove_stale_lock()
            reporter.detail("already finished")
            continue
        if (owner := owner_of(run.path)) is not None:
            reporter.detail(f"in use by {owner}: left to it")
            busy.append(cell)
            continue
        begun = run.state in ("started", "training", "evaluating", "finished")
        arguments = ["--resume", str(run.path)] if begun else cell.arguments
        try:
            _module(cell).main(arguments)
        except Exception as error:  # whatever stops one run must not stop the others
            failed.append(cell)
            print_error(f"{cell.name}: {one_line(error)}")
    returns = {run.path.name: _returns(run) for run in runs if run.state == "finished"}
    columns = ("settings", "policy", "return", "seeds")
    rows = _rows(cells, returns, failed, busy)
    reporter.table(make_table(columns, rows, "Returns over seeds", numbers=True))
    return 1 if failed or busy else 0


def _returns(run: RunDirectory) -> dict[str, float]:
    """The returns of a finished run's last evaluation, by N or ``"policy"``."""
    try:
        evaluation = read_json(run.summary, "the summary of a run").get("evaluation", {})
        return {policy: float(result["return"]) for policy, result in evaluation.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{run.summary} is damaged: it has no returns ({error!r})") from None


def _check_same_settings(run: RunDirectory, config: Any) -> None:
    changed = changed_settings(run.read_config(type(config)), config)
    if changed:
        raise InputError(
            f"{run.path} holds a run with other settings ({', '.join(changed)}); remove it, or put "
            "the sweep into another folder with --grid runs-dir=FOLDER"
        )


def _rows(
    cells: Sequence[Cell],
    returns: Mapping[str, Mapping[str, float]],
    failed: Iterable[Cell],
    busy: Iterable[Cell],
) -> Iterator[tuple[str, str, str, str]]:
    """The mean over the seeds of each run's last evaluation, and a row for each other run."""
    for row in means_over_seeds(returns, {cell.name: cell.label for cell in cells}):
        error = "" if row.standard_error is None else f" ± {row.standard_error:.1f}"
        yield row.members, row.quantity, f"{row.mean:.1f}{error}", str(row.count)
    for what, others in (("failed", failed), ("in use", busy)):
        for cell in others:
            yield cell.label, "", what, f"seed {cell.seed}"
