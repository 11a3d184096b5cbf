"""Implicit Q-learning (arXiv 2110.06169), after ``jaxrl5/agents/iql/iql_learner.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor

from idql_func import losses, optim, random
from idql_func.agents.agent import TRANSITION_FIELDS
from idql_func.agents.checks import (
    box_size,
    check_expectile,
    check_fraction,
    check_integer,
    check_layers,
    check_number,
    check_rate,
    key_of_seed,
)
from idql_func.agents.critics import (
    ApplyFn,
    batch_min_q,
    bellman_target,
    dropout_options,
    step_critic,
    step_on_loss,
    step_value,
    value_loss,
)
from idql_func.agents.factories import (
    critic_network,
    gaussian_policy,
    target_state,
    train_state,
    value_network,
)
from idql_func.agents.policy_agent import PolicyAgent
from idql_func.struct import TrainState
from idql_func.transforms import jit
from idql_func.types import Batch, InfoDict, Params, PRNGKey


def weighted_actor_loss(
    params: Params, apply_fn: ApplyFn, observations: Tensor, actions: Tensor, weights: Tensor
) -> tuple[Tensor, InfoDict]:
    """``-mean w log pi(a | s)``: advantage-weighted regression (IQL, eq. 7).

    Shapes ``[B, O], [B, A]``, weights ``[B]``.

    >>> import gymnasium as gym, torch
    >>> space = gym.spaces.Box(-1, 1, (2,))
    >>> actor = IQLLearner.create(0, space, space, hidden_dims=(8,)).actor
    >>> rows = torch.zeros(4, 2)
    >>> sorted(weighted_actor_loss(actor.params, actor.apply_fn, rows, rows, torch.ones(4))[1])
    ['actor_loss']
    """
    log_probs = apply_fn(params, observations, training=True).log_prob(actions)
    loss = -(weights * log_probs).mean()
    return loss, {"actor_loss": loss}


def summed_critic_loss(
    params: Params,
    apply_fn: ApplyFn,
    observations: Tensor,
    actions: Tensor,
    target_q: Tensor,
    dropout_key: PRNGKey | None = None,
) -> tuple[Tensor, InfoDict]:
    """``mean sum_i (Q_i(s, a) - target_q)^2``: summed over the ensemble (IQL, eq. 6, quirk U4).

    ``info`` has the mean of each member as ``q1, q2, ...``; upstream requires two members (U21).

    >>> import torch
    >>> apply_fn = lambda p, s, a: torch.stack([s[:, 0], a[:, 0]])
    >>> loss, info = summed_critic_loss(
    ...     {}, apply_fn, torch.ones(2, 1), torch.zeros(2, 1), torch.zeros(2))
    >>> loss.item(), sorted(info)
    (1.0, ['critic_loss', 'q1', 'q2'])
    """
    qs = apply_fn(params, observations, actions, **dropout_options(dropout_key))
    loss = ((qs - target_q) ** 2).sum(dim=0).mean()
    means = {f"q{i}": q.mean() for i, q in enumerate(qs.unbind(0), start=1)}
    return loss, {"critic_loss": loss, **means}


class IQLLearner(PolicyAgent):
    """Implicit Q-learning with any number of critics (upstream: exactly two, quirk U21).

    >>> import gymnasium as gym
    >>> space = gym.spaces.Box(-1, 1, (3,))
    >>> learner = IQLLearner.create(0, space, space, num_qs=4)
    >>> learner.critic.params["VmapStateActionValue_0"]["Dense_0"]["bias"].shape
    torch.Size([4, 1])
    """

    critic: TrainState
    target_critic: TrainState
    value: TrainState
    discount: float
    tau: float
    expectile: float
    temperature: float

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: Any,
        action_space: Any,
        *,
        actor_lr: float | optim.Schedule = 1e-3,
        critic_lr: float = 3e-4,
        value_lr: float = 3e-4,
        hidden_dims: Sequence[int] = (256, 256),
        discount: float = 0.99,
        tau: float = 0.005,
        expectile: float = 0.8,
        temperature: float = 0.1,
        num_qs: int = 2,
    ) -> IQLLearner:
        """A learner with upstream's keywords, defaults and initial values.

        Raises:
            InputError: a setting is out of its range.
            TypeError: a keyword is unknown.
        """
        obs_dim = box_size(observation_space, "observation_space")
        act_dim = box_size(action_space, "action_space")
        check_rate("actor_lr", actor_lr)
        check_rate("critic_lr", critic_lr)
        check_rate("value_lr", value_lr)
        check_layers("hidden_dims", hidden_dims)
        check_integer("num_qs", num_qs, 1)
        check_fraction("discount", discount)
        check_fraction("tau", tau)
        check_number("temperature", temperature)
        check_expectile(expectile)
        layers = tuple(hidden_dims)
        actor_def = gaussian_policy(obs_dim, act_dim, layers, std=0.1)
        critic_def = critic_network(obs_dim, act_dim, layers, num_qs)
        value_def = value_network(obs_dim, layers)
        rng, actor_key, critic_key, value_key = random.split(key_of_seed(seed), 4).unbind(0)
        critic = train_state(critic_def, critic_def.init(critic_key), critic_lr)
        return cls(
            rng=rng.clone(),
            obs_dim=obs_dim,
            act_dim=act_dim,
            actor=train_state(actor_def, actor_def.init(actor_key), actor_lr),
            critic=critic,
            target_critic=target_state(critic),
            value=train_state(value_def, value_def.init(value_key), value_lr),
            discount=discount,
            tau=tau,
            expectile=expectile,
            temperature=temperature,
        )

    def update_v(self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of ``V`` towards the expectile of the target ``Q`` (IQL, eq. 5)."""
        q = batch_min_q(self.target_critic, batch)
        value, info = step_value(self.value, batch["observations"], q, "expectile", self.expectile)
        return self.replace(value=value), info

    def update_actor(self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of advantage-weighted regression, with the ``V`` just stepped (quirk U2).

        ``info["adv"]`` is the mean advantage; upstream logs the whole vector (quirk U20).
        """
        adv = self._advantage(batch)
        weights = losses.advantage_weights(adv, "exp_adv", self.expectile, self.temperature)
        actor, info = step_on_loss(
            self.actor, weighted_actor_loss, batch["observations"], batch["actions"], weights
        )
        return self.replace(actor=actor), {**info, "adv": adv.mean()}

    def update_q(self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of ``Q`` towards ``r + discount * mask * V(s')``, and of its EMA."""
        target_q = bellman_target(self.value, batch, self.discount)
        critic, target, info = step_critic(
            self.critic, self.target_critic, batch, target_q, None, self.tau, summed_critic_loss
        )
        return self.replace(critic=critic, target_critic=target), info

    def _advantage(self, batch: Batch) -> Tensor:
        v = self.value.apply_fn(self.value.params, batch["observations"])
        return batch_min_q(self.target_critic, batch) - v

    def update(self, batch: Batch, *, donate: bool = False) -> tuple[Self, InfoDict]:
        """``V``, actor, ``Q`` on one batch (quirk U2); a new learner and its losses.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        return _update.donating(donate)(self, self._checked_batch(batch, TRANSITION_FIELDS))

    def eval_loss(self, batch: Batch) -> tuple[Self, InfoDict]:
        """The losses of the networks as they are, without an update; the key stays.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        return self, _eval_loss(self, self._checked_batch(batch, TRANSITION_FIELDS))


@jit
def _update(learner: IQLLearner, batch: Batch) -> tuple[IQLLearner, InfoDict]:
    learner, value_info = learner.update_v(batch)
    learner, actor_info = learner.update_actor(batch)
    learner, critic_info = learner.update_q(batch)
    return learner, {**actor_info, **value_info, **critic_info}


@jit
def _eval_loss(learner: IQLLearner, batch: Batch) -> InfoDict:
    observations, actions = batch["observations"], batch["actions"]
    value, actor, critic = learner.value, learner.actor, learner.critic
    q, adv = batch_min_q(learner.target_critic, batch), learner._advantage(batch)
    weights = losses.advantage_weights(adv, "exp_adv", learner.expectile, learner.temperature)
    target_q = bellman_target(value, batch, learner.discount)
    _, value_info = value_loss(
        value.params, value.apply_fn, observations, q, "expectile", learner.expectile
    )
    _, actor_info = weighted_actor_loss(
        actor.params, actor.apply_fn, observations, actions, weights
    )
    _, critic_info = summed_critic_loss(
        critic.params, critic.apply_fn, observations, actions, target_q
    )
    return {**actor_info, "adv": adv.mean(), **value_info, **critic_info}
