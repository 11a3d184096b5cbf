"""Summaries of the results of one or several checks, read from JSON or just computed.

The report only displays them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from parity.compare import Finding, Judged


@dataclass(frozen=True)
class Entry(Judged):
    """One case in one mode, as in the JSON file."""

    case: str
    group: str
    mode: str
    crash: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Figures:
    """All entries, with the environment, the record and the time.

    ``seconds`` is the sum over the cases of a mode, ``wall`` the elapsed time.
    """

    entries: tuple[Entry, ...]
    environments: tuple[dict[str, Any], ...] = ()
    references: tuple[dict[str, Any], ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    wall: float = 0.0
    unchecked: tuple[str, ...] = ()

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry.mode for entry in self.entries))

    @property
    def findings(self) -> Iterable[tuple[Entry, Finding]]:
        return ((entry, finding) for entry in self.entries for finding in entry.findings)


_NAMES = tuple(f.name for f in fields(Finding))


def _number(value: Any) -> float:
    """Read a number; null means infinity, which JSON does not have."""
    return math.inf if value is None else float(value)


def _finding(tensor: Mapping[str, Any]) -> Finding:
    known = {name: tensor[name] for name in _NAMES if name in tensor}
    for name in ("error", "bound", "absolute", "relative", "ulp"):
        known[name] = _number(tensor[name])
    if (ulps := tensor.get("ulps")) is not None:
        known["ulps"] = tuple(int(count) for count in ulps)
    if (growth := tensor.get("growth")) is not None:
        known["growth"] = tuple(_number(error) for error in growth)
    return Finding(**known)


def _entry(result: Mapping[str, Any]) -> Entry:
    case = str(result["case"])
    return Entry(
        case,
        str(result.get("group", case.partition("/")[0])),
        str(result.get("mode", "eager")),
        str(result.get("crash", "")),
        tuple(_finding(tensor) for tensor in result["tensors"]),
    )


def figures_of(content: Mapping[str, Any]) -> Figures:
    """Read the results that ``check --json`` and ``live --json`` write.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: they are of another form.
    """
    environment, reference = content.get("environment"), content.get("reference")
    return Figures(
        tuple(_entry(result) for result in content["results"]),
        (dict(environment),) if environment else (),
        (dict(reference),) if reference else (),
        {str(mode): float(s) for mode, s in dict(content.get("seconds") or {}).items()},
        float(content.get("wall_seconds") or 0.0),
        tuple(map(str, content.get("unchecked") or content.get("left_open") or ())),
    )


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: if the file does not exist or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error


def read_figures(path: Path) -> Figures:
    """Figures from a file.

    Raises:
        ValueError: if the file does not exist or holds no results.
    """
    content = read_json(path)
    try:
        return figures_of(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} does not hold the figures of `python -m parity check --json` "
            f"({type(error).__name__}: {error})."
        ) from error


def merged(parts: Sequence[tuple[str, Figures]]) -> Figures:
    """Merge the results of several files, each given with its name.

    Raises:
        ValueError: if a case is in two of them in the same mode, or there are no cases.
    """
    seen: dict[tuple[str, str], str] = {}
    for name, part in parts:
        for entry in part.entries:
            before = seen.setdefault((entry.case, entry.mode), name)
            if before is not name:
                raise ValueError(
                    f"{entry.case} ({entry.mode}) is in {before} and in {name}: give it once."
                )
    if not seen:
        raise ValueError(f"there are no results in {', '.join(name for name, _ in parts)}.")
    seconds: dict[str, float] = {}
    for _, part in parts:
        for mode, spent in part.seconds.items():
            seconds[mode] = seconds.get(mode, 0.0) + spent
    figures = [part for _, part in parts]
    return Figures(
        tuple(entry for part in figures for entry in part.entries),
        _once(e for part in figures for e in part.environments),
        _once(r for part in figures for r in part.references),
        seconds,
        sum(part.wall for part in figures),
        tuple(dict.fromkeys(line for part in figures for line in part.unchecked)),
    )


def _once(items: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    out: list[dict[str, Any]] = []
    for item in items:
        if item not in out:
            out.append(item)
    return tuple(out)


def share(finding: Finding) -> float:
    """The error divided by its bound; infinite for any error with bound 0.

    >>> share(Finding("x", "normal", error=3.0, bound=4.0, absolute=0, relative=0, ulp=3.0))
    0.75
    """
    if finding.error == 0:
        return 0.0
    return finding.error / finding.bound if finding.bound > 0 else math.inf


def worst(figures: Figures) -> tuple[Entry, Finding] | None:
    """The finding with the largest share of its bound; the first one on a tie."""
    return max(figures.findings, key=lambda pair: share(pair[1]), default=None)


def module(group: str) -> str:
    """The row of a group; live variants of one learner share a row.

    >>> module("random"), module("live-drq-cameras"), module("random-td3")
    ('random', 'live drq', 'drawn td3')
    """
    first, _, rest = group.partition("-")
    if rest and first in ("live", "random"):
        return f"{'live' if first == 'live' else 'drawn'} {rest.partition('-')[0]}"
    return group


PROMISES: dict[str, tuple[str, ...]] = {
    "identical": ("bits",),
    "draws, initial": ("normal", "init"),
    "forward": ("forward",),
    "gradient": ("gradient",),
    "25 updates": ("loss", "mean", "state"),
    "actions": ("action",),
    "double": ("double", "double_loss"),
}
"""Kinds that share a bound, by the name of their column."""


def column(kind: str) -> str:
    """The column of a kind; a custom bound has its own.

    >>> column("loss"), column("relative 1e-5")
    ('25 updates', 'relative 1e-5')
    """
    return next((name for name, kinds in PROMISES.items() if kind in kinds), kind)


def nearest(figures: Figures) -> dict[tuple[str, str, str], Finding]:
    """The finding nearest to its bound, by module, column and mode."""
    out: dict[tuple[str, str, str], Finding] = {}
    for entry, finding in figures.findings:
        place = (module(entry.group), column(finding.kind), entry.mode)
        if place not in out or share(finding) > share(out[place]):
            out[place] = finding
    return out


@dataclass(frozen=True)
class Growth:
    """Errors of one learner's losses and logged means by step, one array ``[steps]`` per series.

    ``curve`` is the largest error of any parameter after so many updates, ``(updates, error)``.
    """

    single: tuple[np.ndarray, ...] = ()
    double: tuple[np.ndarray, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    single_bound: float = math.nan
    double_bound: float = math.nan

    @property
    def steps(self) -> int:
        """Number of updates of the longest run."""
        lengths = [len(series) for series in (*self.single, *self.double)]
        return max([*lengths, *(step for step, _ in self.curve)], default=0)


def _learner(entry: Entry) -> str:
    """The learner of a run; for IDQL's two groups it is the beginning of the name."""
    group, _, name = entry.case.partition("/")
    if group in ("update25", "double"):
        return name.partition("-")[0]
    first, _, rest = group.partition("-")
    return (rest or first).partition("-")[0]


