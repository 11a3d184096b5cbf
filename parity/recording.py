"""Run the original on every case and save what it computes.

Runs in the JAX environment; imports neither torch nor the port.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from parity import inputs
from parity.cases import COMMIT, Case, all_cases
from parity.coverage import COVERAGE, gathered, merged, read_coverage, write_coverage
from parity.jax_backend import JaxBackend
from parity.observing import Observer
from parity.programs import execute
from parity.public import public_names
from parity.store import (
    MANIFEST,
    REFERENCE,
    entry,
    read_manifest,
    save_tensors,
    write_manifest,
)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "gym", "tensorflow-probability")
COMMAND = "python -m parity record --upstream PATH"


def _commit(upstream: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(upstream), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def checked_backend(upstream: Path) -> JaxBackend:
    """The original's backend, at the one revision that counts.

    Raises:
        ValueError: the checkout is at another commit.
    """
    backend, found = JaxBackend(upstream), _commit(upstream)
    if found != COMMIT:
        raise ValueError(f"{upstream} is at commit {found}, but the record is of {COMMIT}")
    return backend


def save_cases(
    cases: list[Case],
    backend: JaxBackend,
    path: Path,
    observer: Observer | None = None,
    seen: dict[str, set[str]] | None = None,
) -> str:
    """Run cases and save their tensors as ``case::tensor`` in one file; returns its SHA-256.

    Given an ``observer``, ``seen`` is filled with the names that each case executed.
    """
    tensors: dict[str, np.ndarray] = {}
    for case in cases:
        begin = time.perf_counter()
        with observer.watching() if observer else contextlib.nullcontext(set[str]()) as executed:
            outputs = execute(backend, case.program, case.settings)
        if seen is not None:
            seen[case.id] = executed
        for name, array in outputs.items():
            tensors[f"{case.name}::{name}"] = np.asarray(array)
        print(f"{case.id}: {time.perf_counter() - begin:.1f} s", file=sys.stderr, flush=True)
    return save_tensors(path, tensors)


def kept(out: Path, made: dict[str, Any], groups: list[str]) -> dict[str, Any]:
    """What the record in ``out`` has of groups other than these, if it was made the same way.

    Raises:
        ValueError: it was made of other inputs or by other versions, so that they cannot be mixed.
    """
    if not (out / MANIFEST).is_file():
        return {"files": {}, "cases": []}
    old = read_manifest(out)
    for name in ("upstream", "versions", "platform", "settings", "inputs"):
        if old[name] != made[name]:
            raise ValueError(
                f"the record in {out} was made with other {name}: record all groups anew."
            )
    files = {group: file for group, file in old["files"].items() if group not in groups}
    return {"files": files, "cases": [c for c in old["cases"] if c["group"] in files]}


def record(
    upstream: Path, out: Path = REFERENCE, only: Sequence[str] | None = None
) -> dict[str, Any]:
    """Record every group (or those named, keeping the others) and write the manifest.

    Raises:
        ValueError: ``only`` names no group, the checkout is at another commit, or the groups that
            stay were recorded under other conditions.
    """
    cases = all_cases()
    groups = list(dict.fromkeys(case.group for case in cases))
    chosen = list(groups if only is None else only)
    if unknown := set(chosen) - set(groups):
        raise ValueError(f"there is no group {min(unknown)!r}; there are {', '.join(groups)}")
    backend = checked_backend(upstream)
    sorts = public_names(upstream)
    observer, seen = Observer(upstream, sorts), dict[str, set[str]]()
    made: dict[str, Any] = {
        "upstream": {"repository": "philippe-eecs/IDQL", "commit": COMMIT},
        "command": COMMAND,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "platform": {"device": "cpu", "system": platform.system(), "machine": platform.machine()},
        "settings": {
            "XLA_FLAGS": os.environ["XLA_FLAGS"],
            "jax_default_matmul_precision": "float32",
            "jax_enable_x64": "by case: x64",
            "jax_threefry_partitionable": "by case: partitionable",
        },
        "inputs": {
            "source": "parity/inputs.py (raw words of numpy.random.Philox, keyed by name)",
            "sha256": inputs.fingerprint(),
        },
    }
    old = kept(out, made, chosen)
    files: dict[str, dict[str, str]] = old["files"]
    entries = [*old["cases"], *(entry(case) for case in cases if case.group in chosen)]
    for group in chosen:
        members = [case for case in cases if case.group == group]
        name = f"{group}.safetensors"
        sha256 = save_cases(members, backend, out / name, observer, seen)
        files[group] = {"file": name, "sha256": sha256}
    manifest = {
        **made,
        "files": {group: files[group] for group in groups if group in files},
        "cases": sorted(entries, key=lambda case: groups.index(case["group"])),
    }
    write_manifest(out, manifest)
    before = read_coverage(out)["names"] if (out / COVERAGE).is_file() else {}
    covered = merged(before, gathered(sorts, seen), groups, chosen)
    write_coverage(out, COMMIT, covered)
    return manifest
