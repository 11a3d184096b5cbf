"""Plots of a run: ratios to JAX, shares of the limit, sweeps, seeds and first updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.case import JAX, is_external
from benchmarks.results import Result, Run
from benchmarks.tables import label, own_best
from idql_func.training.runs.plots import save_figure
from idql_func.types import InputError

__all__ = ["figure_of", "write_plots"]

_OWN, _JAX, _EVEN = "#4477aa", "#ee6677", "#555555"
_LINES = ("#4477aa", "#228833", "#aa3377", "#ccbb44", "#66ccee")
_NAME = 34  # characters of a bar's name


def write_plots(run: Run, path: str | Path) -> Path:
    """Plot everything that the run measured into one PNG file; returns the path.

    Raises:
        InputError: if the run has nothing to plot.
    """
    return save_figure(figure_of(run), path)


def figure_of(run: Run) -> Figure:
    """All panels in one figure, two in a row.

    Raises:
        InputError: if the run has nothing to plot.
    """
    panels = [(draw, found) for draw, choose in _PANELS if (found := choose(run.results))]
    if not panels:
        raise InputError("the run has no result that can be plotted")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    heights = [
        max(_height(draw, found) for draw, found in panels[i : i + columns])
        for i in range(0, len(panels), columns)
    ]
    figure = Figure(figsize=(7.4 * columns, sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, height_ratios=heights).flat)
    for axis, (draw, found) in zip(axes, panels, strict=False):
        draw(axis, found)
        axis.spines[["top", "right"]].set_visible(False)
    for unused in axes[len(panels) :]:
        unused.remove()
    figure.suptitle(_heading(run), fontsize=10)
    return figure


def _height(draw: Callable[[Axes, Any], None], found: Sequence[Result]) -> float:
    """Height in inches: fixed for curves, per bar for bars."""
    if draw in (_draw_sweep, _draw_seeds):
        return 4.2
    return max(2.6, 1.4 + 0.28 * len({_name(r) for r in found}))


def _heading(run: Run) -> str:
    e = run.environment
    versions = e.get("versions", {})
    named = ", ".join(f"{n} {versions[n]}" for n in ("torch", "jax") if n in versions)
    machine = e.get("gpu") or e.get("cpu") or "unknown machine"
    limit = run.limits.get("matmul_gflops", 0)
    parts = (
        machine,
        f"{e.get('threads')} threads",
        named,
        f"matmul limit {limit:.0f} GFLOP/s",
        str(e.get("date", ""))[:10],
    )
    return ", ".join(part for part in parts if part)


# --- ratio to JAX -------------------------------------------------------------------------


def _best_with_jax(results: Sequence[Result]) -> list[Result]:
    """This library's fastest variant of each case that JAX ran too; sweeps have their own panel."""
    found = []
    for _, group in groupby(results, key=lambda r: (r.workload, r.settings)):
        best = own_best(list(group))
        if best is None or _swept(best) or best.workload == "compile":
            continue
        if best.ratio_to_jax is not None:
            found.append(best)
    return found


def _draw_ratios(axis: Axes, found: Sequence[Result]) -> None:
    values = [r.ratio_to_jax or 0.0 for r in found]
    names = [f"{_name(r)}" for r in found]
    places = range(len(found))
    colours = [_OWN if v >= 1 else _JAX for v in values]
    axis.barh(places, values, color=colours, xerr=_whiskers(found, "ratio_to_jax"), ecolor=_EVEN)
    axis.axvline(1, color=_EVEN, linewidth=1, linestyle="--")
    ends = [
        max(value, r.spread.get("ratio_to_jax", (value, value))[1])
        for r, value in zip(found, values, strict=True)
    ]
    for place, end, value in zip(places, ends, values, strict=True):
        axis.text(end, place, f"  {value:.2f}", va="center", fontsize=8)
    _bar_names(axis, names)
    axis.set_xlim(0, 1.15 * max(1.05, *ends))
    axis.set_xlabel("times as fast as JAX (median and quartiles of pairs of blocks)")
    axis.set_title("This library's fastest variant compared with JAX")


# --- share of the limit -------------------------------------------------------------------


def _with_share(results: Sequence[Result]) -> list[Result]:
    found = []
    for _, group in groupby(results, key=lambda r: (r.workload, r.settings)):
        shown = [r for r in group if r.share_of_limit is not None and not _swept(r)]
        best = own_best(shown)
        found += [r for r in (best, *(r for r in shown if r.variant == JAX)) if r is not None]
    return found


def _draw_shares(axis: Axes, found: Sequence[Result]) -> None:
    _pairs(axis, found, lambda r: 100 * (r.share_of_limit or 0.0), "{:.0f}")
    axis.axvline(100, color=_EVEN, linewidth=1, linestyle="--")
    axis.set_xlim(0, 130)  # the legend stands right of the limit
    axis.set_xlabel("percent of the matmul limit measured in the same rounds")
    axis.set_title("Share of the machine's limit")
    axis.legend(fontsize=8, loc="lower right")


# --- curves -------------------------------------------------------------------------------


def _swept(result: Result) -> bool:
    """Whether a result belongs to the update's sweep, which has its own plot."""
    s = result.settings
    return result.workload == "update" and (s.get("batch"), s.get("hidden")) not in (
        (512, 256),
        (8, 16),
    )


def _sweep(results: Sequence[Result]) -> list[Result]:
    found = [r for r in _updates(results) if r.ratio_to_jax is not None]
    return found if len(found) > 1 else []


def _updates(results: Sequence[Result]) -> list[Result]:
    """The fastest variant of each batch and width."""
    groups = groupby(results, key=lambda r: (r.workload, r.settings))
    best = [own_best(list(group)) for (workload, _), group in groups if workload == "update"]
    return [r for r in best if r is not None]


