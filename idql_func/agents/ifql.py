"""IFQL: IDQL with a flow as its policy (arXiv 2502.02538), after seohongpark/fql's ``ifql.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from idql_func import losses, random
from idql_func.agents.checks import check_expectile, check_integer, key_of_seed
from idql_func.agents.joint import (
    JointAgent,
    check_joint_settings,
    checked_sizes,
    flow_matching_loss,
    integrate_flow,
    joint_state,
    spread,
    with_prefix,
)
from idql_func.networks.flow import ActorVectorField, Value
from idql_func.struct import field
from idql_func.types import Batch, InfoDict, Params, PRNGKey


class IFQLLearner(JointAgent):
    """Implicit Q-learning with a flow of the data's actions, of which ``Q`` chooses one.

    Networks: ``value``, ``critic`` (two members) and ``actor_flow`` (the velocity of the flow).

    >>> import gymnasium as gym
    >>> space = gym.spaces.Box(-1, 1, (3,))
    >>> learner = IFQLLearner.create(0, space, space, actor_hidden_dims=(8,), num_samples=4)
    >>> sorted(learner.network.params)[:2]
    ['modules_actor_flow', 'modules_critic']
    """

    discount: float
    expectile: float
    num_samples: int = field(pytree_node=False)
    flow_steps: int = field(pytree_node=False)

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
        expectile: float = 0.9,
        num_samples: int = 32,
        flow_steps: int = 10,
    ) -> IFQLLearner:
        """A learner with the original's keywords, defaults and initial values.

        Raises:
            InputError: a setting is out of its range.
            TypeError: a keyword is unknown.
        """
        check_expectile(expectile)
        check_integer("num_samples", num_samples, 1)
        check_integer("flow_steps", flow_steps, 1)
        obs_dim, act_dim = checked_sizes(observation_space, action_space)
        check_joint_settings(lr, actor_hidden_dims, value_hidden_dims, discount, tau)
        rng, key = random.split(key_of_seed(seed)).unbind(0)
        width = obs_dim + act_dim
        networks = {
            "value": Value(obs_dim, value_hidden_dims, layer_norm, num_ensembles=1),
            "critic": Value(width, value_hidden_dims, layer_norm),
            "target_critic": Value(width, value_hidden_dims, layer_norm),
            "actor_flow": ActorVectorField(width + 1, act_dim, actor_hidden_dims, actor_layer_norm),
        }
        return cls(
            rng=rng.clone(),
            obs_dim=obs_dim,
            act_dim=act_dim,
            network=joint_state(networks, key, lr),
            tau=tau,
            discount=discount,
            expectile=expectile,
            num_samples=num_samples,
            flow_steps=flow_steps,
        )

    def value_loss(self, params: Params, batch: Batch) -> tuple[Tensor, InfoDict]:
        """The expectile regression of ``V`` to the smaller target ``Q`` (IQL, eq. 5)."""
        observations = batch["observations"]
        q = self.run("target_critic", observations, batch["actions"]).amin(dim=0)
        v = self.run("value", observations, params=params)
        loss = losses.critic_objective_loss(q - v, "expectile", self.expectile).mean()
        return loss, {"value_loss": loss, **spread("v", v)}

    def critic_loss(self, params: Params, batch: Batch) -> tuple[Tensor, InfoDict]:
        """``mean sum_i (Q_i(s, a) - q)^2`` with ``q = r + discount * mask * V(s')`` (IQL, eq. 6).

        ``q_mean, q_max, q_min`` are those of the target ``q``, as in the original.
        """
        next_v = self.run("value", batch["next_observations"])
        q = batch["rewards"] + self.discount * batch["masks"] * next_v
        qs = self.run("critic", batch["observations"], batch["actions"], params=params)
        loss = ((qs - q) ** 2).sum(dim=0).mean()
        return loss, {"critic_loss": loss, **spread("q", q)}

    def actor_loss(self, params: Params, batch: Batch, key: PRNGKey) -> tuple[Tensor, InfoDict]:
        """The flow's regression to the data's actions, without weights."""
        _, *flow_keys = random.split(key, 3).unbind(0)
        loss = flow_matching_loss(
            params,
            self.network.apply_fn,
            "actor_flow",
            batch["observations"],
            batch["actions"],
            *flow_keys,
        )
        return loss, {"actor_loss": loss}

    def total_loss(self, params: Params, batch: Batch, key: PRNGKey) -> tuple[Tensor, InfoDict]:
        """The sum of the three losses, as a function of the parameters of all networks."""
        value_loss, value_info = self.value_loss(params, batch)
        critic_loss, critic_info = self.critic_loss(params, batch)
        _, actor_key = random.split(key).unbind(0)
        actor_loss, actor_info = self.actor_loss(params, batch, actor_key)
        info = {
            **with_prefix("value", value_info),
            **with_prefix("critic", critic_info),
            **with_prefix("actor", actor_info),
        }
        return value_loss + critic_loss + actor_loss, info

    def choose_actions(self, observations: Tensor, key: PRNGKey, temperature: Any = 1.0) -> Tensor:
        """Of ``num_samples`` actions of the flow the one with the largest minimum of ``Q``.

        ``[E, O]`` to ``[E, A]``; the original takes one observation. ``temperature`` has no
        effect.
        """
        rows = observations.shape[0]
        noise_key, _ = random.split(key).unbind(0)
        noise = random.normal(noise_key, (rows, self.num_samples, self.act_dim))
        repeated = observations.unsqueeze(1).expand(rows, self.num_samples, self.obs_dim)
        actions = integrate_flow(
            self.network.params,
            self.network.apply_fn,
            "actor_flow",
            repeated,
            noise,
            self.flow_steps,
        )
        best = self.run("critic", repeated, actions).amin(dim=0).argmax(dim=-1)
        index = best[:, None, None].expand(rows, 1, self.act_dim)
        return actions.gather(1, index).squeeze(1)
