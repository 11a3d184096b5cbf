"""Normal distributions, in the form and with the draws of distrax."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.boundary import explained_methods
from idql_func.distributions.distribution import Distribution, floating
from idql_func.struct import PyTreeNode
from idql_func.types import Number, PRNGKey

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@explained_methods(
    *("__init__", "sample", "sample_and_log_prob", "log_prob", "prob", "mode", "mean"),
    *("variance", "stddev", "entropy", "kl_divergence"),
)
class UnivariateNormal(Distribution):
    """Normal numbers, each independent of the others (``distrax.Normal``).

    ``loc`` and ``scale`` ``[...]`` broadcast against each other. Its name here is not ``Normal``,
    which is upstream's policy.

    Raises:
        ValueError: loc and scale do not broadcast.

    >>> dist = UnivariateNormal(torch.zeros(2), 1.0)
    >>> [round(x, 4) for x in dist.log_prob(torch.tensor([0.0, 1.0])).tolist()]
    [-0.9189, -1.4189]
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Number, scale: Number) -> None:
        for name, value in zip(("loc", "scale"), _broadcast(self, loc, scale), strict=True):
            object.__setattr__(self, name, value)
        PyTreeNode.__post_init__(self)

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of the batch, ``[...]``."""
        return self.loc.shape

    def _draw(self, key: PRNGKey, count: int) -> Tensor:
        return self.scale * self._standard(key, count) + self.loc

    def _draw_with_log_prob(self, key: PRNGKey, count: int) -> tuple[Tensor, Tensor]:
        z = self._standard(key, count)
        return self.scale * z + self.loc, -0.5 * z**2 - _HALF_LOG_TWO_PI - torch.log(self.scale)

    def _standard(self, key: PRNGKey, count: int) -> Tensor:
        dtype = torch.promote_types(self.loc.dtype, self.scale.dtype)
        return random.normal(key, (count, *self.loc.shape), dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, ``[...] -> [...]``."""
        z = (value - self.loc) / self.scale
        return -0.5 * z**2 - (_HALF_LOG_TWO_PI + torch.log(self.scale))

    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc

    def variance(self) -> Tensor:
        """``scale`` squared."""
        return self.scale**2

    def stddev(self) -> Tensor:
        """``scale``."""
        return self.scale

    def entropy(self) -> Tensor:
        """Differential entropy in nats, ``[...]``."""
        return 0.5 + (_HALF_LOG_TWO_PI + torch.log(self.scale))

    def _kl_divergence(self, other: Any) -> Tensor:
        return _kl_of_normals(self.loc, self.scale, other.loc, other.scale)


@explained_methods(
    *("__init__", "sample", "sample_and_log_prob", "log_prob", "prob", "mode", "mean"),
    *("variance", "stddev", "entropy", "kl_divergence"),
)
class MultivariateNormalDiag(Distribution):
    """Normal vectors with a diagonal covariance (``distrax.MultivariateNormalDiag``).

    ``loc`` and ``scale_diag``, the standard deviations, are ``[..., A]`` and broadcast; one of both
    may be missing: zeros, or ones. Densities are those of :class:`Diagonal`, and so are the draws
    of one vector. A batch is drawn in its own order ``[..., A]``, where TFP draws ``[A, ...]``.

    Raises:
        ValueError: nothing is given, one has no axis, or they do not broadcast.

    >>> from idql_func import random
    >>> dist = MultivariateNormalDiag(torch.zeros(4, 2), torch.ones(2))
    >>> dist.sample(random.PRNGKey(0), (3,)).shape, dist.entropy().shape
    (torch.Size([3, 4, 2]), torch.Size([4]))
    """

    loc: Tensor
    scale_diag: Tensor

    def __init__(self, loc: Tensor | None = None, scale_diag: Tensor | None = None) -> None:
        given = [x for x in (loc, scale_diag) if x is not None]
        if not given or any(x.ndim == 0 for x in given):
            raise ValueError(
                "MultivariateNormalDiag: give loc or scale_diag, of one axis or more, or both."
            )
        loc = torch.zeros_like(given[0]) if loc is None else loc
        scale_diag = torch.ones_like(given[0]) if scale_diag is None else scale_diag
        if loc.shape[-1] != scale_diag.shape[-1]:
            raise ValueError(
                "MultivariateNormalDiag: loc and scale_diag must have one last axis, got "
                f"{tuple(loc.shape)} and {tuple(scale_diag.shape)}."
            )
        both = _broadcast(self, loc, scale_diag)
        for name, value in zip(("loc", "scale_diag"), both, strict=True):
            object.__setattr__(self, name, value)
        PyTreeNode.__post_init__(self)

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of the batch, ``[...]``."""
        return self.loc.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one draw, ``[A]``."""
        return self.loc.shape[-1:]

    def _draw(self, key: PRNGKey, count: int) -> Tensor:
        return self._elementwise()._draw(key, count)

    def _draw_with_log_prob(self, key: PRNGKey, count: int) -> tuple[Tensor, Tensor]:
        drawn, log_prob = self._elementwise()._draw_with_log_prob(key, count)
        return drawn, log_prob.sum(dim=-1)

    def _elementwise(self) -> UnivariateNormal:
        return UnivariateNormal(self.loc, self.scale_diag)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, ``[..., A] -> [...]``."""
        return self._elementwise().log_prob(value).sum(dim=-1)

    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc

    def variance(self) -> Tensor:
        """``scale_diag`` squared."""
        return self.scale_diag**2

    def stddev(self) -> Tensor:
        """``scale_diag``."""
        return self.scale_diag

    def entropy(self) -> Tensor:
        """Differential entropy in nats, ``[...]``."""
        size = self.loc.shape[-1]
        return size * (0.5 + _HALF_LOG_TWO_PI) + torch.log(self.scale_diag).sum(dim=-1)

    def _kl_divergence(self, other: Any) -> Tensor:
        parts = _kl_of_normals(self.loc, self.scale_diag, other.loc, other.scale_diag)
        return parts.sum(dim=-1)


def _kl_of_normals(loc: Tensor, scale: Tensor, other_loc: Tensor, other_scale: Tensor) -> Tensor:
    logs = torch.log(scale) - torch.log(other_scale)
    distance = loc / other_scale - other_loc / other_scale
    return 0.5 * distance**2 + 0.5 * torch.expm1(2.0 * logs) - logs


def _broadcast(dist: Distribution, *parameters: Any) -> list[Tensor]:
    tensors = [floating(x) for x in parameters]
    shapes = [tuple(x.shape) for x in tensors]
    try:
        shape = torch.broadcast_shapes(*shapes)
    except RuntimeError:
        raise ValueError(
            f"{type(dist).__name__}: the parameters do not broadcast, their shapes are "
            f"{shapes[0]} and {shapes[1]}."
        ) from None
    return [x.expand(shape) for x in tensors]
