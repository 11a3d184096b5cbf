"""An HTML page with the results of checks, and the same charts as a PNG."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity import tables
from parity.coverage import Row, row
from parity.evidence import COVERAGE, read_coverage
from parity.reporting import summary
from parity.reporting.page import mutations_section, page, verdict
from parity.reporting.picture import picture, png
from parity.reporting.summary import Figures
from parity.store import REFERENCE, read_manifest, write_whole

CURVES = Path(__file__).resolve().parent / "figures" / "double_10000.json"
"""Recorded errors of long runs of port and original (``python -m parity live --curve``)."""


def _checked(args: argparse.Namespace, directory: Path, manifest: Mapping[str, Any]) -> Figures:
    """Run a check and return its results."""
    import torch

    from parity.checking import check
    from parity.modes import MODES, unchecked
    from parity.store import recorded

    torch.set_num_threads(1)  # as a check does
    begin = time.perf_counter()
    modes = MODES if args.mode == "all" else (args.mode,)
    results = check(directory, args.only, modes, args.jobs)
    wall = time.perf_counter() - begin
    out = unchecked([member for member, _ in recorded(directory, args.only)], modes)
    content = tables.as_json(results, manifest, wall=wall, unchecked=out)
    # through JSON, so that a report does not depend on whether the check was saved to a file
    return summary.figures_of(json.loads(json.dumps(content)))


def _read_mutations(path: Path) -> dict[str, Any]:
    content = summary.read_json(path)
    try:
        mutations_section(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not hold what `python -m parity mutate --json` writes "
            f"({type(error).__name__}: {error})."
        ) from error
    return content


def _covered(directory: Path, figures: Figures) -> list[Row]:
    """The coverage rows, if the record has the names that each case executed."""
    if not (directory / COVERAGE).is_file():
        return []
    passed: dict[str, bool] = {}
    for entry in figures.entries:
        passed[entry.case] = entry.passed and passed.get(entry.case, True)
    names = read_coverage(directory)["names"]
    return [row(name, entry["cases"], passed) for name, entry in names.items()]


def report_command(args: argparse.Namespace) -> int:
    """``python -m parity report``: 0 if all tensors are within bounds, else 1.

    Raises:
        ValueError: a file is missing or holds something else, or a result is given twice.
    """
    directory = args.reference or REFERENCE
    manifest = read_manifest(directory)
    mutations = None if args.mutations is None else _read_mutations(args.mutations)
    curves = [summary.read_figures(CURVES)] if CURVES.is_file() else []
    if args.figures:
        figures = summary.merged([(str(p), summary.read_figures(p)) for p in args.figures])
    else:
        figures = _checked(args, directory, manifest)
    content = page(figures, manifest, curves, mutations, _covered(directory, figures))
    write_whole(args.out, content.encode())
    line, worst = verdict(figures)
    passed = all(entry.passed for entry in figures.entries)
    mark = "✓" if passed else "✗"
    if args.png is not None:
        write_whole(args.png, png(picture(figures, curves, f"{mark} {line}", worst)))
    print(f"{line}. {worst}")
    print(f"written: {args.out}" + (f" and {args.png}" if args.png is not None else ""))
    return 0 if passed else 1
