"""Soft actor-critic with REDQ's and DroQ's settings, and TD3 (arXiv 1812.05905, 1802.09477)."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training.train_state import TrainState

from benchmarks.jax_side.networks import Ensemble, Normal, TanhDeterministic, Temperature
from benchmarks.jax_side.steps import (
    Batch,
    Info,
    Target,
    apply,
    gradient_step,
    soft_update,
    target_of,
    trained,
)


def subset(key: jax.Array, params: Any, count: int | None, num: int) -> Any:
    """The parameters of ``count`` members drawn without replacement; of all for None."""
    if count is None:
        return params
    index = jax.random.choice(key, num, (count,), replace=False)
    if "Ensemble_0" in params:
        members = jax.tree.map(lambda p: p[index], params["Ensemble_0"])
        return {**params, "Ensemble_0": members}
    return jax.tree.map(lambda p: p[index], params)


def scan_minibatches(
    step: Callable[[Any, Batch], tuple[Any, Info]], learner: Any, batch: Batch, parts: int
) -> tuple[Any, Info, Batch]:
    """Scan ``step`` over ``parts`` equal parts of a batch: learner, last info, last part."""
    if parts == 1:
        learner, info = step(learner, batch)
        return learner, info, batch
    stacked = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    learner, infos = jax.lax.scan(step, learner, stacked)
    last = jax.tree.map(lambda x: x[-1], (infos, stacked))
    return learner, *last


def min_target_q(
    learner: Any, rng: jax.Array, obs: Any, actions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The minimum over the target's members (or a subset), dropout on, and the next key."""
    # split off whether a subset is drawn or not (quirk A7)
    key, rng = jax.random.split(rng)
    params = subset(key, learner.target_critic.params, learner.num_min_qs, learner.num_qs)
    key, rng = jax.random.split(rng)
    qs = learner.target_critic_def.apply(
        {"params": params}, obs, actions, True, rngs={"dropout": key}
    )
    return qs.min(axis=0), rng


def update_ensemble(learner: Any, batch: Batch, target_q: jax.Array, key: jax.Array) -> Any:
    """Update the ensemble towards ``target_q``, dropout on, and its target network."""

    def loss(params: Any) -> tuple[jax.Array, Info]:
        inputs = batch["observations"], batch["actions"]
        qs = apply(learner.critic, params, *inputs, dropout_key=key)
        value = ((qs - target_q) ** 2).mean()
        return value, {"critic_loss": value, "q": qs.mean()}

    critic, info = gradient_step(learner.critic, loss)
    target = soft_update(learner.target_critic, critic, learner.tau)
    return learner.replace(critic=critic, target_critic=target), info


