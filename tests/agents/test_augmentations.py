"""Random crops: equality with upstream, definition of a crop, compilation, unpacking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_cases import make_observations
from pixel_learners import recorded

from idql_func import disable_jit, random, tree_map
from idql_func.agents.augmentations import batched_random_crop, random_crop
from idql_func.agents.pixels import augmented, random_crops, unpack
from idql_func.transforms import compiler_problem
from idql_func.types import InputError

SHAPES: dict[str, tuple[int, ...]] = {"pixels": (6, 5, 3, 2), "depth": (6, 5, 1, 2)}


def observe(seed: int, rows: int = 7) -> dict[str, torch.Tensor]:
    return tree_map(torch.from_numpy, make_observations(SHAPES, seed, (rows,)))


@pytest.mark.parametrize("padding", [1, 4])
def test_crops_equal_upstream(padding: int) -> None:
    key, seen = random.PRNGKey(padding), observe(padding)
    cropped = dict(seen)
    for name in SHAPES:
        cropped = batched_random_crop(key, cropped, name, padding)
        assert cropped[name].dtype == seen[name].dtype
        assert torch.equal(cropped[name], recorded()[f"crop-{padding}/{name}"])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    padding=st.integers(0, 5),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
)
def test_crop_is_a_window_of_the_padded_image(
    seed: int, padding: int, height: int, width: int
) -> None:
    key = random.PRNGKey(seed)
    image = torch.arange(height * width * 2).reshape(height, width, 2, 1)
    pads = ((padding, padding), (padding, padding), (0, 0), (0, 0))
    padded = np.pad(image.numpy(), pads, mode="edge")
    top, left = random.randint(key, (2,), 0, 2 * padding + 1).tolist()
    window = padded[top : top + height, left : left + width]
    assert np.array_equal(random_crop(key, image, padding).numpy(), window)


def test_crop_does_not_change_its_arguments() -> None:
    seen = observe(0)
    before = {name: value.clone() for name, value in seen.items()}
    batched_random_crop(random.PRNGKey(0), seen, "pixels")
    assert all(torch.equal(seen[name], before[name]) for name in seen)


def test_depth_is_cropped_like_its_camera() -> None:
    seen = observe(0)
    twice = {"a": seen["pixels"], "b": seen["pixels"], "c": seen["pixels"]}
    cropped = random_crops(("a", "b"), ("c", "b"))(random.PRNGKey(0), twice)
    assert torch.equal(cropped["a"], cropped["c"])
    assert not torch.equal(cropped["a"], cropped["b"])


def test_crop_without_padding_is_the_identity() -> None:
    seen = observe(0)
    assert torch.equal(
        batched_random_crop(random.PRNGKey(0), seen, "pixels", 0)["pixels"], seen["pixels"]
    )


@pytest.mark.skipif(
    compiler_problem(torch.device("cpu")) is not None, reason="needs a C++ compiler"
)
def test_compiled_crops_equal_eager() -> None:
    key, seen, augment = random.PRNGKey(5), observe(3), random_crops(("pixels",), ("depth",))
    with disable_jit():
        rng, expected = augmented(key, (seen, seen), augment=augment)
    compiled_rng, actual = augmented(key, (seen, seen), augment=augment)
    assert torch.equal(rng, compiled_rng)
    for now, then in zip(actual, expected, strict=True):
        assert all(torch.equal(now[name], then[name]) for name in then)


# --- packed observations ----------------------------------------------------------------------


def test_unpack_splits_every_camera() -> None:
    """Upstream unpacks only the last camera (A10) and needs the key "pixels" (A11)."""
    packed = {
        "left": torch.arange(8).reshape(1, 1, 1, 2, 4),
        "right": -torch.arange(4).reshape(1, 1, 1, 1, 4),
        "state": torch.ones(1, 2),
    }
    state = torch.zeros(1, 2)
    batch = {"observations": packed, "next_observations": {"state": state}, "rewards": 1}
    unpacked = unpack(batch, {"left": 3, "right": 3})
    now, later = unpacked["observations"], unpacked["next_observations"]
    assert now["left"].tolist() == [[[[[0, 1, 2], [4, 5, 6]]]]]
    assert later["left"].tolist() == [[[[[1, 2, 3], [5, 6, 7]]]]]
    assert now["right"].flatten().tolist() == [0, -1, -2]
    assert later["right"].flatten().tolist() == [-1, -2, -3]
    assert now["state"] is packed["state"] and later["state"] is state and unpacked["rewards"] == 1
    assert packed["left"].shape[-1] == 4 and "left" not in batch["next_observations"]


def test_unpack_does_not_change_complete_batches() -> None:
    seen = observe(0)
    batch = {"observations": seen, "next_observations": seen}
    assert unpack(batch, {"pixels": 2, "depth": 2}) == batch


def test_unpack_without_a_next_image_raises() -> None:
    batch = {"observations": observe(0), "next_observations": {}}
    with pytest.raises(InputError, match=r"must hold 3 frames on its last axis.*\(7, 6, 5, 3, 2\)"):
        unpack(batch, {"pixels": 2})
