"""JAX's function transforms over pytrees: jit, vmap, grad, value_and_grad, scan.

They nest freely. ``jit`` traces a function once for each structure, shape and static
value of its arguments, as JAX does, into one graph of tensor operations, and compiles
that graph; inside another transform it calls the function directly. What happens behind
``jit`` is in ``compiler/``, whose README is the guide.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import optree
import torch
from torch import Tensor

from idql_func.compiler.inductor import compiler_problem
from idql_func.compiler.jit import Jitted, name_of
from idql_func.compiler.trace import inside_transform, runs_eagerly
from idql_func.switches import disable_jit, enable_x64, float_dtype
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
    "inside_transform",
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

# --- jit ----------------------------------------------------------------------------


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

    The first call traces the function and compiles the graph, which takes seconds; later
    calls run the program. Tensors, arrays and numbers in the arguments are inputs of the
    program, so a new value needs no new compilation. A new structure, shape, dtype, static
    field or static argument does. An argument leaf that the function returns unchanged
    comes back as the same object. Without a C++ compiler the traced graph runs eagerly,
    with one warning.

    Args:
        fn: the function; its arguments and its result are pytrees.
        static_argnums: positions of arguments that are part of the program. Their values must be
            hashable.
        static_argnames: the same for keywords.
        donate_argnums: positions of arguments whose memory the results may take, where shape and
            dtype fit, so that a training loop allocates nothing after its first step. The donated
            tensors then raise an error at any use. Views and NumPy arrays of them see the new
            values: copy what must be kept. The first call copies tensors that the caller made.
            Under :func:`disable_jit` nothing is donated.
        cuda_graphs: record the program on a GPU and replay it by one launch. No effect on a CPU.
        open_argnames: keywords, such as a dataset, whose tensors may have another length along
            the first axis in another process, which then finds the compiled code in torch's cache.

    Raises:
        TypeError: if an argument leaf is neither a tensor, an array nor a number.
        RuntimeError: if an argument was donated to an earlier call.
        ValueError: if an argument is both static and donated.

    >>> import torch
    >>> double = jit(lambda tree: tree_map(lambda x: 2 * x, tree))
    >>> with disable_jit():  # compiling takes seconds; the values are the same
    ...     double({"a": torch.ones(2)})["a"].tolist()
    [2.0, 2.0]
    """
    make = functools.partial(
        Jitted,
        static_argnums=static_argnums,
        static_argnames=static_argnames,
        donate_argnums=donate_argnums,
        cuda_graphs=cuda_graphs,
        open_argnames=open_argnames,
    )
    return make if fn is None else make(fn)


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
        ValueError: if a mapped leaf has no such axis, sizes differ, or nothing is mapped.

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
            # the axes need the result's structure, which one unmapped call gives
            flat_axes = _out_axes(fn, spec, leaves, axes, out_axes)
        in_dims = tuple(axes[i] for i in mapped_positions)
        run = torch.func.vmap(flat, in_dims, flat_axes, chunk_size=chunk_size)
        results = iter(run(*(leaves[i] for i in mapped_positions)))
        merged = [
            constants[i] if i in constants else next(results) for i in range(out_spec[0].num_leaves)
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
        raise ValueError(f"vmap: {what} is not a prefix of its tree: {error}") from None


def _out_axes(
    fn: Callable[..., Any], spec: Any, leaves: list[Any], axes: list[Any], out_axes: Any
) -> tuple[Any, ...]:
    singles = [
        x if a is None or not isinstance(x, Tensor) else x.select(a, 0)
        for x, a in zip(leaves, axes, strict=True)
    ]
    result = fn(*tree_unflatten(spec, singles))
    spread = _prefix_axes(out_axes, result, "out_axes")
    made, _ = tree_flatten(result, none_is_leaf=True)
    return tuple(a for a, x in zip(spread, made, strict=True) if isinstance(x, Tensor))


def _check_axes(fn: Callable[..., Any], args: Any, leaves: list[Any], axes: list[Any]) -> None:
    sizes: dict[int, int] = {}
    for i, (leaf, axis) in enumerate(zip(leaves, axes, strict=True)):
        if axis is None:
            continue
        if not -leaf.ndim <= axis < leaf.ndim:
            path = tree_paths(args, none_is_leaf=True)[i]
            raise ValueError(
                f"vmap({name_of(fn)}): leaf {path!r} of shape {tuple(leaf.shape)} "
                f"has no axis {axis} to map over."
            )
        sizes[i] = leaf.shape[axis]
    if not sizes:
        raise ValueError(f"vmap({name_of(fn)}): no argument leaf is mapped; give in_axes an axis.")
    first = next(iter(sizes))
    for i, size in sizes.items():
        if size != sizes[first]:
            paths = tree_paths(args, none_is_leaf=True)
            raise ValueError(
                f"vmap({name_of(fn)}): the mapped axes differ in size: {sizes[first]} for "
                f"{paths[first]!r}, {size} for {paths[i]!r}."
            )


# --- grad ---------------------------------------------------------------------------


def value_and_grad(
    fn: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The value of a scalar function and its gradient (``jax.value_and_grad``).

    With ``has_aux`` the function returns ``(loss, aux)`` and the result is
    ``((loss, aux), gradient)``. The gradient has the tree of the argument; for several
    ``argnums`` it is a tuple of such trees.

    Raises:
        TypeError: if a differentiated leaf is not a floating tensor or number.

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
            f"grad({name_of(fn)}): a differentiated leaf is {kind}; it must be a floating tensor."
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
    once, and its program runs on flat tensors: trees are flattened before the first step and
    unflattened after the last, and no step waits for the device. With
    ``jit(fn, donate_argnums=0)`` the state keeps its memory, and on a CPU one C call runs all
    steps but the first if the program can be replayed. Pass values that all steps read as
    keywords: ``scan(functools.partial(jitted, data=data), ...)``.

    Raises:
        ValueError: if no length is known, or the leaves of ``xs`` differ in length.
        TypeError: if a jitted step changes the structure, a shape or a dtype of its carry.

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
    if steps and isinstance(step, Jitted) and not runs_eagerly():
        rows = [as_tensor(leaf).contiguous() for leaf in leaves]
        return step.scan(init, rows, spec, steps, constants)
    carry, outputs = init, []
    for i in range(steps):
        carry, y = fn(carry, tree_unflatten(spec, [leaf[i] for leaf in leaves]))
        outputs.append(y)
    return carry, tree_stack(outputs) if outputs else None
