"""Record what a compiled CPU program does while it runs, for a replay (``replay.py``).

A program calls Inductor's kernels, C functions of the library's own, and operators of torch's. The
first are exchanged for ones that tell, the second tell by themselves (``build.CFunction``), the
third come by here, as the recorder is a dispatch mode. Whatever they are given is noted by what it
points to: an input, something the program has allocated, or what an operator has returned.
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
from idql_func.kernels.build import CPU_IMPLEMENTATIONS, CFunction, call_observer

__all__ = ["MOST_WORDS", "Call", "Operator", "Place", "Recorder", "View", "usual"]

MOST_WORDS = 64
"""As many arguments a C function may have."""

_MAKE = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.new_empty.default,
}
_WRITE = {getattr(torch.ops.aten, name).out for name in ("mm", "bmm", "addmm", "baddbmm")}

_CONSTANT = -1
"""The region of tensors that are a program's own."""


@dataclass(frozen=True)
class Place:
    """An address: an offset, in bytes, into the memory of an input or of something made."""

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
    """A call of a C function, by its address, with numbers, places and lists of places."""

    address: int
    words: list[Any]
    checked: bool

    def regions(self) -> Iterator[int]:
        """All memory that it may read or write."""
        for word in self.words:
            for item in word if isinstance(word, list) else (word,):
                if isinstance(item, Place):
                    yield item.region


@dataclass
class Operator:
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
            if isinstance(value, View):
                yield value.place.region


class _Unknown(Exception):
    """The program does something that can't be replayed."""


