"""Helpers of the learners' tests are importable here too."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("agents", "envs"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
