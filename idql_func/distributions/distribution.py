"""The base class of distributions: what follows from draws, log-densities and moments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from idql_func.boundary import describe
from idql_func.struct import PyTreeNode
from idql_func.switches import float_dtype
from idql_func.types import PRNGKey

Shape = int | Sequence[int]


class Distribution(PyTreeNode):
    """A batch of distributions, a pytree (``distrax.Distribution``).

    A draw has the shape ``[*sample_shape, *batch_shape, *event_shape]``, its log-density
    ``[*sample_shape, *batch_shape]``. A distribution of one's own has the methods ``_draw`` and
    ``log_prob`` and the two properties; the others follow or are refused in one sentence.

    >>> from idql_func import random
    >>> class Coin(Distribution):
    ...     heads: Tensor
    ...     @property
    ...     def batch_shape(self) -> torch.Size:
    ...         return self.heads.shape
    ...     def _draw(self, key: PRNGKey, count: int) -> Tensor:
    ...         return random.bernoulli(key, self.heads, (count, *self.batch_shape))
    ...     def log_prob(self, value: Tensor) -> Tensor:
    ...         return torch.where(value, self.heads, 1 - self.heads).log()
    >>> coin = Coin(torch.tensor([0.5, 1.0]))
    >>> coin.sample(random.PRNGKey(0), (4,)).tolist()[0], coin.prob(torch.tensor(True)).tolist()
    ([False, True], [0.5, 1.0])
    """

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of the batch of distributions."""
        raise NotImplementedError(f"{type(self).__name__} has no batch_shape.")

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one draw of one distribution; by default it is one number."""
        return torch.Size(())

    def sample(self, key: PRNGKey, sample_shape: Shape = ()) -> Tensor:
        """Draw ``[*sample_shape, *batch_shape, *event_shape]``, distrax's numbers for the key."""
        shape = _as_shape(sample_shape)
        drawn = self._draw(key, math.prod(shape))
        return drawn.reshape((*shape, *drawn.shape[1:]))

    def sample_and_log_prob(self, key: PRNGKey, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """Draws, and their log-densities ``[*sample_shape, *batch_shape]``."""
        shape = _as_shape(sample_shape)
        drawn, log_prob = self._draw_with_log_prob(key, math.prod(shape))
        return (
            drawn.reshape((*shape, *drawn.shape[1:])),
            log_prob.reshape((*shape, *log_prob.shape[1:])),
        )

    def _draw(self, key: PRNGKey, count: int) -> Tensor:
        """Draws ``[count, *batch_shape, *event_shape]``."""
        self._refuse("draws")

    def _draw_with_log_prob(self, key: PRNGKey, count: int) -> tuple[Tensor, Tensor]:
        """The same draws, and their log-densities ``[count, *batch_shape]``."""
        drawn = self._draw(key, count)
        return drawn, self.log_prob(drawn)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density or log-probability, ``[..., *event_shape] -> [...]``."""
        self._refuse("log_prob")

    def prob(self, value: Tensor) -> Tensor:
        """Density or probability, ``[..., *event_shape] -> [...]``."""
        return torch.exp(self.log_prob(value))

    def mode(self) -> Tensor:
        """The most likely value, ``[*batch_shape, *event_shape]``."""
        self._refuse("mode")

    def mean(self) -> Tensor:
        """The mean, ``[*batch_shape, *event_shape]``."""
        self._refuse("mean")

    def variance(self) -> Tensor:
        """The variance of each entry, ``[*batch_shape, *event_shape]``."""
        self._refuse("variance")

    def stddev(self) -> Tensor:
        """The standard deviation of each entry, ``[*batch_shape, *event_shape]``."""
        return torch.sqrt(self.variance())

    def entropy(self) -> Tensor:
        """The entropy in nats, ``[*batch_shape]``."""
        self._refuse("entropy")

    def kl_divergence(self, other: Self) -> Tensor:
        """``KL(self || other)`` in nats, ``[*batch_shape]``; both are of one class.

        Raises:
            TypeError: the other distribution is of another class.
        """
        self._check_class(other)
        return self._kl_divergence(other)

    def _kl_divergence(self, other: Any) -> Tensor:
        self._refuse("kl_divergence")

    def _check_class(self, other: Any) -> None:
        if type(other) is not type(self):
            name = type(self).__name__
            raise TypeError(
                f"{name}.kl_divergence: other must be a {name} too, got {describe(other)}."
            )

    def _refuse(self, what: str) -> NoReturn:
        raise NotImplementedError(f"The distribution {type(self).__name__} has no {what}.")


def floating(value: Any) -> Tensor:
    """A parameter as a floating tensor; numbers and integers get the default dtype.

    >>> floating(1).dtype
    torch.float32
    """
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=float_dtype())
    return tensor if tensor.is_floating_point() else tensor.to(float_dtype())


def _as_shape(shape: Shape) -> tuple[int, ...]:
    return tuple(shape) if isinstance(shape, Sequence) else (int(shape),)
