"""A distribution over the numbers of some categories."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.boundary import explained_methods
from idql_func.distributions.distribution import Distribution
from idql_func.struct import PyTreeNode, field
from idql_func.switches import int_dtype
from idql_func.types import PRNGKey


@explained_methods(
    *("__init__", "sample", "sample_and_log_prob", "log_prob", "prob", "mode", "entropy"),
    "kl_divergence",
)
class Categorical(Distribution):
    """Categories ``0 ... K - 1`` by logits or by probabilities ``[..., K]``, one of both.

    As ``distrax.Categorical``: both are normalised first, and a draw is that of
    ``jax.random.categorical``; it is -1 where a probability is negative or not finite.

    Args:
        logits: logarithms of the probabilities, up to a constant.
        probs: the probabilities, up to a factor.
        dtype: the dtype of draws and of the mode; by default JAX's default integer.

    Raises:
        ValueError: both or neither are given, or there is no axis of categories.

    >>> dist = Categorical(logits=torch.tensor([0.0, 1.0, 0.0]))
    >>> dist.mode().item(), [round(p, 3) for p in dist.probs.tolist()]
    (1, [0.212, 0.576, 0.212])
    >>> Categorical(probs=torch.tensor([1.0, 3.0])).log_prob(torch.tensor([1, 2])).exp().tolist()
    [0.75, 0.0]
    """

    _logits: Tensor | None
    _probs: Tensor | None
    dtype: torch.dtype | None = field(pytree_node=False)

    def __init__(
        self,
        logits: Tensor | None = None,
        probs: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if (logits is None) == (probs is None):
            given = "neither" if logits is None else "both"
            raise ValueError(f"Categorical: give logits or probs, one of both; got {given}.")
        values = logits if probs is None else probs
        assert values is not None
        if values.ndim == 0 or not values.is_floating_point():
            raise ValueError(
                "Categorical: logits and probs must be floating and have an axis of categories, "
                f"got {values.dtype} of shape {tuple(values.shape)}."
            )
        if logits is not None:
            logits = torch.log_softmax(logits, dim=-1)
        if probs is not None:
            probs = probs / probs.sum(dim=-1, keepdim=True)
        for name, value in (("_logits", logits), ("_probs", probs), ("dtype", dtype)):
            object.__setattr__(self, name, value)
        PyTreeNode.__post_init__(self)

    @property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities, ``[..., K]``."""
        return self._logits if self._logits is not None else torch.log(self.probs)

    @property
    def probs(self) -> Tensor:
        """The probabilities, ``[..., K]``."""
        return self._probs if self._probs is not None else torch.softmax(self.logits, dim=-1)

    @property
    def num_categories(self) -> int:
        """The number of categories."""
        return self._given.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of the batch, ``[...]``."""
        return self._given.shape[:-1]

    @property
    def _given(self) -> Tensor:
        values = self._logits if self._probs is None else self._probs
        assert values is not None
        return values

    def _draw(self, key: PRNGKey, count: int) -> Tensor:
        probs = self.probs
        valid = (probs.isfinite() & (probs >= 0)).all(dim=-1)
        drawn = random.categorical(key, self.logits, shape=(count, *self.batch_shape))
        return torch.where(valid, drawn, -1).to(self.dtype or int_dtype())

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of the categories ``value`` ``[...]``; -inf for any other number."""
        inside = (value >= 0) & (value <= self.num_categories - 1)
        return torch.where(inside, self._of(self.logits, value), -torch.inf)

    def prob(self, value: Tensor) -> Tensor:
        """Probability of the categories ``value`` ``[...]``; 0 for any other number."""
        return self._of(self.probs, value)

    def _of(self, parameter: Tensor, value: Tensor) -> Tensor:
        places = torch.arange(self.num_categories, device=value.device)
        # of a logit of -inf that is not chosen neither the value nor the derivative is NaN
        return torch.where(value[..., None] == places, parameter, 0.0).sum(dim=-1)

    def mode(self) -> Tensor:
        """The most likely category, the first of several, ``[...]``."""
        return torch.argmax(self._given, dim=-1).to(self.dtype or int_dtype())

    def entropy(self) -> Tensor:
        """The entropy in nats, ``[...]``; a category of probability 0 counts 0."""
        log_probs = self.logits
        return -_times_exp(log_probs, log_probs).sum(dim=-1)

    def _kl_divergence(self, other: Any) -> Tensor:
        if self.num_categories != other.num_categories:
            raise ValueError(
                "Categorical.kl_divergence: both must have one number of categories, got "
                f"{self.num_categories} and {other.num_categories}."
            )
        first, second = (torch.log_softmax(dist.logits, dim=-1) for dist in (self, other))
        return _times_exp(first - second, first).sum(dim=-1)


def _times_exp(x: Tensor, log_probs: Tensor) -> Tensor:
    """``x exp(log_probs)``; 0, and of derivative 0, where the exponential is 0."""
    probs = torch.exp(log_probs)
    return torch.where(probs == 0, 0.0, x) * probs
