"""Which of a long test's trials are run, and the counts of their outcomes.

A long test knows all of its trials: a kill at each change of the disk, a hostile value for each
argument. By default it draws a bounded number of them, spread evenly over all, so that the long
tests together take less than ten minutes of two cores; with ``--trials=full`` it runs them all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

__all__ = ["ALL", "AtMost", "Tally", "spread", "totals"]

T = TypeVar("T")

ALL = 10**9
"""More than any test has."""

AtMost = Callable[[int], int]
"""The type of the fixture ``at_most``: the number of trials, which is ``ALL`` if all are run."""

Tally = Callable[[str, str, Mapping[str, int]], None]
"""The type of the fixture ``tally``: it reports the outcomes of a kind of trials."""


def spread(trials: Sequence[T], count: int, seed: int = 0) -> list[T]:
    """The first, the last, and one of each of ``count - 2`` equal parts of what lies between.

    >>> spread(range(100), 5)
    [0, 25, 59, 68, 99]
    >>> spread("abc", ALL)
    ['a', 'b', 'c']
    """
    if count >= len(trials):
        return [*trials]
    inner, parts, draws = len(trials) - 2, max(0, count - 2), random.Random(seed)
    places = [draws.randrange(inner * k // parts, inner * (k + 1) // parts) for k in range(parts)]
    ends = (trials[0], trials[-1])
    return [ends[0], *(trials[1 + place] for place in places), ends[1]][-count:]


def totals(tallies: Iterable[tuple[str, Mapping[str, int]]]) -> list[str]:
    """A line for each kind of trials, with the sums of its counts.

    >>> totals([("kills", {"trials": 3, "equal": 3}), ("kills", {"trials": 4, "equal": 4})])
    ['kills: 7 trials, 7 equal']
    """
    sums: dict[str, dict[str, int]] = {}
    for what, counts in tallies:
        kind = sums.setdefault(what, {})
        for outcome, count in counts.items():
            kind[outcome] = kind.get(outcome, 0) + count
    return [
        f"{what}: {', '.join(f'{count:,} {outcome}' for outcome, count in counts.items())}"
        for what, counts in sums.items()
    ]
