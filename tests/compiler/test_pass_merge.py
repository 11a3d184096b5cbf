"""Operators are merged if they compute the same; what may differ stays."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from idql_func.compiler.fx_utils import ends, storage_number
from idql_func.compiler.inductor import without_code_generation
from idql_func.compiler.pass_merge import merge_equal_nodes
from idql_func.compiler.trace import trace
from idql_func.transforms import jit

X = torch.tensor([-2.0, -0.0, 0.0, 1.5])
NUMBERS = (0.0, -0.0, 1.0, -1.0, 1, 0, True, False, math.inf, -math.inf, math.nan, 2**24 + 1)


def _counts(fn: Callable[..., Any], *tensors: Tensor) -> dict[str, int]:
    """How often each operator is in the graph of a function."""
    counts: dict[str, int] = {}
    for node in trace(fn, tensors).graph.nodes:
        if node.op == "call_function":
            counts[str(node.target)] = counts.get(str(node.target), 0) + 1
    return counts


def _bits(x: Tensor) -> bytes:
    return x.contiguous().numpy().tobytes()


@pytest.mark.parametrize("pair", itertools.product(NUMBERS, repeat=2))
def test_equal_numbers_alone_are_merged(pair: tuple[Any, Any]) -> None:
    def scaled(x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = ((x * number).reciprocal() for number in pair)
        return first + 1, second + 2

    with without_code_generation():
        got = jit(scaled)(X)
    assert [_bits(a) for a in got] == [_bits(b) for b in scaled(X)]
    same = all(type(n) is type(pair[0]) for n in pair) and len({_number_bits(n) for n in pair}) == 1
    assert _counts(scaled, X)["aten.mul.Tensor"] == (1 if same else 2)


def _number_bits(number: float) -> bytes:
    return struct.pack("d", number)


@given(
    st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=6),
    st.lists(st.sampled_from(["add", "mul", "maximum", "div"]), min_size=1, max_size=6),
)
def test_merged_programs_keep_their_bits(numbers: list[Any], names: list[str]) -> None:
    def program(x: Tensor) -> list[Tensor]:
        results = []
        for number, name in itertools.product(numbers, names):
            other = torch.full_like(x, number) if name == "maximum" else number
            results.append(getattr(torch, name)(x, other).reciprocal().abs() + x)
        return results

    with without_code_generation():
        got = jit(program)(X)
    assert [_bits(a) for a in got] == [_bits(b) for b in program(X)]


@pytest.mark.parametrize(
    "draw",
    [
        torch.rand_like,
        torch.bernoulli,
        lambda x: torch.nn.functional.dropout(x, 0.5),
        lambda x: torch.randint(0, 9, x.shape),
        lambda x: torch.multinomial(x, 2),
        lambda x: torch.normal(x, 1.0),
    ],
)
def test_random_draws_are_not_merged(draw: Callable[[Tensor], Tensor]) -> None:
    x = torch.full((50,), 0.5)
    counts = _counts(lambda x: (draw(x) + 1, draw(x) + 2), x)
    assert max(counts.values()) >= 2
    single = _counts(lambda x: draw(x) + 1, x)
    assert all(counts[name] == 2 * single[name] for name in single)


def test_unset_memory_is_not_merged() -> None:
    counts = _counts(lambda x: (torch.empty_like(x) + 1, torch.empty_like(x) + 2), X)
    assert counts["aten.empty_like.default"] == 2


def test_elements_of_equal_tuples_are_merged() -> None:
    def doubled(x: Tensor) -> Tensor:
        return x.topk(2).values * x.topk(2).values + x.topk(2).indices

    counts = _counts(doubled, X)
    assert counts["aten.topk.default"] == 1
    assert sum(n for name, n in counts.items() if "getitem" in name) == 2


def test_views_of_merged_values_share_the_remaining_memory() -> None:
    def doubled(x: Tensor) -> tuple[Tensor, Tensor]:
        return (x * 2).view(2, 2).t() + 1, (x * 2).view(2, 2) + 2

    graph = trace(doubled, (X,))
    views = [
        n for n in graph.graph.nodes if str(n.target) in ("aten.view.default", "aten.t.default")
    ]
    (product,) = [n for n in graph.graph.nodes if str(n.target) == "aten.mul.Tensor"]
    assert len(views) == 2
    assert {storage_number(view) for view in views} == {storage_number(product)}


def test_nothing_to_merge_changes_nothing() -> None:
    graph = trace(lambda x: x.sin() + x.cos(), (X,))
    before = list(graph.graph.nodes)
    assert merge_equal_nodes(graph) is False
    assert list(graph.graph.nodes) == before
    assert len(ends(graph)[0]) == 1
