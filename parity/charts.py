"""The report's charts, drawn with matplotlib's object interface: no window, no global state.

Every colour is one of :data:`COLOURS`. In the page each stands for a CSS variable, so that charts
follow the reader's light or dark mode; :func:`svg` puts the variables in.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from parity import summary
from parity.compare import Finding
from parity.summary import Figures, Growth, share

# Okabe and Ito's palette, which colour-blind readers can tell apart, with marks that differ too.
COLOURS = {
    "ink": "#1c2126",
    "muted": "#5a6570",
    "grid": "#dde2e7",
    "stripe": "#f4f6f8",
    "page": "#fefefe",
    "bound": "#c4380d",
    "eager": "#0072b2",
    "compiled": "#d98b00",
    "vmapped": "#009e73",
    "single": "#a8528a",
    "double": "#2f8fc4",
}
_MARKS = {"eager": "o", "compiled": "s", "vmapped": "^"}
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.titlesize": 9,
    "axes.titlecolor": COLOURS["ink"],
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "parity",
    "path.simplify": False,
}


def percent(value: float) -> str:
    """A share for people.

    >>> percent(0.75), percent(0.0123), percent(2e-7), percent(0.0), percent(3.0), percent(math.inf)
    ('75 %', '1.2 %', '0.00002 %', '0', '300 %', '∞')
    """
    if value == 0:
        return "0"
    if math.isinf(value):
        return "∞"
    number = 100 * value
    if number >= 10:
        return f"{number:.0f} %"
    digits = max(0, 1 - math.floor(math.log10(number))) if number >= 1 else None
    places = digits if digits is not None else -math.floor(math.log10(number))
    return f"{number:.{places}f} %"


def power(exponent: int) -> str:
    """A power of ten, as text that needs no formula.

    >>> power(-17)
    '10⁻¹⁷'
    """
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def svg(figure: Figure, label: str) -> str:
    """A figure as an element for a page: same bytes each time, colours by CSS variable."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(_STYLE):
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index(" <g ") :]
    # The page says once what matplotlib repeats: fonts, joins, names of groups.
    text = re.sub(r' id="(figure|axes|patch|text|line2d|matplotlib|xtick|ytick)[^"]*"', "", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;]*;", "", text).replace("xlink:href", "href")
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    width, height = figure.get_size_inches()
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {72 * width:g} '
        f'{72 * height:g}" style="width: {96 * width:g}px">\n{text}'
    )


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches, 96 pixels each."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


# --- room to the bound ----------------------------------------------------------------------

_LOWEST = -9
_BEYOND = 1.0
"""Errors are drawn from 10⁻⁹ of their bound to ten times it, those outside at the margin."""


def place(value: float) -> float:
    """Where a part of the bound stands: its decimal logarithm, zero in a lane of its own."""
    if value == 0:
        return _LOWEST - 1.5
    return float(np.clip(math.log10(value), _LOWEST, _BEYOND)) if value < math.inf else _BEYOND


def rows(figures: Figures) -> list[str]:
    """The modules in the order in which they come."""
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
    shares: dict[int, dict[float, float]] = {}
    for row, name in enumerate(names):
        for mode, offset in zip(modes, offsets.tolist(), strict=True):
            finding = found.get((name, column, mode))
            if finding is not None:
                x = place(share(finding))
                _dot(axis, x, row + offset, finding, mode)
                shares.setdefault(row, {})[x] = share(finding)
    largest = max(max(at.values()) for at in shares.values())
    for row, at in shares.items():
        worst = max(at.values())
        if label and worst > 0 and (worst >= 0.1 or worst == largest):
            failed = worst > 1
            axis.annotate(
                percent(worst),
                (max(at) if failed else min(at), row),
                textcoords="offset points",
                xytext=(-7, 0),
                ha="right",
                va="center",
                zorder=7,
                color=COLOURS["bound" if failed else "ink"],
                weight="bold" if failed else "normal",
                bbox={"fc": COLOURS["page"], "ec": "none", "pad": 0.6} if failed else None,
            )


def row_height(figures: Figures) -> float:
    """Inches for one module, so that the marks of all modes stand one below the other."""
    return 0.2 if len(figures.modes) == 1 else 0.085 * max(len(figures.modes), 3) + 0.03


def _dot(axis: Axes, x: float, y: float, finding: Finding, mode: str) -> None:
    colour = COLOURS.get(mode, COLOURS["ink"])
    if finding.passed:
        # Hollow where there is no error at all.
        face = colour if finding.error > 0 else COLOURS["page"]
        axis.plot(x, y, _MARKS.get(mode, "o"), ms=4.4, mfc=face, mec=colour, mew=1, zorder=4)
    else:
        axis.plot(x, y, "X", ms=8, mfc=COLOURS["bound"], mec=COLOURS["page"], mew=0.6, zorder=6)


