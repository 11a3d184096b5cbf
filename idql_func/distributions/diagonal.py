"""The distribution of upstream's policies, after ``jaxrl5/distributions``.

Samples and densities are those of TensorFlow Probability's ``MultivariateNormalDiag`` and its tanh
transform, as upstream uses them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from idql_func import random
from idql_func.boundary import explained_methods
from idql_func.distributions.distribution import Distribution
from idql_func.struct import field
from idql_func.types import PRNGKey

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@explained_methods("sample", "sample_and_log_prob", "log_prob", "mode", "entropy")
class Diagonal(Distribution):
    """A normal distribution with diagonal covariance, or its image under tanh.

    ``loc`` is ``[..., A]`` and ``scale``, the standard deviations, broadcasts to it.

    >>> dist = Diagonal(loc=torch.zeros(2), scale=torch.ones(2), tanh=False)
    >>> dist.mode().tolist(), round(dist.log_prob(torch.zeros(2)).item(), 4)
    ([0.0, 0.0], -1.8379)
    """

    loc: Tensor
    scale: Tensor
    tanh: bool = field(pytree_node=False)

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of a batch of distributions, ``[...]``."""
        return self.loc.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one draw, ``[A]``."""
        return self.loc.shape[-1:]

    def sample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draws ``[*sample_shape, ..., A]``, TFP's for the key (it adds no salt to this one).

        >>> dist = Diagonal(loc=torch.zeros(4, 2), scale=torch.ones(2), tanh=True)
        >>> dist.sample(random.PRNGKey(0), (3,)).shape
        torch.Size([3, 4, 2])
        """
        return self._squash(self.loc + self.scale * self._standard(key, sample_shape))

    def sample_and_log_prob(
        self, key: PRNGKey, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Draws and their log-densities ``[*sample_shape, ...]``, without inverting the tanh.

        TFP's ``log_prob(sample(key))`` computes the same: its bijectors cache the input of a
        sample, so that the density does not need ``atanh``.

        >>> dist = Diagonal(loc=torch.zeros(2), scale=torch.ones(2), tanh=False)
        >>> action, log_prob = dist.sample_and_log_prob(random.PRNGKey(0))
        >>> torch.allclose(log_prob, dist.log_prob(action))
        True
        """
        z = self._standard(key, sample_shape)
        x = self.loc + self.scale * z
        return self._squash(x), self._log_density(z, x)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of ``[..., A]``, summed over the last axis.

        Under tanh, values of 1 and beyond count as the largest number below 1: recorded
        actions lie on the bounds, where TFP gives NaN.

        >>> dist = Diagonal(loc=torch.zeros(1), scale=torch.ones(1), tanh=True)
        >>> dist.log_prob(torch.ones(1)).isfinite().item()
        True
        """
        if self.tanh:
            edge = 1.0 - torch.finfo(value.dtype).eps / 2
            value = torch.clamp(value, -edge, edge)
            value = 0.5 * (torch.log1p(value) - torch.log1p(-value))
        return self._log_density((value - self.loc) / self.scale, value)

    def mode(self) -> Tensor:
        """``loc``, through the tanh if there is one (upstream's ``TanhTransformedDistribution``).

        >>> Diagonal(loc=torch.zeros(1), scale=torch.ones(1), tanh=True).mode().tolist()
        [0.0]
        """
        return self._squash(self.loc)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, ``[...]``.

        Raises:
            NotImplementedError: under tanh it has no closed form.

        >>> round(Diagonal(torch.zeros(1), torch.ones(1), tanh=False).entropy().item(), 4)
        1.4189
        """
        if self.tanh:
            raise NotImplementedError(
                "The entropy of a tanh-squashed normal has no closed form: "
                "average -log_prob over draws of sample_and_log_prob instead."
            )
        logs = torch.log(self.scale).expand(self.loc.shape).sum(dim=-1)
        return self.loc.shape[-1] * (0.5 + _HALF_LOG_TWO_PI) + logs

    def _draw(self, key: PRNGKey, count: int) -> Tensor:
        return self.sample(key, (count,))

    def _draw_with_log_prob(self, key: PRNGKey, count: int) -> tuple[Tensor, Tensor]:
        return self.sample_and_log_prob(key, (count,))

    def _standard(self, key: PRNGKey, sample_shape: tuple[int, ...]) -> Tensor:
        # TFP draws the action axis before those of the batch, and transposes
        *batch, size = self.loc.shape
        drawn = random.normal(key, (math.prod(sample_shape), size, *batch), self.loc.dtype)
        return drawn.movedim(1, -1).reshape(*sample_shape, *batch, size)

    def _squash(self, x: Tensor) -> Tensor:
        return torch.tanh(x) if self.tanh else x

    def _log_density(self, z: Tensor, x: Tensor) -> Tensor:
        """From the standardised and the unsquashed value."""
        density = (-0.5 * z**2 - _HALF_LOG_TWO_PI).sum(dim=-1) - torch.log(self.scale).sum(dim=-1)
        if not self.tanh:
            return density
        # log(1 - tanh(x)^2) in a form that is accurate for large |x|; F.softplus is linear above a
        # threshold, and TFP's formula is exact everywhere
        softplus = torch.logaddexp(-2.0 * x, torch.zeros_like(x))
        return density - (2.0 * (math.log(2.0) - x - softplus)).sum(dim=-1)
