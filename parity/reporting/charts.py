"""The common parts of all charts: style, numbers as text, and a figure as an element of a page.

Drawn with matplotlib's object interface: no window, no global state. Every colour is one of
:data:`parity.reporting.style.COLOURS`; :func:`svg` replaces them by CSS variables, so that charts
follow the reader's light or dark mode.
"""

from __future__ import annotations

import html
import io
import math
import re
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from parity.reporting.style import COLOURS

STYLE: dict[Any, Any] = {
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
    """A share in percent, as text.

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
    """A power of ten, as plain text.

    >>> power(-17)
    '10⁻¹⁷'
    """
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def svg(figure: Figure, label: str) -> str:
    """A figure as SVG for a page, with CSS variables as colours; the same bytes each time."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(STYLE):
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index(" <g ") :]
    # The page sets once what matplotlib repeats: fonts, joins, names of groups.
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
    """An empty figure, in inches of 96 pixels."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure
