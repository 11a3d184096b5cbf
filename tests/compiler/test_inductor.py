"""Compilation of traced graphs with symbolic sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
    free_symbols,
)

from idql_func.compiler import torch_internals
from idql_func.compiler.inductor import compile_graph
from idql_func.compiler.trace import example_inputs, trace
from idql_func.kernels.matmul import fused_matmul
from idql_func.switches import set_native_matmul


def _symbolic(mode: FakeTensorMode, *shape: int) -> Tensor:
    """A fake tensor with symbolic sizes."""
    dims = [DimDynamic.DYNAMIC] * len(shape)
    context = StatelessSymbolicContext(dynamic_sizes=dims)  # type: ignore[arg-type]
    return mode.from_tensor(torch.empty(shape), symbolic_context=context)


@pytest.mark.parametrize("batch", [(), (7,)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sums", [False, True])
def test_shape_of_a_product_stays_symbolic(
    batch: tuple[int, ...], transposed: bool, sums: bool
) -> None:
    environment = ShapeEnv(duck_shape=False)
    mode = FakeTensorMode(shape_env=environment)
    m, n, k = 3, 4, 5
    a = _symbolic(mode, *batch, *((k, m) if transposed else (m, k)))
    b = _symbolic(mode, *batch, *((n, k) if transposed else (k, n)))
    bias = _symbolic(mode, *batch, n)
    with mode:
        result = fused_matmul(a, b, transposed, transposed, bias, True, None, sums)
    count = batch[0] if batch else 1
    expected = (count * (m + 1) * n,) if sums else (*batch, m, n)
    found = tuple(size.node.hint for size in result.shape)
    assert found == expected
    assert not environment.replacements  # no symbol was replaced by a number


@pytest.mark.parametrize("native_products", [False, True])
def test_dynamic_rows_are_symbolic_arguments(
    native_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fn(rows: Tensor, others: Tensor, weight: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        return torch.relu(rows[places] @ weight), others[places].mean()

    calls: list[Any] = []
    original = torch_internals.standalone_compile()
    assert original is not None

    def observed(graph: Any, inputs: Any, **options: Any) -> Any:
        calls.append(inputs)
        return original(graph, inputs, **options)

    monkeypatch.setattr(torch_internals, "standalone_compile", lambda: observed)
    for count in (6, 4):  # there are 4 columns too: equal sizes must not become one symbol
        rows, others = torch.randn(count, 4), torch.randn(count + 1)
        tensors = rows, others, torch.randn(4, 8), torch.tensor([0, 3, 1])
        graph = trace(fn, example_inputs(tensors, {0, 1}))
        with set_native_matmul(native_products):
            run: Any = compile_graph(graph, tensors, dynamic_rows=True)
        for _ in range(2):
            for result, expected in zip(run(*tensors), fn(*tensors), strict=True):
                torch.testing.assert_close(result, expected)
        *lengths, a, b, weight, places = calls.pop()
        assert all(isinstance(fake, FakeTensor) for fake in (a, b, weight, places))
        assert [str(length) for length in lengths] == [str(a.shape[0]), str(b.shape[0])]
        symbols = [free_symbols(fake) for fake in (a, b, weight, places)]
        assert [len(found) for found in symbols] == [1, 1, 0, 0]
        assert symbols[0].isdisjoint(symbols[1])
