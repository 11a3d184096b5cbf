"""The library's own matrix products: values, and what the passes over a graph make of them."""

from __future__ import annotations

import functools
import itertools
import platform
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idql_func import grad, jit, random, tree_leaves, tree_map, vmap
from idql_func.compiler.fx_utils import writes
from idql_func.compiler.pass_matmul import use_native_matmul
from idql_func.compiler.trace import trace
from idql_func.kernels import matmul
from idql_func.kernels.build import c_compiler
from idql_func.kernels.matmul import available, fused_matmul
from idql_func.networks import MLP
from idql_func.switches import set_native_matmul
from idql_func.training.runtime.threads import cpu_threads

pytestmark = pytest.mark.skipif(c_compiler() is None, reason="no C compiler")

SIZES = st.sampled_from([1, 2, 5, 13, 15, 16, 17, 31, 33, 64, 100, 257])
DEPTHS = st.sampled_from([1, 2, 8, 9, 17, 64, 511, 513, 1030])
FLAGS = st.tuples(*[st.booleans()] * 8)
BATCHES = st.sampled_from([0, 1, 2, 3])


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_compiler_takes_the_source() -> None:
    assert available()


@settings(max_examples=150, deadline=None)
@given(st.tuples(SIZES, SIZES, DEPTHS), BATCHES, FLAGS)
def test_values_are_those_of_double_precision(
    sizes: tuple[int, int, int], batch: int, flags: tuple[bool, ...]
) -> None:
    _compare(*sizes, batch, flags)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.sampled_from([1, 7, 16, 129, 600]), DEPTHS, BATCHES, FLAGS)
def test_results_of_few_columns(
    n: int, m: int, k: int, batch: int, flags: tuple[bool, ...]
) -> None:
    _compare(m, n, k, batch, flags)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 29), st.sampled_from([10, 32, 200, 600]), DEPTHS, BATCHES, FLAGS)
def test_results_of_few_rows(m: int, n: int, k: int, batch: int, flags: tuple[bool, ...]) -> None:
    _compare(m, n, k, batch, flags)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([3, 90, 400]), st.sampled_from([1, 5, 33, 500]), BATCHES, FLAGS)
def test_outer_products(m: int, n: int, batch: int, flags: tuple[bool, ...]) -> None:
    _compare(m, n, 1, batch, flags)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n", [1, 6, 20])
def test_sums_longer_than_a_run(n: int, transposed: bool) -> None:
    _compare(40, n, 9001, 0, (transposed, *[False] * 3, *[True] * 4))


def _compare(m: int, n: int, k: int, batch: int, flags: tuple[bool, ...]) -> None:
    """With double precision, and one thread with several."""
    a_transposed, b_transposed, shared_a, shared_b, biased, relu, gated, sums = flags
    several = (batch,) if batch else ()
    a = _draw(*(() if shared_a and not shared_b else several), m, k)
    b = _draw(*(() if shared_b else several), k, n, seed=1)
    several = several if 3 in (a.ndim, b.ndim) else ()
    bias = _draw(*(several if shared_a else ()), n, seed=2) if biased else None
    gate = _draw(*several, m, n, seed=3) if gated else None

    def call() -> Tensor:
        return fused_matmul(
            a.mT.contiguous() if a_transposed else a,
            b.mT.contiguous() if b_transposed else b,
            a_transposed,
            b_transposed,
            bias,
            relu,
            gate,
            sums,
        )

    with cpu_threads(1):
        found = call()
    for threads in (2, 3):
        with cpu_threads(threads):
            assert torch.equal(call(), found)
    expected, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    if bias is not None:
        expected = expected + (bias.unsqueeze(-2) if bias.ndim == 2 else bias)
        size = size + expected.abs()
    if relu:
        expected = expected.relu()
    if gate is not None:
        expected = torch.where(gate > 0, expected, 0.0)
    if sums:
        columns, largest = (x.double().sum(-2).expand(*several, n) for x in (b, b.abs()))
        expected = torch.cat([expected.flatten(), columns.flatten()])
        size = torch.cat([size.flatten(), largest.flatten()])
    assert found.shape == expected.shape
    # the error of a sum of k products in any order, each of its steps rounded once
    assert ((found - expected).abs() <= (k + 2) * 2**-24 * size).all()


