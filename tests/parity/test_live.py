"""The port beside the original, live. Run with ``-m live`` and two variables set:

``IDQL_UPSTREAM`` (a checkout of the original) and ``IDQL_REFERENCE_PYTHON`` (the Python of the
JAX environment).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parity.live import live, run_upstream
from parity.report import failures


def _environment() -> tuple[Path, Path]:
    names = ("IDQL_UPSTREAM", "IDQL_REFERENCE_PYTHON")
    missing = [name for name in names if name not in os.environ]
    if missing:
        pytest.fail(f"asked for by -m live, but {' and '.join(missing)} not set")
    upstream, python = (Path(os.environ[name]) for name in names)
    return upstream, python


@pytest.mark.live
@pytest.mark.parametrize("learner", ["simple", "general"])
def test_both_sides_agree_from_the_same_seed(learner: str) -> None:
    results = live(*_environment(), double_steps=100, compiled=False, only=learner)
    assert len(results) == 2
    assert all(r.passed for r in results), "\n".join(failures(results))


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no Python of the JAX environment"):
        run_upstream([], tmp_path, tmp_path / "python")


def test_a_side_that_fails_says_why(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho 'no such module: jax' >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match="ended with 3: no such module: jax"):
        run_upstream([], tmp_path, python)
