"""Asymmetric losses: values and gradients computed by hand, also at zero."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from idql_func import grad, jit, losses, vmap
from idql_func.losses import (
    ACTOR_OBJECTIVES,
    CLIP_MODES,
    CRITIC_OBJECTIVES,
    advantage_weights,
    asymmetry,
    critic_objective_loss,
    exp_w_clip,
    expectile_loss,
    exponential_loss,
    implicit_policy_weights,
    quantile_loss,
)

U = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])


def slopes(loss: Callable[[Tensor], Tensor], at: Tensor = U) -> list[float]:
    return vmap(grad(loss))(at).tolist()


def approx(values: list[float], rel: float = 1e-6):
    return pytest.approx(values, rel=rel, abs=1e-7)


# --- the critic's objectives -----------------------------------------------------------------


def test_asymmetry_is_strict_at_zero() -> None:
    """Zero advantage counts as negative (quirk U6)."""
    assert asymmetry(U, 0.75).tolist() == [0.25, 0.25, 0.25, 0.75, 0.75]


def test_expectile_equals_hand_computed_values() -> None:
    assert expectile_loss(U, 0.75).tolist() == approx([1.0, 0.0625, 0.0, 0.1875, 3.0])
    assert slopes(lambda u: expectile_loss(u, 0.75)) == approx([-1.0, -0.25, 0.0, 0.75, 3.0])


def test_expectile_of_a_half_is_half_the_square() -> None:
    assert expectile_loss(U, 0.5).tolist() == approx((U**2 / 2).tolist())


def test_quantile_equals_hand_computed_values() -> None:
    assert quantile_loss(U, 0.75).tolist() == approx([0.5, 0.125, 0.0, 0.375, 1.5])
    # at zero JAX's derivative of |u| is 1, times 1 - 0.75
    assert slopes(lambda u: quantile_loss(u, 0.75)) == approx([-0.25, -0.25, 0.25, 0.75, 0.75])


def test_exponential_equals_hand_computed_values() -> None:
    beta = 0.5
    weights = [math.exp(beta * u) - 1 for u in U.tolist()]
    expected = [w * u for w, u in zip(weights, U.tolist(), strict=True)]
    assert exponential_loss(U, beta).tolist() == approx(expected)
    # a surrogate: the factor is not differentiated (quirk U7)
    assert slopes(lambda u: exponential_loss(u, beta)) == approx(weights)


def test_exponential_is_clipped_at_log_six() -> None:
    assert exponential_loss(torch.tensor([10.0]), 1.0).item() == pytest.approx(50.0)
    assert slopes(lambda u: exponential_loss(u, 1.0), torch.tensor([10.0])) == approx([5.0])
    narrow = exponential_loss(torch.tensor([2.0]), 1.0, clip=1.0, mode="first")
    assert narrow.item() == pytest.approx((2 * math.e - 1) * 2)


def test_losses_have_the_defaults_of_upstream() -> None:
    one = torch.tensor([1.0])
    assert expectile_loss(one).item() == pytest.approx(0.8)
    assert quantile_loss(one).item() == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("mode", "value", "slope"),
    [("zero", math.e, 0.0), ("first", 3 * math.e, math.e), ("second", 5 * math.e, 3 * math.e)],
)
def test_clip_modes_change_values_beyond_the_limit(mode: str, value: float, slope: float) -> None:
    f = lambda x: exp_w_clip(x, 1.0, mode)  # noqa: E731
    assert f(torch.tensor(3.0)).item() == pytest.approx(value)
    assert grad(f)(torch.tensor(3.0)).item() == pytest.approx(slope)
    assert f(torch.tensor(0.5)).item() == pytest.approx(math.exp(0.5))
    assert grad(f)(torch.tensor(0.5)).item() == pytest.approx(math.exp(0.5))
    # at x0 itself every mode gives exp(x0)
    assert f(torch.tensor(1.0)).item() == pytest.approx(math.e)


@pytest.mark.parametrize("name", CRITIC_OBJECTIVES)
def test_objectives_by_name_are_the_functions(name: str) -> None:
    function = getattr(losses, f"{name}_loss")
    assert torch.equal(critic_objective_loss(U, name, 0.7), function(U, 0.7))


@pytest.mark.parametrize("name", CRITIC_OBJECTIVES)
def test_minimiser_is_the_estimated_statistic(name: str) -> None:
    """The slope of the mean loss in V changes sign at the statistic that V estimates."""
    q = torch.linspace(-1.0, 1.0, 2001, dtype=torch.float64)
    level = 0.75
    if name == "quantile":
        v = 0.5  # the 75th percentile of the uniform distribution on [-1, 1]
    elif name == "expectile":
        # tau (1 - v)^2 = (1 - tau) (1 + v)^2
        root = math.sqrt(level / (1 - level))
        v = (root - 1) / (root + 1)
    else:
        # E exp(beta (q - v)) = 1
        v = math.log(math.sinh(level) / level) / level
    slope = grad(lambda x: critic_objective_loss(q - x, name, level).mean())
    at, below, above = (slope(torch.tensor(v + d, dtype=torch.float64)) for d in (0, -0.05, 0.05))
    assert below < 0 < above
    assert abs(at) < 2e-3


# --- weights ------------------------------------------------------------------------------------


def test_advantage_weights_equal_hand_computed_values() -> None:
    adv = torch.tensor([-1.0, -0.01, -0.005, 0.0, 1.0, 10.0])
    table = {
        "bc": [1.0] * 6,
        "soft_adv": [0.3, 0.3, 0.3, 0.3, 0.7, 0.7],
        "hard_adv": [0.0, 1.0, 1.0, 1.0, 1.0, 1.0],  # from the threshold on (quirk U9)
        "exp_adv": [math.exp(-3), math.exp(-0.03), math.exp(-0.015), 1.0, math.exp(3), 100.0],
    }
    assert tuple(table) == ACTOR_OBJECTIVES
    for objective, expected in table.items():
        assert advantage_weights(adv, objective, 0.7, 3.0).tolist() == approx(expected, 1e-5)


def test_hard_advantages_take_a_threshold() -> None:
    adv = torch.tensor([0.4, 0.5, 0.6])
    assert advantage_weights(adv, "hard_adv", 0.7, 3.0, 0.5).tolist() == [0.0, 1.0, 1.0]


def test_implicit_weights_equal_hand_computed_values() -> None:
    assert implicit_policy_weights(U, "expectile", 0.75).tolist() == [0.25, 0.25, 0.25, 0.75, 0.75]
    quantile = implicit_policy_weights(U, "quantile", 0.75).tolist()
    assert quantile == approx([0.125, 0.5, 0.25e6, 1.5, 0.375], 1e-5)
    exponential = implicit_policy_weights(U, "exponential", 0.5).tolist()
    expected = [abs(math.expm1(0.5 * u)) / abs(u) if u else 0.5 for u in U.tolist()]
    assert exponential == approx(expected, 1e-5)


def test_implicit_weights_are_the_slope_over_the_distance() -> None:
    """``|f'(u)| / |u|``, up to one factor for all candidates (IDQL, table 1)."""
    adv = torch.tensor([-2.0, -0.5, 0.5, 1.5])
    for name in CRITIC_OBJECTIVES:
        slope = vmap(grad(lambda u, name=name: critic_objective_loss(u, name, 0.7)))(adv)
        ratio = implicit_policy_weights(adv, name, 0.7) / (slope.abs() / adv.abs())
        torch.testing.assert_close(ratio, ratio[0].expand(4))


