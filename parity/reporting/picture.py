"""All charts of a report in one PNG, for a README."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from parity.reporting import panels, summary
from parity.reporting.charts import STYLE, blank
from parity.reporting.style import COLOURS
from parity.reporting.summary import Figures


def picture(figures: Figures, curves: Sequence[Figures], title: str, subtitle: str) -> Figure:
    """All charts in one figure, 1600 pixels wide at 100 dots per inch."""
    found, counts = summary.growths(figures, curves), summary.ulp_counts(figures)
    across, width = 5, 16.0
    lines = math.ceil(len(found) / across)
    heights = [
        1.15,
        panels.row_height(figures) * len(panels.rows(figures)) + 1.1,
        2.5 * lines,
        3.0 if counts else 0.1,
    ]
    if found:
        heights[2] += 0.5
    whole = sum(heights)
    with mpl.rc_context({**STYLE, "figure.facecolor": COLOURS["page"]}):
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
            panels.legend(figure, figures.modes, 0.45, at(top))
        if panels.columns(figures):
            axes = panels.room_axes(figure, figures, at(top + heights[1] - 0.4), at(top + 0.6))
            panels.draw_room(axes, figures)
        top += heights[1]
        if found:
            heading(
                top,
                "Error along a run, by update: the largest of all losses and logged means",
            )
            last = panels.last_step(found)
            for i, (name, growth) in enumerate(found.items()):
                row, column = divmod(i, across)
                low = top + 0.5 + 2.5 * (row + 1) - 0.45
                box = (0.035 + 0.193 * column, at(low), 0.165, 1.85 / whole)
                panels.draw_growth(figure.add_axes(box), name, growth, last, i == 0)
            top += heights[2]
        if counts:
            heading(top, "How far random draws and initial parameters are off, in ulp")
            for i, (sort, by_case) in enumerate(counts.items()):
                box = (0.035 + 0.325 * i, at(top + 2.6), 0.29, 1.9 / whole)
                panels.draw_ulps(figure.add_axes(box), sort, np.sum(list(by_case.values()), axis=0))
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    return stream.getvalue()
