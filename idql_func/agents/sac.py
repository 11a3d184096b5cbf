"""Soft actor-critic (arXiv 1812.05905), after ``jaxrl5/agents/sac``.

REDQ (arXiv 2101.05982) is this learner with ``num_qs=10, num_min_qs=2`` and an
update-to-data ratio of 20; DroQ (arXiv 2110.02034) with ``critic_dropout_rate`` and
``critic_layer_norm``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor

from idql_func import optim, random
from idql_func.agents.agent import TRANSITION_FIELDS
from idql_func.agents.checks import box_size
from idql_func.agents.critics import ApplyFn, dropout_options, min_q, step_critic, step_on_loss
from idql_func.agents.factories import critic_network, gaussian_policy
from idql_func.agents.policy_agent import PolicyAgent
from idql_func.agents.sac_build import check_sac_settings, soft_actor_critic_states
from idql_func.agents.update_ratio import mini_batches, step_on_all_but_last
from idql_func.deprecation import moved_names
from idql_func.networks import Temperature, subsample_ensemble
from idql_func.struct import TrainState, field
from idql_func.transforms import jit
from idql_func.types import Batch, InfoDict, Params, PRNGKey

__all__ = ["SACLearner", "Temperature", "mini_batches", "soft_actor_loss", "temperature_loss"]


# --- losses -----------------------------------------------------------------------------


def soft_actor_loss(
    params: Params,
    apply_fn: ApplyFn,
    observations: Any,
    sample_key: PRNGKey,
    critic: TrainState,
    dropout_key: PRNGKey,
    temperature: Tensor,
) -> tuple[Tensor, InfoDict]:
    """``mean(temperature * log pi(a | s) - Q(s, a))`` for drawn actions, ``[B, O]``.

    ``Q`` is the ensemble's mean, dropout on (quirks A3, A6).

    >>> import gymnasium as gym, torch
    >>> space, keys = gym.spaces.Box(-1, 1, (2,)), random.split(random.PRNGKey(0))
    >>> learner = SACLearner.create(0, space, space, hidden_dims=(8,))
    >>> sorted(soft_actor_loss(learner.actor.params, learner.actor.apply_fn, torch.zeros(4, 2),
    ...     keys[0], learner.critic, keys[1], torch.tensor(1.0))[1])
    ['actor_loss', 'entropy']
    """
    actions, log_probs = apply_fn(params, observations).sample_and_log_prob(sample_key)
    qs = critic.apply_fn(critic.params, observations, actions, **dropout_options(dropout_key))
    loss = (log_probs * temperature - qs.mean(dim=0)).mean()
    return loss, {"actor_loss": loss, "entropy": -log_probs.mean()}


def temperature_loss(
    params: Params, apply_fn: ApplyFn, entropy: Tensor, target_entropy: Any
) -> tuple[Tensor, InfoDict]:
    """``temperature * (entropy - target_entropy)`` for a policy's entropy, a scalar.

    >>> import torch
    >>> temperature_loss({}, lambda p: torch.tensor(2.0), torch.tensor(1.0), -1.0)[0].item()
    4.0
    """
    temperature = apply_fn(params)
    loss = temperature * (entropy - target_entropy).mean()
    return loss, {"temperature": temperature, "temperature_loss": loss}


# --- the learner --------------------------------------------------------------------------


class SACLearner(PolicyAgent):
    """Soft actor-critic with a learned temperature; REDQ and DroQ by settings.

    >>> import gymnasium as gym
    >>> space = gym.spaces.Box(-1, 1, (3,))
    >>> learner = SACLearner.create(0, space, space)
    >>> learner.target_entropy, sorted(learner.temp.params)
    (-1.5, ['log_temp'])
    """

    critic: TrainState
    target_critic: TrainState
    temp: TrainState
    tau: float
    discount: float
    target_entropy: float
    num_qs: int = field(pytree_node=False)
    num_min_qs: int | None = field(pytree_node=False)
    backup_entropy: bool = field(pytree_node=False)

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: Any,
        action_space: Any,
        *,
        actor_lr: float | optim.Schedule = 3e-4,
        critic_lr: float = 3e-4,
        temp_lr: float = 3e-4,
        hidden_dims: Sequence[int] = (256, 256),
        discount: float = 0.99,
        tau: float = 0.005,
        num_qs: int = 2,
        num_min_qs: int | None = None,
        critic_dropout_rate: float | None = None,
        critic_layer_norm: bool = False,
        target_entropy: float | None = None,
        init_temperature: float = 1.0,
        backup_entropy: bool = True,
    ) -> SACLearner:
        """A learner with upstream's keywords, defaults and initial values.

        The target entropy is ``-A / 2`` by default (quirk A4). With ``num_min_qs``, the target is
        the minimum over that many members, drawn for each update.

        Raises:
            InputError: a setting is out of its range.
            TypeError: a keyword is unknown.
        """
        obs_dim = box_size(observation_space, "observation_space")
        act_dim = box_size(action_space, "action_space")
        check_sac_settings(
            actor_lr, critic_lr, temp_lr, hidden_dims, critic_dropout_rate, discount, tau,
            num_qs, num_min_qs, target_entropy, init_temperature,
        )  # fmt: skip
        layers = tuple(hidden_dims)
        return cls(
            **soft_actor_critic_states(
                seed,
                gaussian_policy(obs_dim, act_dim, layers, tanh=True),
                critic_network(
                    obs_dim, act_dim, layers, num_qs, critic_dropout_rate, critic_layer_norm
                ),
                init_temperature,
                (actor_lr, critic_lr, temp_lr),
            ),
            obs_dim=obs_dim,
            act_dim=act_dim,
            tau=tau,
            discount=discount,
            target_entropy=-act_dim / 2 if target_entropy is None else target_entropy,
            num_qs=num_qs,
            num_min_qs=num_min_qs,
            backup_entropy=backup_entropy,
        )

    # the steps of an update

    def update_critic(self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of ``Q`` towards the soft Bellman target, and of its EMA."""
        observations, masks = batch["next_observations"], batch["masks"]
        # keys in upstream's order; the subset's is split off even if no subset is drawn (quirk A7)
        keys = random.split_chain(self.rng, 4, carry=1)
        actor_key, subset_key, target_key, critic_key, rng = keys.unbind(0)
        next_actions, next_log_probs = self.actor.apply_fn(
            self.actor.params, observations
        ).sample_and_log_prob(actor_key)
        target = self.target_critic
        target_params = subsample_ensemble(subset_key, target.params, self.num_min_qs, self.num_qs)
        # dropout is also on for the target (quirk A6)
        next_q = min_q(target.apply_fn, target_params, observations, next_actions, target_key)
        target_q = batch["rewards"] + self.discount * masks * next_q
        if self.backup_entropy:
            temperature = self.temp.apply_fn(self.temp.params)
            target_q = target_q - self.discount * masks * temperature * next_log_probs
        critic, target_critic, info = step_critic(
            self.critic, target, batch, target_q, critic_key, self.tau
        )
        return self.replace(critic=critic, target_critic=target_critic, rng=rng), info

    def update_actor(self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of the policy towards high soft values."""
        key, dropout_key, rng = random.split_chain(self.rng, 2, carry=1).unbind(0)
        temperature = self.temp.apply_fn(self.temp.params)
        inputs = batch["observations"], key, self.critic, dropout_key, temperature
        actor, info = step_on_loss(self.actor, soft_actor_loss, *inputs)
        return self.replace(actor=actor, rng=rng), info

    def update_temperature(self, entropy: Tensor) -> tuple[Self, InfoDict]:
        """One step of the temperature towards the target entropy."""
        temp, info = step_on_loss(self.temp, temperature_loss, entropy, self.target_entropy)
        return self.replace(temp=temp), info

    # public methods: check the batch, run the compiled steps

    def update(
        self, batch: Batch, utd_ratio: int = 1, *, donate: bool = False
    ) -> tuple[Self, InfoDict]:
        """``utd_ratio`` steps of ``Q``, each on its part of the batch, then actor and temperature.

        The actor sees the last part only (quirk A5). ``batch`` holds ``observations [B, O],
        actions [B, A], rewards [B], masks [B], next_observations [B, O]``.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype, or ``utd_ratio``
                does not divide B.
        """
        fields = self._checked_batch(batch, TRANSITION_FIELDS)
        learner, last = step_on_all_but_last(_critic_update, self, fields, utd_ratio, donate)
        return _update.donating(donate)(learner, last)


@jit
def _critic_update(learner: SACLearner, batch: Batch) -> tuple[SACLearner, InfoDict]:
    return learner.update_critic(batch)


@jit
def _update(learner: SACLearner, batch: Batch) -> tuple[SACLearner, InfoDict]:
    learner, critic_info = learner.update_critic(batch)
    learner, actor_info = learner.update_actor(batch)
    learner, temp_info = learner.update_temperature(actor_info["entropy"])
    return learner, {**actor_info, **critic_info, **temp_info}


__getattr__ = moved_names(__name__)
