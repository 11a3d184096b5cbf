"""A distribution of one value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idql_func.boundary import explained_methods
from idql_func.distributions.distribution import Distribution, floating
from idql_func.struct import PyTreeNode
from idql_func.switches import float_dtype
from idql_func.types import Number, PRNGKey


@explained_methods(
    *("__init__", "sample", "sample_and_log_prob", "log_prob", "prob", "mode", "mean"),
    *("variance", "entropy", "kl_divergence"),
)
class Deterministic(Distribution):
    """All probability on ``loc`` ``[...]`` (``distrax.Deterministic``).

    A value counts as ``loc`` within ``atol + rtol |loc|``, which is 0 by default.

    Raises:
        ValueError: a tolerance has more axes than loc.

    >>> from idql_func import random
    >>> dist = Deterministic(torch.tensor([0.5, -1.0]))
    >>> dist.sample(random.PRNGKey(0)).tolist(), dist.log_prob(torch.tensor([0.5, 0.0])).tolist()
    ([0.5, -1.0], [0.0, -inf])
    """

    loc: Tensor
    atol: Tensor
    rtol: Tensor

    def __init__(self, loc: Number, atol: Number = 0.0, rtol: Number = 0.0) -> None:
        object.__setattr__(self, "loc", floating(loc))
        for name, value in (("atol", floating(atol)), ("rtol", floating(rtol))):
            if value.ndim > self.loc.ndim:
                raise ValueError(
                    f"Deterministic: {name} must have no more axes than loc, got "
                    f"{tuple(value.shape)} and {tuple(self.loc.shape)}."
                )
            object.__setattr__(self, name, value.expand(self.loc.shape))
        PyTreeNode.__post_init__(self)

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of the batch, ``[...]``."""
        return self.loc.shape

    def _draw(self, key: PRNGKey, count: int) -> Tensor:
        return self.loc.expand(count, *self.loc.shape)

    def _draw_with_log_prob(self, key: PRNGKey, count: int) -> tuple[Tensor, Tensor]:
        drawn = self._draw(key, count)
        return drawn, torch.zeros_like(drawn)

    def log_prob(self, value: Tensor) -> Tensor:
        """0 at ``loc``, else -inf, ``[...] -> [...]``."""
        return torch.log(self.prob(value))

    def prob(self, value: Tensor) -> Tensor:
        """1 at ``loc``, else 0, ``[...] -> [...]``."""
        return ((value - self.loc).abs() <= self._slack()).to(float_dtype())

    def _slack(self) -> Tensor:
        near = self.atol + self.rtol * self.loc.abs()
        return torch.where(self.rtol == 0, self.atol, near)  # 0 inf is no number

    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc

    def variance(self) -> Tensor:
        """Zeros ``[...]``."""
        return torch.zeros(self.loc.shape, dtype=float_dtype(), device=self.loc.device)

    def stddev(self) -> Tensor:
        """Zeros ``[...]``."""
        return self.variance()

    def entropy(self) -> Tensor:
        """Zeros ``[...]``."""
        return self.variance()

    def _kl_divergence(self, other: Any) -> Tensor:
        slack = other.atol + other.rtol * other.loc.abs()
        return -torch.log(((self.loc - other.loc).abs() <= slack).to(float_dtype()))
