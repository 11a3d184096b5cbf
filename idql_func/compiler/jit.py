"""A jitted function: the cache of its compiled programs, and the call path around them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import math
import operator
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optree
import torch
from torch import Tensor

from idql_func.compiler.call import Arguments, BadLeaf, Program, cached_call
from idql_func.compiler.cuda_graph import CudaGraph
from idql_func.compiler.dynamo import OpaqueCall, inside_export
from idql_func.compiler.effects import collected_effects, without_tokens
from idql_func.compiler.fx_utils import ends
from idql_func.compiler.inductor import compile_graph, compiler_problem, generates_code
from idql_func.compiler.pass_inplace import reuse_donated_memory
from idql_func.compiler.refused_writes import without_writes
from idql_func.compiler.threads import COMPILE_LOCK
from idql_func.compiler.torch_internals import ANALYSIS, problem_of, storage_of, versions_of
from idql_func.compiler.trace import example_inputs, runs_eagerly, trace
from idql_func.kernels.build import program_is_differentiated
from idql_func.switches import bfloat16_matmul, native_matmul, partitionable, x64_enabled
from idql_func.tree import tree_flatten, tree_paths, tree_stack, tree_unflatten
from idql_func.types import PyTree

logger = logging.getLogger("idql_func")

_Settings = tuple[Any, ...]
"""What a program depends on besides the kinds of its arguments: the function, the names of its
keywords, its static arguments and the switches."""


class Jitted:
    """A function compiled at first call; made by :func:`jit`."""

    def __init__(
        self,
        fn: Callable[..., Any],
        static_argnums: int | Sequence[int] = (),
        static_argnames: str | Sequence[str] = (),
        donate_argnums: int | Sequence[int] = (),
        cuda_graphs: bool = False,
        open_argnames: str | Sequence[str] = (),
        donate_argnames: str | Sequence[str] = (),
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.cuda_graphs = cuda_graphs
        self._static_nums, self._static_names = _places_and_names(
            fn, "static", static_argnums, static_argnames
        )
        self._donated_nums, self._donated_names = _places_and_names(
            fn, "donate", donate_argnums, donate_argnames
        )
        self._open_names = _set_of(open_argnames)
        both = self._static_nums & self._donated_nums or self._static_names & self._donated_names
        if both:
            raise ValueError(
                f"jit({name_of(fn)}): argument {min(both)} can't be static and donated at once."
            )
        self._repeats = self._donated_nums == {0}
        self._programs: dict[Any, Program] = {}
        self._donating: Jitted | None = None
        self._opaque = OpaqueCall(fn)

    def __deepcopy__(self, memo: dict[int, Any]) -> Jitted:
        return self  # like a function

    def __reduce__(self) -> str:
        """The name of a function of a module, by which it is pickled.

        Raises:
            TypeError: if the name does not lead to this function.
        """
        name = name_of(self.fn)
        try:
            found = operator.attrgetter(name)(sys.modules[self.fn.__module__])
        except (AttributeError, KeyError):
            found = None
        if found is not self:
            raise TypeError(
                f"jit({name}): only a jitted function that is found under its name in its module "
                "can be pickled."
            )
        return name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            return self._opaque.compiled(args, kwargs)
        if inside_export():
            return self._opaque.exported(args, kwargs)
        if runs_eagerly():
            donates = self._donated_nums or self._donated_names
            with without_writes(f"jit({name_of(self.fn)})", args, kwargs, outermost=not donates):
                return self.fn(*args, **kwargs)
        settings = self._settings(args, kwargs)
        repeats = self._repeats and not settings[2]  # without static arguments by position
        fast = cached_call(args[0], settings) if repeats and args else None
        if fast is not None:
            leaves = fast.leaves(args[1:])
            if leaves is not None:
                return fast(args[0], leaves)
        program, arguments = self._prepare(args, kwargs, settings)
        return program(arguments, settings if repeats and not settings[1] else None)

    def scan(
        self,
        init: PyTree,
        xs: Sequence[Tensor],
        xs_spec: optree.PyTreeSpec,
        steps: int,
        constants: dict[str, Any],
    ) -> tuple[PyTree, PyTree]:
        """See :func:`scan`; ``xs`` are leaves ``[steps, ...]``, ``constants`` go to each step."""
        first = tree_unflatten(xs_spec, [leaf[0] for leaf in xs])
        program, arguments = self._prepare(
            (init, first), constants, self._settings((init, first), constants)
        )
        leaves, tensors = arguments.leaves, arguments.tensors
        carried = arguments.bounds[1]
        self._check_carry(program, arguments, init)
        moving = [
            (k, kind, value)
            for k, (kind, value) in enumerate(program.outputs[:carried])
            if kind not in ("argument", "donated")
            or value != k
            or (kind == "donated" and not isinstance(leaves[k], Tensor))
        ]
        # from the second step on, each leaf of the state stays at its place in memory
        stays = all(
            kind == "constant" or (kind, value) == ("donated", k) for k, kind, value in moving
        )
        outputs: list[Sequence[Any]] = []
        rest: list[Tensor] | None = None
        for i in range(steps):
            if i:
                row = [leaf[i] for leaf in xs]
                leaves[carried : carried + len(xs)] = tensors[carried : carried + len(xs)] = row
            if i == 1 and stays:
                rows = {carried + k: leaf[1:] for k, leaf in enumerate(xs)}
                rest = program.run_over_rows(tensors, rows, steps - 1, carried)
                if rest is not None:
                    break
            result = program.run_flat(leaves, tensors)
            inputs = [*tensors] if moving else tensors
            for k, kind, value in moving:
                leaf = leaves[k]
                leaves[k] = result[k]
                if kind == "argument":
                    tensors[k] = inputs[value]
                elif isinstance(result[k], Tensor):
                    tensors[k] = result[k]
                elif result[k] is not leaf:
                    tensors[k] = torch.full_like(tensors[k], result[k])
            outputs.append(result[carried:])
        arguments.mark_returned(program.returned_arguments)
        stacked = [tree_stack(list(column)) for column in zip(*outputs, strict=True)]
        if rest is not None:
            stacked = [torch.cat(both) for both in zip(stacked, rest, strict=True)]
        return program.build_result((*leaves[:carried], *stacked), arguments)

    def _check_carry(self, program: Program, arguments: Arguments, init: PyTree) -> None:
        """Raise if the carry of a step differs from its argument in structure, shape or dtype."""
        init_spec = arguments.signatures[0].spec
        parts = program.out_spec.children()
        if program.out_spec.type is not tuple or len(parts) != 2:
            raise TypeError(f"scan({name_of(self.fn)}): a step must return (carry, output).")
        if parts[0] != init_spec:
            raise TypeError(
                f"scan({name_of(self.fn)}): the step returns a carry of another structure than it "
                f"takes: {parts[0]}, not {init_spec}."
            )
        tensors = arguments.tensors
        for k, kind in enumerate(program.kinds[: init_spec.num_leaves]):
            if kind is not None and kind != (tensors[k].shape, tensors[k].dtype):
                raise TypeError(
                    f"scan({name_of(self.fn)}): the step makes {tree_paths(init)[k]!r} {kind[1]} "
                    f"of shape {tuple(kind[0])} from {tensors[k].dtype} of shape "
                    f"{tuple(tensors[k].shape)}."
                )

    def donating(self, donate: bool = True) -> Jitted:
        """The same function with its first argument donated, or this one for False."""
        if not donate:
            return self
        if self._donating is None:
            static = tuple(self._static_nums), tuple(self._static_names)
            donating = Jitted(self.fn, *static, 0, self.cuda_graphs, tuple(self._open_names))
            self._donating = self._donating or donating
        return self._donating

    def cache_size(self) -> int:
        """The number of compiled programs: one for each structure, shape and static value."""
        return len(self._programs)

    def clear_cache(self) -> None:
        """Forget the compiled programs."""
        self._programs.clear()

    def _settings(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Settings:
        names, keywords = (), ()
        if kwargs:
            names = tuple(sorted([k for k in kwargs if k not in self._static_names]))
            keywords = tuple(
                [(k, self._static(k, kwargs[k])) for k in sorted(kwargs) if k in self._static_names]
            )
        positional = ()
        if self._static_nums:
            count = len(args)
            places = sorted({i % count for i in self._static_nums if -count <= i < count})
            positional = tuple([(i, self._static(i, args[i])) for i in places])
        switches = x64_enabled(), partitionable(), bfloat16_matmul(), native_matmul()
        return self, names, positional, keywords, switches

    def _static(self, name: int | str, value: Any) -> _Static:
        try:
            return _Static(value)
        except TypeError:
            raise ValueError(
                f"jit({name_of(self.fn)}): the static argument {name!r} is a "
                f"{type(value).__name__}, which can't be hashed; give a value that can, such as a "
                "tuple."
            ) from None

    def _prepare(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], settings: _Settings
    ) -> tuple[Program, Arguments]:
        """The program for these arguments, and the flattened arguments.

        The caller's donated tensors are unusable from here on.
        """
        _, names, positional, keywords, _ = settings
        static_args, static_kwargs = (
            {name: static.value for name, static in given} for given in (positional, keywords)
        )
        values = [None if i in static_args else a for i, a in enumerate(args)]
        try:
            arguments = Arguments([*values, *[kwargs[name] for name in names]])
        except BadLeaf as bad:
            place, leaf = bad.args
            dynamic = tuple(values), {name: kwargs[name] for name in names}
            raise TypeError(
                f"jit({name_of(self.fn)}): argument leaf {tree_paths(dynamic)[place]!r} is a "
                f"{type(leaf).__name__}; leaves must be tensors, arrays or numbers, "
                "and anything else named in static_argnums or static_argnames."
            ) from None
        key = arguments.signatures, settings
        program = self._programs.get(key)
        if program is None:
            with COMPILE_LOCK:
                program = self._programs.get(key)  # of another thread
                if program is None:
                    spec = _spec_of_all([s.spec for s in arguments.signatures], names)
                    program = self._compile(spec, static_args, static_kwargs, arguments.tensors)
                    known = tuple([signature.interned() for signature in arguments.signatures])
                    self._programs[known, settings] = program
        if program.constant_requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"jit({name_of(self.fn)}): the function uses a tensor that requires a gradient and "
                "is not one of its arguments; make it an argument, or detach it."
            )
        if program.donates:
            count = len(args)
            donated = {i % count for i in self._donated_nums if -count <= i < count}
            donated |= {count + k for k, name in enumerate(names) if name in self._donated_names}
            arguments.donate(donated, program.written)
        return program, arguments

    def _compile(
        self,
        spec: optree.PyTreeSpec,
        static_args: dict[int, Any],
        static_kwargs: dict[str, Any],
        tensors: list[Tensor],
    ) -> Program:
        outputs: list[tuple[str, Any]] = []
        out_spec: list[optree.PyTreeSpec] = []
        positional, keywords = spec.children()
        count = positional.num_children
        donated_args = {i % count for i in self._donated_nums if -count <= i < count}
        donated = _places(positional, donated_args)
        donated += _places(keywords, self._donated_names, positional.num_leaves)
        differentiated = any(t.requires_grad for t in tensors)
        if differentiated:  # autograd keeps the memory of arguments for the backward pass
            donated = ()
        unknown_aliases = problem_of(ANALYSIS) is not None
        dynamic_rows = set(_places(keywords, self._open_names, positional.num_leaves))

        def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
            args, kwargs = tree_unflatten(spec, inputs)
            args = tuple(static_args.get(i, a) for i, a in enumerate(args))
            versions = versions_of(inputs)
            result_leaves, result_spec = tree_flatten(self.fn(*args, **kwargs, **static_kwargs))
            changes = zip(versions, versions_of(inputs), strict=True)
            unchanged = [old == new for old, new in changes]
            position = {id(x): k for k, x in enumerate(inputs) if unchanged[k]}
            storages = {storage_of(x) for x in inputs}
            results: list[Tensor] = []
            outputs.clear()
            out_spec[:] = [result_spec]
            for leaf in result_leaves:
                if id(leaf) in position:  # returned unchanged; a Python number stays one
                    outputs.append(("argument", position[id(leaf)]))
                elif isinstance(leaf, Tensor):
                    outputs.append(("graph", len(results)))
                    # a write to donated memory would change a view of it, or an equal result
                    shared = donated and (unknown_aliases or storage_of(leaf) in storages)
                    results.append(leaf.clone() if shared else leaf.contiguous())
                    storages.add(storage_of(leaf))
                elif isinstance(leaf, str | bytes) or dataclasses.is_dataclass(leaf):
                    path = tree_paths(tree_unflatten(result_spec, result_leaves))[len(outputs)]
                    raise TypeError(
                        f"jit({name_of(self.fn)}): the function returns {path!r} as a "
                        f"{type(leaf).__name__}; the leaves of a result must be tensors, arrays or "
                        "numbers. Register a dataclass by deriving it from struct.PyTreeNode."
                    )
                else:
                    outputs.append(("constant", leaf))
            return *results, *tokens

        name = f"jit({name_of(self.fn)})"
        with program_is_differentiated(differentiated), collected_effects() as tokens:
            graph = trace(flat, example_inputs(tensors, dynamic_rows), name)
        graph.graph.eliminate_dead_code()
        placeholders, output = ends(graph)
        made = [node.meta["val"] for node in output.args[0]]
        sources = {"graph": made, "argument": tensors}
        kinds = tuple(
            (sources[kind][value].shape, sources[kind][value].dtype) if kind in sources else None
            for kind, value in outputs
        )
        if donated:
            outputs = reuse_donated_memory(graph, outputs, donated, tensors)
        used = tuple(k for k, node in enumerate(placeholders) if node.users)
        for node in placeholders:
            if not node.users:
                graph.graph.erase_node(node)
        graph.recompile()
        device = tensors[0].device if tensors else torch.device("cpu")
        run: Callable[..., Any] = graph
        if len(graph.graph.nodes) > 1 and generates_code():
            problem = compiler_problem(device)
            if problem is None:
                logger.info("compiling %s: %d operations", name_of(self.fn), len(graph.graph.nodes))
                run = compile_graph(graph, [tensors[k] for k in used], bool(dynamic_rows))
            else:
                warnings.warn(f"jit: {problem} Running eagerly.", RuntimeWarning, stacklevel=5)
        if run is graph:
            _ = graph.code  # written here, under the lock, not at the first call in any thread
        if tokens:
            run = without_tokens(run, len(tokens))
        elif self.cuda_graphs and device.type == "cuda":
            run = CudaGraph(run, {used.index(k) for k in used if k in donated})
        constants = [getattr(graph, n.target) for n in graph.graph.nodes if n.op == "get_attr"]
        closure = any(isinstance(c, Tensor) and c.requires_grad for c in constants)
        return Program(run, used, outputs, out_spec[0], len(tensors), donated, kinds, closure)


def _spec_of_all(specs: Sequence[optree.PyTreeSpec], names: Sequence[str]) -> optree.PyTreeSpec:
    """The structure of ``(args, kwargs)`` from those of the values."""
    values = [tree_unflatten(spec, range(spec.num_leaves)) for spec in specs]
    count = len(values) - len(names)
    positional, keywords = values[:count], values[count:]
    return tree_flatten((tuple(positional), dict(zip(names, keywords, strict=True))))[1]


def _places(spec: optree.PyTreeSpec, chosen: set[Any], start: int = 0) -> tuple[int, ...]:
    """The places of the leaves of some children; ``start`` is the place of the first leaf."""
    places: list[int] = []
    for entry, child in zip(spec.entries(), spec.children(), strict=True):
        if entry in chosen:
            places.extend(range(start, start + child.num_leaves))
        start += child.num_leaves
    return tuple(places)


class _Static:
    """A static argument. It equals another one of the same value and the same types, as in JAX."""

    __slots__ = ("kind", "number", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.kind = _kind_of(value)
        self.number = hash((self.kind, value))

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Static)
            and self.number == other.number
            and self.kind == other.kind
            and self.value == other.value
        )


def _kind_of(value: Any) -> Any:
    """The types of a value and of its parts; 0.0 and -0.0 are of two kinds."""
    if isinstance(value, Tensor):
        raise TypeError("tensors are compared by value, and hashed by identity")
    if isinstance(value, tuple):
        return type(value), *map(_kind_of, value)
    return (type(value), math.copysign(1.0, value)) if isinstance(value, float) else type(value)


def _places_and_names(
    fn: Callable[..., Any], what: str, nums: Any, names: Any
) -> tuple[set[int], set[str]]:
    """Positions and names of arguments; those that are not given follow from the others."""
    places, chosen = _set_of(nums), _set_of(names)
    try:
        parameters = [*inspect.signature(fn).parameters.values()]
    except (TypeError, ValueError):  # some built-in functions have no signature
        return places, chosen
    listed = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    open_ended = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    for place in places:
        if not open_ended and not -len(listed) <= place < len(listed):
            raise ValueError(
                f"jit({name_of(fn)}): {what}_argnums is {place}, but the function takes "
                f"{len(listed)} positional arguments."
            )
    if not any(p.kind == p.VAR_KEYWORD for p in parameters):
        known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if unknown := chosen - known:
            raise ValueError(
                f"jit({name_of(fn)}): {what}_argnames is {min(unknown)!r}, but the function has "
                "no such argument."
            )
    if places and not chosen:
        chosen = {listed[i] for i in places if 0 <= i < len(listed)}
    elif chosen and not places:
        places = {listed.index(name) for name in chosen if name in listed}
    return places, chosen


def _set_of(names: Any) -> set[Any]:
    return {names} if isinstance(names, int | str) else set(names)


def name_of(fn: Callable[..., Any]) -> str:
    """The name of a function, or of its class where it has none."""
    return getattr(fn, "__qualname__", None) or type(fn).__name__
