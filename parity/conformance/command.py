"""The parts of ``python -m parity record``, ``check`` and ``live`` that run programs."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.progress import Progress

from parity.conformance.checking import (
    Verdict,
    judge,
    live,
    older_outcomes,
    on_jax,
    on_port,
    port_processes,
    recorded_outcomes,
    replay,
    smallest,
    summary,
)
from parity.conformance.store import NAME, OLDER, read_outcomes, save_outcomes
from parity.store import REFERENCE, RecordError

GROUP = NAME
"""What ``--only`` and ``--case`` call the programs."""


def is_recorded(directory: Path) -> bool:
    """Whether a folder of reference tensors has programs too."""
    return (directory / f"{NAME}.json").exists()


def record_programs(count: int, directory: Path = REFERENCE, jobs: int = 1) -> None:
    """Run the programs of the first seeds on JAX, and save what came of them.

    Raises:
        ValueError: if the number is not positive.
    """
    _check_count(count)
    with Progress(transient=True) as progress:
        task = progress.add_task("running JAX", total=count)
        outcomes = recorded_outcomes(range(count), jobs, lambda n: progress.advance(task, n))
    save_outcomes(directory, outcomes, _made(f"--programs {count}"))


def record_older(directory: Path = REFERENCE) -> None:
    """Run the draws that are held to JAX 0.4.13, in an environment that has it."""
    save_outcomes(directory, older_outcomes(), _made("--older-draws"), OLDER)


def _made(options: str) -> dict[str, Any]:
    return {
        "command": f"python -m parity record {options}",
        "versions": {name: version(name) for name in ("jax", "jaxlib", "numpy")},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"--programs must be at least 1, got {count}.")


def check_programs(directory: Path = REFERENCE, jobs: int = 1) -> bool:
    """Replay the recorded programs on the port; True if every difference is a documented one.

    Raises:
        RecordError: if the record is missing, damaged or of other programs.
    """
    begin = time.perf_counter()
    with port_processes(jobs) as pool, Progress(transient=True) as progress:
        pairs = read_outcomes(directory)
        task = progress.add_task("running programs", total=len(pairs))
        verdicts = replay(pairs, pool, each=lambda n: progress.advance(task, n))
    return _report(verdicts, time.perf_counter() - begin, "the port against the recorded JAX")


def live_programs(count: int, first: int = 0, jobs: int = 1) -> bool:
    """Draw programs, run them on JAX and on the port, and print the smallest that fails."""
    _check_count(count)
    begin = time.perf_counter()
    with Progress(transient=True) as progress:
        task = progress.add_task("running both", total=count)
        seeds = range(first, first + count)
        verdicts = live(seeds, jobs, each=lambda n: progress.advance(task, n))
    passed = _report(verdicts, time.perf_counter() - begin, "the port beside JAX")
    failing = next((v.program for v in verdicts if not v.passed), None)
    if failing is not None:
        small = smallest(failing)
        verdict = judge(small, on_jax(small), on_port(small))
        print(f"\nThe smallest failing program found ({verdict.difference}):\n")
        print(small.runnable())
    return passed


def show_program(name: str, directory: Path = REFERENCE) -> bool:
    """Print one recorded program as a script, with both outcomes; True if they agree.

    Raises:
        RecordError: if there is no such program.
    """
    pairs = read_outcomes(directory)
    number = name.removeprefix(f"{GROUP}/")
    if not number.isdigit() or int(number) >= len(pairs):
        raise RecordError(f"there is no case {name!r}: give {GROUP}/0 to {GROUP}/{len(pairs) - 1}.")
    program, jax = pairs[int(number)]
    verdict = judge(program, jax, on_port(program))
    print(program.runnable())
    print(f"# {verdict.difference or 'the port does what JAX does'}")
    return verdict.passed


def _report(verdicts: list[Verdict], seconds: float, what: str) -> bool:
    print(f"{what}, {seconds:.0f} s")
    for line in summary(verdicts):
        print(line)
    failed = [(i, v) for i, v in enumerate(verdicts) if not v.passed]
    for i, verdict in failed[:20]:
        print(f"FAIL {GROUP}/{i} ({verdict.program.family}): {verdict.difference}"[:200])
    if len(failed) > 20:
        print(f"... and {len(failed) - 20} more")
    return not failed
