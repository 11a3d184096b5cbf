"""Prefetch batches to a device.

Port of ``get_iterator`` in ``jaxrl5/data/replay_buffer.py``, which follows Flax's
``prefetch_to_device``. There is a single thread: batches are drawn in the caller's order, so the
index stream equals that of plain calls. Only the copies to a GPU run in parallel with computation.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from idql_func.boundary import describe, explain_module
from idql_func.data.arrays import make_transfer, map_arrays, named_leaves
from idql_func.types import InputError

__all__ = ["prefetch"]


_LONGEST_QUEUE = 65_536  # batches: all are drawn before the first one is returned


def prefetch(
    draw: Callable[[], dict[str, Any]], queue_size: int = 2, device: torch.device | str = "cpu"
) -> Iterator[dict[str, Any]]:
    """Iterate without end over batches on a device, each drawn ``queue_size - 1`` calls early.

    With ``queue_size=2``, upstream's default, a batch is thus one call old (D21) and misses what
    was inserted since. With ``queue_size=1`` it is drawn in the call itself.

    On a CUDA device the arrays are copied to pinned memory and from there asynchronously on a
    separate stream. When a batch is returned, the current stream waits for its copy.

    Args:
        draw: returns the next batch, a nested dict of arrays ``[B, ...]``.
        queue_size: number of batches in the queue, at least 1.
        device: device of the tensors.

    Returns:
        An iterator over nested dicts of tensors ``[B, ...]``, with JAX's dtypes (float64 becomes
        float32 and int64 becomes int32, except under ``enable_x64``).

    Raises:
        InputError: if queue_size is below 1 (upstream's iterator is then empty).

    Example:
        >>> import itertools, numpy as np
        >>> count = itertools.count()
        >>> batches = prefetch(lambda: {"a": np.full(2, next(count))}, queue_size=2)
        >>> next(batches)["a"], next(count)
        (tensor([0, 0], dtype=torch.int32), 2)
    """
    if not callable(draw):
        raise TypeError(f"draw must be a function, got {describe(draw)}.")
    if isinstance(queue_size, bool) or not isinstance(queue_size, int) or queue_size < 1:
        raise InputError(f"queue_size must be an integer of at least 1, got {queue_size!r}.")
    if queue_size > _LONGEST_QUEUE:
        raise InputError(f"queue_size must be at most {_LONGEST_QUEUE:,}, got {queue_size:,}.")
    device = torch.device(device)
    return _batches(draw, queue_size, (_CudaCopy if device.type == "cuda" else _Copy)(device))


def _batches(
    draw: Callable[[], dict[str, Any]], queue_size: int, copy: _Copy
) -> Iterator[dict[str, Any]]:
    queue = collections.deque(copy.start(draw()) for _ in range(queue_size))
    while True:
        yield copy.finish(queue.popleft())
        queue.append(copy.start(draw()))


class _Copy:
    """Copy batches synchronously: they are on the device when ``start`` returns."""

    def __init__(self, device: torch.device):
        self.device = device

    def start(self, batch: dict[str, Any]) -> Any:
        if not isinstance(batch, Mapping):
            raise TypeError(f"draw must return a dict of arrays, got {describe(batch)}.")
        return map_arrays(batch, make_transfer(self.device))

    def finish(self, started: Any) -> dict[str, Any]:
        return started


class _CudaCopy(_Copy):
    """Copy batches to a CUDA device in parallel with its computation."""

    def __init__(self, device: torch.device):
        super().__init__(device)
        self.stream = torch.cuda.Stream(device)

    def start(self, batch: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        convert = make_transfer(torch.device("cpu"))
        with torch.cuda.stream(self.stream):
            # The pinned-memory allocator keeps a block until the copy from it is done.
            tensors = map_arrays(
                batch, lambda v: convert(v).pin_memory().to(self.device, non_blocking=True)
            )
            return tensors, self.stream.record_event()

    def finish(self, started: tuple[dict[str, Any], Any]) -> dict[str, Any]:
        tensors, copied = started
        current = torch.cuda.current_stream(self.device)
        current.wait_event(copied)
        for _, tensor in named_leaves(tensors):
            # otherwise the next copy could reuse the memory while the reader still uses it
            tensor.record_stream(current)
        return tensors


explain_module(__name__, strict=False)
