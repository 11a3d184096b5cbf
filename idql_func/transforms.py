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

from idql_func.boundary import describe, explain_module, explained
from idql_func.compiler.dynamo import opaque_to_torch
from idql_func.compiler.inductor import compiler_problem
from idql_func.compiler.jit import Jitted, name_of
from idql_func.compiler.refused_writes import without_writes
from idql_func.compiler.torch_internals import (
    functorch_levels,
    is_mapped,
    protected_copy,
)
from idql_func.compiler.trace import inside_transform, runs_eagerly
from idql_func.compiler.traced_values import TracedValues, is_read_of_values
from idql_func.files.torch_cache import ensure_dynamo
from idql_func.shapes import ShapeDtypeStruct, eval_shape
from idql_func.slices import (
    dynamic_index_in_dim,
    dynamic_slice,
    dynamic_slice_in_dim,
    dynamic_update_slice,
    dynamic_update_slice_in_dim,
    logsumexp,
    stop_gradient,
)
from idql_func.switches import disable_jit, enable_x64, float_dtype
from idql_func.tree import (
    NAMESPACE,
    NUMPY,
    array_tensor,
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
    "ShapeDtypeStruct",
    "compiler_problem",
    "disable_jit",
    "dynamic_index_in_dim",
    "dynamic_slice",
    "dynamic_slice_in_dim",
    "dynamic_update_slice",
    "dynamic_update_slice_in_dim",
    "enable_x64",
    "eval_shape",
    "grad",
    "inside_transform",
    "jit",
    "logsumexp",
    "scan",
    "stop_gradient",
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
    donate_argnames: str | Sequence[str] = (),
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
            hashable; one of another type, such as 1.0 for 1, gives another program.
        static_argnames: the same by name. Positions and names follow from each other.
        donate_argnums: positions of arguments whose memory the results may take, where shape and
            dtype fit, so that a training loop allocates nothing after its first step. The donated
            tensors then raise an error at any use. Views and NumPy arrays of them see the new
            values: copy what must be kept. The first call copies tensors that the caller made.
            Under :func:`disable_jit` nothing is donated.
        cuda_graphs: record the program on a GPU and replay it by one launch. No effect on a CPU.
        open_argnames: keywords, such as a dataset, whose tensors may have another length along
            the first axis in another process, which then finds the compiled code in torch's cache.
        donate_argnames: arguments to donate, by name.

    Raises:
        TypeError: if an argument leaf is neither a tensor, an array nor a number.
        RuntimeError: if an argument was donated to an earlier call.
        ValueError: if an argument is both static and donated, there is no such argument, or a
            static one can't be hashed.

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
        donate_argnames=donate_argnames,
    )
    return make if fn is None else make(fn)


# --- vmap ---------------------------------------------------------------------------


