"""Flax's dropout layer."""

from __future__ import annotations

import torch
from torch import Tensor

from idql_func import random
from idql_func.networks.module import LazyRng, Module
from idql_func.types import InputError


class Dropout(Module):
    """Zero each entry with probability ``rate``, scale up the others (``flax.linen.Dropout``).

    A layer that a network uses several times in one pass is given the number of the use, from 1,
    so that each use has a mask of its own, the one that Flax draws.

    >>> layer = Dropout(0.5)
    >>> layer(torch.ones(4), training=True, rng=LazyRng(random.PRNGKey(0))).unique().tolist()
    [0.0, 2.0]
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate <= 1:
            raise InputError(f"Dropout: rate must lie in [0, 1], got {rate}.")
        self.rate = rate

    def forward(
        self, x: Tensor, training: bool = False, rng: LazyRng | None = None, use: int = 1
    ) -> Tensor:
        if not training or self.rate == 0:
            return x
        if rng is None:
            raise ValueError("Dropout: training needs a key; pass rngs={'dropout': key}.")
        if self.rate == 1:
            return torch.zeros_like(x)
        keep = random.bernoulli(rng.make(use), 1.0 - self.rate, tuple(x.shape))
        return torch.where(keep, x / (1.0 - self.rate), torch.zeros_like(x))
