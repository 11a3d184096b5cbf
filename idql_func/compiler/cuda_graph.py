"""A compiled graph on a GPU, recorded once and replayed by one launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["CudaGraph"]


class CudaGraph:
    """A program recorded once and replayed by one launch (``torch.cuda.CUDAGraph``).

    An input is read where it lies: donated state and a dataset stay there. One that is seen to
    move, such as a batch, gets memory of its own, into which it is copied before each replay.
    Outputs are copied out, since the next replay overwrites them.
    """

    def __init__(self, program: Callable[..., Sequence[Tensor]], donated: set[int]) -> None:
        self._program = program
        self._donated = donated
        self._moving: set[int] = set()
        self._inputs: list[Tensor] = []
        self._outputs: tuple[Tensor, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        elsewhere = {
            k for k, own in enumerate(self._inputs) if own.data_ptr() != tensors[k].data_ptr()
        }
        if self._graph is None or elsewhere - self._moving:
            self._moving |= elsewhere - self._donated
            self._record(tensors)
        for k in elsewhere & self._moving:
            self._inputs[k].copy_(tensors[k])
        assert self._graph is not None
        self._graph.replay()
        return [output.clone() for output in self._outputs]

    def _record(self, tensors: Sequence[Tensor]) -> None:
        # warm up on copies: a recording must not be the first run, and a run changes its state
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._program(*(t.clone() for t in tensors))
        torch.cuda.current_stream().wait_stream(stream)
        # objects of its own: a caller's are refused once they are donated
        self._inputs = [
            t.clone() if k in self._moving else t.detach() for k, t in enumerate(tensors)
        ]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = tuple(self._program(*self._inputs))
