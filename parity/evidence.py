"""Which cases executed which names of the original: collected while recording, and stored.

``record`` profiles the original while it runs the cases (:mod:`parity.original.observing`) and
writes ``coverage.json`` beside the manifest; :mod:`parity.coverage` reads it, without JAX.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.store import REFERENCE, read_part, write_whole

COVERAGE = "coverage.json"

Names = dict[str, dict[str, Any]]
"""``{name: {"sort": function | class | method | value | used, "cases": [ids]}}``."""


def _group(case: str) -> str:
    return case.partition("/")[0]


def gathered(sorts: Mapping[str, str], seen: Mapping[str, Collection[str]]) -> Names:
    """For each name, the first case of each group that executed it.

    >>> gathered({"f": "function"}, {"a/1": {"f"}, "a/2": {"f"}, "b/1": {"f"}})
    {'f': {'sort': 'function', 'cases': ['a/1', 'b/1']}}
    """
    out: Names = {name: {"sort": sort, "cases": []} for name, sort in sorts.items()}
    for case, names in seen.items():
        for name in names:
            cases = out[name]["cases"]
            if _group(case) not in map(_group, cases):
                cases.append(case)
    return out


def merged(old: Names, new: Names, groups: Sequence[str], rerecorded: Collection[str]) -> Names:
    """``new`` and the entries of ``old`` for groups that were not recorded again, by group."""
    out: Names = {}
    for name, entry in new.items():
        kept = [c for c in old.get(name, {"cases": []})["cases"] if _group(c) not in rerecorded]
        cases = [c for c in (*kept, *entry["cases"]) if _group(c) in groups]
        cases.sort(key=lambda case: groups.index(_group(case)))
        out[name] = {**entry, "cases": cases}
    return out


def write_coverage(directory: Path, commit: str, names: Names) -> None:
    """Write ``coverage.json``, one name a line."""
    lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in names.items()]
    text = f'{{\n "commit": {json.dumps(commit)},\n "names": {{\n' + ",\n".join(lines) + "\n }\n}\n"
    json.loads(text)
    write_whole(directory / COVERAGE, text.encode())


def read_coverage(directory: Path = REFERENCE) -> dict[str, Any]:
    """``{"commit": …, "names": Names}`` as recorded.

    Raises:
        RecordError: it does not exist or is not JSON.
    """
    return read_part(directory / COVERAGE)
