"""Run a program on one side, and say what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.conformance.text import Program


@dataclass(frozen=True)
class Outcome:
    """The leaves of a result and its structure, or the error of a program.

    ``structure`` is the tree with ``*`` for each leaf; ``error`` is None or the error's text.
    """

    structure: str
    leaves: tuple[np.ndarray, ...]
    error: str | None = None
    kind: str = ""
    written: bool = False


def run(program: Program, xp: Any, array_of: Callable[[Any], np.ndarray]) -> Outcome:
    """Run a program with the names of one side; its arguments must be unchanged after it."""
    names: dict[str, Any] = {"xp": xp, "np": np}
    try:
        xp.switches(program.x64, program.partitionable)
        exec(compile(program.setup, "<program>", "exec"), names)  # the text is our own
        before = None if program.donates else _copies(names, array_of)
        result = eval(compile(program.result, "<program>", "eval"), names)
        parts: list[np.ndarray] = []
        structure = "".join(_walk(result, parts, array_of))
        written = before is not None and not _same(before, _copies(names, array_of))
    except Exception as error:
        return Outcome("", (), str(error) or repr(error), type(error).__name__)
    finally:
        xp.restore()
    return Outcome(structure, tuple(parts), written=written)


def _copies(names: dict[str, Any], array_of: Callable[[Any], np.ndarray]) -> list[np.ndarray]:
    """Copies of all values that the program made before its result."""
    parts: list[np.ndarray] = []
    for name in sorted(names):
        if name[0] == "x" and name[1:].isdigit():
            "".join(_walk(names[name], parts, array_of))
    return [np.array(part) for part in parts]


def _same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def _walk(
    value: Any, parts: list[np.ndarray], array_of: Callable[[Any], np.ndarray]
) -> Iterator[str]:
    """The structure of a value; its leaves are added to ``parts``."""
    if value is None:
        yield "None"
    elif isinstance(value, str):
        yield repr(value)
    elif isinstance(value, dict):
        yield "{"
        for name in sorted(value):
            yield f"{name}:"
            yield from _walk(value[name], parts, array_of)
            yield ","
        yield "}"
    elif isinstance(value, list | tuple) or dataclasses.is_dataclass(value):
        if isinstance(value, list | tuple):
            children = value
        else:
            children = [getattr(value, field.name) for field in dataclasses.fields(value)]
        yield f"{type(value).__name__}("
        for child in children:
            yield from _walk(child, parts, array_of)
            yield ","
        yield ")"
    else:
        parts.append(array_of(value))
        yield "*"
