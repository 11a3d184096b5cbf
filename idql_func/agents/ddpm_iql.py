"""IDQL: implicit Q-learning with a diffusion policy (arXiv 2304.10573).

Two learners, one implementation. :class:`DDPMIQLLearner` is the one that upstream
exports (``agents/ddpm_iql_simple``), :class:`GeneralDDPMIQLLearner` the full one
(``agents/ddpm_iql``); they differ in ``create`` alone (quirk N16), which
``ddpm_iql_build.py`` carries out.

The steps are pure functions of the parameters they learn, and of use without a learner:
:func:`score_loss`, :func:`diffuse` and :func:`sample_candidates`, and those shared with other
learners, ``value_loss``, ``critic_loss`` and ``min_q`` of ``critics.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from idql_func import losses, optim, random
from idql_func.agents.agent import TRANSITION_FIELDS, Agent
from idql_func.agents.critics import (
    ApplyFn,
    critic_loss,
    dropout_options,
    min_q,
    soft_update,
    step_critic,
    value_loss,
)
from idql_func.agents.ddpm_iql_build import ActorSettings, build
from idql_func.networks import DDPM, mish, swish
from idql_func.networks.diffusion import reverse_process
from idql_func.struct import TrainState, field
from idql_func.transforms import grad, jit
from idql_func.types import Batch, InfoDict, InputError, Params, PRNGKey

Self = TypeVar("Self", bound="_DDPMIQL")

_ACTOR_FIELDS = ("observations", "actions")


# --- pure steps -------------------------------------------------------------------------


def score_loss(
    params: Params,
    apply_fn: ApplyFn,
    observations: Tensor,
    noisy_actions: Tensor,
    time: Tensor,
    noise: Tensor,
    weights: Tensor | None = None,
    dropout_key: PRNGKey | None = None,
) -> tuple[Tensor, InfoDict]:
    """Weighted squared error of the predicted noise (DDPM, arXiv 2006.11239, eq. 14).

    Summed over action dimensions, then averaged over the batch (quirk U5). Shapes:
    ``[B, O], [B, A], [B, 1], [B, A]``, weights ``[B]``. Dropout is on when it has a key.

    >>> score_loss({}, lambda p, s, a, t, **_: a, torch.zeros(1, 1), torch.ones(1, 2),
    ...     torch.zeros(1, 1), torch.zeros(1, 2))[0]
    tensor(2.)
    """
    eps_pred = apply_fn(params, observations, noisy_actions, time, **dropout_options(dropout_key))
    errors = ((eps_pred - noise) ** 2).sum(dim=-1)
    if weights is None:
        loss = errors.mean()
        return loss, {"actor_loss": loss}
    loss = (errors * weights).mean()
    return loss, {"actor_loss": loss, "weights": weights.mean()}


def diffuse(actions: Tensor, noise: Tensor, time: Tensor, alpha_hats: Tensor) -> Tensor:
    """``sqrt(alpha_hat_t) a + sqrt(1 - alpha_hat_t) eps``, ``[B, A]`` with times ``[B]``.

    >>> diffuse(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([0]), torch.tensor([1.0]))
    tensor([[1.]])
    """
    alpha_hat = alpha_hats[time].unsqueeze(1)
    return torch.sqrt(alpha_hat) * actions + torch.sqrt(1 - alpha_hat) * noise


def sample_candidates(learner: _DDPMIQL, observations: Tensor, count: int) -> tuple[Any, ...]:
    """``count`` actions of the EMA actor for each observation, their values and keys.

    ``[E, O]`` gives candidates ``[E, count, A]``, min-Q ``[E, count]``, the observations
    repeated ``[E * count, O]``, a key for a choice among them, and the learner's next key.
    """
    repeated = observations.repeat_interleave(count, dim=0)
    shape = (observations.shape[0], count, learner.act_dim)
    apply_fn, params = learner.score_model.apply_fn, learner.target_score_model.params
    own, options = _is_ddpm(apply_fn), _step_options(apply_fn, learner.T, repeated.shape[0])

    def predict(x: Tensor, t: int) -> Tensor:
        times = torch.full((1, 1, 1) if own else (len(repeated), 1), t, device=x.device)
        if own:  # the candidates of an observation share it, and all share the time
            return apply_fn(params, observations.unsqueeze(1), x, times, **options)
        return apply_fn(params, repeated, x.flatten(0, 1), times).reshape(shape)

    actions, rng = reverse_process(
        predict, learner.T, learner.rng, shape, learner.alphas, learner.alpha_hats,
        learner.betas, learner.ddpm_temperature, learner.M, learner.clip_sampler,
    )  # fmt: skip
    rng, key = random.split(rng)
    critic = learner.target_critic
    qs = min_q(critic.apply_fn, critic.params, repeated, actions.flatten(0, 1))
    return actions, qs.reshape(-1, count), repeated, key, rng


def _is_ddpm(apply_fn: ApplyFn) -> bool:
    """Whether it is this library's noise predictor, and no network of the user's own."""
    return isinstance(getattr(apply_fn, "__self__", None), DDPM)


# Above it the choice among the rows of the table costs as much as the table saves.
_LONGEST_TABLE = 64


def _step_options(apply_fn: ApplyFn, T: int, rows: int) -> dict[str, int]:
    """What tells :class:`DDPM` to encode each of ``T`` times once, where that saves."""
    saves = rows // 4 >= T and T <= _LONGEST_TABLE
    return {"steps": T} if saves and _is_ddpm(apply_fn) else {}


# --- compiled action choice ---------------------------------------------------------------


@functools.partial(jit, static_argnames="count")
def _greedy_actions(
    learner: _DDPMIQL, observations: Tensor, *, count: int
) -> tuple[Tensor, PRNGKey]:
    """The candidate of the largest min-Q, the first on a tie (quirk E4)."""
    actions, qs, _, _, rng = sample_candidates(learner, observations, count)
    best = torch.argmax(qs, dim=1)
    return actions[torch.arange(actions.shape[0], device=best.device), best], rng


@functools.partial(jit, static_argnames="count")
def _implicit_actions(
    learner: _DDPMIQL, observations: Tensor, *, count: int
) -> tuple[Tensor, PRNGKey]:
    """A candidate drawn with the implicit policy's weights."""
    actions, qs, repeated, key, rng = sample_candidates(learner, observations, count)
    v = learner.value.apply_fn(learner.value.params, repeated)
    weights = losses.implicit_policy_weights(
        qs - v.reshape(qs.shape), learner.critic_objective, learner.critic_hyperparam
    )
    rows = actions.shape[0]
    # one observation draws as upstream; each of several has a key of its own
    keys = key.unsqueeze(0) if rows == 1 else random.split(key, rows)
    index = torch.stack(
        [random.choice(keys[i], count, p=w / w.sum()) for i, w in enumerate(weights.unbind(0))]
    )
    return actions[torch.arange(rows, device=index.device), index], rng


