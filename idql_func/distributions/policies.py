"""Policies: networks that give a distribution over actions, after ``jaxrl5/distributions``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from idql_func.boundary import explained_methods
from idql_func.distributions.diagonal import Diagonal
from idql_func.networks.initializers import default_init, zeros
from idql_func.networks.layers import Dense
from idql_func.networks.module import LazyRng, Module


@explained_methods("__init__")
class Normal(Module):
    """A policy: inputs ``[..., in]`` to a :class:`Diagonal` over actions ``[..., A]``.

    ``base_cls`` is called with the other arguments, as for ``StateValue``. With
    ``state_dependent_std=False`` the deviations are a parameter, ``OutpuLogStd`` (sic,
    quirk U22), which starts at 0 and has no gradient outside the bounds.

    Raises:
        ValueError: action_dim is below 1, or the bounds of log_std are out of order.

    >>> from idql_func import random
    >>> from idql_func.networks import MLP
    >>> policy = Normal(MLP, input_dim=3, hidden_dims=[8], action_dim=2)
    >>> policy.apply(policy.init(random.PRNGKey(0)), torch.ones(5, 3)).loc.shape
    torch.Size([5, 2])
    """

    OutpuLogStd: Tensor

    def __init__(
        self,
        base_cls: Callable[..., Module],
        *args: Any,
        action_dim: int,
        log_std_min: float = -20.0,
        log_std_max: float = 2.0,
        state_dependent_std: bool = True,
        squash_tanh: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if action_dim < 1 or not log_std_min <= log_std_max:
            raise ValueError(
                "Normal: action_dim must be at least 1 and log_std_min at most log_std_max, got "
                f"{action_dim}, {log_std_min} and {log_std_max}."
            )
        self.bounds = (log_std_min, log_std_max)
        self.squash_tanh = squash_tanh
        self.state_dependent_std = state_dependent_std
        self.output_dim = action_dim
        self.base = self.add(base_cls(*args, **kwargs))
        self.base_name = next(iter(self._modules))
        width = self.base.output_dim
        self.mean = self.add(Dense(width, action_dim, default_init()), "OutputDenseMean")
        if state_dependent_std:
            self.deviation = self.add(Dense(width, action_dim, default_init()), "OutputDenseLogStd")
        else:
            self.declare("OutpuLogStd", (action_dim,), zeros, torch.float32)

    def forward(self, inputs: Any, training: bool = False, rng: LazyRng | None = None) -> Diagonal:
        x = self.base(inputs, training=training, rng=rng and rng.push(self.base_name))
        mean = self.mean(x)
        log_std = self.deviation(x) if self.state_dependent_std else self.OutpuLogStd
        scale = torch.exp(torch.clamp(log_std, *self.bounds))
        return Diagonal(loc=mean, scale=scale, tanh=self.squash_tanh)


TanhNormal = functools.partial(Normal, squash_tanh=True)
"""A :class:`Normal` whose draws pass through tanh: SAC's policy."""


@explained_methods("__init__")
class TanhDeterministic(Module):
    """A deterministic policy: inputs ``[..., in]`` to ``tanh`` of a Dense, ``[..., A]``.

    >>> from idql_func import random
    >>> from idql_func.networks import MLP
    >>> policy = TanhDeterministic(MLP, input_dim=3, hidden_dims=[8], action_dim=2)
    >>> policy.apply(policy.init(random.PRNGKey(0)), torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self, base_cls: Callable[..., Module], *args: Any, action_dim: int, **kwargs: Any
    ) -> None:
        super().__init__()
        self.output_dim = action_dim
        self.base = self.add(base_cls(*args, **kwargs))
        self.base_name = next(iter(self._modules))
        self.mean = self.add(
            Dense(self.base.output_dim, action_dim, default_init()), "OutputDenseMean"
        )

    def forward(self, inputs: Any, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        x = self.base(inputs, training=training, rng=rng and rng.push(self.base_name))
        return torch.tanh(self.mean(x))
