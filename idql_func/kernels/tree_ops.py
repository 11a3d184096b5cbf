"""One pass over memory for a whole tree: Adam's step, the average of a target, a choice of members.

In tensor operations Adam is some fifteen nodes for each leaf of a network: each a pass over
memory in eager mode, and a share of the compile time in a graph. Here a tree is one node. The
operators take CPU tensors of one float dtype, where there is a C compiler; what they compute
is, operation by operation, what the tensor operations of ``optim.py`` compute one by one: the
same bits, but for torch's eager square root where a CPU's is not correctly rounded.

Each is pure, and two have a twin, with an underscore, that writes into its inputs:

===================  =============================================  ============================
operator             its inputs, and the ones the twin writes to    its outputs, in one list
===================  =============================================  ============================
``adam_step``        ``grads``, *params*, *mu*, *nu*, *count*       params, mu, nu, count
``moving_average``   ``new``, *old*                                 old
===================  =============================================  ============================

Output ``k`` of the pure form is what the twin leaves in the ``k``-th tensor of its written
inputs. A twin also takes the values ``run_after`` and does nothing with them: Inductor computes
what is lazy and reads the old values before it runs an operator that asks for it, and else
(torch 2.13) possibly after the operator has written over them. ``pass_inplace.py`` reads the table
off :data:`INPLACE_FORMS` and puts the twin into a graph.

Under ``vmap`` every tensor has the mapped axes first; counts, step sizes and taus have these
alone: each member has its own.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from idql_func.kernels.build import CFunction, library, operator


def supports(*trees: Sequence[Any]) -> bool:
    """Whether lists of leaves can go through the operators: of one float dtype, on the CPU.

    Every list must have the shapes of the first. Not where a derivative might be asked for, of
    which the operators have none, nor without a C compiler.

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
                and not differentiated(leaf)
            ):
                return False
    return _kernels() is not None


def differentiated(tensor: Tensor) -> bool:
    """Whether a derivative may be asked for: recorded by autograd, or inside a ``grad``.

    >>> differentiated(torch.zeros(2)), differentiated(torch.zeros(2, requires_grad=True))
    (False, True)
    """
    while (inner := torch.func.debug_unwrap(tensor, recurse=False)) is not tensor:
        if inner.ndim == tensor.ndim:  # wrapped by a derivative; vmap's wrapper hides an axis
            return True
        tensor = inner
    return tensor.requires_grad and torch.is_grad_enabled()


