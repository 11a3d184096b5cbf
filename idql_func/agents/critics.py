"""Losses and steps of value functions that several learners share.

A loss is a pure function of the parameters that it trains, and returns ``(loss, info)``. A step
takes training states and returns the new ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from idql_func import losses, optim
from idql_func.deprecation import moved_names
from idql_func.struct import TrainState
from idql_func.transforms import grad
from idql_func.types import Batch, InfoDict, Params, PRNGKey

ApplyFn = Callable[..., Any]


def dropout_options(key: PRNGKey | None) -> dict[str, Any]:
    """The options of ``apply`` for a dropout key: dropout is off without one.

    >>> dropout_options(None)
    {}
    """
    return {} if key is None else {"training": True, "rngs": {"dropout": key}}


# --- losses -----------------------------------------------------------------------------


def min_q(
    apply_fn: ApplyFn,
    params: Params,
    observations: Any,
    actions: Tensor,
    dropout_key: PRNGKey | None = None,
) -> Tensor:
    """``min_i Q_i(s, a)`` over the ensemble: ``[B, O], [B, A] -> [B]`` (upstream's ``compute_q``).

    >>> import torch
    >>> apply_fn = lambda p, s, a: torch.stack([s[:, 0], a[:, 0]])
    >>> min_q(apply_fn, {}, torch.ones(2, 1), torch.zeros(2, 1))
    tensor([0., 0.])
    """
    return apply_fn(params, observations, actions, **dropout_options(dropout_key)).amin(dim=0)


def value_loss(
    params: Params,
    apply_fn: ApplyFn,
    observations: Tensor,
    q: Tensor,
    objective: str = "expectile",
    hyperparam: Any = 0.7,
) -> tuple[Tensor, InfoDict]:
    """``mean f(Q(s, a) - V(s))`` over ``[B, O]`` and ``[B]`` (IDQL, eq. 3 to 6).

    >>> import torch
    >>> value_loss({}, lambda p, s: s[:, 0], torch.zeros(2, 1), torch.tensor([1.0, -1.0]))[0]
    tensor(0.5000)
    """
    v = apply_fn(params, observations)
    loss = losses.critic_objective_loss(q - v, objective, hyperparam).mean()
    return loss, {"value_loss": loss, "v": v.mean()}


def critic_loss(
    params: Params,
    apply_fn: ApplyFn,
    observations: Any,
    actions: Tensor,
    target_q: Tensor,
    dropout_key: PRNGKey | None = None,
) -> tuple[Tensor, InfoDict]:
    """``mean (Q_i(s, a) - target_q)^2`` over ensemble and batch (quirk U4); ``target_q [B]``.

    With a key, dropout is on.

    >>> import torch
    >>> apply_fn = lambda p, s, a: torch.stack([s[:, 0], a[:, 0]])
    >>> critic_loss({}, apply_fn, torch.ones(2, 1), torch.zeros(2, 1), torch.zeros(2))[0]
    tensor(0.5000)
    """
    qs = apply_fn(params, observations, actions, **dropout_options(dropout_key))
    loss = ((qs - target_q) ** 2).mean()
    return loss, {"critic_loss": loss, "q": qs.mean()}


# --- targets ----------------------------------------------------------------------------


def batch_min_q(critic: TrainState, batch: Batch) -> Tensor:
    """:func:`min_q` of a critic at the observations and actions of a batch, ``[B]``.

    >>> import torch
    >>> critic = TrainState.create(
    ...     params={"w": torch.ones(1)}, apply_fn=lambda p, s, a: torch.stack([s[:, 0], a[:, 0]]))
    >>> batch_min_q(critic, {"observations": torch.ones(2, 1), "actions": torch.zeros(2, 1)})
    tensor([0., 0.])
    """
    return min_q(critic.apply_fn, critic.params, batch["observations"], batch["actions"])


def bellman_target(value: TrainState, batch: Batch, discount: Any) -> Tensor:
    """``r + discount * mask * V(s')``, ``[B]`` (IQL, arXiv 2110.06169, eq. 6).

    >>> import torch
    >>> value = TrainState.create(params={"w": torch.ones(1)}, apply_fn=lambda p, s: s[:, 0])
    >>> batch = {"rewards": torch.ones(2), "masks": torch.tensor([1.0, 0.0]),
    ...     "next_observations": torch.full((2, 1), 4.0)}
    >>> bellman_target(value, batch, 0.5)
    tensor([3., 1.])
    """
    next_v = value.apply_fn(value.params, batch["next_observations"])
    return batch["rewards"] + discount * batch["masks"] * next_v


# --- steps ------------------------------------------------------------------------------


def soft_update(target: TrainState, source: TrainState, tau: Any) -> TrainState:
    """``tau * source + (1 - tau) * target`` of each parameter, in a new target (quirk U17).

    >>> import torch
    >>> one = TrainState.create(params={"w": torch.ones(1)})
    >>> soft_update(TrainState.create(params={"w": torch.zeros(1)}), one, 0.25).params["w"].item()
    0.25
    """
    return target.replace(params=optim.incremental_update(source.params, target.params, tau))


def step_on_loss(
    state: TrainState, loss: Callable[..., tuple[Tensor, InfoDict]], *inputs: Any
) -> tuple[TrainState, InfoDict]:
    """One optimiser step on ``loss(params, apply_fn, *inputs)``, and the loss's ``info``.

    >>> import torch
    >>> state = TrainState.create(
    ...     params=torch.tensor([1.0]), tx=optim.adam(0.5), apply_fn=lambda p, x: p * x)
    >>> loss = lambda params, apply_fn, x: (apply_fn(params, x).sum(), {"x": x})
    >>> step_on_loss(state, loss, torch.ones(1))[0].params
    tensor([0.5000])
    """
    grads, info = grad(loss, has_aux=True)(state.params, state.apply_fn, *inputs)
    return state.apply_gradients(grads=grads), info


def step_value(
    value: TrainState, observations: Tensor, q: Tensor, objective: str, hyperparam: Any
) -> tuple[TrainState, InfoDict]:
    """One optimiser step of ``V`` on :func:`value_loss`.

    >>> from idql_func import random
    >>> from idql_func.agents.factories import train_state, value_network
    >>> import torch
    >>> network = value_network(2, (8,))
    >>> value = train_state(network, network.init(random.PRNGKey(0)), 1e-3)
    >>> step_value(value, torch.zeros(4, 2), torch.ones(4), "expectile", 0.7)[0].step.item()
    1
    """
    return step_on_loss(value, value_loss, observations, q, objective, hyperparam)


def step_critic(
    critic: TrainState,
    target_critic: TrainState,
    batch: Batch,
    target_q: Tensor,
    dropout_key: PRNGKey | None,
    tau: Any,
    loss: Callable[..., tuple[Tensor, InfoDict]] = critic_loss,
) -> tuple[TrainState, TrainState, InfoDict]:
    """One optimiser step of ``Q`` on ``loss``, then the soft update of its target.

    >>> from idql_func import random
    >>> from idql_func.agents.factories import critic_network, target_state, train_state
    >>> import torch
    >>> network = critic_network(2, 2, (8,), 2)
    >>> critic = train_state(network, network.init(random.PRNGKey(0)), 1e-3)
    >>> batch = {"observations": torch.zeros(4, 2), "actions": torch.zeros(4, 2)}
    >>> new, _, _ = step_critic(critic, target_state(critic), batch, torch.ones(4), None, 0.005)
    >>> new.step.item()
    1
    """
    observations, actions = batch["observations"], batch["actions"]
    critic, info = step_on_loss(critic, loss, observations, actions, target_q, dropout_key)
    return critic, soft_update(target_critic, critic, tau), info


__getattr__ = moved_names(__name__)