def vmap(
    fn: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: Any = 0,
    chunk_size: int | None = None,
    *,
    axis_size: int | None = None,
) -> Callable[..., Any]:
    """Map a function over an axis of its arguments' leaves (``jax.vmap``).

    Args:
        fn: the function; its arguments and its result are pytrees.
        in_axes: an axis, None (not mapped), or a pytree prefix of them for the positional
            arguments. Keyword arguments are mapped over their first axis. Python numbers are not
            mapped, whatever their axis.
        out_axes: the same for the result. A leaf that does not depend on a mapped argument is
            repeated along its axis; with None it is returned once.
        chunk_size: the number of members that are computed together; all by default.
        axis_size: the number of members, which is needed where no argument is mapped.

    Raises:
        TypeError: if ``in_axes`` has another length than the arguments, or the function returns a
            leaf that is neither a tensor, an array nor a number.
        ValueError: if a mapped leaf has no such axis, sizes differ, nothing is mapped, or a leaf
            that ``out_axes`` calls not mapped differs between members.

    >>> import torch
    >>> rows = vmap(lambda p, x: p["w"] @ x, in_axes=(None, 0))
    >>> rows({"w": torch.eye(2)}, torch.ones(3, 2)).shape
    torch.Size([3, 2])
    """

    @functools.wraps(fn)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        name = f"vmap({name_of(fn)})"
        leaves, spec = tree_flatten((args, kwargs), none_is_leaf=True)
        leaves = [_converted(x) for x in leaves]
        axes = _in_axes(name, in_axes, args)
        axes += [0] * (len(leaves) - len(axes))
        axes = [a if isinstance(x, Tensor) else None for a, x in zip(axes, leaves, strict=True)]
        size = _mapped_size(name, (args, kwargs), leaves, axes, axis_size)
        places = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]
        out_spec: list[optree.PyTreeSpec] = []
        spread: list[int | None] = []
        once: list[Tensor] = []  # results that are not mapped
        can_check = functorch_levels() is not None

        def flat(_: Tensor, *tensors: Tensor) -> list[Tensor]:
            filled = list(leaves)
            for i, tensor in zip(places, tensors, strict=True):
                filled[i] = tensor
            inner, keywords = tree_unflatten(spec, filled)
            result = fn(*inner, **keywords)
            made, structure = tree_flatten(result)
            out_spec[:] = [structure]
            spread[:] = _prefix_axes(name, "out_axes", out_axes, result)
            tensors = tuple(_result_tensor(name, x, result, i) for i, x in enumerate(made))
            if not can_check:
                return [*tensors]
            once[:] = [x for x, axis in zip(tensors, spread, strict=True) if axis is None]
            if any(map(is_mapped, once)):
                raise ValueError(
                    f"{name}: out_axes is None for a leaf that differs between members; give it an "
                    "axis."
                )
            return [x for x, axis in zip(tensors, spread, strict=True) if axis is not None]

        in_dims = (0, *[axes[i] for i in places])

        def run() -> list[Tensor]:
            # one argument that is mapped always, and not used
            inputs = [torch.empty((size, 0)), *(leaves[i] for i in places)]
            return torch.func.vmap(flat, in_dims, 0, chunk_size=chunk_size)(*inputs)

        try:
            with without_writes(name, leaves):
                try:
                    stacked = run()
                except RuntimeError as error:
                    if not is_read_of_values(error) or torch.compiler.is_compiling():
                        raise
                    with TracedValues(name):  # the function reads values: as an index, or in vain
                        stacked = run()
        except RuntimeError as error:
            if "vmap: inplace" not in str(error) and "match the broadcast shape" not in str(error):
                raise
            raise TypeError(
                f"{name}: the function writes mapped values into one that is not mapped; write "
                "x = x + y instead of x += y."
            ) from None
        mapped_leaves = iter(stacked)
        shared = iter(once) if can_check else (rows[0] for rows in mapped_leaves)
        merged = [
            next(shared) if axis is None else _moved(name, next(mapped_leaves), axis)
            for axis in spread
        ]
        return tree_unflatten(out_spec[0], merged)

    return opaque_to_torch(explained(mapped, f"vmap({name_of(fn)})"))


def _converted(leaf: Any) -> Any:
    """A leaf as transforms take it: arrays and numbers of NumPy become tensors (JAX's dtypes).

    The function may write into it: the caller's memory does not change.
    """
    if isinstance(leaf, NUMPY):
        leaf = array_tensor(leaf)
    if isinstance(leaf, Tensor) and not inside_transform():
        return protected_copy(leaf)
    return leaf


def _copies(tree: PyTree) -> Any:
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, tree)


def _writes_into_argument(error: Exception) -> bool:
    """Whether torch refuses a function for writing into its arguments inside a transform."""
    text = str(error)
    return (
        "is being used in an in-place operation" in text  # a differentiated argument
        or "would mutate a captured Tensor" in text  # another argument of the function
    )


def _in_axes(name: str, in_axes: Any, args: tuple[Any, ...]) -> list[Any]:
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    if not (in_axes is None or isinstance(in_axes, int | tuple)) or isinstance(in_axes, bool):
        raise TypeError(
            f"{name}: in_axes must be an axis, None, or a tuple with an entry for each positional "
            f"argument, got {describe(in_axes)}."
        )
    if isinstance(in_axes, tuple) and len(in_axes) != len(args):
        raise ValueError(
            f"{name}: in_axes has {len(in_axes)} entries for {len(args)} positional arguments."
        )
    return _prefix_axes(name, "in_axes", in_axes, args, none_is_leaf=True)


