"""What a call does around a compiled program: trees to flat tensors, and results to trees.

All that can be known when a program is made is worked out then, so that a call does next to
nothing but hand lists on: a small learner's update takes no longer than the trees of it would.
"""

from __future__ import annotations

import functools
import operator
from array import array
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import optree
import torch
from torch import Tensor

from idql_func.compiler.donation import mark_owned, take_donated_memory
from idql_func.compiler.lazy import (
    LazyNode,
    LazyTree,
    NodeLayout,
    Signature,
    layout_of,
    lazy_node,
    lazy_tree_of,
    transfer,
)
from idql_func.compiler.replay import Replayed
from idql_func.switches import float_dtype, int_dtype, x64_enabled
from idql_func.tree import as_tensor, tree_flatten, tree_unflatten
from idql_func.types import PyTree

Output = tuple[str, Any]

_NUMBERS = (bool, int, float)
_MADE = ("graph", "constant")
"""The kinds of results that are no argument's memory, see :class:`Program`."""


# --- arguments ------------------------------------------------------------------------


class BadLeaf(TypeError):
    """A leaf that is neither tensor, array nor number, by its place."""

    def __init__(self, place: int, leaf: Any) -> None:
        super().__init__(place)
        self.place = place
        self.leaf = leaf


class Arguments:
    """The arguments of one call, flat: their leaves, and those as a program takes them."""

    __slots__ = ("again", "bounds", "device", "held", "leaves", "signatures", "tensors")

    def __init__(self, values: Sequence[Any]) -> None:
        """Take the values apart.

        Raises:
            BadLeaf: a leaf that no program can take.
            RuntimeError: a leaf was donated.
        """
        leaves: list[Any] = []
        bounds = [0]
        held: list[LazyTree | None] = []
        specs: list[optree.PyTreeSpec | None] = []
        for value in values:
            whole = lazy_tree_of(value)
            if whole is not None and whole not in held:
                leaves += whole.leaves
                specs.append(None)
            else:
                whole = None
                some, spec = tree_flatten(value)
                leaves += some
                specs.append(spec)
            held.append(whole)
            bounds.append(len(leaves))
        self.leaves = leaves
        self.bounds = bounds
        """Where the leaves of each value begin, and where the last one's end."""
        self.held = held
        """For each value the leaves that were held, or None."""
        self.again: dict[Any, Any] = {}
        """Other calls that can be made again with the first value, once it is donated."""
        self.device = next((x.device for x in leaves if isinstance(x, Tensor)), None)
        self.tensors = [*leaves]
        """The leaves as a program takes them: contiguous tensors, no two the same."""
        signatures: list[Signature] = []
        for k, spec in enumerate(specs):
            start, stop, whole = bounds[k], bounds[k + 1], held[k]
            if whole is not None:
                signatures.append(self._held_signature(start, stop, whole))
            else:
                assert spec is not None
                tensors = [
                    leaf
                    if type(leaf) is Tensor and leaf.is_contiguous()
                    else self._tensor(start + i)
                    for i, leaf in enumerate(leaves[start:stop])
                ]
                self.tensors[start:stop] = tensors
                signatures.append(Signature(spec, tensors))
        self.signatures = tuple(signatures)
        # the compiled program is made for tensors that don't overlap, of which JAX knows nothing
        if len({*map(id, self.tensors)}) < len(leaves):
            seen: set[int] = set()
            for i, tensor in enumerate(self.tensors):
                self.tensors[i] = tensor.clone() if id(tensor) in seen else tensor
                seen.add(id(tensor))

    def _held_signature(self, start: int, stop: int, held: LazyTree) -> Signature:
        if not held.numbers:
            return held.signature
        x64 = x64_enabled()
        for k, tensor in held.numbers.items():
            if held.x64 != x64 or tensor.device != self.device:
                break
            self.tensors[start + k] = tensor
        else:
            return held.signature
        for k in held.numbers:
            self.tensors[start + k] = self._tensor(start + k)
        return Signature(held.signature.spec, self.tensors[start:stop])

    def _tensor(self, place: int) -> Tensor:
        leaf = self.leaves[place]
        # one layout for all: JAX knows no other
        tensor = leaf if isinstance(leaf, Tensor) else leaf_tensor(leaf, self.device, place)
        if tensor is None:
            raise BadLeaf(place, leaf)
        return tensor if tensor.is_contiguous() else tensor.contiguous()

    def donate(self, which: Iterable[int], written: Container[int]) -> None:
        """Give the memory of some values to the program: leaves and tensors are its own now.

        ``written`` are the leaves in whose place it puts a result; that of a number or an array
        gets memory of its own.
        """
        for k in which:
            if k >= len(self.held):
                continue
            start, stop, held = self.bounds[k], self.bounds[k + 1], self.held[k]
            if held is not None:
                if k == 0 and not held.shown:
                    self.again = held.again
                others = [start + i for i in held.numbers]
                numbers = [self.leaves[i] for i in others]
                taken = held.donate(self.tensors[start:stop])
                self.leaves[start:stop] = self.tensors[start:stop] = taken
                for i, number in zip(others, numbers, strict=True):
                    self.leaves[i] = number
                self.held[k] = None
            else:
                some = [isinstance(leaf, Tensor) for leaf in self.leaves[start:stop]]
                given = [start + i for i, is_tensor in enumerate(some) if is_tensor]
                others = [start + i for i, is_tensor in enumerate(some) if not is_tensor]
                taken = take_donated_memory(
                    [self.leaves[i] for i in given], [self.tensors[i] for i in given]
                )
                for i, tensor in zip(given, taken, strict=True):
                    self.leaves[i] = self.tensors[i] = tensor
            for i in others:
                if i in written:
                    self.tensors[i] = self.tensors[i].clone()

    def mark_returned(self, places: Iterable[int]) -> None:
        """Some leaves become results as they are: held ones are not alone any more."""
        for k, held in enumerate(self.held):
            if held is not None and held.owned:
                for place in places:
                    if self.bounds[k] <= place < self.bounds[k + 1]:
                        held.materialize(place - self.bounds[k], place - self.bounds[k] + 1)


