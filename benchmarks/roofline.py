"""Measure the machine's limits (matrix products, memory copies) and count operations.

The share of the limit compares a rate with a limit measured at the same time: the matrix product is
one more variant, whose blocks alternate with those of the workload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import Budget, Variant, interleave, spread
from idql_func import tree_flatten, tree_leaves, tree_unflatten
from idql_func.compiler.trace import trace

__all__ = [
    "LIMIT",
    "SHAPES",
    "Limits",
    "Shape",
    "copy_variant",
    "count_flops",
    "matmul_variant",
    "measure_limits",
    "wait_torch",
]

LIMIT = "matmul limit"
Shape = tuple[int, int, int]
"""Rows, inner, columns."""

SHAPES: tuple[Shape, ...] = (
    (512, 256, 1024),
    (512, 1024, 256),
    (256, 512, 1024),
    (2048, 2048, 2048),
)
"""Products in an update of 512 rows, forward and backward, and a large square one."""

_COPIED = 1 << 26  # bytes read and bytes written: more than any cache holds
_ROTATING = 6
_MAX_REPEATS = 100


@dataclass(frozen=True)
class Limits:
    """The machine's limits, in the run's mode of matrix products."""

    shape: Shape
    """The fastest product."""
    matmul_gflops: float
    copy_gb_s: float
    by_shape: dict[str, float]


def wait_torch(result: Any) -> None:
    """Wait until a GPU has computed the result."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def matmul_variant(shape: Shape, device: str = "cpu", name: str = LIMIT) -> Variant:
    """A float32 product with rotating operands; its unit is one floating-point operation."""
    rows, inner, columns = shape
    # a call that is long enough to make the overhead negligible
    repeats = min(_MAX_REPEATS, max(1, round(2e8 / (rows * inner * columns))))

    def make() -> Callable[[int], Tensor]:
        left = [torch.randn(rows, inner, device=device) for _ in range(_ROTATING)]
        right = [torch.randn(inner, columns, device=device) for _ in range(_ROTATING)]
        out = torch.empty(rows, columns, device=device)

        def step(i: int) -> Tensor:
            for k in range(i, i + repeats):
                torch.mm(left[k % _ROTATING], right[k % _ROTATING], out=out)
            return out

        return step

    return Variant(name, make, wait_torch, units=2.0 * rows * inner * columns * repeats)


def copy_variant(device: str = "cpu", size: int = _COPIED) -> Variant:
    """A copy of memory; its unit is one byte read or written."""

    def make() -> Callable[[int], Tensor]:
        source = torch.zeros(size // 4, device=device)
        target = torch.empty_like(source)
        return lambda i: target.copy_(source)

    return Variant("copy", make, wait_torch, units=2.0 * size)


def measure_limits(
    device: str = "cpu",
    shapes: Sequence[Shape] = SHAPES,
    budget: Budget = Budget(rounds=7, block_seconds=0.1),  # noqa: B008 (frozen)
) -> Limits:
    """Measure every shape and the copy in alternating blocks, and choose the fastest product.

    >>> tiny = Budget(rounds=1, block_seconds=1e-3)
    >>> limits = measure_limits(shapes=((8, 8, 8), (16, 8, 8)), budget=tiny)
    >>> limits.matmul_gflops == max(limits.by_shape.values())
    True
    """
    products = [matmul_variant(shape, device, "x".join(map(str, shape))) for shape in shapes]
    *timed, copied = interleave([*products, copy_variant(device)], budget)
    rates = [spread(one.rates).median / 1e9 for one in timed]
    best = max(range(len(rates)), key=rates.__getitem__)
    return Limits(
        shape=shapes[best],
        matmul_gflops=rates[best],
        copy_gb_s=spread(copied.rates).median / 1e9,
        by_shape={one.name: rate for one, rate in zip(timed, rates, strict=True)},
    )


def count_flops(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    """Operations of a function's matrix products and convolutions; a multiply-add counts as two.

    The graph that would be compiled is counted: equal computations on equal values count once, and
    ``vmap`` and ``grad`` are expanded.

    >>> count_flops(lambda a, b: a @ b + a @ b, torch.ones(2, 3), torch.ones(3, 4))
    48.0
    """
    leaves, spec = tree_flatten((args, kwargs))
    places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        positional, keywords = tree_unflatten(spec, filled)
        found = tree_leaves(fn(*positional, **keywords))
        return tuple(leaf for leaf in found if isinstance(leaf, Tensor))

    tensors = [leaves[k] for k in places]
    graph = trace(flat, tensors)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    with FlopCounterMode(display=False) as counter:
        graph(*tensors)
    return float(counter.get_total_flops())


def dense_flops(rows: int, sizes: Iterable[tuple[int, int]], passes: int = 1) -> float:
    """Operations of dense layers ``(in, out)`` on ``rows`` rows; a gradient takes three passes.

    >>> dense_flops(2, [(3, 4)])
    48.0
    """
    return 2.0 * rows * passes * sum(i * o for i, o in sizes)
