"""Results as tables for people and as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from parity.bounds import KINDS, promised
from parity.compare import Finding, Result


def figure(value: float) -> str:
    """A number as tables show it.

    >>> figure(0.0), figure(12.0), figure(1.5e-7), figure(math.inf)
    ('0', '12', '1.5e-07', '∞')
    """
    if value == 0:
        return "0"
    if math.isinf(value):
        return "∞"
    if value >= 1 and value == int(value) and value < 1e6:
        return str(int(value))
    return f"{value:.1e}"


def _worst(findings: Sequence[Finding], name: str) -> float:
    return max((getattr(f, name) for f in findings), default=0.0)


def kinds(results: Iterable[Result]) -> list[str]:
    """The kinds found: those that have a name in their order, then those of a case's own."""
    found = dict.fromkeys(f.kind for r in results for f in r.findings)
    return [k for k in KINDS if k in found] + [k for k in found if k not in KINDS]


def table(results: Sequence[Result], title: str) -> Table:
    """One row for each group and kind: how many, how far off, the bound."""
    out = Table(title=title)
    for name in ("group", "kind"):
        out.add_column(name)
    for name in ("cases", "tensors", "absolute", "relative", "ulp", "error", "bound"):
        out.add_column(name, justify="right")
    out.add_column("measure")
    out.add_column("")
    for group in dict.fromkeys(r.case.group for r in results):
        members = [r for r in results if r.case.group == group]
        crashed = sum(bool(r.crash) for r in members)
        if crashed:
            row = [group, "(did not run)", str(crashed), *[""] * 7]
            out.add_row(*row, "[red]FAIL[/red]")
        for kind in kinds(members):
            having = [r for r in members if any(f.kind == kind for f in r.findings)]
            found = [f for r in having for f in r.findings if f.kind == kind]
            if not found:
                continue
            passed = all(f.passed for f in found)
            out.add_row(
                group,
                kind,
                str(len(having)),
                str(len(found)),
                *(figure(_worst(found, name)) for name in ("absolute", "relative", "ulp")),
                figure(_worst(found, "error")),
                figure(promised(kind).bound),
                promised(kind).unit,
                "[green]ok[/green]" if passed else "[red]FAIL[/red]",
            )
    return out


def failures(results: Iterable[Result]) -> list[str]:
    """One line for each failed case, with the first tensor that leaves its bound."""
    lines = []
    for result in results:
        if result.passed:
            continue
        if result.crash:
            lines.append(f"{result.case.id}: {result.crash}")
            continue
        first = result.first_failure
        if first is None:
            lines.append(f"{result.case.id}: no reference tensors")
            continue
        bad = sum(not f.passed for f in result.findings)
        lines.append(
            f"{result.case.id}: {bad} of {len(result.findings)} tensors out of bounds; first "
            f"{first.tensor} ({first.kind}): {figure(first.error)} {promised(first.kind).unit}, "
            f"bound {figure(first.bound)}; {first.detail}"
        )
    return lines


def show(results: Sequence[Result], title: str) -> None:
    """Print the table, the failures and one closing line."""
    # Eleven columns need more than the 80 characters that a pipe or a log is given by default.
    console = Console()
    console = Console(width=max(console.width, 128))
    console.print(table(results, title))
    for line in failures(results):
        console.print(f"[red]FAIL[/red] {line}", highlight=False, soft_wrap=True)
    passed = sum(r.passed for r in results)
    tensors = sum(len(r.findings) for r in results)
    console.print(f"{passed} of {len(results)} cases within bounds ({tensors} tensors)")


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Every figure. Infinite errors (no comparison possible) become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, tuple):
            return [finite(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        "cases": len(results),
        "passed": sum(r.passed for r in results),
        "promises": {
            name: {"bound": promised(name).bound, "unit": promised(name).unit}
            for name in dict.fromkeys((*KINDS, *kinds(results)))
        },
        "results": [
            {
                "case": r.case.id,
                "passed": r.passed,
                "crash": r.crash,
                "tensors": [{k: finite(v) for k, v in asdict(f).items()} for f in r.findings],
            }
            for r in results
        ],
    }
