"""The charts of a report: distance to the bound, error along a run, ulp errors.

Each is drawn on given axes: the page shows each chart separately, the picture all in one figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from parity.compare import Finding
from parity.reporting import summary
from parity.reporting.charts import STYLE, blank, percent, power
from parity.reporting.style import COLOURS
from parity.reporting.summary import Figures, Growth, share

_MARKS = {"eager": "o", "compiled": "s", "vmapped": "^"}


# --- room to the bound ----------------------------------------------------------------------

_LOWEST = -9
_BEYOND = 1.0
"""Errors are drawn from 10⁻⁹ of their bound to ten times it, those outside at the margin."""


def place(value: float) -> float:
    """Position of a share of the bound: its decimal logarithm; zero has its own position."""
    if value == 0:
        return _LOWEST - 1.5
    return float(np.clip(math.log10(value), _LOWEST, _BEYOND)) if value < math.inf else _BEYOND


def rows(figures: Figures) -> list[str]:
    """The modules in the order of the entries."""
    return list(dict.fromkeys(summary.module(entry.group) for entry in figures.entries))


def columns(figures: Figures) -> dict[str, float]:
    """The bound of each column that has findings."""
    bounds: dict[str, float] = {}
    for _, finding in figures.findings:
        bounds.setdefault(summary.column(finding.kind), finding.bound)
    order = [*summary.PROMISES, *bounds]
    return {name: bounds[name] for name in dict.fromkeys(order) if name in bounds}


def _bound_text(name: str, bound: float) -> str:
    if bound == 0:
        return "to the bit"
    if bound == int(bound):
        return f"{bound:g} ulp" if name == "draws, initial" else f"{bound:g}"
    exponent = math.floor(math.log10(bound))
    factor = bound / 10**exponent
    return power(exponent) if round(factor, 6) == 1 else f"{factor:g}·{power(exponent)}"


def draw_room(axes: Sequence[Axes], figures: Figures) -> None:
    """Dots for the worst error of each module, one of ``axes`` for each of :func:`columns`."""
    names = rows(figures)
    failing = {summary.module(entry.group) for entry in figures.entries if not entry.passed}
    for axis, (column, bound) in zip(axes, columns(figures).items(), strict=True):
        _room_frame(axis, column, bound, len(names))
        _room_dots(axis, column, figures, names, label=bound > 0)
    first = axes[0]
    first.set_yticks(range(len(names)), [f"✗ {n}" if n in failing else n for n in names])
    first.tick_params(axis="y", length=0)
    for name, text in zip(names, first.get_yticklabels(), strict=True):
        text.set_color(COLOURS["bound" if name in failing else "ink"])
        text.set_fontsize(8.5)


def _room_frame(axis: Axes, column: str, bound: float, count: int) -> None:
    for row in range(0, count, 2):
        axis.axhspan(row - 0.5, row + 0.5, color=COLOURS["stripe"], lw=0, zorder=0)
    if bound == 0:
        axis.axvline(-5, color=COLOURS["bound"], lw=1.4, zorder=2)
        axis.set_xticks([place(0), 0], ["equal", "not"])
        axis.set_title(f"{column}\nto the bit", loc="left")
    else:
        for x in (-8, -6, -4, -2):
            axis.axvline(x, color=COLOURS["grid"], lw=0.6, zorder=1)
        axis.axvline(0, color=COLOURS["bound"], lw=1.4, zorder=2)
        axis.set_xticks([place(0), -8, -4, 0], ["0", power(-8), power(-4), "bound"])
        axis.set_title(f"{column}\nbound {_bound_text(column, bound)}", loc="left")
    axis.set_xlim((_LOWEST - 2.3, _BEYOND + 0.5))
    axis.set_ylim((count - 0.5, -0.5))
    axis.spines["left"].set_visible(False)
    axis.set_yticks([])


def _room_dots(
    axis: Axes, column: str, figures: Figures, names: Sequence[str], label: bool
) -> None:
    found, modes = summary.nearest(figures), figures.modes
    offsets = np.linspace(-0.27, 0.27, len(modes)) if len(modes) > 1 else np.zeros(1)
    marks: dict[int, list[tuple[float, float, float]]] = {}
    for row, name in enumerate(names):
        for mode, offset in zip(modes, offsets.tolist(), strict=True):
            finding = found.get((name, column, mode))
            if finding is not None:
                part = share(finding)
                _dot(axis, place(part), row + offset, finding, mode)
                marks.setdefault(row, []).append((part, place(part), row + offset))
    largest = max(max(of)[0] for of in marks.values())
    style: dict[str, Any]
    for row, of in marks.items():
        worst, x, y = max(of)
        if worst > 1:
            style = {"color": COLOURS["bound"], "weight": "bold"}
        elif label and worst > 0 and (worst >= 0.1 or worst == largest):
            # Left of its mark and of the marks that the number would cover.
            style, x, y = {}, min(other for _, other, _ in of if other > x - 4), row
        else:
            continue
        axis.annotate(
            percent(worst) if label else "",
            (x, y),
            textcoords="offset points",
            xytext=(-7, 0),
            ha="right",
            va="center",
            zorder=7,
            **style,
        )


def row_height(figures: Figures) -> float:
    """Height in inches for one module, so that the marks of all modes fit."""
    return 0.2 if len(figures.modes) == 1 else 0.085 * max(len(figures.modes), 3) + 0.03


def _dot(axis: Axes, x: float, y: float, finding: Finding, mode: str) -> None:
    colour = COLOURS.get(mode, COLOURS["ink"])
    if finding.passed:
        # Hollow where there is no error at all.
        face = colour if finding.error > 0 else COLOURS["page"]
        axis.plot(x, y, _MARKS.get(mode, "o"), ms=4.4, mfc=face, mec=colour, mew=1, zorder=4)
    else:
        axis.plot(x, y, "X", ms=8, mfc=COLOURS["bound"], mec=COLOURS["page"], mew=0.6, zorder=6)


def legend(figure: Figure, modes: Sequence[str], x: float, y: float) -> None:
    """A text legend for the marks of several modes."""
    for mode in modes:
        text = f"{'●■▲'[list(_MARKS).index(mode)] if mode in _MARKS else '●'} {mode}"
        figure.text(x, y, text, color=COLOURS.get(mode, COLOURS["ink"]), va="center", fontsize=9)
        x += (6.5 * len(text) + 16) / (72 * figure.get_size_inches()[0])


def room(figures: Figures) -> Figure:
    """The chart of :func:`draw_room` alone."""
    with mpl.rc_context(STYLE):
        several = len(figures.modes) > 1
        height = row_height(figures) * len(rows(figures)) + (1.05 if several else 0.8)
        figure = blank(11.9, height)
        if several:
            legend(figure, figures.modes, 0.095, 1 - 0.1 / height)
        top = 1 - (0.65 if several else 0.45) / height
        draw_room(room_axes(figure, figures, 0.3 / height, top), figures)
    return figure


def room_axes(figure: Figure, figures: Figures, bottom: float, top: float) -> list[Axes]:
    """Axes in one row for :func:`draw_room`, between two heights of the figure."""
    bounds = columns(figures)
    ratios = [0.5 if bound == 0 else 1.0 for bound in bounds.values()]
    grid = figure.add_gridspec(
        1,
        len(bounds),
        width_ratios=ratios,
        left=0.095,
        right=0.995,
        bottom=bottom,
        top=top,
        wspace=0.09,
    )
    return [figure.add_subplot(grid[0, i]) for i in range(len(bounds))]


# --- growth along a run ---------------------------------------------------------------------

_FLOOR = 1e-19
_LEARNERS = {"simple": "IDQL, simple", "general": "IDQL, general"}


def draw_growth(axis: Axes, name: str, growth: Growth, last: int, labelled: bool) -> None:
    """Error of one learner by update: a line for the largest, shaded down to the median.

    ``labelled`` adds text to the lines.
    """
    for colour, series, bound, title in (
        ("single", growth.single, growth.single_bound, "float32"),
        ("double", growth.double, growth.double_bound, "double precision"),
    ):
        if not series:
            continue
        steps, middle, largest = summary.band(series)
        top = np.clip(largest, _FLOOR, 1e2)
        axis.fill_between(
            steps, np.clip(middle, _FLOOR, 1e2), top, color=COLOURS[colour], alpha=0.28, lw=0
        )
        axis.plot(steps, top, color=COLOURS[colour], lw=1.3)
        axis.plot([1, max(steps[-1], 2)], [bound, bound], color=COLOURS["bound"], lw=1.4)
        if labelled:
            above = colour == "single"
            axis.text(
                1.12,
                bound * (2 if above else 0.5),
                f"bound, {title}",
                color=COLOURS["bound"],
                va="bottom" if above else "top",
            )
            low, high = np.nanmin(middle[:8]) / 3, np.nanmax(top[:8]) * 2
            axis.text(
                1.12,
                high if above else low,
                title,
                color=COLOURS[colour],
                va="bottom" if above else "top",
            )
    if growth.curve:
        # All losses of such long runs would overlap; the parameters' largest error is one line.
        steps, errors = zip(*growth.curve, strict=True)
        axis.plot(
            steps, np.clip(errors, _FLOOR, 1e2), ".-", color=COLOURS["ink"], lw=1, ms=4, zorder=5
        )
        axis.plot([1, steps[-1]], [1e-8, 1e-8], color=COLOURS["bound"], lw=1.4)
        axis.annotate(
            f"any parameter: {max(errors):.0e}",
            (steps[-1], max(errors)),
            textcoords="offset points",
            xytext=(0, 5),
            ha="right",
            color=COLOURS["ink"],
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim((1, last))
    axis.set_ylim((_FLOOR, 1))
    axis.set_title(_LEARNERS.get(name, name), loc="left")
    ticks = [-16, -12, -8, -4, 0]
    axis.set_yticks([10.0**t for t in ticks], [power(t) if t else "1" for t in ticks])
    places = [x for x in (1, 10, 100, 1000, 10_000) if x <= last]
    axis.set_xticks(places, [str(x) if x < 1000 else power(len(str(x)) - 1) for x in places])
    axis.minorticks_off()
    axis.grid(True, color=COLOURS["grid"], lw=0.6)
    axis.set_axisbelow(True)


def last_step(found: Mapping[str, Growth]) -> int:
    """The last step on the time axis of all learners."""
    return max((growth.steps for growth in found.values()), default=1)


def run_growth(name: str, found: Growth, last: int, labelled: bool) -> Figure:
    """The chart of :func:`draw_growth` alone."""
    with mpl.rc_context(STYLE):
        figure = blank(2.9, 2.2)
        axis = figure.add_axes((0.17, 0.13, 0.8, 0.76))
        draw_growth(axis, name, found, last, labelled)
    return figure


# --- ulp errors -----------------------------------------------------------------------------


def draw_ulps(axis: Axes, title: str, counts: np.ndarray) -> None:
    """Histogram of ulp errors, ``counts [6]`` for 0, 1, 2, 3, 4 and more, on a log scale."""
    total = int(counts.sum())
    axis.bar(range(5), counts[:5], width=0.72, color=COLOURS["eager"])
    axis.bar(5, counts[5], width=0.72, color=COLOURS["bound"])
    axis.axvline(4.5, color=COLOURS["bound"], lw=1.4)
    axis.set_yscale("log")
    top = 10 ** (math.ceil(math.log10(max(total, 10))) + 1)
    axis.set_ylim((0.5, top))
    for place, count in enumerate(counts):
        axis.annotate(
            f"{count:,}",
            (place, max(count, 0.5)),
            textcoords="offset points",
            xytext=(0, 3),
            ha="center",
            va="bottom",
            color=COLOURS["ink" if count else "muted"],
        )
    axis.text(4.42, top, "bound", color=COLOURS["bound"], ha="right", va="top")
    axis.set_xticks(range(6), ["0 ulp", "1", "2", "3", "4", "more"])
    powers = range(0, round(math.log10(top)) + 1, 2)
    axis.set_yticks([10.0**p for p in powers], [power(p) if p else "1" for p in powers])
    axis.minorticks_off()
    axis.tick_params(axis="x", length=0)
    axis.set_title(f"{title}: {total:,}", loc="left")


def ulps(title: str, counts: np.ndarray) -> Figure:
    """The chart of :func:`draw_ulps` alone."""
    with mpl.rc_context(STYLE):
        figure = blank(3.8, 2.2)
        draw_ulps(figure.add_axes((0.1, 0.12, 0.88, 0.76)), title, counts)
    return figure
