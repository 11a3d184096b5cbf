"""The program of the benchmarks' child processes (``benchmarks.processes`` starts them).

At its top this module imports only the standard library, because imports are part of what is
measured. A child measures memory, the time to a first update, or blocks of remote variants.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.processes import MARK

if TYPE_CHECKING:
    from benchmarks.timing import Runner, Timed

__all__ = ["main"]

_MB = 1e6
_WARM_UP, _CALLS = 3, 12
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def main(text: str) -> int:
    """Run the task given as JSON and print its result, or serve requests for blocks."""
    task = json.loads(text)
    if task["what"] == "blocks":
        return _serve(task)
    result = _first_update(task) if task["what"] == "first update" else _memory(task)
    print(MARK + json.dumps(result), flush=True)
    return 0


# --- blocks of remote variants ------------------------------------------------------------


def _serve(task: Mapping[str, Any]) -> int:
    """Answer the parent's requests, one line of JSON each, until its pipe is closed.

    Output of libraries goes to standard error, because standard output carries the replies.
    """
    with contextlib.ExitStack() as stack:
        requests = stack.enter_context(os.fdopen(os.dup(0), encoding="utf-8"))
        replies = stack.enter_context(os.fdopen(os.dup(1), "w", encoding="utf-8"))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        sys.stdout.flush()
        os.dup2(2, 1)
        runners: dict[str, Runner] = {}
        for line in requests:
            request = json.loads(line)
            name = request["variant"]
            try:
                reply = {"done": dataclasses.asdict(_measure(task, request, runners))}
            except Exception as error:
                runners.pop(name, None)
                reply = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(reply), file=replies, flush=True)
    return 0


def _measure(
    task: Mapping[str, Any], request: Mapping[str, Any], runners: dict[str, Runner]
) -> Timed:
    from benchmarks.timing import Budget

    name = request["variant"]
    if request["do"] == "start":
        module = importlib.import_module(task["module"])
        variant = module.make_variant(name, task["workload"], task["settings"], task["plan"])
        runners[name] = variant.runner(request["wait_each"], time.perf_counter)
        runners[name].start(Budget(**request["budget"]))
    else:
        runners[name].block()
    return runners[name].timed()


# --- first update and memory --------------------------------------------------------------


def _first_update(task: Mapping[str, Any]) -> dict[str, float]:
    if _is_jax(task):
        _restrict_cores(task["threads"])
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
        if _is_jax(task):
            _restrict_cores(task["threads"])
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
            variant = load(task["workload"]).cases(plan)[task["case"]].variant(task["variant"])
            stack.enter_context(matmul_precision(task["matmul"], device=device))
        stack.enter_context(variant.scope())
        step = variant.make()
        for i in range(_WARM_UP):
            variant.wait(step(i))
        compiled = _peak()
        _reset_peak()
        before = _allocations(task, device)
        for i in range(_WARM_UP, _WARM_UP + _CALLS):
            variant.wait(step(i))
        return {
            "peak": _peak() / _MB,
            "imports": (imports - start) / _MB,
            "with_compiling": max(compiled, _peak()) / _MB,
            **_on_device(task, device, before),
        }


def _is_jax(task: Mapping[str, Any]) -> bool:
    return task["variant"].partition("-")[0] == "jax"


def _jax_variant(task: Mapping[str, Any], workload: str, plan: Mapping[str, Any]) -> Any:
    """A variant on JAX, made without the workload's own module, which imports torch."""
    from benchmarks.jax_side import variants

    return variants.make_variant(task["variant"], workload, task["settings"], plan)


def _restrict_cores(threads: int) -> None:
    """Restrict cores like ``machine.use_threads``, but without importing torch."""
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


def _reset_peak() -> None:
    _CLEAR.write_text("5")


def _allocations(task: Mapping[str, Any], device: str) -> int:
    if not device.startswith("cuda") or _is_jax(task):
        return 0
    import torch

    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_stats()["allocation.all.allocated"]


def _on_device(task: Mapping[str, Any], device: str, before: int) -> dict[str, float]:
    if not device.startswith("cuda"):
        return {}
    if _is_jax(task):
        jax = importlib.import_module("jax")
        return {"device_peak": (jax.devices()[0].memory_stats() or {})["peak_bytes_in_use"] / _MB}
    import torch

    allocations = torch.cuda.memory_stats()["allocation.all.allocated"] - before
    peak = torch.cuda.max_memory_allocated()
    return {"device_peak": peak / _MB, "allocations": allocations / _CALLS}
