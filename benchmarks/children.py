"""What only a fresh process can tell: memory of one variant alone, and seconds to a first update.

This side of it runs in the child and imports nothing but the standard library at its top, since
imports are part of what is measured. The children of ``benchmarks.apart``, which measure rates, are
started by the same command.
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

__all__ = ["COMMAND", "ROOT", "command", "first_update", "fresh_caches", "main", "memory"]

COMMAND = "child"
ROOT = Path(__file__).resolve().parent.parent
"""Where a child must run to find this package."""
_MARK = "benchmarks-child:"
_MB = 1e6
_WARM_UP, _CALLS = 3, 12
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


# --- in the parent ------------------------------------------------------------------------


def memory(task: Mapping[str, Any]) -> dict[str, float]:
    """Memory of one variant in a process of its own, in MB.

    ``task`` has ``plan`` (a dict), ``workload``, ``case`` (its number), ``variant``, ``settings``
    (a dict), ``threads`` and ``matmul``. The figures are ``peak`` (while it runs, after the
    warm-up), ``imports`` (of torch or of JAX alone), ``with_compiling`` (the peak from the start
    on), and on a GPU ``device_peak`` and ``allocations`` a call.

    Raises:
        RuntimeError: the child failed; with the last line it said.
    """
    return _run({**task, "what": "memory"}, {})


def first_update(task: Mapping[str, Any], environ: Mapping[str, str]) -> float:
    """Seconds from starting Python to the end of a learner's first update.

    ``task`` has ``variant``, ``settings`` (those of the workload ``learners``), ``device`` and
    ``threads``.

    Raises:
        RuntimeError: the child failed; with the last line it said.
    """
    begin = time.time()
    answer = _run({**task, "what": "first update"}, environ)
    return answer["done"] - begin


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


def command(task: Mapping[str, Any]) -> list[str]:
    """What starts a child with that task."""
    return [sys.executable, "-m", "benchmarks", COMMAND, json.dumps(dict(task))]


def _run(task: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, float]:
    done = subprocess.run(
        command(task),
        env={**os.environ, **environ},
        cwd=ROOT,
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
    """Do a task and print its figures; or measure block by block, as the parent asks."""
    task = json.loads(text)
    if task["what"] == "blocks":
        from benchmarks import apart

        return apart.serve(task)
    answer = _first_update(task) if task["what"] == "first update" else _memory(task)
    print(_MARK + json.dumps(answer), flush=True)
    return 0


def _first_update(task: Mapping[str, Any]) -> dict[str, float]:
    if _on_jax(task):
        _confine(task["threads"])
        variant = _jax_variant(task, "learners", {"device": task["device"]})
        with variant.scope():
            variant.wait(variant.make()(0))
    else:
        from benchmarks.machine import use_threads
        from benchmarks.roofline import wait_torch
        from benchmarks.workloads import learners

        use_threads(task["threads"])
        settings = learners.Settings(**task["settings"])
        [batch] = learners.batches(settings, task["device"])
        learner = learners.create(settings, task["device"])
        wait_torch(learner.update(batch, **learners.keywords_of_update(settings)))
    return {"done": time.time()}


def _memory(task: Mapping[str, Any]) -> dict[str, float]:
    device = task["plan"]["device"]
    start = _resident()
    with contextlib.ExitStack() as stack:
        if _on_jax(task):
            _confine(task["threads"])
            for name in ("jax", "flax.linen", "optax"):
                importlib.import_module(name)
            imports = _resident()
            variant = _jax_variant(task, task["workload"], task["plan"])
        else:
            importlib.import_module("torch")
            imports = _resident()
            from benchmarks.case import Plan
            from benchmarks.machine import use_threads
            from benchmarks.workloads import load
            from idql_func.training.runtime.matmul_precision import matmul_precision

            use_threads(task["threads"])
            plan = Plan(**{**task["plan"], "jax": False, "upstream": None})
            variant = load(task["workload"]).cases(plan)[task["case"]].only(task["variant"])
            stack.enter_context(matmul_precision(task["matmul"], device=device))
        stack.enter_context(variant.scope())
        step = variant.make()
        for i in range(_WARM_UP):
            variant.wait(step(i))
        compiled = _peak()
        _forget_peak()
        before = _allocations(task, device)
        for i in range(_WARM_UP, _WARM_UP + _CALLS):
            variant.wait(step(i))
        return {
            "peak": _peak() / _MB,
            "imports": (imports - start) / _MB,
            "with_compiling": max(compiled, _peak()) / _MB,
            **_on_device(task, device, before),
        }


def _on_jax(task: Mapping[str, Any]) -> bool:
    return task["variant"].partition("-")[0] == "jax"


def _jax_variant(task: Mapping[str, Any], workload: str, plan: Mapping[str, Any]) -> Any:
    """A variant of the twin, made without the description of the workload, which imports torch."""
    from benchmarks.twin import variants

    return variants.named(task["variant"], workload, task["settings"], plan)


def _confine(threads: int) -> None:
    """As ``machine.use_threads``, which imports torch."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


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


def _allocations(task: Mapping[str, Any], device: str) -> int:
    if not device.startswith("cuda") or _on_jax(task):
        return 0
    import torch

    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_stats()["allocation.all.allocated"]


def _on_device(task: Mapping[str, Any], device: str, before: int) -> dict[str, float]:
    if not device.startswith("cuda"):
        return {}
    if _on_jax(task):
        jax = importlib.import_module("jax")
        return {"device_peak": (jax.devices()[0].memory_stats() or {})["peak_bytes_in_use"] / _MB}
    import torch

    allocations = torch.cuda.memory_stats()["allocation.all.allocated"] - before
    peak = torch.cuda.max_memory_allocated()
    return {"device_peak": peak / _MB, "allocations": allocations / _CALLS}
