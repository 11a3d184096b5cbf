"""Networks that a user writes: names, shared modules, refusals, equality by value."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from idql_func import distributions, grad, networks, random, tree_leaves, tree_map, tree_stack
from idql_func.agents.factories import train_state
from idql_func.networks import MLP, Dense, Dropout, Ensemble, LazyRng, Module
from idql_func.networks.encoders import MyGroupNorm
from idql_func.networks.initializers import zeros
from idql_func.networks.same_module import same_module
from idql_func.tree import tree_flatten, tree_paths
from idql_func.types import InputError

KEY = random.PRNGKey(0)
FRAMES = (8, 8, 3, 1)


def copies(value: Any) -> list[Any]:
    """Copies made by the tools of Python and torch."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return [
        pickle.loads(pickle.dumps(value)),
        copy.deepcopy(value),
        copy.copy(value),
        torch.load(file, weights_only=False),
    ]


class ByAttribute(Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = Dense(3, 8)
        self.head = Dense(8, 2)
        self.declare("shift", (2,), zeros)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(x))) + self.shift


class ByAdd(ByAttribute):
    def __init__(self) -> None:
        Module.__init__(self)
        self.first = self.add(Dense(3, 8), "hidden")
        self.second = self.add(Dense(8, 2), "head")
        self.declare("shift", (2,), zeros)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x))) + self.shift