def _draw_sweep(axis: Axes, found: Sequence[Result]) -> None:
    for hidden, colour in zip(sorted({r.settings["hidden"] for r in found}), _LINES, strict=False):
        line = sorted(
            (r for r in found if r.settings["hidden"] == hidden), key=lambda r: r.settings["batch"]
        )
        batches = [r.settings["batch"] for r in line]
        axis.plot(
            batches, [r.ratio_to_jax or 0.0 for r in line], "o-", color=colour, label=f"{hidden}"
        )
        quartiles = [r.spread.get("ratio_to_jax", (r.ratio_to_jax,) * 2) for r in line]
        low, high = zip(*quartiles, strict=True)
        axis.fill_between(batches, low, high, color=colour, alpha=0.15, linewidth=0)  # type: ignore[arg-type]
    _log2(axis, sorted({r.settings["batch"] for r in found}))
    axis.axhline(1, color=_EVEN, linewidth=1, linestyle="--")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("batch")
    axis.set_ylabel("times as fast as JAX")
    axis.set_title("update: over batch and width of the layers")
    axis.legend(title="width", fontsize=8)


def _seeds(results: Sequence[Result]) -> list[Result]:
    found = [
        r
        for r in results
        if r.workload == "seeds" and r.ratio_to_eager is not None and r.variant != r.baseline
    ]
    return found if len({r.settings["seeds"] for r in found}) > 1 else []


def _draw_seeds(axis: Axes, found: Sequence[Result]) -> None:
    """Plot ratios within rounds, not rates: the machine's speed drifts between the cases."""
    colours = iter(_LINES)
    for variant in dict.fromkeys(r.variant for r in found):
        colour, style = (_JAX, "s--") if variant == JAX else (next(colours), "o-")
        line = sorted((r for r in found if r.variant == variant), key=lambda r: r.settings["seeds"])
        numbers = [r.settings["seeds"] for r in line]
        ratios = [r.ratio_to_eager or 0.0 for r in line]
        axis.plot(numbers, ratios, style, color=colour, label=variant)
        quartiles = [r.spread.get("ratio_to_eager", (r.ratio_to_eager,) * 2) for r in line]
        low, high = zip(*quartiles, strict=True)
        axis.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)  # type: ignore[arg-type]
    _log2(axis, sorted({r.settings["seeds"] for r in found}))
    axis.axhline(1, color=_EVEN, linewidth=1, linestyle="--", label="this library, one at a time")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("seeds in one program")
    axis.set_ylabel("times the updates a second of one at a time")
    axis.set_title("seeds: the total rate")
    axis.legend(fontsize=8, loc="lower right")


# --- first updates and memory -------------------------------------------------------------


def _first(results: Sequence[Result]) -> list[Result]:
    return [r for r in results if r.workload == "compile"]


def _draw_first(axis: Axes, found: Sequence[Result]) -> None:
    _pairs(axis, found, lambda r: r.rate, "{:.1f}")
    axis.set_xlabel("seconds from starting Python to the end of the first update")
    axis.set_title("compile: the first update in a fresh process")


def _with_memory(results: Sequence[Result]) -> list[Result]:
    found = []
    for _, group in groupby(results, key=lambda r: (r.workload, r.settings)):
        shown = [r for r in group if r.peak_memory_mb is not None and not _swept(r)]
        best = own_best(shown)
        external = [r for r in shown if r.variant == JAX]
        if best is not None and external:
            found += [best, *external]
    return found


def _draw_memory(axis: Axes, found: Sequence[Result]) -> None:
    _pairs(axis, found, lambda r: r.peak_memory_mb or 0.0, "{:.0f}")
    axis.set_xlabel("peak memory in MB, each in its own process")
    axis.set_title("Peak memory while it runs")


def _pairs(
    axis: Axes, found: Sequence[Result], value: Callable[[Result], float], text: str
) -> None:
    cases = list(dict.fromkeys(_name(r) for r in found))
    for offset, external, colour, legend in (
        (-0.2, False, _OWN, "this library"),
        (0.2, True, _JAX, "JAX"),
    ):
        shown = [r for r in found if is_external(r.variant) == external]
        if not shown:
            continue
        places = [cases.index(_name(r)) + offset for r in shown]
        axis.barh(places, [value(r) for r in shown], height=0.38, color=colour, label=legend)
        for place, r in zip(places, shown, strict=True):
            axis.text(value(r), place, " " + text.format(value(r)), va="center", fontsize=7)
    _bar_names(axis, cases)
    axis.set_xlim(0, 1.15 * max(value(r) for r in found))
    axis.legend(fontsize=8)


def _name(result: Result) -> str:
    settings = label(result.workload, result.settings)
    named = settings.startswith(result.workload)
    text = settings if named else f"{result.workload} {settings}"
    return text if len(text) <= _NAME else text[: _NAME - 1] + "…"


def _bar_names(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()


def _whiskers(found: Sequence[Result], name: str) -> Any:
    below, above = [], []
    for r in found:
        value = getattr(r, name) or 0.0
        low, high = r.spread.get(name, (value, value))
        below.append(max(0.0, value - low))
        above.append(max(0.0, high - value))
    return [below, above]


def _log2(axis: Axes, ticks: Sequence[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()


_PANELS: tuple[tuple[Callable[[Axes, Any], None], Callable[[Any], list[Result]]], ...] = (
    (_draw_ratios, _best_with_jax),
    (_draw_shares, _with_share),
    (_draw_sweep, _sweep),
    (_draw_seeds, _seeds),
    (_draw_first, _first),
    (_draw_memory, _with_memory),
)
