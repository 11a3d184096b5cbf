"""State values and state-action values, after ``state_value.py`` and ``state_action_value.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from idql_func.networks.layers import Dense, default_init
from idql_func.networks.module import LazyRng, Module


class StateValue(Module):
    """``V(s)``: observations ``[..., O]`` to values ``[...]``.

    ``base_cls`` is called with the other arguments: ``StateValue(MLP, input_dim=10,
    hidden_dims=[256, 256], activate_final=True)``.

    >>> from idql_func import random
    >>> from idql_func.networks import MLP
    >>> value = StateValue(MLP, input_dim=3, hidden_dims=[8])
    >>> value.apply(value.init(random.PRNGKey(0)), torch.ones(5, 3)).shape
    torch.Size([5])
    """

    output_dim = 1

    def __init__(self, base_cls: Callable[..., Module], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.base = self.add(base_cls(*args, **kwargs))
        self.head = self.add(Dense(self.base.output_dim, 1, default_init()), "OutputVDense")
        self.base_name = next(iter(self._modules))

    def forward(
        self, observations: Tensor, training: bool = False, rng: LazyRng | None = None
    ) -> Tensor:
        outputs = self.base(observations, training=training, rng=rng and rng.push(self.base_name))
        return self.head(outputs).squeeze(-1)


class StateActionValue(Module):
    """``Q(s, a)``: observations ``[..., O]`` and actions ``[..., A]`` to values ``[...]``.

    ``input_dim`` of the base is ``O + A``.

    >>> from idql_func import random
    >>> from idql_func.networks import MLP
    >>> critic = StateActionValue(MLP, input_dim=5, hidden_dims=[8])
    >>> critic.apply(critic.init(random.PRNGKey(0)), torch.ones(4, 3), torch.ones(4, 2)).shape
    torch.Size([4])
    """

    output_dim = 1

    def __init__(self, base_cls: Callable[..., Module], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.base = self.add(base_cls(*args, **kwargs))
        self.base_name = next(iter(self._modules))
        self.head = self.add(Dense(self.base.output_dim, 1, default_init()))

    def forward(
        self,
        observations: Tensor,
        actions: Tensor,
        training: bool = False,
        rng: LazyRng | None = None,
    ) -> Tensor:
        inputs = torch.cat([observations, actions], dim=-1)
        outputs = self.base(inputs, training=training, rng=rng and rng.push(self.base_name))
        return self.head(outputs).squeeze(-1)
