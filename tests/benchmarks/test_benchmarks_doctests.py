"""The examples in the benchmarks' docstrings run (pytest does not collect them by itself)."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import benchmarks

ROOT = Path(benchmarks.__file__).parent
MODULES = [
    path.relative_to(ROOT.parent).with_suffix("").as_posix().replace("/", ".")
    for path in sorted(ROOT.rglob("*.py"))
    if "    >>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_pass(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ("jax", "flax", "optax"):
            raise
        pytest.skip(f"the JAX side needs {error.name}")
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
