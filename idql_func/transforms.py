"""JAX's function transforms over pytrees: jit, vmap, grad, value_and_grad, scan.

They nest freely. ``jit`` traces a function once for each structure, shape and static
value of its arguments, as JAX does, into one graph of tensor operations, and compiles
that graph with ``torch.compile``; inside another transform it steps aside.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optree
import torch
from torch import Tensor

from idql_func.compiler.call import Arguments, BadLeaf, Program, again_of
from idql_func.compiler.donation import write_into_inputs
from idql_func.compiler.fx_utils import storage_of
from idql_func.compiler.pass_inplace import homes_of_results, write_with_twins
from idql_func.compiler.trace import (
    CudaGraph,
    compile_graph,
    compiler_problem,
    examples,
    trace,
    tracing,
)
from idql_func.switches import (
    bfloat16_products,
    disable_jit,
    enable_x64,
    float_dtype,
    jit_disabled,
    native_products,
    partitionable,
    x64_enabled,
)
from idql_func.tree import (
    NAMESPACE,
    as_tensor,
    tree_flatten,
    tree_leaves,
    tree_map,
    tree_paths,
    tree_stack,
    tree_unflatten,
    tree_unstack,
)
from idql_func.types import PyTree

__all__ = [
    "Jitted",
    "compiler_problem",
    "disable_jit",
    "enable_x64",
    "grad",
    "jit",
    "scan",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_paths",
    "tree_stack",
    "tree_unflatten",
    "tree_unstack",
    "value_and_grad",
    "vmap",
]

logger = logging.getLogger("idql_func")

_Settings = tuple[Any, ...]
"""What a program depends on beside its arguments' kinds: a function, the names of its keywords,
its static arguments and the switches."""


# --- jit ----------------------------------------------------------------------------


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
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.cuda_graphs = cuda_graphs
        self._static_nums = _set_of(static_argnums)
        self._static_names = _set_of(static_argnames)
        self._donated_nums = _set_of(donate_argnums)
        self._open_names = _set_of(open_argnames)
        if both := self._static_nums & self._donated_nums:
            raise ValueError(
                f"jit({_name(fn)}): argument {min(both)} can't be static and donated at once."
            )
        self._repeats = self._donated_nums == {0} and not self._static_nums
        self._programs: dict[Any, Program] = {}
        self._donating: Jitted | None = None

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if jit_disabled() or inside_transform():
            return self.fn(*args, **kwargs)
        settings = self._settings(args, kwargs)
        again = again_of(args[0], settings) if self._repeats and args else None
        if again is not None:
            leaves = again.leaves(args[1:])
            if leaves is not None:
                return again(args[0], leaves)
        program, arguments = self._prepare(args, kwargs, settings)
        return program(arguments, settings if self._repeats and not settings[1] else None)

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
        # after one step each part of the state is where it will be
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
                rest = program.results_over(tensors, rows, steps - 1, carried)
                if rest is not None:
                    break
            result = program.flat_results(leaves, tensors)
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
        arguments.hand_back(program.passed)
        stacked = [tree_stack(list(column)) for column in zip(*outputs, strict=True)]
        if rest is not None:
            stacked = [torch.cat(both) for both in zip(stacked, rest, strict=True)]
        return program.together((*leaves[:carried], *stacked), arguments)

    def _check_carry(self, program: Program, arguments: Arguments, init: PyTree) -> None:
        """Refuse a step that can't be repeated."""
        init_spec = arguments.signatures[0].spec
        parts = program.out_spec.children()
        if program.out_spec.type is not tuple or len(parts) != 2:
            raise TypeError(f"scan({_name(self.fn)}): a step must return (carry, output).")
        if parts[0] != init_spec:
            raise TypeError(
                f"scan({_name(self.fn)}): the step returns a carry of another structure than it "
                f"takes: {parts[0]}, not {init_spec}."
            )
        tensors = arguments.tensors
        for k, kind in enumerate(program.kinds[: init_spec.num_leaves]):
            if kind is not None and kind != (tensors[k].shape, tensors[k].dtype):
                raise TypeError(
                    f"scan({_name(self.fn)}): the step makes {tree_paths(init)[k]!r} {kind[1]} of "
                    f"shape {tuple(kind[0])} from {tensors[k].dtype} of shape "
                    f"{tuple(tensors[k].shape)}."
                )

    def donating(self, donate: bool = True) -> Jitted:
        """The same function with its first argument donated, or this one for False."""
        if not donate:
            return self
        if self._donating is None:
            static = tuple(self._static_nums), tuple(self._static_names)
            self._donating = Jitted(self.fn, *static, 0, self.cuda_graphs, tuple(self._open_names))
        return self._donating

    def cache_size(self) -> int:
        """How many graphs have been compiled: one a structure, shape and static value."""
        return len(self._programs)

    def clear_cache(self) -> None:
        """Forget the compiled graphs."""
        self._programs.clear()

    def _settings(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Settings:
        names, keywords = (), ()
        if kwargs:
            names = tuple(sorted([k for k in kwargs if k not in self._static_names]))
            keywords = tuple(sorted([kw for kw in kwargs.items() if kw[0] in self._static_names]))
        positional = tuple([(i, args[i]) for i in sorted(self._static_nums) if i < len(args)])
        switches = x64_enabled(), partitionable(), bfloat16_products(), native_products()
        return self, names, positional, keywords, switches

    def _prepare(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], settings: _Settings
    ) -> tuple[Program, Arguments]:
        """The program for these arguments, and their leaves.

        From here on the donated arguments are refused elsewhere: the leaves have their memory.
        """
        _, names, positional, keywords, _ = settings
        static_args, static_kwargs = dict(positional), dict(keywords)
        values = [None if i in static_args else a for i, a in enumerate(args)]
        try:
            arguments = Arguments([*values, *[kwargs[name] for name in names]])
        except BadLeaf as bad:
            dynamic = tuple(values), {name: kwargs[name] for name in names}
            raise TypeError(
                f"jit({_name(self.fn)}): argument leaf {tree_paths(dynamic)[bad.place]!r} is a "
                f"{type(bad.leaf).__name__}; leaves must be tensors, arrays or numbers, "
                "and anything else named in static_argnums or static_argnames."
            ) from None
        key = arguments.signatures, settings
        program = self._programs.get(key)
        if program is None:
            spec = _spec_of_all([s.spec for s in arguments.signatures], names)
            program = self._compile(spec, static_args, static_kwargs, arguments.tensors)
            known = tuple([signature.known() for signature in arguments.signatures])
            self._programs[known, settings] = program
        if self._donated_nums:
            arguments.donate(self._donated_nums, program.written)
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
        donated = _places(positional, self._donated_nums)
        open_rows = set(_places(keywords, self._open_names, positional.num_leaves))

        def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
            args, kwargs = tree_unflatten(spec, inputs)
            args = tuple(static_args.get(i, a) for i, a in enumerate(args))
            result_leaves, result_spec = tree_flatten(self.fn(*args, **kwargs, **static_kwargs))
            position = {id(x): k for k, x in enumerate(inputs)}
            storages = {storage_of(x) for x in inputs}
            results: list[Tensor] = []
            outputs.clear()
            out_spec[:] = [result_spec]
            for leaf in result_leaves:
                if id(leaf) in position:  # handed back untouched, Python numbers as such
                    outputs.append(("argument", position[id(leaf)]))
                elif isinstance(leaf, Tensor):
                    outputs.append(("graph", len(results)))
                    # a view of an input, or a result given twice, would see what is written there
                    shared = bool(donated) and storage_of(leaf) in storages
                    results.append(leaf.clone() if shared else leaf.contiguous())
                    storages.add(storage_of(leaf))
                else:
                    outputs.append(("constant", leaf))
            return tuple(results)

        graph = trace(flat, examples(tensors, open_rows))
        graph.graph.eliminate_dead_code()
        made = [node.meta["val"] for node in _results(graph)]
        sources = {"graph": made, "argument": tensors}
        kinds = tuple(
            (sources[kind][value].shape, sources[kind][value].dtype) if kind in sources else None
            for kind, value in outputs
        )
        if donated:
            outputs = _reuse(graph, outputs, donated, tensors)
        placeholders = [n for n in graph.graph.nodes if n.op == "placeholder"]
        used = tuple(k for k, node in enumerate(placeholders) if node.users)
        for node in placeholders:
            if not node.users:
                graph.graph.erase_node(node)
        graph.recompile()
        device = tensors[0].device if tensors else torch.device("cpu")
        run: Callable[..., Any] = graph
        if len(graph.graph.nodes) > 1:
            problem = compiler_problem(device)
            if problem is None:
                logger.info("compiling %s: %d operations", _name(self.fn), len(graph.graph.nodes))
                run = compile_graph(graph, [tensors[k] for k in used], bool(open_rows))
            else:
                warnings.warn(f"jit: {problem} Running eagerly.", RuntimeWarning, stacklevel=5)
        if self.cuda_graphs and device.type == "cuda":
            run = CudaGraph(run, {used.index(k) for k in used if k in donated})
        return Program(run, used, outputs, out_spec[0], len(tensors), donated, kinds)