def leaf_tensor(leaf: Any, device: torch.device | None, slot: int) -> Tensor | None:
    """The tensor of a number or an array, or None; equal numbers at two slots are two tensors."""
    if isinstance(leaf, bool | int | float):
        dtype = {bool: torch.bool, int: int_dtype(), float: float_dtype()}[type(leaf)]
        return _scalar(leaf, dtype, device, slot)
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "biuf":
        tensor = torch.from_numpy(np.ascontiguousarray(leaf))
        return tensor.to(dtype=float_dtype() if leaf.dtype.kind == "f" else None, device=device)
    return None


@functools.lru_cache(maxsize=4096)
def _scalar(value: Any, dtype: torch.dtype, device: torch.device | None, slot: int) -> Tensor:
    """The tensor of a Python number, kept from call to call; one for each place, never shared."""
    return torch.tensor(value, dtype=dtype, device=device)


# --- results --------------------------------------------------------------------------


@dataclass(eq=False)
class _Part:
    """A node among the results, to be held."""

    start: int
    stop: int
    spec: optree.PyTreeSpec
    layout: NodeLayout
    unsure: tuple[tuple[int, int | None], ...]
    """Places in it of leaves that may be of any sort: of an argument's with its place, of constants
    with None."""
    x64: bool
    """Whether the program is one for :func:`idql_func.enable_x64`."""
    owned: bool
    signature: Signature | None = None
    """Known after the first run."""
    impossible: bool = False

    def make(self, flat: Sequence[Any], arguments: Arguments) -> Any | None:
        """The node with these results, or None where it can't be held."""
        leaves = [*flat[self.start : self.stop]]
        numbers: dict[int, Tensor] = {}
        for k, source in self.unsure:
            leaf = leaves[k]
            tensor = None if source is None else arguments.tensors[source]
            if type(leaf) is Tensor:
                if leaf is not tensor and not leaf.is_contiguous():
                    return None
            elif type(leaf) in _NUMBERS:
                tensor = leaf_tensor(leaf, arguments.device, k) if tensor is None else tensor
                assert tensor is not None
                numbers[k] = tensor
            else:
                return None
        if self.signature is None:
            self._look([numbers.get(k, leaf) for k, leaf in enumerate(leaves)])
        if self.signature is None:
            return None
        return lazy_node(
            LazyTree(leaves, numbers, self.layout, self.signature, self.x64, self.owned)
        )

    def _look(self, tensors: Sequence[Any]) -> None:
        self.impossible = not all(
            type(t) is Tensor and t.is_contiguous() and not t.requires_grad for t in tensors
        )
        if not self.impossible:
            self.signature = Signature(self.spec, tensors).known()


