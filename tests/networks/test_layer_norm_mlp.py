"""The MLP of jaxrl_m, OGBench and fql: LayerNorm after each activation, kernels, entry names."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from idql_func import enable_x64, grad, jit, random, tree_map, vmap
from idql_func.interop import architecture
from idql_func.networks import MLP, Dense, Ensemble, LayerNorm, Module, default_init, gelu
from idql_func.networks.initializers import constant, normal, zeros
from idql_func.networks.module import LazyRng
from idql_func.tree import tree_paths
from idql_func.types import InputError

KEY = random.PRNGKey(0)
X = torch.linspace(-1, 1, 15).reshape(5, 3)


def shapes(tree: Any) -> Any:
    return tree_map(lambda p: tuple(p.shape), tree)


# --- the MLP ------------------------------------------------------------------------------


@pytest.mark.parametrize(("final", "norms"), [(False, 2), (True, 3)])
def test_each_activated_layer_has_a_norm(final: bool, norms: int) -> None:
    net = MLP(3, [8, 6, 2], gelu, activate_final=final, layer_norm=True)
    params = net.init(KEY)
    names = [f"Dense_{i}" for i in range(3)] + [f"LayerNorm_{i}" for i in range(norms)]
    assert list(sorted(params)) == names
    h = X
    for i in range(3):
        dense = params[f"Dense_{i}"]
        h = h @ dense["kernel"] + dense["bias"]
        if i < norms:
            h = torch.nn.functional.layer_norm(gelu(h), h.shape[-1:], eps=1e-6)
    torch.testing.assert_close(net.apply(params, X), h, rtol=1e-4, atol=1e-5)


def test_both_norms_are_counted_in_the_order_of_their_use() -> None:
    net = MLP(3, [8, 2], use_layer_norm=True, layer_norm=True)
    assert shapes(net.init(KEY)) == {
        "LayerNorm_0": {"scale": (3,), "bias": (3,)},
        "LayerNorm_1": {"scale": (8,), "bias": (8,)},
        "Dense_0": {"kernel": (3, 8), "bias": (8,)},
        "Dense_1": {"kernel": (8, 2), "bias": (2,)},
    }


def test_norm_is_after_dropout_and_activation() -> None:
    """Of two units, one dropped, the norm makes -1 and 1; the sum without it is above 0."""
    net = MLP(1, [64], activate_final=True, dropout_rate=0.5, layer_norm=True)
    params = net.init(KEY)
    params["Dense_0"] = {"kernel": torch.ones(1, 64), "bias": torch.zeros(64)}
    y = net.apply(params, torch.ones(1, 1), training=True, rngs={"dropout": KEY})
    assert len(y.unique()) == 2
    assert y.mean().item() == pytest.approx(0, abs=1e-5)


def test_kernel_init_is_that_of_every_layer_and_of_no_other_parameter() -> None:
    params = MLP(3, [4, 2], kernel_init=constant(0.25), layer_norm=True).init(KEY)
    for i in range(2):
        assert params[f"Dense_{i}"]["kernel"].unique().tolist() == [0.25]
        assert params[f"Dense_{i}"]["bias"].unique().tolist() == [0.0]
    assert params["LayerNorm_0"]["scale"].unique().tolist() == [1.0]
    plain = MLP(3, [4, 2]).init(KEY)
    same = MLP(3, [4, 2], kernel_init=default_init()).init(KEY)
    tree_map(lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0), plain, same)
    own = MLP(3, [4, 2], kernel_init=lambda key, shape: torch.full(shape, 2.0)).init(KEY)
    assert own["Dense_1"]["kernel"].unique().tolist() == [2.0]


def test_layers_are_float32_in_double_precision_and_own_parameters_are_not() -> None:
    class Own(Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = MLP(3, [4], kernel_init=normal(), layer_norm=True, activate_final=True)
            self.declare("shift", (2,), zeros)
            self.declare("narrow", (2,), zeros, torch.float32)

    narrow = Own().init(KEY)
    with enable_x64():
        params = Own().init(KEY)
    dtypes = tree_map(lambda p: p.dtype, params)
    assert dtypes["shift"] == torch.float64 and dtypes["narrow"] == torch.float32
    for path, leaf in zip(tree_paths(params["net"]), _leaves(params["net"]), strict=True):
        assert leaf.dtype == torch.float32, path
    tree_map(lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0), narrow["net"],
             params["net"])  # fmt: skip


def _leaves(tree: Any) -> list[Tensor]:
    return [leaf for child in (tree[k] for k in sorted(tree))
            for leaf in (_leaves(child) if isinstance(child, dict) else [child])]  # fmt: skip


def test_jit_vmap_and_grad_agree_with_the_plain_call() -> None:
    net = MLP(3, [8, 2], gelu, layer_norm=True)
    params = [net.init(random.PRNGKey(i)) for i in range(2)]
    each = [net.apply(p, X) for p in params]
    torch.testing.assert_close(jit(net.apply)(params[0], X), each[0])
    stacked = tree_map(lambda *leaves: torch.stack(leaves), *params)
    torch.testing.assert_close(vmap(net.apply, in_axes=(0, None))(stacked, X), torch.stack(each))
    slope = grad(lambda p: net.apply(p, X).square().sum())(params[0])
    step = 1e-2
    moved = tree_map(lambda p, g: p + step * g, params[0], slope)
    rise = net.apply(moved, X).square().sum() - each[0].square().sum()
    assert rise > 0
    assert shapes(slope) == shapes(params[0])


# --- Dense ----------------------------------------------------------------------------------


def test_dense_without_a_bias_is_a_product() -> None:
    layer = Dense(3, 2, use_bias=False)
    params = layer.init(KEY)
    assert sorted(params) == ["kernel"]
    assert torch.equal(layer.apply(params, X), X @ params["kernel"])
    parts = (X[:, :1], X[:, 1:])
    torch.testing.assert_close(layer.apply(params, parts), X @ params["kernel"])
    wide = (X[:, None, :1], X[None, :, 1:])
    assert layer.apply(params, wide).shape == (5, 5, 2)


def test_bias_init_draws_from_the_second_key_of_the_layer() -> None:
    params = Dense(3, 2, bias_init=normal(1.0)).init(KEY)
    expected = normal(1.0)(LazyRng(KEY).make(2), (2,))
    assert torch.equal(params["bias"], expected)


# --- the name of an ensemble's entry ----------------------------------------------------------


class Value(Ensemble):
    """The value function of fql: an encoder beside the stacked MLP ``value_net``."""

    def __init__(self, obs_dim: int, num: int = 2) -> None:
        super().__init__(MLP, 4, [8, 1], gelu, layer_norm=True, num=num, name="value_net")
        self.encoder = Dense(obs_dim, 4)

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        return super().forward(self.encoder(inputs[0]), **options).squeeze(-1)


def test_name_is_that_of_the_entry_and_of_its_keys() -> None:
    net = Ensemble(MLP, 3, [4], num=2, name="value_net")
    params = net.init(KEY)
    assert tree_paths(params) == ["value_net/Dense_0/bias", "value_net/Dense_0/kernel"]
    assert net.apply(params, X).shape == (2, 5, 4)
    plain = Ensemble(MLP, 3, [4], num=2).init(KEY)["VmapMLP_0"]["Dense_0"]["kernel"]
    assert not torch.equal(plain, params["value_net"]["Dense_0"]["kernel"])
    member = MLP(3, [4]).init_from(LazyRng(random.split(KEY, 2)[1], ("value_net",)))
    assert torch.equal(member["Dense_0"]["kernel"], params["value_net"]["Dense_0"]["kernel"][1])


def test_an_ensemble_can_hold_other_networks_beside_its_members() -> None:
    net = Value(3)
    params = net.init(KEY)
    assert sorted(params) == ["encoder", "value_net"]
    assert params["encoder"]["kernel"].shape == (3, 4)
    assert params["value_net"]["Dense_0"]["kernel"].shape == (2, 4, 8)
    values = net.apply(params, X)
    assert values.shape == (2, 5)
    torch.testing.assert_close(jit(net.apply)(params, X), values)
    single = MLP(4, [8, 1], gelu, layer_norm=True)
    hidden = X @ params["encoder"]["kernel"] + params["encoder"]["bias"]
    for i in range(2):
        member = tree_map(lambda p, i=i: p[i], params["value_net"])
        torch.testing.assert_close(single.apply(member, hidden).squeeze(-1), values[i])


@pytest.mark.parametrize("name", [3, b"net", ["net"]])
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match=r"Ensemble: name must be a text or None, got"):
        Ensemble(MLP, 3, [4], name=name)
    with pytest.raises(InputError, match=r"the name of a submodule must be a text"):
        Module().add(Dense(1, 1), name)


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "must be a text that is not empty"), ("a.b", "has a dot"), ("apply", "is a method")],
)
def test_a_name_that_the_tree_cannot_hold_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Ensemble(MLP, 3, [4], name=name)


def test_automatic_names_count_automatic_names_only() -> None:
    net = Module()
    net.add(Dense(1, 1), "Dense_out")
    net.add(Dense(1, 1))
    assert list(dict(net.named_children())) == ["Dense_out", "Dense_0"]


# --- gelu -------------------------------------------------------------------------------------


@pytest.mark.parametrize("v", [-3.0, -0.5, 0.0, 1.0, 4.0])
def test_gelu_equals_its_two_equations(v: float) -> None:
    x = torch.tensor(v)
    inner = math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)
    assert gelu(x).item() == pytest.approx(v / 2 * (1 + math.tanh(inner)), rel=1e-4, abs=1e-7)
    exact = v / 2 * (1 + math.erf(v / math.sqrt(2)))
    assert gelu(x, approximate=False).item() == pytest.approx(exact, rel=1e-4, abs=1e-7)


def test_gelu_of_integers_is_a_float() -> None:
    assert gelu(torch.tensor([1, 2])).dtype == torch.float32
    torch.testing.assert_close(gelu(torch.tensor([1, 2])), gelu(torch.tensor([1.0, 2.0])))


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "net",
    [
        MLP(3, [4, 2], gelu, layer_norm=True),
        Ensemble(functools.partial(MLP, 3, [4, 2], layer_norm=True), num=3, name="value_net"),
    ],
    ids=["mlp", "ensemble"],
)
def test_settings_in_a_file_rebuild_the_network(net: Module) -> None:
    described = architecture.describe_network(net)
    rebuilt = architecture.build_network(json.loads(json.dumps(described)))
    wanted = {path: tuple(p.shape) for path, p in net.named_parameters()}
    found = {path: tuple(p.shape) for path, p in rebuilt.named_parameters()}
    stacked = {path: (3, *shape) for path, shape in wanted.items()}
    assert found == (stacked if isinstance(net, Ensemble) else wanted)
    assert LayerNorm in {type(module) for module in rebuilt.modules()}
