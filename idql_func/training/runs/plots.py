"""Pictures of a run, drawn with matplotlib's object interface: no window and no global state."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from idql_func.files import write_bytes
from idql_func.training.runs.console import policy_name

__all__ = [
    "LOSS_TITLES",
    "finish_panels",
    "fit_returns",
    "frames_figure",
    "learning_curve",
    "log_scale_if_wide",
    "logged_losses",
    "panels",
    "return_keys",
    "save_figure",
    "series",
    "smoothed",
]

LOSS_TITLES = {
    "actor_loss": "Actor loss",
    "nll": "Negative log-likelihood of the actions, nats",
    "critic_loss": "Q loss",
    "value_loss": "V loss",
    "entropy": "Entropy of the policy, nats",
    "temperature": "Temperature",
}
"""The losses of all learners and their headings."""

# Shown for a run that has logged none or some of these and no others.
_USUAL = ("actor_loss", "critic_loss", "value_loss")
_TRAIN, _HELD_OUT, _REFERENCE = "#4477aa", "#ee6677", "#555555"
_COLLECTED = "#ccbb44"
_X = "x"
_X_LABELS = {"updates": "updates", "step": "steps"}
_RETURN_OF_N = re.compile(r"eval/N=(\d+)/return")
_SAMPLES = ("#bbbbbb", "#4477aa", "#228833", "#aa3377", "#ccbb44", "#66ccee")


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure without a window, with ``count`` axes in two or three columns.

    Example:
        >>> len(panels(5)[1])
        5
    """
    columns = 2 if count in (2, 4) else 3
    rows = -(-count // columns)
    figure = Figure(figsize=(5.5 * columns, 3.75 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def learning_curve(
    records: Sequence[Mapping[str, Any]],
    *,
    behaviour_return: float | None = None,
    title: str = "",
    labels: Mapping[str, str] = MappingProxyType({}),
    x: str = "updates",
    solved_return: float | None = None,
    handover: float | None = None,
) -> Figure:
    """Losses on training and held-out data, and returns for each N, over the updates.

    Args:
        records: rows of ``metrics.jsonl``, with ``updates`` and any of ``train/…_loss``,
            ``val/…_loss``, ``eval/N=…/return`` and ``eval/N=…/return_std_error`` (``eval/return``
            for learners without N). There is an axis for each loss that occurs. Where there is an
            ``episode/return``, those of the episodes that were collected are drawn too.
        behaviour_return: mean return of the dataset's own episodes, drawn as a line.
        title: heading of the figure.
        labels: headings of single losses in place of the usual ones, by their names.
        x: the entry of the records to draw everything over: ``updates`` or ``step``.
        solved_return: mean return at which the task counts as solved, drawn as a line.
        handover: where offline training ended and online training began, drawn as a line.

    Example:
        >>> figure = learning_curve([{"updates": 1, "train/actor_loss": 2.0}])
        >>> len(figure.axes)
        4
    """
    records = [{**record, _X: record[x]} for record in records if record.get(x) is not None]
    losses = logged_losses(records)
    figure, axes = panels(len(losses) + 1)
    *loss_axes, returns = axes
    if title:
        figure.suptitle(title)
    for axis, name in zip(loss_axes, losses, strict=True):
        _draw_loss(axis, records, name)
        axis.set_title({**LOSS_TITLES, **labels}[name])
    _draw_collected_returns(returns, records)
    references = {"behaviour in the data": behaviour_return, "counts as solved": solved_return}
    _draw_returns(returns, records, references)
    label = _X_LABELS.get(x, x)
    if handover is not None:
        label = "offline updates, then online steps"
        style = {"color": _REFERENCE, "linestyle": ":", "linewidth": 1}
        for axis in axes:
            axis.axvline(handover, label="online from here", **style)
            # One scale for all, also for a loss that is no longer logged online.
            axis.set_xlim(0, 1.02 * max(record[_X] for record in records))
    finish_panels(axes, label)
    return figure


def frames_figure(stacks: np.ndarray, title: str = "") -> Figure:
    """Observations of a learner from images, one row each, the frames of its stack side by side.

    Args:
        stacks: uint8 ``[n, H, W, 3, S]``.
        title: heading of the figure.

    Example:
        >>> len(frames_figure(np.zeros((2, 8, 8, 3, 4), np.uint8)).axes)
        8
    """
    rows, _, _, _, frames = stacks.shape
    figure = Figure(figsize=(1.6 * frames, 1.6 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize="small")
    axes = figure.subplots(rows, frames, squeeze=False)
    for row, stack in zip(axes, stacks, strict=True):
        for age, axis in enumerate(row):
            axis.imshow(stack[..., age], interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    return figure


def save_figure(figure: Figure, path: str | Path, dpi: int = 120) -> Path:
    """Write a figure as PNG, whole or not at all; returns the path."""
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi, format="png")
    write_bytes(path, content.getbuffer())
    return Path(path)


def logged_losses(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the losses to show of a run."""
    logged = {key for record in records for key in record}
    found = [n for n in LOSS_TITLES if {f"train/{n}", f"val/{n}"} & logged]
    return list(_USUAL) if set(found) <= set(_USUAL) else found


def _draw_loss(axis: Axes, records: Sequence[Mapping[str, Any]], name: str) -> None:
    parts = (("val", _HELD_OUT, "held out (dropout off)"), ("train", _TRAIN, "training"))
    for prefix, colour, label in parts:
        x, y = series(records, f"{prefix}/{name}")
        if len(x) == 0:
            continue
        window = max(1, len(x) // 40)
        if window > 1:
            axis.plot(x, y, color=colour, alpha=0.2, linewidth=0.8)
        axis.plot(x, smoothed(y, window), color=colour, label=label, linewidth=1.5)
    log_scale_if_wide(axis, [np.asarray(line.get_ydata(), float) for line in axis.get_lines()])


def smoothed(y: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last ``window`` values: single batches are too noisy to show a trend.

    Example:
        >>> smoothed(np.array([1.0, 3.0, 5.0]), 2)
        array([1., 2., 4.])
    """
    return np.array([np.mean(y[max(0, i - window + 1) : i + 1]) for i in range(len(y))])


def log_scale_if_wide(axis: Axes, lines: Sequence[np.ndarray]) -> None:
    """A logarithmic y axis for positive lines whose largest value is far above the median."""
    values = np.concatenate(lines) if lines else np.empty(0)
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 20 * np.median(values):
        axis.set_yscale("log")


def finish_panels(axes: Sequence[Axes], label: str) -> None:
    """Label, grid and legend of all panels; the last one shows returns."""
    for axis in axes:
        axis.set_xlabel(label)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            place = "upper left" if axis is axes[-1] else "upper right"
            axis.legend(frameon=False, fontsize="small", loc=place)


def _draw_returns(
    axis: Axes, records: Sequence[Mapping[str, Any]], references: Mapping[str, float | None]
) -> None:
    axis.set_title("Return in the environment (± standard error)")
    policies = return_keys(records)
    # The first colour is for the actor alone, beside the critic's choices.
    colours = _SAMPLES if len(policies) > 1 else _SAMPLES[1:]
    for (key, label), colour in zip(
        policies.items(), colours * (len(policies) // 6 + 1), strict=False
    ):
        x, y = series(records, key)
        errors = dict(zip(*series(records, f"{key}_std_error"), strict=True))
        heights, style = [errors.get(step, 0.0) for step in x], {"capsize": 2, "linewidth": 1.5}
        axis.errorbar(x, y, heights, color=colour, label=label, marker="o", markersize=4, **style)
    fit_returns(axis, bool(policies), references)


def fit_returns(axis: Axes, any_returns: bool, references: Mapping[str, float | None]) -> None:
    """Draw returns to compare with, and leave room for a legend; the axis includes 0."""
    for (label, value), style in zip(references.items(), ("--", "-."), strict=False):
        if value is not None:
            text = f"{label}: {value:.1f}"
            axis.axhline(value, color=_REFERENCE, linestyle=style, linewidth=1, label=text)
    axis.set_xlim(left=0)
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.0), high + 0.3 * (high - low))
    if not any_returns:
        axis.text(0.5, 0.5, "no evaluation", transform=axis.transAxes, ha="center")


def _draw_collected_returns(axis: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    x, y = series(records, "episode/return")
    if len(x) == 0:
        return
    window = max(1, len(x) // 20)
    axis.plot(x, y, ".", color=_COLLECTED, alpha=0.4, markersize=4)
    smooth = smoothed(y, window)
    axis.plot(x, smooth, color=_COLLECTED, linewidth=1.2, label="episodes of the training")


def return_keys(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The keys of returns in the records, in the order of N, and the policies' names."""
    logged = {key for record in records for key in record}
    numbers = sorted(int(m[1]) for m in map(_RETURN_OF_N.fullmatch, logged) if m)
    keys = {f"eval/N={n}/return": policy_name(n) for n in numbers}
    return {"eval/return": policy_name(None), **keys} if "eval/return" in logged else keys


def series(
    records: Sequence[Mapping[str, Any]], key: str, x: str = _X
) -> tuple[list[float], np.ndarray]:
    """The entries ``x`` and ``key`` of the records that have ``key``."""
    points = [(r[x], r[key]) for r in records if r.get(key) is not None]
    return [float(x) for x, _ in points], np.array([y for _, y in points], dtype=float)
