"""Initial values of parameters, the ones that Flax draws for a key.

Each initialiser is a function of a module, or a ``functools.partial`` of one, so that networks
can be pickled and compared by value.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from idql_func import random
from idql_func.boundary import explained
from idql_func.types import PRNGKey

Initializer: TypeAlias = Callable[[PRNGKey, tuple[int, ...]], Tensor]
"""From a key and a shape to a tensor of that shape."""


def _fans(shape: tuple[int, ...]) -> tuple[float, float]:
    field = math.prod(shape[:-2])
    return shape[-2] * field, shape[-1] * field


def xavier_uniform() -> Initializer:
    """Uniform with variance ``2 / (fan_in + fan_out)`` (Glorot and Bengio, 2010).

    >>> float(xavier_uniform()(random.PRNGKey(0), (3, 3)).abs().max()) <= 1.0
    True
    """
    return _draw_xavier_uniform


@explained
def _draw_xavier_uniform(key: PRNGKey, shape: tuple[int, ...]) -> Tensor:
    fan_in, fan_out = _fans(shape)
    variance = np.float32(1.0 / ((fan_in + fan_out) / 2))
    scale = float(np.sqrt(np.float32(3) * variance))
    return random.uniform(key, shape, torch.float32, -1.0, 1.0) * scale


default_init = xavier_uniform
"""Upstream's initialiser of every kernel but those of the residual blocks (quirk N4)."""


def lecun_normal() -> Initializer:
    """Normal, cut at two deviations, with variance ``1 / fan_in``; Flax's default.

    >>> lecun_normal()(random.PRNGKey(0), (2, 3)).shape
    torch.Size([2, 3])
    """
    return _draw_lecun_normal


@explained
def _draw_lecun_normal(key: PRNGKey, shape: tuple[int, ...]) -> Tensor:
    # .8796... is the deviation of a unit normal cut at two deviations
    variance = np.float32(1.0 / _fans(shape)[0])
    deviation = float(np.sqrt(variance) / np.float32(0.87962566103423978))
    return random.truncated_normal(key, -2.0, 2.0, shape, torch.float32) * deviation


def normal(stddev: float) -> Initializer:
    """Normal with a given deviation.

    >>> normal(0.2)(random.PRNGKey(0), (2, 1)).shape
    torch.Size([2, 1])
    """
    return functools.partial(_draw_normal, stddev=stddev)


@explained
def _draw_normal(key: PRNGKey, shape: tuple[int, ...], stddev: float) -> Tensor:
    return random.normal(key, shape, torch.float32) * stddev


@explained
def zeros(key: PRNGKey, shape: tuple[int, ...]) -> Tensor:
    """All zero, whatever the key.

    >>> zeros(random.PRNGKey(0), (2,)).tolist()
    [0.0, 0.0]
    """
    return torch.zeros(shape, device=key.device)


@explained
def ones(key: PRNGKey, shape: tuple[int, ...]) -> Tensor:
    """All one, whatever the key.

    >>> ones(random.PRNGKey(0), (2,)).tolist()
    [1.0, 1.0]
    """
    return torch.ones(shape, device=key.device)
