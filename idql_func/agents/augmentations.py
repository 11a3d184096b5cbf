"""Random crops of images, after ``jaxrl5/agents/drq/augmentations.py`` (arXiv 2004.13649)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.transforms import vmap
from idql_func.types import PRNGKey


def random_crop(key: PRNGKey, img: Tensor, padding: int) -> Tensor:
    """Pad ``[H, W, ...]`` by its edges on all sides, then cut out the old size anywhere.

    The padded image is never built: a row or column outside the image is its nearest edge.

    >>> img = torch.arange(4).reshape(2, 2, 1, 1)
    >>> random_crop(random.PRNGKey(1), img, 1)[..., 0, 0].tolist()
    [[2, 2], [2, 2]]
    """
    height, width = img.shape[:2]
    top, left = random.randint(key, (2,), 0, 2 * padding + 1).unbind(0)
    rows = torch.arange(height, device=img.device) + (top - padding)
    columns = torch.arange(width, device=img.device) + (left - padding)
    return img[rows.clamp(0, height - 1)[:, None], columns.clamp(0, width - 1)]


def batched_random_crop(
    key: PRNGKey, obs: Mapping[str, Any], pixel_key: str, padding: int = 4
) -> dict[str, Any]:
    """Observations with each image of ``[B, H, W, C, S]`` cropped by a key of its own.

    The same key gives another entry, such as the depth of the camera, the same crops
    (quirk A14).

    >>> obs = {"pixels": torch.zeros(5, 8, 8, 3, 2, dtype=torch.uint8), "state": torch.ones(5, 1)}
    >>> batched_random_crop(random.PRNGKey(0), obs, "pixels")["pixels"].shape
    torch.Size([5, 8, 8, 3, 2])
    """
    imgs = obs[pixel_key]
    keys = random.split(key, imgs.shape[0])
    crops = vmap(random_crop, in_axes=(0, 0, None))(keys, imgs, padding)
    return {**obs, pixel_key: crops}
