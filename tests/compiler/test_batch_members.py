"""Matrix products that are merged and computed member by member give the same values."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idql_func import vmap
from idql_func.compiler import replay
from idql_func.compiler.batch_members import batched_by_member
from idql_func.compiler.inductor import compile_graph
from idql_func.compiler.recorder import Call, Place
from idql_func.compiler.trace import trace
from idql_func.kernels.build import c_compiler
from idql_func.kernels.matmul import functions
from idql_func.switches import set_native_matmul
from idql_func.training.runtime.threads import cpu_threads

pytestmark = pytest.mark.skipif(c_compiler() is None, reason="no C compiler")

THREADS = 2
REGIONS, FLOATS = 5, 1600


def _count(steps: list[Any]) -> list[int]:
    """The number of products of each step."""
    library = functions()
    assert library is not None
    return [
        step.arguments[0] if step.address == library["fused_matmul_sequence"].address else 1
        for step in steps
    ]


def _run(steps: list[Any], memory: list[Tensor]) -> None:
    segment = replay._Segment()
    for step in steps:
        segment.add(step, {k: (k, 0) for k in range(len(memory))})
    segment.close()
    function = replay._replay()
    assert function is not None
    regions = array("q", [tensor.data_ptr() for tensor in memory])
    function.call_unobserved(*segment.arguments, 1, regions.buffer_info()[0], 0, 0)


def _product(
    sizes: tuple[int, int, int, int],
    places: tuple[Place | int, ...],
    steps: tuple[int, int, int],
    flags: tuple[bool, bool, bool],
) -> Call:
    library = functions()
    assert library is not None
    return Call(
        library["fused_matmul"].address, [*places, *sizes, *steps, *map(int, flags), THREADS], True
    )


@st.composite
def _products(draw: st.DrawFn) -> Call:
    size = st.sampled_from([1, 3, 8, 12])
    batch = draw(st.sampled_from([1, 2, 2, 4, 3]))
    m, n, k = draw(size), draw(size), draw(size)
    shared_a, shared_b, with_bias, with_gate, sums, relu, a_t, b_t = draw(
        st.tuples(*[st.booleans()] * 8)
    )
    result = draw(st.integers(0, REGIONS - 1))
    offset = 4 * draw(st.sampled_from([0, 0, 0, 16, 96]))
    floats = batch * m * n
    others = st.sampled_from([k for k in range(REGIONS) if k != result])
    place = st.builds(Place, others, st.sampled_from([0, 0, 0, 64, 384]))
    places = (
        draw(place),
        draw(place),
        Place(result, offset),
        draw(place) if with_bias else 0,
        draw(place) if with_gate else 0,
        Place(result, offset + 4 * floats) if sums and not b_t else 0,
    )
    steps = (0 if shared_a else m * k, 0 if shared_b else k * n, n)
    return _product((batch, m, n, k), places, steps, (a_t, b_t, relu))


@settings(max_examples=300)
@given(st.lists(_products(), min_size=2, max_size=6))
def test_merged_products_write_the_same_memory(steps: list[Call]) -> None:
    draws = torch.Generator().manual_seed(0)
    memory = [torch.randn(FLOATS, generator=draws) / 4 for _ in range(REGIONS)]
    expected = [tensor.clone() for tensor in memory]
    _run(list(steps), expected)
    merged = batched_by_member(steps)
    assert sum(_count(merged)) == len(steps)
    _run(merged, memory)
    for a, b in zip(memory, expected, strict=True):
        assert torch.equal(a.view(torch.int32), b.view(torch.int32))


def _layer(batch: int, source: int, result: int, **changes: Any) -> Call:
    size = 8
    places = (Place(source, 0), Place(4, 0), Place(result, 0), 0, 0, 0)
    steps = (changes.get("a_step", size * size), 0, 0)
    return _product((batch, size, size, size), places, steps, changes.get("flags", (False,) * 3))


def test_products_are_merged_if_their_members_are_independent() -> None:
    for batch in (1, 2, 4):
        assert _count(
            batched_by_member([_layer(batch, 0, 1), _layer(batch, 1, 2), _layer(batch, 2, 3)])
        ) == [3]
    # three members cannot be divided evenly between two threads
    assert _count(batched_by_member([_layer(3, 0, 1), _layer(3, 1, 2)])) == [1, 1]
    # every member of the second product reads the result of the first member
    assert _count(batched_by_member([_layer(2, 0, 1), _layer(2, 1, 2, a_step=0)])) == [1, 1]
    # a product with a transposed left factor cannot be divided by rows
    transposed = (True, False, False)
    assert _count(batched_by_member([_layer(1, 0, 1), _layer(1, 1, 2, flags=transposed)])) == [1, 1]
    assert _count(batched_by_member([_layer(2, 0, 1), _layer(2, 1, 2, flags=transposed)])) == [2]
    # a step that is not a product separates them
    other = Call(1, [Place(0, 0)], False)
    assert _count(batched_by_member([_layer(2, 0, 1), other, _layer(2, 1, 2)])) == [1, 1, 1]


def test_replayed_ensemble_has_the_values_of_the_compiled_graph() -> None:
    def member(weights: tuple[Tensor, ...], x: Tensor) -> Tensor:
        for kernel in weights[:-1]:
            x = torch.relu(x @ kernel)
        return x @ weights[-1]

    def fn(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        return (vmap(lambda w: member(w, x))(weights),)

    draws = torch.Generator().manual_seed(1)
    x = torch.randn(12, 6, generator=draws)
    shapes = (4, 6, 16), (4, 16, 16), (4, 16, 3)
    weights = [torch.randn(*shape, generator=draws) for shape in shapes]
    with set_native_matmul(True), cpu_threads(2):
        run: Any = compile_graph(trace(fn, (x, *weights)), (x, *weights))
        results = [run(x, *weights)[0] for _ in range(3)]
        expected = run._compiled(x, *weights)[0]
    assert run._plans
    assert all(torch.equal(result, expected) for result in results)
    torch.testing.assert_close(expected, fn(x, *weights)[0], rtol=1e-5, atol=1e-4)
