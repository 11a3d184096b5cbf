"""The call path around a compiled graph: pytrees to flat tensors, and results to pytrees.

As much as possible is computed when a program is made, so that a call only passes lists along:
flattening the trees alone would take as long as the update of a small learner.
"""

from __future__ import annotations

import functools
import math
import operator
from array import array
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

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
from idql_func.switches import x64_enabled
from idql_func.tree import array_tensor, as_tensor, number_dtype, tree_flatten, tree_unflatten
from idql_func.types import PyTree

Output = tuple[str, Any]

_NUMBERS = (bool, int, float)
_MADE = ("graph", "constant")
"""The kinds of results that are no argument's memory, see :class:`Program`."""


# --- arguments ------------------------------------------------------------------------


class BadLeaf(TypeError):
    """An argument leaf that is neither a tensor, an array nor a number: its place and the leaf."""


class Arguments:
    """The flattened arguments of one call: their leaves, and the tensors that a program reads."""

    __slots__ = ("bounds", "device", "fast_calls", "lazy", "leaves", "signatures", "tensors")

    def __init__(self, values: Sequence[Any]) -> None:
        """Flatten the values.

        Raises:
            BadLeaf: if a leaf is neither a tensor, an array nor a number.
            RuntimeError: if a leaf was donated.
        """
        leaves: list[Any] = []
        bounds = [0]
        lazy: list[LazyTree | None] = []
        specs: list[optree.PyTreeSpec | None] = []
        for value in values:
            whole = lazy_tree_of(value)
            if whole is not None and whole not in lazy:
                leaves += whole.leaves
                specs.append(None)
            else:
                whole = None
                some, spec = tree_flatten(value)
                leaves += some
                specs.append(spec)
            lazy.append(whole)
            bounds.append(len(leaves))
        self.leaves = leaves
        self.bounds = bounds
        """The first leaf of each value, and the number of all leaves."""
        self.lazy = lazy
        """For each value its lazy tree, or None."""
        self.fast_calls: dict[Any, Any] = {}
        """Fast calls with the first value, which stay possible after its donation."""
        self.device = next((x.device for x in leaves if isinstance(x, Tensor)), None)
        self.tensors = [*leaves]
        """The leaves as program inputs: contiguous tensors, no two the same object."""
        signatures: list[Signature] = []
        for k, spec in enumerate(specs):
            start, stop, whole = bounds[k], bounds[k + 1], lazy[k]
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
        # a program is compiled for inputs that do not overlap; JAX has no such condition
        if len({*map(id, self.tensors)}) < len(leaves):
            seen: set[int] = set()
            for i, tensor in enumerate(self.tensors):
                self.tensors[i] = tensor.clone() if id(tensor) in seen else tensor
                seen.add(id(tensor))

    def _held_signature(self, start: int, stop: int, lazy: LazyTree) -> Signature:
        if not lazy.numbers:
            return lazy.signature
        x64 = x64_enabled()
        for k, tensor in lazy.numbers.items():
            if lazy.x64 != x64 or tensor.device != self.device:
                break
            self.tensors[start + k] = tensor
        else:
            return lazy.signature
        for k in lazy.numbers:
            self.tensors[start + k] = self._tensor(start + k)
        return Signature(lazy.signature.spec, self.tensors[start:stop])

    def _tensor(self, place: int) -> Tensor:
        leaf = self.leaves[place]
        # contiguous, as all arrays of JAX are
        tensor = leaf if isinstance(leaf, Tensor) else leaf_tensor(leaf, self.device, place)
        if tensor is None:
            raise BadLeaf(place, leaf)
        return tensor if tensor.is_contiguous() else tensor.contiguous()

    def donate(self, which: Iterable[int], written: Container[int]) -> None:
        """Move the leaves of donated values to memory that the program may write.

        Args:
            which: positions of the donated values.
            written: the leaves in whose memory the program puts a result. A number or an array
                among them is copied.
        """
        for k in which:
            if k >= len(self.lazy):
                continue
            start, stop, lazy = self.bounds[k], self.bounds[k + 1], self.lazy[k]
            if lazy is not None:
                if k == 0 and not lazy.materialized:
                    self.fast_calls = lazy.fast_calls
                others = [start + i for i in lazy.numbers]
                numbers = [self.leaves[i] for i in others]
                taken = lazy.donate(self.tensors[start:stop])
                self.leaves[start:stop] = self.tensors[start:stop] = taken
                for i, number in zip(others, numbers, strict=True):
                    self.leaves[i] = number
                self.lazy[k] = None
            else:
                given = [i for i in range(start, stop) if isinstance(self.leaves[i], Tensor)]
                others = sorted({*range(start, stop)} - {*given})
                taken = take_donated_memory(
                    [self.leaves[i] for i in given], [self.tensors[i] for i in given]
                )
                for i, tensor in zip(given, taken, strict=True):
                    self.leaves[i] = self.tensors[i] = tensor
            for i in others:
                if i in written:
                    self.tensors[i] = self.tensors[i].clone()

    def mark_returned(self, places: Iterable[int]) -> None:
        """Note that leaves are returned as results, so that two trees refer to them."""
        for k, lazy in enumerate(self.lazy):
            if lazy is not None and lazy.owned:
                for place in places:
                    if self.bounds[k] <= place < self.bounds[k + 1]:
                        lazy.materialize(place - self.bounds[k], place - self.bounds[k] + 1)