def _register(
    name: str, arguments: str, result: str, written: Sequence[str], pure: Any, in_place: Any,
    shapes: Any, rows: Any,
) -> None:  # fmt: skip
    """Make an operator and its twin of their functions: run, run in place, traced and mapped."""
    operator(f"{name}({arguments}) -> {result}", pure, fake=shapes, vmap=rows)
    for letter, argument in zip("abcd", written, strict=False):
        kind = "Tensor[]" if f"Tensor[] {argument}" in arguments else "Tensor"
        marked = kind.replace("Tensor", f"Tensor({letter}!)")
        arguments = arguments.replace(f"{kind} {argument}", f"{marked} {argument}")
    operator(
        f"{name}_({arguments}, *, Tensor[]? run_after=None) -> ()",
        in_place,
        fake=lambda *args, **kwargs: None,
    )


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
    """One step for leaves that :func:`supports`: the new parameters, moments and count.

    Args:
        count: steps taken so far, int32.
        step_size: what an update is multiplied with: minus the learning rate, a number or a
            scalar tensor of the leaves' dtype.
        numbers: b1, b2, eps and the weight decay.
        decayed: the leaves to which the weight decay applies.
        wide: take ``1 - b**count`` in double precision, as under ``enable_x64``.

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


def _adam_step(grads, params, mu, nu, count, sizes, size, *rates) -> list[Tensor]:
    out = [_empty(t) for t in (*params, *mu, *nu, count)]
    _run_adam(grads, params, mu, nu, count, out, sizes, size, *rates)
    return out


def _adam_step_in_place(grads, params, mu, nu, count, *rest, run_after=None) -> None:
    written = [*params, *mu, *nu, count]
    if all(map(Tensor.is_contiguous, written)):
        _run_adam(grads, params, mu, nu, count, written, *rest)
        return
    for old, new in zip(written, _adam_step(grads, params, mu, nu, count, *rest), strict=True):
        old.copy_(new)


def _adam_shapes(grads, params, mu, nu, count, *rest) -> list[Tensor]:
    return [_empty(t) for t in (*params, *mu, *nu, count)]


def _adam_rows(info, in_dims, grads, params, mu, nu, count, sizes, *rest):
    rows = functools.partial(_rows, info.batch_size)
    lists = [rows(*pair) for pair in zip((grads, params, mu, nu), in_dims, strict=False)]
    (count,) = rows([count], in_dims[4:5])
    if sizes is not None:
        (sizes,) = rows([sizes], in_dims[5:6])
    out = torch.ops.idql_func.adam_step(*lists, count, sizes, *rest)
    return out, [0] * len(out)


def _run_adam(
    grads, params, mu, nu, count, out, sizes, size, b1, b2, eps, weight_decay, decayed, wide
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
    kernels[f"adam_{_REALS[params[0].dtype]}"](
        tensors,
        leaf_sizes,
        decays,
        n,
        rows,
        count.data_ptr(),
        out[-1].data_ptr(),
        wide,
        0 if sizes is None else sizes.data_ptr(),
        numbers,
        torch.get_num_threads(),
    )


_register(
    "adam_step",
    "Tensor[] grads, Tensor[] params, Tensor[] mu, Tensor[] nu, Tensor count, Tensor? step_sizes, "
    "float step_size, float b1, float b2, float eps, float weight_decay, bool[] decayed, bool wide",
    "Tensor[]",
    ("params", "mu", "nu", "count"),
    _adam_step,
    _adam_step_in_place,
    _adam_shapes,
    _adam_rows,
)


# --- moving average -------------------------------------------------------------------


def moving_average(
    new: Sequence[Tensor], old: Sequence[Tensor], tau: float | Tensor
) -> list[Tensor]:
    """``tau * new + (1 - tau) * old`` for leaves that :func:`supports`.

    ``tau`` is a number or a scalar tensor of the leaves' dtype.

    >>> if supports([torch.zeros(2)]):  # there is a C compiler
    ...     assert moving_average([torch.ones(2)], [torch.zeros(2)], 0.25)[0].sum() == 0.5
    """
    taus, constant = (tau, 0.0) if isinstance(tau, Tensor) else (None, float(tau))
    return torch.ops.idql_func.moving_average(list(new), list(old), taus, constant)


def _moving_average(new, old, taus, tau) -> list[Tensor]:
    out = [_empty(t) for t in old]
    _run_average(new, old, out, taus, tau)
    return out


def _moving_average_in_place(new, old, taus, tau, *, run_after=None) -> None:
    if all(map(Tensor.is_contiguous, old)):
        _run_average(new, old, old, taus, tau)
        return
    for target, value in zip(old, _moving_average(new, old, taus, tau), strict=True):
        target.copy_(value)


def _average_shapes(new, old, taus, tau) -> list[Tensor]:
    return [_empty(t) for t in old]


def _average_rows(info, in_dims, new, old, taus, tau):
    rows = functools.partial(_rows, info.batch_size)
    new, old = rows(new, in_dims[0]), rows(old, in_dims[1])
    if taus is not None:
        (taus,) = rows([taus], in_dims[2:3])
    out = torch.ops.idql_func.moving_average(new, old, taus, tau)
    return out, [0] * len(out)


def _run_average(new, old, out, taus, tau) -> None:
    kernels = _kernels()
    assert kernels is not None
    new, old = _contiguous(new), _contiguous(old)
    if taus is not None:
        taus = taus.contiguous()
    rows = 1 if taus is None else taus.numel()
    tensors = _pointers((*new, *old, *out))
    leaf_sizes = _leaf_sizes(old, rows)
    kernels[f"average_{_REALS[old[0].dtype]}"](
        tensors,
        leaf_sizes,
        len(old),
        rows,
        0 if taus is None else taus.data_ptr(),
        _constants("d", (tau,)),
        torch.get_num_threads(),
    )


_register(
    "moving_average",
    "Tensor[] new, Tensor[] old, Tensor? taus, float tau",
    "Tensor[]",
    ("old",),
    _moving_average,
    _moving_average_in_place,
    _average_shapes,
    _average_rows,
)


# --- members --------------------------------------------------------------------------


def take_members(leaves: Sequence[Tensor], index: Tensor) -> list[Tensor]:
    """``leaf[index]`` for leaves that :func:`supports`, of which each has the members first.

    ``index`` is ``[K]``, integers in range, which nobody looks at here.

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
    kernels["take"](
        _pointers((*leaves, *out)),
        sizes,
        len(out),
        index.data_ptr(),
        index.numel(),
        torch.get_num_threads(),
    )
    return out


