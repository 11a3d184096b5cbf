"""Operators on a whole tree in one pass over memory: Adam, moving average, choice of members.

As tensor operations, Adam is about fifteen graph nodes per leaf of a network, each a pass over
memory in eager mode and extra compile time in a graph. Here a whole tree is one node. The
operators take CPU tensors of one float dtype and need a C compiler. They do the same arithmetic
in the same order as the tensor operations of ``optim.py``, so the bits are equal, except where
torch's eager square root is not correctly rounded on a CPU.

Each operator is pure. ``adam_step`` and ``moving_average`` also have an in-place form, with an
underscore, that writes the outputs to the inputs of the same name. Its argument ``run_after`` lists
values that are not used but must be computed first: without it Inductor (torch 2.13) may compute a
value that reads an old input after the operator has overwritten that input.
``compiler/pass_inplace.py`` replaces operators in a graph by the forms in :data:`INPLACE_FORMS`.

Under ``vmap`` every tensor has the mapped axes first. Counts, step sizes and taus have only
these axes: each member of a batch has its own.
"""

from __future__ import annotations

import functools
import re
from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from idql_func.kernels.build import (
    CFunction,
    c_functions,
    differentiated,
    mapped_first,
    operator,
)


def supports(*trees: Sequence[Any]) -> bool:
    """Whether the operators accept these lists of leaves: CPU tensors of one float dtype.

    Every list must have the shapes of the first. False without a C compiler, and if a derivative
    may be requested, because the operators have none.

    >>> supports([torch.zeros(2)], [torch.zeros(3)]), supports([torch.zeros(2, dtype=torch.int32)])
    (False, False)
    """
    first = trees[0]
    if not first or not isinstance(first[0], Tensor):
        return False
    dtype = first[0].dtype
    if dtype not in (torch.float32, torch.float64):
        return False
    for tree in trees:
        for leaf, like in zip(tree, first, strict=True):
            if not (
                isinstance(leaf, Tensor)
                and leaf.device.type == "cpu"
                and leaf.dtype == dtype
                and leaf.shape == like.shape
            ):
                return False
    return available() and not differentiated(*chain.from_iterable(trees))


