"""Coverage that cannot lie: every public name of the original, and what holds the port to it.

A name is covered if a recorded case executed it (``coverage.json``, see :mod:`parity.evidence`),
the port has a counterpart, and the port passes that case. Names that no case can hold are exempt
(:mod:`parity.counterparts`), each with the reason and the test that stands in. Needs no JAX.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from parity.compare import run_case
from parity.counterparts import counterpart, exemption
from parity.evidence import Names, read_coverage
from parity.store import REFERENCE, recorded

State = Literal["covered", "exempt", "no case", "no counterpart", "fails"]


@dataclass(frozen=True)
class Row:
    """A public name of the original.

    Attributes:
        name: dotted, such as ``jaxrl5.networks.mlp.MLP.__call__``.
        port: the counterpart's dotted name; empty if there is none.
        cases: recorded cases that executed it, the first of each group.
        state: whether it is covered, or why not.
        note: of an exempt name the reason and the test; of a failing one the case.
    """

    name: str
    port: str
    cases: tuple[str, ...]
    state: State
    note: str = ""


def resolve(name: str) -> Any:
    """The object of a dotted name.

    Raises:
        AttributeError: there is none.

    >>> resolve("parity.coverage.Row").__name__
    'Row'
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        head, _, tail = name.rpartition(".")
        if not head:
            raise AttributeError(f"there is no {name}") from None
        return getattr(resolve(head), tail)


def _exists(name: str) -> bool:
    try:
        resolve(name)
    except AttributeError:
        return False
    return True


def row(name: str, cases: Sequence[str], passed: Mapping[str, bool]) -> Row:
    """The row of one name; ``passed`` says of cases that were run whether the port passes them."""
    port = counterpart(name) or ""
    if exempt := exemption(name):
        port = port if port and _exists(port) else ""
        return Row(name, port, tuple(cases), "exempt", f"{exempt.reason} ({exempt.test})")
    if not port or not _exists(port):
        return Row(name, port, tuple(cases), "no counterpart")
    if not cases:
        return Row(name, port, (), "no case")
    failed = [case for case in cases if not passed.get(case, True)]
    if failed and not any(passed.get(case) for case in cases):
        return Row(name, port, tuple(cases), "fails", failed[0])
    return Row(name, port, tuple(cases), "covered")


def fewest(names: Names) -> list[str]:
    """Few cases that together executed every name that any case did.

    >>> fewest({"f": {"cases": ["a/1", "b/1"]}, "g": {"cases": ["b/1"]}, "h": {"cases": []}})
    ['b/1']
    """
    left = {name: set(entry["cases"]) for name, entry in names.items() if entry["cases"]}
    chosen: list[str] = []
    while left:
        counts = Counter(case for cases in left.values() for case in sorted(cases))
        best = max(counts, key=lambda case: (counts[case], case))
        chosen.append(best)
        left = {name: cases for name, cases in left.items() if best not in cases}
    return chosen


def _run(directory: Path, ids: Collection[str]) -> dict[str, bool]:
    from parity.port.backend import TorchBackend

    backend, passed = TorchBackend(), {}
    for group in dict.fromkeys(case.partition("/")[0] for case in ids):
        for case, tensors in recorded(directory, group):
            if case.id in ids:
                passed[case.id] = run_case(backend, case, tensors).passed
    return passed


def coverage(directory: Path = REFERENCE, run: bool = True) -> list[Row]:
    """Every public name; with ``run``, the port is held to a case for each of them first.

    Raises:
        RecordError: the record is missing or damaged.
    """
    names: Names = read_coverage(directory)["names"]
    passed = _run(directory, fewest(names)) if run else {}
    return [row(name, entry["cases"], passed) for name, entry in names.items()]


def table(rows: Sequence[Row], title: str) -> Table:
    """One line a name, with the first case and how many groups have one."""
    out = Table(title=title)
    for head in ("the original", "the port", "case", "groups", "covered"):
        out.add_column(head, overflow="fold")
    for r in rows:
        case = r.cases[0] if r.cases else ""
        good = r.state in ("covered", "exempt")
        state = f"[{'green' if good else 'red'}]{'yes' if r.state == 'covered' else r.state}[/]"
        out.add_row(r.name, r.port, case, str(len(r.cases) or ""), state)
    return out


def coverage_command(directory: Path = REFERENCE) -> int:
    """``python -m parity coverage``: 0 when every name is covered or exempt, else 1."""
    rows = coverage(directory)
    console = Console()
    console = Console(width=max(console.width, 160))
    commit = read_coverage(directory)["commit"][:7]
    console.print(table(rows, f"public names of the original at {commit}"))
    for note in dict.fromkeys(r.note for r in rows if r.state == "exempt"):
        names = [r.name for r in rows if r.note == note]
        console.print(f"exempt: {', '.join(names)}: {note}", highlight=False, soft_wrap=True)
    bad = [r for r in rows if r.state not in ("covered", "exempt")]
    for r in bad:
        console.print(f"[red]{r.state}[/red] {r.name} {r.note}", highlight=False, soft_wrap=True)
    covered = sum(r.state == "covered" for r in rows)
    exempt = sum(r.state == "exempt" for r in rows)
    console.print(f"{covered} of {len(rows)} names covered, {exempt} exempt, {len(bad)} not")
    return 1 if bad else 0