def test_what_is_no_number_stays_so() -> None:
    a = torch.tensor([[float("nan"), 1.0], [1.0, 1.0]])
    found = fused_matmul(a, torch.eye(2), False, False, None, True, None, False)
    assert found[0].isnan().all() and torch.equal(found[1], torch.ones(2))
    gate = torch.tensor([[float("nan"), 0.0], [1.0, -1.0]])
    found = fused_matmul(torch.ones(2, 2), torch.eye(2), False, False, None, False, gate, False)
    assert found.tolist() == [[1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("k", [1, 17, 700])
@pytest.mark.parametrize("n", [1, 6, 40])
def test_a_row_does_not_depend_on_the_others(n: int, k: int, transposed: bool) -> None:
    _compare_rows(n, k, transposed)


def _compare_rows(n: int, k: int, transposed: bool) -> None:
    a, b, bias = _draw(300, k), _draw(k, n, seed=1), _draw(n, seed=2)

    def call(rows: int) -> Tensor:
        part = a[:rows].T.contiguous() if transposed else a[:rows].clone()
        return fused_matmul(part, b, transposed, False, bias, True, None, False)

    whole = call(300)
    for rows in (1, 14, 133):
        assert torch.equal(call(rows), whole[:rows])


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the options are those of x86")
@pytest.mark.parametrize("option", ["-mno-avx512f", "-march=x86-64"])
def test_lesser_processors(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of 8, with and without fused multiplications."""
    monkeypatch.setattr(matmul, "_FLAGS", (*matmul._FLAGS, option))
    function = functools.cache(matmul.functions.__wrapped__)
    monkeypatch.setattr(matmul, "functions", function)
    for n, k, transposed in itertools.product((1, 3, 6, 7, 8, 40), (1, 17, 700), (False, True)):
        _compare_rows(n, k, transposed)
        for shared in (False, True):
            _compare(150, n, k, 2, (transposed, not transposed, shared, *[True] * 5))


# --- in graphs ----------------------------------------------------------------------------


def _replaced(fn: Callable[..., Any], *arguments: Tensor) -> list[tuple[Any, ...]]:
    """The arguments of the products in the traced graph, after none of torch's is left."""
    graph = trace(lambda *x: tuple(tree_leaves(fn(*x))), arguments)
    expected = graph(*arguments)
    use_native_matmul(graph)
    for found, right in zip(graph(*arguments), expected, strict=True):
        assert torch.allclose(found, right, rtol=1e-5, atol=1e-5)
    targets = [node.target for node in graph.graph.nodes]
    assert not {torch.ops.aten.mm.default, torch.ops.aten.bmm.default} & {*targets}
    return [node.args for node in graph.graph.nodes if node.target is fused_matmul]


def _counts(products: list[tuple[Any, ...]]) -> dict[str, int]:
    names = {"bias": 4, "relu": 5, "gate": 6, "sums": 7}
    return {
        name: sum(args[k] is not None and args[k] is not False for args in products)
        for name, k in names.items()
    }


def _loss(layer: MLP, x: Tensor) -> Callable[..., Tensor]:
    return lambda params: (layer.apply(params, x) ** 2).mean()


def test_a_network_and_its_gradient_keep_no_pass_between_products() -> None:
    layer = MLP(7, [32, 32, 3])
    params = layer.init(random.PRNGKey(0))

    def gradient(x: Tensor, *tensors: Tensor) -> Any:
        values = iter(tensors)
        return grad(_loss(layer, x))(tree_map(lambda _: next(values), params))

    found = _replaced(gradient, _draw(20, 7), *tree_leaves(params))
    # three layers forwards, three kernels' gradients, two inputs'
    assert len(found) == 8
    assert _counts(found) == {"bias": 3, "relu": 2, "gate": 2, "sums": 3}


def test_an_ensemble_and_its_gradient_too() -> None:
    layer = MLP(7, [32, 32, 3])
    members = tree_map(Tensor.contiguous, vmap(layer.init)(random.split(random.PRNGKey(0), 4)))

    def gradient(x: Tensor, *tensors: Tensor) -> Any:
        values = iter(tensors)
        return vmap(grad(_loss(layer, x)))(tree_map(lambda _: next(values), members))

    found = _replaced(gradient, _draw(20, 7), *tree_leaves(members))
    assert len(found) == 8
    assert _counts(found) == {"bias": 3, "relu": 2, "gate": 2, "sums": 3}


@pytest.mark.parametrize("donate", [False, True])
def test_compiled_updates_are_the_same(donate: bool) -> None:
    layer, x = MLP(7, [32, 32, 3]), _draw(20, 7)
    start = layer.init(random.PRNGKey(0))

    def step(params: Any) -> Any:
        return tree_map(lambda p, g: p - 0.1 * g, params, grad(_loss(layer, x))(params))

    program = jit(step, donate_argnums=0 if donate else ())
    expected = found = start
    for _ in range(5):
        expected = step(expected)
    with set_native_matmul():
        found = tree_map(torch.clone, start)
        for _ in range(5):
            found = program(found)
    for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_program_of_one_route_is_not_that_of_another() -> None:
    program = jit(lambda a, b: torch.relu(a @ b + 1))
    a, b = _draw(3, 4), _draw(4, 5)
    for native in (False, True, False):
        with set_native_matmul(native):
            assert torch.allclose(program(a, b), torch.relu(a @ b + 1), atol=1e-6)
    assert program.cache_size() == 2


def test_what_is_read_elsewhere_stays() -> None:
    """A value between the product and its end that is a result itself has to be there."""

    def fn(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        before = a @ b
        shifted = before + c
        return before, shifted, torch.relu(shifted)

    found = _replaced(fn, _draw(3, 4), _draw(4, 5), _draw(5))
    assert _counts(found) == {"bias": 0, "relu": 0, "gate": 0, "sums": 0}


@pytest.mark.parametrize(
    "other", [_draw(6, 1), _draw(6, 5), _draw(1)], ids=["column", "matrix", "one number"]
)
def test_only_a_row_is_a_bias(other: Tensor) -> None:
    found = _replaced(lambda a, b, c: a @ b + c, _draw(6, 4), _draw(4, 5), other)
    assert _counts(found)["bias"] == 0


def test_sums_of_another_axis_are_not_taken_in() -> None:
    def fn(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return a.mT @ b, b.sum(0), b.sum(-1), b.sum((1, 2))

    found = _replaced(fn, _draw(2, 2, 6), _draw(2, 2, 5))
    assert _counts(found)["sums"] == 0
    found = _replaced(lambda a, b: (a.mT @ b, b.sum(1)), _draw(2, 2, 6), _draw(2, 2, 5))
    assert _counts(found)["sums"] == 1


def test_other_factors_stay_with_torch() -> None:
    """Every second column, double precision, and a large transposed factor."""
    for fn, x in (
        (lambda x: x[:, ::2] @ x[::2], _draw(4, 4)),
        (lambda x: x @ x, _draw(4, 4).double()),
    ):
        graph = trace(fn, [x])
        use_native_matmul(graph)
        assert fused_matmul not in {node.target for node in graph.graph.nodes}
    graph = trace(lambda x, kernel: x @ kernel.mT, [_draw(2, 1024), _draw(600, 1024)])
    use_native_matmul(graph)
    assert fused_matmul not in {node.target for node in graph.graph.nodes}


def test_nothing_happens_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idql_func.compiler.pass_matmul.available", lambda: False)
    graph = trace(lambda a: a @ a, [_draw(4, 4)])
    use_native_matmul(graph)
    assert fused_matmul not in {node.target for node in graph.graph.nodes}


# --- what is traced -------------------------------------------------------------------------


def test_a_derivative_that_writes_does_not_keep_equal_work_apart() -> None:
    """The derivative of ``clamp`` computes a mask and writes another over it."""

    def fn(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return grad(lambda y: (y.clamp(-0.5, 0.5) * (a @ a)).sum())(x), a @ a + 1

    inputs = _draw(4, 4), _draw(4, 4, seed=1)
    graph = trace(fn, inputs)
    targets = [node.target for node in graph.graph.nodes]
    assert targets.count(torch.ops.aten.mm.default) == 1
    assert not any(map(writes, graph.graph.nodes))
    for found, expected in zip(graph(*inputs), fn(*inputs), strict=True):
        assert torch.equal(found, expected)


def test_what_is_seen_by_another_name_is_written_in_place() -> None:
    def fn(x: Tensor) -> Tensor:
        y = x + 1
        z = y[:2]
        y.mul_(2)
        return z

    graph = trace(fn, [_draw(4)])
    assert any(map(writes, graph.graph.nodes))
    assert torch.equal(graph(_draw(4)), fn(_draw(4)))