def _spec_of_all(specs: Sequence[optree.PyTreeSpec], names: Sequence[str]) -> optree.PyTreeSpec:
    """The structure of ``(args, kwargs)`` from those of the values."""
    values = [tree_unflatten(spec, range(spec.num_leaves)) for spec in specs]
    count = len(values) - len(names)
    positional, keywords = values[:count], values[count:]
    return tree_flatten((tuple(positional), dict(zip(names, keywords, strict=True))))[1]


def _places(spec: optree.PyTreeSpec, chosen: set[Any], start: int = 0) -> tuple[int, ...]:
    """The places, among all leaves, of the leaves of some children; the first leaf is ``start``."""
    places: list[int] = []
    for entry, child in zip(spec.entries(), spec.children(), strict=True):
        if entry in chosen:
            places.extend(range(start, start + child.num_leaves))
        start += child.num_leaves
    return tuple(places)


def _results(graph: torch.fx.GraphModule) -> Sequence[Any]:
    return next(node for node in graph.graph.nodes if node.op == "output").args[0]


def _reuse(
    graph: torch.fx.GraphModule,
    outputs: list[tuple[str, Any]],
    donated: Sequence[int],
    tensors: Sequence[Tensor],
) -> list[tuple[str, Any]]:
    """Give each output of the graph the memory of a donated leaf of its kind.

    That is the leaf which an operator can write it over, or the first one that is left.
    """
    free = [k for k in donated if ("argument", k) not in outputs]
    results = _results(graph)
    homes = homes_of_results(graph)
    pairs: dict[int, int] = {}
    made_here = [value for kind, value in outputs if kind == "graph"]
    for value in sorted(made_here, key=lambda value: value not in homes):
        made = results[value].meta["val"]
        fits = [k for k in free if (tensors[k].shape, tensors[k].dtype) == (made.shape, made.dtype)]
        if fits:
            pairs[value] = homes[value] if homes.get(value) in fits else fits[0]
            free.remove(pairs[value])
    write_into_inputs(graph, pairs, write_with_twins(graph, pairs))
    left = [k for k in range(len(results)) if k not in pairs]
    return [
        (kind, value)
        if kind != "graph"
        else ("donated", pairs[value])
        if value in pairs
        else ("graph", left.index(value))
        for kind, value in outputs
    ]


