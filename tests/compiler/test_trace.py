"""Traced graphs: equal operations are merged, in-place writes keep their effect."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from idql_func import jit
from idql_func.compiler.trace import trace


def operations(graph: torch.fx.GraphModule) -> Counter[str]:
    """The number of calls of each operator."""
    return Counter(node.target.__name__ for node in graph.graph.nodes if node.op == "call_function")


def test_equal_operations_are_merged() -> None:
    def fn(x: Tensor, y: Tensor) -> Tensor:
        return torch.sin(x @ y) + torch.sin(x @ y) * torch.sin(y @ x)

    x, y = torch.randn(3, 3), torch.randn(3, 3)
    assert operations(trace(fn, [x, y])) == {"mm.default": 2, "sin.default": 2} | {
        "add.Tensor": 1,
        "mul.Tensor": 1,
    }
    torch.testing.assert_close(jit(fn)(x, y), fn(x, y))


def test_equal_results_are_separate_tensors() -> None:
    one, two = jit(lambda x: (x + 1, x + 1))(torch.zeros(3))
    one += 1
    assert two.tolist() == [1.0] * 3


def test_copies_with_a_written_view_are_not_merged() -> None:
    def fn(x: Tensor) -> Tensor:
        a, b = x.clone(), x.clone()
        seen = a[:]
        a.add_(1)
        return seen * b

    graph = trace(fn, [torch.zeros(2)])
    assert operations(graph)["clone.default"] == 2
    assert graph(torch.full((2,), 2.0)).tolist() == [6.0, 6.0]


def test_write_to_a_copy_becomes_a_new_value() -> None:
    def fn(x: Tensor) -> Tensor:
        a, b = x.clone(), x.clone()
        a.add_(1)
        return a * b

    graph = trace(fn, [torch.zeros(2)])
    assert "add_.Tensor" not in operations(graph)
    assert graph(torch.full((2,), 2.0)).tolist() == [6.0, 6.0]
