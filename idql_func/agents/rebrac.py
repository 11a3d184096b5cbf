"""ReBRAC: behaviour-regularised actor-critic (arXiv 2305.09836), after seohongpark/fql."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from idql_func import random
from idql_func.agents.agent import TRANSITION_FIELDS
from idql_func.agents.checks import check_integer, check_number, key_of_seed
from idql_func.agents.joint import (
    JointAgent,
    check_joint_settings,
    checked_sizes,
    joint_state,
    next_keys,
    q_loss,
    with_prefix,
)
from idql_func.agents.td3 import clip_noise
from idql_func.agents.update_ratio import known_step_count
from idql_func.networks.flow import Actor, Value
from idql_func.struct import field
from idql_func.transforms import jit
from idql_func.types import Batch, InfoDict, Number, Params, PRNGKey


class ReBRACLearner(JointAgent):
    """TD3 with behaviour cloning of the actor and of the critic's target.

    Networks: ``critic`` (two members) and ``actor`` (the mode of its policy).

    >>> import gymnasium as gym
    >>> space = gym.spaces.Box(-1, 1, (3,))
    >>> learner = ReBRACLearner.create(0, space, space, actor_hidden_dims=(8,), alpha_actor=0.01)
    >>> sorted(learner.network.params)[:2]
    ['modules_actor', 'modules_critic']
    """

    discount: float
    alpha_actor: float
    alpha_critic: float
    actor_noise: float
    actor_noise_clip: float
    actor_freq: int = field(pytree_node=False)

    _batch_fields: ClassVar[tuple[str, ...]] = (*TRANSITION_FIELDS, "next_actions")

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
        tanh_squash: bool = True,
        actor_fc_scale: float = 0.01,
        alpha_actor: float = 0.0,
        alpha_critic: float = 0.0,
        actor_freq: int = 2,
        actor_noise: float = 0.2,
        actor_noise_clip: float = 0.5,
    ) -> ReBRACLearner:
        """A learner with the original's keywords, defaults and initial values.

        ``alpha_actor`` and ``alpha_critic`` weight the distances to the data's actions, and the
        paper tunes both for each task. ``actor_freq`` is the number of updates for each full one;
        training loops read it.

        Raises:
            InputError: a setting is out of its range.
            TypeError: a keyword is unknown.
        """
        check_number("actor_fc_scale", actor_fc_scale, 0.0)
        check_number("alpha_actor", alpha_actor, 0.0)
        check_number("alpha_critic", alpha_critic, 0.0)
        check_integer("actor_freq", actor_freq, 1)
        check_number("actor_noise", actor_noise, 0.0)
        check_number("actor_noise_clip", actor_noise_clip, 0.0)
        obs_dim, act_dim = checked_sizes(observation_space, action_space)
        check_joint_settings(lr, actor_hidden_dims, value_hidden_dims, discount, tau)
        rng, key = random.split(key_of_seed(seed)).unbind(0)

        def critic() -> Value:
            return Value(obs_dim + act_dim, value_hidden_dims, layer_norm)

        def actor() -> Actor:
            return Actor(
                obs_dim, act_dim, actor_hidden_dims, actor_layer_norm, tanh_squash, actor_fc_scale
            )

        networks = {
            "critic": critic(),
            "target_critic": critic(),
            "actor": actor(),
            "target_actor": actor(),
        }
        return cls(
            rng=rng.clone(),
            obs_dim=obs_dim,
            act_dim=act_dim,
            network=joint_state(networks, key, lr),
            tau=tau,
            discount=discount,
            alpha_actor=alpha_actor,
            alpha_critic=alpha_critic,
            actor_noise=actor_noise,
            actor_noise_clip=actor_noise_clip,
            actor_freq=actor_freq,
        )

    def critic_loss(self, params: Params, batch: Batch, key: PRNGKey) -> tuple[Tensor, InfoDict]:
        """:func:`q_loss` towards ``r + discount * mask * (min Q(s', c) - alpha_critic |c - b|^2)``.

        ``c`` is the target actor's action with clipped noise, ``b`` the data's next action.
        """
        observations = batch["next_observations"]
        _, noise_key = random.split(key).unbind(0)
        modes = self.run("target_actor", observations)
        actions = torch.clamp(modes + self._noise(noise_key, modes), -1, 1)
        next_q = self.run("target_critic", observations, actions).amin(dim=0)
        distances = ((actions - batch["next_actions"]) ** 2).sum(dim=-1)
        next_q = next_q - self.alpha_critic * distances
        target_q = batch["rewards"] + self.discount * batch["masks"] * next_q
        apply_fn = self.network.apply_fn
        return q_loss(params, apply_fn, batch["observations"], batch["actions"], target_q)

    def actor_loss(self, params: Params, batch: Batch) -> tuple[Tensor, InfoDict]:
        """``mean alpha_actor |pi(s) - a|^2 - mean Q(s, pi(s)) / mean |Q|``, ``Q`` the minimum."""
        observations = batch["observations"]
        actions = self.run("actor", observations, params=params)
        q = self.run("critic", observations, actions).amin(dim=0)
        distances = ((actions - batch["actions"]) ** 2).sum(dim=-1)
        scale = (1 / q.abs().mean()).detach()
        policy_loss = -(scale * q).mean()
        bc_loss = (self.alpha_actor * distances).mean()
        loss = policy_loss + bc_loss
        return loss, {
            "total_loss": loss,
            "actor_loss": policy_loss,
            "bc_loss": bc_loss,
            "std": torch.ones_like(loss),  # the policy's deviation is constant
            "mse": distances.mean(),
        }

    def total_loss(
        self, params: Params, batch: Batch, key: PRNGKey, actor_part: Number = 1.0
    ) -> tuple[Tensor, InfoDict]:
        """The critic's loss and ``actor_part`` times the actor's, which is left out for 0.0."""
        critic_key = random.split(key, 3)[2]
        loss, critic_info = self.critic_loss(params, batch, critic_key)
        info = with_prefix("critic", critic_info)
        if isinstance(actor_part, float) and actor_part == 0:
            return loss, info
        actor_loss, actor_info = self.actor_loss(params, batch)
        return loss + actor_part * actor_loss, {**info, **with_prefix("actor", actor_info)}

    def update(
        self, batch: Batch, full_update: bool = True, *, donate: bool = False
    ) -> tuple[Self, InfoDict]:
        """One step on one batch; a new learner and its losses.

        Args:
            batch: that of every learner, and ``next_actions [B, A]``, the data's actions in the
                next states.
            full_update: also train the actor and move both targets; training loops do so in one
                of ``actor_freq`` updates. Adam steps all networks in each, as in the original.
            donate: reuse the memory of this learner.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        fields = self._checked_batch(batch, self._batch_fields)
        return _update.donating(donate)(self, fields, full_update=bool(full_update))

    def training_update(self, batch: Batch, *, donate: bool = False) -> tuple[Self, InfoDict]:
        """:meth:`update`, full in every ``actor_freq``-th update, which the learner counts.

        ``info`` always has the actor's losses. Inside ``jit`` and ``vmap``, where the count has no
        value, the actor's gradient and the movement of the targets are multiplied by 0 or 1.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        fields = self._checked_batch(batch, self._batch_fields)
        step = known_step_count(self, "network")
        full = None if step is None else int(step) % self.actor_freq == 0
        return _update.donating(donate)(self, fields, full_update=full, log_actor=True)

    def choose_actions(self, observations: Tensor, key: PRNGKey, temperature: Any = 1.0) -> Tensor:
        """The policy's mode with clipped noise times ``temperature``: ``[E, O]`` to ``[E, A]``."""
        modes = self.run("actor", observations)
        return torch.clamp(modes + self._noise(key, modes, temperature), -1, 1)

    def _noise(self, key: PRNGKey, like: Tensor, temperature: Any = 1.0) -> Tensor:
        noise = random.normal(key, tuple(like.shape)) * self.actor_noise * temperature
        return clip_noise(noise, self.actor_noise_clip)


@functools.partial(jit, static_argnames=("full_update", "log_actor"))
def _update(
    learner: ReBRACLearner, batch: Batch, *, full_update: bool | None, log_actor: bool = False
) -> tuple[ReBRACLearner, InfoDict]:
    key, rng = next_keys(learner.rng)
    part: Number = 0.0 if full_update is False else 1.0
    if full_update is None:
        is_full = learner.network.step % learner.actor_freq == 0
        part = is_full.to(batch["rewards"].dtype)
    targets = () if full_update is False else ("critic", "actor")
    updated, info = learner.step_on(
        lambda params: learner.total_loss(params, batch, key, part), rng, targets, part
    )
    if log_actor and full_update is False:
        _, actor_info = learner.actor_loss(learner.network.params, batch)
        info = {**info, **with_prefix("actor", actor_info)}
    return updated, info
