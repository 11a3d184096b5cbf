"""A compiled CPU program, recorded while it runs once and replayed by one C call.

Inductor's programs for the CPU are Python: a call for each kernel, one for the memory of each
intermediate result. In a small learner's update that is a fifth of the time, as Python's own data
has left the caches whenever a kernel is done. What such a program does is the same each time but
for the addresses of its inputs and outputs. So its C functions are noted once, Inductor's kernels
and the library's own, with what each of their arguments points to: an input, an output, or an
intermediate result, for all of which one block of memory is divided. A replay fills in the
addresses and calls one function after the other. It is to the CPU what a CUDA graph is to a GPU.

Operators of torch's, such as a convolution, are called from Python in between. None is missed, as
every one that runs is looked at while a program is recorded (``recorder.py``); a program with one
that can't be called again like that is left as it is.
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
from idql_func.compiler.recorder import MOST_WORDS, Call, Operator, Place, Recorder, View, usual
from idql_func.compiler.torch_internals import REPLAY, problem_of, turn_off
from idql_func.kernels.build import CFunction, library

__all__ = ["Replayed", "available"]

logger = logging.getLogger(__name__)

_NONE = array("q")
_LINE = 64  # bytes: intermediate results begin at a line of cache
_AT_ONCE = 16  # runs in one C call: an interrupt waits no longer


@functools.cache
def _replay() -> CFunction | None:
    built = library("replay")
    return None if built is None else CFunction(built, "replay", "cncncnnccn")


def available() -> bool:
    """Whether the C function that replays programs can be built here."""
    return _replay() is not None


class Replayed:
    """A program that is recorded at its first call and replayed at later ones, where it can be."""

    def __init__(self, program: Callable[..., Sequence[Tensor]]) -> None:
        self._program = program
        self._plans: dict[int, _Plan] = {}
        """For each number of threads, which is part of what is recorded."""
        self._can = _replay() is not None and problem_of(REPLAY) is None
        self._lock = threading.Lock()

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        return self.repeat(tensors, _NONE)

    def repeat(self, tensors: Sequence[Tensor], addresses: array[int]) -> Sequence[Tensor]:
        """Run it on tensors of which the first are known to lie at some addresses."""
        plan = self._plans.get(torch.get_num_threads())
        if plan is not None:
            return plan.run(tensors, addresses)
        if self._can and self._lock.acquire(blocking=False):
            try:
                return self._record(tensors)
            finally:
                self._lock.release()
        return self._program(*tensors)

    def repeat_over(
        self, tensors: Sequence[Tensor], rows: Mapping[int, Tensor], times: int
    ) -> list[Tensor] | None:
        """Run it some times on the same memory, if it can be replayed from end to end by now.

        Args:
            tensors: its inputs at the first run.
            rows: for the places of inputs that are others at each run what they are rows of,
                contiguous tensors ``[times, ...]``.
            times: how often.

        Returns:
            The results of all runs, each ``[times, ...]``, or None if it can't be done so.
        """
        plan = self._plans.get(torch.get_num_threads())
        if plan is None or not plan.is_whole:
            return None
        return plan.run_over(tensors, rows, times)

    def _record(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        self._can = False
        if not all(map(usual, tensors)):
            return self._program(*tensors)
        compiled = torch_internals.compiled_graph_of(self._program)
        code = getattr(compiled, "current_callable", None)
        if compiled is None or torch_internals.generated_function(code) is None:
            turn_off(REPLAY, "a compiled program does not hold its generated code as expected")
            return self._program(*tensors)
        original = compiled.current_callable
        recorder = Recorder(tensors)
        compiled.current_callable = functools.partial(recorder.run, original)
        try:
            results = self._program(*tensors)
        finally:
            compiled.current_callable = original
        if recorder.is_complete(tensors, results):
            self._plans[torch.get_num_threads()] = _Plan.of(recorder, results)
            self._can = True  # again, with another number of threads
        else:
            logger.debug("a program is not replayed: %s", recorder.problem)
        return results


class _Block:
    """Memory for intermediate results, shared by programs, which seldom run at the same time."""

    __slots__ = ("__weakref__", "floats", "lock", "start")

    def __init__(self, size: int) -> None:
        self.floats = torch.empty((size + _LINE) // 4, dtype=torch.float32)
        self.start = -(-self.floats.data_ptr() // _LINE) * _LINE
        """The address of its first line of cache."""
        self.lock = threading.Lock()

    def holds(self, size: int) -> bool:
        """Whether there is room."""
        return self.floats.data_ptr() + self.floats.nbytes - self.start >= size


_BLOCKS: weakref.WeakSet[_Block] = weakref.WeakSet()  # as long as a plan uses it


@contextlib.contextmanager
def _taken(block: _Block, size: int) -> Iterator[_Block]:
    """The block, or a new one while another thread uses it."""
    if not block.lock.acquire(blocking=False):
        yield _Block(size)
        return
    try:
        yield block
    finally:
        block.lock.release()


def _block(size: int) -> _Block:
    for block in list(_BLOCKS):
        if block.holds(size):
            return block
    block = _Block(size)
    _BLOCKS.add(block)
    return block


@dataclass
class _Segment:
    """Steps that one C call runs."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    words: array[int] = field(default_factory=lambda: array("q"))
    patches: array[int] = field(default_factory=lambda: array("q"))
    arguments: tuple[int, ...] = ()
    """Those of ``replay`` but for the last."""

    def add(self, step: Call, regions: dict[int, tuple[int, int]]) -> None:
        """Put a step behind the others. ``regions``: see :class:`_Plan`."""
        tails: list[tuple[int, list[Place]]] = []
        first = len(self.words)
        for word in step.words:
            if isinstance(word, list):
                tails.append((len(self.words), word))
            self._put(word, regions)
        self.steps.extend((step.address, first, len(step.words), step.checked))
        for at, places in tails:
            self.patches.extend((at, -1, 8 * len(self.words)))
            for place in places:
                self._put(place, regions)

    def _put(self, word: Any, regions: dict[int, tuple[int, int]]) -> None:
        if isinstance(word, Place):
            region, start = regions[word.region]
            self.patches.extend((len(self.words), region, start + word.offset))
        self.words.append(word if isinstance(word, int) else 0)

    def close(self) -> None:
        """Finish the arrays after the last step."""
        self.words.extend([0] * MOST_WORDS)
        steps, words, patches = (x.buffer_info() for x in (self.steps, self.words, self.patches))
        self.arguments = steps[0], steps[1] // 4, *words, patches[0], patches[1] // 3


