"""Distributions made of another one."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import functional

from idql_func.boundary import describe, explained_methods
from idql_func.distributions.distribution import Distribution
from idql_func.struct import PyTreeNode, field
from idql_func.types import PRNGKey


@explained_methods(
    *("__init__", "sample", "sample_and_log_prob", "log_prob", "prob", "mode", "mean"),
    *("variance", "stddev", "entropy", "kl_divergence"),
)
class Independent(Distribution):
    """A distribution whose last axes of the batch count as one event (``distrax.Independent``).

    Log-densities and entropies are summed over these axes.

    Args:
        distribution: the base.
        reinterpreted_batch_ndims: the number of axes; by default all but the first.

    Raises:
        TypeError: the base is no distribution.
        ValueError: its batch has fewer axes, or the number is negative.

    >>> from idql_func.distributions import Categorical
    >>> joint = Independent(Categorical(logits=torch.zeros(5, 3, 4)), 1)
    >>> joint.batch_shape, joint.event_shape, joint.entropy().shape
    (torch.Size([5]), torch.Size([3]), torch.Size([5]))
    """

    distribution: Distribution
    reinterpreted_batch_ndims: int = field(pytree_node=False)

    def __init__(
        self, distribution: Distribution, reinterpreted_batch_ndims: int | None = None
    ) -> None:
        _check_distribution("Independent", distribution)
        axes, count = len(distribution.batch_shape), reinterpreted_batch_ndims
        count = max(axes - 1, 0) if count is None else count
        if not 0 <= count <= axes:
            raise ValueError(
                f"Independent: reinterpreted_batch_ndims must be from 0 to {axes}, the axes of the "
                f"base's batch, got {count}."
            )
        object.__setattr__(self, "distribution", distribution)
        object.__setattr__(self, "reinterpreted_batch_ndims", count)
        PyTreeNode.__post_init__(self)

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of the batch without the reinterpreted axes."""
        shape = self.distribution.batch_shape
        return shape[: len(shape) - self.reinterpreted_batch_ndims]

    @property
    def event_shape(self) -> torch.Size:
        """The reinterpreted axes, and those of the base's events."""
        base = self.distribution
        return (base.batch_shape + base.event_shape)[len(self.batch_shape) :]

    def _draw(self, key: PRNGKey, count: int) -> Tensor:
        return self.distribution._draw(key, count)

    def _draw_with_log_prob(self, key: PRNGKey, count: int) -> tuple[Tensor, Tensor]:
        drawn, log_prob = self.distribution._draw_with_log_prob(key, count)
        return drawn, _sum_last(log_prob, self.reinterpreted_batch_ndims)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, summed over the reinterpreted axes."""
        return _sum_last(self.distribution.log_prob(value), self.reinterpreted_batch_ndims)

    def mode(self) -> Tensor:
        """That of the base."""
        return self.distribution.mode()

    def mean(self) -> Tensor:
        """That of the base."""
        return self.distribution.mean()

    def variance(self) -> Tensor:
        """That of the base."""
        return self.distribution.variance()

    def stddev(self) -> Tensor:
        """That of the base."""
        return self.distribution.stddev()

    def entropy(self) -> Tensor:
        """The entropy in nats, summed over the reinterpreted axes."""
        return _sum_last(self.distribution.entropy(), self.reinterpreted_batch_ndims)

    def _kl_divergence(self, other: Any) -> Tensor:
        if self.event_shape != other.event_shape:
            raise ValueError(
                "Independent.kl_divergence: both must have one event shape, got "
                f"{tuple(self.event_shape)} and {tuple(other.event_shape)}."
            )
        parts = self.distribution.kl_divergence(other.distribution)
        return _sum_last(parts, self.reinterpreted_batch_ndims)


@explained_methods(
    *("__init__", "sample", "sample_and_log_prob", "log_prob", "prob", "mode", "mean"),
    *("variance", "stddev", "entropy", "kl_divergence"),
)
class TanhTransformed(Distribution):
    """The tanh of the draws of any continuous distribution.

    It is ``distrax.Transformed(distribution, distrax.Block(distrax.Tanh(), n))`` with the n axes of
    the base's events. Its mode is the tanh of the base's, as code of the field adds it
    (``TransformedWithMode`` in seohongpark/fql); the base is ``.distribution``, its standard
    deviation ``.distribution.stddev()``.

    Raises:
        TypeError: the base is no distribution.

    >>> from idql_func.distributions import MultivariateNormalDiag
    >>> dist = TanhTransformed(MultivariateNormalDiag(torch.zeros(2), torch.ones(2)))
    >>> dist.mode().tolist(), round(dist.log_prob(torch.zeros(2)).item(), 4)
    ([0.0, 0.0], -1.8379)
    """

    distribution: Distribution

    def __init__(self, distribution: Distribution) -> None:
        _check_distribution("TanhTransformed", distribution)
        object.__setattr__(self, "distribution", distribution)
        PyTreeNode.__post_init__(self)

    @property
    def batch_shape(self) -> torch.Size:
        """That of the base."""
        return self.distribution.batch_shape

    @property
    def event_shape(self) -> torch.Size:
        """That of the base."""
        return self.distribution.event_shape

    def _draw(self, key: PRNGKey, count: int) -> Tensor:
        return torch.tanh(self.distribution._draw(key, count))

    def _draw_with_log_prob(self, key: PRNGKey, count: int) -> tuple[Tensor, Tensor]:
        x, log_prob = self.distribution._draw_with_log_prob(key, count)
        return torch.tanh(x), log_prob - self._log_slope(x)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, ``[..., *event_shape] -> [...]``.

        Values of 1 and beyond count as the largest number below 1, as in :class:`Diagonal`:
        recorded actions lie on the bounds, where distrax gives NaN.
        """
        edge = 1.0 - torch.finfo(value.dtype).eps / 2
        value = torch.clamp(value, -edge, edge)
        x = 0.5 * (torch.log1p(value) - torch.log1p(-value))
        return self.distribution.log_prob(x) - self._log_slope(x)

    def _log_slope(self, x: Tensor) -> Tensor:
        """``log(1 - tanh(x)^2)``, summed over the axes of an event, in a form for large ``|x|``."""
        slope = 2.0 * (math.log(2.0) - x + functional.logsigmoid(2.0 * x))
        return _sum_last(slope, len(self.event_shape))

    def mode(self) -> Tensor:
        """The tanh of the base's mode."""
        return torch.tanh(self.distribution.mode())

    def mean(self) -> Tensor:
        """It is refused: there is no closed form."""
        self._refuse_moment("mean")

    def variance(self) -> Tensor:
        """It is refused: there is no closed form."""
        self._refuse_moment("variance")

    def entropy(self) -> Tensor:
        """It is refused: there is no closed form."""
        self._refuse_moment("entropy")

    def _refuse_moment(self, what: str) -> NoReturn:
        raise NotImplementedError(
            f"TanhTransformed: the {what} has no closed form: average over draws of "
            "sample_and_log_prob instead, or use that of .distribution before the tanh."
        )

    def _kl_divergence(self, other: Any) -> Tensor:
        return self.distribution.kl_divergence(other.distribution)


def _check_distribution(name: str, value: Any) -> None:
    if not isinstance(value, Distribution):
        raise TypeError(
            f"{name}: distribution must be one such as MultivariateNormalDiag(loc, scale_diag), "
            f"got {describe(value)}."
        )


def _sum_last(x: Tensor, axes: int) -> Tensor:
    return x.sum(dim=[*range(-axes, 0)]) if axes else x
