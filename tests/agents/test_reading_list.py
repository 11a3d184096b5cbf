"""The files that a reader opens to understand one IDQL update.

An eager update runs under a profiler hook, which records each file of the package whose code runs.
The files of the floor (``random``, ``optim``, ``transforms``, ``struct``, ``tree``) and of the
layers below it are general tools, which a reader need not open; they are listed separately.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tiny_learners import TINY, box, make_batch

import idql_func
from idql_func import disable_jit
from idql_func.agents import DDPMIQLLearner

PACKAGE = Path(idql_func.__file__).parent
ALGORITHM = ("agents", "networks", "losses.py", "distributions")
MAX_FILES, MAX_LINES = 8, 1_500


def files_of_one_update() -> set[Path]:
    """Files of the package, relative to it, whose functions run in an eager update."""
    learner = DDPMIQLLearner.create(0, box(3), box(2), **TINY[DDPMIQLLearner])
    batch = make_batch()
    files: set[str] = set()

    def record(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_name not in ("<module>", "<lambda>"):
            files.add(frame.f_code.co_filename)

    with disable_jit():
        before = sys.getprofile()
        sys.setprofile(record)
        try:
            learner.update(batch)
        finally:
            sys.setprofile(before)
    paths = (Path(name) for name in files)
    return {path.relative_to(PACKAGE) for path in paths if path.is_relative_to(PACKAGE)}


def test_one_idql_update_is_at_most_eight_files_and_1500_lines() -> None:
    used = files_of_one_update()
    algorithm = {path for path in used if path.parts[0] in ALGORITHM}
    lines = {path: len((PACKAGE / path).read_text().splitlines()) for path in algorithm}
    for path in sorted(algorithm):
        print(f"{lines[path]:5d}  {path}")
    print(f"{sum(lines.values()):5d}  in {len(lines)} files")
    print("general tools:", ", ".join(sorted(map(str, used - algorithm))))
    assert Path("agents/ddpm_iql.py") in algorithm
    assert Path("networks/noise_predictor.py") in algorithm
    assert len(algorithm) <= MAX_FILES
    assert sum(lines.values()) <= MAX_LINES