def _register(name: str, arguments: str, written: Sequence[str], run: Callable[..., None]) -> None:
    """Register an operator and its in-place form.

    Args:
        name: the name; that of the in-place form has an underscore at the end.
        arguments: the arguments in the language of torch's schemas.
        written: the names of those that the in-place form writes to.
        run: computes the outputs; called with the arguments and a list of tensors to write to,
            which are those of ``written`` or new ones.
    """
    names = [argument.split()[1] for argument in arguments.split(", ")]
    places = [names.index(argument) for argument in written]

    def inputs_to_write(args: Sequence[Any]) -> list[Tensor]:
        found: list[Tensor] = []
        for k in places:
            found += [args[k]] if isinstance(args[k], Tensor) else args[k]
        return found

    def shapes(*args: Any) -> list[Tensor]:
        return [x.new_empty(x.shape) for x in inputs_to_write(args)]

    def pure(*args: Any) -> list[Tensor]:
        out = shapes(*args)
        run(*args, out)
        return out

    def in_place(*args: Any, run_after: Any = None) -> None:
        old = inputs_to_write(args)
        if all(map(Tensor.is_contiguous, old)):
            run(*args, old)
            return
        for target, value in zip(old, pure(*args), strict=True):
            target.copy_(value)

    def rows(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[list[Tensor], list[int]]:
        out = overload(*[_rows(info.batch_size, *pair) for pair in zip(args, in_dims, strict=True)])
        return out, [0] * len(out)

    overload = operator(f"{name}({arguments}) -> Tensor[]", pure, fake=shapes, vmap=rows)
    marked = arguments
    for letter, argument in zip("abcd", written, strict=False):
        marked = re.sub(rf"Tensor(\S*) {argument}\b", rf"Tensor({letter}!)\1 {argument}", marked)
    schema = f"{name}_({marked}, *, Tensor[]? run_after=None) -> ()"
    form = operator(schema, in_place, fake=lambda *args, **kwargs: None)
    INPLACE_FORMS[overload] = form, tuple(written)


INPLACE_FORMS: dict[Any, tuple[Any, tuple[str, ...]]] = {}
"""For each pure operator its in-place form, and the arguments that the form writes to.

The arguments are in the order of the pure operator's outputs.
"""


# --- Adam -----------------------------------------------------------------------------


def adam_step(
    grads: Sequence[Tensor],
    params: Sequence[Tensor],
    mu: Sequence[Tensor],
    nu: Sequence[Tensor],
    count: Tensor,
    step_size: float | Tensor,
    numbers: tuple[float, float, float, float],
    *,
    decayed: Sequence[bool],
    wide: bool,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
    """Make one Adam step for leaves that :func:`supports` accepts.

    Args:
        count: steps taken so far, int32.
        step_size: minus the learning rate, a number or a scalar tensor of the leaves' dtype.
        numbers: b1, b2, eps and the weight decay.
        decayed: whether the weight decay applies, for each leaf.
        wide: compute ``1 - b**count`` in double precision, as under ``enable_x64``.

    Returns:
        The new parameters, first moments, second moments and count.

    >>> leaf = [torch.zeros(1)]
    >>> if supports(leaf):  # there is a C compiler
    ...     new, *_ = adam_step(
    ...         [torch.ones(1)], leaf, leaf, leaf, torch.tensor(0, dtype=torch.int32), -0.5,
    ...         (0.9, 0.99, 1e-8, 0.0), decayed=[False], wide=False)
    ...     assert abs(new[0].item() + 0.5) < 1e-6
    """
    sizes, size = (step_size, 0.0) if isinstance(step_size, Tensor) else (None, step_size)
    out = torch.ops.idql_func.adam_step(
        list(grads), list(params), list(mu), list(nu), count, sizes, size,
        *numbers, list(decayed), wide,
    )  # fmt: skip
    n = len(params)
    return out[:n], out[n : 2 * n], out[2 * n : 3 * n], out[3 * n]


def _run_adam(
    grads, params, mu, nu, count, sizes, size, b1, b2, eps, weight_decay, decayed, wide, out
) -> None:
    kernels = _kernels()
    assert kernels is not None
    n = len(params)
    read = _contiguous((*grads, *params, *mu, *nu))
    count = count.contiguous()
    if sizes is not None:
        sizes = sizes.contiguous()
    rows = count.numel()
    tensors = _pointers(read)
    tensors += tensors[n:] if out[0] is params[0] else _pointers(out[:-1])
    leaf_sizes = _leaf_sizes(params, rows)
    decays = _constants("B", tuple(decayed))
    numbers = _constants("d", (b1, b2, eps, weight_decay, size))
    counts = count.data_ptr(), out[-1].data_ptr()
    rates = 0 if sizes is None else sizes.data_ptr(), numbers
    call = kernels[f"adam_{_REALS[params[0].dtype]}"]
    call(tensors, leaf_sizes, decays, n, rows, *counts, wide, *rates, torch.get_num_threads())


_register(
    "adam_step",
    "Tensor[] grads, Tensor[] params, Tensor[] mu, Tensor[] nu, Tensor count, Tensor? step_sizes, "
    "float step_size, float b1, float b2, float eps, float weight_decay, bool[] decayed, bool wide",
    ("params", "mu", "nu", "count"),
    _run_adam,
)


# --- moving average -------------------------------------------------------------------


def moving_average(
    new: Sequence[Tensor], old: Sequence[Tensor], tau: float | Tensor
) -> list[Tensor]:
    """Compute ``tau * new + (1 - tau) * old`` for leaves that :func:`supports` accepts.

    ``tau`` is a number or a scalar tensor of the leaves' dtype.

    >>> if supports([torch.zeros(2)]):  # there is a C compiler
    ...     assert moving_average([torch.ones(2)], [torch.zeros(2)], 0.25)[0].sum() == 0.5
    """
    taus, constant = (tau, 0.0) if isinstance(tau, Tensor) else (None, float(tau))
    return torch.ops.idql_func.moving_average(list(new), list(old), taus, constant)


def _run_average(new, old, taus, tau, out) -> None:
    kernels = _kernels()
    assert kernels is not None
    new, old = _contiguous(new), _contiguous(old)
    if taus is not None:
        taus = taus.contiguous()
    rows = 1 if taus is None else taus.numel()
    tensors = _pointers((*new, *old, *out))
    leaf_sizes = _leaf_sizes(old, rows)
    rates = 0 if taus is None else taus.data_ptr(), _constants("d", (tau,))
    call = kernels[f"average_{_REALS[old[0].dtype]}"]
    call(tensors, leaf_sizes, len(old), rows, *rates, torch.get_num_threads())


_register(
    "moving_average",
    "Tensor[] new, Tensor[] old, Tensor? taus, float tau",
    ("old",),
    _run_average,
)


# --- members --------------------------------------------------------------------------


def take_members(leaves: Sequence[Tensor], index: Tensor) -> list[Tensor]:
    """Compute ``leaf[index]`` for leaves ``[members, ...]`` that :func:`supports` accepts.

    ``index`` is ``[K]``, integers in range; the range is not checked.

    >>> leaves = [torch.arange(6.0).reshape(3, 2)]
    >>> if supports(leaves):  # there is a C compiler
    ...     assert take_members(leaves, torch.tensor([2, 0]))[0].tolist() == [[4, 5], [0, 1]]
    """
    return torch.ops.idql_func.take_members(list(leaves), index.long())


def _take_members(leaves, index) -> list[Tensor]:
    kernels = _kernels()
    assert kernels is not None
    leaves, index = _contiguous(leaves), index.contiguous()
    out = _taken_shapes(leaves, index)
    sizes = _constants("q", tuple([leaf.nbytes // len(leaf) for leaf in leaves]))
    chosen = index.data_ptr(), index.numel()
    kernels["take"](_pointers((*leaves, *out)), sizes, len(out), *chosen, torch.get_num_threads())
    return out


def _taken_shapes(leaves, index) -> list[Tensor]:
    return [leaf.new_empty((*index.shape, *leaf.shape[1:])) for leaf in leaves]


def _taken_rows(info, in_dims, leaves, index):
    """Batching rule: concatenate the members of all rows and offset each row's index."""
    count = info.batch_size
    leaves, index = _rows(count, leaves, in_dims[0]), _rows(count, index, in_dims[1])
    members = leaves[0].shape[1]
    first = torch.arange(0, count * members, members, device=index.device)
    flat = [leaf.flatten(0, 1) for leaf in leaves]
    out = torch.ops.idql_func.take_members(flat, (index + first[:, None]).flatten())
    return [taken.unflatten(0, index.shape) for taken in out], [0] * len(out)


operator(
    "take_members(Tensor[] leaves, Tensor index) -> Tensor[]",
    _take_members,
    fake=_taken_shapes,
    vmap=_taken_rows,
)


# --- common ------------------------------------------------------------------------------


def _rows(count: int, argument: Any, dims: Any) -> Any:
    """Move the mapped axis of an argument's tensors to the front; other arguments stay."""
    if isinstance(argument, list | tuple):
        return [_rows(count, *pair) for pair in zip(argument, dims, strict=True)]
    return mapped_first(count, argument, dims) if isinstance(argument, Tensor) else argument


# The step of a small learner takes microseconds, so the Python time per leaf matters here.


def _contiguous(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    if all(map(Tensor.is_contiguous, tensors)):
        return tensors
    return [t.contiguous() for t in tensors]


def _pointers(tensors: Sequence[Tensor]) -> array[int]:
    return array("q", [*map(Tensor.data_ptr, tensors)])


def _leaf_sizes(leaves: Sequence[Tensor], rows: int) -> array[int]:
    """The number of elements of each leaf in one row."""
    sizes = [*map(Tensor.numel, leaves)]
    return array("q", sizes if rows == 1 else [size // rows for size in sizes])


@functools.lru_cache(maxsize=256)
def _constants(code: str, numbers: tuple[Any, ...]) -> array[Any]:
    """Numbers in memory that stays allocated, since recorded programs keep its address."""
    return array(code, numbers)


_REALS = {torch.float32: "float", torch.float64: "double"}


def available() -> bool:
    """Whether the C functions can be used.

    >>> available() in (True, False)
    True
    """
    return _kernels() is not None


@functools.cache
def _kernels() -> dict[str, CFunction] | None:
    """The functions of ``csrc/tree_ops.c``, or None without a C compiler."""
    signatures = {"adam": "lccnnppnpcn", "average": "lcnnpcn"}
    names = {f"{form}_{real}": signatures[form] for form in signatures for real in _REALS.values()}
    names["take"] = "lcnpnn"
    return c_functions("tree_ops", names)
