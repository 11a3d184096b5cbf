"""Implicit Q-learning (arXiv 2110.06169), after ``jaxrl5/agents/iql/iql_learner.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor

from idql_func import losses, optim, random
from idql_func.agents.agent import TRANSITION_FIELDS, PolicyAgent, box_size
from idql_func.agents.build import (
    check_fraction,
    check_integer,
    check_layers,
    check_number,
    check_rate,
    critic_network,
    gaussian_policy,
    target_of,
    trained,
    value_network,
)
from idql_func.agents.critics import ApplyFn, min_q, soft_update, summed_critic_loss, value_loss
from idql_func.struct import TrainState
from idql_func.transforms import grad, jit
from idql_func.types import Batch, InfoDict, InputError, Params

Self = TypeVar("Self", bound="IQLLearner")


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
            InputError: a setting out of its range, named with the range.
            TypeError: an unknown keyword.
        """
        obs_dim = box_size(observation_space, "observation_space")
        act_dim = box_size(action_space, "action_space")
        for name, rate in (
            ("actor_lr", actor_lr),
            ("critic_lr", critic_lr),
            ("value_lr", value_lr),
        ):
            check_rate(name, rate)
        check_layers("hidden_dims", hidden_dims)
        check_integer("num_qs", num_qs, 1)
        check_fraction("discount", discount)
        check_fraction("tau", tau)
        check_number("temperature", temperature)
        check_number("expectile", expectile)
        if not 0 < expectile < 1:
            raise InputError(f"expectile must be between 0 and 1, got {expectile}.")
        layers = tuple(hidden_dims)
        actor_def = gaussian_policy(obs_dim, act_dim, layers, std=0.1)
        critic_def = critic_network(obs_dim, act_dim, layers, num_qs)
        value_def = value_network(obs_dim, layers)
        rng, actor_key, critic_key, value_key = random.split(random.PRNGKey(seed), 4).unbind(0)
        critic = trained(critic_def, critic_def.init(critic_key), critic_lr)
        return cls(
            rng=rng.clone(),
            obs_dim=obs_dim,
            act_dim=act_dim,
            actor=trained(actor_def, actor_def.init(actor_key), actor_lr),
            critic=critic,
            target_critic=target_of(critic),
            value=trained(value_def, value_def.init(value_key), value_lr),
            discount=discount,
            tau=tau,
            expectile=expectile,
            temperature=temperature,
        )

    def update_v(self: Self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of ``V`` towards the expectile of the target ``Q`` (IQL, eq. 5)."""
        grads, info = grad(value_loss, has_aux=True)(
            self.value.params,
            self.value.apply_fn,
            batch["observations"],
            self._target_q(batch),
            "expectile",
            self.expectile,
        )
        return self.replace(value=self.value.apply_gradients(grads=grads)), info

    def update_actor(self: Self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of advantage-weighted regression, with the ``V`` just stepped (quirk U2).

        ``info["adv"]`` is the mean advantage; upstream logs the whole vector (quirk U20).
        """
        adv = self._advantage(batch)
        weights = losses.advantage_weights(adv, "exp_adv", self.expectile, self.temperature)
        grads, info = grad(weighted_actor_loss, has_aux=True)(
            self.actor.params,
            self.actor.apply_fn,
            batch["observations"],
            batch["actions"],
            weights,
        )
        actor = self.actor.apply_gradients(grads=grads)
        return self.replace(actor=actor), {**info, "adv": adv.mean()}

    def update_q(self: Self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of ``Q`` towards ``r + discount * mask * V(s')``, and of its EMA."""
        grads, info = grad(summed_critic_loss, has_aux=True)(
            self.critic.params,
            self.critic.apply_fn,
            batch["observations"],
            batch["actions"],
            self._bellman_target(batch),
        )
        critic = self.critic.apply_gradients(grads=grads)
        return self.replace(
            critic=critic, target_critic=soft_update(self.target_critic, critic, self.tau)
        ), info

    def _target_q(self, batch: Batch) -> Tensor:
        critic = self.target_critic
        return min_q(critic.apply_fn, critic.params, batch["observations"], batch["actions"])

    def _advantage(self, batch: Batch) -> Tensor:
        v = self.value.apply_fn(self.value.params, batch["observations"])
        return self._target_q(batch) - v

    def _bellman_target(self, batch: Batch) -> Tensor:
        next_v = self.value.apply_fn(self.value.params, batch["next_observations"])
        return batch["rewards"] + self.discount * batch["masks"] * next_v

    def update(self: Self, batch: Batch, *, donate: bool = False) -> tuple[Self, InfoDict]:
        """``V``, actor, ``Q`` on one batch (quirk U2); a new learner and its losses.

        Raises:
            InputError: a missing entry, a wrong shape or dtype.
        """
        return _update.donating(donate)(self, self._fields(batch, TRANSITION_FIELDS))

    def eval_loss(self: Self, batch: Batch) -> tuple[Self, InfoDict]:
        """The losses of the networks as they are, without an update; the key stays.

        Raises:
            InputError: a missing entry, a wrong shape or dtype.
        """
        return self, _eval_loss(self, self._fields(batch, TRANSITION_FIELDS))


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
    q, adv = learner._target_q(batch), learner._advantage(batch)
    weights = losses.advantage_weights(adv, "exp_adv", learner.expectile, learner.temperature)
    target = learner._bellman_target(batch)
    _, value_info = value_loss(
        value.params, value.apply_fn, observations, q, "expectile", learner.expectile
    )
    _, actor_info = weighted_actor_loss(
        actor.params, actor.apply_fn, observations, actions, weights
    )
    _, critic_info = summed_critic_loss(
        critic.params, critic.apply_fn, observations, actions, target
    )
    return {**actor_info, "adv": adv.mean(), **value_info, **critic_info}
