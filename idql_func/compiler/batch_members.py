"""Consecutive matrix products of a recorded graph, computed member by member.

The layers of ten critics are products of ten pairs of matrices each. If one product runs after the
other, the first of its ten results has left the caches before the next layer reads it. Member by
member, the input of each layer is still in the cache, and the threads synchronise once instead of
after each product. The rows of a single network's layers are treated as members in the same way.
No member may depend on another, and none may write memory that another one reads; both are checked
with the recorded addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from idql_func.compiler.recorder import Call, Operator, Place
from idql_func.kernels.matmul import functions_if_built

_POINTERS = 6
"""The first arguments of ``fused_matmul`` are pointers, the others numbers (``csrc/matmul.c``)."""


class _Access(NamedTuple):
    """The memory that each member of a product reads or writes, in bytes of a region."""

    region: int
    first: int
    size: int
    step: int
    """The distance from one member to the next; 0 if all members share the memory."""
    members: int
    written: bool

    @property
    def end(self) -> int:
        """The end of the last member's memory."""
        return self.first + (self.members - 1) * self.step + self.size

    def is_independent_of(self, other: _Access) -> bool:
        """Whether no two different members conflict: one writes memory that the other accesses."""
        if self.region != other.region or not (self.written or other.written):
            return True
        if self.end <= other.first or other.end <= self.first:
            return True
        step = self.step
        return (
            0 < step == other.step
            and self.first + self.size <= other.first + step
            and other.first + other.size <= self.first + step
        )


def batched_by_member(steps: Sequence[Call | Operator]) -> list[Call | Operator]:
    """Merge consecutive products whose members are independent into one step each."""
    merged: list[Call | Operator] = []
    run: list[tuple[Call, Call]] = []
    """Each product as it was recorded, and divided into members for the threads."""
    accesses: list[_Access] = []

    def close() -> None:
        merged.extend([_merge([m for _, m in run])] if len(run) > 1 else [call for call, _ in run])
        run.clear()
        accesses.clear()

    for step in steps:
        members = None if isinstance(step, Operator) else _members(step)
        if isinstance(step, Operator) or members is None:
            close()
            merged.append(step)
            continue
        new = list(_accesses(members))
        independent = all(a.is_independent_of(b) for a in new for b in accesses)
        if run and not (independent and _kind(members) == _kind(run[0][1])):
            close()
        run.append((step, members))
        accesses += new
    close()
    return merged


def _members(step: Call) -> Call | None:
    """Divide a product into members, equally many for each thread; None if that is impossible.

    The rows of a single product are divided into members that share the right factor.
    """
    library = functions_if_built()
    if library is None or step.address != library["fused_matmul"].address:
        return None
    pointers, (batch, m, n, k, *steps) = step.arguments[:_POINTERS], step.arguments[_POINTERS:]
    _, _, _, a_transposed, b_transposed, relu, threads = steps
    if batch > 1:
        return step if batch % threads == 0 else None
    sums = pointers[-1]
    if threads == 1 or m % threads or m < n or a_transposed or isinstance(sums, Place):
        return None
    rows = m // threads
    numbers = threads, rows, n, k, rows * k, 0, 0, a_transposed, b_transposed, relu, threads
    return Call(step.address, [*pointers, *numbers], step.checked)


def _kind(product: Call) -> tuple[int, int]:
    """The numbers of members and threads."""
    return product.arguments[_POINTERS], product.arguments[-1]


def _merge(run: Sequence[Call]) -> Call:
    library = functions_if_built()
    assert library is not None
    arguments = [x for product in run for x in product.arguments]
    return Call(library["fused_matmul_sequence"].address, [len(run), arguments], True)


def _accesses(product: Call) -> Iterator[_Access]:
    pointers, numbers = product.arguments[:_POINTERS], product.arguments[_POINTERS:]
    batch, m, n, k, a_step, b_step, bias_step, *_ = numbers
    sizes = m * k, k * n, m * n, n, m * n, n
    steps = a_step, b_step, m * n, bias_step, m * n, n
    for position, (place, size, step) in enumerate(zip(pointers, sizes, steps, strict=True)):
        if isinstance(place, Place):
            written = position in (2, 5)
            yield _Access(place.region, place.offset, 4 * size, 4 * step, batch, written)
