"""Shared test set-up: one core for each worker, figures that are not drawn."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from matplotlib.figure import Figure

settings.register_profile("any speed", deadline=None)  # no test depends on the machine's speed
settings.load_profile("any speed")

if "PYTEST_XDIST_WORKER" in os.environ:  # parallel workers; torch reads it when it is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# pytest has put this folder first on the path, so that tests/benchmarks and tests/parity would hide
# the packages benchmarks and parity
sys.path.remove(str(Path(__file__).parent))
for package in ("benchmarks", "parity"):
    importlib.import_module(package)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--trials",
        choices=["bounded", "full"],
        default="bounded",
        help="of long tests in tests/reliability: some, spread evenly, or all",
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The sums of the trials' outcomes, which workers report as properties of their tests."""
    reports = [
        report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)
    ]
    tallies = [value for r in reports for name, value in r.user_properties if name == "trials"]
    if tallies:
        sys.path.insert(0, str(Path(__file__).parent / "reliability"))
        from trials import totals

        terminalreporter.section(f"trials, {terminalreporter.config.getoption('--trials')}")
        for line in totals(tallies):
            terminalreporter.line(line)


@pytest.fixture
def drawn() -> None:
    """Request this fixture in a test that reads the figures of a run, so that they are drawn."""


@pytest.fixture
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build figures but do not draw them, which takes most of the time of a tiny run."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", lambda self, file, **options: file.write(b"blank"))
