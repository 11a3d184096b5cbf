"""Conv, GroupNorm and max_pool: Flax's padding, formulas and recorded outputs; bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import check_case

from idql_func import disable_jit, random, tree_map, value_and_grad, vmap
from idql_func.networks import Conv, GroupNorm, max_pool
from idql_func.networks.conv import check_padding, output_shape, pad_widths
from idql_func.networks.encoders import MyGroupNorm
from idql_func.networks.module import LazyRng, Module
from idql_func.types import InputError

KEY = random.PRNGKey(0)


# --- equality with upstream -----------------------------------------------------------------


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 3))])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_conv_equals_flax(stride: int, padding: str | tuple[tuple[int, int], ...]) -> None:
    kind = padding if isinstance(padding, str) else "pairs"
    check_case(f"conv-{stride}-{kind}", Conv(3, 2, (3, 4), (stride, stride), padding))


def test_conv_without_bias_and_with_several_batch_axes_equals_flax() -> None:
    check_case("conv-no-bias", Conv(3, 2, (3, 3), (2, 2), use_bias=False))


def test_conv_of_one_image_equals_flax() -> None:
    check_case("conv-one", Conv(3, 2, (3, 3), (2, 1)))


def test_group_norm_equals_flax() -> None:
    check_case("norm", MyGroupNorm(8))
    check_case("norm-one", MyGroupNorm(8))
    check_case("norm-default", GroupNorm(4, num_groups=2))


class Pooled(Module):
    """A convolution and the pooling of the 224-pixel stem."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = self.add(Conv(2, 2, (1, 1)))

    def forward(
        self, x: torch.Tensor, training: bool = False, rng: LazyRng | None = None
    ) -> torch.Tensor:
        return max_pool(self.conv(x), (3, 3), (2, 2), "SAME")


def test_max_pool_equals_flax() -> None:
    check_case("pool", Pooled())


# --- hand-computed values -------------------------------------------------------------------


def test_conv_equals_hand_computed_values() -> None:
    layer = Conv(1, 1, (2, 2), padding="VALID")
    params = {
        "kernel": torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1),
        "bias": torch.tensor([0.5]),
    }
    image = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]).reshape(2, 3, 1)
    # cross-correlation: 1*1 + 1*4 and 2*2 + 1*3 + 1*4
    assert layer.apply(params, image).flatten().tolist() == [5.5, 11.5]


def test_same_padding_with_strides_differs_from_torch() -> None:
    """For an even size, a 3x3 kernel and stride 2, the one padding row goes at the end."""
    layer = Conv(1, 1, (3, 3), (2, 2), use_bias=False)
    params = {"kernel": torch.zeros(3, 3, 1, 1).index_fill(0, torch.tensor([0]), 1.0)}
    params["kernel"][0, 1:] = 0  # only the upper left tap
    image = torch.arange(16.0).reshape(4, 4, 1)
    assert layer.apply(params, image).flatten().tolist() == [0.0, 2.0, 8.0, 10.0]


def test_group_norm_of_a_constant_is_its_bias() -> None:
    layer = GroupNorm(4, num_groups=2)
    params = {"scale": torch.ones(4), "bias": torch.tensor([0.0, 1.0, 2.0, 3.0])}
    y = layer.apply(params, torch.full((2, 3, 3, 4), 12345.678))
    assert bool(y.isfinite().all())
    zeros = layer.apply(params, torch.zeros(2, 3, 3, 4))
    assert torch.equal(zeros, params["bias"].expand(2, 3, 3, 4))


def test_group_norm_of_upstream_treats_images_separately() -> None:
    layer = MyGroupNorm(4)
    params, images = layer.init(KEY), random.normal(KEY, (3, 2, 2, 4))
    each = torch.stack([layer.apply(params, image) for image in images])
    torch.testing.assert_close(layer.apply(params, images), each)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 2)])
def test_conv_of_single_pixels_is_a_matrix_product(strides: tuple[int, int]) -> None:
    # torch's gradient of such a convolution crashes the process on some processors
    layer = Conv(2, 7, (1, 1), strides=strides)
    for seed in range(20):
        # in double precision: the gradient of the bias is a sum of 1,440 terms of both signs
        params = tree_map(torch.Tensor.double, layer.init(random.PRNGKey(seed)))
        images = random.normal(random.PRNGKey(seed + 1), (6, 16, 15, 2), torch.float64)

        def loss(params: Any, images: torch.Tensor) -> torch.Tensor:
            return layer.apply(params, images).square().sum()

        def expected(params: Any, images: torch.Tensor) -> torch.Tensor:
            pixels = images[:, :: strides[0], :: strides[1]]
            return (pixels @ params["kernel"][0, 0] + params["bias"]).square().sum()

        got = value_and_grad(loss, argnums=(0, 1))(params, images)
        tree_map(
            torch.testing.assert_close,
            got,
            value_and_grad(expected, argnums=(0, 1))(params, images),
        )


def test_vmapped_conv_equals_single_ones() -> None:
    layer = Conv(2, 3, (3, 3), (2, 2))
    params = [layer.init(random.PRNGKey(i)) for i in range(2)]
    images = random.normal(KEY, (2, 4, 6, 6, 2))
    stacked = {name: torch.stack([p[name] for p in params]) for name in params[0]}
    with disable_jit():
        mapped = vmap(layer.apply)(stacked, images)
    each = torch.stack([layer.apply(p, x) for p, x in zip(params, images, strict=True)])
    torch.testing.assert_close(mapped, each)


@settings(max_examples=50)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    window=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_same_padding_gives_one_window_per_stride(
    size: tuple[int, int], window: tuple[int, int], strides: tuple[int, int]
) -> None:
    assert output_shape(size, window, strides, "SAME") == tuple(
        -(-n // s) for n, s in zip(size, strides, strict=True)
    )
    for before, after in pad_widths(size, window, strides, "SAME"):
        assert 0 <= after - before <= 1
    image = torch.zeros(*size, 1)
    layer = Conv(1, 1, window, strides)
    assert layer.apply(layer.init(KEY), image).shape[:2] == output_shape(
        size, window, strides, "SAME"
    )
    assert (
        max_pool(image, window, strides, "SAME").shape[:2]
        == layer.apply(layer.init(KEY), image).shape[:2]
    )


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", 1, (1, 1), ((1, 1),), ((1, 1), (1, -1)), None])
def test_padding_of_another_form_raises(padding: object) -> None:
    with pytest.raises(InputError, match="padding must be 'SAME', 'VALID' or two pairs"):
        check_padding(padding)
    with pytest.raises(InputError, match="padding must be"):
        Conv(1, 1, (3, 3), padding=padding)  # type: ignore[arg-type]


def test_window_larger_than_the_image_raises() -> None:
    with pytest.raises(InputError, match="an image of 2x9 with padding 'VALID' is smaller than"):
        output_shape((2, 9), (3, 3), (1, 1), "VALID")


def test_channels_that_do_not_divide_raise() -> None:
    with pytest.raises(InputError, match="6 channels do not divide into 4 groups"):
        GroupNorm(6, num_groups=4)
