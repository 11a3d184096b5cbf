"""Set the number of threads of torch's CPU kernels within a block.

By default torch uses one thread for each core that it sees. In a container with a quota, those are
the cores of the host; with two hardware threads per core, two threads may share one arithmetic
unit. Threads beyond the usable cores wait for each other in every kernel.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from idql_func.training.configs.options import check_threads

__all__ = ["cpu_threads", "usable_cores"]


@contextmanager
def cpu_threads(count: int | None) -> Iterator[int]:
    """Use ``count`` threads within the block, and afterwards as many as before.

    Args:
        count: 0: as many as :func:`usable_cores`; None: no change.

    Raises:
        InputError: ``count`` is negative, or so large that the process could not make them.

    Example:
        >>> with cpu_threads(1) as count:
        ...     count, torch.get_num_threads()
        (1, 1)
    """
    check_threads(count)
    before = torch.get_num_threads()
    if count is None:
        yield before
        return
    count = count or usable_cores()
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)


def usable_cores(
    cpus: Path = Path("/sys/devices/system/cpu"), groups: Path = Path("/sys/fs/cgroup")
) -> int:
    """Physical cores that this process may use, by its affinity mask and its quota.

    Example:
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
    else:
        allowed = list(range(os.cpu_count() or 1))
    # hardware threads of one core list the same siblings
    cores = {read_text(cpus / f"cpu{i}/topology/thread_siblings_list") or str(i) for i in allowed}
    return max(1, math.floor(min(len(cores), _quota(groups))))


def _quota(groups: Path) -> float:
    """CPU seconds per second that the control group allows; infinite without a limit."""
    quota, _, period = read_text(groups / "cpu.max").partition(" ")  # version 2
    if not period:
        quota = read_text(groups / "cpu/cpu.cfs_quota_us")
        period = read_text(groups / "cpu/cpu.cfs_period_us")
    try:
        granted = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such files
        return math.inf
    return granted if granted > 0 else math.inf


def read_text(path: Path) -> str:
    """The text of a file of the system, without blanks around it; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
