"""Encoders: equality with upstream, parameter trees, sizes; bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recorded import check_case

from idql_func import grad, random, tree_map, vmap
from idql_func.networks import D4PGEncoder, ResNetV2Block, ResNetV2Encoder
from idql_func.types import InputError

KEY = random.PRNGKey(0)
LAYERS: dict[str, Any] = {"features": (4, 3), "filters": (3, 4), "strides": (2, 1)}


def test_d4pg_equals_upstream() -> None:
    check_case("d4pg", D4PGEncoder((12, 11, 3), **LAYERS))
    check_case("d4pg-same", D4PGEncoder((9, 10, 3), **LAYERS, padding="SAME"))


def test_resnet_equals_upstream() -> None:
    check_case("resnet", ResNetV2Encoder((7, 6, 3), stage_sizes=(1, 1), num_filters=4))


def test_resnet_stem_for_224_pixels_equals_upstream() -> None:
    check_case("resnet-stem", ResNetV2Encoder((8, 224, 2), stage_sizes=(1,), num_filters=4))


def test_resnet_of_drq_has_upstreams_parameter_tree() -> None:
    """(2, 2, 2, 2) blocks: 64x64 frames, three stacked, give 8 * 8 * 512 features."""
    net = ResNetV2Encoder((64, 64, 9), stage_sizes=(2, 2, 2, 2))
    assert net.output_dim == 8 * 8 * 512
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    assert shapes["Conv_0.kernel"] == (3, 3, 9, 64)
    assert shapes["MyGroupNorm_0.scale"] == (512,)
    assert shapes["ResNetV2Block_2.Conv_2.kernel"] == (1, 1, 64, 128)
    assert shapes["ResNetV2Block_7.MyGroupNorm_1.bias"] == (512,)
    assert sorted(net._modules) == [
        "Conv_0", "MyGroupNorm_0", *(f"ResNetV2Block_{i}" for i in range(8))
    ]  # fmt: skip
    # a block that keeps the shape adds its input without projection
    assert "ResNetV2Block_1.Conv_2.kernel" not in shapes


def test_resnet_of_224_pixels_has_7_by_7_features() -> None:
    net = ResNetV2Encoder((224, 224, 3), stage_sizes=(1, 1, 1, 1))
    assert net.output_dim == 7 * 7 * 512


def test_default_filters_equal_those_of_the_learners() -> None:
    """Not upstream's (2, 1, 1, 1), a copy of the strides (quirk A13)."""
    net = D4PGEncoder((16, 16, 3))
    assert [conv.kernel_size for conv in net.convs] == [(3, 3)] * 4
    assert net.output_dim == 32  # 16 -> 7 -> 5 -> 3 -> 1


@pytest.mark.parametrize(
    "net",
    [
        D4PGEncoder((12, 11, 3), **LAYERS),
        ResNetV2Encoder((12, 11, 3), stage_sizes=(1, 1), num_filters=4),
    ],
    ids=["d4pg", "resnet"],
)
def test_single_image_equals_batch(net: Any) -> None:
    params, images = net.init(KEY), random.uniform(KEY, (3, 12, 11, 3))
    batch = net.apply(params, images)
    assert batch.shape == (3, net.output_dim)
    torch.testing.assert_close(net.apply(params, images[1]), batch[1])
    # any leading axes
    torch.testing.assert_close(
        net.apply(params, images[:2].unflatten(0, (2, 1))), batch[:2].unflatten(0, (2, 1))
    )


@pytest.mark.parametrize("width", [12, 224], ids=["plain", "stem"])
def test_vmapped_resnets_equal_single_ones(width: int) -> None:
    """In float64, since float32 rounding in the stem alone reaches the parity suite's bounds."""
    net = ResNetV2Encoder((12, width, 3), stage_sizes=(1, 1), num_filters=4)
    params = tree_map(lambda x: x.double(), vmap(net.init)(random.split(KEY, 3)))
    images = random.uniform(KEY, (3, 2, 12, width, 3), dtype=torch.float64)
    cotangent = random.uniform(random.PRNGKey(1), (2, net.output_dim), dtype=torch.float64)

    def output_and_gradients(weights: Any, given: torch.Tensor) -> tuple[torch.Tensor, Any]:
        scalar = grad(lambda w, x: (net.apply(w, x) * cotangent).sum(), argnums=(0, 1))
        return net.apply(weights, given), scalar(weights, given)

    mapped = vmap(output_and_gradients)(params, images)
    for i in range(3):
        single = output_and_gradients(*tree_map(lambda x, i=i: x[i], (params, images)))
        member = tree_map(lambda x, i=i: x[i], mapped)
        torch.testing.assert_close(member, single, rtol=1e-11, atol=1e-11)


def test_block_without_change_of_shape_has_no_projection() -> None:
    assert ResNetV2Block((8, 8, 4), filters=4).project is None
    assert ResNetV2Block((8, 8, 4), filters=8).project is not None
    assert ResNetV2Block((8, 8, 4), filters=4, stride=2).output_shape == (4, 4, 4)


def test_bad_settings_raise() -> None:
    with pytest.raises(InputError, match="features, filters and strides must have one entry"):
        D4PGEncoder((16, 16, 3), features=(4, 4))
    with pytest.raises(InputError, match=r"an image of 2x2 .* smaller than the 3x3 window"):
        D4PGEncoder((14, 14, 3), features=(4,) * 5, filters=(3,) * 5, strides=(2, 2, 1, 1, 1))
    with pytest.raises(InputError, match="stage_sizes must have at least one block"):
        ResNetV2Encoder((16, 16, 3), stage_sizes=())
    with pytest.raises(InputError, match="6 channels do not divide into 4 groups"):
        ResNetV2Encoder((16, 16, 3), stage_sizes=(1,), num_filters=6)
