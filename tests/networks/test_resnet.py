"""MLPResNet: parameter trees and the order of operations in a block."""

from __future__ import annotations

import torch

from idql_func import random, tree_map
from idql_func.networks import MLPResNet, MLPResNetBlock, relu

KEY = random.PRNGKey(0)


def shapes(tree: object) -> object:
    return tree_map(lambda p: tuple(p.shape), tree)


def test_parameter_trees_equal_flax() -> None:
    block = {
        "LayerNorm_0": {"scale": (16,), "bias": (16,)},
        "Dense_0": {"kernel": (16, 64), "bias": (64,)},
        "Dense_1": {"kernel": (64, 16), "bias": (16,)},
    }
    net = MLPResNet(
        5, num_blocks=2, out_dim=3, hidden_dim=16, dropout_rate=0.1, use_layer_norm=True
    )
    assert shapes(net.init(KEY)) == {
        "Dense_0": {"kernel": (5, 16), "bias": (16,)},
        "MLPResNetBlock_0": block,
        "MLPResNetBlock_1": block,
        "Dense_1": {"kernel": (16, 3), "bias": (3,)},
    }
    assert shapes(MLPResNet(5, 0, 3).init(KEY)) == {
        "Dense_0": {"kernel": (5, 256), "bias": (256,)},
        "Dense_1": {"kernel": (256, 3), "bias": (3,)},
    }
    assert shapes(MLPResNetBlock(4, relu, input_dim=3).init(KEY)) == {
        "Dense_0": {"kernel": (3, 16), "bias": (16,)},
        "Dense_1": {"kernel": (16, 4), "bias": (4,)},
        "Dense_2": {"kernel": (3, 4), "bias": (4,)},
    }


def test_block_adds_its_input() -> None:
    block = MLPResNetBlock(3, relu, use_layer_norm=True)
    params = block.init(KEY)
    x = torch.tensor([[1.0, -2.0, 3.0]])
    params["Dense_1"] = tree_map(torch.zeros_like, params["Dense_1"])
    assert torch.equal(block.apply(params, x), x)


def test_block_projects_if_sizes_differ() -> None:
    block = MLPResNetBlock(4, relu, input_dim=3)
    params = block.init(KEY)
    params["Dense_1"] = tree_map(torch.zeros_like, params["Dense_1"])
    x = torch.tensor([[1.0, -2.0, 3.0]])
    torch.testing.assert_close(block.apply(params, x), x @ params["Dense_2"]["kernel"])


def test_dropout_acts_on_the_branch_before_its_norm() -> None:
    """Dropout does not affect the residual connection (quirk N3)."""
    block = MLPResNetBlock(64, lambda h: h, dropout_rate=0.5)
    params = tree_map(torch.zeros_like, block.init(KEY))
    params["Dense_0"]["kernel"][:, :64] = torch.eye(64)
    params["Dense_1"]["kernel"][:64] = torch.eye(64)
    y = block.apply(params, torch.ones(1, 64), training=True, rngs={"dropout": KEY})
    assert set(y.flatten().tolist()) == {1.0, 3.0}  # 1 + 0 and 1 + 2


def test_blocks_have_different_dropout_masks() -> None:
    net = MLPResNet(2, 2, 1, dropout_rate=0.5, hidden_dim=32)
    params = net.init(KEY)
    x = torch.ones(4, 2)
    first = net.apply(params, x, training=True, rngs={"dropout": KEY})
    again = net.apply(params, x, training=True, rngs={"dropout": KEY})
    other = net.apply(params, x, training=True, rngs={"dropout": random.PRNGKey(1)})
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, net.apply(params, x))


def test_blocks_use_lecun_and_end_layers_xavier() -> None:
    """Quirk N4: Xavier uniform in the end layers, truncated normal in the blocks."""
    params = MLPResNet(100, 1, 100, hidden_dim=100).init(KEY)
    for name in ("Dense_0", "Dense_1"):
        kernel = params[name]["kernel"]
        assert kernel.abs().max() <= (6 / 200) ** 0.5
        assert abs(kernel.var().item() * 100 - 1) < 0.05
    inside = params["MLPResNetBlock_0"]["Dense_0"]["kernel"]
    assert inside.abs().max() > (6 / 200) ** 0.5
    assert abs(inside.var().item() * 100 - 1) < 0.05


def test_network_without_blocks_is_dense_activation_dense() -> None:
    net = MLPResNet(2, 0, 1, hidden_dim=2)
    params = {
        "Dense_0": {"kernel": torch.tensor([[1.0, -1.0], [0.0, 0.0]]), "bias": torch.zeros(2)},
        "Dense_1": {"kernel": torch.tensor([[2.0], [7.0]]), "bias": torch.zeros(1)},
    }
    assert net.apply(params, torch.tensor([[3.0, 9.0]])).tolist() == [[6.0]]