@pytest.mark.parametrize("name", CRITIC_OBJECTIVES)
def test_implicit_weights_are_positive_and_finite(name: str) -> None:
    """Those of upstream can be negative or NaN (quirks E1, E2)."""
    adv = torch.tensor([-1e30, -100.0, -1e-20, 0.0, 1e-20, 100.0, 1e30])
    weights = implicit_policy_weights(adv, name, 0.7)
    assert bool(weights.isfinite().all()) and bool((weights >= 0).all())
    assert weights.sum() > 0


# --- shapes, transforms, bad input -----------------------------------------------------------


@pytest.mark.parametrize("name", CRITIC_OBJECTIVES)
def test_losses_keep_shape_and_dtype_eager_jitted_and_mapped(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idql_func.compiler.jit.compiler_problem", lambda device: "No compiler.")
    table = torch.stack([U, 2 * U]).double()
    loss = critic_objective_loss(table, name, 0.7)
    assert loss.shape == (2, 5) and loss.dtype == torch.float64
    levels = torch.tensor([0.7, 0.9])
    mapped = vmap(lambda u, level: critic_objective_loss(u, name, level))(table, levels)
    torch.testing.assert_close(mapped[0], loss[0])
    other = critic_objective_loss(table[1], name, 0.9)
    torch.testing.assert_close(mapped[1], other, rtol=1e-6, atol=0)
    with pytest.warns(RuntimeWarning):
        jitted = jit(critic_objective_loss, static_argnums=1)(table, name, 0.7)
    torch.testing.assert_close(jitted, loss, rtol=1e-6, atol=0)


def test_unknown_name_raises_with_the_known_names() -> None:
    with pytest.raises(ValueError, match=r"'l2'.*expectile.*quantile.*exponential"):
        critic_objective_loss(U, "l2", 0.7)
    with pytest.raises(ValueError, match=r"'l2'.*expectile.*quantile.*exponential"):
        implicit_policy_weights(U, "l2", 0.7)
    with pytest.raises(ValueError, match=r"'awr'.*bc.*soft_adv.*hard_adv.*exp_adv"):
        advantage_weights(U, "awr", 0.7, 3.0)
    with pytest.raises(ValueError, match=r"zero.*first.*second.*got 'third'"):
        exp_w_clip(U, 1.0, "third")
    assert CLIP_MODES == ("zero", "first", "second")
