"""Networks of flow and behaviour-regularised learners: values, vector fields, a policy.

After ``utils/networks.py`` and ``utils/flax_utils.py`` of github.com/seohongpark/fql, whose names
in the parameter tree they have. Their MLP normalises after each activation (``MLP(layer_norm=)``).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from idql_func.networks.activations import gelu
from idql_func.networks.initializers import default_init
from idql_func.networks.layers import Dense
from idql_func.networks.mlp import MLP
from idql_func.networks.module import Ensemble, LazyRng, Module
from idql_func.types import Params


class ModuleDict(Module):
    """Networks under one tree of parameters: that of ``name`` has the entry ``modules_<name>``.

    ``apply(params, *inputs, name="critic")`` runs one of them on the whole tree.

    Raises:
        ValueError: there are no networks; in ``apply``, there is none of that name.

    >>> from idql_func import random
    >>> networks = ModuleDict({"value": Value(3, (8,), num_ensembles=1)})
    >>> params = networks.init(random.PRNGKey(0))
    >>> sorted(params), networks.apply(params, torch.ones(5, 3), name="value").shape
    (['modules_value'], torch.Size([5]))
    """

    def __init__(self, modules: Mapping[str, Module]) -> None:
        super().__init__()
        if not modules:
            raise ValueError("ModuleDict: give at least one network.")
        self.by_name = {name: self.add(net, f"modules_{name}") for name, net in modules.items()}

    def forward(self, *inputs: Any, name: str) -> Any:
        if name not in self.by_name:
            raise ValueError(
                f"ModuleDict: there is no network {name!r}; there are {', '.join(self.by_name)}."
            )
        return self.by_name[name](*inputs)


class Value(Ensemble):
    """``V(s)`` or ``Q(s, a)``: inputs ``[..., O]`` and ``[..., A]`` to values, one for each member.

    ``input_dim`` is ``O`` or ``O + A``. With ``num_ensembles`` above 1 the output is
    ``[num_ensembles, ...]``, else ``[...]``.

    >>> from idql_func import random
    >>> critic = Value(5, (8, 8))
    >>> params = critic.init(random.PRNGKey(0))
    >>> sorted(params["value_net"])
    ['Dense_0', 'Dense_1', 'Dense_2', 'LayerNorm_0', 'LayerNorm_1']
    >>> critic.apply(params, torch.ones(4, 3), torch.ones(4, 2)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int],
        layer_norm: bool = True,
        num_ensembles: int = 2,
    ) -> None:
        net = functools.partial(
            MLP, input_dim, (*hidden_dims, 1), activations=gelu, layer_norm=layer_norm
        )
        if num_ensembles == 1:
            Module.__init__(self)
            self.num, self.value_net = 1, net()
        else:
            super().__init__(net, num=num_ensembles, name="value_net")

    def init_from(self, rng: LazyRng) -> Params:
        return Module.init_from(self, rng) if self.num == 1 else super().init_from(rng)

    def forward(self, observations: Tensor, actions: Tensor | None = None) -> Tensor:  # type: ignore[override]
        inputs = observations if actions is None else torch.cat([observations, actions], dim=-1)
        outputs = self.value_net(inputs) if self.num == 1 else super().forward(inputs)
        return outputs.squeeze(-1)


class ActorVectorField(Module):
    """The velocity of a flow at a state and an action: ``[..., O], [..., A] -> [..., A]``.

    ``input_dim`` is ``O + A``, and one more where the time ``[..., 1]`` is a third input.

    >>> from idql_func import random
    >>> field = ActorVectorField(6, 2, (8,))
    >>> params = field.init(random.PRNGKey(0))
    >>> field.apply(params, torch.ones(4, 3), torch.ones(4, 2), torch.zeros(4, 1)).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        hidden_dims: Sequence[int],
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.output_dim = action_dim
        self.mlp = MLP(
            input_dim, (*hidden_dims, action_dim), activations=gelu, layer_norm=layer_norm
        )

    def forward(self, observations: Tensor, actions: Tensor, times: Tensor | None = None) -> Tensor:
        parts = [observations, actions] if times is None else [observations, actions, times]
        return self.mlp(torch.cat(parts, dim=-1))


class Actor(Module):
    """The mode of a normal policy, or of its image under tanh: ``[..., O] -> [..., A]``.

    The policy's deviation is constant, so that it has no parameters. ``final_fc_init_scale`` is
    that of the last kernel's variance at the start.

    >>> from idql_func import random
    >>> policy = Actor(3, 2, (8,), tanh_squash=True)
    >>> policy.apply(policy.init(random.PRNGKey(0)), torch.ones(4, 3)).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        hidden_dims: Sequence[int],
        layer_norm: bool = False,
        tanh_squash: bool = False,
        final_fc_init_scale: float = 1e-2,
    ) -> None:
        super().__init__()
        self.output_dim = action_dim
        self.tanh_squash = tanh_squash
        self.actor_net = MLP(
            input_dim, hidden_dims, activations=gelu, activate_final=True, layer_norm=layer_norm
        )
        self.mean_net = Dense(hidden_dims[-1], action_dim, default_init(final_fc_init_scale))

    def forward(self, observations: Tensor) -> Tensor:
        means = self.mean_net(self.actor_net(observations))
        return torch.tanh(means) if self.tanh_squash else means
