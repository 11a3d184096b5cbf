"""Behaviour cloning with a normal policy, after ``jaxrl5/agents/bc/bc_learner.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from idql_func import optim, random
from idql_func.agents.checks import (
    box_size,
    check_dropout,
    check_layers,
    check_number,
    check_rate,
    key_of_seed,
)
from idql_func.agents.critics import ApplyFn, step_on_loss
from idql_func.agents.factories import gaussian_policy, train_state
from idql_func.agents.policy_agent import PolicyAgent
from idql_func.networks import get_weight_decay_mask
from idql_func.transforms import jit
from idql_func.types import Batch, InfoDict, Params, PRNGKey

_FIELDS = ("observations", "actions")
_EDGE = 1e-5  # draws are clipped to this distance from the bounds before log_prob


def bc_loss(
    params: Params,
    apply_fn: ApplyFn,
    observations: Any,
    actions: Tensor,
    dropout_key: PRNGKey,
    sample_key: PRNGKey,
    entropy_bonus: Any = None,
) -> tuple[Tensor, InfoDict]:
    """``-mean log pi(a | s)`` over ``[B, O], [B, A]``, minus a bonus for entropy.

    The bonus has the score-function gradient of the entropy. As upstream, the action for
    ``info["entropy"]`` is drawn even without a bonus, and clipped first (quirk U23).

    >>> import gymnasium as gym
    >>> space, keys = gym.spaces.Box(-1, 1, (2,)), random.split(random.PRNGKey(0))
    >>> actor = BCLearner.create(0, space, space, hidden_dims=(8,)).actor
    >>> rows = torch.zeros(4, 2)
    >>> sorted(bc_loss(actor.params, actor.apply_fn, rows, rows, *keys)[1])
    ['entropy', 'nll']
    """
    dist = apply_fn(params, observations, training=True, rngs={"dropout": dropout_key})
    nll = -dist.log_prob(actions).mean()
    drawn = torch.clamp(dist.sample(sample_key), -1 + _EDGE, 1 - _EDGE).detach()
    log_prob = dist.log_prob(drawn)
    loss = nll
    if entropy_bonus is not None:
        loss = loss - entropy_bonus * (-log_prob * log_prob.detach()).mean()
    return loss, {"nll": nll, "entropy": -log_prob.mean()}


def decay_mask(params: Params) -> Any:
    """True for every leaf but biases: BC also decays output layers, unlike IDQL.

    >>> decay_mask({"OutputDenseMean": {"kernel": torch.ones(1), "bias": torch.ones(1)}})
    {'OutputDenseMean': {'kernel': True, 'bias': False}}
    """
    return get_weight_decay_mask(params, exempt=())


class BCLearner(PolicyAgent):
    """Behaviour cloning; ``actor`` is a normal policy with deviation 0.1 (quirk U22).

    >>> import gymnasium as gym
    >>> space = gym.spaces.Box(-1, 1, (3,))
    >>> learner = BCLearner.create(0, space, space)
    >>> sorted(learner.actor.params)
    ['MLP_0', 'OutpuLogStd', 'OutputDenseMean']
    """

    entropy_bonus: float | None

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: Any,
        action_space: Any,
        *,
        actor_lr: float | optim.Schedule = 1e-3,
        hidden_dims: Sequence[int] = (256, 256),
        use_layer_norm: bool = False,
        dropout_rate: float | None = None,
        weight_decay: float | None = None,
        entropy_bonus: float | None = None,
    ) -> BCLearner:
        """A learner with upstream's keywords, defaults and initial values.

        ``weight_decay`` decays what :func:`decay_mask` names; None trains with plain Adam.

        Raises:
            InputError: a setting is out of its range.
            TypeError: a keyword is unknown.
        """
        obs_dim = box_size(observation_space, "observation_space")
        act_dim = box_size(action_space, "action_space")
        check_rate("actor_lr", actor_lr)
        check_layers("hidden_dims", hidden_dims)
        check_dropout("dropout_rate", dropout_rate)
        if entropy_bonus is not None:
            check_number("entropy_bonus", entropy_bonus)
        tx = None
        if weight_decay is not None:
            check_number("weight_decay", weight_decay, 0.0)
            tx = optim.adamw(actor_lr, weight_decay=weight_decay, mask=decay_mask)
        network = gaussian_policy(
            obs_dim, act_dim, tuple(hidden_dims), dropout_rate, use_layer_norm, std=0.1
        )
        rng, actor_key = random.split(key_of_seed(seed)).unbind(0)
        return cls(
            rng=rng.clone(),
            obs_dim=obs_dim,
            act_dim=act_dim,
            actor=train_state(network, network.init(actor_key), actor_lr, tx),
            entropy_bonus=entropy_bonus,
        )

    def update_actor(self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of the actor on a checked batch."""
        rng, dropout_key, sample_key = random.split(self.rng, 3).unbind(0)
        inputs = batch["observations"], batch["actions"], dropout_key, sample_key
        actor, info = step_on_loss(self.actor, bc_loss, *inputs, self.entropy_bonus)
        return self.replace(actor=actor, rng=rng), info

    def update(self, batch: Batch, *, donate: bool = False) -> tuple[Self, InfoDict]:
        """One step on ``observations [B, O], actions [B, A]``; ``info``: nll and entropy.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        return _update.donating(donate)(self, self._checked_batch(batch, _FIELDS))

    def eval_loss(self, batch: Batch) -> tuple[Self, InfoDict]:
        """``nll`` of a batch without dropout and without an update; the key stays.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        return self, _eval_loss(self, self._checked_batch(batch, _FIELDS))


@jit
def _update(learner: BCLearner, batch: Batch) -> tuple[BCLearner, InfoDict]:
    return learner.update_actor(batch)


@jit
def _eval_loss(learner: BCLearner, batch: Batch) -> InfoDict:
    dist = learner.actor.apply_fn(learner.actor.params, batch["observations"])
    return {"nll": -dist.log_prob(batch["actions"]).mean()}
