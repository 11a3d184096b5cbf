"""Replacement of torch's matrix products in traced graphs by native ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from idql_func import grad, jit, random, tree_leaves, tree_map, vmap
from idql_func.compiler.fx_utils import writes
from idql_func.compiler.pass_matmul import use_native_matmul
from idql_func.compiler.trace import trace
from idql_func.kernels.build import c_compiler
from idql_func.kernels.matmul import fused_matmul
from idql_func.networks import MLP
from idql_func.switches import set_native_matmul

pytestmark = pytest.mark.skipif(c_compiler() is None, reason="no C compiler")


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _replaced(fn: Callable[..., Any], *arguments: Tensor) -> list[tuple[Any, ...]]:
    """The arguments of the native products in the graph of ``fn``.

    Asserts that the pass keeps the values and replaces all products of torch.
    """
    graph = trace(lambda *x: tuple(tree_leaves(fn(*x))), arguments)
    expected = graph(*arguments)
    use_native_matmul(graph)
    for result, value in zip(graph(*arguments), expected, strict=True):
        assert torch.allclose(result, value, rtol=1e-5, atol=1e-5)
    targets = [node.target for node in graph.graph.nodes]
    assert not {torch.ops.aten.mm.default, torch.ops.aten.bmm.default} & {*targets}
    return [node.args for node in graph.graph.nodes if node.target is fused_matmul]


def _counts(products: list[tuple[Any, ...]]) -> dict[str, int]:
    """The number of products with a fused bias, relu, gate and sums."""
    names = {"bias": 4, "relu": 5, "gate": 6, "sums": 7}
    return {
        name: sum(args[k] is not None and args[k] is not False for args in products)
        for name, k in names.items()
    }


def _loss(layer: MLP, x: Tensor) -> Callable[..., Tensor]:
    return lambda params: (layer.apply(params, x) ** 2).mean()


def test_gradient_of_a_network_is_fused_completely() -> None:
    layer = MLP(7, [32, 32, 3])
    params = layer.init(random.PRNGKey(0))

    def gradient(x: Tensor, *tensors: Tensor) -> Any:
        values = iter(tensors)
        return grad(_loss(layer, x))(tree_map(lambda _: next(values), params))

    found = _replaced(gradient, _draw(20, 7), *tree_leaves(params))
    # three layers, gradients of three kernels, gradients of two hidden layers
    assert len(found) == 8
    assert _counts(found) == {"bias": 3, "relu": 2, "gate": 2, "sums": 3}


def test_gradient_of_an_ensemble_is_fused_completely() -> None:
    layer = MLP(7, [32, 32, 3])
    members = tree_map(Tensor.contiguous, vmap(layer.init)(random.split(random.PRNGKey(0), 4)))

    def gradient(x: Tensor, *tensors: Tensor) -> Any:
        values = iter(tensors)
        return vmap(grad(_loss(layer, x)))(tree_map(lambda _: next(values), members))

    found = _replaced(gradient, _draw(20, 7), *tree_leaves(members))
    assert len(found) == 8
    assert _counts(found) == {"bias": 3, "relu": 2, "gate": 2, "sums": 3}


@pytest.mark.parametrize("donate", [False, True])
def test_compiled_updates_equal_eager_ones(donate: bool) -> None:
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
    for result, value in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert torch.allclose(result, value, rtol=1e-5, atol=1e-6)


def test_set_native_matmul_compiles_another_program() -> None:
    program = jit(lambda a, b: torch.relu(a @ b + 1))
    a, b = _draw(3, 4), _draw(4, 5)
    for native in (False, True, False):
        with set_native_matmul(native):
            assert torch.allclose(program(a, b), torch.relu(a @ b + 1), atol=1e-6)
    assert program.cache_size() == 2


def test_value_that_is_a_result_is_not_fused() -> None:
    """The product and its sum with ``c`` are results themselves."""

    def fn(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        before = a @ b
        shifted = before + c
        return before, shifted, torch.relu(shifted)

    found = _replaced(fn, _draw(3, 4), _draw(4, 5), _draw(5))
    assert _counts(found) == {"bias": 0, "relu": 0, "gate": 0, "sums": 0}


@pytest.mark.parametrize(
    "other", [_draw(6, 1), _draw(6, 5), _draw(1)], ids=["column", "matrix", "one number"]
)
def test_only_a_row_is_fused_as_bias(other: Tensor) -> None:
    found = _replaced(lambda a, b, c: a @ b + c, _draw(6, 4), _draw(4, 5), other)
    assert _counts(found)["bias"] == 0


def test_only_sums_over_rows_are_fused() -> None:
    def fn(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return a.mT @ b, b.sum(0), b.sum(-1), b.sum((1, 2))

    found = _replaced(fn, _draw(2, 2, 6), _draw(2, 2, 5))
    assert _counts(found)["sums"] == 0
    found = _replaced(lambda a, b: (a.mT @ b, b.sum(1)), _draw(2, 2, 6), _draw(2, 2, 5))
    assert _counts(found)["sums"] == 1


def test_unsupported_factors_keep_the_product_of_torch() -> None:
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


def test_without_a_compiler_no_product_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idql_func.compiler.pass_matmul.available", lambda: False)
    graph = trace(lambda a: a @ a, [_draw(4, 4)])
    use_native_matmul(graph)
    assert fused_matmul not in {node.target for node in graph.graph.nodes}


# --- traced graphs --------------------------------------------------------------------------


def test_equal_products_around_an_inplace_derivative_are_merged() -> None:
    """The derivative of ``clamp`` computes a mask and writes to it in place."""

    def fn(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return grad(lambda y: (y.clamp(-0.5, 0.5) * (a @ a)).sum())(x), a @ a + 1

    inputs = _draw(4, 4), _draw(4, 4, seed=1)
    graph = trace(fn, inputs)
    targets = [node.target for node in graph.graph.nodes]
    assert targets.count(torch.ops.aten.mm.default) == 1
    assert not any(map(writes, graph.graph.nodes))
    for found, expected in zip(graph(*inputs), fn(*inputs), strict=True):
        assert torch.equal(found, expected)


def test_write_through_a_view_stays_in_place() -> None:
    def fn(x: Tensor) -> Tensor:
        y = x + 1
        z = y[:2]
        y.mul_(2)
        return z

    graph = trace(fn, [_draw(4)])
    assert any(map(writes, graph.graph.nodes))
    assert torch.equal(graph(_draw(4)), fn(_draw(4)))
