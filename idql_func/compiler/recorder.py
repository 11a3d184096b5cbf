"""Record the calls that a compiled CPU graph makes while it runs, for ``replay.py``.

A compiled graph calls Inductor's kernels, the library's own C functions and torch operators.
Kernels are wrapped by functions that record the call; C functions call the recorder themselves
(``build.CallObserver``); operators are seen by a dispatch mode. Each pointer argument is stored as
an offset into an input, into memory that the graph has allocated, or into an operator's result.
"""

from __future__ import annotations

import functools
import threading
import types
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from idql_func.compiler import torch_internals
from idql_func.compiler.torch_internals import ALLOCATION, GENERATED_NAMES
from idql_func.kernels.build import CPU_IMPLEMENTATIONS, EFFECTS, CFunction, call_observer

MAX_ARGUMENTS = 64
"""The largest number of arguments of a recorded C function."""

_ALLOCATIONS = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.new_empty.default,
}
_OUT_FORMS = {getattr(torch.ops.aten, name).out for name in ("mm", "bmm", "addmm", "baddbmm")}

_CONSTANT = -1
"""The region of the graph's constants."""


@dataclass(frozen=True)
class Place:
    """An address: a region and an offset in bytes.

    A region is the memory of one input or of one tensor that was allocated during the recording.
    """

    region: int
    offset: int


@dataclass(frozen=True)
class View:
    """A tensor at a place."""

    place: Place
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]


@dataclass
class Call:
    """A call of a C function with numbers, places and lists of places."""

    address: int
    """The address of the function."""
    arguments: list[Any]
    checked: bool
    """Whether a nonzero result is an error."""

    def regions(self) -> Iterator[int]:
        """The regions that the call may read or write."""
        for argument in self.arguments:
            for item in argument if isinstance(argument, list) else (argument,):
                if isinstance(item, Place):
                    yield item.region


@dataclass
class Operator:
    """A call of a torch operator with views and other values."""

    run: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    results: list[int]
    """The regions of the results."""

    def regions(self) -> Iterator[int]:
        """The regions that the call may read or write."""
        yield from self.results
        for value in (*self.args, *self.kwargs.values()):
            if isinstance(value, View):
                yield value.place.region


class _NotReplayable(Exception):
    """The graph does something that can't be replayed."""


