"""A compiled CPU graph, recorded during one run and replayed by one C call.

The code that Inductor generates for the CPU is Python: one call for each kernel and one for the
memory of each intermediate result. In the update of a small learner this takes a fifth of the
time, because Python's own data has left the caches whenever a kernel ends. Only the addresses of
inputs and outputs differ from run to run. So one run is recorded: the C functions (Inductor's
kernels and the library's own) and what each pointer argument points to, which is an input, an
output or an intermediate result. All intermediate results share one block of memory. A replay
fills in the addresses and calls the functions in order. It is to the CPU what a CUDA graph is to a
GPU.

Torch operators, such as a convolution, are called from Python between the C calls. The recorder
(``recorder.py``) is called for every operator that runs, so that none is missed. A graph with an
operator that can't be called again in this way is not replayed.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from idql_func.compiler import torch_internals
from idql_func.compiler.batch_members import batched_by_member
from idql_func.compiler.recorder import (
    MAX_ARGUMENTS,
    Call,
    Operator,
    Place,
    Recorder,
    View,
    is_recordable,
)
from idql_func.compiler.torch_internals import REPLAY, problem_of, turn_off
from idql_func.kernels.build import CFunction, library

logger = logging.getLogger(__name__)

_NONE = array("q")
_LINE = 64  # bytes of a cache line; intermediate results are aligned to it
_RUNS_PER_CALL = 16  # a limit, because Ctrl-C takes effect only between C calls


@functools.cache
def _replay() -> CFunction | None:
    built = library("replay")
    return None if built is None else CFunction(built, "replay", "cncncnnccn")


def available() -> bool:
    """Whether the C function that replays recordings can be built here."""
    return _replay() is not None


class Replayed:
    """A compiled graph that is recorded at its first call and replayed at later calls.

    If it can't be recorded, each call runs the compiled graph itself.
    """

    def __init__(self, compiled: Callable[..., Sequence[Tensor]]) -> None:
        self._compiled = compiled
        self._plans: dict[int, _Plan] = {}
        """The plan for each number of threads, which the recorded calls contain."""
        self._can_record = _replay() is not None and problem_of(REPLAY) is None
        self._lock = threading.Lock()

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        return self.run(tensors, _NONE)

    def run(self, tensors: Sequence[Tensor], addresses: array[int]) -> Sequence[Tensor]:
        """Run the graph.

        Args:
            tensors: its inputs.
            addresses: the addresses of the first ``len(addresses)`` inputs, known to the caller.
        """
        plan = self._plans.get(torch.get_num_threads())
        if plan is not None:
            return plan.run(tensors, addresses)
        if self._can_record and self._lock.acquire(blocking=False):
            try:
                return self._record(tensors)
            finally:
                self._lock.release()
        return self._compiled(*tensors)

    def run_over_rows(
        self, tensors: Sequence[Tensor], rows: Mapping[int, Tensor], times: int
    ) -> list[Tensor] | None:
        """Run the graph several times in C, if it is recorded and makes C calls only.

        Args:
            tensors: the inputs of the first run.
            rows: by position, the inputs that differ from run to run: contiguous tensors
                ``[times, ...]`` of which each run reads one row.
            times: the number of runs.

        Returns:
            The results of all runs, each ``[times, ...]``, or None if nothing was run.
        """
        plan = self._plans.get(torch.get_num_threads())
        if plan is None or not plan.is_one_call:
            return None
        return plan.run_over_rows(tensors, rows, times)

    def _record(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        self._can_record = False
        if not all(map(is_recordable, tensors)):
            return self._compiled(*tensors)
        graph = torch_internals.compiled_graph_of(self._compiled)
        code = getattr(graph, "current_callable", None)
        if graph is None or torch_internals.generated_function(code) is None:
            turn_off(REPLAY, "a compiled graph does not hold its generated code as expected")
            return self._compiled(*tensors)
        original = graph.current_callable
        recorder = Recorder(tensors)
        graph.current_callable = functools.partial(recorder.run, original)
        try:
            results = self._compiled(*tensors)
        finally:
            graph.current_callable = original
        if recorder.is_complete(tensors, results):
            self._plans[torch.get_num_threads()] = _Plan.from_recording(recorder, results)
            self._can_record = True  # for another number of threads
        else:
            logger.debug("a compiled graph is not replayed: %s", recorder.problem)
        return results


class _Block:
    """Memory for intermediate results, shared by plans, which seldom run at the same time."""

    __slots__ = ("__weakref__", "floats", "lock", "start")

    def __init__(self, size: int) -> None:
        self.floats = torch.empty((size + _LINE) // 4, dtype=torch.float32)
        self.start = -(-self.floats.data_ptr() // _LINE) * _LINE
        """The address of the first whole cache line."""
        self.lock = threading.Lock()

    def fits(self, size: int) -> bool:
        """Whether ``size`` bytes fit into the block."""
        return self.floats.data_ptr() + self.floats.nbytes - self.start >= size


_BLOCKS: weakref.WeakSet[_Block] = weakref.WeakSet()  # a plan keeps its block alive


@contextlib.contextmanager
def _locked(block: _Block, size: int) -> Iterator[_Block]:
    """Lock the block; if another thread holds it, make a new one."""
    if not block.lock.acquire(blocking=False):
        yield _Block(size)
        return
    try:
        yield block
    finally:
        block.lock.release()


def _block(size: int) -> _Block:
    """Find an existing block of at least ``size`` bytes, or make a new one."""
    for block in list(_BLOCKS):
        if block.fits(size):
            return block
    block = _Block(size)
    _BLOCKS.add(block)
    return block


@dataclass
class _Segment:
    """Steps that one C call runs. The arrays are those of ``csrc/replay.c``."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    words: array[int] = field(default_factory=lambda: array("q"))
    patches: array[int] = field(default_factory=lambda: array("q"))
    arguments: tuple[int, ...] = ()
    """The first arguments of ``replay``: the addresses and lengths of the arrays."""

    def add(self, step: Call, regions: dict[int, tuple[int, int]]) -> None:
        """Append a step. ``regions``: see :class:`_Plan`."""
        lists: list[tuple[int, list[Place]]] = []
        first = len(self.words)
        for argument in step.arguments:
            if isinstance(argument, list):
                lists.append((len(self.words), argument))
            self._append_word(argument, regions)
        self.steps.extend((step.address, first, len(step.arguments), step.checked))
        for pointer, items in lists:  # a list is stored behind the arguments
            self.patches.extend((pointer, -1, 8 * len(self.words)))
            for item in items:
                self._append_word(item, regions)

    def _append_word(self, value: Any, regions: dict[int, tuple[int, int]]) -> None:
        if isinstance(value, Place):
            slot, start = regions[value.region]
            self.patches.extend((len(self.words), slot, start + value.offset))
        self.words.append(value if isinstance(value, int) else 0)

    def close(self) -> None:
        """Finish the arrays after the last step."""
        self.words.extend([0] * MAX_ARGUMENTS)  # a call may read words beyond its own
        steps, words, patches = (x.buffer_info() for x in (self.steps, self.words, self.patches))
        self.arguments = steps[0], steps[1] // 4, *words, patches[0], patches[1] // 3


