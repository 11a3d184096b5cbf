"""A CUDA graph of a compiled graph: recorded once, replayed by one launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class CudaGraph:
    """A compiled graph recorded once and replayed by one launch (``torch.cuda.CUDAGraph``).

    An input that has the same address at each call, such as donated state or a dataset, is read
    at that address. If the address of an input changes, as that of a batch, the graph is recorded
    again with a buffer for it, into which the input is copied before each replay. Outputs are
    copied, because the next replay overwrites them.
    """

    def __init__(self, compiled: Callable[..., Sequence[Tensor]], donated: set[int]) -> None:
        self._compiled = compiled
        self._donated = donated
        self._buffered: set[int] = set()
        """The positions of inputs that are copied into a buffer."""
        self._inputs: list[Tensor] = []
        self._outputs: tuple[Tensor, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        moved = {k for k, x in enumerate(self._inputs) if x.data_ptr() != tensors[k].data_ptr()}
        if self._graph is None or moved - self._buffered:
            self._buffered |= moved - self._donated
            self._record(tensors)
        for k in moved & self._buffered:
            self._inputs[k].copy_(tensors[k])
        assert self._graph is not None
        self._graph.replay()
        return [output.clone() for output in self._outputs]

    def _record(self, tensors: Sequence[Tensor]) -> None:
        # warm up on copies: the first run must not be recorded, and a run may write to its inputs
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._compiled(*(t.clone() for t in tensors))
        torch.cuda.current_stream().wait_stream(stream)
        # new tensor objects, because those of the caller refuse any use after their donation
        self._inputs = [
            t.clone() if k in self._buffered else t.detach() for k, t in enumerate(tensors)
        ]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = tuple(self._compiled(*self._inputs))
