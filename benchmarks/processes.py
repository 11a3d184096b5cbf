"""Start child processes: for one-off measurements in a fresh process, and for remote variants.

The memory of one variant and the time to a first update can only be measured in a separate process,
which runs ``benchmarks.child``. This module imports only the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "MARK", "ROOT", "command", "first_update", "fresh_caches", "memory"]

COMMAND = "child"
"""First argument of ``python -m benchmarks`` in a child process."""
MARK = "benchmarks-child:"
"""Prefix of the line of output with a child's result."""
ROOT = Path(__file__).resolve().parent.parent
"""Working directory of a child, from which it can import this package."""


def memory(task: Mapping[str, Any]) -> dict[str, float]:
    """Measure the memory of one variant in its own process, in MB.

    ``task`` has ``plan`` (a dict), ``workload``, ``case`` (its number), ``variant``, ``settings``
    (a dict), ``threads`` and ``matmul``. The result has ``peak`` (while it runs, after the
    warm-up), ``imports`` (of torch or of JAX alone), ``with_compiling`` (the peak since the start),
    and on a GPU ``device_peak`` and ``allocations`` per call.

    Raises:
        RuntimeError: the child failed; the message is the last line of its output.
    """
    return _run({**task, "what": "memory"}, {})


def first_update(task: Mapping[str, Any], environ: Mapping[str, str]) -> float:
    """Seconds from starting Python to the end of a learner's first update.

    ``task`` has ``variant``, ``settings`` (of the workload ``learners``), ``device`` and
    ``threads``.

    Raises:
        RuntimeError: the child failed; the message is the last line of its output.
    """
    begin = time.time()
    result = _run({**task, "what": "first update"}, environ)
    return result["done"] - begin


@contextlib.contextmanager
def fresh_caches() -> Iterator[dict[str, str]]:
    """Environment variables that give torch and JAX empty caches in a temporary folder.

    By default JAX keeps no cache on disk; these variables turn one on.
    """
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        yield {
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
            "TRITON_CACHE_DIR": f"{folder}/triton",
            "XDG_CACHE_HOME": f"{folder}/cache",
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/jax",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }


def command(task: Mapping[str, Any]) -> list[str]:
    """Command line of a child with this task."""
    return [sys.executable, "-m", "benchmarks", COMMAND, json.dumps(dict(task))]


def _run(task: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, float]:
    result = subprocess.run(
        command(task),
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    for line in reversed(result.stdout.splitlines()):
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    output = (result.stderr or result.stdout).strip().splitlines()
    raise RuntimeError(
        output[-1] if output else f"the child exited with status {result.returncode}"
    )