def jit(
    fn: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
    cuda_graphs: bool = False,
    open_argnames: str | Sequence[str] = (),
) -> Any:
    """Compile a function of pytrees (``jax.jit``), as a decorator or by call.

    Tensors, arrays and numbers in the arguments are inputs of the graph, so that another
    value needs no new compilation; shapes, dtypes, static fields of learners and the
    named static arguments are part of the program. A leaf that is handed back untouched
    comes back as the very same object. Without a C++ compiler it says so once and runs
    the traced graph eagerly.

    The memory of positional arguments named in ``donate_argnums`` becomes the result's
    where shapes and dtypes fit, so that a training loop allocates nothing after its first
    step. Their tensors refuse any later use; views and arrays of them that were taken
    before see the new values, so copy what is to be kept. The first call copies what the
    caller owns. Under :func:`disable_jit` nothing is donated.

    ``cuda_graphs`` records the program on a GPU and replays it by one launch; elsewhere it
    has no effect.

    ``open_argnames`` names keywords, such as a dataset, whose tensors may be longer or shorter
    along their first axis in another process: torch's cache of compiled code serves there too.

    Raises:
        TypeError: an argument leaf is neither tensor, array nor number.
        RuntimeError: an argument was donated to an earlier call.
        ValueError: an argument is to be static and donated.

    >>> import torch
    >>> double = jit(lambda tree: tree_map(lambda x: 2 * x, tree))
    >>> with disable_jit():  # compiling takes seconds; the values are the same
    ...     double({"a": torch.ones(2)})["a"].tolist()
    [2.0, 2.0]
    """
    if fn is None:
        return functools.partial(
            jit,
            static_argnums=static_argnums,
            static_argnames=static_argnames,
            donate_argnums=donate_argnums,
            cuda_graphs=cuda_graphs,
            open_argnames=open_argnames,
        )
    return Jitted(fn, static_argnums, static_argnames, donate_argnums, cuda_graphs, open_argnames)


