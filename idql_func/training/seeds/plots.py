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
    finish_panels,
    fit_returns,
    log_scale_if_wide,
    logged_losses,
    panels,
    return_keys,
    series,
    smoothed,
)

__all__ = ["members_curve"]

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")

Records = Sequence[Mapping[str, Any]]


def members_curve(
    records: Mapping[str, Records],
    labels: Mapping[str, str],
    *,
    behaviour_return: float | None = None,
    title: str = "",
    titles: Mapping[str, str] = MappingProxyType({}),
) -> Figure:
    """Losses and returns of all members as thin lines over the updates, their means as thick ones.

    A colour stands for one of the settings in which members differ besides their seeds; if there
    are none, for a number of candidates N in the panel of returns. The band around a mean is its
    standard error over the members.

    Args:
        records: member -> rows of its ``metrics.jsonl``.
        labels: member -> the settings that other members do not have; ``""`` if there are none.
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
        groups = _grouped(records, labels).items()
        _draw(axis, {label: (own, key) for label, own in groups}, smooth=True)
        what = "held out" if held_out else "training"
        axis.set_title(f"{ {**LOSS_TITLES, **titles}[name] }, {what}")
    _draw_returns(axes[-1], records, labels, everything, behaviour_return)
    finish_panels(axes, "updates")
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
        groups = {label: (own, key) for label, own in _grouped(records, labels).items()}
    elif keys:
        groups = {name: (dict(records), key) for key, name in keys.items()}
    _draw(axis, groups, smooth=False)
    fit_returns(axis, bool(keys), {"behaviour in the data": behaviour_return})


def _grouped(
    records: Mapping[str, Records], labels: Mapping[str, str]
) -> dict[str, dict[str, Records]]:
    """Label -> its members' records."""
    return {
        label: {member: own for member, own in records.items() if labels[member] == label}
        for label in dict.fromkeys(labels.values())
    }


def _draw(
    axis: Axes, groups: Mapping[str, tuple[Mapping[str, Records], str]], smooth: bool
) -> None:
    """Each group's members as thin lines of one colour, their mean thick, the error as a band."""
    means = []
    for i, (name, (members, key)) in enumerate(groups.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        lines = [series(own, key, "updates") for own in members.values()]
        lines = [(x, y) for x, y in lines if len(x)]
        if not lines:
            continue
        if smooth:
            lines = [(x, smoothed(y, max(1, len(y) // 40))) for x, y in lines]
        for x, y in lines:
            axis.plot(x, y, color=colour, alpha=0.35, linewidth=0.8)
        x = sorted(set.intersection(*(set(x) for x, _ in lines)))
        if not x:
            continue
        shared = np.array([[dict(zip(xs, y, strict=True))[u] for u in x] for xs, y in lines])
        mean, n = shared.mean(axis=0), len(lines)
        text = f"{name + ', ' if name else ''}mean of {n} ± standard error" if n > 1 else name
        marker = "" if smooth else "o"
        axis.plot(x, mean, color=colour, linewidth=2, label=text or None, marker=marker)
        if n > 1:
            error = shared.std(axis=0, ddof=1) / n**0.5
            axis.fill_between(x, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        means.append(mean)
    if smooth:
        log_scale_if_wide(axis, means)
