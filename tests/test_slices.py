"""Slices at traced places, ``stop_gradient`` and ``logsumexp``: laws, transforms, bad input."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import idql_func
from idql_func import (
    dynamic_index_in_dim,
    dynamic_slice,
    dynamic_slice_in_dim,
    dynamic_update_slice,
    dynamic_update_slice_in_dim,
    grad,
    jit,
    logsumexp,
    random,
    stop_gradient,
    tree_map,
    vmap,
)
from idql_func.compiler.inductor import without_code_generation

KEY = random.PRNGKey(0)
X = torch.arange(12.0).reshape(3, 4)


def inside(start: int, size: int, length: int) -> int:
    """Where a slice begins in JAX: negative starts count from the end, and no slice passes one."""
    return min(max(start + length if start < 0 else start, 0), length - size)


@st.composite
def slices(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int]]:
    starts = draw(st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
    return starts, draw(st.tuples(st.integers(0, 3), st.integers(0, 4)))


@settings(deadline=None, max_examples=60)
@given(slices(), st.booleans())
def test_slices_lie_inside(where: Any, traced: bool) -> None:
    starts, sizes = where
    a, b = (inside(s, n, length) for s, n, length in zip(starts, sizes, X.shape, strict=True))
    given_starts = [torch.tensor(s, dtype=torch.int32) for s in starts] if traced else starts
    expected = X[a : a + sizes[0], b : b + sizes[1]]
    assert torch.equal(dynamic_slice(X, given_starts, sizes), expected)
    update = -1 - torch.arange(float(sizes[0] * sizes[1])).reshape(sizes)
    changed = X.clone()
    changed[a : a + sizes[0], b : b + sizes[1]] = update
    assert torch.equal(dynamic_update_slice(X, update, given_starts), changed)


@given(st.integers(-9, 9), st.integers(0, 1))
def test_one_axis_is_the_whole_slice(start: int, axis: int) -> None:
    size, starts = 2, [0, 0]
    starts[axis] = start
    sizes = [*X.shape]
    sizes[axis] = size
    part = dynamic_slice_in_dim(X, torch.tensor(start), size, axis)
    assert torch.equal(part, dynamic_slice(X, starts, sizes))
    assert torch.equal(part, dynamic_slice_in_dim(X, start, size, axis - 2))
    row = dynamic_index_in_dim(X, start, axis, keepdims=False)
    assert torch.equal(row, X.select(axis, inside(start, 1, X.shape[axis])))
    assert torch.equal(dynamic_index_in_dim(X, torch.tensor(start), axis).squeeze(axis), row)
    put = dynamic_update_slice_in_dim(X, part + 100, start, axis)
    assert torch.equal(dynamic_slice_in_dim(put, start, size, axis), part + 100)


def test_starts_may_be_traced_and_mapped() -> None:
    starts = torch.tensor([[0, 3], [-1, 1], [7, 7]])

    def both(start: Tensor) -> tuple[Tensor, Tensor]:
        part = dynamic_slice(X, start, (2, 2))
        return part, dynamic_update_slice(X, 10 * part, start)

    rows = [both(start) for start in starts]
    expected = tree_map(lambda *leaves: torch.stack(leaves), *rows)
    tree_map(torch.testing.assert_close, vmap(both)(starts), expected)
    with without_code_generation():
        tree_map(torch.testing.assert_close, jit(vmap(both))(starts), expected)
        tree_map(torch.testing.assert_close, jit(both)(starts[1]), rows[1])


def test_derivatives_reach_the_part_alone() -> None:
    start = torch.tensor(1)
    slopes = grad(lambda x: dynamic_slice_in_dim(x, start, 2).square().sum())(X)
    assert torch.equal(slopes, torch.where(torch.tensor([[False], [True], [True]]), 2 * X, 0.0))
    both = grad(lambda x, y: dynamic_update_slice_in_dim(x, y, start, 0).square().sum(), (0, 1))
    of_x, of_y = both(X, X[:2] + 1)
    assert torch.equal(of_x, torch.where(torch.tensor([[True], [False], [False]]), 2 * X, 0.0))
    assert torch.equal(of_y, 2 * (X[:2] + 1))
    rows = vmap(grad(lambda x, k: dynamic_index_in_dim(x, k).sum()), (None, 0))(X, torch.arange(3))
    assert rows.sum((1, 2)).tolist() == [4.0] * 3


def test_arrays_are_taken() -> None:
    found = dynamic_slice(np.arange(5.0), np.array([3]), (2,))  # type: ignore[arg-type]
    assert found.tolist() == [3.0, 4.0] and found.dtype == torch.float32


# --- stop_gradient --------------------------------------------------------------------------


def test_stopped_trees_are_constants() -> None:
    tree = {"w": torch.tensor(2.0), "n": 3, "deep": [torch.tensor(5.0)]}

    def loss(t: Any) -> Tensor:
        fixed = stop_gradient(t)
        return t["w"] * fixed["w"] * fixed["deep"][0] * fixed["n"]

    tensors = {"w": tree["w"], "deep": tree["deep"]}
    slopes = grad(lambda t: loss({**tree, **t}))(tensors)
    assert slopes["w"].item() == 30.0 and slopes["deep"][0].item() == 0.0
    tangent = torch.func.jvp(
        lambda w: w * stop_gradient(w), (torch.tensor(2.0),), (torch.ones(()),)
    )
    assert tangent[1].item() == 2.0
    assert stop_gradient(tree)["n"] == 3
    assert vmap(grad(lambda x: x * stop_gradient(x)))(X[0]).tolist() == X[0].tolist()


# --- logsumexp --------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_of_axes(axis: Any, keepdims: bool) -> None:
    dims = (0, 1) if axis is None else axis
    expected = X if axis == () else torch.logsumexp(X, dims, keepdim=keepdims)
    torch.testing.assert_close(logsumexp(X, axis, keepdims=keepdims), expected)


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=5), st.floats(-1e3, 1e3, width=32)
)
def test_a_shift_moves_logsumexp_by_itself(values: list[float], shift: float) -> None:
    x = torch.tensor(values)
    found, moved = logsumexp(x), logsumexp(x + shift)
    torch.testing.assert_close(moved, found + shift, rtol=1e-5, atol=1e-3)
    slopes = grad(logsumexp)(x)
    torch.testing.assert_close(slopes, torch.softmax(x, 0), rtol=1e-4, atol=1e-6)


def test_logsumexp_of_infinities_and_weights() -> None:
    inf = float("inf")
    assert logsumexp(torch.tensor([-inf, -inf])).item() == -inf
    assert logsumexp(torch.tensor([inf, 0.0])).item() == inf
    x, b = torch.tensor([0.0, 1.0, -inf]), torch.tensor([2.0, 0.5, 0.0])
    torch.testing.assert_close(logsumexp(x, b=b), torch.log((b * x.exp()).sum()))
    assert logsumexp(torch.tensor([0.0, 1.0]), b=torch.tensor([1.0, -1.0])).isnan()
    slopes = grad(lambda b: logsumexp(x[:2], b=b))(b[:2])
    torch.testing.assert_close(slopes, x[:2].exp() / (b[:2] * x[:2].exp()).sum())


# --- bad input ----------------------------------------------------------------------------------


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "too few starts": (lambda: dynamic_slice(X, (1,), (2, 2)), "an integer for each of the 2 axes"),
    "no integer": (lambda: dynamic_slice(X, (1, 0.5), (2, 2)), "must be one integer, got 0.5."),  # type: ignore
    "two starts": (
        lambda: dynamic_slice_in_dim(X, torch.tensor([0, 1]), 1),
        "dynamic_slice_in_dim: a start must be one integer, got int64 (2,).",
    ),
    "too large": (
        lambda: dynamic_slice(X, (0, 0), (4, 1)),
        "sizes must lie between 0 and those of the operand, (3, 4), got (4, 1).",
    ),
    "no axis": (lambda: dynamic_index_in_dim(X, 0, 2), "there is no axis 2 in a tensor of 2 axes."),
    "dtype": (
        lambda: dynamic_update_slice(X, torch.ones(1, 1, dtype=torch.int32), (0, 0)),
        "must have one dtype and number of axes, got float32 (3, 4) and int32 (1, 1).",
    ),
    "axes": (lambda: dynamic_update_slice(X, X[0], (0, 0)), "one dtype and number of axes"),
    "text": (lambda: logsumexp("x"), "logsumexp: a must be a tensor, got 'x'."),  # type: ignore
    "integers": (lambda: logsumexp(torch.arange(3)), "a must be floating, got torch.int64."),
    "nothing": (lambda: logsumexp(torch.ones(0)), "there is nothing to sum in shape (0,)."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises((TypeError, ValueError), match=re.escape(message)) as found:
        call()
    assert "\n" not in str(found.value)


def test_names_are_found_at_the_top() -> None:
    for name in ("dynamic_slice", "stop_gradient", "logsumexp", "eval_shape", "ShapeDtypeStruct"):
        assert getattr(idql_func, name) is getattr(idql_func.transforms, name)
