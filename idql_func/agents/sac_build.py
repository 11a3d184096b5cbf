"""Checks and training states of SAC and DrQ."""

from __future__ import annotations

import functools
from typing import Any

from idql_func import random
from idql_func.agents.checks import (
    check_dropout,
    check_fraction,
    check_layers,
    check_number,
    check_rate,
    check_subset,
    key_of_seed,
)
from idql_func.agents.factories import target_state, train_state
from idql_func.networks import Module, Temperature
from idql_func.types import InputError


def check_sac_settings(
    actor_lr: Any, critic_lr: Any, temp_lr: Any, hidden_dims: Any, critic_dropout_rate: Any,
    discount: Any, tau: Any, num_qs: Any, num_min_qs: Any, target_entropy: Any,
    init_temperature: Any,
) -> None:  # fmt: skip
    """Check the settings of SAC and of the learners built on it.

    Raises:
        InputError: a setting is out of its range.

    >>> check_sac_settings(1e-3, 1e-3, 1e-3, (8,), None, 0.99, 0.005, 2, None, None, 1.0)
    """
    for name, rate in (("actor_lr", actor_lr), ("critic_lr", critic_lr), ("temp_lr", temp_lr)):
        check_rate(name, rate)
    check_layers("hidden_dims", hidden_dims)
    check_dropout("critic_dropout_rate", critic_dropout_rate)
    check_fraction("discount", discount)
    check_fraction("tau", tau)
    check_subset(num_qs, num_min_qs)
    if target_entropy is not None:
        check_number("target_entropy", target_entropy)
    check_number("init_temperature", init_temperature)
    if not init_temperature > 0:
        raise InputError(f"init_temperature must be above 0, got {init_temperature}.")


@functools.cache
def _temperature(initial: float) -> Temperature:
    return Temperature(initial)


def soft_actor_critic_states(
    seed: int,
    actor: Module,
    critic: Module,
    init_temperature: float,
    rates: tuple[Any, Any, Any],
) -> dict[str, Any]:
    """The key and training states of a new learner, with upstream's initial values.

    >>> from idql_func.agents.factories import critic_network, gaussian_policy
    >>> nets = gaussian_policy(3, 2, (8,), tanh=True), critic_network(3, 2, (8,), 2)
    >>> sorted(soft_actor_critic_states(0, *nets, 1.0, (1e-3, 1e-3, 1e-3)))
    ['actor', 'critic', 'rng', 'target_critic', 'temp']
    """
    rng, actor_key, critic_key, temp_key = random.split(key_of_seed(seed), 4).unbind(0)
    temp = _temperature(float(init_temperature))
    state = train_state(critic, critic.init(critic_key), rates[1])
    return {
        "rng": rng.clone(),
        "actor": train_state(actor, actor.init(actor_key), rates[0]),
        "critic": state,
        "target_critic": target_state(state),
        "temp": train_state(temp, temp.init(temp_key), rates[2]),
    }