def _prefix_axes(
    name: str, what: str, axes: Any, tree: PyTree, none_is_leaf: bool = False
) -> list[Any]:
    """One axis for each leaf of the tree, from an axis or a prefix tree of axes."""
    wrong = [x for x in tree_flatten(axes, none_is_leaf=True)[0] if not _is_axis(x)]
    if wrong:
        raise TypeError(f"{name}: {what} must hold axes and None, got {wrong[0]!r}.")
    spread: list[Any] = []

    def add(axis: Any, part: PyTree) -> None:
        spread.extend([axis] * len(tree_flatten(part, none_is_leaf=none_is_leaf)[0]))

    try:
        optree.tree_map_(add, axes, tree, none_is_leaf=True, namespace=NAMESPACE)
    except ValueError:
        raise ValueError(
            f"{name}: {what} {axes!r} does not fit the structure of its tree: give one axis, or a "
            "tree whose containers are those of the values."
        ) from None
    return spread


def _is_axis(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _mapped_size(
    name: str, args: Any, leaves: list[Any], axes: list[Any], axis_size: int | None
) -> int:
    """The number of members, after all checks of the mapped axes."""
    sizes: dict[int, int] = {}
    for i, (leaf, axis) in enumerate(zip(leaves, axes, strict=True)):
        if axis is None:
            continue
        if not -leaf.ndim <= axis < leaf.ndim:
            raise ValueError(
                f"{name}: leaf {_argument_path(args, i)!r} of shape {tuple(leaf.shape)} "
                f"has no axis {axis} to map over."
            )
        sizes[i] = leaf.shape[axis]
    if not sizes:
        if axis_size is None:
            raise ValueError(
                f"{name}: no argument leaf is mapped; give in_axes an axis, or give axis_size."
            )
        return axis_size
    first = next(iter(sizes))
    for i, size in sizes.items():
        if size != sizes[first]:
            raise ValueError(
                f"{name}: the mapped axes differ in size: {sizes[first]} for "
                f"{_argument_path(args, first)!r}, {size} for {_argument_path(args, i)!r}."
            )
    if axis_size not in (None, sizes[first]):
        raise ValueError(
            f"{name}: axis_size is {axis_size}, but the mapped axes have size {sizes[first]}."
        )
    return sizes[first]


def _argument_path(args: Any, place: int) -> str:
    path = tree_paths(args, none_is_leaf=True)[place]
    return path.partition("/")[2]  # without the place of (args, kwargs)


def _result_tensor(name: str, leaf: Any, result: PyTree, place: int) -> Tensor:
    """A leaf of a function's result, at a place among the leaves, as a tensor."""
    if isinstance(leaf, Tensor):
        return leaf
    tensor = array_tensor(leaf)
    if tensor is None:
        raise TypeError(
            f"{name}: the function returns {tree_paths(result)[place]!r} as a "
            f"{type(leaf).__name__}; the leaves of a result must be tensors, arrays or numbers."
        )
    return tensor


def _moved(name: str, stacked: Tensor, axis: int) -> Tensor:
    """Put the first axis at ``axis``."""
    if axis == 0:
        return stacked
    if not -stacked.ndim <= axis < stacked.ndim:
        raise ValueError(
            f"{name}: out_axes is {axis} for a leaf that has {stacked.ndim} axes with the mapped "
            "one."
        )
    return stacked.movedim(0, axis)


# --- grad ---------------------------------------------------------------------------


def value_and_grad(
    fn: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The value of a scalar function and its gradient (``jax.value_and_grad``).

    With ``has_aux`` the function returns ``(loss, aux)`` and the result is
    ``((loss, aux), gradient)``; ``aux`` is any pytree. The gradient has the tree of the argument;
    for several ``argnums`` it is a tuple of such trees. Positions may be negative.

    Raises:
        TypeError: if a differentiated leaf is not a floating tensor, array or number, the function
            does not return a floating scalar, or no pair with ``has_aux``.
        ValueError: if there is no such argument.

    >>> import torch
    >>> value_and_grad(lambda p: (p["w"] ** 2).sum())({"w": torch.tensor([3.0])})
    (tensor(9.), {'w': tensor([6.])})
    """
    name = f"grad({name_of(fn)})"

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        places = _argument_places(name, argnums, len(args))
        args, kwargs = tree_map(_converted, (args, kwargs))
        chosen = tuple(args[i] for i in places)
        leaves, spec = tree_flatten(chosen)
        tensors = tuple(_differentiable(name, leaf) for leaf in leaves)
        aux_parts: list[Any] = []

        def flat(
            inputs: tuple[Tensor, ...], writable: bool = False
        ) -> tuple[Tensor, tuple[Tensor, ...]]:
            filled = list(args)
            for i, value in zip(places, tree_unflatten(spec, inputs), strict=True):
                filled[i] = value
            keywords = kwargs
            if writable:
                filled, keywords = _copies((filled, kwargs))
            result = fn(*filled, **keywords)
            aux: PyTree = ()
            if has_aux:
                if not isinstance(result, tuple | list) or len(result) != 2:
                    raise TypeError(
                        f"{name}: with has_aux the function must return a pair (loss, aux), got a "
                        f"{type(result).__name__}."
                    )
                result, aux = result
            made, structure = tree_flatten(aux)
            aux_parts[:] = [made, structure]
            return _scalar_loss(name, result), tuple(x for x in made if isinstance(x, Tensor))

        if tensors:
            ensure_dynamo()
            run = functools.partial(torch.func.grad_and_value, has_aux=True)
            try:
                with without_writes(name, args, kwargs):
                    grads, (loss, kept) = run(flat)(tensors)
            except RuntimeError as error:
                if not _writes_into_argument(error):
                    raise
                # it gets copies, as torch can't differentiate a write into an argument
                grads, (loss, kept) = run(functools.partial(flat, writable=True))(tensors)
        else:
            grads, (loss, kept) = (), flat(())
        grads = tree_unflatten(spec, grads)
        value = loss
        if has_aux:
            made, structure = aux_parts
            tensors_of_aux = iter(kept)
            parts = [next(tensors_of_aux) if isinstance(x, Tensor) else x for x in made]
            value = (loss, tree_unflatten(structure, parts))
        return value, grads[0] if isinstance(argnums, int) else grads

    return opaque_to_torch(explained(wrapped, name))


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

    return opaque_to_torch(wrapped)


def _argument_places(name: str, argnums: Any, count: int) -> tuple[int, ...]:
    listed = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for i in listed:
        if not isinstance(i, int) or isinstance(i, bool):
            raise TypeError(f"{name}: argnums must hold integers, got {i!r}.")
        if not -count <= i < count:
            raise ValueError(
                f"{name}: argnums is {i}, but the function was called with {count} positional "
                "arguments."
            )
    return tuple(i % count for i in listed)


def _differentiable(name: str, leaf: Any) -> Tensor:
    if isinstance(leaf, float):
        leaf = torch.tensor(leaf, dtype=float_dtype())
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
        kind = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
        raise TypeError(
            f"{name}: a differentiated leaf is {kind}; it must be a floating tensor, array or "
            "number."
        )
    return leaf


def _scalar_loss(name: str, loss: Any) -> Tensor:
    tensor = loss if isinstance(loss, Tensor) else array_tensor(loss)
    if tensor is None or tensor.ndim or not tensor.is_floating_point():
        kind = type(loss).__name__
        if tensor is not None:
            kind = f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
        raise TypeError(
            f"{name}: the function must return a floating scalar, got {kind}; reduce it with "
            ".sum() or .mean(), or return (loss, aux) with has_aux=True."
        )
    return tensor


# --- scan ---------------------------------------------------------------------------


def scan(
    fn: Callable[[Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
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

    Args:
        fn: the step.
        init: the first carry; each carry has its structure, shapes and dtypes.
        xs: the inputs, ``[length, ...]`` each; None if the steps have none.
        length: the number of steps, which is needed without ``xs``.
        reverse: run from the last row to the first; ``y`` stands at the place of its ``x``.
        unroll: accepted for JAX's sake: all steps are unrolled where a loop is traced.

    Raises:
        ValueError: if no length is known, or the leaves of ``xs`` differ in length.
        TypeError: if a step returns no pair, or changes the structure, a shape or a dtype of its
            carry; or if a leaf of ``xs`` has no axis.

    >>> import torch
    >>> total, partial = scan(lambda c, x: (c + x, c + x), torch.tensor(0), torch.arange(4))
    >>> total.item(), partial.tolist()
    (6, [0, 1, 3, 6])
    """
    name = f"scan({name_of(fn)})"
    step, constants = fn, {}
    if isinstance(fn, functools.partial) and not fn.args:
        step, constants = fn.func, fn.keywords
    program = step if isinstance(step, Jitted) and not runs_eagerly() else None
    leaves, spec = tree_flatten(xs)
    leaves: list[Any] = [array_tensor(x) if isinstance(x, NUMPY) else x for x in leaves]
    if program is None:
        init, leaves = tree_map(_converted, init), [_converted(x) for x in leaves]
    steps = _number_of_steps(name, leaves, length)
    if reverse:
        leaves = [leaf.flip(0) for leaf in leaves]
    if steps and program is not None:
        rows = [leaf.contiguous() for leaf in leaves]
        carry, stacked = program.scan(init, rows, spec, steps, constants)
    else:
        if program is not None:  # nothing is donated without steps
            fn = functools.partial(program.fn, **constants)
        carry, outputs = init, []
        # without steps, one on zeros gives the structure and the shapes of the outputs
        rows = leaves if steps else [leaf.new_zeros((1, *leaf.shape[1:])) for leaf in leaves]
        for i in range(max(steps, 1)):
            with without_writes(name, carry, leaves):
                pair = fn(carry, tree_unflatten(spec, [leaf[i] for leaf in rows]))
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise TypeError(f"{name}: a step must return a pair (carry, output).")
            _check_carry(name, carry, pair[0])
            outputs.append(pair[1])
            carry = pair[0] if steps else carry
        stacked = tree_stack(outputs)
        if not steps:
            stacked = tree_map(lambda leaf: leaf[:0], stacked)
    return carry, tree_map(lambda leaf: leaf.flip(0), stacked) if reverse else stacked


def _number_of_steps(name: str, leaves: list[Any], length: int | None) -> int:
    if length is not None and (not isinstance(length, int) or length < 0):
        raise ValueError(f"{name}: length must be a number of steps, got {length!r}.")
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0:
            kind = "a tensor without axes" if isinstance(leaf, Tensor) else type(leaf).__name__
            raise TypeError(f"{name}: xs holds {kind}, which has no axis to go along.")
    lengths = {leaf.shape[0] for leaf in leaves} | ({length} if length is not None else set())
    if len(lengths) != 1:
        found = ", ".join(map(str, sorted(lengths))) or "none"
        raise ValueError(f"{name}: xs and length must agree on one number of steps, got {found}.")
    return lengths.pop()


def _check_carry(name: str, before: PyTree, after: PyTree) -> None:
    """Raise if a step changes its carry; a Python number may become a tensor of any dtype."""
    old, structure = tree_flatten(before)
    new, other = tree_flatten(after)
    if structure != other:
        raise TypeError(
            f"{name}: the step returns a carry of another structure than it takes: "
            f"{other}, not {structure}."
        )
    for i, (was, becomes) in enumerate(zip(old, new, strict=True)):
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else () for x in (was, becomes)]
        dtypes = [x.dtype if isinstance(x, Tensor) else None for x in (was, becomes)]
        if shapes[0] != shapes[1] or (dtypes[0] != dtypes[1] and None not in dtypes):
            raise TypeError(
                f"{name}: the step makes {tree_paths(before)[i]!r} {dtypes[1]} of shape "
                f"{shapes[1]} from {dtypes[0]} of shape {shapes[0]}."
            )


explain_module(__name__)