class Program:
    """One compiled graph and how its inputs and outputs sit in the pytrees."""

    def __init__(
        self,
        run: Callable[..., Sequence[Tensor]],
        used: Sequence[int],
        outputs: Sequence[Output],
        out_spec: optree.PyTreeSpec,
        inputs: int,
        donated: Sequence[int] = (),
        kinds: Sequence[tuple[torch.Size, torch.dtype] | None] = (),
    ) -> None:
        """Work out what each call does.

        Args:
            run: the graph; it returns the results that are no donated argument's memory.
            used: which of the argument leaves the graph reads.
            outputs: for each leaf of the result: ("graph", k), ("argument", k), ("donated", k) for
                the memory of an argument that the graph writes, or ("constant", value).
            out_spec: the structure of the result.
            inputs: how many leaves the arguments have.
            donated: the argument leaves whose memory the caller has given away.
            kinds: shape and dtype of each leaf of the result that the graph makes or an argument
                is.
        """
        self.run = run
        self.outputs = outputs
        self.out_spec = out_spec
        self.kinds = kinds
        made = sum(kind == "graph" for kind, _ in outputs)
        self._constants = [value for kind, value in outputs if kind == "constant"]
        first = {"graph": 0, "argument": made, "donated": made + inputs}
        constants = iter(range(made + 2 * inputs, made + 2 * inputs + len(self._constants)))
        places = [
            next(constants) if kind == "constant" else first[kind] + value
            for kind, value in outputs
        ]
        self._read, self._pick = _getter(used), _getter(places)
        given = {*donated}
        self.kept = [kind in ("argument", "donated") and k in given for kind, k in outputs]
        """Whether each leaf of the result lies in donated memory."""
        self.written = frozenset(k for kind, k in outputs if kind == "donated")
        """The leaves in whose memory a result is put."""
        self.passed = [k for kind, k in outputs if kind == "argument" and k not in given]
        self._donates = bool(donated)
        self.outer, self.parts = self._plan()
        others = [k for k in self.parts if isinstance(k, int)]
        self._can_repeat = (
            self._donates
            and len(self.parts) == len(others) + 1
            and all(outputs[k][0] in _MADE for k in others)
        )
        """Whether a result may be the first argument of a call that needs nothing else but it."""
        self.used = used

    def _plan(self) -> tuple[optree.PyTreeSpec, list[int | _Part]]:
        """The result down to its nodes: where each leaf and each node comes from."""
        numbered = tree_unflatten(self.out_spec, range(self.out_spec.num_leaves))
        tops, outer = tree_flatten(numbered, is_leaf=lambda x: isinstance(x, LazyNode))
        parts: list[int | _Part] = []
        for top in tops:
            part = top if isinstance(top, int) else self._part(top)
            if part is None:  # as a whole, then
                return self.out_spec, [*range(self.out_spec.num_leaves)]
            parts.append(part)
        return outer, parts

    def _part(self, node: Any) -> _Part | None:
        places, spec = tree_flatten(node)
        layout = layout_of(spec)
        if layout is None or not places:
            return None
        start, stop = places[0], places[-1] + 1
        kinds = [kind for kind, _ in self.outputs[start:stop]]
        unsure = tuple(
            (k, value if kind == "argument" else None)
            for k, (kind, value) in enumerate(self.outputs[start:stop])
            if kind in ("argument", "constant")
        )
        owned = [
            kept or kind == "constant"
            for kept, kind in zip(self.kept[start:stop], kinds, strict=True)
        ]
        if self._donates and not all(owned):
            return None
        return _Part(start, stop, spec, layout, unsure, x64_enabled(), self._donates)

    def flat_results(self, leaves: Sequence[Any], tensors: Sequence[Tensor]) -> Sequence[Any]:
        """Run once. ``leaves`` are the arguments', those donated in memory of their own."""
        results = self.run(*self._read(tensors))
        return self._pick((*results, *leaves, *tensors, *self._constants))

    def __call__(self, arguments: Arguments, settings: Any = None) -> PyTree:
        """Run once, and put the results together.

        With ``settings``, all else that the call depends on, a result may go round
        (:class:`FastCall`).
        """
        flat = self.flat_results(arguments.leaves, arguments.tensors)
        if self.passed:
            arguments.mark_returned(self.passed)
        return self.together(flat, arguments, settings)

    def results_over(
        self, tensors: Sequence[Tensor], rows: Mapping[int, Tensor], times: int, start: int
    ) -> list[Tensor] | None:
        """The results from ``start`` on of some runs on the same memory, each ``[times, ...]``.

        The leaves named in ``rows`` are another row at each run. None where it can't be done
        without a look at each run.
        """
        last = self.outputs[start:]
        if not isinstance(self.run, Replayed) or any(kind not in _MADE for kind, _ in last):
            return None
        moving = {place: rows[k] for place, k in enumerate(self.used) if k in rows}
        results = self.run.repeat_over(self._read(tensors), moving, times)
        if results is None:
            return None
        return [
            results[value] if kind == "graph" else as_tensor(value).expand(times)
            for kind, value in last
        ]

    def together(self, flat: Sequence[Any], arguments: Arguments, settings: Any = None) -> PyTree:
        """The result from its leaves. ``settings``: see :meth:`__call__`."""
        tops: list[Any] = []
        for part in self.parts:
            if isinstance(part, int):
                top = flat[part]
                if self.kept[part]:
                    self.mark(flat, part, part + 1)
            else:
                top = None if part.impossible else part.make(flat, arguments)
                if top is None:
                    self.mark(flat, part.start, part.stop)
                    top = tree_unflatten(part.spec, flat[part.start : part.stop])
                elif self._can_repeat and settings is not None:
                    FastCall.prepare(self, part, top, arguments, settings)
            tops.append(top)
        return tree_unflatten(self.outer, tops)

    def mark(self, flat: Sequence[Any], start: int, stop: int) -> None:
        """Note which results lie in donated memory, for a later call to keep it."""
        kept = [flat[k] for k in range(start, stop) if self.kept[k]]
        mark_owned([leaf for leaf in kept if isinstance(leaf, Tensor)])