@dataclass
class _Plan:
    """A recorded program.

    What the recorder calls regions lies in the slots of a replay: the inputs, the results that are
    made, the block, and what torch's operators make.
    """

    parts: list[_Segment | Operator]
    last: list[list[int]]
    """For each part, the slots that nothing needs after it and that are no result."""
    regions: dict[int, tuple[int, int]]
    """For each region its slot, and where in it it begins, in bytes."""
    made: list[tuple[tuple[int, ...], torch.dtype]]
    scalars: torch.dtype | None
    """That of the results which are made, if all are scalars of one, as an update's losses are."""
    results: list[int | View]
    """The slot of each result, or what it is of one."""
    elsewhere: int
    """How many tensors torch's operators make."""
    size: int
    block: _Block
    kept: list[Any]
    """Constants that the segments have the addresses of."""
    is_whole: bool
    """Whether one C call does it all and each result is in memory of its own."""

    @staticmethod
    def of(recorder: Recorder, results: Sequence[Tensor]) -> _Plan:
        """The plan of a recorded program and its results."""
        views = [recorder.view(result) for result in results]
        counts = Counter(view.place.region for view in views)
        whole = {
            view.place.region: view
            for view, result in zip(views, results, strict=True)
            if counts[view.place.region] == 1 and recorder.is_whole(result)
        }
        inputs, elsewhere = recorder.inputs, sorted(recorder.elsewhere)
        made = [r for r in counts if r >= inputs and r not in recorder.elsewhere]
        block = inputs + len(made)
        regions = {k: (k, 0) for k in range(inputs)}
        regions |= {region: (inputs + k, 0) for k, region in enumerate(made)}
        regions |= {region: (block + 1 + k, 0) for k, region in enumerate(elsewhere)}
        steps = batched_by_member(recorder.steps)
        places, size = _divide(steps, recorder.sizes, {*regions})
        regions |= {region: (block, start) for region, start in places.items()}
        parts: list[_Segment | Operator] = []
        needed: dict[int, int] = {}
        for step in steps:
            if isinstance(step, Operator):
                parts.append(step)
            else:
                segment = parts[-1] if parts else None
                if not isinstance(segment, _Segment):
                    segment = _Segment()
                    parts.append(segment)
                segment.add(step, regions)
            needed |= dict.fromkeys(step.regions(), len(parts) - 1)
        for part in parts:
            if isinstance(part, _Segment):
                part.close()
        last: list[list[int]] = [[] for _ in parts]
        for region in elsewhere:
            if region not in counts:
                last[needed[region]].append(regions[region][0])
        as_bytes = {region: ((recorder.sizes[region],), torch.uint8) for region in made}
        made_as: list[tuple[tuple[int, ...], torch.dtype]] = [
            (whole[r].size, whole[r].dtype) if r in whole else as_bytes[r] for r in made
        ]
        dtypes = {dtype for _, dtype in made_as}
        are_scalars = len(dtypes) == 1 and all(shape == () for shape, _ in made_as)
        is_whole = [type(part) for part in parts] == [_Segment] and whole.keys() == {*made}
        return _Plan(
            parts,
            last,
            regions,
            made_as,
            dtypes.pop() if are_scalars else None,
            [regions[r][0] if (r := v.place.region) in whole else v for v in views],
            len(elsewhere),
            size,
            _block(size),
            recorder.kept,
            is_whole,
        )

    def run(self, tensors: Sequence[Tensor], addresses: array[int]) -> Sequence[Tensor]:
        """Replay it on inputs like those it was recorded with, the first at known addresses."""
        made = self._make()
        regions = addresses[:]
        regions.extend(map(Tensor.data_ptr, tensors[len(addresses) :]))
        regions.extend(map(Tensor.data_ptr, made))
        with _taken(self.block, self.size) as block:
            regions.append(block.start)
            regions.extend([0] * self.elsewhere)
            memory: list[Any] = [*tensors, *made, block.floats, *[None] * self.elsewhere]
            function = _replay()
            assert function is not None
            for part, last in zip(self.parts, self.last, strict=True):
                if isinstance(part, _Segment):
                    function.call_unobserved(*part.arguments, 1, regions.buffer_info()[0], 0, 0)
                else:
                    self._run_operator(part, memory, regions)
                for slot in last:
                    memory[slot] = None
        return [
            memory[result] if isinstance(result, int) else self._tensor(result, memory, regions)
            for result in self.results
        ]

    def _make(self) -> Sequence[Tensor]:
        """Memory for the results."""
        if self.scalars is not None:
            return torch.empty(len(self.made), dtype=self.scalars).unbind()
        return [torch.empty(shape, dtype=dtype) for shape, dtype in self.made]

    def run_over(
        self, tensors: Sequence[Tensor], rows: Mapping[int, Tensor], times: int
    ) -> list[Tensor]:
        """See :meth:`Replayed.repeat_over`."""
        [segment] = self.parts
        assert isinstance(segment, _Segment)
        made = [torch.empty((times, *shape), dtype=dtype) for shape, dtype in self.made]
        columns = [rows.get(k, tensor) for k, tensor in enumerate(tensors)] + made
        moves = array("q", [0]) * (len(columns) + 1)
        for k in (*rows, *range(len(tensors), len(columns))):
            moves[k] = columns[k].stride(0) * columns[k].itemsize
        regions = array("q", map(Tensor.data_ptr, columns))
        function = _replay()
        assert function is not None
        with _taken(self.block, self.size) as block:
            regions.append(block.start)
            where = regions.buffer_info()[0], *moves.buffer_info()
            for first in range(0, times, _AT_ONCE):
                function.call_unobserved(*segment.arguments, min(_AT_ONCE, times - first), *where)
        return [columns[result] for result in self.results if isinstance(result, int)]

    def _run_operator(self, step: Operator, memory: list[Any], regions: array[int]) -> None:
        def value(given: Any) -> Any:
            return self._tensor(given, memory, regions) if isinstance(given, View) else given

        result = step.run(
            *map(value, step.arguments), **{name: value(x) for name, x in step.named.items()}
        )
        if step.results:
            found = result if isinstance(result, list | tuple) else [result]
            tensors = [tensor for tensor in found if tensor is not None]
            for region, tensor in zip(step.results, tensors, strict=True):
                slot, _ = self.regions[region]
                memory[slot] = tensor
                regions[slot] = tensor.data_ptr()

    def _tensor(self, view: View, memory: list[Any], regions: array[int]) -> Tensor:
        slot, start = self.regions[view.place.region]
        storage = memory[slot].untyped_storage()
        offset = regions[slot] + start + view.place.offset - storage.data_ptr()
        tensor = torch.empty(0, dtype=view.dtype)
        return tensor.set_(storage, offset // tensor.itemsize, view.size, view.stride)


def _divide(
    steps: Sequence[Call | Operator], sizes: Sequence[int], others: set[int]
) -> tuple[dict[int, int], int]:
    """Where in one block each intermediate result begins, and the block's size, in bytes.

    Two that are never needed at once may have the same place. The largest are placed first, each
    as low as it goes.
    """
    lives: dict[int, tuple[int, int]] = {}
    for k, step in enumerate(steps):
        for region in step.regions():
            if region not in others:
                first, _ = lives.get(region, (k, k))
                lives[region] = first, k
    placed: list[tuple[int, int, int, int]] = []
    starts: dict[int, int] = {}
    for region in sorted(lives, key=lambda r: (-sizes[r], r)):
        first, last = lives[region]
        size = -(-max(sizes[region], 1) // _LINE) * _LINE
        start = 0
        for begin, end, since, until in sorted(placed):
            if since <= last and first <= until:
                if start + size <= begin:
                    break
                start = max(start, end)
        starts[region] = start
        placed.append((start, start + size, first, last))
    return starts, max((end for _, end, _, _ in placed), default=0)
