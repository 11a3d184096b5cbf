"""Clipping, momentum, warm-up and hyper-parameters that are tensors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idql_func import enable_x64, grad, jit, optim, tree_map, vmap
from idql_func.optim import EmptyState

PARAMS = {"kernel": torch.tensor([1.0, -2.0]), "bias": torch.tensor([0.5])}
GRADS = {"kernel": torch.tensor([0.3, -0.4]), "bias": torch.tensor([1.2])}  # of norm 1.3


def steps(tx: Any, count: int = 3) -> Any:
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(count):
        params, state = optim.step(tx, GRADS, state, params)
    return params


def assert_equal(found: Any, expected: Any) -> None:
    tree_map(lambda a, b: torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7), found, expected)


# --- values -------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "factor"), [(2.6, 1.0), (1.3, 1.0), (0.65, 0.5), (0.0, 0.0)])
def test_clipped_norm_is_the_limit_at_most(limit: float, factor: float) -> None:
    clipped, _ = optim.clip_by_global_norm(limit).update(GRADS, EmptyState())
    assert_equal(clipped, tree_map(lambda g: factor * g, GRADS))


@settings(deadline=None, max_examples=50)
@given(st.floats(0.01, 10.0), st.integers(0, 10**6))
def test_clipping_keeps_direction_and_smaller_norms(limit: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    updates = {"a": torch.randn(3, generator=generator), "b": torch.randn((), generator=generator)}
    clipped, _ = optim.clip_by_global_norm(limit).update(updates, EmptyState())
    norm = optim.global_norm(updates)
    assert optim.global_norm(clipped) <= limit * (1 + 1e-5)
    factor = 1.0 if norm < limit else limit / norm
    assert_equal(clipped, tree_map(lambda g: g * factor, updates))


def test_nan_stays_visible_when_clipped() -> None:
    broken = {**GRADS, "bias": torch.tensor([float("nan")])}
    clipped, _ = optim.clip_by_global_norm(1.0).update(broken, EmptyState())
    assert all(leaf.isnan().all() for leaf in clipped.values())


def test_momentum_sums_and_nesterov_looks_one_step_ahead() -> None:
    plain, momentum = optim.sgd(0.1), optim.sgd(0.1, 0.5)
    nesterov = optim.sgd(0.1, 0.5, nesterov=True)
    total = {"sgd": 3, "momentum": 1 + 1.5 + 1.75, "nesterov": 1.5 + 1.75 + 1.875}
    for tx, factor in zip((plain, momentum, nesterov), total.values(), strict=True):
        expected = tree_map(lambda p, g, f=factor: p - 0.1 * f * g, PARAMS, GRADS)
        assert_equal(steps(tx), expected)


def test_warm_up_of_adam() -> None:
    warm_up = optim.linear_schedule(0.0, 0.1, 2)
    rate = optim.join_schedules([warm_up, optim.constant_schedule(0.1)], [2])
    found = [rate(torch.tensor(t)).item() for t in range(5)]
    assert found == pytest.approx([0.0, 0.05, 0.1, 0.1, 0.1])
    assert_equal(steps(optim.adam(rate), 1), PARAMS)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=4, unique=True), st.integers(0, 30), st.data()
)
def test_joined_schedules_count_from_their_own_start(
    ends: list[int], count: int, data: st.DataObject
) -> None:
    boundaries = sorted(ends)
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=len(ends) + 1, max_size=len(ends) + 1))
    schedules = [optim.linear_schedule(k, k + 1, n) for k, n in enumerate(lengths)]
    joined = optim.join_schedules(schedules, boundaries)
    place = sum(count >= b for b in boundaries)
    begin = [0, *boundaries][place]
    expected = schedules[place](torch.tensor(count - begin))
    assert joined(torch.tensor(count)) == expected


def test_schedules_have_the_dtypes_of_jax_with_x64() -> None:
    """A linear schedule divides 32-bit integers in float32; constants and cosines follow it."""
    line, constant = optim.linear_schedule(0.0, 1.0, 3), optim.constant_schedule(1.0)
    cosine = optim.cosine_decay_schedule(1.0, 3)
    step = torch.tensor(1, dtype=torch.int32)
    with enable_x64():
        assert line(step).dtype == torch.float32
        assert optim.join_schedules([line, cosine], [5])(step).dtype == torch.float32
        assert optim.join_schedules([constant, cosine], [5])(step).dtype == torch.float64


# --- hyper-parameters that are tensors ---------------------------------------------------------


def adam(values: Any) -> optim.Chain:
    rate, b1, b2, eps, root = values
    return optim.adam(rate, b1, b2, eps, root)


def clipped_sgd(values: Any) -> optim.Chain:
    rate, decay, limit, top, _ = values
    return optim.chain(
        optim.clip_by_global_norm(limit), optim.clip(top), optim.sgd(rate, decay, nesterov=True)
    )


MAKERS = {"adam": adam, "clipped sgd": clipped_sgd}
NUMBERS = torch.tensor([[0.1, 0.9, 0.99, 1e-8, 0.0], [0.02, 0.5, 0.9, 1e-3, 1e-2]])


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_each_member_of_a_batch_has_its_own_numbers(
    make: Callable[[torch.Tensor], optim.Chain],
) -> None:
    members = vmap(lambda values: steps(make(values)))(NUMBERS)
    for k, row in enumerate(NUMBERS):
        expected = steps(make(row))
        assert_equal(tree_map(lambda leaf, k=k: leaf[k], members), expected)
        assert_equal(jit(lambda values: steps(make(values)))(row), expected)
        if make is adam:
            assert_equal(expected, steps(optim.adam(*row.tolist())))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_derivatives_of_numbers_equal_finite_differences(
    make: Callable[[torch.Tensor], optim.Chain],
) -> None:
    def loss(values: torch.Tensor) -> torch.Tensor:
        params = tree_map(lambda leaf: leaf.double(), PARAMS)
        gradients = tree_map(lambda leaf: leaf.double(), GRADS)
        tx = make(values)
        state = tx.init(params)
        for _ in range(3):
            params, state = optim.step(tx, gradients, state, params)
        return sum((leaf.sum() for leaf in params.values()), torch.zeros(()).double())

    with enable_x64():
        values = NUMBERS[1].double()
        found = grad(loss)(values)
        for k in range(5):
            shift = torch.zeros(5).double()
            shift[k] = 1e-6
            expected = (loss(values + shift) - loss(values - shift)) / 2e-6
            torch.testing.assert_close(found[k], expected, rtol=1e-6, atol=1e-8)


def test_eps_root_makes_the_derivative_finite_at_a_zero_gradient() -> None:
    def moved(gradient: torch.Tensor, root: float) -> torch.Tensor:
        tx = optim.adam(0.1, eps_root=root)
        params = {"w": torch.ones(())}
        return optim.step(tx, {"w": gradient}, tx.init(params), params)[0]["w"]

    derivative = grad(lambda g: moved(g, 1e-4))(torch.zeros(()))
    assert derivative.item() == pytest.approx(-0.1 / (1e-2 + 1e-8), rel=1e-4)


def test_eps_root_of_zero_is_the_fused_step() -> None:
    assert_equal(steps(optim.adam(0.1, eps_root=0)), steps(optim.adam(0.1)))


# --- bad input ------------------------------------------------------------------------------------


CONSTANT = optim.constant_schedule(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (optim.chain, "chain: give at least one transformation"),
        (lambda: optim.clip(-1.0), "clip: max_delta must not be negative, got -1.0."),
        (lambda: optim.clip_by_global_norm(-2.0), "max_norm must not be negative, got -2.0."),
        (lambda: optim.linear_schedule(0.0, 1.0, 0), "transition_steps must be positive, got 0."),
        (lambda: optim.linear_schedule(0.0, 1.0, 2, -1), "transition_begin must not be negative"),
        (lambda: optim.join_schedules([], []), "one boundary less, got 0 and 0."),
        (lambda: optim.join_schedules([CONSTANT], [3]), "one boundary less, got 1 and 1."),
        (
            lambda: optim.join_schedules([CONSTANT] * 3, [3, 3]),
            "the boundaries must be positive and increase, got (3, 3).",
        ),
        (
            lambda: optim.join_schedules([0.1, CONSTANT], [3]),  # type: ignore[list-item]
            "a schedule must be a function of the step, got 0.1.",
        ),
        (
            lambda: steps(optim.adamw(0.1, mask=lambda params: {**params, "bias": {"a": True}})),
            "adamw: each leaf of mask must be True or False, got",
        ),
    ],
)
def test_bad_input_gets_one_sentence(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)) as raised:
        call()
    assert "\n" not in str(raised.value)
