"""A compiled CPU program, recorded while it runs once and replayed by one C call.

Inductor's programs for the CPU are Python: a call for each kernel, one for the memory of each
intermediate result. In a small learner's update that is a fifth of the time, as Python's own data
has left the caches whenever a kernel is done. What such a program does is the same each time but
for the addresses of its inputs and outputs. So its C functions are noted once, Inductor's kernels
and the library's own, with what each of their arguments points to: an input, an output, or an
intermediate result, for all of which one block of memory is divided. A replay fills in the
addresses and calls one function after the other. It is to the CPU what a CUDA graph is to a GPU.

Operators of torch's, such as a convolution, are called from Python in between. None is missed, as
every one that runs is looked at while a program is recorded (:class:`_Recorder` is a dispatch
mode); a program with one that can't be called again like that is left as it is.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import threading
import types
import weakref
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from idql_func._native import RUNS, Function, library, witness

__all__ = ["Replayed"]

logger = logging.getLogger(__name__)

_SOURCE = r"""
#include <stdint.h>
#include <string.h>

#define W8(i) w[i], w[i+1], w[i+2], w[i+3], w[i+4], w[i+5], w[i+6], w[i+7]
#define CALL(...) result = ((int64_t (*)())step[0])(__VA_ARGS__); break;

/* steps: (function, first of its words, how many, whether its result is an error) each.
   patches: (word, region, offset) each; region -1 is the words themselves.
   The words are copied, so that two threads can replay one program. Words beyond those that a
   function takes do no harm; as many as eight beyond the last are read. */
int64_t replay(const int64_t *steps, int64_t n_steps, const int64_t *words, int64_t n_words,
               const int64_t *patches, int64_t n_patches, const int64_t *regions)
{
    int64_t own[n_words];
    memcpy(own, words, 8 * n_words);
    for (const int64_t *p = patches; p < patches + 3 * n_patches; p += 3)
        own[p[0]] = (p[1] < 0 ? (int64_t)own : regions[p[1]]) + p[2];
    for (const int64_t *step = steps; step < steps + 4 * n_steps; step += 4) {
        const int64_t *w = own + step[1];
        int64_t result = 0;
        switch ((step[2] + 7) / 8) {
        case 0: case 1: CALL(W8(0))
        case 2: CALL(W8(0), W8(8))
        case 3: CALL(W8(0), W8(8), W8(16))
        case 4: CALL(W8(0), W8(8), W8(16), W8(24))
        case 5: case 6: CALL(W8(0), W8(8), W8(16), W8(24), W8(32), W8(40))
        default: CALL(W8(0), W8(8), W8(16), W8(24), W8(32), W8(40), W8(48), W8(56))
        }
        if (step[3] && result) return 1;
    }
    return 0;
}
"""
_MOST_WORDS = 64
_LINE = 64  # bytes: intermediate results begin at a line of cache


@functools.cache
def _replay() -> Function | None:
    built = library("replay", _SOURCE)
    return None if built is None else Function(built, "replay", "cncncnc")


class Replayed:
    """A program that is recorded at its first call and replayed at later ones, where it can be."""

    def __init__(self, program: Callable[..., Sequence[Tensor]]) -> None:
        self._program = program
        self._plan: _Plan | None = None
        self._can = _replay() is not None
        self._lock = threading.Lock()

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        plan = self._plan
        if plan is not None and plan.threads == torch.get_num_threads():
            return plan.run(tensors)
        if self._can and self._lock.acquire(blocking=False):
            try:
                return self._record(tensors)
            finally:
                self._lock.release()
        return self._program(*tensors)

    def _record(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        self._can = False
        compiled = _inductors(self._program)
        if compiled is None or not all(map(_usual, tensors)):
            return self._program(*tensors)
        original = compiled.current_callable
        recorder = _Recorder(tensors)
        compiled.current_callable = functools.partial(recorder.run, original)
        try:
            results = self._program(*tensors)
        finally:
            compiled.current_callable = original
        if recorder.saw_all_of(tensors, results):
            self._plan = _Plan.of(recorder, results)
            self._can = True  # again, should the number of threads change
        else:
            logger.debug("a program is not replayed: %s", recorder.problem)
        return results


def _inductors(program: Any) -> Any:
    """Inductor's part of a compiled program, or None where torch has other internals."""
    try:
        from torch._inductor.output_code import CompiledFxGraph
    except ImportError:
        return None
    found: list[Any] = []
    seen: dict[int, Any] = {}
    layer = [program]
    for _ in range(8):
        layer = [*{id(x): x for x in layer if not isinstance(x, type | Tensor)}.values()]
        layer = [x for x in layer if id(x) not in seen]
        seen |= {id(x): x for x in layer}
        found += [x for x in layer if isinstance(x, CompiledFxGraph)]
        layer = [y for x in layer if not isinstance(x, CompiledFxGraph) for y in _parts(x)]
    return found[0] if len(found) == 1 else None


