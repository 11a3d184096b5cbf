"""Replay the recorded programs on the port, or draw new ones beside a live JAX."""

from __future__ import annotations

import contextlib
import multiprocessing
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from parity.conformance.choices import Choices, shrink
from parity.conformance.compare import difference
from parity.conformance.departures import departure_of
from parity.conformance.grammar import draw_program, program_of
from parity.conformance.older import FAMILY as OLDER_FAMILY
from parity.conformance.older import older_programs
from parity.conformance.outcomes import Outcome, run
from parity.conformance.text import Program

T = TypeVar("T")
CHUNK = 100
"""Programs that a process runs before it takes the next ones."""


@dataclass(frozen=True)
class Verdict:
    """What came of one program.

    ``difference`` says in one line what differs from JAX, None if nothing does; ``departure`` is
    the name of the documented departure that explains it. ``refused`` says that JAX refused.
    """

    program: Program
    difference: str | None
    departure: str | None
    refused: bool

    @property
    def passed(self) -> bool:
        """Whether the port did what JAX did, or departs from it as documented."""
        return self.difference is None or self.departure is not None


def on_port(program: Program, eager: bool = False) -> Outcome:
    """What the port does with a program; jitted functions run as graphs without machine code."""
    from idql_func import disable_jit
    from idql_func.compiler.inductor import without_code_generation
    from parity.conformance.port_names import to_numpy, xp

    with contextlib.ExitStack() as stack:
        stack.enter_context(disable_jit() if eager else without_code_generation())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        return run(program, xp, to_numpy)


def on_jax(program: Program) -> Outcome:
    """What JAX does with a program."""
    from parity.conformance.jax_names import to_numpy, xp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(program, xp, to_numpy)


def judge(program: Program, jax: Outcome, port: Outcome) -> Verdict:
    """Compare the outcomes of one program."""
    found = difference(program, jax, port)
    may_depart = found is not None and program.family != OLDER_FAMILY
    explained = departure_of(program, jax, port) if may_depart else None
    return Verdict(program, found, explained, jax.error is not None)


def _replay(chunk: Sequence[tuple[Program, Outcome]], eager: bool) -> list[Verdict]:
    import torch

    torch.set_num_threads(1)
    return [judge(program, jax, on_port(program, eager)) for program, jax in chunk]


def _both(seeds: Sequence[int], eager: bool) -> list[Verdict]:
    outcomes = zip(map(program_of, seeds), _on_jax(seeds), strict=True)
    return _replay(list(outcomes), eager)


def _on_jax(seeds: Sequence[int]) -> list[Outcome]:
    import jax

    outcomes = [on_jax(program_of(seed)) for seed in seeds]
    jax.clear_caches()  # else hundreds of compiled programs fill the memory
    return outcomes


@contextlib.contextmanager
def _processes(jobs: int) -> Iterator[Executor | None]:
    """Some processes, or None for one job."""
    if jobs == 1:
        yield None
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield pool


@contextlib.contextmanager
def port_processes(jobs: int) -> Iterator[Executor | None]:
    """Some processes that import the port while the caller prepares their work."""
    with _processes(jobs) as pool:
        if pool is not None:
            for _ in range(jobs):
                pool.submit(_import_port)
        yield pool


def _import_port() -> None:
    """Trace a first function, which imports torch's compiler."""
    import torch

    from idql_func import jit
    from idql_func.compiler.inductor import without_code_generation

    torch.set_num_threads(1)
    with without_code_generation():
        jit(torch.sin)(torch.ones(2))


def _in_chunks(
    work: Callable[..., list[T]], items: Sequence, pool: Executor | None
) -> Iterator[list[T]]:
    """The results of chunks, in order."""
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    yield from map(work, chunks) if pool is None else pool.map(work, chunks)


def recorded_outcomes(
    seeds: Sequence[int], jobs: int = 1, each: Callable[[int], None] = lambda count: None
) -> list[Outcome]:
    """What JAX does with the programs of some seeds."""
    outcomes: list[Outcome] = []
    with _processes(jobs) as pool:
        for some in _in_chunks(_on_jax, seeds, pool):
            outcomes += some
            each(len(some))
    return outcomes


def older_outcomes() -> list[Outcome]:
    """What the JAX that is installed does with the programs of the older JAX."""
    return [on_jax(program) for program in older_programs()]


def replay(
    pairs: Sequence[tuple[Program, Outcome]],
    pool: Executor | None = None,
    eager: bool = False,
    each: Callable[[int], None] = lambda count: None,
) -> list[Verdict]:
    """Run recorded programs on the port, in this process or in others.

    ``each`` is called with the number of programs that have just been run.
    """
    verdicts: list[Verdict] = []
    for some in _in_chunks(partial(_replay, eager=eager), pairs, pool):
        verdicts += some
        each(len(some))
    return verdicts


def live(
    seeds: Sequence[int],
    jobs: int = 1,
    eager: bool = False,
    each: Callable[[int], None] = lambda count: None,
) -> list[Verdict]:
    """Run the programs of some seeds on JAX and on the port."""
    verdicts: list[Verdict] = []
    with _processes(jobs) as pool:
        for some in _in_chunks(partial(_both, eager=eager), seeds, pool):
            verdicts += some
            each(len(some))
    return verdicts


def smallest(program: Program, eager: bool = False) -> Program:
    """The smallest program that can be found with a difference that no departure explains."""

    def fails(numbers: Sequence[int]) -> bool:
        candidate = draw_program(Choices(given=numbers))
        return not judge(candidate, on_jax(candidate), on_port(candidate, eager)).passed

    return draw_program(Choices(given=shrink(program.choices, fails)))


def summary(verdicts: Sequence[Verdict]) -> list[str]:
    """Lines that count the outcomes."""
    counts = Counter(
        "differ"
        if not v.passed
        else f"departure: {v.departure}"
        if v.departure
        else "refused alike"
        if v.refused
        else "same"
        for v in verdicts
    )
    lines = [f"{count:7d}  {name}" for name, count in counts.most_common()]
    return [f"{len(verdicts):7d}  programs", *lines]
