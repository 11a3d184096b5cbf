"""Run the original on every case and save its outputs.

Runs in the JAX environment; imports neither torch nor the port.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.cases import Case
from parity.evidence import COVERAGE, gathered, merged, read_coverage, write_coverage
from parity.functions import generated_inputs, save_groups, versions
from parity.original.observing import Observer
from parity.original.originals import IDQL, original_of
from parity.original.public import public_names
from parity.outputs import Function
from parity.programs import on
from parity.store import MANIFEST, REFERENCE, entry, read_manifest, write_manifest

_OPTIONAL = ("distrax",)
"""Packages that only some groups need."""

COMMAND = "python -m parity record --upstream PATH"


def observed(function: Function, observer: Observer, seen: dict[str, set[str]]) -> Function:
    """The function, wrapped to store in ``seen`` the names that each case executes."""

    def run(case: Case) -> Mapping[str, Any]:
        with observer.watching() as seen[case.id]:
            return function(case)

    return run


def kept(out: Path, made: dict[str, Any], groups: list[str]) -> dict[str, Any]:
    """The other groups of the record in ``out``, if it was made under the same conditions.

    A package that one group alone needs may be absent while others are recorded; its version stays
    in the manifest.

    Raises:
        ValueError: it was made with other inputs or versions, so that they cannot be mixed.
    """
    if not (out / MANIFEST).is_file():
        return {"files": {}, "cases": []}
    old = read_manifest(out)
    for package in _OPTIONAL:
        found = old["versions"].get(package)
        if package not in made["versions"] and found is not None:
            made["versions"][package] = found
    for name in ("upstream", "versions", "platform", "settings", "inputs"):
        before = old[name]
        if name == "versions":
            before = {**{p: made[name][p] for p in _OPTIONAL if p in made[name]}, **before}
        if before != made[name]:
            raise ValueError(
                f"the record in {out} was made with other {name}: record all groups again."
            )
    files = {group: file for group, file in old["files"].items() if group not in groups}
    return {"files": files, "cases": [c for c in old["cases"] if c["group"] in files]}


def record(
    upstream: Path, out: Path = REFERENCE, only: Sequence[str] | None = None
) -> dict[str, Any]:
    """Record every group (or those named, keeping the others) and write the manifest.

    ``upstream`` is a checkout of one of the originals; each has its own folder in ``out``.

    Raises:
        ValueError: ``only`` names no group, the checkout is at another commit, or the groups that
            stay were recorded under other conditions.
    """
    original = original_of(upstream)
    cases, out = original.cases(), out / original.folder
    groups = list(dict.fromkeys(case.group for case in cases))
    chosen = list(groups if only is None else only)
    if unknown := set(chosen) - set(groups):
        raise ValueError(f"there is no group {min(unknown)!r}; there are {', '.join(groups)}")
    backend = original.checked_backend(upstream)
    function, observer = on(backend), None
    if original is IDQL:  # the public names that each case executes
        sorts = public_names(upstream)
        observer, seen = Observer(upstream, sorts), dict[str, set[str]]()
        function = observed(function, observer, seen)
    made: dict[str, Any] = {
        "upstream": original.source,
        "command": COMMAND,
        "versions": versions(original.packages),
        "platform": {"device": "cpu", "system": platform.system(), "machine": platform.machine()},
        "settings": {
            "XLA_FLAGS": os.environ["XLA_FLAGS"],
            "jax_default_matmul_precision": "float32",
            "jax_enable_x64": "by case: x64",
            "jax_threefry_partitionable": "by case: partitionable",
        },
        "inputs": generated_inputs(),
    }
    kept(out, made, chosen)  # raises before the work if the groups cannot be mixed
    new = [case for case in cases if case.group in chosen]
    saved = save_groups(new, function, out)
    old = kept(out, made, chosen)  # read again: other groups may have been recorded meanwhile
    files = {**old["files"], **saved}
    entries = [*old["cases"], *map(entry, new)]
    place = {(case.group, case.name): k for k, case in enumerate(cases)}
    manifest = {
        **made,
        "files": {group: files[group] for group in groups if group in files},
        "cases": sorted(entries, key=lambda case: place[case["group"], case["name"]]),
    }
    write_manifest(out, manifest)
    if observer is None:
        return manifest
    before = read_coverage(out)["names"] if (out / COVERAGE).is_file() else {}
    covered = merged(before, gathered(sorts, seen), groups, chosen)
    write_coverage(out, original.commit, covered)
    return manifest
