"""Sequential, pooling, group norm and the IMPALA encoder."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from idql_func import grad, jit, random, tree_map, vmap
from idql_func.networks import (
    MLP,
    Conv,
    Dense,
    Dropout,
    Ensemble,
    GroupNorm,
    ImpalaEncoder,
    Module,
    ResnetStack,
    Sequential,
    encoder_modules,
    gelu,
    max_pool,
    relu,
)
from idql_func.networks.module import LazyRng
from idql_func.tree import tree_paths
from idql_func.types import InputError

KEY = random.PRNGKey(0)
X = torch.linspace(-1, 1, 15).reshape(5, 3)


# --- Sequential ---------------------------------------------------------------------------


def chain() -> Sequential:
    return Sequential([Dense(3, 8), gelu, MLP(8, [8, 4]), torch.tanh, nn.Hardtanh()])


def test_the_layers_run_in_order_under_their_places() -> None:
    net = chain()
    params = net.init(KEY)
    assert sorted(params) == ["layers_0", "layers_2"]
    first, second = Dense(3, 8), MLP(8, [8, 4])
    hidden = gelu(first.apply(params["layers_0"], X))
    assert torch.equal(net.apply(params, X), torch.tanh(second.apply(params["layers_2"], hidden)))
    kernel = first.init_from(LazyRng(KEY, ("layers_0",)))["kernel"]
    assert torch.equal(kernel, params["layers_0"]["kernel"])
    assert net.output_dim == 4


def test_jit_vmap_and_grad_agree_with_the_plain_call() -> None:
    net = chain()
    params = [net.init(random.PRNGKey(i)) for i in range(2)]
    each = torch.stack([net.apply(p, X) for p in params])
    torch.testing.assert_close(jit(net.apply)(params[0], X), each[0])
    stacked = tree_map(lambda *leaves: torch.stack(leaves), *params)
    torch.testing.assert_close(vmap(net.apply, in_axes=(0, None))(stacked, X), each)
    assert tree_paths(grad(lambda p: net.apply(p, X).sum())(params[0])) == tree_paths(params[0])


class Two(Module):
    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        return (x, 2 * x) if self.kind is tuple else {"b": 2 * x, "a": x}


@pytest.mark.parametrize("kind", [tuple, dict])
def test_a_tuple_becomes_arguments_and_a_dict_keywords(kind: type) -> None:
    net = Sequential([Two(kind), lambda a, b: a - b, lambda x: [x, x]])
    first, second = net.apply(net.init(KEY), X)
    assert torch.equal(first, -X) and torch.equal(second, -X)


def test_several_inputs_and_keywords_go_to_the_first_layer() -> None:
    net = Sequential([lambda a, b, factor=1: a + factor * b, Dense(3, 2)])
    params = net.init(KEY)
    expected = Dense(3, 2).apply(params["layers_1"], X + 5 * X)
    torch.testing.assert_close(net.apply(params, X, X, factor=5), expected)


def test_a_layer_at_two_places_has_one_set_of_parameters() -> None:
    layer = Dense(3, 3)
    net = Sequential([layer, relu, layer])
    params = net.init(KEY)
    assert sorted(params) == ["layers_0"]
    once = Sequential([Dense(3, 3), relu]).apply(params, X)
    torch.testing.assert_close(net.apply(params, X), layer.apply(params["layers_0"], once))


def test_each_dropout_has_its_own_mask_and_plain_layers_no_training() -> None:
    class Plain(Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    net = Sequential([Dropout(0.5), Plain(), Dropout(0.5)])
    x = torch.ones(4000)
    y = net.apply({}, x, training=True, rngs={"dropout": KEY})
    assert y.unique().tolist() == [0.0, 2.0, 6.0]
    assert (y == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(net.apply({}, x), x + 1)
    with pytest.raises(ValueError, match="needs a key"):
        net.apply({}, x, training=True)


def test_sequentials_nest_in_networks_lists_and_ensembles() -> None:
    class Holder(Module):
        def __init__(self) -> None:
            super().__init__()
            self.nets = [Sequential([Dense(3, 2)]), Sequential([relu, Sequential([Dense(2, 2)])])]

        def forward(self, x: Tensor) -> Tensor:
            return self.nets[1](self.nets[0](x))

    params = Holder().init(KEY)
    assert tree_paths(params)[::2] == ["nets_0/layers_0/bias", "nets_1/layers_1/layers_0/bias"]
    assert Holder().apply(params, X).shape == (5, 2)
    ensemble = Ensemble(Sequential, [Dense(3, 2), relu], num=4, name="nets")
    assert ensemble.apply(ensemble.init(KEY), X).shape == (4, 5, 2)


NOT_LAYERS: dict[str, Any] = {"function": relu, "text": "relu", "number": [relu, 3]}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "empty": (lambda: Sequential([]), "layers must be a list of one or more networks or functions"),
    "no list": (
        lambda: Sequential(NOT_LAYERS["function"]),
        "list of one or more networks or functions, got a",
    ),
    "text": (
        lambda: Sequential(NOT_LAYERS["text"]),
        "list of one or more networks or functions, got a str.",
    ),
    "number": (
        lambda: Sequential(NOT_LAYERS["number"]),
        "layers[1] must be a network or a function, got 3.",
    ),
    "class": (lambda: Sequential([Dense]), "layers[0] must be a network or a function, got the"),
    "weights": (lambda: Sequential([nn.Linear(2, 2)]), "Sequential.layers_0: a torch.nn.Linear"),
    "groups": (
        lambda: GroupNorm(8, 4, group_size=2),
        "GroupNorm: give either num_groups or group_size; with group_size, num_groups must be "
        "None, got 4 and 2.",
    ),
    "no groups": (lambda: GroupNorm(8, None), "give either num_groups or group_size"),
    "group size": (
        lambda: GroupNorm(8, None, group_size=3),
        "GroupNorm: 8 channels do not divide into groups of 3.",
    ),
    "group of 0": (lambda: GroupNorm(8, 0), "8 channels do not divide into 0 groups."),
    "one axis": (
        lambda: GroupNorm(8, 2).apply(GroupNorm(8, 2).init(KEY), torch.ones(8)),
        "the input must have a batch axis and a channel axis, got shape (8,).",
    ),
    "window": (
        lambda: max_pool(torch.ones(2, 2, 1), (3, 3)),
        "an image of 2x2 with padding 'VALID' is smaller than the 3x3 window.",
    ),
    "three axes of a window": (
        lambda: max_pool(torch.ones(2, 2, 1), (2, 2, 2)),  # type: ignore[arg-type]
        "max_pool: window_shape must be a tuple of two integers",
    ),
    "no stack": (
        lambda: ImpalaEncoder((8, 8, 3), stack_sizes=()),
        "ImpalaEncoder: stack_sizes must have at least one entry.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_one_sentence(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises((InputError, TypeError), match=re.escape(message)) as raised:
        call()
    assert "\n" not in str(raised.value)


# --- pooling and group norm --------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    window=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 1000),
)
def test_each_output_is_the_largest_value_of_its_window(
    size: tuple[int, int], window: tuple[int, int], strides: tuple[int, int], seed: int
) -> None:
    image = random.normal(random.PRNGKey(seed), (*size, 2))
    pooled = max_pool(image, window, strides, "SAME")
    totals = [
        max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, window, strides, strict=True)
    ]
    for i in range(pooled.shape[0]):
        for j in range(pooled.shape[1]):
            top, left = i * strides[0] - totals[0] // 2, j * strides[1] - totals[1] // 2
            rows = slice(max(top, 0), top + window[0])
            columns = slice(max(left, 0), left + window[1])
            assert torch.equal(pooled[i, j], image[rows, columns].amax(dim=(0, 1)))


def test_the_first_of_equal_values_gets_the_gradient() -> None:
    found = grad(lambda x: max_pool(x, (2, 2)).sum())(torch.zeros(3, 3, 1)).squeeze(-1)
    assert found.tolist() == [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([(8,), (5, 8), (2, 3, 8)]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 1000),
)
def test_group_norm_has_mean_zero_and_variance_one_per_row_and_group(
    shape: tuple[int, ...], groups: int, seed: int
) -> None:
    layer = GroupNorm(8, groups)
    # in double precision: E[x^2] - E[x]^2 loses digits
    params = tree_map(torch.Tensor.double, layer.init(KEY))
    x = 3 + random.normal(random.PRNGKey(seed), (3, *shape), torch.float64)
    y = layer.apply(params, x)
    same = GroupNorm(8, None, group_size=8 // groups)
    assert torch.equal(same.apply(params, x), y)
    expected = nn.functional.group_norm(x.movedim(-1, 1), groups, eps=1e-6).movedim(1, -1)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)


def test_group_norm_of_no_rows_is_empty() -> None:
    layer = GroupNorm(4, 2)
    assert layer.apply(layer.init(KEY), torch.ones(0, 3, 3, 4)).shape == (0, 3, 3, 4)


def test_group_norm_without_scale_and_bias_has_no_parameters() -> None:
    layer = GroupNorm(4, 2, use_scale=False, use_bias=False)
    assert layer.init(KEY) == {}
    full = GroupNorm(4, 2)
    x = random.normal(KEY, (3, 5, 4))
    assert torch.equal(layer.apply({}, x), full.apply(full.init(KEY), x))


def test_conv_takes_one_number_as_strides() -> None:
    one, two = Conv(3, 2, (3, 3), 2), Conv(3, 2, (3, 3), (2, 2))
    params, image = one.init(KEY), random.normal(KEY, (7, 6, 3))
    assert torch.equal(one.apply(params, image), two.apply(params, image))


# --- IMPALA ---------------------------------------------------------------------------------------


def encoder(**options: Any) -> ImpalaEncoder:
    return ImpalaEncoder((9, 8, 3), 1, (2, 3), 1, mlp_hidden_dims=(4,), **options)


IMAGES = (random.uniform(KEY, (4, 9, 8, 3)) * 255).to(torch.uint8)


def test_impala_has_the_names_of_flax() -> None:
    params = encoder(layer_norm=True).init(KEY)
    assert sorted(params) == ["LayerNorm_0", "MLP_0", "stack_blocks_0", "stack_blocks_1"]
    assert sorted(params["stack_blocks_0"]) == ["Conv_0", "Conv_1", "Conv_2"]
    assert sorted(params["MLP_0"]) == ["Dense_0", "LayerNorm_0"]
    assert params["MLP_0"]["Dense_0"]["kernel"].shape == (3 * 2 * 3, 4)


def test_impala_in_jit_vmap_and_grad() -> None:
    net = encoder(layer_norm=True)
    params = net.init(KEY)
    y = net.apply(params, IMAGES)
    assert y.shape == (4, net.output_dim)
    torch.testing.assert_close(jit(net.apply)(params, IMAGES), y)
    torch.testing.assert_close(vmap(lambda x: net.apply(params, x))(IMAGES), y)
    torch.testing.assert_close(net.apply(params, IMAGES[None])[0], y)
    slope = grad(lambda p: net.apply(p, IMAGES).sum())(params)
    assert all(leaf.abs().max() > 0 for leaf in slope["stack_blocks_0"]["Conv_0"].values())


def test_impala_drops_out_in_training_only_with_a_mask_per_stack() -> None:
    net = encoder(dropout_rate=0.5)
    params = net.init(KEY)
    plain = encoder().apply(params, IMAGES)
    assert torch.equal(net.apply(params, IMAGES), plain)
    dropped = net.apply(params, IMAGES, training=True, rngs={"dropout": KEY})
    assert not torch.allclose(dropped, plain)
    drop, rng = Dropout(0.5), LazyRng(KEY)
    first, second = (drop(torch.ones(64), True, rng, use) for use in (1, 2))
    assert not torch.equal(first, second)


def test_encoders_by_name_have_their_sizes() -> None:
    blocks = {
        name: len(make((8, 8, 3)).stack_blocks[0].blocks) for name, make in encoder_modules.items()
    }
    assert blocks == {"impala": 2, "impala_debug": 1, "impala_small": 1, "impala_large": 2}
    assert encoder_modules["impala_large"]((8, 8, 3)).output_dim == 1024
    assert len(encoder_modules["impala_debug"]((8, 8, 3)).stack_blocks) == 2


def test_a_stack_without_pooling_keeps_the_size() -> None:
    stack = ResnetStack((5, 6, 2), 3, 2, max_pooling=False)
    assert stack.output_shape == (5, 6, 3)
    assert stack.apply(stack.init(KEY), torch.ones(1, 5, 6, 2)).shape == (1, 5, 6, 3)
