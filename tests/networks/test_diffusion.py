"""Noise schedules, time features, the noise predictor and the sampler."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from idql_func import enable_x64, random, tree_map, value_and_grad
from idql_func.networks import (
    DDPM,
    MLP,
    Dense,
    FourierFeatures,
    MLPResNet,
    cosine_beta_schedule,
    ddpm_sampler,
    linear_beta_schedule,
    vp_beta_schedule,
)

KEY = random.PRNGKey(0)
SCHEDULES = (cosine_beta_schedule, linear_beta_schedule, vp_beta_schedule)


# --- schedules ------------------------------------------------------------------------------


def test_cosine_betas_equal_hand_computed_values() -> None:
    def alpha_hat(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = [1 - alpha_hat((i + 1) / 5) / alpha_hat(i / 5) for i in range(4)] + [0.999]
    assert cosine_beta_schedule(5).tolist() == pytest.approx(expected, rel=1e-5)


def test_linear_betas_equal_hand_computed_values() -> None:
    betas = linear_beta_schedule(5)
    assert betas.tolist() == pytest.approx([1e-4 + i * (2e-2 - 1e-4) / 4 for i in range(5)])
    assert linear_beta_schedule(1).tolist() == pytest.approx([1e-4])
    # not rescaled to T: hardly any noise after 5 steps (quirk N10)
    assert torch.prod(1 - betas).item() == pytest.approx(0.951, abs=1e-3)


def test_vp_betas_equal_hand_computed_values() -> None:
    expected = [1 - math.exp(-0.1 / 5 - 0.5 * 9.9 * (2 * t - 1) / 25) for t in range(1, 6)]
    betas = vp_beta_schedule(5)
    assert betas.tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.prod(1 - betas).item() == pytest.approx(0.0064, abs=1e-4)  # quirk N9


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_betas_of_any_number_of_steps_ascend(schedule: Any) -> None:
    for steps in (1, 2, 50):
        betas = schedule(steps)
        assert betas.shape == (steps,) and betas.dtype == torch.float32
        assert bool(((betas > 0) & (betas <= 0.999)).all())
        assert bool((betas.diff() >= 0).all())
    with enable_x64():
        assert schedule(3).dtype == torch.float64
    for steps in (0, -1):
        with pytest.raises(ValueError, match=f"diffusion steps must be at least 1, got {steps}"):
            schedule(steps)


# --- time features ----------------------------------------------------------------------------


def test_fourier_features_are_cosines_then_sines() -> None:
    net = FourierFeatures(4)
    params = {"kernel": torch.tensor([[0.25], [0.1]])}
    y = net.apply(params, torch.tensor([[0], [2]]))
    assert y[0].tolist() == [1.0, 1.0, 0.0, 0.0]
    f = [2 * math.pi * 2 * 0.25, 2 * math.pi * 2 * 0.1]
    expected = [math.cos(f[0]), math.cos(f[1]), math.sin(f[0]), math.sin(f[1])]
    assert y[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_fourier_features_without_parameters() -> None:
    net = FourierFeatures(4, learnable=False)
    assert net.init(KEY) == {}
    y = net.apply({}, torch.tensor([[3.0]]))
    rates = [1.0, 1e-4]
    expected = [math.cos(3 * r) for r in rates] + [math.sin(3 * r) for r in rates]
    assert y[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_fourier_features_need_an_even_size() -> None:
    for size in (0, 1, 7):
        with pytest.raises(ValueError, match=f"output_size must be even, got {size}"):
            FourierFeatures(size)


# --- noise predictor ----------------------------------------------------------------------------


def ddpm() -> DDPM:
    return DDPM(MLP(8, [6, 4]), MLP(2 + 3 + 4, [5, 2]), FourierFeatures(8))


def test_parameter_tree_equals_flax() -> None:
    assert tree_map(lambda p: tuple(p.shape), ddpm().init(KEY)) == {
        "FourierFeatures_0": {"kernel": (4, 1)},
        "MLP_0": {
            "Dense_0": {"kernel": (8, 6), "bias": (6,)},
            "Dense_1": {"kernel": (6, 4), "bias": (4,)},
        },
        "MLP_1": {
            "Dense_0": {"kernel": (9, 5), "bias": (5,)},
            "Dense_1": {"kernel": (5, 2), "bias": (2,)},
        },
    }


def test_reverse_encoder_gets_action_observation_and_time() -> None:
    net = DDPM(MLP(2, [1]), MLP(1 + 1 + 1, [1]), FourierFeatures(2))
    params = {
        "FourierFeatures_0": {"kernel": torch.tensor([[0.25]])},
        "MLP_0": {"Dense_0": {"kernel": torch.tensor([[0.0], [1.0]]), "bias": torch.zeros(1)}},
        "MLP_1": {
            "Dense_0": {"kernel": torch.tensor([[1.0], [10.0], [100.0]]), "bias": torch.zeros(1)}
        },
    }
    # time 1: sin(2 pi / 4) is 1
    y = net.apply(params, torch.tensor([[3.0]]), torch.tensor([[2.0]]), torch.tensor([[1]]))
    assert y.item() == pytest.approx(2 + 30 + 100, rel=1e-5)


NETWORKS = {
    "resnet": lambda: MLPResNet(2 + 3 + 4, 1, 2, 0.2, True, hidden_dim=8),
    "mlp": lambda: MLP(2 + 3 + 4, [5, 2]),
    "normalised input": lambda: MLP(2 + 3 + 4, [5, 2], use_layer_norm=True),
    "another network": lambda: Dense(2 + 3 + 4, 2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_encoding_each_time_once_gives_the_same_values_and_gradients(name: str) -> None:
    net = DDPM(MLP(8, [6, 4]), NETWORKS[name](), FourierFeatures(8))
    params = net.init(KEY)
    s, a, t = torch.randn(20, 3), torch.randn(20, 2), torch.arange(20).unsqueeze(1) % 3
    dropout: dict[str, Any] = {"training": True, "rngs": {"dropout": random.PRNGKey(1)}}

    def loss(params: Any, **options: Any) -> Tensor:
        return (net.apply(params, s, a, t, **dropout, **options) ** 2).sum()

    want, got = value_and_grad(loss)(params), value_and_grad(lambda p: loss(p, steps=3))(params)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    # more steps than rows, and steps that no row has
    torch.testing.assert_close(
        net.apply(params, s[:2], a[:2], t[:2], steps=50), net.apply(params, s[:2], a[:2], t[:2])
    )


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_inputs_equal_in_all_rows_need_not_be_repeated(name: str, steps: int | None) -> None:
    net = DDPM(MLP(8, [6, 4]), NETWORKS[name](), FourierFeatures(8))
    params = net.init(KEY)
    s, a = torch.randn(4, 3), torch.randn(4, 5, 2)
    shared = net.apply(params, s.unsqueeze(1), a, torch.full((1, 1, 1), 2), steps=steps)
    rows = net.apply(params, s.repeat_interleave(5, 0), a.flatten(0, 1), torch.full((20, 1), 2))
    torch.testing.assert_close(shared.flatten(0, 1), rows, rtol=1e-5, atol=1e-6)


# --- sampler --------------------------------------------------------------------------------------


def sample(
    eps: Any = lambda params, s, a, t, training: 0.5 * a,
    steps: int = 3,
    seed: int = 0,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    betas = vp_beta_schedule(steps)
    alphas = 1 - betas
    settings: dict[str, Any] = {
        "sample_temperature": 1.0,
        "repeat_last_step": 0,
        "clip_sampler": True,
        **options,
    }
    return ddpm_sampler(
        eps, {}, steps, random.PRNGKey(seed), 2, torch.zeros(4, 3), alphas,
        torch.cumprod(alphas, 0), betas, **settings,
    )  # fmt: skip


def test_sampler_of_one_step_equals_hand_computed_values() -> None:
    """At t = 0 the noise is masked, and alpha_hat equals alpha."""
    (actions, _), alpha = sample(steps=1, clip_sampler=False), 1 - vp_beta_schedule(1)[0]
    noise_key, _ = random.split(KEY)
    start = random.normal(noise_key, (4, 2))
    expected = (start - torch.sqrt(1 - alpha) * 0.5 * start) / torch.sqrt(alpha)
    torch.testing.assert_close(actions, expected.clamp(-1, 1))


def test_sampler_runs_the_steps_in_descending_order() -> None:
    times: list[list[int]] = []

    def eps(params: Any, s: Tensor, a: Tensor, t: Tensor, training: bool) -> Tensor:
        assert a.shape == (4, 2) and t.shape == (4, 1) and training is False
        times.append(t[:, 0].tolist())
        return a

    sample(eps, steps=3, repeat_last_step=2)
    assert times == [[2] * 4, [1] * 4, [0] * 4, [0] * 4, [0] * 4]


def test_sampler_depends_on_the_key_and_returns_the_next() -> None:
    (a, key_a), (b, key_b), (c, key_c) = sample(), sample(), sample(seed=1)
    assert torch.equal(a, b) and torch.equal(key_a, key_b)
    assert not torch.equal(a, c) and not torch.equal(key_a, key_c)
    # one key for the start, one for each step (quirk N13)
    expected = random.split(KEY)[1]
    for _ in range(3):
        expected = random.split(expected)[0]
    assert torch.equal(key_a, expected)


def test_temperature_scales_the_noise_but_not_the_start() -> None:
    cold, _ = sample(sample_temperature=0.0, clip_sampler=False)
    warm, key = sample(sample_temperature=1.0, clip_sampler=False)
    assert not torch.equal(cold, warm)
    # at temperature 0 the path is a deterministic function of the start
    betas = vp_beta_schedule(3)
    alphas, hats = 1 - betas, torch.cumprod(1 - betas, 0)
    x = random.normal(random.split(KEY)[0], (4, 2))
    for t in (2, 1, 0):
        x = (x - (1 - alphas[t]) / torch.sqrt(1 - hats[t]) * 0.5 * x) / torch.sqrt(alphas[t])
    torch.testing.assert_close(cold, x.clamp(-1, 1))
    # and the key advances in the same way
    assert torch.equal(key, sample(sample_temperature=0.0)[1])


def test_repeated_last_steps_change_actions_and_key() -> None:
    (once, key_once), (more, key_more) = sample(), sample(repeat_last_step=2)
    assert not torch.equal(once, more)
    assert torch.equal(key_more, random.split(random.split(key_once)[0])[0])


def test_clip_sampler_clips_every_step_and_actions_are_always_clipped() -> None:
    def constant(params: Any, s: Tensor, a: Tensor, t: Tensor, training: bool) -> Tensor:
        return -100.0 * torch.ones_like(a)

    sizes: list[float] = []

    def recorded(params: Any, s: Tensor, a: Tensor, t: Tensor, training: bool) -> Tensor:
        sizes.append(a.abs().max().item())
        return constant(params, s, a, t, training)

    for clip in (True, False):
        actions, _ = sample(recorded, clip_sampler=clip)
        assert actions.tolist() == [[1.0, 1.0]] * 4  # in any case (quirk N14)
    clipped, free = sizes[:3], sizes[3:]
    assert max(clipped[1:]) <= 1.0 < min(free[1:])
