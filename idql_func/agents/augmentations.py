"""Random crops of images, after ``jaxrl5/agents/drq/augmentations.py`` (arXiv 2004.13649)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.transforms import vmap
from idql_func.types import PRNGKey


def _sources(key: PRNGKey, height: int, width: int, padding: int) -> Tensor:
    """The index in the image of the source of each pixel of a crop, ``[H * W]``.

    The padded image is not built: a row or column outside the image is clamped to its edge.
    """
    top, left = random.randint(key, (2,), 0, 2 * padding + 1).unbind(0)
    rows = torch.arange(height, device=key.device) + (top - padding)
    columns = torch.arange(width, device=key.device) + (left - padding)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    return (rows[:, None] * width + columns).flatten()


def random_crop(key: PRNGKey, img: Tensor, padding: int) -> Tensor:
    """Pad ``[H, W, ...]`` with its edge values, then crop a random window of the original size.

    >>> img = torch.arange(4).reshape(2, 2, 1, 1)
    >>> random_crop(random.PRNGKey(1), img, 1)[..., 0, 0].tolist()
    [[2, 2], [2, 2]]
    """
    height, width = img.shape[:2]
    pixels = img.reshape(height * width, -1)
    return pixels.index_select(0, _sources(key, height, width, padding)).reshape(img.shape)


def batched_random_crop(
    key: PRNGKey, obs: Mapping[str, Any], pixel_key: str, padding: int = 4
) -> dict[str, Any]:
    """Crop each image of the entry ``pixel_key``, ``[B, H, W, C, S]``, with a different key.

    The same key gives another entry, such as the camera's depth, the same crops (quirk A14).

    >>> obs = {"pixels": torch.zeros(5, 8, 8, 3, 2, dtype=torch.uint8), "state": torch.ones(5, 1)}
    >>> batched_random_crop(random.PRNGKey(0), obs, "pixels")["pixels"].shape
    torch.Size([5, 8, 8, 3, 2])
    """
    imgs = obs[pixel_key]
    count, height, width = imgs.shape[:3]
    sources = vmap(_sources, in_axes=(0, None, None, None))(
        random.split(key, count), height, width, padding
    )
    # one index_select for the whole batch is several times faster than one per image
    first = torch.arange(count, device=imgs.device)[:, None] * (height * width)
    pixels = imgs.reshape(count * height * width, -1)
    crops = pixels.index_select(0, (sources + first).flatten()).reshape(imgs.shape)
    return {**obs, pixel_key: crops}
