"""Results as tables for people and as JSON for programs."""

from __future__ import annotations

import contextlib
import datetime
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from parity.bounds import KINDS, promised
from parity.compare import Finding, Result


def figure(value: float) -> str:
    """A number as tables show it.

    >>> figure(0.0), figure(12.0), figure(1.5e-7), figure(math.inf)
    ('0', '12', '1.5e-07', '∞')
    """
    if value == 0:
        return "0"
    if math.isinf(value):
        return "∞"
    if value >= 1 and value == int(value) and value < 1e6:
        return str(int(value))
    return f"{value:.1e}"


def _worst(findings: Sequence[Finding], name: str) -> float:
    return max((getattr(f, name) for f in findings), default=0.0)


def kinds(results: Iterable[Result]) -> list[str]:
    """The kinds found: named kinds in their order, then a case's custom ones."""
    found = dict.fromkeys(f.kind for r in results for f in r.findings)
    return [k for k in KINDS if k in found] + [k for k in found if k not in KINDS]


MODULES = {
    "random": "random",
    **dict.fromkeys(("init", "network", "encoders", "layers", "parts"), "networks"),
    "diffusion": "networks.diffusion",
    **dict.fromkeys(("distributions", "distrax"), "distributions"),
    "losses": "losses",
    "optim": "optim",
    **dict.fromkeys(("create", "update", "update25", "actions", "double"), "agents.ddpm_iql"),
    **{name: f"agents.{name}" for name in ("bc", "iql", "sac", "td3", "drq", "pixel_bc")},
    **dict.fromkeys(("redq", "droq"), "agents.sac"),
    "calls": "agents",
    "augmentation": "agents.augmentations",
    **dict.fromkeys(("dataset", "buffers", "loaders"), "data"),
}
"""The module of ``idql_func`` that a group's cases test; other groups are shown by their name."""


def _module(result: Result) -> str:
    group = result.case.group
    # a case without a program belongs to a user's functions, whatever the name of its group
    return MODULES.get(group, group) if result.case.program else group


_UNITS = {"relative": "rel", "absolute": "abs", "relative L2": "L2", "entries": "count"}
_LEGEND = (
    "abs, rel, ulp: largest absolute, relative, ulp difference; error: largest error",
    "in the bound's measure; L2: relative L2 norm; count: number of unequal entries",
)


def _line(kind: str, cells: Sequence[str], unit: str, state: str) -> str:
    """One line of the table: 80 characters if ``kind`` has at most 13."""
    cases, tensors, *numbers = cells
    figures = "".join(f" {number:>7}" for number in numbers)
    return f"  {kind:<13} {cases:>5} {tensors:>7}{figures} {unit:<5} {state}".rstrip()


def table(results: Sequence[Result], title: str) -> list[str]:
    """Lines with rich's markup: for each module and mode, a row for each kind.

    A row has the numbers of cases and tensors, the largest differences, and the bound.
    """
    head = ("cases", "tensors", "abs", "rel", "ulp", "error", "bound")
    lines = [f"[bold]{escape(title)}[/bold]", _line("kind", head, "in", "")]
    for module in dict.fromkeys(map(_module, results)):
        for mode in dict.fromkeys(r.mode for r in results if _module(r) == module):
            members = [r for r in results if _module(r) == module and r.mode == mode]
            lines += [f"[bold]{escape(module)}, {mode}[/bold]", *_rows(members)]
    return [*lines, *(f"[dim]{line}[/dim]" for line in _LEGEND)]


def _rows(members: Sequence[Result]) -> Iterator[str]:
    if crashed := sum(bool(r.crash) for r in members):
        yield f"[red]{_line('(did not run)', (str(crashed), *[''] * 6), '', 'FAIL')}[/red]"
    for kind in kinds(members):
        having = [r for r in members if any(f.kind == kind for f in r.findings)]
        found = [f for r in having for f in r.findings if f.kind == kind]
        cells = [
            str(len(having)),
            str(len(found)),
            *(figure(_worst(found, name)) for name in ("absolute", "relative", "ulp", "error")),
            figure(promised(kind).bound),
        ]
        unit = promised(kind).unit
        good = all(f.passed for f in found)
        line = escape(_line(kind, cells, _UNITS.get(unit, unit), "ok" if good else "FAIL"))
        yield line if good else f"[red]{line}[/red]"


