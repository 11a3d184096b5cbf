"""The MLP: parameter tree, order of operations, decay mask."""

from __future__ import annotations

import pytest
import torch

from idql_func import random, tree_map
from idql_func.networks import MLP, get_weight_decay_mask, relu

KEY = random.PRNGKey(0)


def shapes(tree: object) -> object:
    return tree_map(lambda p: tuple(p.shape), tree)


def test_parameter_tree_equals_flax() -> None:
    assert shapes(MLP(10, [256, 4]).init(KEY)) == {
        "Dense_0": {"kernel": (10, 256), "bias": (256,)},
        "Dense_1": {"kernel": (256, 4), "bias": (4,)},
    }
    # dropout has no parameters; layer norm has the size of the input (quirk N1)
    assert shapes(MLP(10, [6, 4], use_layer_norm=True, dropout_rate=0.1).init(KEY)) == {
        "LayerNorm_0": {"scale": (10,), "bias": (10,)},
        "Dense_0": {"kernel": (10, 6), "bias": (6,)},
        "Dense_1": {"kernel": (6, 4), "bias": (4,)},
    }


def test_forward_equals_hand_computed_values() -> None:
    net = MLP(2, [2, 1])
    params = {
        "Dense_0": {"kernel": torch.tensor([[1.0, -1.0], [2.0, 0.5]]), "bias": torch.zeros(2)},
        "Dense_1": {"kernel": torch.tensor([[-3.0], [10.0]]), "bias": torch.tensor([1.0])},
    }
    x = torch.tensor([[1.0, 1.0]])  # hidden (3, -0.5), activated (3, 0)
    assert net.apply(params, x).tolist() == [[-8.0]]
    final = MLP(2, [2, 1], activate_final=True)
    assert final.apply(params, x).tolist() == [[0.0]]
    linear = MLP(2, [2, 1], activations=lambda h: h)
    assert linear.apply(params, x).tolist() == [[-13.0]]


def test_layer_norm_comes_first() -> None:
    net = MLP(3, [2], use_layer_norm=True)
    params = net.init(KEY)
    x = torch.tensor([[1.0, 2.0, 4.0]])
    torch.testing.assert_close(
        net.apply(params, x), net.apply(params, 10 * x), rtol=1e-4, atol=1e-5
    )


def test_dropout_comes_before_the_activation() -> None:
    """With ``x + 1`` as activation a dropped unit is 1, not 0 (quirk N2)."""
    net = MLP(1, [400], activations=lambda h: h + 1, activate_final=True, dropout_rate=0.5)
    params = tree_map(torch.ones_like, net.init(KEY))
    y = net.apply(params, torch.ones(1, 1), training=True, rngs={"dropout": KEY})
    assert set(y.flatten().tolist()) == {1.0, 5.0}  # 0 + 1, and (1 * 1 + 1) / 0.5 + 1


def test_layers_have_different_dropout_masks() -> None:
    net = MLP(1, [64, 64], activate_final=True, dropout_rate=0.5)
    params = net.init(KEY)
    params["Dense_0"] = {"kernel": torch.zeros(1, 64), "bias": torch.ones(64)}
    params["Dense_1"] = {"kernel": torch.eye(64), "bias": torch.zeros(64)}
    y = net.apply(params, torch.ones(1, 1), training=True, rngs={"dropout": KEY})
    # the same mask twice would keep a half, two masks a quarter
    assert (y != 0).float().mean().item() == pytest.approx(0.25, abs=0.12)
    with pytest.raises(ValueError, match="needs a key"):
        net.apply(params, torch.ones(1, 1), training=True)


def test_last_layer_has_dropout_only_with_activate_final() -> None:
    net = MLP(2, [8], dropout_rate=0.9)
    params = net.init(KEY)
    x = torch.ones(1, 2)
    dropped = net.apply(params, x, training=True, rngs={"dropout": KEY})
    assert torch.equal(dropped, net.apply(params, x))


@pytest.mark.parametrize(("size", "hidden"), [(3, []), (0, [4]), (3, [4, 0])])
def test_sizes_below_one_raise(size: int, hidden: list[int]) -> None:
    with pytest.raises(ValueError, match="MLP: input_dim and every entry of hidden_dims"):
        MLP(size, hidden)


def test_decay_mask_excludes_biases_and_end_layers() -> None:
    tree = {
        "Dense_0": {"kernel": 1, "bias": 1},
        "OutputVDense": {"kernel": 1, "bias": 1},
        "InputProjection": {"Dense_0": {"kernel": 1}},
        "LayerNorm_0": {"scale": 1, "bias": 1},
    }
    assert get_weight_decay_mask(tree) == {
        "Dense_0": {"kernel": True, "bias": False},
        "OutputVDense": {"kernel": False, "bias": False},
        "InputProjection": {"Dense_0": {"kernel": False}},
        "LayerNorm_0": {"scale": True, "bias": False},
    }


def test_relu_is_the_default_activation() -> None:
    assert MLP(2, [2]).activations is relu
