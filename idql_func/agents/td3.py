"""Twin delayed deep deterministic policy gradient (arXiv 1802.09477), after ``agents/td3``."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from idql_func import optim, random
from idql_func.agents.agent import TRANSITION_FIELDS, Agent
from idql_func.agents.checks import (
    box_size,
    check_dropout,
    check_fraction,
    check_integer,
    check_layers,
    check_number,
    check_rate,
    check_subset,
    key_of_seed,
)
from idql_func.agents.critics import (
    ApplyFn,
    dropout_options,
    min_q,
    soft_update,
    step_critic,
    step_on_loss,
)
from idql_func.agents.factories import (
    critic_network,
    deterministic_policy,
    target_state,
    train_state,
)
from idql_func.agents.update_ratio import known_step_count, step_on_all_but_last
from idql_func.networks import subsample_ensemble
from idql_func.struct import TrainState, field
from idql_func.transforms import jit
from idql_func.tree import tree_map
from idql_func.types import Batch, InfoDict, Number, Params, PRNGKey

# --- pure steps -------------------------------------------------------------------------


def deterministic_actor_loss(
    params: Params,
    apply_fn: ApplyFn,
    observations: Any,
    critic: TrainState,
    dropout_key: PRNGKey,
) -> tuple[Tensor, InfoDict]:
    """``-mean Q(s, pi(s))`` over ``[B, O]``; ``Q`` is the ensemble's mean (quirk A3).

    >>> critic = TrainState.create(
    ...     params={"w": torch.ones(1)}, apply_fn=lambda p, s, a, **_: torch.stack([a[:, 0]]))
    >>> deterministic_actor_loss({}, lambda p, s: s, torch.ones(2, 1), critic, None)[0].item()
    -1.0
    """
    actions = apply_fn(params, observations)
    qs = critic.apply_fn(critic.params, observations, actions, **dropout_options(dropout_key))
    loss = -qs.mean(dim=0).mean()
    return loss, {"actor_loss": loss}


# --- the learner --------------------------------------------------------------------------


def clip_noise(noise: Tensor, limit: Number) -> Tensor:
    """Noise cut at ``limit`` and ``-limit`` (target policy smoothing, TD3, section 5.3).

    >>> clip_noise(torch.tensor([-2.0, 0.25]), 0.5).tolist()
    [-0.5, 0.25]
    """
    bound = torch.as_tensor(limit, dtype=noise.dtype, device=noise.device)
    return torch.maximum(torch.minimum(noise, bound), -bound)


class TD3Learner(Agent):
    """TD3 with an ensemble of any size, and REDQ's subsets on request.

    >>> import gymnasium as gym
    >>> space = gym.spaces.Box(-1, 1, (3,))
    >>> sorted(TD3Learner.create(0, space, space).actor.params)
    ['MLP_0', 'OutputDenseMean']
    """

    actor: TrainState
    critic: TrainState
    target_critic: TrainState
    target_actor: TrainState
    tau: float
    discount: float
    exploration_noise: float
    target_policy_noise: float
    target_policy_noise_clip: float
    actor_delay: int
    num_qs: int = field(pytree_node=False)
    num_min_qs: int | None = field(pytree_node=False)

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: Any,
        action_space: Any,
        *,
        actor_lr: float | optim.Schedule = 3e-4,
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
    ) -> TD3Learner:
        """A learner with upstream's keywords, defaults and initial values.

        Noises are standard deviations on actions in [-1, 1]; ``actor_delay`` is the number
        of updates for each step of the actor.

        Raises:
            InputError: a setting is out of its range.
            TypeError: a keyword is unknown.
        """
        obs_dim = box_size(observation_space, "observation_space")
        act_dim = box_size(action_space, "action_space")
        check_rate("actor_lr", actor_lr)
        check_rate("critic_lr", critic_lr)
        check_layers("hidden_dims", hidden_dims)
        check_dropout("critic_dropout_rate", critic_dropout_rate)
        check_fraction("discount", discount)
        check_fraction("tau", tau)
        check_subset(num_qs, num_min_qs)
        check_number("exploration_noise", exploration_noise, 0.0)
        check_number("target_policy_noise", target_policy_noise, 0.0)
        check_number("target_policy_noise_clip", target_policy_noise_clip, 0.0)
        check_integer("actor_delay", actor_delay, 1)
        layers = tuple(hidden_dims)
        actor_def = deterministic_policy(obs_dim, act_dim, layers)
        critic_def = critic_network(
            obs_dim, act_dim, layers, num_qs, critic_dropout_rate, critic_layer_norm
        )
        rng, actor_key, critic_key = random.split(key_of_seed(seed), 3).unbind(0)
        actor = train_state(actor_def, actor_def.init(actor_key), actor_lr)
        critic = train_state(critic_def, critic_def.init(critic_key), critic_lr)
        return cls(
            rng=rng.clone(),
            obs_dim=obs_dim,
            act_dim=act_dim,
            actor=actor,
            critic=critic,
            target_critic=target_state(critic),
            target_actor=target_state(actor),
            tau=tau,
            discount=discount,
            exploration_noise=exploration_noise,
            target_policy_noise=target_policy_noise,
            target_policy_noise_clip=target_policy_noise_clip,
            actor_delay=actor_delay,
            num_qs=num_qs,
            num_min_qs=num_min_qs,
        )

    # the steps of an update, on a checked batch

    def update_critic(self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of ``Q`` towards the smoothed target, and of its EMA (quirk A2).

        Noisy target actions are not clipped to the action's bounds (quirk A1).
        """
        observations = batch["next_observations"]
        next_actions = self.target_actor.apply_fn(self.target_actor.params, observations)
        # the subset's key is split off even if no subset is drawn (quirk A7)
        keys = random.split_chain(self.rng, 4, carry=1)
        noise_key, subset_key, target_key, critic_key, rng = keys.unbind(0)
        noise = random.normal(noise_key, tuple(next_actions.shape)) * self.target_policy_noise
        next_actions = next_actions + clip_noise(noise, self.target_policy_noise_clip)
        target = self.target_critic
        target_params = subsample_ensemble(subset_key, target.params, self.num_min_qs, self.num_qs)
        next_q = min_q(target.apply_fn, target_params, observations, next_actions, target_key)
        target_q = batch["rewards"] + self.discount * batch["masks"] * next_q
        critic, target_critic, info = step_critic(
            self.critic, target, batch, target_q, critic_key, self.tau
        )
        return self.replace(critic=critic, target_critic=target_critic, rng=rng), info

    def update_actor(self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of the actor, and of its EMA."""
        key, rng = random.split(self.rng)
        actor, info = step_on_loss(
            self.actor, deterministic_actor_loss, batch["observations"], self.critic, key
        )
        target_actor = soft_update(self.target_actor, actor, self.tau)
        return self.replace(actor=actor, target_actor=target_actor, rng=rng), info

    def actor_is_due(self, critic_step: Any, utd_ratio: int) -> Any:
        """Whether the actor steps after ``critic_step`` steps of ``Q``: a tensor or NumPy bool."""
        return critic_step / utd_ratio % self.actor_delay == 0

    # public, compiled

    def update(
        self, batch: Batch, utd_ratio: int = 1, *, donate: bool = False
    ) -> tuple[Self, InfoDict]:
        """``utd_ratio`` steps of ``Q``, each on its part of the batch; then the actor, if due.

        If the actor is not due, it, its target and the key stay unchanged, and ``actor_loss`` is 0
        (quirk A2). ``batch`` is that of :meth:`SACLearner.update`.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype, or ``utd_ratio``
                does not divide B.
        """
        fields = self._checked_batch(batch, TRANSITION_FIELDS)
        learner, last = step_on_all_but_last(_critic_update, self, fields, utd_ratio, donate)
        # With a known step count, one of two programs runs. Otherwise one program computes both
        # results and selects one.
        step = known_step_count(learner, "critic")
        due = None if step is None else bool(self.actor_is_due(np.float32(step + 1), utd_ratio))
        return _update.donating(donate)(learner, last, utd_ratio=utd_ratio, due=due)

    def eval_actions(self, observations: Any) -> tuple[np.ndarray, Self]:
        """The actor's action for ``[O]`` or ``[E, O]``: ``[A]`` or ``[E, A]``; the key stays.

        Upstream returns the array without the learner (quirk E7).

        Raises:
            InputError: an observation has another size.
        """
        actor = self.actor
        return self._act(
            observations,
            lambda agent, obs: (_actions(actor.params, obs, apply_fn=actor.apply_fn), agent.rng),
        )

    def sample_actions(self, observations: Any) -> tuple[np.ndarray, Self]:
        """The same with ``exploration_noise`` added, clipped to [-1, 1].

        Raises:
            InputError: an observation has another size.
        """
        actor = self.actor
        return self._act(
            observations,
            lambda agent, obs: _noisy_actions(
                actor.params, obs, agent.rng, agent.exploration_noise, apply_fn=actor.apply_fn
            ),
        )


@jit
def _critic_update(learner: TD3Learner, batch: Batch) -> tuple[TD3Learner, InfoDict]:
    return learner.update_critic(batch)


@functools.partial(jit, static_argnames=("utd_ratio", "due"))
def _update(
    learner: TD3Learner, batch: Batch, *, utd_ratio: int, due: bool | None
) -> tuple[TD3Learner, InfoDict]:
    learner, critic_info = learner.update_critic(batch)
    if due is False:
        nothing = torch.zeros_like(critic_info["critic_loss"])
        return learner, {"actor_loss": nothing, **critic_info}
    stepped, actor_info = learner.update_actor(batch)
    if due is True:
        return stepped, {**actor_info, **critic_info}
    flag = learner.actor_is_due(learner.critic.step, utd_ratio)

    def keep(new: Any, old: Any) -> Any:
        return new if new is old else torch.where(flag, new, old)

    loss = torch.where(flag, actor_info["actor_loss"], 0.0)
    return tree_map(keep, stepped, learner), {"actor_loss": loss, **critic_info}


@functools.partial(jit, static_argnames="apply_fn")
def _actions(params: Params, observations: Any, *, apply_fn: Any) -> Tensor:
    return apply_fn(params, observations)


@functools.partial(jit, static_argnames="apply_fn")
def _noisy_actions(
    params: Params, observations: Any, rng: PRNGKey, noise: Any, *, apply_fn: Any
) -> tuple[Tensor, PRNGKey]:
    key, rng = random.split(rng)
    actions = apply_fn(params, observations)
    actions = actions + random.normal(key, tuple(actions.shape)) * noise
    return torch.clamp(actions, -1.0, 1.0), rng
