"""Dense, LayerNorm, Dropout, activations and initialisers."""

from __future__ import annotations

import math

import pytest
import torch

from idql_func import grad, jit, random, vmap
from idql_func.networks import Dense, Dropout, LayerNorm, default_init, mish, relu, swish
from idql_func.networks.initializers import lecun_normal, normal, ones, xavier_uniform, zeros
from idql_func.networks.layers import IndexedRows, join

KEY = random.PRNGKey(0)


def test_dense_accepts_any_number_of_axes() -> None:
    layer = Dense(3, 2)
    params = layer.init(KEY)
    params["bias"] = torch.tensor([0.5, -0.5])
    x = torch.arange(12.0).reshape(2, 2, 3)
    y = layer.apply(params, x)
    assert y.shape == (2, 2, 2)
    torch.testing.assert_close(layer.apply(params, x[1]), y[1])
    torch.testing.assert_close(layer.apply(params, x[1, 0]), y[1, 0])
    by_hand = sum(x[1, 0, i] * params["kernel"][i] for i in range(3)) + params["bias"]
    torch.testing.assert_close(y[1, 0], by_hand)


PARTS = {
    "equal rows": (torch.randn(4, 2), torch.randn(4, 3)),
    "shared": (torch.randn(4, 2, 2), torch.randn(4, 1, 3), torch.randn(1, 1, 1)),
    "all broadcast": (torch.randn(4, 1, 2), torch.randn(1, 5, 3)),
    "indexed": (torch.randn(4, 2), IndexedRows(torch.tensor([2, 0, 0, 1]), torch.randn(3, 4))),
    "one index for all": (torch.randn(4, 2), IndexedRows(torch.tensor([1]), torch.randn(3, 4))),
}


