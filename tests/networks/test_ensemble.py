"""Ensembles: stacked parameters, independent members, subsets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from idql_func import grad, random, tree_map
from idql_func.networks import MLP, Ensemble, StateActionValue, subsample_ensemble

KEY = random.PRNGKey(0)
OBS, ACT = torch.ones(4, 3), torch.full((4, 2), 0.5)


def critics(num: int = 3, **options: Any) -> Ensemble:
    return Ensemble(StateActionValue, MLP, input_dim=5, hidden_dims=[8], num=num, **options)


def test_parameter_tree_equals_flax_with_members_on_axis_0() -> None:
    assert tree_map(lambda p: tuple(p.shape), critics().init(KEY)) == {
        "VmapStateActionValue_0": {
            "MLP_0": {"Dense_0": {"kernel": (3, 5, 8), "bias": (3, 8)}},
            "Dense_0": {"kernel": (3, 8, 1), "bias": (3, 1)},
        }
    }


def test_members_have_different_weights() -> None:
    net = critics()
    params = net.init(KEY)
    kernel = params["VmapStateActionValue_0"]["MLP_0"]["Dense_0"]["kernel"]
    assert not torch.equal(kernel[0], kernel[1]) and not torch.equal(kernel[1], kernel[2])
    q = net.apply(params, OBS, ACT)
    assert q.shape == (3, 4) and len(set(q[:, 0].tolist())) == 3
    # each is the single network on its slice
    single = StateActionValue(MLP, input_dim=5, hidden_dims=[8])
    for i in range(3):
        member = tree_map(lambda p, i=i: p[i], params["VmapStateActionValue_0"])
        torch.testing.assert_close(single.apply(member, OBS, ACT), q[i])


def test_members_have_different_dropout_masks() -> None:
    net = critics(2, dropout_rate=0.5, activate_final=True)
    params = net.init(KEY)
    one = tree_map(lambda p: p[:1].expand_as(p).clone(), params)  # the same weights twice
    plain = net.apply(one, OBS, ACT)
    assert torch.equal(plain[0], plain[1])
    dropped = net.apply(one, OBS, ACT, training=True, rngs={"dropout": KEY})
    assert not torch.equal(dropped[0], dropped[1])
    again = net.apply(one, OBS, ACT, training=True, rngs={"dropout": KEY})
    assert torch.equal(dropped, again)
    with pytest.raises(ValueError, match="needs a key"):
        net.apply(one, OBS, ACT, training=True)


def test_gradient_of_one_member_leaves_the_others() -> None:
    net = critics(2)
    g = grad(lambda p: net.apply(p, OBS, ACT)[1].sum())(net.init(KEY))
    bias = g["VmapStateActionValue_0"]["Dense_0"]["bias"]
    assert bias.tolist() == [[0.0], [4.0]]


def test_subset_is_drawn_without_replacement_and_equal_in_all_leaves() -> None:
    params = {"a": torch.arange(6), "b": {"c": 10 * torch.arange(6)}}
    for seed in range(10):
        subset = subsample_ensemble(random.PRNGKey(seed), params, 3, 6)
        index = subset["a"].tolist()
        assert len(set(index)) == 3
        assert subset["b"]["c"].tolist() == [10 * i for i in index]
    expected = random.choice(KEY, 6, (3,), replace=False)
    assert subsample_ensemble(KEY, params, 3, 6)["a"].tolist() == expected.tolist()


def test_subset_can_be_applied() -> None:
    net = critics(4)
    params = net.init(KEY)
    subset = subsample_ensemble(KEY, params, 2, 4)
    index = random.choice(KEY, 4, (2,), replace=False).long()
    torch.testing.assert_close(net.apply(subset, OBS, ACT), net.apply(params, OBS, ACT)[index])


def test_subset_of_one_entry_keeps_the_others() -> None:
    params = {"Ensemble_0": {"w": torch.arange(5)}, "Encoder": {"w": torch.arange(7)}}
    subset = subsample_ensemble(KEY, params, 2, 5)
    assert subset["Ensemble_0"]["w"].shape == (2,)
    assert subset["Encoder"]["w"] is params["Encoder"]["w"]
    assert params["Ensemble_0"]["w"].shape == (5,)  # into a new dict (quirk A9)


def test_num_sample_none_keeps_all_and_too_many_raise() -> None:
    params = {"w": torch.ones(2)}
    assert subsample_ensemble(KEY, params, None, 2) is params
    with pytest.raises(ValueError, match="num_sample must be at most num_qs=2, got 3"):
        subsample_ensemble(KEY, params, 3, 2)
    with pytest.raises(ValueError, match="num must be at least 1, got 0"):
        critics(0)