# --- the learners -------------------------------------------------------------------------


class _DDPMIQL(Agent):
    """State and steps of both learners; fields bear upstream's names."""

    score_model: TrainState
    target_score_model: TrainState
    critic: TrainState
    target_critic: TrainState
    value: TrainState
    discount: float
    tau: float
    actor_tau: float
    critic_hyperparam: float
    N: int
    ddpm_temperature: float
    policy_temperature: float
    betas: Tensor
    alphas: Tensor
    alpha_hats: Tensor
    critic_objective: str = field(pytree_node=False)
    actor_objective: str = field(pytree_node=False)
    hard_adv_threshold: float = field(pytree_node=False)
    report_weights: bool = field(pytree_node=False)
    T: int = field(pytree_node=False)
    M: int = field(pytree_node=False)
    clip_sampler: bool = field(pytree_node=False)

    # each step: loss and gradient of one network, its optimiser, its moving average

    def update_actor(self: Self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of the diffusion model on ``eps`` prediction, and of its EMA.

        Advantages weigh the loss in objectives other than ``bc``, which skips their
        computation (quirk U11). They use the value network as it is before its step (U1).
        """
        rows = batch["actions"].shape[0]
        # keys in upstream's order (quirk N15)
        keys = random.split_chain(self.rng, 3, carry=1)
        time_key, noise_key, dropout_key, rng = keys.unbind(0)
        time = random.randint(time_key, (rows,), 0, self.T)
        noise = random.normal(noise_key, (rows, self.act_dim))

        weights = None
        if self.actor_objective != "bc":
            weights = self._advantage_weights(batch)
        elif self.report_weights:
            weights = torch.ones_like(noise[:, 0])

        grads, info = grad(score_loss, has_aux=True)(
            self.score_model.params,
            functools.partial(
                self.score_model.apply_fn,
                **_step_options(self.score_model.apply_fn, self.T, rows),
            ),
            batch["observations"],
            diffuse(batch["actions"], noise, time, self.alpha_hats),
            time.unsqueeze(1),
            noise,
            weights,
            dropout_key,
        )
        score_model = self.score_model.apply_gradients(grads=grads)
        target = soft_update(self.target_score_model, score_model, self.actor_tau)
        return self.replace(score_model=score_model, target_score_model=target, rng=rng), info

    def update_v(self: Self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of ``V`` towards the objective's statistic of the target ``Q``."""
        q = self._target_q(batch)
        grads, info = grad(value_loss, has_aux=True)(
            self.value.params,
            self.value.apply_fn,
            batch["observations"],
            q,
            self.critic_objective,
            self.critic_hyperparam,
        )
        return self.replace(value=self.value.apply_gradients(grads=grads)), info

    def update_q(self: Self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of ``Q`` towards ``r + discount * mask * V(s')``, and of its EMA.

        ``V`` is the one that was just stepped (quirk U3).
        """
        critic, target, info = step_critic(
            self.critic, self.target_critic, batch, self._bellman_target(batch), None, self.tau
        )
        return self.replace(critic=critic, target_critic=target), info

    def _target_q(self, batch: Batch) -> Tensor:
        critic = self.target_critic
        return min_q(critic.apply_fn, critic.params, batch["observations"], batch["actions"])

    def _bellman_target(self, batch: Batch) -> Tensor:
        next_v = self.value.apply_fn(self.value.params, batch["next_observations"])
        return batch["rewards"] + self.discount * batch["masks"] * next_v

    def _advantage_weights(self, batch: Batch) -> Tensor:
        v = self.value.apply_fn(self.value.params, batch["observations"])
        return losses.advantage_weights(
            self._target_q(batch) - v,
            self.actor_objective,
            self.critic_hyperparam,
            self.policy_temperature,
            self.hard_adv_threshold,
        )

    # public, compiled

    def update(self: Self, batch: Batch, *, donate: bool = False) -> tuple[Self, InfoDict]:
        """Actor, then ``V``, then ``Q`` (quirk U1) on one batch; a new learner and its losses.

        ``batch`` holds tensors ``observations [B, O], actions [B, A], rewards [B],
        masks [B], next_observations [B, O]`` of the parameters' dtype.

        Raises:
            InputError: a missing entry, a wrong shape or dtype.
        """
        return _update.donating(donate)(self, self._fields(batch, TRANSITION_FIELDS))

    def actor_update(self: Self, batch: Batch) -> tuple[Self, InfoDict]:
        """The actor's part of :meth:`update` alone.

        Raises:
            InputError: a missing entry, a wrong shape or dtype.
        """
        return _actor_update(self, self._fields(batch, _ACTOR_FIELDS))

    def critic_update(self: Self, batch: Batch) -> tuple[Self, InfoDict]:
        """The part of ``V`` and ``Q`` of :meth:`update` alone.

        Raises:
            InputError: a missing entry, a wrong shape or dtype.
        """
        return _critic_update(self, self._fields(batch, TRANSITION_FIELDS))

    def eval_loss(self: Self, batch: Batch) -> tuple[Self, InfoDict]:
        """The losses on a batch, without dropout, weights or update (quirks U19, E11).

        ``actor_loss`` and the next key are upstream's; ``value_loss, v, critic_loss, q``
        are those of the networks as they are.

        Raises:
            InputError: a missing entry, a wrong shape or dtype.
        """
        return _eval_loss(self, self._fields(batch, TRANSITION_FIELDS))

    def eval_actions(self: Self, observations: np.ndarray | Tensor) -> tuple[np.ndarray, Self]:
        """The best of ``N`` candidates by min-Q for ``[O]`` or ``[E, O]``: ``[A]`` or ``[E, A]``.

        A batch of one observation chooses what the observation alone does.

        Raises:
            InputError: an observation of another size, or N below 1.
        """
        return self._act(observations, lambda agent, obs: agent.greedy_actions(obs))

    def greedy_actions(self, observations: Tensor) -> tuple[Tensor, PRNGKey]:
        """:meth:`eval_actions` as a function of tensors, ``[E, O]`` to ``[E, A]``, and the key.

        It checks no observation and may stand inside ``vmap``.
        """
        return _greedy_actions(self.to_act(), observations, count=self._count())

    def sample_implicit_policy(
        self: Self, observations: np.ndarray | Tensor
    ) -> tuple[np.ndarray, Self]:
        """One of ``N`` candidates drawn with weight ``|f'(adv)| / |adv|`` (IDQL, eq. 7).

        Raises:
            InputError: an observation of another size, or N below 1.
        """
        count = self._count()
        return self._act(
            observations, lambda agent, obs: _implicit_actions(agent.to_act(), obs, count=count)
        )

    def sample_actions(self: Self, observations: np.ndarray | Tensor) -> tuple[np.ndarray, Self]:
        """Draws from the implicit policy; upstream's inherited method crashes (quirk E6).

        Raises:
            InputError: an observation of another size, or N below 1.
        """
        return self.sample_implicit_policy(observations)

    def to_act(self: Self) -> Self:
        """The learner without all that no action depends on: less to pass at every step."""
        return self.replace(
            score_model=self.score_model.replace(params={}, opt_state=(), tx=None),
            critic=self.critic.replace(params={}, opt_state=(), tx=None),
            value=self.value.replace(opt_state=(), tx=None),
        )

    def _count(self) -> int:
        # a learner out of a stack of several carries its numbers as tensors
        count: Any = self.N.item() if isinstance(self.N, Tensor) else self.N
        if not isinstance(count, Integral) or count < 1:
            raise InputError(
                f"{type(self).__name__}: N, the number of candidate actions, must be an integer "
                f"of at least 1, got {count!r}."
            )
        return int(count)


@jit
def _update(learner: _DDPMIQL, batch: Batch) -> tuple[_DDPMIQL, InfoDict]:
    learner, actor_info = learner.update_actor(batch)
    learner, value_info = learner.update_v(batch)
    learner, critic_info = learner.update_q(batch)
    return learner, {**actor_info, **value_info, **critic_info}


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
    rows = batch["actions"].shape[0]
    key, rng = random.split(learner.rng)
    time = random.randint(key, (rows,), 0, learner.T)
    key, rng = random.split(rng)
    noise = random.normal(key, (rows, learner.act_dim))
    _, rng = random.split(rng)
    _, actor_info = score_loss(
        learner.score_model.params,
        learner.score_model.apply_fn,
        batch["observations"],
        diffuse(batch["actions"], noise, time, learner.alpha_hats),
        time.unsqueeze(1),
        noise,
    )
    _, value_info = value_loss(
        learner.value.params,
        learner.value.apply_fn,
        batch["observations"],
        learner._target_q(batch),
        learner.critic_objective,
        learner.critic_hyperparam,
    )
    _, critic_info = critic_loss(
        learner.critic.params,
        learner.critic.apply_fn,
        batch["observations"],
        batch["actions"],
        learner._bellman_target(batch),
    )
    return learner.replace(rng=rng), {**actor_info, **value_info, **critic_info}


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

        ``policy_temperature`` is carried and never read, as upstream (quirk U10).

        Raises:
            InputError: a setting out of its range, named with the range.
            TypeError: an unknown keyword.
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

        Departures: ``actor_weight_decay``, which upstream ignores, decays the leaves that
        :func:`get_weight_decay_mask` names; None keeps upstream's 1e-4 on all (quirks U12,
        U13). ``actor_hidden_dims``, which upstream ignores for ``ln_resnet``, is refused
        there (U14). ``hard_adv_threshold`` names a constant of upstream (U9).

        Raises:
            InputError: a setting out of its range, named with the range.
            TypeError: an unknown keyword.
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
