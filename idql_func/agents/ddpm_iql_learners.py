"""The two IDQL learners: their settings and how they are created.

:class:`DDPMIQLLearner` is the learner that upstream exports (``agents/ddpm_iql_simple``) and
:class:`GeneralDDPMIQLLearner` is upstream's full one (``agents/ddpm_iql``). They differ in
``create`` only (quirk N16); both are updated by ``ddpm_iql.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from idql_func import optim, random
from idql_func.agents.agent import TRANSITION_FIELDS
from idql_func.agents.critics import batch_min_q, bellman_target, critic_loss, value_loss
from idql_func.agents.ddpm_iql import BaseDDPMIQL, diffuse, score_loss
from idql_func.agents.ddpm_iql_build import ActorSettings, build
from idql_func.networks import mish, swish
from idql_func.transforms import jit
from idql_func.types import Batch, InfoDict

__all__ = ["DDPMIQLLearner", "GeneralDDPMIQLLearner"]


# --- parts of an update -----------------------------------------------------------------------


class _DDPMIQL(BaseDDPMIQL):
    """Both learners: single steps of an update, and the losses without an update."""

    def actor_update(self, batch: Batch) -> tuple[Self, InfoDict]:
        """The actor's step of :meth:`update` alone; it reads ``observations`` and ``actions``.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        return _actor_update(self, self._checked_batch(batch, ("observations", "actions")))

    def critic_update(self, batch: Batch) -> tuple[Self, InfoDict]:
        """The steps of ``V`` and ``Q`` of :meth:`update` alone.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        return _critic_update(self, self._checked_batch(batch, TRANSITION_FIELDS))

    def eval_loss(self, batch: Batch) -> tuple[Self, InfoDict]:
        """The losses on a batch, without dropout, weights or update (quirks U19, E11).

        ``actor_loss`` and the next key are upstream's; ``value_loss, v, critic_loss, q`` are
        those of the present networks.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        return _eval_loss(self, self._checked_batch(batch, TRANSITION_FIELDS))


@jit
def _actor_update(learner: _DDPMIQL, batch: Batch) -> tuple[_DDPMIQL, InfoDict]:
    return learner.update_actor(batch)


@jit
def _critic_update(learner: _DDPMIQL, batch: Batch) -> tuple[_DDPMIQL, InfoDict]:
    learner, value_info = learner.update_v(batch)
    learner, critic_info = learner.update_q(batch)
    return learner, {**value_info, **critic_info}


@jit
def _eval_loss(learner: _DDPMIQL, batch: Batch) -> tuple[_DDPMIQL, InfoDict]:
    observations, actions = batch["observations"], batch["actions"]
    key, rng = random.split(learner.rng)
    time = random.randint(key, (actions.shape[0],), 0, learner.T)
    key, rng = random.split(rng)
    noise = random.normal(key, (actions.shape[0], learner.act_dim))
    _, rng = random.split(rng)
    noisy = diffuse(actions, noise, time, learner.alpha_hats)
    q = batch_min_q(learner.target_critic, batch)
    target_q = bellman_target(learner.value, batch, learner.discount)
    actor, value, critic = learner.score_model, learner.value, learner.critic
    objective = learner.critic_objective, learner.critic_hyperparam
    _, actor_info = score_loss(
        actor.params, actor.apply_fn, observations, noisy, time.unsqueeze(1), noise
    )
    _, value_info = value_loss(value.params, value.apply_fn, observations, q, *objective)
    _, critic_info = critic_loss(critic.params, critic.apply_fn, observations, actions, target_q)
    return learner.replace(rng=rng), {**actor_info, **value_info, **critic_info}


# --- creation ---------------------------------------------------------------------------


