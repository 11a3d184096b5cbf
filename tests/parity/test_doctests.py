"""The examples in parity's docstrings run (pytest does not collect them by itself)."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import parity

ROOT = Path(parity.__file__).parent
MODULES = [
    path.relative_to(ROOT.parent).with_suffix("").as_posix().replace("/", ".")
    for path in sorted(ROOT.rglob("*.py"))
    if "    >>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_pass(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
