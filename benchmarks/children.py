"""What only a fresh process can tell: memory of one variant alone, and seconds to a first update.

This side of it runs in the child and imports nothing but the standard library at its top, since
imports are part of what is measured.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "first_update", "fresh_caches", "main", "memory"]

COMMAND = "child"
_MARK = "benchmarks-child:"
_FRAMEWORKS = {"torch": ("torch",), "jax": ("jax", "flax", "optax")}
_MB = 1e6
_CALLS = 12
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


# --- in the parent ------------------------------------------------------------------------


def memory(task: Mapping[str, Any]) -> dict[str, float]:
    """Memory of one variant in a process of its own, in MB.

    ``task`` has ``plan`` (a dict), ``workload``, ``case`` (its number), ``variant``, ``framework``,
    ``threads`` and ``matmul``. The figures are ``peak`` (while it runs, after the warm-up, had the
    process imported its own framework alone), ``imports`` (of that framework), ``with_compiling``
    (the peak from the start on), and on a GPU ``device_peak`` and ``allocations`` a call.

    Raises:
        RuntimeError: the child failed; with the last line it said.
    """
    return _run({**task, "what": "memory"}, {})


def first_update(task: Mapping[str, Any], environ: Mapping[str, str]) -> float:
    """Seconds from starting Python to the end of a learner's first update.

    ``task`` has ``learner``, ``batch``, ``framework``, ``device``, ``threads``, ``tiny``.

    Raises:
        RuntimeError: the child failed; with the last line it said.
    """
    begin = time.time()
    answer = _run({**task, "what": "first update"}, environ)
    return answer["done"] - begin - answer["not_its_own"]


@contextlib.contextmanager
def fresh_caches() -> Iterator[dict[str, str]]:
    """Environment variables that give both sides empty caches on disk, in a folder that goes.

    JAX keeps no cache on disk unless it is told to; here it is.
    """
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        yield {
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
            "TRITON_CACHE_DIR": f"{folder}/triton",
            "XDG_CACHE_HOME": f"{folder}/cache",
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/jax",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }


def _run(task: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", COMMAND, json.dumps(dict(task))],
        env={**os.environ, **environ},
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
    said = (done.stderr or done.stdout).strip().splitlines()
    raise RuntimeError(said[-1] if said else f"the child ended with status {done.returncode}")


# --- in the child -------------------------------------------------------------------------


def main(text: str) -> int:
    """Do a task and print its figures."""
    task = json.loads(text)
    answer = _first_update(task) if task["what"] == "first update" else _memory(task)
    print(_MARK + json.dumps(answer), flush=True)
    return 0


def _first_update(task: Mapping[str, Any]) -> dict[str, float]:
    begin = time.time()
    not_its_own = 0.0
    if task["framework"] == "jax":
        # the description of the work is written with torch; JAX is not to pay for that
        importlib.import_module("benchmarks.workloads.learners")
        not_its_own = time.time() - begin
    from benchmarks.case import Plan
    from benchmarks.machine import use_threads
    from benchmarks.workloads import learners

    use_threads(task["threads"])
    settings = learners.Settings(
        task["learner"], task["batch"], utd=learners.UTD.get(task["learner"], 1), inputs=1
    )
    plan = Plan(device=task["device"], jax=True)
    if task["framework"] == "jax":
        from benchmarks.case import twin

        [variant] = twin(plan, "learner", task["learner"], settings)
        variant.wait(variant.make()(0))
    else:
        from benchmarks.roofline import wait_torch

        [batch] = learners.batches(settings, task["device"])
        learner = learners.create(settings, task["device"])
        wait_torch(learner.update(batch, **learners.keywords_of_update(settings)))
    return {"done": time.time(), "not_its_own": not_its_own}


def _memory(task: Mapping[str, Any]) -> dict[str, float]:
    start = _resident()
    for name in _FRAMEWORKS[task["framework"]]:
        importlib.import_module(name)
    imports = _resident()
    from benchmarks.case import Plan
    from benchmarks.machine import use_threads
    from benchmarks.workloads import load
    from idql_func.training.matmul import matmul_precision

    use_threads(task["threads"])
    plan = Plan(**task["plan"])
    case = load(task["workload"]).cases(plan)[task["case"]]
    others = _resident() - imports
    variant = case.only(task["variant"])
    with matmul_precision(task["matmul"], device=plan.device), variant.scope():
        step = variant.make()
        for i in range(3):
            variant.wait(step(i))
        compiled = _peak()
        _forget_peak()
        device = _device_begin(task["framework"], plan.cuda)
        for i in range(3, 3 + _CALLS):
            variant.wait(step(i))
        return {
            "peak": (_peak() - others) / _MB,
            "imports": (imports - start) / _MB,
            "with_compiling": (max(compiled, _peak()) - others) / _MB,
            **_device_end(task["framework"], plan.cuda, device),
        }


def _resident() -> int:
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {name}")


def _forget_peak() -> None:
    _CLEAR.write_text("5")


def _device_begin(framework: str, cuda: bool) -> int:
    if not cuda or framework != "torch":
        return 0
    import torch

    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_stats()["allocation.all.allocated"]


def _device_end(framework: str, cuda: bool, before: int) -> dict[str, float]:
    if not cuda:
        return {}
    if framework == "torch":
        import torch

        allocations = torch.cuda.memory_stats()["allocation.all.allocated"] - before
        peak = torch.cuda.max_memory_allocated()
        return {"device_peak": peak / _MB, "allocations": allocations / _CALLS}
    jax = importlib.import_module("jax")
    return {"device_peak": (jax.devices()[0].memory_stats() or {})["peak_bytes_in_use"] / _MB}