def leaf_tensor(leaf: Any, device: torch.device | None, slot: int) -> Tensor | None:
    """The tensor of a number or an array, or None. Equal numbers at two slots get two tensors."""
    dtype = number_dtype(leaf)
    if dtype is not None:
        return _scalar(leaf, math.copysign(1.0, leaf), dtype, device, slot)
    tensor = array_tensor(leaf)
    return None if tensor is None else tensor.to(device)


@functools.lru_cache(maxsize=4096)
def _scalar(
    value: Any, sign: float, dtype: torch.dtype, device: torch.device | None, slot: int
) -> Tensor:
    """The cached tensor of a Python number, one for each slot and for each sign of zero."""
    return torch.tensor(value, dtype=dtype, device=device)


# --- results --------------------------------------------------------------------------


@dataclass(eq=False)
class _Part:
    """A node among the results that can be lazy."""

    start: int
    stop: int
    spec: optree.PyTreeSpec
    layout: NodeLayout
    unknown_kinds: tuple[tuple[int, int | None], ...]
    """Leaves whose kind is known only at the call: (place in the node, place of the argument, or
    None for a constant)."""
    x64: bool
    """Whether the program is one for :func:`idql_func.enable_x64`."""
    owned: bool
    signature: Signature | None = None
    """Known after the first run."""
    impossible: bool = False

    def make(self, flat: Sequence[Any], arguments: Arguments) -> Any | None:
        """The lazy node of these results, or None if it can't be lazy."""
        leaves = [*flat[self.start : self.stop]]
        numbers: dict[int, Tensor] = {}
        for k, source in self.unknown_kinds:
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
            tensors: list[Any] = [numbers.get(k, leaf) for k, leaf in enumerate(leaves)]
            self.impossible = not all(
                type(t) is Tensor and t.is_contiguous() and not t.requires_grad for t in tensors
            )
            if self.impossible:
                return None
            self.signature = Signature(self.spec, tensors).interned()
        tree = LazyTree(leaves, numbers, self.layout, self.signature, self.x64, self.owned)
        return lazy_node(tree, self.layout)