class DDPMIQLLearner(_DDPMIQL):
    """The learner that upstream exports: residual actor, behaviour cloning, expectile ``V``.

    >>> import gymnasium as gym
    >>> space = gym.spaces.Box(-1, 1, (3,))
    >>> learner = DDPMIQLLearner.create(0, space, space, T=2, N=4)
    >>> sorted(learner.score_model.params)
    ['FourierFeatures_0', 'MLPResNet_0', 'MLP_0']
    """

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: Any,
        action_space: Any,
        *,
        actor_lr: float | optim.Schedule = 3e-4,
        critic_lr: float = 3e-4,
        value_lr: float = 3e-4,
        critic_hidden_dims: Sequence[int] = (256, 256),
        discount: float = 0.99,
        tau: float = 0.005,
        critic_hyperparam: float = 0.7,
        ddpm_temperature: float = 1.0,
        num_qs: int = 2,
        actor_num_blocks: int = 3,
        actor_tau: float = 0.001,
        actor_dropout_rate: float | None = None,
        actor_layer_norm: bool = True,
        value_layer_norm: bool = True,
        policy_temperature: float = 3.0,
        T: int = 5,
        time_dim: int = 128,
        N: int = 64,
        M: int = 0,
        clip_sampler: bool = True,
        beta_schedule: str = "vp",
        decay_steps: int | None = int(3e6),
    ) -> DDPMIQLLearner:
        """A learner with upstream's keywords, defaults and initial values.

        ``policy_temperature`` is a field that nothing reads, as upstream (quirk U10).

        Raises:
            InputError: a setting is out of its range.
            TypeError: a keyword is unknown.
        """
        return build(
            cls, seed, observation_space, action_space,
            actor=ActorSettings(
                "ln_resnet", time_dim, (2 * time_dim, 2 * time_dim), swish, actor_layer_norm,
                num_blocks=actor_num_blocks, dropout_rate=actor_dropout_rate,
            ),
            critic_hidden_dims=critic_hidden_dims, num_qs=num_qs,
            value_layer_norm=value_layer_norm, beta_schedule=beta_schedule,
            actor_lr=actor_lr, critic_lr=critic_lr, value_lr=value_lr, decay_steps=decay_steps,
            T=T, N=N, M=M, discount=discount, tau=tau, actor_tau=actor_tau,
            critic_hyperparam=critic_hyperparam, ddpm_temperature=ddpm_temperature,
            policy_temperature=policy_temperature, clip_sampler=clip_sampler,
            critic_objective="expectile", actor_objective="bc", hard_adv_threshold=-0.01,
            report_weights=False,
        )  # fmt: skip


class GeneralDDPMIQLLearner(_DDPMIQL):
    """Upstream's full learner: all critic and actor objectives, MLP or residual actor.

    >>> import gymnasium as gym
    >>> space = gym.spaces.Box(-1, 1, (3,))
    >>> learner = GeneralDDPMIQLLearner.create(0, space, space, actor_objective="exp_adv", T=2)
    >>> sorted(learner.score_model.params)
    ['FourierFeatures_0', 'MLP_0', 'MLP_1']
    """

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: Any,
        action_space: Any,
        *,
        actor_architecture: str = "mlp",
        actor_lr: float | optim.Schedule = 3e-4,
        critic_lr: float = 3e-4,
        value_lr: float = 3e-4,
        critic_hidden_dims: Sequence[int] = (256, 256),
        actor_hidden_dims: Sequence[int] = (256, 256, 256),
        discount: float = 0.99,
        tau: float = 0.005,
        critic_hyperparam: float = 0.7,
        ddpm_temperature: float = 1.0,
        num_qs: int = 2,
        actor_num_blocks: int = 2,
        actor_weight_decay: float | None = None,
        actor_tau: float = 0.001,
        actor_dropout_rate: float | None = None,
        actor_layer_norm: bool = False,
        policy_temperature: float = 3.0,
        T: int = 5,
        time_dim: int = 64,
        N: int = 64,
        M: int = 0,
        clip_sampler: bool = True,
        actor_objective: str = "bc",
        critic_objective: str = "expectile",
        beta_schedule: str = "vp",
        decay_steps: int | None = int(2e6),
        hard_adv_threshold: float = -0.01,
    ) -> GeneralDDPMIQLLearner:
        """A learner with upstream's keywords, defaults and initial values.

        Differences: ``actor_weight_decay``, which upstream ignores, applies to the leaves of
        :func:`get_weight_decay_mask`; None is upstream's 1e-4 on all leaves (quirks U12, U13).
        ``actor_hidden_dims``, which upstream ignores for ``ln_resnet``, raises an error there
        (U14). ``hard_adv_threshold`` is a constant in upstream (U9).

        Raises:
            InputError: a setting is out of its range.
            TypeError: a keyword is unknown.
        """
        return build(
            cls, seed, observation_space, action_space,
            actor=ActorSettings(
                actor_architecture, time_dim, (128, 128), mish, actor_layer_norm,
                hidden_dims=tuple(actor_hidden_dims), num_blocks=actor_num_blocks,
                dropout_rate=actor_dropout_rate,
            ),
            actor_weight_decay=actor_weight_decay,
            critic_hidden_dims=critic_hidden_dims, num_qs=num_qs,
            value_layer_norm=False, beta_schedule=beta_schedule,
            actor_lr=actor_lr, critic_lr=critic_lr, value_lr=value_lr, decay_steps=decay_steps,
            T=T, N=N, M=M, discount=discount, tau=tau, actor_tau=actor_tau,
            critic_hyperparam=critic_hyperparam, ddpm_temperature=ddpm_temperature,
            policy_temperature=policy_temperature, clip_sampler=clip_sampler,
            critic_objective=critic_objective, actor_objective=actor_objective,
            hard_adv_threshold=hard_adv_threshold, report_weights=True,
        )  # fmt: skip