def _parts(wrapper: Any) -> Iterator[Any]:
    """What a function or an object with a call holds on to."""
    if not callable(wrapper):
        return
    for cell in getattr(wrapper, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for name in ("__self__", "__func__", "func"):
        if hasattr(wrapper, name):
            yield getattr(wrapper, name)
    yield from getattr(wrapper, "__dict__", {}).values()


# --- recording --------------------------------------------------------------------------------

_MAKE = {torch.ops.aten.empty.memory_format, torch.ops.aten.empty_strided.default}
_WRITE = {getattr(torch.ops.aten, name).out for name in ("mm", "bmm", "addmm", "baddbmm")}
_NAMES = {"reinterpret_tensor", "extern_kernels", "torch", "aten", "assert_alignment"}
"""What a program may call besides kernels: it does nothing, or torch is asked."""


@dataclass(frozen=True)
class _Place:
    """An address: an offset, in bytes, into the memory of an input or of something made."""

    region: int
    offset: int


@dataclass(frozen=True)
class _View:
    """A tensor at a place."""

    place: _Place
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]


@dataclass
class _Call:
    """A call of a C function, by its address, with numbers, places and lists of places."""

    address: int
    words: list[Any]
    checked: bool

    def regions(self) -> Iterator[int]:
        """All memory that it may read or write."""
        for word in self.words:
            for item in word if isinstance(word, list) else (word,):
                if isinstance(item, _Place):
                    yield item.region


@dataclass
class _Operator:
    """A call of a torch operator with views and other values."""

    run: Callable[..., Any]
    arguments: list[Any]
    named: dict[str, Any]
    results: list[int]
    """The regions of its results."""

    def regions(self) -> Iterator[int]:
        """All memory that it may read or write."""
        yield from self.results
        for value in (*self.arguments, *self.named.values()):
            if isinstance(value, _View):
                yield value.place.region


class _Unknown(Exception):
    """Something that can't be replayed, by what it is."""


