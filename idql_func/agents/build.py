"""What every learner's ``create`` needs: checks of its settings, networks, training states."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch

from idql_func import optim
from idql_func.distributions import Normal, TanhDeterministic
from idql_func.networks import MLP, Ensemble, Module, StateActionValue, StateValue
from idql_func.struct import TrainState
from idql_func.tree import tree_map
from idql_func.types import InputError, Params

# --- checks: one sentence that names the keyword ------------------------------------------


def check_name(what: str, value: Any, names: Sequence[str]) -> None:
    """Refuse a value that is not one of the names.

    Raises:
        InputError: it is not.

    >>> check_name("encoder", "d4pg", ("d4pg", "resnet"))
    """
    if value not in names:
        raise InputError(f"{what} must be one of {', '.join(names)}, got {value!r}.")


def check_integer(name: str, value: Any, least: int) -> None:
    """Refuse what is no integer or lies below ``least``.

    Raises:
        InputError: so.

    >>> check_integer("num_qs", 2, 1)
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be an integer of at least {least}, got {value!r}.")


def check_number(name: str, value: Any, least: float | None = None) -> None:
    """Refuse what is no finite number or lies below ``least``.

    Raises:
        InputError: so.

    >>> check_number("temperature", 0.1)
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value!r}.")
    if least is not None and value < least:
        raise InputError(f"{name} must be at least {least}, got {value!r}.")


def check_fraction(name: str, value: Any) -> None:
    """Refuse what is no number from 0 to 1.

    Raises:
        InputError: so.

    >>> check_fraction("discount", 0.99)
    """
    check_number(name, value)
    if not 0 <= value <= 1:
        raise InputError(f"{name} must lie in [0, 1], got {value}.")


def check_dropout(name: str, value: Any) -> None:
    """Refuse a dropout rate outside [0, 1); None is no dropout.

    Raises:
        InputError: so.

    >>> check_dropout("dropout_rate", None)
    """
    if value is not None:
        check_number(name, value)
        if not 0 <= value < 1:
            raise InputError(f"{name} must lie in [0, 1), got {value}.")


def check_rate(name: str, value: Any) -> None:
    """Refuse a learning rate that is neither a schedule nor above 0.

    Raises:
        InputError: so.

    >>> check_rate("actor_lr", 3e-4)
    """
    if not callable(value):
        check_number(name, value)
        if not value > 0:
            raise InputError(f"{name} must be above 0, got {value}.")


def check_layers(name: str, sizes: Any) -> None:
    """Refuse sizes that make no network.

    Raises:
        InputError: not a sequence of one or more integers of at least 1.

    >>> check_layers("hidden_dims", (256, 256))
    """
    layers = sizes if isinstance(sizes, Sequence) else ()
    if not layers or not all(isinstance(n, Integral) and int(n) >= 1 for n in layers):
        raise InputError(f"{name} must name at least one layer of at least 1 unit, got {sizes!r}.")


def check_subset(num_qs: Any, num_min_qs: Any) -> None:
    """Refuse ensembles whose subset for targets is empty or larger than they are.

    Raises:
        InputError: so.

    >>> check_subset(10, 2)
    """
    check_integer("num_qs", num_qs, 1)
    if num_min_qs is not None:
        check_integer("num_min_qs", num_min_qs, 1)
        if num_min_qs > num_qs:
            raise InputError(f"num_min_qs must be at most num_qs={num_qs}, got {num_min_qs}.")


# --- networks -------------------------------------------------------------------------------
# They hold no weights, so equal settings share one object: learners made alike have equal
# static fields, stack as trees, and run through one compiled program.


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
    return Ensemble(
        StateActionValue,
        MLP,
        input_dim=obs_dim + act_dim,
        hidden_dims=hidden_dims,
        activate_final=True,
        dropout_rate=dropout_rate,
        use_layer_norm=layer_norm,
        num=num,
    )


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
    return Normal(
        MLP,
        input_dim=obs_dim,
        hidden_dims=hidden_dims,
        activate_final=True,
        dropout_rate=dropout_rate,
        use_layer_norm=layer_norm,
        action_dim=act_dim,
        squash_tanh=tanh,
        **bounds,
    )


@functools.cache
def deterministic_policy(obs_dim: int, act_dim: int, hidden_dims: tuple[int, ...]) -> Module:
    """TD3's policy.

    >>> sorted(deterministic_policy(3, 2, (8,))._modules)
    ['MLP_0', 'OutputDenseMean']
    """
    return TanhDeterministic(
        MLP, input_dim=obs_dim, hidden_dims=hidden_dims, activate_final=True, action_dim=act_dim
    )


# --- training states ------------------------------------------------------------------------


def trained(
    network: Module, params: Params, rate: float | optim.Schedule | None = None, tx: Any = None
) -> TrainState:
    """The state of a network that Adam trains, or the optimiser ``tx``.

    >>> from idql_func import random
    >>> network = value_network(3, (8,))
    >>> trained(network, network.init(random.PRNGKey(0)), 3e-4).step.item()
    0
    """
    tx = optim.adam(rate) if tx is None and rate is not None else tx
    return TrainState.create(params=params, tx=tx, apply_fn=network.apply)


def target_of(state: TrainState) -> TrainState:
    """A target network: a copy of the parameters, and no optimiser (quirk U18).

    >>> from idql_func import random
    >>> network = value_network(3, (8,))
    >>> target_of(trained(network, network.init(random.PRNGKey(0)), 3e-4)).tx is None
    True
    """
    return TrainState.create(params=tree_map(torch.clone, state.params), apply_fn=state.apply_fn)