@dataclass
class _Plan:
    """A recorded graph, ready to be replayed.

    A replay has a list of memory slots: first the inputs, then the outputs that it allocates, the
    block of intermediate results, and the results of torch operators. Each region of the recorder
    is in one slot.
    """

    parts: list[_Segment | Operator]
    released: list[list[int]]
    """For each part, the slots whose memory is not used after it."""
    regions: dict[int, tuple[int, int]]
    """The slot of each region, and the region's start in the slot in bytes."""
    outputs: list[tuple[tuple[int, ...], torch.dtype]]
    """The shape and dtype of each output that a replay allocates."""
    scalar_dtype: torch.dtype | None
    """The dtype of these outputs if all are scalars of one dtype, as the losses of an update."""
    results: list[int | View]
    """The slot of each result, or the view of a slot's memory."""
    operator_result_count: int
    size: int
    """The bytes that the intermediate results need."""
    block: _Block
    constants: list[Any]
    """Objects whose addresses are in the segments, kept alive."""
    is_one_call: bool
    """Whether one C call runs all steps, and each allocated output is one result."""

    @staticmethod
    def from_recording(recorder: Recorder, results: Sequence[Tensor]) -> _Plan:
        """Make the plan of a recorded run with these results."""
        views = [recorder.view(result) for result in results]
        counts = Counter(view.place.region for view in views)
        whole = {
            view.place.region: view
            for view, result in zip(views, results, strict=True)
            if counts[view.place.region] == 1 and recorder.fills_region(result)
        }
        inputs, operator_regions = recorder.input_count, sorted(recorder.operator_regions)
        outputs = [r for r in counts if r >= inputs and r not in recorder.operator_regions]
        block = inputs + len(outputs)
        regions = {k: (k, 0) for k in range(inputs)}
        regions |= {region: (inputs + k, 0) for k, region in enumerate(outputs)}
        regions |= {region: (block + 1 + k, 0) for k, region in enumerate(operator_regions)}
        steps = batched_by_member(recorder.steps)
        starts, size = _assign_offsets(steps, recorder.sizes, {*regions})
        regions |= {region: (block, start) for region, start in starts.items()}
        parts: list[_Segment | Operator] = []
        last_use: dict[int, int] = {}
        for step in steps:
            if isinstance(step, Operator):
                parts.append(step)
            else:
                segment = parts[-1] if parts else None
                if not isinstance(segment, _Segment):
                    segment = _Segment()
                    parts.append(segment)
                segment.add(step, regions)
            last_use |= dict.fromkeys(step.regions(), len(parts) - 1)
        for part in parts:
            if isinstance(part, _Segment):
                part.close()
        released: list[list[int]] = [[] for _ in parts]
        for region in operator_regions:
            if region not in counts:
                released[last_use[region]].append(regions[region][0])
        as_bytes = {region: ((recorder.sizes[region],), torch.uint8) for region in outputs}
        allocations: list[tuple[tuple[int, ...], torch.dtype]] = [
            (whole[r].size, whole[r].dtype) if r in whole else as_bytes[r] for r in outputs
        ]
        dtypes = {dtype for _, dtype in allocations}
        are_scalars = len(dtypes) == 1 and all(shape == () for shape, _ in allocations)
        is_one_call = [type(part) for part in parts] == [_Segment] and whole.keys() == {*outputs}
        return _Plan(
            parts,
            released,
            regions,
            allocations,
            dtypes.pop() if are_scalars else None,
            [regions[r][0] if (r := v.place.region) in whole else v for v in views],
            len(operator_regions),
            size,
            _block(size),
            recorder.constants,
            is_one_call,
        )

    def run(self, tensors: Sequence[Tensor], addresses: array[int]) -> Sequence[Tensor]:
        """See :meth:`Replayed.run`; the inputs must be like those of the recording."""
        outputs = self._allocate_outputs()
        slots = addresses[:]
        slots.extend(map(Tensor.data_ptr, tensors[len(addresses) :]))
        slots.extend(map(Tensor.data_ptr, outputs))
        with _locked(self.block, self.size) as block:
            slots.append(block.start)
            slots.extend([0] * self.operator_result_count)
            empty = [None] * self.operator_result_count
            memory: list[Any] = [*tensors, *outputs, block.floats, *empty]
            function = _replay()
            assert function is not None
            for part, released in zip(self.parts, self.released, strict=True):
                if isinstance(part, _Segment):
                    function.call_unobserved(*part.arguments, 1, slots.buffer_info()[0], 0, 0)
                else:
                    self._run_operator(part, memory, slots)
                for slot in released:
                    memory[slot] = None
        return [
            memory[result] if isinstance(result, int) else self._tensor(result, memory, slots)
            for result in self.results
        ]

    def _allocate_outputs(self) -> Sequence[Tensor]:
        if self.scalar_dtype is not None:
            return torch.empty(len(self.outputs), dtype=self.scalar_dtype).unbind()
        return [torch.empty(shape, dtype=dtype) for shape, dtype in self.outputs]

    def run_over_rows(
        self, tensors: Sequence[Tensor], rows: Mapping[int, Tensor], times: int
    ) -> list[Tensor]:
        """See :meth:`Replayed.run_over_rows`."""
        [segment] = self.parts
        assert isinstance(segment, _Segment)
        outputs = [torch.empty((times, *shape), dtype=dtype) for shape, dtype in self.outputs]
        memory = [rows.get(k, tensor) for k, tensor in enumerate(tensors)] + outputs
        steps = array("q", [0]) * (len(memory) + 1)  # bytes from one run to the next
        for k in (*rows, *range(len(tensors), len(memory))):
            steps[k] = memory[k].stride(0) * memory[k].itemsize
        slots = array("q", map(Tensor.data_ptr, memory))
        function = _replay()
        assert function is not None
        with _locked(self.block, self.size) as block:
            slots.append(block.start)
            addresses = slots.buffer_info()[0], *steps.buffer_info()
            for first in range(0, times, _RUNS_PER_CALL):
                function.call_unobserved(
                    *segment.arguments, min(_RUNS_PER_CALL, times - first), *addresses
                )
        return [memory[result] for result in self.results if isinstance(result, int)]

    def _run_operator(self, step: Operator, memory: list[Any], slots: array[int]) -> None:
        def value(x: Any) -> Any:
            return self._tensor(x, memory, slots) if isinstance(x, View) else x

        kwargs = {name: value(x) for name, x in step.kwargs.items()}
        result = step.run(*map(value, step.args), **kwargs)
        if step.results:
            returned = result if isinstance(result, list | tuple) else [result]
            tensors = [tensor for tensor in returned if tensor is not None]
            for region, tensor in zip(step.results, tensors, strict=True):
                slot, _ = self.regions[region]
                memory[slot] = tensor
                slots[slot] = tensor.data_ptr()

    def _tensor(self, view: View, memory: list[Any], slots: array[int]) -> Tensor:
        slot, start = self.regions[view.place.region]
        storage = memory[slot].untyped_storage()
        offset = slots[slot] + start + view.place.offset - storage.data_ptr()
        tensor = torch.empty(0, dtype=view.dtype)
        return tensor.set_(storage, offset // tensor.itemsize, view.size, view.stride)


def _assign_offsets(
    steps: Sequence[Call | Operator], sizes: Sequence[int], others: set[int]
) -> tuple[dict[int, int], int]:
    """Assign to each intermediate result its start in one block; also return the block's size.

    Results whose lifetimes do not overlap may share memory. The largest are placed first, each at
    the lowest free offset. All numbers are bytes; ``others`` are regions outside the block.
    """
    lifetimes: dict[int, tuple[int, int]] = {}
    for k, step in enumerate(steps):
        for region in step.regions():
            if region not in others:
                first, _ = lifetimes.get(region, (k, k))
                lifetimes[region] = first, k
    placed: list[tuple[int, int, int, int]] = []
    starts: dict[int, int] = {}
    for region in sorted(lifetimes, key=lambda r: (-sizes[r], r)):
        first, last = lifetimes[region]
        size = -(-max(sizes[region], 1) // _LINE) * _LINE
        start = 0
        for begin, end, first_use, last_use in sorted(placed):
            if first_use <= last and first <= last_use:
                if start + size <= begin:
                    break
                start = max(start, end)
        starts[region] = start
        placed.append((start, start + size, first, last))
    return starts, max((end for _, end, _, _ in placed), default=0)
