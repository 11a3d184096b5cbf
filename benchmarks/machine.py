"""The machine and the versions that a run's figures belong to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.twin.variants import missing
from idql_func.types import InputError

__all__ = ["environment", "jax_problem", "use_threads"]

_PACKAGES = ("idql_func", "torch", "jax", "jaxlib", "flax", "optax", "numpy", "tyro")
_CPU_INFO = Path("/proc/cpuinfo")


def use_threads(count: int | None) -> int:
    """Give torch and JAX the same number of threads; returns it.

    JAX takes one thread for each core that the process may run on, so the process is confined to
    ``count`` cores; that must come before JAX's first work. Default: all cores there are.

    Raises:
        InputError: fewer than one, or more than there are cores.
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
    """One sentence on why the variants on JAX cannot run, or None if they can."""
    problem = missing()
    return None if problem is None else f"The variants on JAX are left out. {problem}"


def environment(device: str, threads: int, matmul: str, **more: Any) -> dict[str, Any]:
    """Hardware, versions, threads, the mode of matrix products and the date.

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
