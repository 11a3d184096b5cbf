"""Policy distributions: draws, densities, modes. The parity suite compares them with TFP."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idql_func import disable_jit, enable_x64, grad, jit, random, vmap
from idql_func.distributions import Diagonal, Normal, TanhDeterministic, TanhNormal
from idql_func.networks import MLP
from idql_func.tree import tree_paths

KEY = random.PRNGKey(0)
BASE = {"input_dim": 3, "hidden_dims": [8], "activate_final": True, "action_dim": 2}


def diagonal(tanh: bool, rows: int = 4, size: int = 2) -> Diagonal:
    loc, log_scale = random.normal(KEY, (2, rows, size)).unbind(0)
    return Diagonal(loc=loc, scale=torch.exp(0.3 * log_scale), tanh=tanh)


@pytest.mark.parametrize("tanh", [False, True])
def test_densities_equal_those_of_torch(tanh: bool) -> None:
    dist = diagonal(tanh)
    reference: torch.distributions.Distribution = torch.distributions.Normal(dist.loc, dist.scale)
    if tanh:
        squash = torch.distributions.transforms.TanhTransform()
        reference = torch.distributions.TransformedDistribution(reference, [squash])
    value = random.uniform(KEY, (4, 2), None, -0.9, 0.9)
    expected = reference.log_prob(value).sum(-1)
    torch.testing.assert_close(dist.log_prob(value), expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_log_prob_of_a_draw_equals_its_density(tanh: bool, shape: tuple[int, ...]) -> None:
    dist = diagonal(tanh)
    action, log_prob = dist.sample_and_log_prob(KEY, shape)
    assert action.shape == (*shape, 4, 2) and log_prob.shape == (*shape, 4)
    assert torch.equal(action, dist.sample(KEY, shape))
    torch.testing.assert_close(log_prob, dist.log_prob(action), rtol=1e-3, atol=1e-3)


def test_draws_have_the_mean_and_standard_deviation() -> None:
    dist = diagonal(tanh=False)
    drawn = dist.sample(KEY, (20_000,))
    torch.testing.assert_close(drawn.mean(0), dist.loc, rtol=0, atol=0.05)
    torch.testing.assert_close(drawn.std(0), dist.scale, rtol=0.03, atol=0)


def test_action_axis_is_drawn_first() -> None:
    """TFP draws [n, A, batch] and transposes."""
    dist = Diagonal(loc=torch.zeros(4, 2), scale=torch.ones(2), tanh=False)
    expected = random.normal(KEY, (3, 2, 4)).transpose(1, 2)
    assert torch.equal(dist.sample(KEY, (3,)), expected)


def test_density_under_tanh_integrates_to_one() -> None:
    with enable_x64():
        one = torch.ones(1, dtype=torch.float64)
        dist = Diagonal(loc=0.3 * one, scale=0.7 * one, tanh=True)
        grid = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1]
        density = torch.exp(dist.log_prob(grid[:, None]))
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-4)


@given(st.floats(-1.5, 1.5, width=32), st.floats(-6.0, 6.0, width=32))
def test_densities_and_their_gradients_are_finite_everywhere(action: float, mean: float) -> None:
    def density(loc: torch.Tensor) -> torch.Tensor:
        dist = Diagonal(loc=loc, scale=torch.full((1,), 0.1), tanh=True)
        return dist.log_prob(torch.tensor([action]))

    loc = torch.tensor([mean])
    assert density(loc).isfinite() and grad(density)(loc).isfinite().all()


def test_draw_at_the_bound_keeps_its_density() -> None:
    dist = Diagonal(loc=torch.tensor([20.0]), scale=torch.ones(1), tanh=True)
    action, log_prob = dist.sample_and_log_prob(KEY)
    assert action.item() == 1.0 and 0 < log_prob.item() < 100


def test_mode_and_entropy_equal_their_definitions() -> None:
    dist = diagonal(tanh=False)
    assert torch.equal(dist.mode(), dist.loc)
    expected = torch.distributions.Normal(dist.loc, dist.scale).entropy().sum(-1)
    torch.testing.assert_close(dist.entropy(), expected)
    squashed = diagonal(tanh=True)
    assert torch.equal(squashed.mode(), torch.tanh(squashed.loc))
    with pytest.raises(NotImplementedError, match="no closed form: average -log_prob"):
        squashed.entropy()


def test_entropy_counts_a_shared_deviation_for_each_action() -> None:
    dist = Diagonal(loc=torch.zeros(4, 2), scale=torch.full((2,), 0.1), tanh=False)
    expected = 2 * (0.5 + 0.5 * math.log(2 * math.pi) + math.log(0.1))
    np.testing.assert_allclose(dist.entropy().numpy(), np.full(4, expected), rtol=1e-6)


# --- networks -------------------------------------------------------------------------------


def test_parameter_trees_equal_those_of_flax() -> None:
    def names(module: Normal | TanhDeterministic) -> set[str]:
        return {path.rsplit("/", 1)[0] for path in tree_paths(module.init(KEY))}

    assert names(Normal(MLP, **BASE)) == {"MLP_0/Dense_0", "OutputDenseMean", "OutputDenseLogStd"}
    fixed = Normal(MLP, **BASE, state_dependent_std=False)
    assert set(fixed.init(KEY)) == {"MLP_0", "OutpuLogStd", "OutputDenseMean"}
    assert names(TanhDeterministic(MLP, **BASE)) == {"MLP_0/Dense_0", "OutputDenseMean"}


def test_log_std_is_clipped_and_has_no_gradient_outside() -> None:
    """The fixed deviation of BC and IQL: quirk U22."""
    low = math.log(0.1)
    module = Normal(MLP, **BASE, log_std_min=low, log_std_max=low, state_dependent_std=False)
    params = module.init(KEY)
    observations = torch.ones(4, 3)
    dist = module.apply(params, observations)
    torch.testing.assert_close(dist.scale, torch.full((2,), 0.1))

    def loss(params: dict) -> torch.Tensor:
        return module.apply(params, observations).log_prob(torch.zeros(4, 2)).sum()

    grads = grad(loss)(params)
    assert torch.equal(grads["OutpuLogStd"], torch.zeros(2))
    assert grads["OutputDenseMean"]["kernel"].abs().sum() > 0


@pytest.mark.parametrize("bounds", [(-20.0, 2.0), (-1.0, -0.5)])
def test_bounds_hold_for_a_state_dependent_deviation(bounds: tuple[float, float]) -> None:
    module = TanhNormal(MLP, **BASE, log_std_min=bounds[0], log_std_max=bounds[1])
    scale = module.apply(module.init(KEY), 50 * random.normal(KEY, (64, 3))).scale
    assert scale.min() >= math.exp(bounds[0]) * 0.999 and scale.max() <= math.exp(bounds[1]) * 1.001


@pytest.mark.parametrize("wrong", [{"action_dim": 0}, {"log_std_min": 1.0, "log_std_max": 0.0}])
def test_invalid_settings_raise(wrong: dict) -> None:
    with pytest.raises(ValueError, match="action_dim must be at least 1 and log_std_min"):
        Normal(MLP, **{**BASE, **wrong})


def test_deterministic_actions_are_within_bounds() -> None:
    module = TanhDeterministic(MLP, **BASE)
    actions = module.apply(module.init(KEY), 100 * random.normal(KEY, (16, 3)))
    assert actions.shape == (16, 2) and actions.abs().max() <= 1


def test_distribution_passes_through_transforms() -> None:
    def draw(dist: Diagonal, key: torch.Tensor) -> torch.Tensor:
        return dist.sample(key)

    dists, keys = diagonal(tanh=True), random.split(KEY, 4)
    stacked = Diagonal(loc=dists.loc, scale=dists.scale, tanh=True)
    mapped = vmap(draw)(stacked, keys)
    with disable_jit():
        rows = [
            jit(draw)(Diagonal(loc=dists.loc[i], scale=dists.scale[i], tanh=True), keys[i])
            for i in range(4)
        ]
    assert torch.equal(mapped, torch.stack(rows))