class FastCall:
    """The call that a training loop makes next: the same function, on what it returned last.

    Only the batch is another one then. The learner's tensors are those of the last call, nobody
    has seen them, and the results go to the same places.
    """

    __slots__ = (
        "_addresses", "_inputs", "_kinds", "_picked", "_program", "_run", "_spec",
    )  # fmt: skip

    def __init__(self, program: Program, run: Replayed, arguments: Arguments) -> None:
        start = arguments.bounds[1]
        state = [k for k in program.used if k < start]
        self._program = program
        self._run = run
        self._inputs = [arguments.tensors[k] for k in state]
        self._addresses = array("q", map(Tensor.data_ptr, self._inputs))
        self._picked = [k - start for k in program.used[len(state) :]]
        self._kinds = [(tensor.shape, tensor.dtype) for tensor in arguments.tensors[start:]]
        self._spec = tuple(signature.spec for signature in arguments.signatures[1:])

    @staticmethod
    def prepare(
        program: Program, part: _Part, node: Any, arguments: Arguments, settings: Any
    ) -> None:
        """Let a result know how it can go round, if it lies where the first argument lay."""
        held, stop = lazy_tree_of(node), arguments.bounds[1]
        if (
            held is not None
            and isinstance(program.run, Replayed)
            and part.stop - part.start == stop
            and all(map(operator.is_, held.leaves, arguments.leaves[:stop]))
        ):
            held.again = {**arguments.again, settings: FastCall(program, program.run, arguments)}

    def leaves(self, others: Sequence[Any]) -> list[Tensor] | None:
        """The leaves of the other arguments, or None if they are not of the kinds as before."""
        if len(others) != len(self._spec):
            return None
        leaves: list[Any] = []
        for value, spec in zip(others, self._spec, strict=True):
            some, found = tree_flatten(value)
            if found != spec:
                return None
            leaves += some
        for leaf, (shape, dtype) in zip(leaves, self._kinds, strict=True):
            if not (
                type(leaf) is Tensor
                and leaf.shape == shape
                and leaf.dtype is dtype
                and leaf.is_cpu
                and leaf.is_contiguous()
                and not leaf.requires_grad
            ):
                return None
        return leaves if len({*map(id, leaves)}) == len(leaves) else None

    def __call__(self, learner: Any, leaves: Sequence[Tensor]) -> PyTree:
        """The function's result for a learner of which :func:`cached_call` is this."""
        program = self._program
        node = transfer(learner)
        tensors = [*self._inputs, *[leaves[k] for k in self._picked]]
        results = self._run.repeat(tensors, self._addresses)
        tops: list[Any] = []
        for part in program.parts:
            if isinstance(part, int):
                kind, value = program.outputs[part]
                tops.append(results[value] if kind == "graph" else value)
            else:
                tops.append(node)
        return tree_unflatten(program.outer, tops)


def cached_call(value: Any, settings: Any) -> FastCall | None:
    """How a call can be made again with a value, if that was made to go round and nobody has
    looked into it; ``settings`` are what else the call depends on."""
    held = lazy_tree_of(value)
    return None if held is None or held.shown else held.again.get(settings)


def _getter(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What takes the items at some places out of a sequence."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda items: [items[k] for k in places]
