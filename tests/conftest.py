"""What tests of several folders share: a core for each worker, pictures left blank."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

if "PYTEST_XDIST_WORKER" in os.environ:  # workers side by side; read when torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# pytest has put this folder first on the path, where the tests' folders stand before the packages
# benchmarks and parity
sys.path.remove(str(Path(__file__).parent))
for package in ("benchmarks", "parity"):
    importlib.import_module(package)


@pytest.fixture
def drawn() -> None:
    """For a test that looks at a run's pictures: with it they are drawn."""


@pytest.fixture
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are built but not drawn, which takes longer than all else in a tiny run."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: Path(path).touch())
