"""The register of the original's quirks (``parity/QUIRKS.md``) and the IDs that the code cites."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REGISTER = (ROOT / "parity" / "QUIRKS.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([UNEDAL]\d+) \| (.+?) \| (.+?) \| (.+?) \|$", REGISTER, re.MULTILINE)
IDS = [row[0] for row in ROWS]
GROUPS = {"U": 23, "N": 16, "E": 14, "D": 26, "A": 14, "L": 15}

_ID = r"[UNEDAL]\d{1,3}\b"
_LIST = rf"{_ID}(?:(?:,| and|,? to)\s+{_ID})*"
_AFTER_WORD = re.compile(rf"[Qq]uirks?\s+({_LIST})")
_IN_PARENTHESES = re.compile(rf"\(({_LIST})(?=[):;])")
_IN_COMMENT = re.compile(rf"#\s*({_LIST})(?=$|[\s:,.;])", re.MULTILINE)


def cited(text: str) -> set[str]:
    """The IDs that a source text cites."""
    # a citation may continue on the next line, after a comment sign
    joined = re.sub(r"\n\s*(?:#\s*)?", " ", text)
    found = _AFTER_WORD.findall(joined) + _IN_PARENTHESES.findall(joined)
    found += _IN_COMMENT.findall(text)
    return {name for one in found for name in re.findall(_ID, one)}


def sources() -> Iterator[Path]:
    for folder in ("idql_func", "parity", "benchmarks", "tests"):
        for kind in ("*.py", "*.toml"):
            yield from sorted((ROOT / folder).rglob(kind))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kept (quirk U1).", {"U1"}),
        ("(quirks U9, N15)", {"U9", "N15"}),
        ("quirks D15 and D16", {"D15", "D16"}),
        ("is refused\n    there (U14).", {"U14"}),
        ("decays all (quirks U12,\n        U13).", {"U12", "U13"}),
        ("(D23: rows that were never written)", {"D23"}),
        ("x = 1  # D25", {"D25"}),
        ("# L2: upstream's learner rejects it", {"L2"}),
        ("dtype <U1, relative L2, N64", set()),
    ],
)
def test_citations_are_recognised(text: str, expected: set[str]) -> None:
    assert cited(text) == expected


def test_register_has_every_known_quirk_once() -> None:
    assert [name for name, count in Counter(IDS).items() if count > 1] == []
    expected = [f"{group}{n}" for group, count in GROUPS.items() for n in range(1, count + 1)]
    assert expected == IDS
    assert f"There are {len(IDS)}." in REGISTER and len(IDS) >= 108


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_row_states_what_the_port_does(row: tuple[str, ...]) -> None:
    assert row[3].startswith(("kept", "option: ", "fixed", "not ported"))


def test_every_cited_quirk_is_in_the_register() -> None:
    unknown = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources()
        if path != Path(__file__).resolve()
        for name in cited(path.read_text(encoding="utf-8")) - set(IDS)
    }
    assert unknown == set()


def test_every_quirk_that_the_port_keeps_is_cited_in_it() -> None:
    found = set[str]()
    for path in sources():
        if path.is_relative_to(ROOT / "idql_func"):
            found |= cited(path.read_text(encoding="utf-8"))
    kept = {row[0] for row in ROWS if row[3].startswith(("kept", "option"))}
    assert kept - found == set()
