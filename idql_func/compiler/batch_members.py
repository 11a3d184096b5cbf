"""Consecutive products in a replayed program, run member by member.

The layers of ten critics are products of ten pairs each. One product after the other, all ten
results are in memory, and gone from the caches, before the next layer reads the first. Member by
member, a layer finds the one before it near, and the threads meet once instead of after each
product. So it is with the rows of a single network's layers. The members must not depend on each
other, and what is written must not lie where another member still reads; both are seen from the
addresses that were recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from idql_func.compiler.recorder import Call, Operator, Place
from idql_func.kernels.matmul import functions_if_built

__all__ = ["batched_by_member"]

_MEMORY = 6
"""So many of a product's words are addresses; then come the numbers, see ``csrc/matmul.c``."""


class _Access(NamedTuple):
    """What each member of a product reads or writes, in bytes of a region."""

    region: int
    first: int
    size: int
    step: int
    """From one member to the next; 0 if all have the same."""
    members: int
    written: bool

    @property
    def end(self) -> int:
        """Where the last member's part ends."""
        return self.first + (self.members - 1) * self.step + self.size

    def is_independent_of(self, other: _Access) -> bool:
        """Whether no member's part has to do with another member's part of ``other``."""
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
    """The steps of a program, with runs of products that may go member by member as one."""
    found: list[Call | Operator] = []
    run: list[tuple[Call, Call]] = []
    """Products as they were called, and as members that the threads share out."""
    accesses: list[_Access] = []

    def close() -> None:
        found.extend([_as_one([m for _, m in run])] if len(run) > 1 else [call for call, _ in run])
        run.clear()
        accesses.clear()

    for step in steps:
        members = None if isinstance(step, Operator) else _members(step)
        if isinstance(step, Operator) or members is None:
            close()
            found.append(step)
            continue
        own = list(_accesses(members))
        if run and (
            _kind(members) != _kind(run[0][1])
            or not all(a.is_independent_of(b) for a in own for b in accesses)
        ):
            close()
        run.append((step, members))
        accesses += own
    close()
    return found


def _members(step: Call) -> Call | None:
    """A product whose members are as many for each thread, or None if it can't be made one.

    The rows of a single product can be taken for members that share the right factor.
    """
    own = functions_if_built()
    if own is None or step.address != own["fused_matmul"].address:
        return None
    memory, (batch, m, n, k, *steps) = step.words[:_MEMORY], step.words[_MEMORY:]
    _, _, _, a_transposed, b_transposed, relu, threads = steps
    if batch > 1:
        return step if batch % threads == 0 else None
    sums = memory[-1]
    if threads == 1 or m % threads or m < n or a_transposed or isinstance(sums, Place):
        return None
    rows = m // threads
    numbers = threads, rows, n, k, rows * k, 0, 0, a_transposed, b_transposed, relu, threads
    return Call(step.address, [*memory, *numbers], step.checked)


def _kind(product: Call) -> tuple[int, int]:
    """Members and threads."""
    return product.words[_MEMORY], product.words[-1]


def _as_one(run: Sequence[Call]) -> Call:
    own = functions_if_built()
    assert own is not None
    words = [word for product in run for word in product.words]
    return Call(own["fused_matmul_sequence"].address, [len(run), words], True)


def _accesses(product: Call) -> Iterator[_Access]:
    memory, numbers = product.words[:_MEMORY], product.words[_MEMORY:]
    batch, m, n, k, a_step, b_step, bias_step, *_ = numbers
    sizes = m * k, k * n, m * n, n, m * n, n
    steps = a_step, b_step, m * n, bias_step, m * n, n
    for position, (place, size, step) in enumerate(zip(memory, sizes, steps, strict=True)):
        if isinstance(place, Place):
            written = position in (2, 5)
            yield _Access(place.region, place.offset, 4 * size, 4 * step, batch, written)
