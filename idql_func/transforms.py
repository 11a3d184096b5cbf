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
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from idql_func._switches import (
    disable_jit,
    enable_x64,
    float_dtype,
    int_dtype,
    jit_disabled,
    partitionable,
    x64_enabled,
)
from idql_func.tree import (
    NAMESPACE,
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

_TRACING: ContextVar[bool] = ContextVar("idql_func_tracing", default=False)


# --- jit ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Program:
    """One compiled graph and how its inputs and outputs sit in the pytrees."""

    run: Callable[..., Sequence[Tensor]]
    used: tuple[int, ...]
    """Which of the argument leaves the graph reads."""
    outputs: tuple[tuple[str, Any], ...]
    """For each leaf of the result: ("graph", k), ("argument", k) or ("constant", value)."""
    out_spec: optree.PyTreeSpec

    def __call__(self, leaves: Sequence[Any], tensors: Sequence[Tensor]) -> PyTree:
        results = self.run(*(tensors[k] for k in self.used))
        where = {"graph": results, "argument": leaves}
        return tree_unflatten(
            self.out_spec,
            [value if kind == "constant" else where[kind][value] for kind, value in self.outputs],
        )


class Jitted:
    """A function compiled at first call; made by :func:`jit`."""

    def __init__(
        self,
        fn: Callable[..., Any],
        static_argnums: int | Sequence[int] = (),
        static_argnames: str | Sequence[str] = (),
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self._static_nums = (
            {static_argnums} if isinstance(static_argnums, int) else set(static_argnums)
        )
        self._static_names = (
            {static_argnames} if isinstance(static_argnames, str) else set(static_argnames)
        )
        self._programs: dict[Any, _Program] = {}

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if jit_disabled() or inside_transform():
            return self.fn(*args, **kwargs)
        static_args = {i: a for i, a in enumerate(args) if i in self._static_nums}
        static_kwargs = {k: v for k, v in kwargs.items() if k in self._static_names}
        dynamic = (
            tuple(None if i in static_args else a for i, a in enumerate(args)),
            {k: v for k, v in kwargs.items() if k not in static_kwargs},
        )
        leaves, spec = tree_flatten(dynamic)
        tensors = self._tensors(leaves, dynamic)
        key = (
            spec,
            tuple(static_args.items()),
            tuple(sorted(static_kwargs.items())),
            tuple((t.shape, t.dtype, t.device) for t in tensors),
            x64_enabled(),
            partitionable(),
        )
        program = self._programs.get(key)
        if program is None:
            program = self._compile(spec, static_args, static_kwargs, tensors)
            self._programs[key] = program
        return program(leaves, tensors)

    def cache_size(self) -> int:
        """How many graphs have been compiled: one a structure, shape and static value."""
        return len(self._programs)

    def clear_cache(self) -> None:
        """Forget the compiled graphs."""
        self._programs.clear()

    def _tensors(self, leaves: list[Any], dynamic: PyTree) -> list[Tensor]:
        device = next((x.device for x in leaves if isinstance(x, Tensor)), None)
        tensors: list[Tensor] = []
        seen: set[int] = set()
        for i, leaf in enumerate(leaves):
            tensor = leaf if isinstance(leaf, Tensor) else _leaf_tensor(leaf, device, i)
            if tensor is None:
                raise TypeError(
                    f"jit({_name(self.fn)}): argument leaf {tree_paths(dynamic)[i]!r} is a "
                    f"{type(leaf).__name__}; leaves must be tensors, arrays or numbers, "
                    "and anything else named in static_argnums or static_argnames."
                )
            # torch.compile makes another program for other strides, and for a tensor that is
            # passed twice; JAX knows neither, so neither reaches it
            if not tensor.is_contiguous():
                tensor = tensor.contiguous()
            if id(tensor) in seen:
                tensor = tensor.clone()
            seen.add(id(tensor))
            tensors.append(tensor)
        return tensors

    def _compile(
        self,
        spec: optree.PyTreeSpec,
        static_args: dict[int, Any],
        static_kwargs: dict[str, Any],
        tensors: list[Tensor],
    ) -> _Program:
        outputs: list[tuple[str, Any]] = []
        out_spec: list[optree.PyTreeSpec] = []

        def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
            args, kwargs = tree_unflatten(spec, inputs)
            args = tuple(static_args.get(i, a) for i, a in enumerate(args))
            result_leaves, result_spec = tree_flatten(self.fn(*args, **kwargs, **static_kwargs))
            position = {id(x): k for k, x in enumerate(inputs)}
            results: list[Tensor] = []
            outputs.clear()
            out_spec[:] = [result_spec]
            for leaf in result_leaves:
                if id(leaf) in position:  # handed back untouched, Python numbers as such
                    outputs.append(("argument", position[id(leaf)]))
                elif isinstance(leaf, Tensor):
                    outputs.append(("graph", len(results)))
                    results.append(leaf.contiguous())
                else:
                    outputs.append(("constant", leaf))
            return tuple(results)

        graph = _trace(flat, [torch.empty_like(t) for t in tensors])
        placeholders = [n for n in graph.graph.nodes if n.op == "placeholder"]
        used = tuple(k for k, node in enumerate(placeholders) if node.users)
        for node in placeholders:
            if not node.users:
                graph.graph.erase_node(node)
        graph.recompile()
        problem = compiler_problem(tensors[0].device if tensors else torch.device("cpu"))
        run: Callable[..., Any] = graph
        if problem is None:
            logger.info("compiling %s: %d operations", _name(self.fn), len(graph.graph.nodes))
            run = torch.compile(graph, fullgraph=True, dynamic=False)
        else:
            warnings.warn(f"jit: {problem} Running eagerly.", RuntimeWarning, stacklevel=4)
        return _Program(run, used, tuple(outputs), out_spec[0])


def jit(
    fn: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
) -> Any:
    """Compile a function of pytrees (``jax.jit``), as a decorator or by call.

    Tensors, arrays and numbers in the arguments are inputs of the graph, so that another
    value needs no new compilation; shapes, dtypes, static fields of learners and the
    named static arguments are part of the program. A leaf that is handed back untouched
    comes back as the very same object. Without a C++ compiler it says so once and runs
    the traced graph eagerly.

    Raises:
        TypeError: an argument leaf is neither tensor, array nor number.

    >>> import torch
    >>> double = jit(lambda tree: tree_map(lambda x: 2 * x, tree))
    >>> with disable_jit():  # compiling takes seconds; the values are the same
    ...     double({"a": torch.ones(2)})["a"].tolist()
    [2.0, 2.0]
    """
    if fn is None:
        return functools.partial(
            jit, static_argnums=static_argnums, static_argnames=static_argnames
        )
    return Jitted(fn, static_argnums, static_argnames)


@functools.cache
def compiler_problem(device: torch.device) -> str | None:
    """One sentence on why ``torch.compile`` can't work for the device, or None if it can.

    >>> compiler_problem(torch.device("meta"))
    "torch.compile has no compiler for the device 'meta'."
    """
    if device.type == "cuda":
        return None
    if device.type != "cpu":
        return f"torch.compile has no compiler for the device '{device}'."
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return (
            "torch.compile found no C++ compiler: install g++ or clang++ "
            "(or name one in the environment variable CXX)."
        )
    return None


def _trace(fn: Callable[..., Any], tensors: Sequence[Tensor]) -> torch.fx.GraphModule:
    token = _TRACING.set(True)
    try:
        graph = make_fx(fn, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    finally:
        _TRACING.reset(token)
    graph.graph.eliminate_dead_code()
    return graph


def inside_transform() -> bool:
    """Whether the code runs under another transform, where no tensor has a value to read.

    >>> inside_transform()
    False
    """
    return (
        _TRACING.get()
        or torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined]
        or torch.compiler.is_compiling()
    )


def _leaf_tensor(leaf: Any, device: torch.device | None, slot: int) -> Tensor | None:
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
    the diffusion steps; outside, ``fn`` is called step by step, and a jitted ``fn`` is
    compiled once.

    Raises:
        ValueError: no length is known, or the leaves of ``xs`` differ in theirs.

    >>> import torch
    >>> total, partial = scan(lambda c, x: (c + x, c + x), torch.tensor(0), torch.arange(4))
    >>> total.item(), partial.tolist()
    (6, [0, 1, 3, 6])
    """
    leaves, spec = tree_flatten(xs)
    lengths = {leaf.shape[0] for leaf in leaves} | ({length} if length is not None else set())
    if len(lengths) != 1:
        raise ValueError(f"scan: xs and length must agree on one number of steps, got {lengths}.")
    carry, outputs = init, []
    for i in range(lengths.pop()):
        carry, y = fn(carry, tree_unflatten(spec, [leaf[i] for leaf in leaves]))
        outputs.append(y)
    if not outputs:
        return carry, None
    return carry, tree_stack(outputs)
