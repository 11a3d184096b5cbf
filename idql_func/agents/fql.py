"""FQL: flow Q-learning (arXiv 2502.02538), after ``agents/fql.py`` of seohongpark/fql."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.agents.checks import (
    check_integer,
    check_name,
    check_number,
    key_of_seed,
)
from idql_func.agents.joint import (
    JointAgent,
    check_joint_settings,
    checked_sizes,
    flow_matching_loss,
    integrate_flow,
    joint_state,
    q_loss,
    with_prefix,
)
from idql_func.networks.flow import ActorVectorField, Value
from idql_func.struct import field
from idql_func.types import Batch, InfoDict, Params, PRNGKey

Q_AGGREGATIONS = ("mean", "min")


class FQLLearner(JointAgent):
    """A one-step policy distilled from a flow of the data's actions, which maximises ``Q``.

    Networks: ``critic`` (two members), ``actor_bc_flow`` (the velocity of the flow) and
    ``actor_onestep_flow`` (from noise to an action).

    >>> import gymnasium as gym
    >>> space = gym.spaces.Box(-1, 1, (3,))
    >>> learner = FQLLearner.create(0, space, space, actor_hidden_dims=(8,), alpha=300.0)
    >>> sorted(learner.network.params)[:2]
    ['modules_actor_bc_flow', 'modules_actor_onestep_flow']
    """

    discount: float
    alpha: float
    q_agg: str = field(pytree_node=False)
    flow_steps: int = field(pytree_node=False)
    normalize_q_loss: bool = field(pytree_node=False)

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: Any,
        action_space: Any,
        *,
        lr: float = 3e-4,
        actor_hidden_dims: Sequence[int] = (512, 512, 512, 512),
        value_hidden_dims: Sequence[int] = (512, 512, 512, 512),
        layer_norm: bool = True,
        actor_layer_norm: bool = False,
        discount: float = 0.99,
        tau: float = 0.005,
        q_agg: str = "mean",
        alpha: float = 10.0,
        flow_steps: int = 10,
        normalize_q_loss: bool = False,
    ) -> FQLLearner:
        """A learner with the original's keywords, defaults and initial values.

        ``alpha`` weights the distillation; the paper tunes it for each task (3 to 30,000).

        Raises:
            InputError: a setting is out of its range.
            TypeError: a keyword is unknown.
        """
        check_name("q_agg", q_agg, Q_AGGREGATIONS)
        check_number("alpha", alpha, 0.0)
        check_integer("flow_steps", flow_steps, 1)
        obs_dim, act_dim = checked_sizes(observation_space, action_space)
        check_joint_settings(lr, actor_hidden_dims, value_hidden_dims, discount, tau)
        rng, key = random.split(key_of_seed(seed)).unbind(0)
        width, actor = obs_dim + act_dim, (act_dim, actor_hidden_dims, actor_layer_norm)
        networks = {
            "critic": Value(width, value_hidden_dims, layer_norm),
            "target_critic": Value(width, value_hidden_dims, layer_norm),
            "actor_bc_flow": ActorVectorField(width + 1, *actor),
            "actor_onestep_flow": ActorVectorField(width, *actor),
        }
        return cls(
            rng=rng.clone(),
            obs_dim=obs_dim,
            act_dim=act_dim,
            network=joint_state(networks, key, lr),
            tau=tau,
            discount=discount,
            alpha=alpha,
            q_agg=q_agg,
            flow_steps=flow_steps,
            normalize_q_loss=bool(normalize_q_loss),
        )

    def critic_loss(self, params: Params, batch: Batch, key: PRNGKey) -> tuple[Tensor, InfoDict]:
        """:func:`q_loss` towards ``r + discount * mask * Q_target(s', pi(s'))``.

        The members of the target are averaged, or their minimum is taken (``q_agg``).
        """
        observations = batch["next_observations"]
        _, sample_key = random.split(key).unbind(0)
        actions = self.choose_actions(observations, sample_key)
        next_qs = self.run("target_critic", observations, actions)
        next_q = next_qs.amin(dim=0) if self.q_agg == "min" else next_qs.mean(dim=0)
        target_q = batch["rewards"] + self.discount * batch["masks"] * next_q
        apply_fn = self.network.apply_fn
        return q_loss(params, apply_fn, batch["observations"], batch["actions"], target_q)

    def actor_loss(self, params: Params, batch: Batch, key: PRNGKey) -> tuple[Tensor, InfoDict]:
        """``L_flow + alpha |pi(s, z) - flow(s, z)|^2 - mean Q(s, pi(s, z))`` (FQL, eq. 8).

        With ``normalize_q_loss`` the last term is divided by the mean of ``|Q|``.
        """
        observations, actions = batch["observations"], batch["actions"]
        apply_fn = self.network.apply_fn
        rng, *flow_keys = random.split(key, 3).unbind(0)
        bc_flow_loss = flow_matching_loss(
            params, apply_fn, "actor_bc_flow", observations, actions, *flow_keys
        )

        rng, noise_key = random.split(rng).unbind(0)
        noise = random.normal(noise_key, tuple(actions.shape))
        flow_actions = integrate_flow(
            self.network.params, apply_fn, "actor_bc_flow", observations, noise, self.flow_steps
        )
        chosen = self.run("actor_onestep_flow", observations, noise, params=params)
        distill_loss = ((chosen - flow_actions) ** 2).mean()

        q = self.run("critic", observations, torch.clamp(chosen, -1, 1)).mean(dim=0)
        policy_q_loss = -q.mean()
        if self.normalize_q_loss:
            policy_q_loss = policy_q_loss * (1 / q.abs().mean()).detach()

        loss = bc_flow_loss + self.alpha * distill_loss + policy_q_loss
        errors = (self.choose_actions(observations, rng) - actions) ** 2
        return loss, {
            "actor_loss": loss,
            "bc_flow_loss": bc_flow_loss,
            "distill_loss": distill_loss,
            "q_loss": policy_q_loss,
            "q": q.mean(),
            "mse": errors.mean(),
        }

    def total_loss(self, params: Params, batch: Batch, key: PRNGKey) -> tuple[Tensor, InfoDict]:
        """The sum of both losses, as a function of the parameters of all networks."""
        _, actor_key, critic_key = random.split(key, 3).unbind(0)
        critic_loss, critic_info = self.critic_loss(params, batch, critic_key)
        actor_loss, actor_info = self.actor_loss(params, batch, actor_key)
        info = {**with_prefix("critic", critic_info), **with_prefix("actor", actor_info)}
        return critic_loss + actor_loss, info

    def choose_actions(self, observations: Tensor, key: PRNGKey, temperature: Any = 1.0) -> Tensor:
        """The one-step policy's actions for noise of the key: ``[E, O]`` to ``[E, A]``.

        ``temperature`` has no effect, as in the original.
        """
        noise_key, _ = random.split(key).unbind(0)
        noise = random.normal(noise_key, (observations.shape[0], self.act_dim))
        return torch.clamp(self.run("actor_onestep_flow", observations, noise), -1, 1)