class Program:
    """A compiled graph with the places of its inputs and outputs in the pytrees."""

    def __init__(
        self,
        run: Callable[..., Sequence[Tensor]],
        used: Sequence[int],
        outputs: Sequence[Output],
        out_spec: optree.PyTreeSpec,
        inputs: int,
        donated: Sequence[int] = (),
        kinds: Sequence[tuple[torch.Size, torch.dtype] | None] = (),
        constant_requires_grad: bool = False,
    ) -> None:
        """Prepare the calls.

        Args:
            run: the compiled graph; it returns the results that are not in donated memory.
            used: which of the argument leaves the graph reads.
            outputs: for each leaf of the result: ("graph", k), ("argument", k), ("donated", k) for
                the memory of an argument that the graph writes, or ("constant", value).
            out_spec: the structure of the result.
            inputs: how many leaves the arguments have.
            donated: the argument leaves that the caller has donated.
            kinds: shape and dtype of each leaf of the result, None for a constant.
            constant_requires_grad: whether a tensor from outside the function requires a gradient,
                which would be cut.
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
        self.returned_arguments = [
            k for kind, k in outputs if kind == "argument" and k not in given
        ]
        self.donates = bool(donated)
        self.constant_requires_grad = constant_requires_grad
        self.outer, self.parts = self._plan()
        others = [k for k in self.parts if isinstance(k, int)]
        self._can_repeat = (
            self.donates
            and not constant_requires_grad
            and len(self.parts) == len(others) + 1
            and all(outputs[k][0] in _MADE for k in others)
        )
        """Whether one result can be the first argument of a :class:`FastCall`."""
        self.used = used

    def _plan(self) -> tuple[optree.PyTreeSpec, list[int | _Part]]:
        """The structure of the result down to its nodes, and the source of each leaf and node."""
        numbered = tree_unflatten(self.out_spec, range(self.out_spec.num_leaves))
        tops, outer = tree_flatten(numbered, is_leaf=lambda x: isinstance(x, LazyNode))
        parts: list[int | _Part] = []
        for top in tops:
            part = top if isinstance(top, int) else self._part(top)
            if part is None:  # unflatten the whole result
                return self.out_spec, [*range(self.out_spec.num_leaves)]
            parts.append(part)
        return outer, parts

    def _part(self, node: Any) -> _Part | None:
        places, spec = tree_flatten(node)
        layout = layout_of(spec)
        if layout is None or not places:
            return None
        start, stop = places[0], places[-1] + 1
        outputs = self.outputs[start:stop]
        unknown_kinds = tuple(
            (k, value if kind == "argument" else None)
            for k, (kind, value) in enumerate(outputs)
            if kind in ("argument", "constant")
        )
        made = zip(outputs, self.kept[start:stop], strict=True)
        if self.donates and not all(kept or kind == "constant" for (kind, _), kept in made):
            return None
        return _Part(start, stop, spec, layout, unknown_kinds, x64_enabled(), self.donates)

    def run_flat(self, leaves: Sequence[Any], tensors: Sequence[Tensor]) -> Sequence[Any]:
        """Run the graph and pick the leaves of the result from its outputs and the arguments."""
        results = self.run(*self._read(tensors))
        return self._pick((*results, *leaves, *tensors, *self._constants))

    def __call__(self, arguments: Arguments, settings: Any = None) -> PyTree:
        """Run the graph and unflatten the result.

        With ``settings``, which are everything else that the call depends on, the result can be
        the argument of a :class:`FastCall`.
        """
        flat = self.run_flat(arguments.leaves, arguments.tensors)
        if self.returned_arguments:
            arguments.mark_returned(self.returned_arguments)
        return self.build_result(flat, arguments, settings)

    def run_over_rows(
        self, tensors: Sequence[Tensor], rows: Mapping[int, Tensor], times: int, start: int
    ) -> list[Tensor] | None:
        """The results from ``start`` on of several runs on the same memory, each ``[times, ...]``.

        A leaf in ``rows`` is the next row at each run. None if each run needs a call of its own.
        """
        last = self.outputs[start:]
        if not isinstance(self.run, Replayed) or any(kind not in _MADE for kind, _ in last):
            return None
        moving = {place: rows[k] for place, k in enumerate(self.used) if k in rows}
        results = self.run.run_over_rows(self._read(tensors), moving, times)
        if results is None:
            return None
        return [
            results[value] if kind == "graph" else as_tensor(value).expand(times)
            for kind, value in last
        ]

    def build_result(
        self, flat: Sequence[Any], arguments: Arguments, settings: Any = None
    ) -> PyTree:
        """Unflatten the result. ``settings``: see :meth:`__call__`."""
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
        """Mark the results in donated memory, which the next call need not copy."""
        kept = [flat[k] for k in range(start, stop) if self.kept[k]]
        mark_owned([leaf for leaf in kept if isinstance(leaf, Tensor)])


class FastCall:
    """The next call of a training loop: the same function, on the learner that it returned last.

    Only the batch differs. The learner's tensors are those of the last call, the caller has not
    read them, and the results go to the same memory.
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
        """Record the fast call on a result that lies in the memory of the first argument."""
        lazy, stop = lazy_tree_of(node), arguments.bounds[1]
        if (
            lazy is not None
            and isinstance(program.run, Replayed)
            and part.stop - part.start == stop
            and all(map(operator.is_, lazy.leaves, arguments.leaves[:stop]))
        ):
            lazy.fast_calls = {
                **arguments.fast_calls,
                settings: FastCall(program, program.run, arguments),
            }

    def leaves(self, others: Sequence[Any]) -> list[Tensor] | None:
        """The leaves of the other arguments, or None if a structure, shape or dtype differs."""
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
        """The function's result for a learner whose :func:`cached_call` this is."""
        program = self._program
        node = transfer(learner)
        tensors = [*self._inputs, *[leaves[k] for k in self._picked]]
        results = self._run.run(tensors, self._addresses)
        tops: list[Any] = []
        for part in program.parts:
            if isinstance(part, int):
                kind, value = program.outputs[part]
                tops.append(results[value] if kind == "graph" else value)
            else:
                tops.append(node)
        return tree_unflatten(program.outer, tops)


def cached_call(value: Any, settings: Any) -> FastCall | None:
    """The fast call for a first argument, or None if it has none or was read since it was made.

    ``settings`` are everything else that the call depends on.
    """
    lazy = lazy_tree_of(value)
    return None if lazy is None or lazy.materialized else lazy.fast_calls.get(settings)


def _getter(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """A function that picks the items at some places of a sequence."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda items: [items[k] for k in places]
