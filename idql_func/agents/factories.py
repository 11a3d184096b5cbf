"""Networks and training states that several learners create.

Networks hold no weights, so equal settings share one network object. Learners of equal settings
then have equal static fields: they stack as trees and share one compiled program.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from idql_func import optim
from idql_func.distributions import Normal, TanhDeterministic
from idql_func.networks import MLP, Ensemble, Module, StateActionValue, StateValue
from idql_func.struct import TrainState
from idql_func.tree import tree_map
from idql_func.types import Params

# --- networks -----------------------------------------------------------------------------


def critic_head(
    hidden_dims: tuple[int, ...], num: int, dropout_rate: float | None, layer_norm: bool
) -> Callable[..., Ensemble]:
    """An ensemble of ``num`` state-action values, as a function of ``input_dim``.

    >>> critic_head((8,), 2, None, False)(input_dim=5).num
    2
    """
    return functools.partial(
        Ensemble,
        StateActionValue,
        MLP,
        hidden_dims=hidden_dims,
        activate_final=True,
        dropout_rate=dropout_rate,
        use_layer_norm=layer_norm,
        num=num,
    )


def policy_head(
    act_dim: int,
    hidden_dims: tuple[int, ...],
    dropout_rate: float | None,
    layer_norm: bool,
    tanh: bool,
    **bounds: Any,
) -> Callable[..., Normal]:
    """A normal policy, as a function of ``input_dim``; ``bounds`` are those of its deviation.

    >>> policy_head(2, (8,), None, False, tanh=True)(input_dim=3).squash_tanh
    True
    """
    return functools.partial(
        Normal,
        MLP,
        hidden_dims=hidden_dims,
        activate_final=True,
        dropout_rate=dropout_rate,
        use_layer_norm=layer_norm,
        action_dim=act_dim,
        squash_tanh=tanh,
        **bounds,
    )


@functools.cache
def critic_network(
    obs_dim: int,
    act_dim: int,
    hidden_dims: tuple[int, ...],
    num: int,
    dropout_rate: float | None = None,
    layer_norm: bool = False,
) -> Module:
    """An ensemble of ``num`` state-action values.

    >>> sorted(critic_network(3, 2, (8,), 2)._modules)
    ['VmapStateActionValue_0']
    """
    return critic_head(hidden_dims, num, dropout_rate, layer_norm)(input_dim=obs_dim + act_dim)


@functools.cache
def value_network(obs_dim: int, hidden_dims: tuple[int, ...], layer_norm: bool = False) -> Module:
    """A state value.

    >>> sorted(value_network(3, (8,))._modules)
    ['MLP_0', 'OutputVDense']
    """
    return StateValue(
        MLP,
        input_dim=obs_dim,
        hidden_dims=hidden_dims,
        use_layer_norm=layer_norm,
        activate_final=True,
    )


@functools.cache
def gaussian_policy(
    obs_dim: int,
    act_dim: int,
    hidden_dims: tuple[int, ...],
    dropout_rate: float | None = None,
    layer_norm: bool = False,
    std: float | None = None,
    tanh: bool = False,
) -> Module:
    """A normal policy; ``std`` fixes its deviation, as upstream's BC and IQL do (quirk U22).

    >>> sorted(gaussian_policy(3, 2, (8,), std=0.1)._modules)
    ['MLP_0', 'OutputDenseMean']
    """
    bounds: dict[str, Any] = {}
    if std is not None:
        log_std = math.log(std)
        bounds = {"log_std_min": log_std, "log_std_max": log_std, "state_dependent_std": False}
    head = policy_head(act_dim, hidden_dims, dropout_rate, layer_norm, tanh, **bounds)
    return head(input_dim=obs_dim)


@functools.cache
def deterministic_policy(obs_dim: int, act_dim: int, hidden_dims: tuple[int, ...]) -> Module:
    """TD3's policy.

    >>> sorted(deterministic_policy(3, 2, (8,))._modules)
    ['MLP_0', 'OutputDenseMean']
    """
    return TanhDeterministic(
        MLP, input_dim=obs_dim, hidden_dims=hidden_dims, activate_final=True, action_dim=act_dim
    )


# --- training states ----------------------------------------------------------------------


def train_state(
    network: Module, params: Params, rate: float | optim.Schedule | None = None, tx: Any = None
) -> TrainState:
    """The training state of a network with the optimiser ``tx``, or Adam at a learning rate.

    >>> from idql_func import random
    >>> network = value_network(3, (8,))
    >>> train_state(network, network.init(random.PRNGKey(0)), 3e-4).step.item()
    0
    """
    tx = optim.adam(rate) if tx is None and rate is not None else tx
    return TrainState.create(params=params, tx=tx, apply_fn=network.apply)


def target_state(state: TrainState) -> TrainState:
    """The state of a target network: a copy of the parameters, no optimiser (quirk U18).

    >>> from idql_func import random
    >>> network = value_network(3, (8,))
    >>> target_state(train_state(network, network.init(random.PRNGKey(0)), 3e-4)).tx is None
    True
    """
    return TrainState.create(params=tree_map(torch.clone, state.params), apply_fn=state.apply_fn)
