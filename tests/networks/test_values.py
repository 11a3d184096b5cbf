"""V(s) and Q(s, a): parameter trees, shapes, values."""

from __future__ import annotations

import torch

from idql_func import random, tree_map
from idql_func.networks import MLP, StateActionValue, StateValue

KEY = random.PRNGKey(0)


def shapes(tree: object) -> object:
    return tree_map(lambda p: tuple(p.shape), tree)


def test_parameter_trees_equal_flax() -> None:
    value = StateValue(MLP, input_dim=10, hidden_dims=[8, 6], use_layer_norm=True)
    assert shapes(value.init(KEY)) == {
        "MLP_0": {
            "LayerNorm_0": {"scale": (10,), "bias": (10,)},
            "Dense_0": {"kernel": (10, 8), "bias": (8,)},
            "Dense_1": {"kernel": (8, 6), "bias": (6,)},
        },
        "OutputVDense": {"kernel": (6, 1), "bias": (1,)},
    }
    critic = StateActionValue(MLP, input_dim=13, hidden_dims=[8])
    assert shapes(critic.init(KEY)) == {
        "MLP_0": {"Dense_0": {"kernel": (13, 8), "bias": (8,)}},
        "Dense_0": {"kernel": (8, 1), "bias": (1,)},
    }


def test_values_have_no_last_axis() -> None:
    value = StateValue(MLP, input_dim=3, hidden_dims=[4])
    params = value.init(KEY)
    x = torch.ones(2, 5, 3)
    assert value.apply(params, x).shape == (2, 5)
    assert value.apply(params, x[0, 0]).shape == ()
    assert value.apply(params, x[:1, 0]).shape == (1,)  # a batch of one stays a batch


def test_critic_input_is_observations_then_actions() -> None:
    critic = StateActionValue(MLP, input_dim=3, hidden_dims=[1])
    params = {
        "MLP_0": {
            "Dense_0": {"kernel": torch.tensor([[1.0], [10.0], [100.0]]), "bias": torch.zeros(1)}
        },
        "Dense_0": {"kernel": torch.tensor([[2.0]]), "bias": torch.tensor([0.5])},
    }
    q = critic.apply(params, torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]))
    assert q.tolist() == [2 * 321 + 0.5]


def test_dropout_reaches_the_base() -> None:
    for net, inputs in (
        (StateValue(MLP, 3, [32, 32], dropout_rate=0.5), (torch.ones(2, 3),)),
        (
            StateActionValue(MLP, 4, [32, 32], dropout_rate=0.5),
            (torch.ones(2, 3), torch.ones(2, 1)),
        ),
    ):
        params = net.init(KEY)
        dropped = net.apply(params, *inputs, training=True, rngs={"dropout": KEY})
        assert not torch.equal(dropped, net.apply(params, *inputs))