def inside_transform() -> bool:
    """Whether the code runs under another transform, where no tensor has a value to read.

    >>> inside_transform()
    False
    """
    return (
        tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined]
        or torch.compiler.is_compiling()
    )


def _set_of(names: Any) -> set[Any]:
    return {names} if isinstance(names, int | str) else set(names)


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", None) or type(fn).__name__


# --- vmap ---------------------------------------------------------------------------


def vmap(
    fn: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: Any = 0,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """Map a function over an axis of its arguments' leaves (``jax.vmap``).

    ``in_axes`` and ``out_axes`` are an axis, None (not mapped), or pytree prefixes of
    the arguments and of the result. Python numbers among the leaves are not mapped.

    Raises:
        ValueError: a mapped leaf has no such axis, sizes differ, or nothing is mapped.

    >>> import torch
    >>> rows = vmap(lambda p, x: p["w"] @ x, in_axes=(None, 0))
    >>> rows({"w": torch.eye(2)}, torch.ones(3, 2)).shape
    torch.Size([3, 2])
    """

    @functools.wraps(fn)
    def mapped(*args: Any) -> Any:
        leaves, spec = tree_flatten(args, none_is_leaf=True)
        axes = _prefix_axes(in_axes, args, "in_axes")
        axes = [a if isinstance(x, Tensor) else None for a, x in zip(axes, leaves, strict=True)]
        _check_axes(fn, args, leaves, axes)
        mapped_positions = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]
        out_spec: list[optree.PyTreeSpec] = []
        constants: dict[int, Any] = {}

        def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
            filled = list(leaves)
            for i, tensor in zip(mapped_positions, tensors, strict=True):
                filled[i] = tensor
            result_leaves, result_spec = tree_flatten(fn(*tree_unflatten(spec, filled)))
            out_spec[:] = [result_spec]
            constants.clear()
            constants.update(
                (i, x) for i, x in enumerate(result_leaves) if not isinstance(x, Tensor)
            )
            return tuple(x for x in result_leaves if isinstance(x, Tensor))

        flat_axes = out_axes
        if not isinstance(out_axes, int):
            # the result's structure is needed before its axes: it is known after a dry run
            flat_axes = _out_axes(fn, args, leaves, axes, out_axes)
        results = list(
            torch.func.vmap(
                flat,
                in_dims=tuple(axes[i] for i in mapped_positions),
                out_dims=flat_axes,
                chunk_size=chunk_size,
            )(*(leaves[i] for i in mapped_positions))
        )
        merged = [
            constants[i] if i in constants else results.pop(0)
            for i in range(len(results) + len(constants))
        ]
        return tree_unflatten(out_spec[0], merged)

    return mapped


