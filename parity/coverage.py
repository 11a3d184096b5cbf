"""Coverage: every public name of the original, and the case or test that covers it.

A name is covered if a recorded case executed it (``coverage.json``, see :mod:`parity.evidence`),
the port has a counterpart, and the port passes that case. Names that no case can test are exempt
(:mod:`parity.counterparts`), each with the reason and the test that covers it. Needs no JAX.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from parity.compare import run_case
from parity.counterparts import SCRIPTS, counterpart, exemption
from parity.evidence import Names, read_coverage
from parity.store import REFERENCE, recorded, write_whole

BEGIN = "<!-- module table: written by `python -m parity coverage --table parity/README.md` -->"
END = "<!-- end of the module table -->"
_SHOWN_GROUPS = 4
_WIDTH = 80

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
    """The row of one name; ``passed`` has for each case that was run whether the port passes it."""
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
    """A small set of cases that together executed every name that any case did.

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
    """Every public name; with ``run``, the port first runs a case for each of them.

    Raises:
        RecordError: the record is missing or damaged.
    """
    names: Names = read_coverage(directory)["names"]
    passed = _run(directory, fewest(names)) if run else {}
    return [row(name, entry["cases"], passed) for name, entry in names.items()]


def table(rows: Sequence[Row], title: str) -> list[str]:
    """Two lines for each name with rich's markup: the name and its state; port, case and groups."""
    lines = [f"[bold]{escape(title)}[/bold]"]
    for r in rows:
        good = r.state in ("covered", "exempt")
        state = f"[{'green' if good else 'red'}]{r.state}[/]"
        lines.append(f"{r.name.removeprefix('jaxrl5.')} {state}")
        parts = [r.port or "no counterpart"]
        if r.cases:
            parts.append(f"case {r.cases[0]} ({len(r.cases)} groups)")
        line = f"    {'; '.join(parts)}"
        lines += [line] if len(line) <= _WIDTH else [f"    {part}" for part in parts]
    return lines


@dataclass
class _ModuleRow:
    """The entries of the module table for one module of the original."""

    names: int = 0
    modules: dict[str, None] = field(default_factory=dict)
    groups: dict[str, None] = field(default_factory=dict)
    tests: dict[str, None] = field(default_factory=dict)


def _module_of_original(name: str, kind: str) -> str:
    """The module that defines a public name of the original.

    >>> _module_of_original("jaxrl5.networks.mlp.MLP.__call__", "method")
    'networks.mlp'
    """
    parts = name.removeprefix("jaxrl5.").split(".")
    if name in ("flax.training.checkpoints",):  # a module that the original uses as a whole
        return name
    return ".".join(parts[: -2 if kind == "method" or parts[-2] == "TrainState" else -1])


def _module_of_port(name: str) -> str | None:
    """The module that defines the counterpart of a dotted name; None if there is no counterpart."""
    if not name or not _exists(name):
        return None
    found = resolve(name)
    if isinstance(found, ModuleType):
        return found.__name__
    module = getattr(found, "__module__", None) or ""
    if module.startswith("idql_func."):
        return module
    # an alias of another library's type does not name the module that defines the alias
    parts = name.split(".")
    while not isinstance(resolve(".".join(parts)), ModuleType):
        parts.pop()
    return ".".join(parts)


def _module_rows(names: Names) -> dict[str, _ModuleRow]:
    rows: dict[str, _ModuleRow] = {}
    for name, entry in names.items():
        row = rows.setdefault(_module_of_original(name, entry["sort"]), _ModuleRow())
        row.names += 1
        if module := _module_of_port(counterpart(name) or ""):
            row.modules[module] = None
        row.groups.update(dict.fromkeys(case.partition("/")[0] for case in entry["cases"]))
        if exempt := exemption(name):
            row.tests[exempt.test.partition("::")[0]] = None
    for name, (modules, tests) in SCRIPTS.items():
        rows[name] = _ModuleRow(0, dict.fromkeys(modules), {}, dict.fromkeys(tests))
    return rows


def module_table(names: Names) -> str:
    """A Markdown table: each module of the original, what replaces it, and what tests it.

    Groups of cases are sorted by the number of modules that they cover, the fewest first.
    """
    rows = _module_rows(names)
    spread = Counter(group for row in rows.values() for group in row.groups)
    lines = ["| original | public names | here | tested by |", "|---|---|---|---|"]
    for name, row in rows.items():
        # a package whose submodule is listed adds nothing
        modules = [m for m in row.modules if not any(o.startswith(f"{m}.") for o in row.modules)]
        groups = sorted(row.groups, key=lambda group: spread[group])
        tested = []
        if groups:
            more = len(groups) - _SHOWN_GROUPS
            shown = ", ".join(f"`{group}`" for group in groups[:_SHOWN_GROUPS])
            tested.append(f"cases {shown}" + (f" and {more} more" if more > 0 else ""))
        tested += [f"`{test}`" for test in row.tests]
        here = ", ".join(f"`{m.removeprefix('idql_func.')}`" for m in modules)
        lines.append(f"| `{name}` | {row.names or ''} | {here} | {'; '.join(tested)} |")
    return "\n".join(lines)


def with_module_table(text: str, table: str) -> str:
    """A Markdown text with the module table between its markers replaced.

    Raises:
        ValueError: the text does not have both markers.

    >>> with_module_table(f"a\\n{BEGIN}\\nold\\n{END}\\nb", "new").splitlines()[2]
    'new'
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the text must hold the lines {BEGIN!r} and {END!r}, in this order.")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def table_command(path: Path | None, directory: Path = REFERENCE) -> int:
    """``python -m parity coverage --table [FILE]``: print the module table, or put it into a file.

    Raises:
        ValueError: the file does not have the table's markers.
    """
    table = module_table(read_coverage(directory)["names"])
    if path is None:
        print(table)
        return 0
    text = path.read_text(encoding="utf-8")
    write_whole(path, with_module_table(text, table).encode())
    return 0


def coverage_command(directory: Path = REFERENCE) -> int:
    """``python -m parity coverage``: 0 if every name is covered or exempt, else 1."""
    rows = coverage(directory)
    console = Console()
    commit = read_coverage(directory)["commit"][:7]
    for line in table(rows, f"public names of the original (jaxrl5 at {commit})"):
        console.print(line, highlight=False, soft_wrap=True)
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