def growths(figures: Figures, curves: Sequence[Figures] = ()) -> dict[str, Growth]:
    """Error growth along the runs of each learner, all modes together.

    Args:
        curves: figures of long runs, of which the tensors ``curve/<updates>/…`` count.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    bounds: dict[tuple[str, str], float] = {}
    for entry in (e for part in (figures, *curves) for e in part.entries):
        learner = _learner(entry)
        for finding in entry.findings:
            if finding.tensor.startswith("curve/"):
                place, value = "curve", (int(finding.tensor.split("/")[1]), finding.error)
            elif finding.growth is not None and len(finding.growth) > 2:
                place = "double" if finding.kind.startswith("double") else "single"
                value = np.array(finding.growth)
                bounds[learner, place] = finding.bound
            else:
                continue
            found.setdefault(learner, {}).setdefault(place, []).append(value)
    out = {}
    for learner, places in found.items():
        steps: dict[int, float] = {}
        for step, error in places.get("curve", ()):
            steps[step] = max(error, steps.get(step, 0.0))
        out[learner] = Growth(
            tuple(places.get("single", ())),
            tuple(places.get("double", ())),
            tuple(sorted(steps.items())),
            bounds.get((learner, "single"), math.nan),
            bounds.get((learner, "double"), math.nan),
        )
    return out


def band(series: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step numbers from 1, and the median and the largest error at each; runs may end early.

    Errors of zero cannot be drawn on a logarithmic axis and are left out; where all are zero, both
    are NaN.

    >>> steps, middle, largest = band([np.array([1.0, 2.0]), np.array([3.0]), np.zeros(3)])
    >>> steps.tolist(), middle.tolist(), largest.tolist()
    ([1, 2, 3], [2.0, 2.0, nan], [3.0, 2.0, nan])
    """
    steps = max(len(s) for s in series)
    at = [[s[i] for s in series if len(s) > i and s[i] > 0] or [np.nan] for i in range(steps)]
    middle = np.array([np.median(errors) for errors in at])
    return np.arange(1, steps + 1), middle, np.array([max(errors) for errors in at])


def ulp_counts(figures: Figures) -> dict[str, dict[str, np.ndarray]]:
    """How many entries are 0, 1, 2, 3, 4 and more ulp off, by kind and by case or module.

    The kinds are the draws of each float type and the initial parameters.
    """
    out: dict[str, dict[str, np.ndarray]] = {}
    for entry, finding in figures.findings:
        if finding.ulps is None:
            continue
        if finding.kind == "init":
            sort, row = "initial parameters", module(entry.group)
        else:
            wide = entry.case.endswith("-64")
            sort, row = f"draws in float{64 if wide else 32}", entry.case
        rows = out.setdefault(sort, {})
        rows[row] = rows.get(row, np.zeros(6, np.int64)) + np.array(finding.ulps)
    return out


def exact_streams(figures: Figures) -> dict[str, tuple[int, int]]:
    """Number of identical tensors and of all tensors of the random module, by function."""
    out: dict[str, tuple[int, int]] = {}
    for entry, finding in figures.findings:
        if entry.group == "random" and finding.kind == "bits":
            name = entry.case.partition("/")[2].partition("-")[0]
            same, every = out.get(name, (0, 0))
            out[name] = (same + (finding.error == 0), every + 1)
    return out
