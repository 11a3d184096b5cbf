"""PixelMultiplexer: equality with upstream, stopped gradients, used keys, bad input."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from recorded import check_case

from idql_func import grad, random, tree_leaves
from idql_func.networks import (
    MLP,
    D4PGEncoder,
    Ensemble,
    PixelMultiplexer,
    ResNetV2Encoder,
    StateActionValue,
)
from idql_func.types import InputError

KEY = random.PRNGKey(0)
D4PG = partial(D4PGEncoder, features=(4, 3), filters=(3, 4), strides=(2, 1))
ACTOR = partial(MLP, hidden_dims=(6, 2))
CRITIC = partial(Ensemble, StateActionValue, MLP, hidden_dims=(6,), activate_final=True, num=2)
FRAMES, DEPTH = (12, 11, 3, 2), (12, 11, 1, 2)
SHAPES = {"left": FRAMES, "right": FRAMES, "near": DEPTH, "far": DEPTH, "state": (4,)}
CAMERAS: dict[str, Any] = {"pixel_keys": ("left", "right"), "depth_keys": ("near", "far")}


def observe(rows: tuple[int, ...] = (3,), **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    seen = {}
    for i, (name, shape) in enumerate((shapes or SHAPES).items()):
        key, image = random.fold_in(KEY, i), len(shape) == 4 and shape[2] == 3
        draw = random.uniform(key, (*rows, *shape))
        seen[name] = (draw * 256).to(torch.uint8) if image else draw
    return seen


def test_one_camera_equals_upstream() -> None:
    encoder = partial(ResNetV2Encoder, stage_sizes=(1, 1), num_filters=4)
    check_case("one-camera", PixelMultiplexer(encoder, ACTOR, 5, {"pixels": (9, 8, 3, 2)}))


def test_cameras_with_depth_state_and_actions_equal_upstream() -> None:
    net = PixelMultiplexer(D4PG, CRITIC, 5, SHAPES, action_dim=2, **CAMERAS)
    check_case("cameras", net)
    assert sorted(net._modules) == [
        "Dense_0", "Dense_1", "Dense_2", "Ensemble_0", "LayerNorm_0", "LayerNorm_1",
        "LayerNorm_2", "encoder_0", "encoder_1",
    ]  # fmt: skip


def test_stop_gradient_equals_upstream() -> None:
    check_case("stopped", PixelMultiplexer(D4PG, ACTOR, 5, SHAPES, stop_gradient=True, **CAMERAS))


@pytest.mark.parametrize("stop", [True, False])
def test_stop_gradient_affects_only_the_encoders(stop: bool) -> None:
    net = PixelMultiplexer(D4PG, ACTOR, 5, SHAPES, stop_gradient=stop, **CAMERAS)
    params, seen = net.init(KEY), observe()
    grads = grad(lambda p: net.apply(p, seen).square().sum())(params)
    nonzero = {name: any(bool(g.any()) for g in tree_leaves(tree)) for name, tree in grads.items()}
    assert nonzero.pop("encoder_0") is (not stop) and nonzero.pop("encoder_1") is (not stop)
    assert all(nonzero.values())
    assert torch.is_grad_enabled()


def test_single_observation_equals_batch() -> None:
    net = PixelMultiplexer(D4PG, CRITIC, 5, SHAPES, action_dim=2, **CAMERAS)
    params, seen, actions = net.init(KEY), observe(), random.normal(KEY, (3, 2))
    batch = net.apply(params, seen, actions)
    one = {name: value[1] for name, value in seen.items()}
    torch.testing.assert_close(net.apply(params, one, actions[1]), batch[:, 1])


def test_frames_are_merged_into_the_channel_axis() -> None:
    """Channel c of frame s is channel ``c * S + s`` of the encoder: the stack is last."""
    seen: list[torch.Tensor] = []

    class RecordingEncoder(D4PGEncoder):
        def forward(self, x: torch.Tensor, training: bool = False, rng: Any = None) -> Any:
            seen.append(x)
            return super().forward(x, training, rng)

    encoder = partial(RecordingEncoder, features=(4,), filters=(3,), strides=(1,))
    shapes = {"pixels": (4, 4, 3, 2), "depth": (4, 4, 1, 2)}
    net = PixelMultiplexer(encoder, ACTOR, 5, shapes, depth_keys=("depth",))
    observations = observe((), **shapes)
    net.apply(net.init(KEY), observations)
    pixels, depth = observations["pixels"].float() * (1 / 255), observations["depth"]
    for channel in range(3):
        for frame in range(2):
            assert torch.equal(seen[0][..., channel * 2 + frame], pixels[..., channel, frame])
    assert torch.equal(seen[0][..., 6:], depth[..., 0, :])


def test_other_entries_are_ignored() -> None:
    shapes = {"pixels": FRAMES, "wrist": FRAMES, "time": (1,)}
    net = PixelMultiplexer(D4PG, ACTOR, 5, shapes)
    assert sorted(net._modules) == ["Dense_0", "LayerNorm_0", "MLP_0", "encoder_0"]


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"pixel_keys": ()}, "pixel_keys must name at least one camera"),
        (
            {"pixel_keys": ("front",), "depth_keys": ()},
            "there is no observation 'front'",
        ),
        ({"depth_keys": ("near",)}, "depth_keys none or one per camera"),
        ({"depth_keys": ("near", "none")}, "there is no observation 'none'"),
        ({"depth_keys": ("near", "small")}, "'small' .* must have the height, width and frames"),
        ({"pixel_keys": ("left", "state"), "depth_keys": ()}, "'state' must have shape"),
    ],
)
def test_bad_keys_raise(keywords: dict[str, Any], words: str) -> None:
    shapes = {**SHAPES, "small": (6, 11, 1, 2)}
    with pytest.raises(InputError, match=words):
        PixelMultiplexer(D4PG, ACTOR, 5, shapes, **{**CAMERAS, **keywords})
