"""IDQL: implicit Q-learning with a diffusion policy (arXiv 2304.10573), one update of it.

This file is the update of both learners. ``ddpm_iql_learners.py`` creates them, ``candidates.py``
chooses actions, and ``critics.py`` has the losses and steps shared with other learners.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from idql_func import losses, random
from idql_func.agents.agent import TRANSITION_FIELDS
from idql_func.agents.candidates import CandidateAgent, sample_candidates
from idql_func.agents.critics import (
    ApplyFn,
    batch_min_q,
    bellman_target,
    critic_loss,
    dropout_options,
    min_q,
    soft_update,
    step_critic,
    step_value,
    value_loss,
)
from idql_func.deprecation import moved_names
from idql_func.networks.noise_predictor import with_integer_times
from idql_func.struct import TrainState, field
from idql_func.transforms import grad, jit
from idql_func.types import Batch, InfoDict, Params, PRNGKey

__all__ = [
    "BaseDDPMIQL",
    "critic_loss",
    "diffuse",
    "min_q",
    "sample_candidates",
    "score_loss",
    "value_loss",
]


# --- the actor's loss -------------------------------------------------------------------


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
    """``mean w |eps(a_t, s, t) - noise|^2`` (DDPM, arXiv 2006.11239, eq. 14).

    Summed over action dimensions, then averaged over the batch (quirk U5). Shapes:
    ``[B, O], [B, A], [B, 1], [B, A]``, weights ``[B]``. With a key, dropout is on.

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
    """``sqrt(alpha_hat_t) a + sqrt(1 - alpha_hat_t) noise``, ``[B, A]``, at times ``[B]``.

    >>> diffuse(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([0]), torch.tensor([1.0]))
    tensor([[1.]])
    """
    alpha_hat = alpha_hats[time].unsqueeze(1)
    return torch.sqrt(alpha_hat) * actions + torch.sqrt(1 - alpha_hat) * noise


# --- one update -------------------------------------------------------------------------


class BaseDDPMIQL(CandidateAgent):
    """State and steps of both IDQL learners; the fields have upstream's names."""

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

    # step 1: the actor

    def update_actor(self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of the noise predictor on :func:`score_loss`, and of its EMA.

        The objectives other than ``bc`` weight the loss by the advantage. ``bc`` does not compute
        it (quirk U11). The advantage uses ``V`` before its step (U1).
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
            with_integer_times(self.score_model.apply_fn, self.T),
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

    def _advantage_weights(self, batch: Batch) -> Tensor:
        v = self.value.apply_fn(self.value.params, batch["observations"])
        adv = batch_min_q(self.target_critic, batch) - v
        settings = self.critic_hyperparam, self.policy_temperature, self.hard_adv_threshold
        return losses.advantage_weights(adv, self.actor_objective, *settings)

    # step 2: the value

    def update_v(self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of ``V`` towards a statistic of the target ``Q`` (IDQL, eq. 3 to 6)."""
        q = batch_min_q(self.target_critic, batch)
        value, info = step_value(
            self.value, batch["observations"], q, self.critic_objective, self.critic_hyperparam
        )
        return self.replace(value=value), info

    # step 3: the critic

    def update_q(self, batch: Batch) -> tuple[Self, InfoDict]:
        """One step of ``Q`` towards ``r + discount * mask * V(s')``, and of its EMA.

        It uses ``V`` after its step (quirk U3).
        """
        target_q = bellman_target(self.value, batch, self.discount)
        critic, target, info = step_critic(
            self.critic, self.target_critic, batch, target_q, None, self.tau
        )
        return self.replace(critic=critic, target_critic=target), info

    # public methods: check the batch, run the compiled steps

    def update(self, batch: Batch, *, donate: bool = False) -> tuple[Self, InfoDict]:
        """Actor, then ``V``, then ``Q`` (quirk U1) on one batch; a new learner and its losses.

        ``batch`` holds tensors ``observations [B, O], actions [B, A], rewards [B],
        masks [B], next_observations [B, O]`` of the parameters' dtype.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        return _update.donating(donate)(self, self._checked_batch(batch, TRANSITION_FIELDS))


@jit
def _update(learner: BaseDDPMIQL, batch: Batch) -> tuple[BaseDDPMIQL, InfoDict]:
    learner, actor_info = learner.update_actor(batch)
    learner, value_info = learner.update_v(batch)
    learner, critic_info = learner.update_q(batch)
    return learner, {**actor_info, **value_info, **critic_info}


__getattr__ = moved_names(__name__)
