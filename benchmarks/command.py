"""The options of ``python -m benchmarks`` and what they set going."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from benchmarks.case import Effort, Plan
from benchmarks.compare import compare_runs
from benchmarks.machine import jax_problem, use_threads
from benchmarks.results import read_run, write_run
from benchmarks.runner import run
from benchmarks.tables import print_comparison, print_run
from benchmarks.workloads import NAMES
from idql_func.training.runtime.device import choose_device
from idql_func.types import InputError

__all__ = ["Options", "compare_command", "run_command"]

DESCRIPTION = (
    "How fast the port is, measured in one run against JAX (where it is installed), against its "
    "own eager form and against the machine's limit. `python -m benchmarks compare OLD NEW` tells "
    "two runs' JSON files apart. Workloads: " + ", ".join(NAMES) + "."
)
UPSTREAM_VARIABLE = "IDQL_UPSTREAM"


@dataclass(frozen=True)
class Options:
    """What to measure, and where to write it."""

    quick: bool = False
    """A few minutes: few variants, few rounds, small settings. Without it a quarter of an hour."""
    full: bool = False
    """Everything, the sweep of the update over batch and width among it: hours on two cores."""
    only: Annotated[str | None, tyro.conf.arg(metavar="NAME[,NAME]")] = None
    """These workloads alone."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write every figure to this file."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the pictures to this PNG file."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int | None = None
    """Threads of every side; default: as many as there are cores to run on."""
    matmul: Literal["auto", "strict"] = "auto"
    """The route of matrix products: the faster one that is as exact, or full float32 everywhere."""
    upstream: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A checkout of the original, to run beside; default: what IDQL_UPSTREAM names, if anything."""
    jax: bool = True
    """Run the twin on JAX too, if JAX is installed."""
    memory: bool = True
    """Look at memory too, in processes of their own: of the fastest update, with --full of all."""
    one_process: bool = False
    """Run JAX and the original in this process too, not in processes of their own: they then share
    its memory allocator with torch, and are faster or slower by luck than where they are used."""
    tiny: bool = False
    """Networks of a few units: for trying the benchmarks themselves; the figures say nothing."""


def run_command(arguments: Sequence[str]) -> int:
    """Measure; 0, or 1 if a variant failed.

    Raises:
        InputError: bad options.
        SystemExit: help was asked for (0), or an option is unknown or has no valid value (2).
    """
    options = tyro.cli(
        Options, args=list(arguments), prog="python -m benchmarks", description=DESCRIPTION
    )
    if options.quick and options.full:
        raise InputError("--quick and --full exclude each other")
    names = chosen(options.only)
    for path in (options.json, options.plot):
        if path is not None and path.is_dir():
            raise InputError(f"{path} is a folder; name a file to write")
    effort: Effort = "quick" if options.quick else "full" if options.full else "usual"
    device = choose_device(options.device)
    threads = use_threads(options.threads)
    left_out = []
    problem = jax_problem() if options.jax else "The variants on JAX are left out, as asked."
    if problem is not None:
        left_out.append(problem)
    plan = Plan(
        effort,
        str(device),
        jax=problem is None,
        upstream=_upstream(options.upstream, left_out),
        tiny=options.tiny,
        one_process=options.one_process,
    )
    console = _console()
    for sentence in left_out:
        console.print(sentence, style="yellow", markup=False, highlight=False)
    expected = len(left_out)
    measured = run(
        plan,
        names,
        threads=threads,
        matmul=options.matmul,
        memory=options.memory and effort != "quick",
        console=console,
        left_out=left_out,
    )
    print_run(measured, console)
    if options.json is not None:
        console.print(f"Figures: {write_run(measured, options.json)}", highlight=False)
    if options.plot is not None:
        from benchmarks.plots import write_plots

        console.print(f"Pictures: {write_plots(measured, options.plot)}", highlight=False)
    return 1 if len(measured.left_out) > expected else 0


@dataclass(frozen=True)
class _Compare:
    """Tell regressions from noise."""

    old: tyro.conf.Positional[Path]
    """JSON file of the run before."""
    new: tyro.conf.Positional[Path]
    """JSON file of the run after."""


def compare_command(arguments: Sequence[str]) -> int:
    """Compare two files; 0, or 1 if something regressed.

    Raises:
        InputError: a file is missing or holds no run.
        SystemExit: help was asked for (0), or the arguments are not two files (2).
    """
    files = tyro.cli(_Compare, args=list(arguments), prog="python -m benchmarks compare")
    found = compare_runs(read_run(files.old), read_run(files.new))
    print_comparison(found, _console())
    return 1 if found.regressed else 0


def _console() -> Console:
    """The terminal, or wide enough for the tables where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def chosen(only: str | None) -> list[str]:
    """The workloads of ``--only``, in the order in which they run.

    Raises:
        InputError: one that there is not.

    >>> chosen("random,act")
    ['act', 'random']
    """
    if only is None:
        return list(NAMES)
    asked = [name.strip() for name in only.split(",")]
    for name in asked:
        if name not in NAMES:
            raise InputError(f"no workload is called {name!r}; there are {', '.join(NAMES)}")
    return [name for name in NAMES if name in asked]


def _upstream(given: Path | None, left_out: list[str]) -> str | None:
    from benchmarks import upstream

    path = given
    if given is None and os.environ.get(UPSTREAM_VARIABLE):
        path = Path(os.environ[UPSTREAM_VARIABLE])
    if path is None:
        return None
    problem = upstream.problem(path)
    if problem is None:
        return str(path.resolve())
    if given is not None:
        raise InputError(problem)
    left_out.append(problem)
    return None