class SAC(struct.PyTreeNode):
    """State and settings; fields have the same names as in the port."""

    rng: jax.Array
    actor: TrainState
    critic: TrainState
    target_critic: Target
    temp: TrainState
    target_critic_def: Any = struct.field(pytree_node=False)
    target_entropy: float = struct.field(pytree_node=False)
    discount: float = struct.field(pytree_node=False)
    tau: float = struct.field(pytree_node=False)
    num_qs: int = struct.field(pytree_node=False)
    num_min_qs: int | None = struct.field(pytree_node=False)
    backup_entropy: bool = struct.field(pytree_node=False)

    @classmethod
    def create(
        cls,
        seed: int,
        obs_dim: int,
        act_dim: int,
        *,
        hidden_dims: Sequence[int] = (256, 256),
        critic_dropout_rate: float | None = None,
        critic_layer_norm: bool = False,
        num_qs: int = 2,
        num_min_qs: int | None = None,
        **settings: Any,
    ) -> Self:
        """The port's keywords and defaults; ``settings`` are those of :meth:`from_networks`."""
        hidden, rate = tuple(hidden_dims), critic_dropout_rate or 0.0
        return cls.from_networks(
            seed,
            Normal(hidden, act_dim, tanh=True),
            lambda num: Ensemble(hidden, num, critic_layer_norm, rate),
            jnp.zeros((1, obs_dim)),
            act_dim,
            num_qs=num_qs,
            num_min_qs=num_min_qs,
            **settings,
        )

    @classmethod
    def from_networks(
        cls,
        seed: int,
        actor: Any,
        critic_of: Callable[[int], Any],
        obs: Any,
        act_dim: int,
        *,
        num_qs: int,
        num_min_qs: int | None,
        actor_lr: float = 3e-4,
        critic_lr: float = 3e-4,
        temp_lr: float = 3e-4,
        discount: float = 0.99,
        tau: float = 0.005,
        target_entropy: float | None = None,
        init_temperature: float = 1.0,
        backup_entropy: bool = True,
    ) -> Self:
        """A learner of these networks; ``critic_of(members)`` is an ensemble."""
        rng, *keys = jax.random.split(jax.random.PRNGKey(seed), 4)
        inputs = obs, jnp.zeros((1, act_dim))
        critic = trained(critic_of(num_qs), keys[1], inputs, optax.adam(critic_lr))
        return cls(
            rng=rng,
            actor=trained(actor, keys[0], (obs,), optax.adam(actor_lr)),
            critic=critic,
            target_critic=target_of(critic),
            temp=trained(Temperature(init_temperature), keys[2], (), optax.adam(temp_lr)),
            target_critic_def=critic_of(num_min_qs or num_qs),
            target_entropy=-act_dim / 2 if target_entropy is None else target_entropy,
            discount=discount,
            tau=tau,
            num_qs=num_qs,
            num_min_qs=num_min_qs,
            backup_entropy=backup_entropy,
        )

    def update(self, batch: Batch, utd_ratio: int = 1) -> tuple[Self, Info]:
        """``utd_ratio`` updates of ``Q``, then actor and temperature on the last part (A5)."""
        learner, critic_info, last = scan_minibatches(
            type(self).update_critic, self, batch, utd_ratio
        )
        learner, actor_info = learner.update_actor(last)
        learner, temp_info = learner.update_temperature(actor_info["entropy"])
        return learner, {**critic_info, **actor_info, **temp_info}

    def update_critic(self, batch: Batch) -> tuple[Self, Info]:
        obs = batch["next_observations"]
        key, rng = jax.random.split(self.rng)
        dist = apply(self.actor, self.actor.params, obs)
        actions, log_probs = dist.sample_and_log_prob(key)
        next_q, rng = min_target_q(self, rng, obs, actions)
        target_q = batch["rewards"] + self.discount * batch["masks"] * next_q
        if self.backup_entropy:
            temperature = apply(self.temp, self.temp.params)
            target_q = target_q - self.discount * batch["masks"] * temperature * log_probs
        key, rng = jax.random.split(rng)
        return update_ensemble(self.replace(rng=rng), batch, target_q, key)

    def update_actor(self, batch: Batch) -> tuple[Self, Info]:
        key, rng = jax.random.split(self.rng)
        dropout_key, rng = jax.random.split(rng)
        obs, temperature = batch["observations"], apply(self.temp, self.temp.params)

        def loss(params: Any) -> tuple[jax.Array, Info]:
            actions, log_probs = apply(self.actor, params, obs).sample_and_log_prob(key)
            inputs = obs, actions
            qs = apply(self.critic, self.critic.params, *inputs, dropout_key=dropout_key)
            value = (log_probs * temperature - qs.mean(axis=0)).mean()
            return value, {"actor_loss": value, "entropy": -log_probs.mean()}

        actor, info = gradient_step(self.actor, loss)
        return self.replace(actor=actor, rng=rng), info

    def update_temperature(self, entropy: jax.Array) -> tuple[Self, Info]:
        def loss(params: Any) -> tuple[jax.Array, Info]:
            temperature = apply(self.temp, params)
            value = temperature * (entropy - self.target_entropy)
            return value, {"temperature": temperature, "temperature_loss": value}

        temp, info = gradient_step(self.temp, loss)
        return self.replace(temp=temp), info


