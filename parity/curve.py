"""The error between the two sides over a long run: after 1, 2, 5, … updates.

A small JSON file stores, for each network, the largest error of any parameter tensor after each
number of updates, and for each loss the largest error of any update so far. The tensors themselves
are too large to store.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parity.compare import Finding, Result
from parity.store import write_whole


def _points(result: Result) -> dict[int, dict[str, Finding]]:
    """The finding with the largest error, by number of updates and network."""
    worst: dict[int, dict[str, Finding]] = {}
    for finding in result.findings:
        head, _, rest = finding.tensor.partition("/")
        if head == "curve":
            step, network, _ = rest.split("/", 2)
            networks = worst.setdefault(int(step), {})
            if network not in networks or finding.error > networks[network].error:
                networks[network] = finding
    return dict(sorted(worst.items()))


def curve_table(results: Sequence[Result]) -> list[str]:
    """Lines: the largest relative error of any parameter tensor of each network over the updates.

    Each case has a line for its name and two for the names of its networks.
    """
    lines = ["largest relative error of any parameter tensor"]
    for result in results:
        points = _points(result)
        networks = list(dict.fromkeys(name for at in points.values() for name in at))
        if not networks:
            continue
        lines.append(result.case.name)
        for prefix in ("target_", ""):  # a second line of the head keeps the columns narrow
            names = [
                name.removeprefix("target_") if not prefix else "target" * name.startswith(prefix)
                for name in networks
            ]
            first = "" if prefix else "updates"
            lines.append(f"  {first:>8}" + "".join(f" {name:>13}" for name in names))
        for step, at in points.items():
            errors = (f"{at[n].error:.1e}" if n in at else "" for n in networks)
            lines.append(f"  {step:>8}" + "".join(f" {error:>13}" for error in errors))
    return lines


def _entry(result: Result, command: str) -> dict[str, Any]:
    points = _points(result)
    tensors = []
    for step, networks in points.items():
        for network, finding in networks.items():
            tensors.append({**_figures(finding), "tensor": f"curve/{step}/{network}"})
            tensors[-1]["detail"] = f"largest of {finding.tensor}"
    for finding in result.findings:
        if finding.growth is not None:
            # errors of every update would make up most of the file
            upto = {step: max(finding.growth[:step]) for step in points}
            tensors.append({**_figures(finding), "largest_up_to": upto})
        elif finding.tensor.startswith("actions/"):
            tensors.append(_figures(finding))
    settings = {k: v for k, v in result.case.settings.items() if k != "keep"}
    return {
        "case": result.case.id,
        "group": result.case.group,
        "mode": result.mode,
        "passed": result.passed,
        "crash": result.crash,
        "seconds": round(result.seconds, 1),
        "settings": settings,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "tensors": tensors,
    }


def _figures(finding: Finding) -> dict[str, Any]:
    return {k: v for k, v in asdict(finding).items() if k not in ("ulps", "growth", "detail")}


def write_curve(
    path: Path, results: Sequence[Result], figures: Mapping[str, Any], command: str
) -> None:
    """Write the curves of ``results``; curves of other cases stay in the file.

    Args:
        path: a new file, or one that holds curves.
        results: of live runs; results without a curve are ignored.
        figures: :func:`parity.tables.as_json` of the results, for environment and reference.
        command: the command to name in the file.

    Raises:
        ValueError: if the file exists and does not hold curves.
    """
    head = {name: figures[name] for name in ("environment", "reference")}
    new = [{**_entry(r, command), **head} for r in results if _points(r)]
    kept: list[dict[str, Any]] = []
    if path.is_file():
        try:
            kept = json.loads(path.read_text())["results"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} holds no curves: give another file.") from error
    names = {entry["case"] for entry in new}
    entries = [*(entry for entry in kept if entry["case"] not in names), *new]
    whole = {"cases": len(entries), "passed": sum(e["passed"] for e in entries)}
    write_whole(path, json.dumps({**head, **whole, "results": entries}, indent=1).encode())