def room(figures: Figures) -> Figure:
    """The chart of :func:`draw_room` by itself."""
    with mpl.rc_context(_STYLE):
        several = len(figures.modes) > 1
        height = row_height(figures) * len(rows(figures)) + (1.05 if several else 0.8)
        figure = blank(11.9, height)
        if several:
            legend(figure, figures.modes, 0.095, 1 - 0.1 / height)
        top = 1 - (0.65 if several else 0.45) / height
        draw_room(room_axes(figure, figures, 0.3 / height, top), figures)
    return figure


def room_axes(figure: Figure, figures: Figures, bottom: float, top: float) -> list[Axes]:
    """Axes side by side for :func:`draw_room`, between two heights of the figure."""
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
    """Error by update of one learner: a line for the largest, a shade down to the median.

    ``labelled`` writes at the lines what they are.
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
        # Loss by loss such long runs would be a felt of peaks; the parameters tell it in one line.
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
    """Where the time axis of all learners ends."""
    return max((growth.steps for growth in found.values()), default=1)


def run_growth(name: str, found: Growth, last: int, labelled: bool) -> Figure:
    """The chart of :func:`draw_growth` by itself."""
    with mpl.rc_context(_STYLE):
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
    """The chart of :func:`draw_ulps` by itself."""
    with mpl.rc_context(_STYLE):
        figure = blank(3.8, 2.2)
        draw_ulps(figure.add_axes((0.1, 0.12, 0.88, 0.76)), title, counts)
    return figure


# --- all on one picture ---------------------------------------------------------------------


def legend(figure: Figure, modes: Sequence[str], x: float, y: float) -> None:
    """The marks of several modes, in words."""
    for mode in modes:
        text = f"{'●■▲'[list(_MARKS).index(mode)] if mode in _MARKS else '●'} {mode}"
        figure.text(x, y, text, color=COLOURS.get(mode, COLOURS["ink"]), va="center", fontsize=9)
        x += (6.5 * len(text) + 16) / (72 * figure.get_size_inches()[0])


def picture(figures: Figures, curves: Sequence[Figures], title: str, subtitle: str) -> Figure:
    """All charts on one figure, 1600 pixels wide at 100 dots an inch."""
    found, counts = summary.growths(figures, curves), summary.ulp_counts(figures)
    across, width = 5, 16.0
    lines = math.ceil(len(found) / across)
    heights = [
        1.15,
        row_height(figures) * len(rows(figures)) + 1.1,
        2.5 * lines,
        2.9 if counts else 0.0,
    ]
    if found:
        heights[2] += 0.5
    whole = sum(heights)
    with mpl.rc_context({**_STYLE, "figure.facecolor": COLOURS["page"]}):
        figure = blank(width, whole)

        def at(inches: float) -> float:
            return 1 - inches / whole

        def heading(inches: float, text: str) -> None:
            figure.text(0.012, at(inches), text, fontsize=12, weight="bold", va="top")

        figure.text(0.012, at(0.22), title, fontsize=17, weight="bold", va="top")
        figure.text(0.012, at(0.62), subtitle, fontsize=11, color=COLOURS["muted"], va="top")
        top = heights[0]
        heading(top - 0.1, "Worst error of each module as a part of its bound")
        if len(figures.modes) > 1:
            legend(figure, figures.modes, 0.45, at(top))
        axes = room_axes(figure, figures, at(top + heights[1] - 0.4), at(top + 0.6))
        draw_room(axes, figures)
        top += heights[1]
        if found:
            heading(top, "Error along a run: the largest of all losses and logged means")
            last = last_step(found)
            for i, (name, growth) in enumerate(found.items()):
                row, column = divmod(i, across)
                low = top + 0.5 + 2.5 * (row + 1) - 0.45
                box = (0.035 + 0.193 * column, at(low), 0.165, 1.85 / whole)
                draw_growth(figure.add_axes(box), name, growth, last, i == 0)
            top += heights[2]
        if counts:
            heading(top, "How far random draws and initial parameters are off, in ulp")
            for i, (sort, by_case) in enumerate(counts.items()):
                box = (0.035 + 0.325 * i, at(top + 2.6), 0.29, 1.9 / whole)
                draw_ulps(figure.add_axes(box), sort, np.sum(list(by_case.values()), axis=0))
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    return stream.getvalue()