class TD3(struct.PyTreeNode):
    """State and settings; fields have the same names as in the port."""

    rng: jax.Array
    actor: TrainState
    critic: TrainState
    target_critic: Target
    target_actor: Target
    target_critic_def: Any = struct.field(pytree_node=False)
    discount: float = struct.field(pytree_node=False)
    tau: float = struct.field(pytree_node=False)
    num_qs: int = struct.field(pytree_node=False)
    num_min_qs: int | None = struct.field(pytree_node=False)
    target_policy_noise: float = struct.field(pytree_node=False)
    target_policy_noise_clip: float = struct.field(pytree_node=False)
    exploration_noise: float = struct.field(pytree_node=False)
    actor_delay: int = struct.field(pytree_node=False)

    @classmethod
    def create(
        cls,
        seed: int,
        obs_dim: int,
        act_dim: int,
        *,
        actor_lr: float = 3e-4,
        critic_lr: float = 3e-4,
        hidden_dims: Sequence[int] = (256, 256),
        discount: float = 0.99,
        tau: float = 0.005,
        num_qs: int = 2,
        num_min_qs: int | None = None,
        critic_dropout_rate: float | None = None,
        critic_layer_norm: bool = False,
        exploration_noise: float = 0.1,
        target_policy_noise: float = 0.2,
        target_policy_noise_clip: float = 0.5,
        actor_delay: int = 2,
    ) -> TD3:
        """The port's keywords and defaults."""
        rng, *keys = jax.random.split(jax.random.PRNGKey(seed), 3)
        obs, act, hidden = jnp.zeros((1, obs_dim)), jnp.zeros((1, act_dim)), tuple(hidden_dims)

        def critic_of(num: int) -> Ensemble:
            return Ensemble(hidden, num, critic_layer_norm, critic_dropout_rate or 0.0)

        actor = trained(TanhDeterministic(hidden, act_dim), keys[0], (obs,), optax.adam(actor_lr))
        critic = trained(critic_of(num_qs), keys[1], (obs, act), optax.adam(critic_lr))
        return cls(
            rng=rng, actor=actor, critic=critic,
            target_critic=target_of(critic), target_actor=target_of(actor),
            target_critic_def=critic_of(num_min_qs or num_qs),
            discount=discount, tau=tau, num_qs=num_qs, num_min_qs=num_min_qs,
            target_policy_noise=target_policy_noise,
            target_policy_noise_clip=target_policy_noise_clip,
            exploration_noise=exploration_noise, actor_delay=actor_delay,
        )  # fmt: skip

    def update(self, batch: Batch, utd_ratio: int = 1) -> tuple[TD3, Info]:
        """``utd_ratio`` updates of ``Q``; one of the actor every ``actor_delay`` calls (A2)."""
        learner, critic_info, last = scan_minibatches(TD3.update_critic, self, batch, utd_ratio)
        loss = jnp.zeros_like(critic_info["critic_loss"])
        learner, actor_info = jax.lax.cond(
            learner.critic.step / utd_ratio % self.actor_delay == 0,
            TD3.update_actor,
            lambda learner, _: (learner, {"actor_loss": loss}),
            learner,
            last,
        )
        return learner, {**critic_info, **actor_info}

    def update_critic(self, batch: Batch) -> tuple[TD3, Info]:
        obs = batch["next_observations"]
        actions = apply(self.actor, self.target_actor.params, obs)
        key, rng = jax.random.split(self.rng)
        noise = jax.random.normal(key, actions.shape) * self.target_policy_noise
        clip = self.target_policy_noise_clip
        # the sum is not clipped to the action's bounds (quirk A1)
        actions = actions + jnp.clip(noise, -clip, clip)
        next_q, rng = min_target_q(self, rng, obs, actions)
        target_q = batch["rewards"] + self.discount * batch["masks"] * next_q
        key, rng = jax.random.split(rng)
        return update_ensemble(self.replace(rng=rng), batch, target_q, key)

    def update_actor(self, batch: Batch) -> tuple[TD3, Info]:
        key, rng = jax.random.split(self.rng)
        obs = batch["observations"]

        def loss(params: Any) -> tuple[jax.Array, Info]:
            inputs = obs, apply(self.actor, params, obs)
            qs = apply(self.critic, self.critic.params, *inputs, dropout_key=key)
            value = -qs.mean(axis=0).mean()
            return value, {"actor_loss": value}

        actor, info = gradient_step(self.actor, loss)
        target = soft_update(self.target_actor, actor, self.tau)
        return self.replace(actor=actor, target_actor=target, rng=rng), info
