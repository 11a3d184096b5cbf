"""How many members fit into memory, estimated before they are created.

One update of one member runs on fake tensors, which have shapes and no values, and the bytes that
are in use at the same time are counted. K stacked members need K times as much.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from idql_func.compiler import torch_internals
from idql_func.switches import disable_jit
from idql_func.training.runtime.threads import read_text
from idql_func.training.seeds.stack import stack_members, update_member
from idql_func.transforms import vmap
from idql_func.tree import tree_leaves, tree_map
from idql_func.types import InputError

__all__ = ["MemberMemory", "available_memory", "check_fits", "member_memory", "peak_bytes"]

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemberMemory:
    """Bytes that one member needs: for its ``state``, and for the temporaries of an ``update``.

    ``acting`` are the bytes of choosing actions when members are evaluated one at a time.
    """

    state: int
    update: int
    acting: int = 0

    @property
    def total(self) -> int:
        """All bytes, with the copy of the state that exists while members are stacked."""
        return 2 * self.state + self.update


def member_memory(
    learner: Any, batch_shapes: dict[str, torch.Size], batch_size: int
) -> MemberMemory:
    """The memory that one member of a stack needs for batches of a size.

    ``batch_shapes`` maps a field to the shape of one row.

    >>> import gymnasium as gym
    >>> from idql_func.agents import BCLearner
    >>> space = gym.spaces.Box(-1, 1, (2,))
    >>> learner = BCLearner.create(0, space, space, hidden_dims=(8,))
    >>> sizes = {"observations": torch.Size([2]), "actions": torch.Size([2])}
    >>> small, large = (member_memory(learner, sizes, n) for n in (8, 800))
    >>> small.state == large.state, small.update < large.update
    (True, True)
    """
    stacked, rates = stack_members([learner])
    batch = {
        name: torch.empty((1, batch_size, *shape), dtype=learner.float_dtype, device="meta")
        for name, shape in batch_shapes.items()
    }

    def update_fake(fake: Any) -> Any:
        rows = {
            n: torch.empty(x.shape, dtype=x.dtype, device=learner.rng.device)
            for n, x in batch.items()
        }
        return vmap(update_member)(fake, rates, rows)

    update = peak_bytes_of_fake(update_fake, stacked)
    state = sum(x.nbytes for x in tree_leaves(stacked))
    return MemberMemory(state, update + sum(x.nbytes for x in batch.values()))


def peak_bytes_of_fake(function: Callable[[Any], Any], tree: Any) -> int:
    """:func:`peak_bytes` of a function of a tree, run on fake tensors; 0 if unknown."""
    fake_tensor_mode = torch_internals.fake_tensor_mode()
    if fake_tensor_mode is None:
        return 0
    with fake_tensor_mode(allow_non_fake_inputs=True) as mode, disable_jit():
        fake = tree_map(mode.from_tensor, tree)
        return peak_bytes(lambda: function(fake))


def peak_bytes(function: Callable[[], Any]) -> int:
    """The maximum of the bytes of new tensors that a function uses at a time; 0 if unknown.

    >>> peak_bytes(lambda: torch.zeros(100) + torch.ones(100))
    1200
    """
    dispatch_mode = torch_internals.dispatch_mode()
    if dispatch_mode is None:
        return 0
    counting = _Counting()
    with dispatch_mode(counting.run):
        result = function()
    del result
    return counting.peak


class _Counting:
    """Counts the memory of tensors by their storages, from creation to release."""

    def __init__(self) -> None:
        self.alive = self.peak = 0
        self._known: Any = WeakIdKeyDictionary()

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operator and count its new tensors."""
        for leaf in tree_leaves([list(args), dict(kwargs)]):
            if isinstance(leaf, Tensor):
                self._known.setdefault(leaf.untyped_storage(), 0)
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage not in self._known:
                    size = 0 if torch_internals.is_lazy_clone(func) else storage.nbytes()
                    self._known[storage] = size
                    self.alive += size
                    weakref.finalize(storage, self._freed, size)
        self.peak = max(self.peak, self.alive)
        return result

    def _freed(self, size: int) -> None:
        self.alive -= size


def check_fits(members: int, each: MemberMemory, batch_size: int, device: torch.device) -> str:
    """Check that so many members fit into memory, and return a line about it for the user.

    Raises:
        InputError: they do not fit; the message has the largest number that does.

    >>> check_fits(2, MemberMemory(1000, 500), 8, torch.device("cpu")).partition(" of")[0]
    '2 members need about 1 MB'
    """
    evaluating = 2 * members * each.state + each.acting
    needed, free = max(members * each.total, evaluating), available_memory(device)
    need = f"{members} members need about {_readable(needed)} of memory"
    if free is None:
        return need
    if needed > free:
        most = min(free // each.total, max(0, free - each.acting) // (2 * each.state))
        smaller = "--batch-size" if needed > evaluating else "--evaluation.num-envs"
        instead = f"at most {most} fit" if most else "not even one fits"
        raise InputError(
            f"{need} with batches of {batch_size}, but {_readable(free)} are free: {instead}; "
            f"give {'fewer of them' if most else 'smaller networks'} or a smaller {smaller}"
        )
    return f"{need}, {_readable(free)} are free"


def available_memory(device: torch.device) -> int | None:
    """Free bytes of a device, None if they are unknown.

    On a CPU the available memory by Linux, at most the rest of a container's limit.

    >>> (available_memory(torch.device("cpu")) or 1) > 0
    True
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = []
    if available := re.search(r"MemAvailable:\s+(\d+) kB", read_text(Path("/proc/meminfo"))):
        found.append(1024 * int(available[1]))
    limit, used = (read_text(_CGROUP / f"memory.{name}") for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        found.append(max(0, int(limit) - int(used)))
    return min(found) if found else _pages()


def _pages() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"
