"""The number of trials of long tests, and the process in which trials are forked.

Helpers of the learners' tests are importable here too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

for folder in ("agents", "envs"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))


@pytest.fixture
def at_most(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """The number of trials to draw: the one given, or all with ``--trials=full``."""
    from trials import ALL

    full = request.config.getoption("--trials") == "full"
    return lambda count: ALL if full else count


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Report the outcomes of a kind of trials: printed at once, and summed up at the end."""
    from trials import totals

    def report(what: str, where: str, counts: Mapping[str, int]) -> None:
        print(f"\n{where}: {totals([(what, counts)])[0]}")
        record_property("trials", (what, dict(counts)))

    return report


@pytest.fixture(scope="session")
def trial_server() -> Iterator[Callable[..., dict[str, object]]]:
    """Run a command's trials in children of a process that has imported everything, once."""
    from trial_server import Server

    server = Server()
    yield server.examine
    server.close()