def _taken_shapes(leaves, index) -> list[Tensor]:
    return [leaf.new_empty((*index.shape, *leaf.shape[1:])) for leaf in leaves]


def _taken_rows(info, in_dims, leaves, index):
    """The members of all rows stand one after the other."""
    count = info.batch_size
    leaves = _rows(count, leaves, in_dims[0])
    (index,) = _rows(count, [index], in_dims[1:])
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


# --- all ------------------------------------------------------------------------------


def _empty(like: Tensor) -> Tensor:
    return like.new_empty(like.shape)


def _rows(count: int, tensors: Sequence[Tensor], dims: Sequence[int | None]) -> list[Tensor]:
    """Every tensor with the mapped axis first, in graphs without a node where it is there."""
    return [
        t.expand(count, *t.shape) if dim is None else t.movedim(dim, 0) if dim else t
        for t, dim in zip(tensors, dims, strict=True)
    ]


# A small learner's step is over in microseconds: what is done for each leaf shows.


def _contiguous(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    if all(map(Tensor.is_contiguous, tensors)):
        return tensors
    return [t.contiguous() for t in tensors]


def _pointers(tensors: Sequence[Tensor]) -> array[int]:
    return array("q", [*map(Tensor.data_ptr, tensors)])


def _leaf_sizes(leaves: Sequence[Tensor], rows: int) -> array[int]:
    """How many elements each leaf has in one of its rows."""
    sizes = [*map(Tensor.numel, leaves)]
    return array("q", sizes if rows == 1 else [size // rows for size in sizes])


@functools.lru_cache(maxsize=256)
def _constants(code: str, numbers: tuple[Any, ...]) -> array[Any]:
    """Numbers that a program has for good, where the kernels read them."""
    return array(code, numbers)


_REALS = {torch.float32: "float", torch.float64: "double"}


@functools.cache
def _kernels() -> dict[str, CFunction] | None:
    """The functions, or None where there is no C compiler."""
    built = library("tree_ops", openmp=True)
    if built is None:
        return None
    words = {"adam": "lccnnppnpcn", "average": "lcnnpcn"}
    names = {f"{form}_{real}": words[form] for form in words for real in _REALS.values()}
    names["take"] = "lcnpnn"
    return {name: CFunction(built, name, kinds) for name, kinds in names.items()}


# The arguments a twin writes to, in the order of the pure operator's outputs.
INPLACE_FORMS: dict[Any, tuple[Any, tuple[str, ...]]] = {
    torch.ops.idql_func.adam_step.default: (
        torch.ops.idql_func.adam_step_.default,
        ("params", "mu", "nu", "count"),
    ),
    torch.ops.idql_func.moving_average.default: (
        torch.ops.idql_func.moving_average_.default,
        ("old",),
    ),
}