class Recorder:
    """The steps of one run of a compiled graph.

    If a step can't be recorded, the run still goes on to its end, because the graph may already
    have written results over its inputs. ``problem`` then holds the reason.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        mode = torch_internals.dispatch_mode()
        assert mode is not None
        self._mode = mode(self._observe)
        self.steps: list[Call | Operator] = []
        self.sizes = [t.nbytes for t in inputs]
        """The bytes of each region: the inputs, then all allocations in order."""
        self.input_count = len(inputs)
        self.constants: list[Any] = []
        """Objects whose addresses are in the steps, kept alive."""
        self.operator_regions: set[int] = set()
        """The regions that torch operators allocate."""
        self._thread = threading.get_ident()
        self.problem: str | None = None
        """Why the run can't be replayed; None if it can."""
        self._inputs_and_results: tuple[Sequence[Tensor], Sequence[Tensor]] = (), ()
        """The tensors that the generated code was called with and that it returned."""
        self._starts: list[int] = []
        self._owners: list[tuple[int, int]] = []
        """The sorted start addresses of the known memory; for each its end and its region."""
        for k, tensor in enumerate(inputs):
            if not self._register(tensor, k):
                self.problem = "two inputs overlap"

    def _register(self, tensor: Tensor, region: int) -> bool:
        """Register the memory of a tensor as a region; return False if it overlaps another."""
        start, stop = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        first = bisect_right(self._starts, start)
        if first and self._owners[first - 1][0] > start:
            first -= 1
        last = bisect_right(self._starts, stop - 1)
        if start == stop:
            return True
        is_free = first >= last
        self._starts[first:last] = [start]
        self._owners[first:last] = [(stop, region)]
        return is_free

    def _register_new(self, tensor: Tensor) -> Tensor:
        """Register an allocation as a new region; it may reuse the address of a freed tensor."""
        self._register(tensor, len(self.sizes))
        self.sizes.append(tensor.untyped_storage().nbytes())
        return tensor

    def _place(self, address: int) -> Place:
        k = bisect_right(self._starts, address) - 1
        if k < 0 or address >= self._owners[k][0]:
            raise _NotReplayable("an argument points to memory of no known tensor")
        return Place(self._owners[k][1], address - self._starts[k])

    def _pointer(self, address: int) -> Place | int:
        """The place of an address, or the address itself if it points to a constant."""
        place = self._place(address)
        return address if place.region == _CONSTANT else place

    def _append(self, make: Callable[[], Call | Operator]) -> None:
        """Add a step, or set ``problem`` if ``make`` raises :class:`_NotReplayable`."""
        try:
            self.steps.append(make())
        except _NotReplayable as error:
            self.problem = self.problem or str(error)

    def on_call(self, function: CFunction, arguments: tuple[Any, ...]) -> None:
        """Record a call of one of the library's C functions."""

        def recorded(kind: str, value: Any) -> Any:
            if kind == "n":
                return int(value)
            if kind == "p":
                return self._pointer(value) if value else 0
            if kind == "l":
                return [self._pointer(address) for address in value]
            self.constants.append(value)
            return value.buffer_info()[0]

        pairs = zip(function.signature, arguments, strict=True)
        self._append(lambda: Call(function.address, [recorded(*pair) for pair in pairs], True))

    def kernel(self, built: Any) -> Callable[..., None]:
        """Wrap an Inductor kernel by a function that also records the call."""
        address = torch_internals.kernel_address(built)
        if address is None:
            raise _NotReplayable("a kernel is of an unknown type")

        def recorded(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self._pointer(value.data_ptr())
            if type(value) is int:
                return value
            raise _NotReplayable(f"an argument of a kernel is a {type(value).__name__}")

        def run(*arguments: Any) -> None:
            built(*arguments)
            self._append(lambda: Call(address, [recorded(x) for x in arguments], False))

        return run

    def _observe(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func in CPU_IMPLEMENTATIONS:
            with self._mode:  # the C functions call on_call; torch operators inside need the mode
                return CPU_IMPLEMENTATIONS[func](*args, **kwargs)
        result = func(*args, **kwargs)
        if func in _ALLOCATIONS:
            self._register_new(result)
        elif not _is_view(func, args, result):
            self._append(lambda: self._operator(func, args, kwargs, result))
        return result

    def _operator(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Operator:
        def view(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self.view(value)
            if isinstance(value, list | tuple) and any(isinstance(x, Tensor) for x in value):
                raise _NotReplayable(f"{func} takes a list of tensors")
            return value

        if func in EFFECTS:
            raise _NotReplayable(f"{func} has an effect")
        regions: list[int] = []
        views, named_views = [view(x) for x in args], {name: view(x) for name, x in kwargs.items()}
        if func not in _OUT_FORMS:
            returned = result if isinstance(result, list | tuple) else [result]
            if torch_internals.is_mutable(func):
                raise _NotReplayable(f"{func} writes to a tensor")
            for value in returned:
                if value is None:  # a gradient that output_mask excludes
                    continue
                if not isinstance(value, Tensor) or not value.nbytes:
                    raise _NotReplayable(f"{func} returns an empty tensor or no tensor")
                regions.append(len(self.sizes))
                self._register_new(value)
            self.operator_regions.update(regions)
        return Operator(func, views, named_views, regions)

    def run(self, original: Any, inputs: list[Tensor]) -> Sequence[Tensor]:
        """Run Inductor's generated code; record it if this is the thread of the recorder."""
        if threading.get_ident() != self._thread:
            return original(inputs)
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        constant_count = max(len(tensors) - self.input_count, 0)
        for constant in tensors[:constant_count]:  # Inductor passes the graph's constants first
            self._register(constant, _CONSTANT)
            self.constants.append(constant)
        arguments = tensors[constant_count:]
        try:
            call = self._instrumented(original)
        except _NotReplayable as error:
            self.problem = str(error)
            return original(inputs)
        token = call_observer.set(self)
        try:
            with self._mode:
                results = call(inputs)
        finally:
            call_observer.reset(token)
        self._inputs_and_results = arguments, results
        return results

    def _instrumented(self, original: Any) -> Callable[[list[Tensor]], Sequence[Tensor]]:
        """Copy the generated function, with kernels and allocations replaced by recorded ones."""
        function = torch_internals.generated_function(original)
        if function is None:
            raise _NotReplayable("the generated code is of an unknown type")
        names = {**function.__globals__}
        for name in function.__code__.co_names:
            value: Any = names.get(name)
            if name == ALLOCATION:
                names[name] = functools.partial(self._allocate, value)
            elif torch_internals.is_kernel(value):
                names[name] = self.kernel(value)
            elif name in names and name not in GENERATED_NAMES:
                raise _NotReplayable(f"the generated code uses {name}")
        copy = types.FunctionType(
            function.__code__, names, function.__name__, function.__defaults__, function.__closure__
        )
        return functools.partial(copy, original.__self__)

    def _allocate(self, original: Callable[..., Tensor], *geometry: Any) -> Tensor:
        return self._register_new(original(*geometry))

    def is_complete(self, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> bool:
        """Whether the recording can be replayed; if not, ``problem`` says why.

        Args:
            tensors: the inputs of the whole call.
            results: the results of the whole call.
        """
        for outer, inner in zip((tensors, results), self._inputs_and_results, strict=True):
            if len(outer) != len(inner) or not all(map(_same, outer, inner)):
                self.problem = (
                    self.problem or "the generated code gets or returns other tensors than the call"
                )
        try:
            for result in results:
                place = self.view(result).place
                if place.region < self.input_count and not self.fills_region(result):
                    self.problem = self.problem or "a result is a part of an input"
        except _NotReplayable as error:
            self.problem = self.problem or str(error)
        if any(isinstance(s, Call) and len(s.arguments) > MAX_ARGUMENTS for s in self.steps):
            self.problem = self.problem or "a kernel has too many arguments"
        return self.problem is None

    def view(self, tensor: Tensor) -> View:
        """The place of a tensor, with its dtype, shape and strides."""
        place = self._place(tensor.data_ptr())
        if place.region == _CONSTANT:
            raise _NotReplayable("an operator or a result uses a constant")
        return View(place, tensor.dtype, tensor.shape, tensor.stride())

    def fills_region(self, tensor: Tensor) -> bool:
        """Whether a tensor is contiguous and fills its region."""
        place = self._place(tensor.data_ptr())
        full = place.offset == 0 and tensor.nbytes == self.sizes[place.region]
        return full and tensor.is_contiguous()


def _is_view(func: Any, arguments: Sequence[Any], result: Any) -> bool:
    """Whether the result of an operator is a view of an argument."""
    if torch_internals.is_mutable(func) or not isinstance(result, Tensor):
        return False
    storages = [x.untyped_storage().data_ptr() for x in arguments if isinstance(x, Tensor)]
    return result.untyped_storage().data_ptr() in storages


def is_recordable(tensor: Tensor) -> bool:
    """Whether a graph can be recorded with the tensor as an input."""
    return type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.is_contiguous()


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (
        a.data_ptr() == b.data_ptr()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.dtype == b.dtype
    )
