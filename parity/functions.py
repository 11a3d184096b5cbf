"""Record any function, and compare any other function with the record.

A function takes a :class:`parity.cases.Case` and returns named arrays, nested or not. The
reference (usually JAX) needs no torch; the port (usually torch) needs no JAX. The project's own
`record` and `check` use the same functions.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity import inputs
from parity.cases import Case
from parity.outputs import Function, computed, named
from parity.store import (
    ARRAYS,
    RecordError,
    entry,
    read_manifest,
    recorded,
    save_tensors,
    write_manifest,
    write_whole,
)

if TYPE_CHECKING:
    from parity.compare import Result

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "chex", "distrax", "dm-haiku", "equinox"),
    *("tensorflow-probability", "torch", "numpy", "scipy"),
)
"""Packages whose versions are in a record if they are installed."""

FLAGS = ("jax_default_matmul_precision", "jax_enable_x64", "jax_threefry_partitionable")


def case_tensors(case: Case, function: Function) -> dict[str, np.ndarray]:
    """A reference's outputs and input arrays for a case, named ``case::tensor``.

    Raises:
        ValueError: an output has no promise, or it or an array cannot be saved.
    """
    arrays = named(case.arrays, f"the arrays of {case.id}") if case.arrays else {}
    begin = time.perf_counter()
    outputs = computed(function, replace(case, arrays=inputs.unflatten(arrays)))
    print(f"{case.id}: {time.perf_counter() - begin:.1f} s", file=sys.stderr, flush=True)
    for name in outputs:
        if name.partition("/")[0] not in case.kinds:
            raise ValueError(
                f"case {case.id}: output {name!r} has no promise in kinds, which has "
                f"{', '.join(case.kinds) or 'none'}"
            )
    given = {f"{ARRAYS}{name}": array for name, array in arrays.items()}
    return {f"{case.name}::{name}": array for name, array in {**outputs, **given}.items()}


def save_groups(cases: Sequence[Case], function: Function, out: Path) -> dict[str, dict[str, str]]:
    """Run a reference on all cases, then save one file for each group.

    Returns:
        File and SHA-256 by group, for the manifest.

    Raises:
        ValueError: there are no cases, or two of one name; or as :func:`case_tensors`.
    """
    if not cases:
        raise ValueError("there are no cases to record")
    names = [case.id for case in cases]
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two cases are named {duplicate}: give each a unique name")
    tensors: dict[str, dict[str, np.ndarray]] = {}
    for case in cases:
        tensors.setdefault(case.group, {}).update(case_tensors(case, function))
    files = {}
    for group, members in tensors.items():
        name = f"{group}.safetensors"
        files[group] = {"file": name, "sha256": save_tensors(out / name, members)}
    return files


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Version of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def generated_inputs() -> dict[str, str]:
    """The manifest's entry about the inputs that both sides generate."""
    return {
        "source": "parity/inputs.py (raw words of numpy.random.Philox, keyed by name)",
        "sha256": inputs.fingerprint(),
    }


def conditions(reference: Function, source: Mapping[str, str]) -> dict[str, Any]:
    """The head of a manifest: source, versions and flags."""
    jax = sys.modules.get("jax")  # the flags of JAX matter only if the reference imported it
    flags: dict[str, Any] = {}
    if jax:
        flags = {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}
        flags |= {flag: getattr(jax.config, flag, None) for flag in FLAGS}
    return {
        "upstream": {"function": _name(reference), **source},
        "command": f"python {Path(sys.argv[0]).name}".strip(),
        "versions": versions(PACKAGES),
        "platform": {
            "device": jax.default_backend() if jax else "cpu",
            "system": platform.system(),
            "machine": platform.machine(),
        },
        "settings": flags,
        "inputs": generated_inputs(),
    }


def _name(function: Function) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__


def record(
    cases: Sequence[Case],
    reference: Function,
    out: Path | str,
    source: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run the reference on every case and save its outputs and a manifest in a folder.

    Files are written after all cases have been computed. Recording twice gives the same files.

    Args:
        cases: what to run; see :class:`parity.cases.Case`.
        reference: takes a case, returns named arrays (JAX, NumPy, numbers), nested or not.
        out: the folder; created if missing.
        source: where the reference comes from, such as its repository and commit, for the
            manifest.

    Returns:
        The manifest.

    Raises:
        ValueError: there are no cases, two have one name, or an output has no promise or cannot be
            saved.
    """
    out = Path(out)
    files = save_groups(cases, reference, out)
    manifest = {
        **conditions(reference, source or {}),
        "files": files,
        "cases": [entry(case) for case in cases],
    }
    write_manifest(out, manifest)
    return manifest


@dataclass(frozen=True)
class Checked:
    """Results of a check; true if all tensors are within their bounds."""

    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether every tensor of every case is within its bound."""
        return all(result.passed for result in self.results)

    def __bool__(self) -> bool:
        # `assert check(...)` must fail if a tensor is out of bounds
        return self.passed


def check(
    port: Function,
    folder: Path | str,
    cases: Sequence[Case] | None = None,
    only: str | None = None,
    *,
    show: bool = True,
    json_path: Path | str | None = None,
    junit_path: Path | str | None = None,
) -> Checked:
    """Run the port on the recorded cases and compare.

    Prints the table, one line for each failed case (its first tensor out of bounds and the worst
    entry), and the number that passed. "First" follows the order of the port's outputs: return
    intermediate tensors before what is computed from them. An exception in the port fails its case.

    Args:
        port: takes a case, returns arrays (torch, NumPy, numbers) under the reference's names.
        folder: a folder that :func:`record` wrote.
        cases: the cases that the record must hold; default: any.
        only: a group, or the beginning of cases' ``group/name``.
        show: whether to print.
        json_path: file to write every figure to.
        junit_path: file to write a JUnit report to.

    Raises:
        RecordError: the record is missing or damaged, or of other cases than ``cases``.
    """
    from parity import tables
    from parity.compare import run_and_compare
    from parity.junit import as_junit

    folder = Path(folder)
    if cases is not None:
        _same_cases(cases, [case for case, _ in recorded(folder)], folder)
    results = [run_and_compare(port, case, expected) for case, expected in recorded(folder, only)]
    if show:
        tables.show(results, f"{_name(port)} against the record in {folder.name}")
    if json_path is not None:
        figures = tables.as_json(results, read_manifest(folder))
        write_whole(Path(json_path), json.dumps(figures, indent=1).encode())
    if junit_path is not None:
        write_whole(Path(junit_path), as_junit(results))
    return Checked(tuple(results))


def _same_cases(cases: Sequence[Case], found: Sequence[Case], folder: Path) -> None:
    wanted, present = ({case.id: case for case in listed} for listed in (cases, found))
    for name, case in {**wanted, **present}.items():
        if name not in present:
            difference = "lacks case"
        elif name not in wanted:
            difference = "also has case"
        elif wanted[name] != case or not _same_arrays(wanted[name].arrays, case.arrays):
            difference = "has another case"
        else:
            continue
        raise RecordError(f"the record in {folder} {difference} {name}: make the record again")


def _same_arrays(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    wanted, present = (named(tree, "arrays") if tree else {} for tree in (one, other))
    return wanted.keys() == present.keys() and all(
        np.array_equal(array, present[name]) for name, array in wanted.items()
    )