class Head(Module):
    def __init__(self, encoder: Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.out = Dense(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(x))


class TwoHeads(Module):
    """Two heads on one encoder, which the network itself holds or only the heads."""

    def __init__(self, holds_encoder: bool, shares: bool = True) -> None:
        super().__init__()
        encoder = Dense(4, 4)
        if holds_encoder:
            self.encoder = encoder
        self.left = Head(encoder)
        self.right = Head(encoder if shares else Dense(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


class Pair(Module):
    """Two Dense layers under the names of the arguments, called in this order."""

    def __init__(self, first: str, second: str, act: Callable[..., Any] = torch.relu) -> None:
        super().__init__()
        layers = {name: self.add(Dense(2, 2), name) for name in ("a", "b")}
        self.first, self.second, self.act = layers[first], layers[second], act

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.act(self.first(x)))


# one instance and its inputs for each public class
EXAMPLES: dict[type[Module], tuple[Callable[[], Module], Callable[[], tuple[Any, ...]]]] = {
    networks.Conv: (lambda: networks.Conv(3, 2, (3, 3)), lambda: (torch.ones(1, 4, 4, 3),)),
    networks.D4PGEncoder: (
        lambda: networks.D4PGEncoder((8, 8, 3), (2,), (3,), (2,)),
        lambda: (torch.ones(1, 8, 8, 3),),
    ),
    networks.DDPM: (
        lambda: networks.DDPM(MLP(8, [4]), MLP(9, [2]), networks.FourierFeatures(8)),
        lambda: (torch.ones(5, 3), torch.ones(5, 2), torch.ones(5, 1)),
    ),
    Dense: (lambda: Dense(3, 2), lambda: (torch.ones(1, 3),)),
    Ensemble: (lambda: Ensemble(MLP, 3, [4]), lambda: (torch.ones(1, 3),)),
    networks.FourierFeatures: (
        lambda: networks.FourierFeatures(8),
        lambda: (torch.ones(1, 1),),
    ),
    networks.GroupNorm: (lambda: networks.GroupNorm(4, 2), lambda: (torch.ones(2, 2, 4),)),
    networks.ImpalaEncoder: (
        lambda: networks.ImpalaEncoder((8, 8, 3), 1, (2, 2), 1, mlp_hidden_dims=(4,)),
        lambda: (torch.zeros(1, 8, 8, 3, dtype=torch.uint8),),
    ),
    networks.LayerNorm: (lambda: networks.LayerNorm(4), lambda: (torch.ones(2, 4),)),
    MLP: (lambda: MLP(3, [4], use_layer_norm=True), lambda: (torch.ones(2, 3),)),
    networks.MLPResNet: (
        lambda: networks.MLPResNet(3, 2, 2, 0.1, True, 4),
        lambda: (torch.ones(2, 3),),
    ),
    networks.MLPResNetBlock: (
        lambda: networks.MLPResNetBlock(4, networks.mish),
        lambda: (torch.ones(2, 4),),
    ),
    networks.PixelMultiplexer: (
        lambda: networks.PixelMultiplexer(
            functools.partial(networks.D4PGEncoder, features=(2,), filters=(3,), strides=(2,)),
            functools.partial(MLP, hidden_dims=(2,)),
            5,
            {"pixels": FRAMES},
        ),
        lambda: ({"pixels": torch.zeros(1, *FRAMES, dtype=torch.uint8)},),
    ),
    networks.ResNetV2Block: (
        lambda: networks.ResNetV2Block((4, 4, 4), 8, 2),
        lambda: (torch.ones(1, 4, 4, 4),),
    ),
    networks.ResnetStack: (
        lambda: networks.ResnetStack((4, 4, 2), 3, 1),
        lambda: (torch.ones(1, 4, 4, 2),),
    ),
    networks.ResNetV2Encoder: (
        lambda: networks.ResNetV2Encoder((8, 8, 3), (1, 1), 4),
        lambda: (torch.ones(1, 8, 8, 3),),
    ),
    networks.Sequential: (
        lambda: networks.Sequential([Dense(3, 4), networks.gelu, Dense(4, 2)]),
        lambda: (torch.ones(2, 3),),
    ),
    networks.StateActionValue: (
        lambda: networks.StateActionValue(MLP, 5, [4]),
        lambda: (torch.ones(2, 3), torch.ones(2, 2)),
    ),
    networks.StateValue: (lambda: networks.StateValue(MLP, 3, [4]), lambda: (torch.ones(2, 3),)),
    networks.Temperature: (lambda: networks.Temperature(0.5), lambda: ()),
    MyGroupNorm: (lambda: MyGroupNorm(4), lambda: (torch.ones(2, 2, 4),)),
    distributions.Normal: (
        lambda: distributions.Normal(MLP, 3, [4], action_dim=2),
        lambda: (torch.ones(2, 3),),
    ),
    distributions.TanhDeterministic: (
        lambda: distributions.TanhDeterministic(MLP, 3, [4], action_dim=2),
        lambda: (torch.ones(2, 3),),
    ),
    ByAttribute: (ByAttribute, lambda: (torch.ones(2, 3),)),
    TwoHeads: (lambda: TwoHeads(True), lambda: (torch.ones(2, 4),)),
}
WITHOUT_PARAMETERS = {Module, Dropout}
every_network = pytest.mark.parametrize("cls", EXAMPLES, ids=lambda cls: cls.__name__)


def equal(a: Any, b: Any) -> bool:
    (x, spec), (y, other) = tree_flatten(a), tree_flatten(b)
    return spec == other and all(map(torch.equal, x, y))


# --- every network ------------------------------------------------------------------------


def test_every_public_network_has_an_example() -> None:
    public = {
        value
        for module in (networks, distributions)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Module) and not name.startswith("_")
    }
    assert public - WITHOUT_PARAMETERS <= EXAMPLES.keys()
    assert len(public) >= 20


@every_network
def test_a_call_without_parameters_names_init_and_apply(cls: type[Module]) -> None:
    make, inputs = EXAMPLES[cls]
    net = make()
    with pytest.raises(InputError, match=r"hold no weights.*net.init\(key\).*net.apply\(params"):
        net(*inputs())
    net.apply(net.init(KEY), *inputs())


@every_network
def test_copies_of_a_network_are_the_same_network(cls: type[Module]) -> None:
    make, inputs = EXAMPLES[cls]
    net = make()
    params = net.init(KEY)
    output = net.apply(params, *inputs())
    for other in (make(), *copies(net), *copies(net.apply)):
        apply = other.apply if isinstance(other, Module) else other
        assert same_module(net, apply.__self__)
        assert hash(apply) == hash(net.apply)
        assert apply == net.apply
        assert equal(apply.__self__.init(KEY), params)
        again = apply(params, *inputs())
        if isinstance(output, Tensor):
            assert torch.equal(again, output)
        else:
            assert torch.equal(again.mode(), output.mode())


# --- names --------------------------------------------------------------------------------


def test_an_attribute_gives_its_name_to_the_parameters() -> None:
    named, added = ByAttribute(), ByAdd()
    params = named.init(KEY)
    assert tree_paths(params) == [
        "head/bias", "head/kernel", "hidden/bias", "hidden/kernel", "shift",
    ]  # fmt: skip
    assert equal(params, added.init(KEY))
    assert equal(params["head"], Dense(8, 2).init_from(LazyRng(KEY, ("head",))))
    x = random.normal(KEY, (5, 3))
    assert torch.equal(named.apply(params, x), added.apply(params, x))

    def loss(net: Module) -> Any:
        return grad(lambda p: net.apply(p, x).square().sum())(params)

    assert equal(loss(named), loss(added))


def test_entries_of_lists_and_dicts_have_names_with_index_and_key() -> None:
    class Nested(Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [Dense(2, 2), {"k": Dense(2, 2), "j": (Dense(2, 2), Dense(2, 2))}]

    assert sorted(Nested().init(KEY)) == ["layers_0", "layers_1_j_0", "layers_1_j_1", "layers_1_k"]


def test_an_attribute_of_an_added_module_is_a_second_name_without_effect() -> None:
    class Mixed(Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = self.add(Dense(1, 2))
            self.second = Dense(2, 2)
            self.add(self.second)
            self.third = self.add(Dense(2, 2))

    assert sorted(Mixed().init(KEY)) == ["Dense_0", "Dense_1", "second"]


def test_an_attribute_that_was_none_can_become_a_module() -> None:
    net = ByAttribute()
    net.extra = None
    net.extra = Dense(1, 1)
    assert "extra" in net.init(KEY) and isinstance(net.extra, Dense)


# --- shared modules -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holds_encoder", "owner"), [(True, ("encoder",)), (False, ("left", "encoder"))]
)
def test_a_shared_module_has_one_set_of_parameters(holds_encoder: bool, owner: Any) -> None:
    net = TwoHeads(holds_encoder)
    params = net.init(KEY)
    encoders = [path for path in tree_paths(params) if path.endswith("encoder/kernel")]
    assert encoders == ["/".join((*owner, "kernel"))]  # the first place, as in Flax 0.12
    assert "encoder" not in params["right"]
    encoder = Dense(4, 4).init_from(LazyRng(KEY, owner))
    node = functools.reduce(lambda tree, name: tree[name], owner, params)
    assert equal(node, encoder)

    x = random.normal(KEY, (3, 4))
    h = x @ encoder["kernel"] + encoder["bias"]
    heads = [params[side]["out"] for side in ("left", "right")]
    expected = sum(h @ head["kernel"] + head["bias"] for head in heads)
    torch.testing.assert_close(net.apply(params, x), expected)
    # the gradient has the parts of both uses
    g = grad(lambda p: net.apply(p, x).sum())(params)
    g = functools.reduce(lambda tree, name: tree[name], owner, g)
    both = sum(head["kernel"].sum(dim=1) for head in heads) * len(x)
    torch.testing.assert_close(g["bias"], both)


def test_an_ensemble_of_networks_with_shared_modules_runs() -> None:
    net = Ensemble(TwoHeads, True, num=3)
    params = net.init(KEY)
    assert params["VmapTwoHeads_0"]["encoder"]["kernel"].shape == (3, 4, 4)
    x = torch.ones(2, 4)
    member = tree_map(lambda leaf: leaf[1], params["VmapTwoHeads_0"])
    torch.testing.assert_close(net.apply(params, x)[1], TwoHeads(True).apply(member, x))


def test_apply_of_shared_modules_leaves_no_values_and_checks_the_names() -> None:
    net = TwoHeads(True)
    params = net.init(KEY)
    x = torch.ones(2, 4)
    ensemble = Ensemble(TwoHeads, True)
    net.apply(params, x)
    ensemble.apply(ensemble.init(KEY), x)
    assert all(p.is_meta for p in (*net.parameters(), *ensemble.parameters()))
    with pytest.raises(
        RuntimeError, match=r"lack \['encoder.bias', 'encoder.kernel'\] and have \[\]"
    ):
        net.apply({name: params[name] for name in ("left", "right")}, x)
    with pytest.raises(RuntimeError, match=r"lack \[\] and have \['more.kernel'\] in addition"):
        net.apply({**params, "more": {"kernel": x}}, x)


# --- refusals -----------------------------------------------------------------------------


def assigned(value: Any, name: str = "fc") -> Module:
    net = ByAttribute()
    setattr(net, name, value)
    return net


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "linear": (lambda: assigned(nn.Linear(2, 3)), r"ByAttribute.fc: .*nn.Linear .*Dense.*init.*"),
    "added linear": (lambda: ByAttribute().add(nn.Linear(2, 3)), r"Linear_0: .*Dense.*net.apply"),
    "batch norm": (lambda: assigned(nn.BatchNorm1d(2)), r"nn.BatchNorm1d .*state"),
    "dropout": (lambda: assigned(nn.Dropout()), r"nn.Dropout .*Dropout\)"),
    "linear in a list": (lambda: assigned([Dense(1, 1), nn.Linear(2, 3)]), r"fc_1: .*nn.Linear"),
    "module list": (lambda: assigned(nn.ModuleList([Dense(1, 1)])), r"ModuleList .*plain list"),
    "sequential": (lambda: assigned(nn.Sequential(Dense(1, 1))), r"Sequential .*plain list"),
    "parameter": (lambda: assigned(nn.Parameter(torch.ones(1))), r"self.declare\('fc', shape"),
    "number": (lambda: ByAttribute().add(3), r"must be a network, got int"),
    "one name twice": (lambda: ByAttribute().add(Dense(1, 1), "head"), r"called 'head'"),
    "assigned anew": (lambda: assigned(Dense(1, 1), "head"), r"called 'head'"),
    "name of a parameter": (lambda: assigned(Dense(1, 1), "shift"), r"called 'shift'"),
    "name of a method": (lambda: assigned(Dense(1, 1), "apply"), r"can't be called 'apply'"),
    "name with a dot": (lambda: ByAttribute().add(Dense(1, 1), "a.b"), r"can't be called 'a.b'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_part_of_a_network_is_refused_in_one_sentence(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        make()
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and len(text) < 300


def test_a_module_in_a_list_that_grew_later_is_refused_at_init() -> None:
    class Grown(Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers: list[Module] = []
            self.layers.append(Dense(1, 1))

    with pytest.raises(InputError, match=r"Grown: the Dense at 'layers_0' is not registered"):
        Grown().init(KEY)


def test_assignment_before_init_of_the_base_is_refused() -> None:
    class Early(Module):
        def __init__(self) -> None:
            self.fc = Dense(1, 1)

    with pytest.raises(InputError, match=r"Early.__init__: call super\(\).__init__\(\) before"):
        Early()


def test_a_torch_module_without_weights_is_a_plain_attribute() -> None:
    net = assigned(nn.Tanh(), "act")
    assert isinstance(net.act, nn.Tanh) and "act" not in net.init(KEY)


# --- forward ------------------------------------------------------------------------------


def test_forward_needs_neither_training_nor_rng() -> None:
    net = ByAttribute()
    params = net.init(KEY)
    x = torch.ones(2, 3)
    assert torch.equal(net.apply(params, x, rngs={"dropout": KEY}), net.apply(params, x))
    with pytest.raises(TypeError, match="training"):
        net.apply(params, x, training=True)
    ensemble = Ensemble(ByAttribute, num=3)  # a member has no output_dim either
    stacked = ensemble.init(KEY)
    assert ensemble.apply(stacked, x).shape == (3, 2, 2)


def test_shapes_of_an_ensemble_need_no_values() -> None:
    assert Ensemble(MLP, 3, [4], num=3)(torch.ones(2, 3, device="meta")).shape == (3, 2, 4)


# --- equality by value --------------------------------------------------------------------


def test_networks_that_differ_are_not_the_same() -> None:
    assert same_module(Pair("a", "b"), Pair("a", "b"))
    different = [
        Pair("b", "a"),  # equal layers, called in the other order
        Pair("a", "a"),
        Pair("a", "b", torch.tanh),
        Pair("a", "b", lambda x: x),
        Dense(2, 2),
    ]
    for other in different:
        assert not same_module(Pair("a", "b"), other)
        assert Pair("a", "b").apply != other.apply
    assert not same_module(TwoHeads(False), TwoHeads(False, shares=False))
    assert not same_module(TwoHeads(False, shares=False), TwoHeads(False))


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (0.0, -0.0),
        (1, True),
        (torch.ones(2), torch.zeros(2)),
        (np.ones(2), np.ones(3)),
        ([1, 2], [1]),
        (functools.partial(torch.clamp, min=0), functools.partial(torch.clamp, min=1)),
        (Dense(2, 3).apply, Dense(2, 4).apply),
    ],
)
def test_settings_are_compared_by_value(value: Any, other: Any) -> None:
    one, same, different = (Pair("a", "b") for _ in range(3))
    one.setting, same.setting, different.setting = value, copy.deepcopy(value), other
    assert same_module(one, same)
    assert not same_module(one, different)


def test_a_network_that_refers_to_itself_is_compared() -> None:
    one, other = Pair("a", "b"), Pair("a", "b")
    for net in (one, other):
        object.__setattr__(net, "me", net)
    assert same_module(one, other)


def test_states_of_networks_built_separately_stack() -> None:
    states = [
        train_state(net, net.init(random.PRNGKey(i)), 3e-4)
        for i, net in enumerate((ByAttribute(), ByAttribute()))
    ]
    stacked = tree_stack(states)
    assert stacked.params["head"]["kernel"].shape == (2, 8, 2)
    assert len(tree_leaves(stacked)) == len(tree_leaves(states[0]))