def failure(result: Result) -> str:
    """One line about a failed case: the first tensor out of bounds, or the crash."""
    name = result.case.id if result.mode == "eager" else f"{result.case.id} ({result.mode})"
    if result.crash:
        return f"{name}: {result.crash}"
    first = result.first_failure
    if first is None:
        return f"{name}: no reference tensors"
    bad = sum(not f.passed for f in result.findings)
    return (
        f"{name}: {bad} of {len(result.findings)} tensors out of bounds; first "
        f"{first.tensor} ({first.kind}): {figure(first.error)} {promised(first.kind).unit}, "
        f"bound {figure(first.bound)}; {first.detail}"
    )


def failures(results: Iterable[Result]) -> list[str]:
    """One line for each failed case."""
    return [failure(result) for result in results if not result.passed]


def show(results: Sequence[Result], title: str, wall: float | None = None) -> None:
    """Print the table, the failures and a summary line for each mode.

    ``wall`` is the total time in seconds.
    """
    console = Console()
    for line in table(results, title):
        console.print(line, highlight=False, soft_wrap=True)
    for line in failures(results):
        console.print(f"[red]FAIL[/red] {escape(line)}", highlight=False, soft_wrap=True)
    modes = list(dict.fromkeys(r.mode for r in results))
    for mode in modes:
        members = [r for r in results if r.mode == mode]
        how = f"{mode}: " if len(modes) > 1 else ""
        console.print(
            f"{how}{sum(r.passed for r in members)} of {len(members)} cases within bounds "
            f"({sum(len(r.findings) for r in members)} tensors)"
        )
    if wall is not None:
        console.print(f"{wall:.0f} seconds")


def environment(device: str = "cpu") -> dict[str, Any]:
    """The machine and the versions that the port ran with.

    >>> sorted(environment())
    ['cpu', 'date', 'device', 'numpy', 'platform', 'python', 'threads', 'torch']
    """
    import torch

    on = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "device": on,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def as_json(
    results: Sequence[Result],
    manifest: Mapping[str, Any] | None = None,
    device: str = "cpu",
    wall: float | None = None,
    unchecked: Sequence[str] = (),
) -> dict[str, Any]:
    """Every figure. Infinite errors (no comparison possible) become null.

    ``cases`` counts a case once for each mode; ``seconds`` is the sum of the durations of a mode's
    cases, and ``wall_seconds`` the total time, in any number of processes.
    ``unchecked`` are the lines of :func:`parity.modes.unchecked`.
    """

    def finite(value: Any) -> Any:
        if isinstance(value, tuple):
            return [finite(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    spent: dict[str, float] = {}
    for result in results:
        spent[result.mode] = spent.get(result.mode, 0.0) + result.seconds
    reference: dict[str, Any] = {}
    if manifest is not None:
        parts = ("versions", "platform", "settings")
        reference = {**manifest["upstream"], **{k: manifest[k] for k in parts if k in manifest}}
    return {
        "environment": environment(device),
        "reference": reference,
        "seconds": {mode: round(value, 2) for mode, value in spent.items()},
        "wall_seconds": None if wall is None else round(wall, 2),
        "cases": len(results),
        "passed": sum(r.passed for r in results),
        "unchecked": list(unchecked),
        "promises": {
            name: {"bound": promised(name).bound, "unit": promised(name).unit}
            for name in dict.fromkeys((*KINDS, *kinds(results)))
        },
        "results": [
            {
                "case": r.case.id,
                "group": r.case.group,
                "mode": r.mode,
                "passed": r.passed,
                "crash": r.crash,
                "seconds": round(r.seconds, 3),
                "tensors": [{k: finite(v) for k, v in asdict(f).items()} for f in r.findings],
            }
            for r in results
        ],
    }
