"""Save what JAX did with the programs of the first seeds, and read it again.

One line of ``programs.json`` is one program: the structure of its result, or ``!`` and the type of
the error. The leaves of all results stand in ``programs.safetensors``, one array for each dtype.
``programs-older.*`` hold, in the same form, what JAX 0.4.13 did with the programs of ``older.py``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from parity.conformance.grammar import digest, program_of
from parity.conformance.older import older_programs
from parity.conformance.outcomes import Outcome
from parity.conformance.text import Program
from parity.store import RecordError, read_part, save_tensors, write_whole

NAME = "programs"
OLDER = f"{NAME}-older"
_LEAF = re.compile(r"(\w+)\[([\d,]*)\]")


def save_outcomes(
    directory: Path, outcomes: Sequence[Outcome], versions: dict[str, Any], name: str = NAME
) -> None:
    """Write the outcomes of the programs of the seeds 0, 1, …, or those of the older JAX."""
    flat: dict[str, list[np.ndarray]] = {}
    lines = []
    for outcome in outcomes:
        if outcome.error is not None:
            lines.append(f"!{outcome.kind}")
            continue
        kinds = []
        for leaf in outcome.leaves:
            flat.setdefault(str(leaf.dtype), []).append(leaf.ravel())
            kinds.append(f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]")
        lines.append(f"{outcome.structure} {' '.join(kinds)}".rstrip())
    arrays = {dtype: np.concatenate(parts) for dtype, parts in flat.items()}
    checksum = save_tensors(directory / f"{name}.safetensors", arrays)
    head = {
        **versions,
        "programs": len(outcomes),
        "digest": digest(_programs(name, len(outcomes))),
        "sha256": checksum,
    }
    text = json.dumps(head, indent=1)[: -len("\n}")]
    listed = ",\n  ".join(map(json.dumps, lines))
    write_whole(
        directory / f"{name}.json", f'{text},\n "outcomes": [\n  {listed}\n ]\n}}\n'.encode()
    )


def _programs(name: str, count: int) -> list[Program]:
    return older_programs() if name == OLDER else [program_of(seed) for seed in range(count)]


def read_outcomes(directory: Path) -> list[tuple[Program, Outcome]]:
    """The recorded programs and what JAX did with them; those of the older JAX come last.

    Raises:
        RecordError: if the record is missing or damaged, or the drawing of programs has changed.
    """
    older = _read(directory, OLDER) if (directory / f"{OLDER}.json").exists() else []
    return [*_read(directory, NAME), *older]


def _read(directory: Path, name: str) -> list[tuple[Program, Outcome]]:
    manifest = read_part(directory / f"{name}.json")
    content = (directory / f"{name}.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise RecordError(f"{name}.safetensors is not the file of {name}.json: record it again.")
    programs = _programs(name, manifest["programs"])
    if digest(programs) != manifest["digest"]:
        raise RecordError("the drawing of programs has changed: record them again.")
    return list(zip(programs, _outcomes(manifest["outcomes"], load(content)), strict=True))


def _outcomes(lines: Sequence[str], arrays: dict[str, np.ndarray]) -> Iterator[Outcome]:
    begin = dict.fromkeys(arrays, 0)
    for line in lines:
        if line.startswith("!"):
            yield Outcome("", (), "refused", line[1:])
            continue
        structure, _, kinds = line.partition(" ")
        leaves = []
        for dtype, sizes in _LEAF.findall(kinds):
            shape = tuple(int(n) for n in sizes.split(",") if n)
            end = begin[dtype] + int(np.prod(shape, dtype=int))
            leaves.append(arrays[dtype][begin[dtype] : end].reshape(shape))
            begin[dtype] = end
        yield Outcome(structure, tuple(leaves))
