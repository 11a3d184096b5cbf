"""The choices that a program is made of: drawn from a seed, or given as a list of numbers.

Because a program depends on nothing else, a failing one is made smaller by making its list of
numbers smaller: 0 is always the simplest choice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """A source of choices, which remembers those that it made.

    >>> drawn = Choices(seed=7)
    >>> numbers = [drawn.below(10) for _ in range(3)]
    >>> again = Choices(given=drawn.made)
    >>> [again.below(10) for _ in range(3)] == numbers
    True
    """

    def __init__(self, seed: int = 0, given: Sequence[int] | None = None) -> None:
        # the stream of Random.random() is the same in all versions of Python
        self._random = random.Random(f"program {seed}")
        self._given = given
        self.made: list[int] = []

    def below(self, count: int) -> int:
        """A number from 0 to ``count - 1``; 0 once the given list is used up."""
        place = len(self.made)
        if self._given is None:
            value = int(self._random.random() * count)
        else:
            value = min(self._given[place], count - 1) if place < len(self._given) else 0
        self.made.append(value)
        return value

    def one_of(self, options: Sequence[T]) -> T:
        """One of some options, the simplest of which comes first."""
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        """True in so many cases of a hundred; False is the simpler one."""
        return self.below(100) >= 100 - percent


def shrink(numbers: Sequence[int], fails: Callable[[Sequence[int]], bool]) -> list[int]:
    """A list of choices as small as can be found for which ``fails`` still holds.

    Removes stretches of choices, then makes single choices smaller, until neither helps.

    >>> shrink([5, 9, 3, 8], lambda numbers: sum(numbers) >= 10)
    [2, 8]
    """
    best = list(numbers)
    while True:
        smaller = next((each for each in _simpler(best) if fails(each)), None)
        if smaller is None:
            return best
        best = list(smaller)


def _simpler(numbers: list[int]) -> Iterator[list[int]]:
    """Lists that are simpler than this one, the simplest first."""
    length = 2 ** max(len(numbers) - 1, 0).bit_length()
    while length:
        for start in range(0, len(numbers), length):
            yield numbers[:start] + numbers[start + length :]
        length //= 2
    for place, number in enumerate(numbers):
        for value in dict.fromkeys((0, number // 2, number - 1)):
            if 0 <= value < number:
                yield [*numbers[:place], value, *numbers[place + 1 :]]