class Recorder:
    """What a program does while it runs.

    A fault in the recording never stops the program: it may have written half of its results over
    its inputs.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        mode = torch_internals.dispatch_mode()
        assert mode is not None
        self._mode = mode(self._observe)
        self.steps: list[Call | Operator] = []
        self.sizes = [t.nbytes for t in inputs]
        """Bytes of each region: of the inputs, then of all that is made."""
        self.inputs = len(inputs)
        self.kept: list[Any] = []
        """Constants that steps have the addresses of."""
        self.elsewhere: set[int] = set()
        """Regions that torch's operators make."""
        self._thread = threading.get_ident()
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
        """Register the memory of a tensor as a region; whether it overlaps no other region."""
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
        """Register a new tensor, perhaps at the address of one that was freed."""
        self._own(tensor, len(self.sizes))
        self.sizes.append(tensor.untyped_storage().nbytes())
        return tensor

    def _place(self, address: int) -> Place:
        k = bisect_right(self._starts, address) - 1
        if k < 0 or address >= self._owners[k][0]:
            raise _Unknown("an address of no known tensor")
        return Place(self._owners[k][1], address - self._starts[k])

    def _word(self, address: int) -> Place | int:
        """The place of an address, or the address itself for a constant."""
        place = self._place(address)
        return address if place.region == _CONSTANT else place

    def _note(self, make: Callable[[], Call | Operator]) -> None:
        try:
            self.steps.append(make())
        except _Unknown as unknown:
            self.problem = self.problem or str(unknown)

    def on_call(self, function: CFunction, arguments: tuple[Any, ...]) -> None:
        """Record a call of one of the library's C functions."""

        def word(kind: str, value: Any) -> Any:
            if kind == "n":
                return int(value)
            if kind == "p":
                return self._word(value) if value else 0
            if kind == "l":
                return [self._word(address) for address in value]
            self.kept.append(value)
            return value.buffer_info()[0]

        self._note(
            lambda: Call(
                function.address,
                [word(*pair) for pair in zip(function.signature, arguments, strict=True)],
                True,
            )
        )

    def kernel(self, built: Any) -> Callable[..., None]:
        """An Inductor kernel that is recorded when it is called."""
        address = torch_internals.kernel_address(built)
        if address is None:
            raise _Unknown("a kernel of an unknown kind")

        def word(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self._word(value.data_ptr())
            if type(value) is int:
                return value
            raise _Unknown(f"a kernel's argument is a {type(value).__name__}")

        def run(*arguments: Any) -> None:
            built(*arguments)
            self._note(lambda: Call(address, [word(value) for value in arguments], False))

        return run

    def _observe(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func in CPU_IMPLEMENTATIONS:
            with self._mode:  # its functions tell by themselves, but what else it does must be seen
                return CPU_IMPLEMENTATIONS[func](*args, **kwargs)
        result = func(*args, **kwargs)
        if func in _MAKE:
            self._made(result)
        elif not _is_view(func, args, result):
            self._note(lambda: self._operator(func, args, kwargs, result))
        return result

    def _operator(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Operator:
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
            if torch_internals.is_mutable(func):
                raise _Unknown(f"{func} writes to a tensor")
            for value in returned:
                if value is None:  # a gradient that was not asked for
                    continue
                if not isinstance(value, Tensor) or not value.nbytes:
                    raise _Unknown(f"{func} returns other things than tensors")
                made.append(len(self.sizes))
                self._made(value)
            self.elsewhere.update(made)
        return Operator(func, arguments, named, made)

    def run(self, original: Any, inputs: list[Tensor]) -> Sequence[Tensor]:
        """Run Inductor's code and record it, unless another thread runs it."""
        if threading.get_ident() != self._thread:
            return original(inputs)
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        added = len(tensors) - self.inputs
        for constant in tensors[: max(added, 0)]:  # the graph's own come first
            self._own(constant, _CONSTANT)
            self.kept.append(constant)
        given = tensors[max(added, 0) :]
        try:
            call = self._observed(original)
        except _Unknown as unknown:
            self.problem = str(unknown)
            return original(inputs)
        token = call_observer.set(self)
        try:
            with self._mode:
                results = call(inputs)
        finally:
            call_observer.reset(token)
        self._seen = given, results
        return results

    def _observed(self, original: Any) -> Callable[[list[Tensor]], Sequence[Tensor]]:
        """The generated function with kernels and allocations that are recorded."""
        function = torch_internals.generated_function(original)
        if function is None:
            raise _Unknown("no program of the known kind")
        names = {**function.__globals__}
        for name in function.__code__.co_names:
            value: Any = names.get(name)
            if name == ALLOCATION:
                names[name] = functools.partial(self._allocate, value)
            elif torch_internals.is_kernel(value):
                names[name] = self.kernel(value)
            elif name in names and name not in GENERATED_NAMES:
                raise _Unknown(f"the program uses {name}")
        copy = types.FunctionType(
            function.__code__, names, function.__name__, function.__defaults__, function.__closure__
        )
        return functools.partial(copy, original.__self__)

    def _allocate(self, original: Callable[..., Tensor], *geometry: Any) -> Tensor:
        return self._made(original(*geometry))

    def is_complete(self, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> bool:
        """Whether the recording holds everything that the program did."""
        for outer, inner in zip((tensors, results), self._seen, strict=True):
            if len(outer) != len(inner) or not all(map(_same, outer, inner)):
                self.problem = self.problem or "other tensors go through it"
        try:
            for result in results:
                place = self.view(result).place
                if place.region < self.inputs and not self.is_whole(result):
                    self.problem = self.problem or "a result is a part of an input"
        except _Unknown as unknown:
            self.problem = self.problem or str(unknown)
        if any(isinstance(step, Call) and len(step.words) > MOST_WORDS for step in self.steps):
            self.problem = self.problem or "a kernel has too many arguments"
        return self.problem is None

    def view(self, tensor: Tensor) -> View:
        """The place of a tensor, with its dtype, shape and strides."""
        place = self._place(tensor.data_ptr())
        if place.region == _CONSTANT:
            raise _Unknown("a constant is used as a tensor")
        return View(place, tensor.dtype, tensor.shape, tensor.stride())

    def is_whole(self, tensor: Tensor) -> bool:
        """Whether a tensor is contiguous and covers its whole region."""
        place = self._place(tensor.data_ptr())
        full = place.offset == 0 and tensor.nbytes == self.sizes[place.region]
        return full and tensor.is_contiguous()


def _is_view(func: Any, arguments: Sequence[Any], result: Any) -> bool:
    """Whether the result of an operator is a view of an argument."""
    if torch_internals.is_mutable(func) or not isinstance(result, Tensor):
        return False
    storages = [x.untyped_storage().data_ptr() for x in arguments if isinstance(x, Tensor)]
    return result.untyped_storage().data_ptr() in storages


def usual(tensor: Tensor) -> bool:
    """Whether a recorded program can take the tensor as an input."""
    return type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.is_contiguous()


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (
        a.data_ptr() == b.data_ptr()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.dtype == b.dtype
    )
