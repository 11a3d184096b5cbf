"""Losses of optax: values and slopes computed by hand, also where a formula changes."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from idql_func import enable_x64, grad, jit, losses, vmap
from idql_func.compiler.inductor import without_code_generation
from idql_func.losses import huber_loss, l2_loss, sigmoid_binary_cross_entropy

X = torch.tensor([-3.0, -1.0, -0.25, 0.0, 0.25, 1.0, 3.0])
NUMBERS = st.floats(-1e4, 1e4, width=32)


def second(loss, at: Tensor) -> list[float]:
    return vmap(grad(grad(loss)))(at).tolist()


def test_l2_is_half_the_square() -> None:
    assert l2_loss(X).tolist() == (X**2 / 2).tolist()
    assert l2_loss(X, torch.ones(7)).tolist() == ((X - 1) ** 2 / 2).tolist()
    assert vmap(grad(l2_loss))(X).tolist() == X.tolist()


@pytest.mark.parametrize("delta", [1.0, torch.tensor(1.0)])
def test_huber_is_square_inside_and_linear_outside(delta: float | Tensor) -> None:
    assert huber_loss(X, delta=delta).tolist() == [2.5, 0.5, 0.03125, 0.0, 0.03125, 0.5, 2.5]
    assert vmap(grad(lambda x: huber_loss(x, None, delta)))(X).tolist() == X.clamp(-1, 1).tolist()
    # of the minimum in it, JAX takes half of either side where both are equal
    curves = second(lambda x: huber_loss(x, None, delta), X)
    assert curves == [0.0, 0.25, 1.0, 1.0, 1.0, 0.25, 0.0]


@given(NUMBERS, NUMBERS, st.floats(0.0078125, 1024, width=32))
def test_huber_bounds_its_slope_and_is_symmetric(x: float, y: float, delta: float) -> None:
    a, b = torch.tensor(x), torch.tensor(y)
    assert huber_loss(a, b, delta) == huber_loss(b, a, delta)
    slope = grad(lambda p: huber_loss(p, b, delta))(a)
    assert abs(slope) <= delta * (1 + 1e-6)
    assert huber_loss(a, b, delta) <= l2_loss(a, b) * (1 + 1e-6)


def test_huber_has_a_slope_in_delta() -> None:
    slope = grad(lambda d: huber_loss(X, None, d).sum())(torch.tensor(1.0))
    assert slope.item() == 2 * (3 - 1)  # |e| - delta, of both errors outside


@given(st.floats(-80, 80, width=32), st.floats(0, 1, width=32))
def test_cross_entropy_is_that_of_the_probability(logit: float, label: float) -> None:
    with enable_x64():
        x, y = torch.tensor(logit).double(), torch.tensor(label).double()
        p = torch.sigmoid(x)
        expected = -y * torch.log(p) - (1 - y) * torch.log(torch.sigmoid(-x))
        found = sigmoid_binary_cross_entropy(x, y)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        slope = grad(lambda x: sigmoid_binary_cross_entropy(x, y))(x)
        torch.testing.assert_close(slope, p - y, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("logit", [0.0, 1e4, -1e4, 3e38, -3e38])
@pytest.mark.parametrize("label", [0, 1])
def test_cross_entropy_of_any_logit(logit: float, label: int) -> None:
    x, y = torch.tensor(logit), torch.tensor(label)
    value = sigmoid_binary_cross_entropy(x, y)
    expected = math.log(2) if logit == 0 else max(logit * (1 - 2 * label), 0.0)
    assert value.item() == pytest.approx(expected)
    curve = grad(grad(lambda x: sigmoid_binary_cross_entropy(x, y)))(x)
    assert curve.item() == pytest.approx(0.25 if logit == 0 else 0.0)


@pytest.mark.parametrize("name", ["l2_loss", "huber_loss", "sigmoid_binary_cross_entropy"])
def test_transforms_keep_values_shape_and_dtype(name: str) -> None:
    loss = getattr(losses, name)
    x, y = torch.stack([X, -X]).double(), torch.stack([X / 6 + 0.5] * 2).double()
    expected = loss(x, y)
    assert expected.shape == (2, 7) and expected.dtype == torch.float64
    torch.testing.assert_close(vmap(loss)(x, y), expected)
    with without_code_generation():
        torch.testing.assert_close(jit(loss)(x, y), expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: l2_loss(torch.ones(3), torch.ones(3, 1)),
            ValueError,
            "l2_loss: predictions and targets must have one shape, got (3,) and (3, 1).",
        ),
        (
            lambda: huber_loss(torch.ones(3), torch.ones(2)),
            ValueError,
            "huber_loss: the shapes do not fit together; got predictions float32 (3,), targets",
        ),
        (
            lambda: huber_loss(torch.ones(3, dtype=torch.int32)),
            TypeError,
            "huber_loss: predictions must be floating, got torch.int32.",
        ),
        (
            lambda: sigmoid_binary_cross_entropy(torch.ones(2, dtype=torch.bool), 1.0),
            TypeError,
            "sigmoid_binary_cross_entropy: logits must be floating, got torch.bool.",
        ),
    ],
)
def test_bad_input_is_one_sentence(call, error, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()
