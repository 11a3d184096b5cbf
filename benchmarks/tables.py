"""Print the tables of a run and of a comparison, with a summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks.case import is_external
from benchmarks.compare import Comparisons
from benchmarks.results import Result, Run
from benchmarks.workloads import load

__all__ = ["label", "own_best", "print_comparison", "print_run", "summary"]

_ALWAYS = {
    "random": ("draw",), "learners": ("learner",), "compile": ("learner", "cache"),
    "seeds": ("seeds",), "scan": ("steps",), "ensemble": ("members",), "act": ("num_envs",),
    "update": ("batch", "hidden"),
}  # fmt: skip
_COLOURS = {"faster": "green", "slower": "bold red", "within noise": "dim"}


def label(workload: str, settings: dict[str, Any]) -> str:
    """A short text for a case's settings: those that differ from the default, and a few others.

    >>> label("act", {"num_envs": 10, "N": 64, "T": 3})
    'num_envs=10, T=3'
    """
    default = dataclasses.asdict(load(workload).Settings())
    shown = _ALWAYS.get(workload, ())
    parts = []
    for name, value in settings.items():
        if name in ("learner", "draw", "cache"):
            parts.append(str(value))
        elif name in shown or value != default.get(name):
            parts.append(f"{name}={value}")
    return ", ".join(parts)


def print_run(run: Run, console: Console) -> None:
    """Print a table for each workload, and a summary."""
    console.print(_machine(run), highlight=False)
    for workload, found in groupby(run.results, key=lambda r: r.workload):
        for line in _table(workload, list(found)):
            console.print(line, highlight=False)
    for sentence in run.left_out:
        console.print(f"Left out: {sentence}", style="yellow", markup=False, highlight=False)
    for sentence in summary(run):
        console.print(sentence, style="bold", markup=False, highlight=False)


def _machine(run: Run) -> str:
    e, limits = run.environment, run.limits
    versions = e.get("versions", {})
    named = ", ".join(f"{n} {versions[n]}" for n in ("torch", "jax") if n in versions)
    shared = (
        ", JAX in the same process" if e.get("processes") == "one" and "jax" in versions else ""
    )
    return (
        f"{e.get('gpu') or e.get('cpu')}, {e.get('threads')} threads, {named}, "
        f"products on {e.get('matmul')!r}{shared}; "
        f"limit {limits.get('matmul_gflops', 0):.0f} GFLOP/s, "
        f"copy {limits.get('copy_gb_s', 0):.0f} GB/s"
    )


def _table(workload: str, results: list[Result]) -> list[str]:
    """Lines with rich's markup: for each case its settings, and a row for each variant."""
    purpose = (load(workload).__doc__ or "").strip().splitlines()[0].replace("``", "")
    base = _baseline(results)
    columns: list[tuple[str, Callable[[Result], str]]] = [
        ("x JAX", lambda r: _times(r.ratio_to_jax)),
        ("x base", lambda r: _times(r.ratio_to_eager)),
        ("GFLOP/s", lambda r: _plain(r.gflops, 0)),
        ("limit", lambda r: "" if r.share_of_limit is None else f"{r.share_of_limit:.0%}"),
        ("MB", lambda r: _plain(r.peak_memory_mb, 0)),
    ]
    if not results[0].smaller_is_better:
        columns.append(("first", lambda r: _plain(r.compile_seconds, 1)))
    columns = [(name, show) for name, show in columns if any(show(r) for r in results)]
    heads = ["variant", results[0].unit, "quartiles", *(name for name, _ in columns)]
    rows = [
        [r.variant, _figure(r.rate), _range(r), *(show(r) for _, show in columns)] for r in results
    ]
    widths = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return " ".join([f"  {first}", *others]).rstrip()

    lines = ["", f"[bold]{escape(f'{workload}: {purpose}')}[/bold]", line(heads)]
    above = None
    for result, row in zip(results, rows, strict=True):
        if result.settings != above and (text := label(workload, result.settings)):
            lines.append(f"[bold]{escape(text)}[/bold]")
        above = result.settings
        text = escape(line(row))
        lines.append(f"[cyan]{text}[/cyan]" if is_external(result.variant) else text)
    notes = {
        "x base": f"x base: relative to {base}",
        "limit": "limit: share of the matmul limit",
        "first": "first: seconds of the first call",
    }
    lines.append(f"[dim]{'; '.join(text for name, text in notes.items() if name in heads)}[/dim]")
    return lines


def _range(result: Result) -> str:
    low, high = result.spread.get("rate", (result.rate, result.rate))
    return f"{_figure(low)}-{_figure(high)}"


def _baseline(results: Iterable[Result]) -> str:
    return next((r.baseline for r in results if r.baseline), "eager")


def _figure(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            return f"{value / max(size, 1e3) if unit != 'k' else value / 1e3:.3g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _plain(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


# --- summary ------------------------------------------------------------------------------

_NOT_COMPARABLE = ("bf16", "loop", "one at a time")
"""Less exact variants, and the plain ones that a workload is compared with."""


def own_best(results: Iterable[Result]) -> Result | None:
    """This library's fastest variant in full float32, without the plain ones."""
    own = [r for r in results if not is_external(r.variant) and r.variant not in _NOT_COMPARABLE]
    if not own:
        return None
    return (min if own[0].smaller_is_better else max)(own, key=lambda r: r.rate)


def summary(run: Run) -> list[str]:
    """One sentence for each case: the fastest variant, compared with JAX and with the limit."""
    sentences = []
    for (workload, settings), group in groupby(run.results, key=lambda r: (r.workload, r.settings)):
        found = list(group)
        best = own_best(found)
        if best is None:
            continue
        parts = [f"{_figure(best.rate)} {best.unit} ({best.variant})"]
        if best.ratio_to_jax is not None and best.smaller_is_better:
            parts.append(f"{1 / best.ratio_to_jax:.2f} times as long as JAX")
        elif best.ratio_to_jax is not None:
            low, high = best.spread.get("ratio_to_jax", (best.ratio_to_jax,) * 2)
            parts.append(f"{best.ratio_to_jax:.2f} times JAX ({low:.2f} to {high:.2f})")
        if best.share_of_limit is not None:
            parts.append(f"{best.share_of_limit:.0%} of the matmul limit")
        sentences.append(f"{workload} {label(workload, settings)}: {', '.join(parts)}")
    return sentences


# --- two runs -----------------------------------------------------------------------------


def print_comparison(found: Comparisons, console: Console) -> None:
    """Print the verdict on each measurement, and whether something regressed."""
    console.print(found.terms)
    console.print(f"  {'variant':<20} {'new / old':>9}  {'of':<14} verdict", highlight=False)
    above = None
    for e in found.entries:
        if (e.workload, e.settings) != above:
            settings = _known_label(e.workload, e.settings)
            console.print(f"{e.workload} {settings}".rstrip(), style="bold", markup=False)
        above = e.workload, e.settings
        figures = f"  {e.variant:<20} {_times(e.ratio):>9}  {e.measure or '':<14} "
        console.print(escape(figures), end="", highlight=False)
        console.print(e.verdict, style=_COLOURS.get(e.verdict, "yellow"))
    counts = {v: sum(e.verdict == v for e in found.entries) for v in _COLOURS}
    console.print(
        ", ".join(f"{n} {v}" for v, n in counts.items())
        + (": something regressed." if found.regressed else ": no regression."),
        style="bold",
    )


def _known_label(workload: str, settings: dict[str, Any]) -> str:
    try:
        return label(workload, settings)
    except (ImportError, AttributeError):  # a workload that this version does not have
        return ", ".join(f"{k}={v}" for k, v in settings.items())
