"""Implicit Q-learning and behaviour cloning (arXiv 2110.06169)."""

# pyright: reportMissingImports=false
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training.train_state import TrainState

from benchmarks.jax_side.networks import Ensemble, Normal, StateValue
from benchmarks.jax_side.steps import (
    Batch,
    Info,
    Target,
    apply,
    expectile,
    gradient_step,
    soft_update,
    target_of,
    trained,
)

_LOG_STD = math.log(0.1)
"""The deviation of both policies (quirk U22)."""


class IQL(struct.PyTreeNode):
    """State and settings; fields have the same names as in the port."""

    rng: jax.Array
    actor: TrainState
    critic: TrainState
    target_critic: Target
    value: TrainState
    discount: float = struct.field(pytree_node=False)
    tau: float = struct.field(pytree_node=False)
    expectile: float = struct.field(pytree_node=False)
    temperature: float = struct.field(pytree_node=False)

    @classmethod
    def create(
        cls,
        seed: int,
        obs_dim: int,
        act_dim: int,
        *,
        actor_lr: float = 1e-3,
        critic_lr: float = 3e-4,
        value_lr: float = 3e-4,
        hidden_dims: Sequence[int] = (256, 256),
        discount: float = 0.99,
        tau: float = 0.005,
        expectile: float = 0.8,
        temperature: float = 0.1,
        num_qs: int = 2,
    ) -> IQL:
        """The port's keywords and defaults."""
        rng, *keys = jax.random.split(jax.random.PRNGKey(seed), 4)
        obs, act, hidden = jnp.zeros((1, obs_dim)), jnp.zeros((1, act_dim)), tuple(hidden_dims)
        critic = trained(Ensemble(hidden, num_qs), keys[1], (obs, act), optax.adam(critic_lr))
        return cls(
            rng=rng,
            actor=trained(Normal(hidden, act_dim, _LOG_STD), keys[0], (obs,), optax.adam(actor_lr)),
            critic=critic,
            target_critic=target_of(critic),
            value=trained(StateValue(hidden), keys[2], (obs,), optax.adam(value_lr)),
            discount=discount,
            tau=tau,
            expectile=expectile,
            temperature=temperature,
        )

    def update(self, batch: Batch) -> tuple[IQL, Info]:
        """``V``, actor with the new ``V``, ``Q`` (quirk U2) on ``[B, ...]`` transitions."""
        obs, act = batch["observations"], batch["actions"]
        q = apply(self.critic, self.target_critic.params, obs, act).min(axis=0)

        def value_loss(params: Any) -> tuple[jax.Array, Info]:
            v = apply(self.value, params, obs)
            loss = expectile(q - v, self.expectile).mean()
            return loss, {"value_loss": loss, "v": v.mean()}

        value, value_info = gradient_step(self.value, value_loss)
        adv = q - apply(value, value.params, obs)
        weights = jnp.minimum(jnp.exp(adv * self.temperature), 100.0)

        def actor_loss(params: Any) -> tuple[jax.Array, Info]:
            loss = -(weights * apply(self.actor, params, obs).log_prob(act)).mean()
            return loss, {"actor_loss": loss, "adv": adv.mean()}

        actor, actor_info = gradient_step(self.actor, actor_loss)
        next_v = apply(value, value.params, batch["next_observations"])
        target_q = batch["rewards"] + self.discount * batch["masks"] * next_v

        def critic_loss(params: Any) -> tuple[jax.Array, Info]:
            qs = apply(self.critic, params, obs, act)
            # summed over the ensemble, not averaged (quirk U4)
            loss = ((qs - target_q) ** 2).sum(axis=0).mean()
            means = {f"q{i}": member.mean() for i, member in enumerate(qs, start=1)}
            return loss, {"critic_loss": loss, **means}

        critic, critic_info = gradient_step(self.critic, critic_loss)
        learner = self.replace(
            value=value,
            actor=actor,
            critic=critic,
            target_critic=soft_update(self.target_critic, critic, self.tau),
        )
        return learner, {**actor_info, **value_info, **critic_info}


class BC(struct.PyTreeNode):
    """State and settings; also the base class of behaviour cloning from pixels."""

    rng: jax.Array
    actor: TrainState
    entropy_bonus: float | None = struct.field(pytree_node=False)

    @classmethod
    def create(
        cls,
        seed: int,
        obs_dim: int,
        act_dim: int,
        *,
        actor_lr: float = 1e-3,
        hidden_dims: Sequence[int] = (256, 256),
        use_layer_norm: bool = False,
        dropout_rate: float | None = None,
        weight_decay: float | None = None,
        entropy_bonus: float | None = None,
    ) -> Self:
        """The port's keywords and defaults."""
        rng, key = jax.random.split(jax.random.PRNGKey(seed))
        network = Normal(
            tuple(hidden_dims), act_dim, _LOG_STD,
            layer_norm=use_layer_norm, dropout=dropout_rate or 0.0,
        )  # fmt: skip
        tx = optax.adam(actor_lr)
        if weight_decay is not None:
            tx = optax.adamw(actor_lr, weight_decay=weight_decay, mask=_not_bias)
        actor = trained(network, key, (jnp.zeros((1, obs_dim)),), tx)
        return cls(rng=rng, actor=actor, entropy_bonus=entropy_bonus)

    def update(self, batch: Batch) -> tuple[Self, Info]:
        """One maximum-likelihood update; the entropy is that of clipped draws (quirk U23)."""
        rng, dropout_key, sample_key = jax.random.split(self.rng, 3)

        def loss(params: Any) -> tuple[jax.Array, Info]:
            dist = apply(self.actor, params, batch["observations"], dropout_key=dropout_key)
            nll = -dist.log_prob(batch["actions"]).mean()
            drawn, _ = dist.sample_and_log_prob(sample_key)
            drawn = jax.lax.stop_gradient(jnp.clip(drawn, -1 + 1e-5, 1 - 1e-5))
            log_prob = dist.log_prob(drawn)
            value = nll
            if self.entropy_bonus is not None:
                score = -log_prob * jax.lax.stop_gradient(log_prob)
                value = nll - self.entropy_bonus * score.mean()
            return value, {"nll": nll, "entropy": -log_prob.mean()}

        actor, info = gradient_step(self.actor, loss)
        return self.replace(actor=actor, rng=rng), info


def _not_bias(params: Any) -> Any:
    name: Callable[[Any], str] = lambda path: path[-1].key  # noqa: E731
    return jax.tree_util.tree_map_with_path(lambda path, _: name(path) != "bias", params)
