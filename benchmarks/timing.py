"""Measure variants of one workload in alternating blocks.

A shared machine's speed drifts by 10 to 20 % within a minute. Variants are therefore measured in
short blocks that alternate (A B C A B C …), and two of them are compared by the ratio of their
blocks of the same round: a drift that affects both cancels. A block is timed in the process that
runs it, which is this one or a child (``benchmarks.remote``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = [
    "Budget",
    "Local",
    "Measured",
    "Runner",
    "Spread",
    "Timed",
    "Variant",
    "interleave",
    "ratios",
    "spread",
]


class Runner(Protocol):
    """Runs and times the blocks of one variant."""

    def start(self, budget: Budget) -> None:
        """Build the variant, warm it up, and determine how many calls fill a block."""

    def block(self) -> None:
        """Measure one block."""

    def timed(self) -> Timed:
        """The figures measured so far."""
        ...

    def drop(self) -> None:
        """Release the variant's state: it is not measured any more."""


class Measured(Protocol):
    """What :func:`interleave` measures: a local :class:`Variant` or a remote one."""

    @property
    def name(self) -> str: ...

    def runner(self, wait_each: bool, clock: Callable[[], float]) -> Runner:
        """The variant's runner; the arguments are those of :func:`interleave`."""
        ...


@dataclass(frozen=True)
class Variant:
    """One way to do a workload's work.

    ``make()`` builds the state and returns ``step``; ``step(i)`` does one call on input ``i`` (the
    inputs rotate) and returns at once; ``wait(result)`` blocks until that result is ready.
    """

    name: str
    make: Callable[[], Callable[[int], Any]]
    wait: Callable[[Any], None]
    units: float = 1
    """How many units of work (updates, actions, …) one call does."""
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Context of the calls, such as a mode of matrix products or disabled compilation."""

    def runner(self, wait_each: bool, clock: Callable[[], float]) -> Runner:
        return Local(self, wait_each, clock)


@dataclass(frozen=True)
class Budget:
    """How long to measure: ``rounds`` blocks of about ``block_seconds`` for each variant."""

    rounds: int = 9
    block_seconds: float = 0.5
    pause: float = 0.01
    """Seconds between blocks, in which the threads of the previous one stop spinning."""
    warm_up: int = 3
    """Calls before the first block, including the one that compiles."""


@dataclass(frozen=True)
class Timed:
    """A variant's rates, one for each round, in units of work a second."""

    name: str
    rates: tuple[float, ...]
    calls: int
    """Calls in a block."""
    make_seconds: float
    """Time to build the state."""
    first_call_seconds: float
    """Time of the first call, compilation included."""


@dataclass(frozen=True)
class Spread:
    """The median of some figures and their quartiles."""

    median: float
    low: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    """Median and quartiles.

    >>> spread([3.0, 1.0, 2.0, 5.0, 4.0])
    Spread(median=3.0, low=2.0, high=4.0)
    """
    low, median, high = np.quantile(np.asarray(figures, dtype=np.float64), (0.25, 0.5, 0.75))
    return Spread(float(median), float(low), float(high))


def ratios(of: Timed, to: Timed) -> Spread:
    """How many times as fast ``of`` is as ``to``, from pairs of blocks of the same round.

    >>> ratios(Timed("a", (4.0, 2.0, 9.0), 1, 0, 0), Timed("b", (2.0, 1.0, 3.0), 1, 0, 0))
    Spread(median=2.0, low=2.0, high=2.5)
    """
    return spread([a / b for a, b in zip(of.rates, to.rates, strict=True)])


def interleave(
    variants: Sequence[Measured],
    budget: Budget = Budget(),
    *,
    wait_each: bool = False,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], Any] = time.sleep,
    on_progress: Callable[[str, int], Any] = lambda name, done: None,
    on_failure: Callable[[str, Exception], Any] | None = None,
) -> list[Timed]:
    """Build and warm up every variant, and measure all of them in alternating blocks.

    Args:
        variants: in the order in which a round runs them.
        budget: rounds and length of a block.
        wait_each: wait for the result of each call (as a caller that acts on it does), not only
            for the last one of a block (as a training loop does).
        clock: returns seconds; used for variants in this process.
        sleep: waits for some seconds.
        on_progress: called with a variant's name and the number of its finished blocks.
        on_failure: called with a variant's name and its exception; the variant is then left out.
            Without it the exception is raised.

    Returns:
        The figures of the variants that did not fail, in their order.

    Example:
        >>> one = Variant("one", lambda: lambda i: i, lambda result: None)
        >>> [timed] = interleave([one], Budget(rounds=2, block_seconds=1e-4))
        >>> timed.name, len(timed.rates)
        ('one', 2)
    """
    runners = [variant.runner(wait_each, clock) for variant in variants]
    failed: set[int] = set()
    for done in range(budget.rounds + 1):
        for k, (variant, runner) in enumerate(zip(variants, runners, strict=True)):
            if k in failed:
                continue
            try:
                runner.block() if done else runner.start(budget)
            except Exception as error:
                if on_failure is None:
                    raise
                failed.add(k)
                on_failure(variant.name, error)
                runner.drop()
            on_progress(variant.name, done)
            sleep(budget.pause)
    return [runner.timed() for k, runner in enumerate(runners) if k not in failed]


class Local:
    """The :class:`Runner` of a variant in this process."""

    def __init__(self, variant: Variant, wait_each: bool, clock: Callable[[], float]) -> None:
        self.variant, self.wait_each, self.clock = variant, wait_each, clock
        self.step: Callable[[int], Any] = lambda i: None
        self.count = 0
        self.calls = 1
        self.rates: list[float] = []
        self.make_seconds = self.first_call_seconds = 0.0

    def start(self, budget: Budget) -> None:
        with self.variant.scope():
            self._start(budget)

    def _start(self, budget: Budget) -> None:
        begin = self.clock()
        self.step = self.variant.make()
        made = self.clock()
        self._call(1)
        self.make_seconds, self.first_call_seconds = made - begin, self.clock() - made
        self._call(max(1, budget.warm_up - 1))
        # as many calls as fill a block; at the second estimate caches and clock rate have settled
        for share in (0.25, 1.0):
            seconds = self._call(self.calls) / self.calls
            self.calls = max(1, round(share * budget.block_seconds / max(seconds, 1e-9)))

    def block(self) -> None:
        with self.variant.scope():
            self._call(1)  # wakes threads and refills caches after the other variants
            seconds = self._call(self.calls)
        self.rates.append(self.calls * self.variant.units / max(seconds, 1e-12))

    def drop(self) -> None:
        self.step = lambda i: None

    def timed(self) -> Timed:
        return Timed(
            self.variant.name,
            tuple(self.rates),
            self.calls,
            self.make_seconds,
            self.first_call_seconds,
        )

    def _call(self, times: int) -> float:
        wait, step = self.variant.wait, self.step
        begin = self.clock()
        result = None
        for i in range(self.count, self.count + times):
            result = step(i)
            if self.wait_each:
                wait(result)
        if not self.wait_each:
            wait(result)
        self.count += times
        return self.clock() - begin
