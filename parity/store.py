"""The record on disk: one safetensors file a group, one manifest for all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from parity.cases import Case

REFERENCE = Path(__file__).resolve().parent / "reference"
MANIFEST = "manifest.json"


class RecordError(ValueError):
    """The record is missing, damaged or not the one that the manifest describes."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is either all there or not there at all."""
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
    """Write the manifest, one case a line."""
    head = {key: value for key, value in manifest.items() if key != "cases"}
    lines = [json.dumps(case) for case in manifest["cases"]]
    opening = json.dumps(head, indent=1)[: -len("\n}")]
    text = opening + ',\n "cases": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    json.loads(text)
    write_whole(directory / MANIFEST, text.encode())


def entry(case: Case) -> dict[str, Any]:
    """A case as the manifest carries it."""
    return asdict(case)


def read_manifest(directory: Path = REFERENCE) -> dict[str, Any]:
    """The manifest of a record.

    Raises:
        RecordError: there is none, or it is no JSON.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise RecordError(f"{path} does not exist: make a record with `python -m parity record`.")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise RecordError(f"{path} is no JSON ({error}): make the record again.") from error


def read_cases(manifest: Mapping[str, Any]) -> list[Case]:
    """The cases that a manifest lists."""
    return [Case(**case) for case in manifest["cases"]]


def read_group(
    group: str, manifest: Mapping[str, Any], directory: Path = REFERENCE
) -> dict[str, dict[str, np.ndarray]]:
    """Reference tensors of one group, ``{case name: {tensor name: array}}``.

    Raises:
        RecordError: the file is missing or its SHA-256 is not the manifest's.
    """
    if group not in manifest["files"]:
        raise RecordError(f"the manifest lists no group {group!r}.")
    listed = manifest["files"][group]
    path = directory / listed["file"]
    if not path.is_file():
        raise RecordError(f"{path} does not exist, but the manifest lists it.")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != listed["sha256"]:
        raise RecordError(
            f"{path} has SHA-256 {found[:12]}…, the manifest says {listed['sha256'][:12]}…: "
            "restore the file or make the record again."
        )
    out: dict[str, dict[str, np.ndarray]] = {}
    for name, array in load_file(path).items():
        case, _, tensor = name.partition("::")
        out.setdefault(case, {})[tensor] = array
    return out
