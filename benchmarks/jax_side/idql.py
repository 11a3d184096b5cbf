"""IDQL: the update of ``DDPMIQLLearner`` and the choice of actions (arXiv 2304.10573)."""

# pyright: reportMissingImports=false, reportCallIssue=false
from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training.train_state import TrainState

from benchmarks.jax_side.networks import DDPM, MLP, Ensemble, MLPResNet, StateValue, mish
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


def betas_of(schedule: str, T: int) -> jax.Array:
    """``vp``, ``cosine`` or ``linear`` betas, ``[T]`` (quirks N8 to N10)."""
    if schedule == "vp":
        t = jnp.arange(1, T + 1)
        return 1 - jnp.exp(-0.1 / T - 0.5 * 9.9 * (2 * t - 1) / T**2)
    if schedule == "cosine":
        t = jnp.linspace(0, T, T + 1) / T
        hats = jnp.cos((t + 0.008) / 1.008 * jnp.pi * 0.5) ** 2
        return jnp.clip(1 - hats[1:] / hats[:-1], 0, 0.999)
    return jnp.linspace(1e-4, 2e-2, T)


class IDQL(struct.PyTreeNode):
    """State and settings; fields have the same names as in the port."""

    rng: jax.Array
    score_model: TrainState
    target_score_model: Target
    critic: TrainState
    target_critic: Target
    value: TrainState
    betas: jax.Array
    alphas: jax.Array
    alpha_hats: jax.Array
    act_dim: int = struct.field(pytree_node=False)
    T: int = struct.field(pytree_node=False)
    N: int = struct.field(pytree_node=False)
    M: int = struct.field(pytree_node=False)
    discount: float = struct.field(pytree_node=False)
    tau: float = struct.field(pytree_node=False)
    actor_tau: float = struct.field(pytree_node=False)
    critic_hyperparam: float = struct.field(pytree_node=False)
    ddpm_temperature: float = struct.field(pytree_node=False)
    clip_sampler: bool = struct.field(pytree_node=False)
    report_weights: bool = struct.field(pytree_node=False)

    @classmethod
    def create(
        cls,
        seed: int,
        obs_dim: int,
        act_dim: int,
        *,
        actor_num_blocks: int = 3,
        actor_hidden_dim: int = 256,
        actor_dropout_rate: float | None = None,
        actor_layer_norm: bool = True,
        value_layer_norm: bool = True,
        time_dim: int = 128,
        decay_steps: int | None = int(3e6),
        **settings: Any,
    ) -> IDQL:
        """``DDPMIQLLearner``'s keywords and defaults, and a width ``actor_hidden_dim``."""
        reverse = functools.partial(
            MLPResNet, actor_num_blocks, act_dim, actor_hidden_dim, nn.swish, actor_layer_norm,
            actor_dropout_rate or 0.0,
        )  # fmt: skip
        return cls.from_networks(
            seed, obs_dim, act_dim, DDPM(time_dim, (2 * time_dim,) * 2, nn.swish, reverse),
            decay_steps=decay_steps, value_layer_norm=value_layer_norm, report_weights=False,
            **settings,
        )  # fmt: skip

    @classmethod
    def create_general(
        cls,
        seed: int,
        obs_dim: int,
        act_dim: int,
        *,
        actor_architecture: str = "mlp",
        actor_hidden_dims: Sequence[int] = (256, 256, 256),
        actor_num_blocks: int = 2,
        actor_dropout_rate: float | None = None,
        actor_layer_norm: bool = False,
        time_dim: int = 64,
        decay_steps: int | None = int(2e6),
        **settings: Any,
    ) -> IDQL:
        """``GeneralDDPMIQLLearner``'s keywords and defaults, except for its objectives."""
        reverse: Any = functools.partial(
            MLP, (*actor_hidden_dims, act_dim), mish, layer_norm=actor_layer_norm
        )
        if actor_architecture == "ln_resnet":
            reverse = functools.partial(
                MLPResNet, actor_num_blocks, act_dim, 256, mish, actor_layer_norm,
                actor_dropout_rate or 0.0,
            )  # fmt: skip
        return cls.from_networks(
            seed, obs_dim, act_dim, DDPM(time_dim, (128, 128), mish, reverse),
            decay_steps=decay_steps, value_layer_norm=False, report_weights=True, **settings,
        )  # fmt: skip

    @classmethod
    def from_networks(
        cls,
        seed: int,
        obs_dim: int,
        act_dim: int,
        actor: DDPM,
        *,
        decay_steps: int | None,
        value_layer_norm: bool,
        report_weights: bool,
        actor_lr: float = 3e-4,
        critic_lr: float = 3e-4,
        value_lr: float = 3e-4,
        critic_hidden_dims: Sequence[int] = (256, 256),
        num_qs: int = 2,
        beta_schedule: str = "vp",
        T: int = 5,
        N: int = 64,
        M: int = 0,
        discount: float = 0.99,
        tau: float = 0.005,
        actor_tau: float = 0.001,
        critic_hyperparam: float = 0.7,
        ddpm_temperature: float = 1.0,
        clip_sampler: bool = True,
    ) -> IDQL:
        """A learner with this actor."""
        rng, *keys = jax.random.split(jax.random.PRNGKey(seed), 4)
        obs, act, time = jnp.zeros((1, obs_dim)), jnp.zeros((1, act_dim)), jnp.zeros((1, 1))
        hidden = tuple(critic_hidden_dims)
        rate = optax.cosine_decay_schedule(actor_lr, decay_steps) if decay_steps else actor_lr
        score_model = trained(actor, keys[0], (obs, act, time), optax.adamw(rate))
        critic = trained(Ensemble(hidden, num_qs), keys[1], (obs, act), optax.adam(critic_lr))
        value = trained(StateValue(hidden, value_layer_norm), keys[2], (obs,), optax.adam(value_lr))
        betas = betas_of(beta_schedule, T)
        return cls(
            rng=rng, score_model=score_model, target_score_model=target_of(score_model),
            critic=critic, target_critic=target_of(critic), value=value,
            betas=betas, alphas=1 - betas,
            alpha_hats=jnp.stack([jnp.prod(1 - betas[: i + 1]) for i in range(T)]),
            act_dim=act_dim, T=T, N=N, M=M, discount=discount, tau=tau, actor_tau=actor_tau,
            critic_hyperparam=critic_hyperparam, ddpm_temperature=ddpm_temperature,
            clip_sampler=clip_sampler, report_weights=report_weights,
        )  # fmt: skip

    # --- the update: actor, V, Q (quirk U1) -------------------------------------------------

    def update(self, batch: Batch) -> tuple[IDQL, Info]:
        """One step of all three networks on ``[B, ...]`` transitions."""
        learner, actor_info = self.update_actor(batch)
        learner, value_info = learner.update_v(batch)
        learner, critic_info = learner.update_q(batch)
        return learner, {**actor_info, **value_info, **critic_info}

    def update_actor(self, batch: Batch) -> tuple[IDQL, Info]:
        actions = batch["actions"]
        key, rng = jax.random.split(self.rng)
        time = jax.random.randint(key, actions.shape[:1], 0, self.T)
        key, rng = jax.random.split(rng)
        noise = jax.random.normal(key, actions.shape)
        dropout_key, rng = jax.random.split(rng)
        hat = self.alpha_hats[time][:, None]
        noisy = jnp.sqrt(hat) * actions + jnp.sqrt(1 - hat) * noise

        def loss(params: Any) -> tuple[jax.Array, Info]:
            inputs = batch["observations"], noisy, time[:, None]
            eps = apply(self.score_model, params, *inputs, dropout_key=dropout_key)
            value = ((eps - noise) ** 2).sum(-1).mean()
            # the general learner logs the mean weight of its objective, which is 1 here
            weights = {"weights": jnp.ones_like(value)} if self.report_weights else {}
            return value, {"actor_loss": value, **weights}

        score_model, info = gradient_step(self.score_model, loss)
        target = soft_update(self.target_score_model, score_model, self.actor_tau)
        return self.replace(score_model=score_model, target_score_model=target, rng=rng), info

    def update_v(self, batch: Batch) -> tuple[IDQL, Info]:
        q = self.min_q(batch["observations"], batch["actions"])

        def loss(params: Any) -> tuple[jax.Array, Info]:
            v = apply(self.value, params, batch["observations"])
            value = expectile(q - v, self.critic_hyperparam).mean()
            return value, {"value_loss": value, "v": v.mean()}

        value, info = gradient_step(self.value, loss)
        return self.replace(value=value), info

    def update_q(self, batch: Batch) -> tuple[IDQL, Info]:
        next_v = apply(self.value, self.value.params, batch["next_observations"])
        target_q = batch["rewards"] + self.discount * batch["masks"] * next_v

        def loss(params: Any) -> tuple[jax.Array, Info]:
            qs = apply(self.critic, params, batch["observations"], batch["actions"])
            value = ((qs - target_q) ** 2).mean()
            return value, {"critic_loss": value, "q": qs.mean()}

        critic, info = gradient_step(self.critic, loss)
        target = soft_update(self.target_critic, critic, self.tau)
        return self.replace(critic=critic, target_critic=target), info

    def min_q(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        return apply(self.critic, self.target_critic.params, observations, actions).min(axis=0)

    # --- action choice ----------------------------------------------------------------------

    def denoise(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Sample actions ``[B, A]`` from the EMA actor and the next key (N12, N13)."""
        shape = (observations.shape[0], self.act_dim)
        key, rng = jax.random.split(self.rng)

        def step(carry: tuple[jax.Array, jax.Array], t: jax.Array) -> tuple[Any, None]:
            x, rng = carry
            times = jnp.full((shape[0], 1), t)
            eps = apply(self.score_model, self.target_score_model.params, observations, x, times)
            scale = (1 - self.alphas[t]) / jnp.sqrt(1 - self.alpha_hats[t])
            x = 1 / jnp.sqrt(self.alphas[t]) * (x - scale * eps)
            rng, key = jax.random.split(rng)
            z = self.ddpm_temperature * jax.random.normal(key, shape)
            x = x + (t > 0) * (jnp.sqrt(self.betas[t]) * z)
            return (jnp.clip(x, -1, 1) if self.clip_sampler else x, rng), None

        times = jnp.concatenate([jnp.arange(self.T - 1, -1, -1), jnp.zeros(self.M, int)])
        (x, rng), _ = jax.lax.scan(step, (jax.random.normal(key, shape), rng), times)
        return jnp.clip(x, -1, 1), rng

    def act(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The best of ``N`` candidates by min-Q for each of ``[E, O]``: ``[E, A]``, next key."""
        rows = observations.shape[0]
        repeated = jnp.repeat(observations, self.N, axis=0)
        actions, rng = self.denoise(repeated)
        rng, _ = jax.random.split(rng)
        best = jnp.argmax(self.min_q(repeated, actions).reshape(rows, self.N), axis=1)
        return actions.reshape(rows, self.N, self.act_dim)[jnp.arange(rows), best], rng

    def to_act(self) -> IDQL:
        """The fields that :meth:`act` reads: passing fewer arrays makes a call faster."""
        bare = {"params": (), "opt_state": ()}
        return self.replace(
            score_model=self.score_model.replace(**bare),
            critic=self.critic.replace(**bare),
            value=self.value.replace(**bare),
        )
