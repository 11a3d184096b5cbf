"""One picture of the learning curves of several members, and of their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from idql_func.training.runs.plots import (
    LOSS_TITLES,
    logged_losses,
    panels,
    return_keys,
    room_for_legend,
    series,
)

__all__ = ["members_curve"]

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
_REFERENCE = "#555555"

Records = Sequence[Mapping[str, Any]]


def members_curve(
    records: Mapping[str, Records],
    labels: Mapping[str, str],
    *,
    behaviour_return: float | None = None,
    title: str = "",
    titles: Mapping[str, str] = MappingProxyType({}),
) -> Figure:
    """Losses and returns of all members over the updates, thin, and their means, thick.

    A colour is one of the settings in which members differ beside their seeds; where there are
    none, it is a number of candidates N in the panel of the returns. The band about a mean is its
    standard error over the members.

    Args:
        records: member -> rows of its ``metrics.jsonl``.
        labels: member -> what tells it apart from members with other settings; ``""`` for nothing.
        behaviour_return: mean return of the dataset's own episodes, drawn as a line.
        title: heading of the figure.
        titles: headings of single losses in place of the usual ones, by their names.

    Example:
        >>> rows = [{"updates": 1, "train/nll": 2.0}]
        >>> len(members_curve({"seed0": rows, "seed1": rows}, {"seed0": "", "seed1": ""}).axes)
        2
    """
    everything = [row for own in records.values() for row in own]
    losses = logged_losses(everything)
    figure, axes = panels(len(losses) + 1)
    figure.suptitle(title)
    for axis, name in zip(axes, losses, strict=False):
        held_out = any(row.get(f"val/{name}") is not None for row in everything)
        key = f"{'val' if held_out else 'train'}/{name}"
        groups = {label: _of(records, labels, label) for label in dict.fromkeys(labels.values())}
        _draw(axis, {label: (own, key) for label, own in groups.items()}, smooth=True)
        what = "held out" if held_out else "training"
        axis.set_title(f"{ {**LOSS_TITLES, **titles}[name] }, {what}")
    _draw_returns(axes[-1], records, labels, everything, behaviour_return)
    for axis in axes:
        axis.set_xlabel("updates")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            place = "upper left" if axis is axes[-1] else "upper right"
            axis.legend(frameon=False, fontsize="small", loc=place)
    return figure


def _draw_returns(
    axis: Axes,
    records: Mapping[str, Records],
    labels: Mapping[str, str],
    everything: Records,
    behaviour_return: float | None,
) -> None:
    keys = return_keys(everything)
    axis.set_title("Return in the environment")
    groups: dict[str, tuple[dict[str, Records], str]] = {}
    if len(set(labels.values())) > 1 and keys:
        key, name = list(keys.items())[-1]
        axis.set_title(f"Return in the environment, {name}")
        groups = {v: (_of(records, labels, v), key) for v in dict.fromkeys(labels.values())}
    elif keys:
        groups = {name: (dict(records), key) for key, name in keys.items()}
    _draw(axis, groups, smooth=False)
    if behaviour_return is not None:
        text = f"behaviour in the data: {behaviour_return:.1f}"
        axis.axhline(behaviour_return, color=_REFERENCE, linestyle="--", linewidth=1, label=text)
    room_for_legend(axis)
    if not keys:
        axis.text(0.5, 0.5, "no evaluation", transform=axis.transAxes, ha="center")


def _of(
    records: Mapping[str, Records], labels: Mapping[str, str], label: str
) -> dict[str, Records]:
    return {member: own for member, own in records.items() if labels[member] == label}


def _draw(
    axis: Axes, groups: Mapping[str, tuple[Mapping[str, Records], str]], smooth: bool
) -> None:
    """Each group's members thin and in its colour, their mean thick, its standard error a band."""
    means = []
    for i, (name, (members, key)) in enumerate(groups.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        lines = [series(own, key, "updates") for own in members.values()]
        lines = [(x, _smoothed(y) if smooth else y) for x, y in lines if len(x)]
        if not lines:
            continue
        for x, y in lines:
            axis.plot(x, y, color=colour, alpha=0.35, linewidth=0.8)
        x = sorted(set.intersection(*(set(x) for x, _ in lines)))
        if not x:
            continue
        shared = np.array([[dict(zip(xs, y, strict=True))[u] for u in x] for xs, y in lines])
        mean, n = shared.mean(axis=0), len(lines)
        told = f"{name + ', ' if name else ''}mean of {n} ± standard error" if n > 1 else name
        marker = "" if smooth else "o"
        axis.plot(x, mean, color=colour, linewidth=2, label=told or None, marker=marker)
        if n > 1:
            error = shared.std(axis=0, ddof=1) / n**0.5
            axis.fill_between(x, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        means.append(mean)
    values = np.concatenate(means) if means else np.empty(0)
    values = values[np.isfinite(values)]
    if smooth and len(values) and values.min() > 0 and values.max() > 20 * np.median(values):
        axis.set_yscale("log")


def _smoothed(y: np.ndarray) -> np.ndarray:
    """The mean of the last few records: single batches are too noisy to see a trend in."""
    window = max(1, len(y) // 40)
    return np.array([np.mean(y[max(0, i - window + 1) : i + 1]) for i in range(len(y))])
