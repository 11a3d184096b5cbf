"""The examples in parity's docstrings run (the package lies outside pytest's own search)."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    *(
        "errors",
        "inputs",
        "digest",
        "compare",
        "literal",
        "bounds",
        "outputs",
        "cases.case",
        "coverage",
        "counterparts",
        "evidence",
        "public",
    ),
    *("store", "explain"),
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    tried = doctest.testmod(importlib.import_module(f"parity.{name}"))
    assert tried.attempted > 0
    assert tried.failed == 0