def _prefix_axes(axes: Any, tree: PyTree, what: str) -> list[Any]:
    """One axis for each leaf of the tree, from an axis or a prefix tree of axes."""
    if isinstance(axes, list):
        axes = tuple(axes)
    try:
        return optree.broadcast_prefix(axes, tree, none_is_leaf=True, namespace=NAMESPACE)
    except ValueError as error:
        raise ValueError(f"vmap: {what} is no prefix of the tree it speaks of: {error}") from None


def _out_axes(
    fn: Callable[..., Any], args: Any, leaves: list[Any], axes: list[Any], out_axes: Any
) -> tuple[Any, ...]:
    _, spec = tree_flatten(args, none_is_leaf=True)
    singles = [
        x if a is None or not isinstance(x, Tensor) else x.select(a, 0)
        for x, a in zip(leaves, axes, strict=True)
    ]
    result = fn(*tree_unflatten(spec, singles))
    spread = _prefix_axes(out_axes, result, "out_axes")
    kept = [
        (a, x)
        for a, x in zip(spread, tree_flatten(result, none_is_leaf=True)[0], strict=True)
        if isinstance(x, Tensor)
    ]
    return tuple(a for a, _ in kept)


def _check_axes(fn: Callable[..., Any], args: Any, leaves: list[Any], axes: list[Any]) -> None:
    sizes: dict[int, int] = {}
    for i, (leaf, axis) in enumerate(zip(leaves, axes, strict=True)):
        if axis is None:
            continue
        if not -leaf.ndim <= axis < leaf.ndim:
            path = _paths_with_none(args)[i]
            raise ValueError(
                f"vmap({_name(fn)}): leaf {path!r} of shape {tuple(leaf.shape)} "
                f"has no axis {axis} to map over."
            )
        sizes[i] = leaf.shape[axis]
    if not sizes:
        raise ValueError(f"vmap({_name(fn)}): no argument leaf is mapped; give in_axes an axis.")
    first = next(iter(sizes))
    for i, size in sizes.items():
        if size != sizes[first]:
            paths = _paths_with_none(args)
            raise ValueError(
                f"vmap({_name(fn)}): the mapped axes differ in size: {sizes[first]} for "
                f"{paths[first]!r}, {size} for {paths[i]!r}."
            )


def _paths_with_none(args: Any) -> list[str]:
    paths = optree.tree_paths(args, none_is_leaf=True, namespace=NAMESPACE)
    return ["/".join(str(entry) for entry in path) for path in paths]


# --- grad ---------------------------------------------------------------------------