@pytest.mark.parametrize("name", PARTS)
def test_dense_of_parts_equals_dense_of_their_concatenation(name: str) -> None:
    parts = PARTS[name]
    joined = join(parts)
    layer = Dense(joined.shape[-1], 6)
    params = {**layer.init(KEY), "bias": torch.randn(6)}

    def loss(params: dict[str, torch.Tensor], x: object) -> torch.Tensor:
        return (layer.apply(params, x) ** 2).sum()

    torch.testing.assert_close(layer.apply(params, parts), layer.apply(params, joined))
    of_parts, of_joined = (grad(loss)(params, x) for x in (parts, joined))
    torch.testing.assert_close(of_parts, of_joined, rtol=1e-5, atol=1e-5)
    # several layers at once, as in an ensemble or a stack of learners
    two = {k: torch.stack([v, -v]) for k, v in params.items()}
    torch.testing.assert_close(
        vmap(grad(loss), in_axes=(0, None))(two, parts)["kernel"][0], of_joined["kernel"],
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def test_compiled_dense_has_the_values_of_its_equation() -> None:
    layer = Dense(3, 8)
    params = {**layer.init(KEY), "bias": torch.randn(8)}
    x, index, table = torch.randn(4, 2), torch.tensor([1, 1, 0, 1]), torch.randn(2, 1)

    def both(params: dict[str, torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        joined = torch.cat([x, table[index]], dim=1)
        return layer.apply(params, joined), layer.apply(params, (x, IndexedRows(index, table)))

    expected = torch.cat([x, table[index]], dim=1) @ params["kernel"] + params["bias"]
    for result in (*both(params, x), *jit(both)(params, x)):
        torch.testing.assert_close(result, expected)


def test_layer_norm_equals_hand_computed_values() -> None:
    layer = LayerNorm(4)
    params = {
        "scale": torch.tensor([1.0, 2.0, 1.0, 1.0]),
        "bias": torch.tensor([0.0, 0.0, 5.0, 0.0]),
    }
    y = layer.apply(params, torch.tensor([1.0, 2.0, 3.0, 6.0]))
    # mean 3, variance 3.5
    s = 1 / math.sqrt(3.5 + 1e-6)
    torch.testing.assert_close(y, torch.tensor([-2 * s, -2 * s, 5.0, 3 * s]))


def test_layer_norm_epsilon_equals_flax() -> None:
    """1e-6, not torch's 1e-5 (quirk N5): at a variance of 1e-6 it halves the squared output."""
    layer = LayerNorm(2)
    x = torch.tensor([-1e-3, 1e-3])
    y = layer.apply(layer.init(KEY), x)
    assert y[1].item() == pytest.approx(1 / math.sqrt(2), rel=1e-4)


def test_layer_norm_of_a_large_constant_has_no_negative_variance() -> None:
    layer = LayerNorm(3)
    y = layer.apply(layer.init(KEY), torch.full((5, 3), 12345.678))
    assert bool(y.isfinite().all())


def test_layer_norm_initial_scale_is_one_and_bias_zero() -> None:
    params = LayerNorm(3).init(KEY)
    assert params["scale"].tolist() == [1.0] * 3 and params["bias"].tolist() == [0.0] * 3


# --- dropout --------------------------------------------------------------------------------


def test_dropout_zeroes_a_fraction_and_scales_the_others() -> None:
    x = torch.ones(10_000)
    y = Dropout(0.25).apply({}, x, training=True, rngs={"dropout": KEY})
    kept = y != 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.02)
    assert torch.all(y[kept] == torch.tensor(1.0) / 0.75)


def test_dropout_is_a_function_of_the_key() -> None:
    x = torch.ones(50)
    drop = Dropout(0.5)
    first, again, other = (
        drop.apply({}, x, training=True, rngs={"dropout": random.PRNGKey(s)}) for s in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_dropout_is_off_outside_training_and_at_rate_zero() -> None:
    x = torch.arange(4.0)
    assert torch.equal(Dropout(0.5).apply({}, x), x)
    assert torch.equal(Dropout(0.5).apply({}, x, rngs={"dropout": KEY}), x)
    assert torch.equal(Dropout(0.0).apply({}, x, training=True), x)
    assert Dropout(1.0).apply({}, x, training=True, rngs={"dropout": KEY}).tolist() == [0.0] * 4


def test_dropout_without_a_key_raises() -> None:
    with pytest.raises(ValueError, match=r"needs a key; pass rngs=\{'dropout': key\}"):
        Dropout(0.5).apply({}, torch.ones(2), training=True)


# --- activations ----------------------------------------------------------------------------


def test_activations_equal_hand_computed_values() -> None:
    x = torch.tensor([-1.5, 0.0, 2.0])
    assert relu(x).tolist() == [0.0, 0.0, 2.0]
    for i, v in enumerate(x.tolist()):
        assert swish(x)[i].item() == pytest.approx(v / (1 + math.exp(-v)), rel=1e-6)
        softplus = math.log1p(math.exp(v))
        assert mish(x)[i].item() == pytest.approx(v * math.tanh(softplus), rel=1e-6)


def test_relu_gradient_at_zero_is_zero() -> None:
    assert grad(relu)(torch.tensor(0.0)).item() == 0.0


# --- initialisers ---------------------------------------------------------------------------


def test_xavier_uniform_has_its_range_and_variance() -> None:
    draw = xavier_uniform()(KEY, (60, 90))
    limit = math.sqrt(6 / (60 + 90))
    assert 0.99 * limit < draw.abs().max().item() <= limit
    assert draw.var().item() == pytest.approx(2 / 150, rel=0.05)
    assert torch.equal(default_init()(KEY, (60, 90)), draw)
    torch.testing.assert_close(default_init(0.25)(KEY, (60, 90)), draw / 2)


def test_lecun_normal_has_its_variance_and_truncation() -> None:
    draw = lecun_normal()(KEY, (50, 200))
    assert draw.var().item() == pytest.approx(1 / 50, rel=0.05)
    cut = 2 / math.sqrt(50) / 0.87962566103423978
    assert 0.98 * cut < draw.abs().max().item() <= cut


def test_fans_of_convolutions_include_the_kernel_size() -> None:
    draw = xavier_uniform()(KEY, (3, 3, 8, 16))
    assert draw.abs().max().item() <= math.sqrt(6 / (9 * 24))
    assert draw.abs().max().item() > 0.99 * math.sqrt(6 / (9 * 24))


def test_normal_zeros_and_ones_have_their_values() -> None:
    assert normal(0.2)(KEY, (100, 100)).std().item() == pytest.approx(0.2, rel=0.03)
    assert zeros(KEY, (2,)).tolist() == [0.0, 0.0] and ones(KEY, (2,)).tolist() == [1.0, 1.0]
