"""Write the text of a program line by line."""

from __future__ import annotations

import math
from dataclasses import dataclass

from parity.conformance.choices import Choices
from parity.conformance.kinds import Kind, Leaf, map_leaves

HEADER = """\
import numpy as np
from parity.conformance.{side}_names import xp
"""


@dataclass(frozen=True)
class Program:
    """The text of a program: its preparation, and the expression of its result.

    ``bound`` says how the result is compared: ``equal``, ``ulp`` (4 units in the last place) or
    ``close``.
    """

    family: str
    setup: str
    result: str
    x64: bool
    partitionable: bool
    bound: str
    donates: bool
    choices: tuple[int, ...]

    @property
    def text(self) -> str:
        """The whole program, without imports."""
        switches = f"xp.switches(x64={self.x64}, partitionable={self.partitionable})\n"
        return f"{switches}{self.setup}\nresult = {self.result}\n"

    def runnable(self, side: str = "port") -> str:
        """The program as a script that prints its result."""
        return f"{HEADER.format(side=side)}{self.text}print(result)\n"


class Writer:
    """The lines of a program that is being drawn."""

    def __init__(self, choose: Choices) -> None:
        self.choose = choose
        self.lines: list[str] = []
        self.x64 = False
        self.partitionable = True
        self.bound = "close"
        self.donates = False
        self.donated = False
        self._count: dict[str, int] = {}
        self._result = ""

    def new(self, prefix: str) -> str:
        """A new name."""
        self._count[prefix] = self._count.get(prefix, 0) + 1
        return f"{prefix}{self._count[prefix]}"

    def line(self, text: str) -> None:
        """Add a line."""
        self.lines.append(text)

    def result(self, text: str) -> None:
        """Set the expression of the result."""
        self._result = text

    def widen(self, kind: Kind) -> Kind:
        """The kind with float64 in place of float32 if the program runs in double precision."""
        if not self.x64:
            return kind
        wide = {"float32": "float64"}
        return map_leaves(kind, lambda x: Leaf(x.shape, wide.get(x.dtype, x.dtype)))

    def program(self, family: str) -> Program:
        """The finished program."""
        return Program(
            family,
            "\n".join(self.lines),
            self._result,
            self.x64,
            self.partitionable,
            self.bound,
            self.donated,
            tuple(self.choose.made),
        )


def literal(choose: Choices, leaf: Leaf, arrays: bool = False) -> str:
    """The text of a value: an array of the library or of NumPy, or a number."""
    if leaf.dtype == "key":
        return f"xp.keys({choose.below(5)}, {leaf.shape[:-1]})"
    count = math.prod(leaf.shape)
    numbers = [_number(choose, leaf.dtype) for _ in range(count)]
    listed = f"[{', '.join(numbers)}]"
    how = 0 if arrays else choose.below(12)
    if leaf.shape == ():
        if how == 8 and leaf.dtype in ("float32", "float64", "int32", "bool"):
            return numbers[0]
        if how in (9, 10) and leaf.dtype not in ("bfloat16", "bool"):
            return f"np.{leaf.dtype}({numbers[0]})"
        if how == 11 and leaf.dtype != "bfloat16":
            return f"np.array({numbers[0]}, {leaf.dtype!r})"
        return f"xp.array({numbers[0]}, {leaf.dtype!r})"
    shaped = f"{leaf.shape}" if len(leaf.shape) != 1 else ""
    if how in (9, 10) and leaf.dtype != "bfloat16":
        return f"np.array({listed}, {leaf.dtype!r})" + (f".reshape{shaped}" if shaped else "")
    if how == 11 and len(leaf.shape) == 2:  # memory in another order
        turned = leaf.shape[::-1]
        return f"xp.array({listed}, {leaf.dtype!r}, {turned}).T"
    if how == 8 and leaf.dtype in ("float32", "int32"):  # as NumPy makes them without a dtype
        return f"np.array({listed}).reshape{leaf.shape}" if count else f"np.zeros({leaf.shape})"
    return f"xp.array({listed}, {leaf.dtype!r}{', ' + shaped if shaped else ''})"


def _number(choose: Choices, dtype: str) -> str:
    if dtype == "bool":
        return choose.one_of(("True", "False"))
    if "int" in dtype:
        low = 0 if dtype.startswith("u") else -2
        return str(choose.one_of((1, 2, 3, 0, low)))
    return choose.one_of(("1.0", "0.5", "-0.5", "2.0", "0.25", "-1.5", "0.75"))