def value_and_grad(
    fn: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The value of a scalar function and its gradient (``jax.value_and_grad``).

    With ``has_aux`` the function returns ``(loss, aux)`` and the result is
    ``((loss, aux), gradient)``. The gradient has the tree of the argument, or a tuple of
    such for several ``argnums``.

    Raises:
        TypeError: a differentiated leaf is not a floating tensor or number.

    >>> import torch
    >>> value_and_grad(lambda p: (p["w"] ** 2).sum())({"w": torch.tensor([3.0])})
    (tensor(9.), {'w': tensor([6.])})
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        chosen = tuple(args[i] for i in numbers)
        leaves, spec = tree_flatten(chosen)
        tensors = tuple(_differentiable(fn, leaf) for leaf in leaves)
        aux_spec: list[optree.PyTreeSpec] = []

        def flat(inputs: tuple[Tensor, ...]) -> Any:
            filled = list(args)
            for i, value in zip(numbers, tree_unflatten(spec, inputs), strict=True):
                filled[i] = value
            result = fn(*filled, **kwargs)
            if not has_aux:
                return result
            loss, aux = result
            aux_leaves, structure = tree_flatten(aux)
            aux_spec[:] = [structure]
            return loss, tuple(torch.as_tensor(x) for x in aux_leaves)

        grads, value = torch.func.grad_and_value(flat, has_aux=has_aux)(tensors)
        grads = tree_unflatten(spec, grads)
        if has_aux:
            loss, aux_leaves = value
            value = (loss, tree_unflatten(aux_spec[0], aux_leaves))
        return value, grads[0] if isinstance(argnums, int) else grads

    return wrapped


def grad(
    fn: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The gradient of a scalar function (``jax.grad``); ``(gradient, aux)`` with ``has_aux``.

    >>> import torch
    >>> grad(lambda x: (x**3).sum())(torch.tensor([2.0]))
    tensor([12.])
    """
    both = value_and_grad(fn, argnums, has_aux)

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, grads = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return wrapped


def _differentiable(fn: Callable[..., Any], leaf: Any) -> Tensor:
    if isinstance(leaf, float):
        leaf = torch.tensor(leaf, dtype=float_dtype())
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
        kind = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
        raise TypeError(
            f"grad({_name(fn)}): a differentiated leaf is {kind}; it must be a floating tensor."
        )
    return leaf


# --- scan ---------------------------------------------------------------------------


def scan(
    fn: Callable[[Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree = None,
    length: int | None = None,
) -> tuple[PyTree, PyTree]:
    """Carry a state along the first axis of ``xs`` (``jax.lax.scan``).

    ``fn(carry, x) -> (carry, y)``; returns the last carry and the stacked ``y``. Inside
    ``jit`` the steps are unrolled into the graph, so that it suits short loops such as
    the diffusion steps; outside, ``fn`` is called step by step. A jitted ``fn`` is compiled
    once, and its program runs on flat tensors: trees are taken apart before the first step
    and put together after the last, and nothing waits for the device between. With
    ``jit(fn, donate_argnums=0)`` the state stays where it is in memory, and on a CPU all steps
    but the first are one call from C where its program allows. What all steps read comes as
    keywords: ``scan(functools.partial(jitted, data=data), ...)``.

    Raises:
        ValueError: no length is known, or the leaves of ``xs`` differ in theirs.
        TypeError: a jitted step changes the structure, a shape or a dtype of its carry.

    >>> import torch
    >>> total, partial = scan(lambda c, x: (c + x, c + x), torch.tensor(0), torch.arange(4))
    >>> total.item(), partial.tolist()
    (6, [0, 1, 3, 6])
    """
    leaves, spec = tree_flatten(xs)
    lengths = {leaf.shape[0] for leaf in leaves} | ({length} if length is not None else set())
    if len(lengths) != 1:
        raise ValueError(f"scan: xs and length must agree on one number of steps, got {lengths}.")
    steps = lengths.pop()
    step, constants = fn, {}
    if isinstance(fn, functools.partial) and not fn.args:
        step, constants = fn.func, fn.keywords
    if steps and isinstance(step, Jitted) and not (jit_disabled() or inside_transform()):
        rows = [as_tensor(leaf).contiguous() for leaf in leaves]
        return step.scan(init, rows, spec, steps, constants)
    carry, outputs = init, []
    for i in range(steps):
        carry, y = fn(carry, tree_unflatten(spec, [leaf[i] for leaf in leaves]))
        outputs.append(y)
    return carry, tree_stack(outputs) if outputs else None
