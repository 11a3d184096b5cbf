"""The examples of ``benchmarks/README.md`` run, and the files that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.results import read_run

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")


def test_python_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})


def test_named_files_exist() -> None:
    figures = re.findall(r"\]\((figures/.+?)\)", README)
    rows = README.partition("## Files")[2].splitlines()[4:]
    assert figures and rows
    for name in figures:
        assert (ROOT / "benchmarks" / name).is_file(), name
    for row in rows:
        for name in re.findall(r"`(.+?)`", row.split("|")[1]):
            assert (ROOT / "benchmarks" / name).exists(), name
    assert len(README.encode()) <= 10_240


def test_published_results_files_are_readable() -> None:
    paths = sorted((ROOT / "benchmarks" / "figures").glob("*.json"))
    assert paths
    for path in paths:
        assert read_run(path).results, path.name
