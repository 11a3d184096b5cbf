"""Draw batches ahead of their use and move them to the device meanwhile.

After ``get_iterator`` of ``jaxrl5/data/replay_buffer.py``, which follows Flax's
``prefetch_to_device``. One thread does it all: draws happen in the caller's order, so that the
index stream is that of plain calls; only the copies to a GPU run beside its computation.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

import torch

from idql_func.data.arrays import map_arrays, named_leaves, placer
from idql_func.types import InputError

__all__ = ["prefetch"]


def prefetch(
    draw: Callable[[], dict[str, Any]],
    queue_size: int = 2,
    device: torch.device | str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Endless batches as tensors on a device, each drawn ``queue_size - 1`` calls before its use.

    The first call draws ``queue_size`` batches; each later one draws one and hands out the oldest.
    So with ``queue_size=2``, upstream's default, a batch is one call old when it comes out (D21):
    what entered the buffer since is not in it. With ``queue_size=1`` it is fresh.

    On a CUDA device the arrays are copied to pinned memory and from there, without waiting, on a
    stream of their own; the stream that is current when a batch is handed out waits for that copy.

    Args:
        draw: gives the next batch, a nested dict of arrays ``[B, ...]``.
        queue_size: number of batches held, at least 1.
        device: where the tensors go.

    Returns:
        An iterator over nested dicts of tensors ``[B, ...]``, with JAX's dtypes (float64 comes as
        float32 and int64 as int32 unless under ``enable_x64``).

    Raises:
        InputError: queue_size below 1 (upstream's iterator then ends at once).

    Example:
        >>> import itertools, numpy as np
        >>> count = itertools.count()
        >>> batches = prefetch(lambda: {"a": np.full(2, next(count))}, queue_size=2)
        >>> next(batches)["a"], next(count)
        (tensor([0, 0], dtype=torch.int32), 2)
    """
    if isinstance(queue_size, bool) or not isinstance(queue_size, int) or queue_size < 1:
        raise InputError(f"queue_size must be an integer of at least 1, got {queue_size!r}.")
    device = torch.device(device)
    move: Any = _CopyStream(device) if device.type == "cuda" else _Place(device)
    return _batches(draw, queue_size, move)


def _batches(
    draw: Callable[[], dict[str, Any]], queue_size: int, move: Any
) -> Iterator[dict[str, Any]]:
    queue = collections.deque(move.start(draw()) for _ in range(queue_size))
    while True:
        yield move.finish(queue.popleft())
        queue.append(move.start(draw()))


class _Place:
    """Put a batch on a device that has no streams of ours: it is there when ``start`` returns."""

    def __init__(self, device: torch.device):
        self.device = device

    def start(self, batch: dict[str, Any]) -> dict[str, Any]:
        return map_arrays(batch, placer(self.device))

    def finish(self, batch: dict[str, Any]) -> dict[str, Any]:
        return batch


class _CopyStream:
    """Copy batches to a CUDA device beside what it computes."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def start(self, batch: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        place = placer(torch.device("cpu"))
        with torch.cuda.stream(self.stream):
            # The allocator of pinned memory keeps a block until the copy from it is done.
            tensors = map_arrays(
                batch, lambda v: place(v).pin_memory().to(self.device, non_blocking=True)
            )
            return tensors, self.stream.record_event()

    def finish(self, started: tuple[dict[str, Any], Any]) -> dict[str, Any]:
        tensors, copied = started
        current = torch.cuda.current_stream(self.device)
        current.wait_event(copied)
        for _, tensor in named_leaves(tensors):
            # else the memory could be given to the next copy while the reader still works on it
            tensor.record_stream(current)
        return tensors
