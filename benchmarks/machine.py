"""The machine and the versions that a run was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.jax_side.variants import missing_packages
from idql_func.types import InputError

__all__ = ["environment", "jax_problem", "use_threads"]

_PACKAGES = ("idql_func", "torch", "jax", "jaxlib", "flax", "optax", "numpy", "tyro")
_CPU_INFO = Path("/proc/cpuinfo")


def use_threads(count: int | None) -> int:
    """Set the number of threads of torch and JAX and return it.

    JAX uses one thread for each core that the process may run on, so the process is restricted to
    ``count`` cores. Call this before JAX's first operation. Default: all cores.

    Raises:
        InputError: if the count is below one or above the number of cores.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    available = len(cores) if cores is not None else os.cpu_count() or 1
    count = available if count is None else count
    if not 1 <= count <= available:
        raise InputError(f"--threads must be from 1 to {available}, the cores here, got {count}")
    if cores is not None and count < available:
        os.sched_setaffinity(0, cores[:count])
    torch.set_num_threads(count)
    return count


def jax_problem() -> str | None:
    """Why the variants on JAX cannot run, in one sentence; None if they can."""
    problem = missing_packages()
    return None if problem is None else f"The variants on JAX are left out. {problem}"


def environment(device: str, threads: int, matmul: str, **more: Any) -> dict[str, Any]:
    """Hardware, versions, threads, mode of matrix products and date, for the results file.

    >>> sorted(environment("cpu", 1, "strict"))[:4]
    ['cores', 'cpu', 'date', 'device']
    """
    gpu = None
    if torch.device(device).type == "cuda":
        gpu = torch.cuda.get_device_name(torch.device(device))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "gpu": gpu,
        "device": device,
        "threads": threads,
        "matmul": matmul,
        "python": platform.python_version(),
        "versions": _versions(),
        **more,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    if _CPU_INFO.exists():
        facts: dict[str, str] = {}
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
        if "model name" in facts:
            family = f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
            return f"{facts['model name']} ({family})"
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