class _Recorder(TorchDispatchMode):
    """What a program does while it runs.

    A fault in the recording never stops the program: it may have written half of its results over
    its inputs.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.steps: list[_Call | _Operator] = []
        self.sizes = [t.nbytes for t in inputs]
        """Bytes of each region: of the inputs, then of all that is made."""
        self.inputs = len(inputs)
        self.kept: list[Any] = []
        """Constants that steps have the addresses of."""
        self.elsewhere: set[int] = set()
        """Regions that torch's operators make."""
        self.problem: str | None = None
        """Why it can't be replayed."""
        self._seen: tuple[Sequence[Tensor], Sequence[Tensor]] = (), ()
        self._starts: list[int] = []
        self._owners: list[tuple[int, int]] = []
        """Where each known piece of memory begins, in order; where it ends, and its region."""
        for k, tensor in enumerate(inputs):
            if not self._own(tensor, k):
                self.problem = "two inputs overlap"

    def _own(self, tensor: Tensor, region: int) -> bool:
        """The memory of a tensor is a region from now on; whether it was nobody's."""
        start, stop = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        first = bisect_right(self._starts, start)
        if first and self._owners[first - 1][0] > start:
            first -= 1
        last = bisect_right(self._starts, stop - 1)
        if start == stop:
            return True
        nobodys = first >= last
        self._starts[first:last] = [start]
        self._owners[first:last] = [(stop, region)]
        return nobodys

    def _made(self, tensor: Tensor) -> Tensor:
        """A new piece of memory, perhaps where one was that has been given back."""
        self._own(tensor, len(self.sizes))
        self.sizes.append(tensor.untyped_storage().nbytes())
        return tensor

    def _place(self, address: int) -> _Place:
        k = bisect_right(self._starts, address) - 1
        if k < 0 or address >= self._owners[k][0]:
            raise _Unknown("an address of no known tensor")
        return _Place(self._owners[k][1], address - self._starts[k])

    def _note(self, make: Callable[[], _Call | _Operator]) -> None:
        try:
            self.steps.append(make())
        except _Unknown as unknown:
            self.problem = self.problem or str(unknown)

    def called(self, function: Function, arguments: tuple[Any, ...]) -> None:
        """A function of the library's own was called."""

        def word(kind: str, value: Any) -> Any:
            if kind == "n":
                return int(value)
            if kind == "p":
                return self._place(value) if value else 0
            if kind == "l":
                return [self._place(address) for address in value]
            self.kept.append(value)
            return value.buffer_info()[0]

        self._note(
            lambda: _Call(
                function.address,
                [word(*pair) for pair in zip(function.words, arguments, strict=True)],
                True,
            )
        )

    def kernel(self, built: Any) -> Callable[..., None]:
        """A kernel of Inductor's that is noted when it is called."""
        module = getattr(built, "__self__", None)
        if module is None or not hasattr(module, "__file__"):
            raise _Unknown("a kernel of an unknown kind")
        address = ctypes.cast(_loaded(module.__file__).kernel, ctypes.c_void_p).value or 0

        def word(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self._place(value.data_ptr())
            if type(value) is int:
                return value
            raise _Unknown(f"a kernel's argument is a {type(value).__name__}")

        def run(*arguments: Any) -> None:
            built(*arguments)
            self._note(lambda: _Call(address, [word(value) for value in arguments], False))

        return run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in RUNS:
            with self:  # its functions tell by themselves, but what else it does must be seen
                return RUNS[func](*args, **(kwargs or {}))
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _MAKE:
            self._made(result)
        elif not _is_view(func, args, result):
            self._note(lambda: self._operator(func, args, kwargs, result))
        return result

    def _operator(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> _Operator:
        def view(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self.view(value)
            if isinstance(value, list | tuple) and any(isinstance(x, Tensor) for x in value):
                raise _Unknown(f"{func} takes a list of tensors")
            return value

        made: list[int] = []
        arguments, named = [view(x) for x in args], {name: view(x) for name, x in kwargs.items()}
        if func not in _WRITE:
            returned = result if isinstance(result, list | tuple) else [result]
            if func._schema.is_mutable:
                raise _Unknown(f"{func} writes to a tensor")
            for value in returned:
                if value is None:  # a gradient that was not asked for
                    continue
                if not isinstance(value, Tensor) or not value.nbytes:
                    raise _Unknown(f"{func} returns other things than tensors")
                made.append(len(self.sizes))
                self._made(value)
            self.elsewhere.update(made)
        return _Operator(func, arguments, named, made)

    def run(self, original: Any, inputs: list[Tensor]) -> Sequence[Tensor]:
        """Run Inductor's program and take note."""
        given = [*inputs]
        try:
            call = self._witnessed(original)
        except _Unknown as unknown:
            self.problem = str(unknown)
            return original(inputs)
        token = witness.set(self)
        try:
            with self:
                results = call(inputs)
        finally:
            witness.reset(token)
        self._seen = given, results
        return results

    def _witnessed(self, original: Any) -> Callable[[list[Tensor]], Sequence[Tensor]]:
        """The program with kernels and allocations that are noted."""
        function = getattr(original, "__func__", None)
        if not isinstance(function, types.FunctionType):
            raise _Unknown("no program of the known kind")
        names = {**function.__globals__}
        for name in function.__code__.co_names:
            value: Any = names.get(name)
            if name == "empty_strided_cpu":
                names[name] = functools.partial(self._allocate, value)
            elif getattr(value, "__name__", None) == "kernel":
                names[name] = self.kernel(value)
            elif name in names and name not in _NAMES:
                raise _Unknown(f"the program uses {name}")
        copy = types.FunctionType(
            function.__code__, names, function.__name__, function.__defaults__, function.__closure__
        )
        return functools.partial(copy, original.__self__)

    def _allocate(self, original: Callable[..., Tensor], *geometry: Any) -> Tensor:
        return self._made(original(*geometry))

    def saw_all_of(self, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> bool:
        """Whether nothing happened around the recorded part or in it that a replay would miss."""
        for outer, inner in zip((tensors, results), self._seen, strict=True):
            if len(outer) != len(inner) or not all(map(_same, outer, inner)):
                self.problem = self.problem or "other tensors go through it"
        try:
            for result in results:
                place = self.view(result).place
                if place.region < self.inputs and not self.is_whole(result):
                    self.problem = "a result is a part of an input"
        except _Unknown as unknown:
            self.problem = str(unknown)
        if any(isinstance(step, _Call) and len(step.words) > _MOST_WORDS for step in self.steps):
            self.problem = "a kernel has too many arguments"
        return self.problem is None

    def view(self, tensor: Tensor) -> _View:
        """Where a tensor is, and what it makes of what lies there."""
        place = self._place(tensor.data_ptr())
        return _View(place, tensor.dtype, tensor.shape, tensor.stride())

    def is_whole(self, tensor: Tensor) -> bool:
        """Whether a tensor is all of its region, element after element."""
        place = self._place(tensor.data_ptr())
        full = place.offset == 0 and tensor.nbytes == self.sizes[place.region]
        return full and tensor.is_contiguous()


def _is_view(func: Any, arguments: Sequence[Any], result: Any) -> bool:
    """Whether an operator did nothing but give a tensor's memory another name."""
    if func._schema.is_mutable or not isinstance(result, Tensor):
        return False
    storages = [x.untyped_storage().data_ptr() for x in arguments if isinstance(x, Tensor)]
    return result.untyped_storage().data_ptr() in storages


def _usual(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.is_contiguous()


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (
        a.data_ptr() == b.data_ptr()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.dtype == b.dtype
    )


@functools.cache
def _loaded(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path)


# --- replaying --------------------------------------------------------------------------------


class _Block:
    """Memory for intermediate results. Programs share one, since they seldom run at once."""

    __slots__ = ("__weakref__", "floats", "lock", "start")

    def __init__(self, size: int) -> None:
        self.floats = torch.empty((size + _LINE) // 4, dtype=torch.float32)
        self.start = -self.floats.data_ptr() % _LINE
        """Where in it the first line of cache begins, in bytes."""
        self.lock = threading.Lock()

    def holds(self, size: int) -> bool:
        """Whether there is room."""
        return self.floats.nbytes - self.start >= size


_BLOCKS: weakref.WeakSet[_Block] = weakref.WeakSet()  # as long as a plan uses it


def _block(size: int) -> _Block:
    for block in list(_BLOCKS):
        if block.holds(size):
            return block
    block = _Block(size)
    _BLOCKS.add(block)
    return block


@dataclass
class _Segment:
    """Steps that one C call makes."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    words: array[int] = field(default_factory=lambda: array("q"))
    patches: array[int] = field(default_factory=lambda: array("q"))

    def add(self, step: _Call, regions: dict[int, tuple[int, int]]) -> None:
        """Put a step behind the others. ``regions``: see :class:`_Plan`."""
        tails: list[tuple[int, list[_Place]]] = []
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
        if isinstance(word, _Place):
            region, start = regions[word.region]
            self.patches.extend((len(self.words), region, start + word.offset))
        self.words.append(word if isinstance(word, int) else 0)

    def close(self) -> tuple[Any, ...]:
        """The arguments of ``replay`` but for the last."""
        self.words.extend([0] * _MOST_WORDS)
        return (
            self.steps, len(self.steps) // 4, self.words, len(self.words),
            self.patches, len(self.patches) // 3,
        )  # fmt: skip


@dataclass
class _Plan:
    """A recorded program.

    What a recorder calls regions lies in the slots of a replay: the inputs, the results that are
    made, the block, and what torch's operators make.
    """

    parts: list[tuple[Any, ...] | _Operator]
    last: list[list[int]]
    """For each part, the slots that nothing needs after it and that are no result."""
    regions: dict[int, tuple[int, int]]
    """For each region its slot, and where in it it begins, in bytes."""
    made: list[tuple[tuple[int, ...], torch.dtype]]
    results: list[int | _View]
    """The slot of each result, or what it is of one."""
    slots: int
    size: int
    block: _Block
    threads: int
    kept: list[Any]

    @staticmethod
    def of(recorder: _Recorder, results: Sequence[Tensor]) -> _Plan:
        """The plan of a recorded program and its results."""
        inputs, elsewhere = recorder.inputs, sorted(recorder.elsewhere)
        made: dict[int, tuple[tuple[int, ...], torch.dtype]] = {}
        views = [recorder.view(result) for result in results]
        whole = [recorder.is_whole(result) for result in results]
        for view, alone in zip(views, whole, strict=True):
            region = view.place.region
            if region >= inputs and region not in recorder.elsewhere:
                as_bytes = (recorder.sizes[region],), torch.uint8
                made[region] = (tuple(view.size), view.dtype) if alone else as_bytes
        counts = Counter(view.place.region for view in views)
        for region in made:
            if counts[region] > 1:
                made[region] = (recorder.sizes[region],), torch.uint8
        block = inputs + len(made)
        regions = {k: (k, 0) for k in range(inputs)}
        regions |= {home: (inputs + k, 0) for k, home in enumerate(made)}
        regions |= {region: (block + 1 + k, 0) for k, region in enumerate(elsewhere)}
        places, size = _divide(recorder, {*regions})
        regions |= {region: (block, start) for region, start in places.items()}
        parts: list[_Segment | _Operator] = []
        needed: dict[int, int] = {}
        for step in recorder.steps:
            if isinstance(step, _Operator):
                parts.append(step)
            else:
                segment = parts[-1] if parts else None
                if not isinstance(segment, _Segment):
                    segment = _Segment()
                    parts.append(segment)
                segment.add(step, regions)
            needed |= dict.fromkeys(step.regions(), len(parts) - 1)
        last: list[list[int]] = [[] for _ in parts]
        for region in elsewhere:
            if region not in counts:
                last[needed[region]].append(regions[region][0])
        return _Plan(
            [part.close() if isinstance(part, _Segment) else part for part in parts],
            last,
            regions,
            [*made.values()],
            [
                regions[view.place.region][0] if alone and counts[view.place.region] == 1 else view
                for view, alone in zip(views, whole, strict=True)
            ],
            block + 1 + len(elsewhere),
            size,
            _block(size),
            torch.get_num_threads(),
            recorder.kept,
        )

    def run(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Replay it on inputs like those it was recorded with."""
        memory: list[Any] = [*tensors]
        memory += [torch.empty(shape, dtype=dtype) for shape, dtype in self.made]
        regions = array("q", map(Tensor.data_ptr, memory))
        block = self.block
        alone = block.lock.acquire(blocking=False)
        if not alone:
            block = _Block(self.size)
        try:
            memory.append(block.floats)
            regions.append(block.floats.data_ptr() + block.start)
            memory += [None] * (self.slots - len(memory))
            regions.extend([0] * (self.slots - len(regions)))
            function = _replay()
            assert function is not None
            for part, last in zip(self.parts, self.last, strict=True):
                if isinstance(part, tuple):
                    function(*part, regions)
                else:
                    self._run_operator(part, memory, regions)
                for slot in last:
                    memory[slot] = None
        finally:
            if alone:
                block.lock.release()
        return [
            memory[result] if isinstance(result, int) else self._tensor(result, memory, regions)
            for result in self.results
        ]

    def _run_operator(self, step: _Operator, memory: list[Any], regions: array[int]) -> None:
        def value(given: Any) -> Any:
            return self._tensor(given, memory, regions) if isinstance(given, _View) else given

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

    def _tensor(self, view: _View, memory: list[Any], regions: array[int]) -> Tensor:
        slot, start = self.regions[view.place.region]
        storage = memory[slot].untyped_storage()
        offset = regions[slot] + start + view.place.offset - storage.data_ptr()
        tensor = torch.empty(0, dtype=view.dtype)
        return tensor.set_(storage, offset // tensor.itemsize, view.size, view.stride)


def _divide(recorder: _Recorder, others: set[int]) -> tuple[dict[int, int], int]:
    """Where in one block each intermediate result begins, and the block's size, in bytes.

    Two that are never needed at once may have the same place. The largest are placed first, each
    as low as it goes.
    """
    lives: dict[int, tuple[int, int]] = {}
    for k, step in enumerate(recorder.steps):
        for region in step.regions():
            if region not in others:
                first, _ = lives.get(region, (k, k))
                lives[region] = first, k
    placed: list[tuple[int, int, int, int]] = []
    starts: dict[int, int] = {}
    for region in sorted(lives, key=lambda r: (-recorder.sizes[r], r)):
        first, last = lives[region]
        size = -(-max(recorder.sizes[region], 1) // _LINE) * _LINE
        start = 0
        for begin, end, since, until in sorted(placed):
            if since <= last and first <= until:
                if start + size <= begin:
                    break
                start = max(start, end)
        starts[region] = start
        placed.append((start, start + size, first, last))
    return starts, max((end for _, end, _, _ in placed), default=0)
