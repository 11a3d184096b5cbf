"""The options of ``python -m benchmarks`` and its two commands."""

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
    "Measure the port's speed against JAX (if installed), against its own eager mode and against "
    "the machine's limit, all in one run. `python -m benchmarks compare OLD NEW` compares the JSON "
    "files of two runs. Workloads: " + ", ".join(NAMES) + "."
)
UPSTREAM_VARIABLE = "IDQL_UPSTREAM"


@dataclass(frozen=True)
class Options:
    """What to measure, and where to write the results."""

    quick: bool = False
    """A few minutes: few variants, few rounds, small settings. The default takes 15 minutes."""
    full: bool = False
    """All variants, and the update over many batch sizes and widths: hours on two cores."""
    only: Annotated[str | None, tyro.conf.arg(metavar="NAME[,NAME]")] = None
    """Run only these workloads."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write all results to this file."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write plots to this PNG file."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int | None = None
    """Threads of torch and of JAX; default: one for each core."""
    matmul: Literal["auto", "strict"] = "auto"
    """Matrix products: the fastest implementation that is as exact as torch's, or torch's own."""
    upstream: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A checkout of the original, to measure it too; default: the variable IDQL_UPSTREAM."""
    jax: bool = True
    """Measure the same learners on JAX too, if JAX is installed."""
    memory: bool = True
    """Measure memory too, in separate processes: of the fastest update; with --full of all."""
    one_process: bool = False
    """Run JAX and the original in this process, not in child processes. They then share a memory
    allocator with torch, which makes them faster or slower than they are for their users."""
    tiny: bool = False
    """Networks of a few units, to test the benchmarks themselves; the results have no meaning."""


def run_command(arguments: Sequence[str]) -> int:
    """Measure and print the results; 0, or 1 if a variant failed.

    Raises:
        InputError: if an option has a wrong value.
        SystemExit: after help (0), or if an option is unknown or cannot be parsed (2).
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
    problem = jax_problem() if options.jax else "The variants on JAX are left out (--no-jax)."
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
        console.print(f"Results: {write_run(measured, options.json)}", highlight=False)
    if options.plot is not None:
        from benchmarks.plots import write_plots

        console.print(f"Plots: {write_plots(measured, options.plot)}", highlight=False)
    return 1 if len(measured.left_out) > expected else 0


@dataclass(frozen=True)
class _Compare:
    """Compare two runs: regressions and noise."""

    old: tyro.conf.Positional[Path]
    """JSON file of the older run."""
    new: tyro.conf.Positional[Path]
    """JSON file of the newer run."""


def compare_command(arguments: Sequence[str]) -> int:
    """Compare two files; 0, or 1 if something regressed.

    Raises:
        InputError: if a file is missing or is not a results file.
        SystemExit: after help (0), or if the arguments are not two files (2).
    """
    files = tyro.cli(_Compare, args=list(arguments), prog="python -m benchmarks compare")
    found = compare_runs(read_run(files.old), read_run(files.new))
    print_comparison(found, _console())
    return 1 if found.regressed else 0


def _console() -> Console:
    return Console()


def chosen(only: str | None) -> list[str]:
    """The workloads of ``--only``, in the order in which they run.

    Raises:
        InputError: if a workload does not exist.

    >>> chosen("random,act")
    ['act', 'random']
    """
    if only is None:
        return list(NAMES)
    requested = [name.strip() for name in only.split(",")]
    for name in requested:
        if name not in NAMES:
            raise InputError(f"no workload is called {name!r}; there are {', '.join(NAMES)}")
    return [name for name in NAMES if name in requested]


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
