"""Modules without weights: init, apply, random key streams."""

from __future__ import annotations

import hashlib

import pytest
import torch

from idql_func import grad, random, tree_map, vmap
from idql_func.networks import MLP, Dense, LazyRng, Module, apply, init
from idql_func.tree import flatten_params
from idql_func.types import InputError

KEY = random.PRNGKey(0)


def test_module_holds_no_weights() -> None:
    net = MLP(3, [4, 2])
    assert all(p.device.type == "meta" for p in net.parameters())
    init(net, KEY)
    apply(net, init(net, KEY), torch.ones(1, 3))
    assert all(p.device.type == "meta" for p in net.parameters())


def test_init_is_a_function_of_the_key() -> None:
    net = MLP(3, [4])
    same, other = init(net, KEY), init(net, random.PRNGKey(1))
    assert torch.equal(init(net, KEY)["Dense_0"]["kernel"], same["Dense_0"]["kernel"])
    assert not torch.equal(other["Dense_0"]["kernel"], same["Dense_0"]["kernel"])
    # a second instance with the same settings draws the same values
    assert torch.equal(init(MLP(3, [4]), KEY)["Dense_0"]["kernel"], same["Dense_0"]["kernel"])


def test_vmapped_init_equals_single_ones() -> None:
    net = MLP(3, [4], use_layer_norm=True)
    keys = random.split(KEY, 3)
    stacked = vmap(net.init)(keys)
    assert stacked["Dense_0"]["kernel"].shape == (3, 3, 4)
    for i, key in enumerate(keys):
        single = net.init(key)
        assert torch.equal(stacked["Dense_0"]["kernel"][i], single["Dense_0"]["kernel"])


def test_apply_is_pure_and_differentiable() -> None:
    net = Dense(2, 3)
    params = net.init(KEY)
    before = tree_map(torch.clone, params)
    x = torch.tensor([[1.0, -2.0]])
    y = apply(net, params, x)
    assert torch.equal(y, net.apply(params, x))
    torch.testing.assert_close(y, x @ params["kernel"] + params["bias"])
    g = grad(lambda p: apply(net, p, x).sum())(params)
    assert g["kernel"].tolist() == [[1.0] * 3, [-2.0] * 3] and g["bias"].tolist() == [1.0] * 3
    for name in params:
        assert torch.equal(params[name], before[name])


def test_outer_params_dict_of_flax_is_accepted() -> None:
    net = MLP(3, [4])
    params = net.init(KEY)
    x = torch.ones(2, 3)
    assert torch.equal(net.apply({"params": params}, x), net.apply(params, x))


def test_missing_and_unknown_parameters_raise() -> None:
    net = MLP(3, [4])
    params = net.init(KEY)
    with pytest.raises(RuntimeError, match=r"Dense_0\.bias"):
        net.apply({"Dense_0": {"kernel": params["Dense_0"]["kernel"]}}, torch.ones(1, 3))
    with pytest.raises(RuntimeError, match=r"Dense_1\.kernel"):
        net.apply({**params, "Dense_1": {"kernel": torch.ones(1)}}, torch.ones(1, 3))


def test_automatic_names_count_each_class() -> None:
    class Three(Module):
        def __init__(self) -> None:
            super().__init__()
            self.add(Dense(1, 2))
            self.add(MLP(2, [2]))
            self.add(Dense(2, 1))
            self.add(Dense(1, 1), "Head")

    assert sorted(Three().init(KEY)) == ["Dense_0", "Dense_1", "Head", "MLP_0"]


def test_streams_fold_in_the_hash_of_path_and_count() -> None:
    stream = LazyRng(KEY).push("MLP_0").push("Dropout_1")
    digest = hashlib.sha1(b"MLP_0" + b"Dropout_1" + bytes([1])).digest()
    expected = random.fold_in(KEY, int.from_bytes(digest[:4], "big"))
    assert torch.equal(stream.make(1), expected)
    assert not torch.equal(stream.make(2), expected)
    assert stream.path == ("MLP_0", "Dropout_1")


def test_flatten_params_joins_names_with_dots() -> None:
    w = torch.ones(1)
    assert flatten_params({"a": {"b": {"c": w}}, "d": w}) == {"a.b.c": w, "d": w}


@pytest.mark.parametrize("network", [MLP(3, [4]), MLP(3, [4], use_layer_norm=True)])
def test_calling_a_network_without_parameters_names_init_and_apply(network: Module) -> None:
    with pytest.raises(InputError, match=r"hold no weights.*net.init\(key\).*net.apply\(params"):
        network(torch.ones(2, 3))
    assert network(torch.ones(2, 3, device="meta")).shape == (2, 4)  # shapes alone need no values
