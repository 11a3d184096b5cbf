"""Losses of value functions that several learners share: pure functions of their parameters."""

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
    """The options of ``apply`` that switch dropout on with a key, and off without.

    >>> dropout_options(None)
    {}
    """
    return {} if key is None else {"training": True, "rngs": {"dropout": key}}


def min_q(
    apply_fn: ApplyFn,
    params: Params,
    observations: Any,
    actions: Tensor,
    dropout_key: PRNGKey | None = None,
) -> Tensor:
    """The smallest of the ensemble's values, ``[B, O], [B, A] -> [B]`` (upstream's ``compute_q``).

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
    """Squared error to ``target_q`` ``[B]``, averaged over ensemble and batch (quirk U4).

    Dropout is on when it has a key.

    >>> import torch
    >>> apply_fn = lambda p, s, a: torch.stack([s[:, 0], a[:, 0]])
    >>> critic_loss({}, apply_fn, torch.ones(2, 1), torch.zeros(2, 1), torch.zeros(2))[0]
    tensor(0.5000)
    """
    qs = apply_fn(params, observations, actions, **dropout_options(dropout_key))
    loss = ((qs - target_q) ** 2).mean()
    return loss, {"critic_loss": loss, "q": qs.mean()}


def summed_critic_loss(
    params: Params, apply_fn: ApplyFn, observations: Tensor, actions: Tensor, target_q: Tensor
) -> tuple[Tensor, InfoDict]:
    """Squared error to ``target_q`` ``[B]``, summed over the ensemble: plain IQL's (quirk U4).

    ``info`` has the mean of each member as ``q1, q2, ...``; upstream's needs exactly two (U21).

    >>> import torch
    >>> apply_fn = lambda p, s, a: torch.stack([s[:, 0], a[:, 0]])
    >>> loss, info = summed_critic_loss(
    ...     {}, apply_fn, torch.ones(2, 1), torch.zeros(2, 1), torch.zeros(2))
    >>> loss.item(), sorted(info)
    (1.0, ['critic_loss', 'q1', 'q2'])
    """
    qs = apply_fn(params, observations, actions)
    loss = ((qs - target_q) ** 2).sum(dim=0).mean()
    means = {f"q{i}": q.mean() for i, q in enumerate(qs.unbind(0), start=1)}
    return loss, {"critic_loss": loss, **means}


def soft_update(target: TrainState, source: TrainState, tau: Any) -> TrainState:
    """``tau * source + (1 - tau) * target`` of each parameter, in a new target (quirk U17).

    >>> import torch
    >>> one = TrainState.create(params={"w": torch.ones(1)})
    >>> soft_update(TrainState.create(params={"w": torch.zeros(1)}), one, 0.25).params["w"].item()
    0.25
    """
    return target.replace(params=optim.incremental_update(source.params, target.params, tau))


def step_critic(
    critic: TrainState,
    target_critic: TrainState,
    batch: Batch,
    target_q: Tensor,
    dropout_key: PRNGKey | None,
    tau: Any,
) -> tuple[TrainState, TrainState, InfoDict]:
    """One step of an ensemble on :func:`critic_loss`, and its target's towards it.

    >>> from idql_func import random
    >>> from idql_func.agents.build import critic_network, target_of, trained
    >>> import torch
    >>> network = critic_network(2, 2, (8,), 2)
    >>> critic = trained(network, network.init(random.PRNGKey(0)), 1e-3)
    >>> batch = {"observations": torch.zeros(4, 2), "actions": torch.zeros(4, 2)}
    >>> new, _, _ = step_critic(critic, target_of(critic), batch, torch.ones(4), None, 0.005)
    >>> new.step.item()
    1
    """
    grads, info = grad(critic_loss, has_aux=True)(
        critic.params,
        critic.apply_fn,
        batch["observations"],
        batch["actions"],
        target_q,
        dropout_key,
    )
    critic = critic.apply_gradients(grads=grads)
    return critic, soft_update(target_critic, critic, tau), info


__getattr__ = moved_names(__name__, {"follow": f"{__name__}:soft_update"})
