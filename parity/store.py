"""The record on disk: one safetensors file for each group, and one manifest."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from parity.cases import Case
from parity.inputs import fingerprint, unflatten

REFERENCE = Path(__file__).resolve().parent / "reference"
MANIFEST = "manifest.json"
ARRAYS = "inputs::"
"""Prefix of the names of a case's own inputs, after the case's name and ``::``."""


class RecordError(ValueError):
    """The record is missing, damaged or not the one that the manifest describes."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def save_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> str:
    """Save tensors, names in order; returns the file's SHA-256."""
    content = save({name: np.array(tensors[name], order="C") for name in sorted(tensors)})
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, one case per line."""
    head = {key: value for key, value in manifest.items() if key != "cases"}
    lines = [json.dumps(case) for case in manifest["cases"]]
    opening = json.dumps(head, indent=1)[: -len("\n}")]
    text = opening + ',\n "cases": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    json.loads(text)
    write_whole(directory / MANIFEST, text.encode())


def entry(case: Case) -> dict[str, Any]:
    """The manifest entry of a case; its arrays are in the file of its group."""
    names = (field.name for field in fields(case) if field.name != "arrays")
    return {name: getattr(case, name) for name in names}


def read_part(path: Path) -> Any:
    """The content of a JSON file of a record.

    Raises:
        RecordError: if it does not exist or is not JSON.
    """
    if not path.is_file():
        raise RecordError(f"{path} does not exist: make a record first.")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise RecordError(f"{path} is not valid JSON ({error}): make the record again.") from error


def read_manifest(directory: Path = REFERENCE) -> dict[str, Any]:
    """The manifest of a record.

    Raises:
        RecordError: if it does not exist or is not a manifest.
    """
    path = directory / MANIFEST
    manifest = read_part(path)
    if missing := {"upstream", "inputs", "files", "cases"} - set(manifest):
        raise RecordError(f"{path} is not the manifest of a record: it lacks {min(missing)!r}.")
    return manifest


def folders_of(directory: Path = REFERENCE) -> list[Path]:
    """The folder of a record, and those in it with the records of other originals."""
    return [directory, *sorted(path.parent for path in directory.glob(f"*/{MANIFEST}"))]


def listed_cases(directory: Path = REFERENCE) -> list[Case]:
    """The cases of a record and of those in its folder, without their arrays.

    Raises:
        RecordError: if a manifest does not exist or is none.
    """
    return [case for folder in folders_of(directory) for case in read_cases(read_manifest(folder))]


def read_cases(manifest: Mapping[str, Any]) -> list[Case]:
    """The cases that a manifest lists."""
    return [Case(**case) for case in manifest["cases"]]


def _read(group: str, manifest: Mapping[str, Any], directory: Path) -> dict[str, np.ndarray]:
    """Everything in the file of a group."""
    if group not in manifest["files"]:
        raise RecordError(f"the manifest lists no group {group!r}.")
    listed = manifest["files"][group]
    path = directory / listed["file"]
    if not path.is_file():
        raise RecordError(f"{path} does not exist, but the manifest lists it.")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != listed["sha256"]:
        raise RecordError(
            f"{path} has SHA-256 {found[:12]}…, the manifest says {listed['sha256'][:12]}…: "
            "restore the file or make the record again."
        )
    return load(content)


def read_pairs(
    group: str, manifest: Mapping[str, Any], directory: Path = REFERENCE
) -> list[tuple[Case, dict[str, np.ndarray]]]:
    """The cases of one group with their input arrays, and their reference tensors.

    Raises:
        RecordError: if the file is missing or its SHA-256 differs from the manifest's.
    """
    outputs: dict[str, dict[str, np.ndarray]] = {}
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, array in sorted(_read(group, manifest, directory).items()):
        case, _, tensor = name.partition("::")
        part = arrays if tensor.startswith(ARRAYS) else outputs
        part.setdefault(case, {})[tensor.removeprefix(ARRAYS)] = array
    return [
        (replace(case, arrays=unflatten(arrays.get(case.name, {}))), outputs.get(case.name, {}))
        for case in read_cases(manifest)
        if case.group == group
    ]


def find_case(name: str, cases: Sequence[Case]) -> Case:
    """The case ``group/name``.

    Raises:
        RecordError: if it does not exist; similar names are suggested.

    >>> find_case("losses/expctile", [Case("losses", "expectile", "losses", {})])
    Traceback (most recent call last):
    ...
    parity.store.RecordError: there is no case 'losses/expctile'; did you mean losses/expectile?
    """
    known = {case.id: case for case in cases}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    near += [each for each in known if name and name in each and each not in near]
    if not near:
        groups = ", ".join(dict.fromkeys(case.group for case in cases))
        raise RecordError(f"there is no case {name!r}: give GROUP/NAME; the groups are {groups}.")
    *others, last = near[:3]
    raise RecordError(
        f"there is no case {name!r}; did you mean "
        f"{', '.join(others) + ' or ' if others else ''}{last}?"
    )


def _selected(cases: list[Case], only: str) -> set[str]:
    """The names of the cases of a group, or of those that begin with ``only``."""
    only = only.strip()
    members = [c for c in cases if c.group == only] or [c for c in cases if c.id.startswith(only)]
    if not members:
        groups = ", ".join(dict.fromkeys(c.group for c in cases))
        raise RecordError(f"no case begins with {only!r}; the groups are {groups}.")
    return {c.id for c in members}


def recorded(
    directory: Path = REFERENCE, only: str | None = None, case: str | None = None
) -> Iterator[tuple[Case, dict[str, np.ndarray]]]:
    """Recorded cases with their reference tensors.

    ``only`` is a group or a prefix of ``group/name``, or several of these with commas between them;
    ``case`` is one whole name.

    Raises:
        RecordError: if the record is damaged, was made with other inputs, or has no such case.
    """
    manifests = {folder: read_manifest(folder) for folder in folders_of(directory)}
    if any(manifest["inputs"]["sha256"] != fingerprint() for manifest in manifests.values()):
        raise RecordError(
            "the generated inputs differ from the recorded ones, since parity/inputs.py has "
            "changed: make the record again."
        )
    cases = [case for manifest in manifests.values() for case in read_cases(manifest)]
    if case is not None:
        chosen = {find_case(case, cases).id}
    else:
        chosen = set().union(*(_selected(cases, part) for part in (only or "").split(",")))
    for folder, manifest in manifests.items():
        for group in dict.fromkeys(c.group for c in read_cases(manifest) if c.id in chosen):
            yield from (p for p in read_pairs(group, manifest, folder) if p[0].id in chosen)
