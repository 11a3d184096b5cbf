"""Action choice of IDQL: sample candidates from the diffusion model, then choose by value.

Section 4 of IDQL (arXiv 2304.10573): the EMA actor draws ``N`` candidate actions. A greedy choice
takes the one with the largest ``min_i Q_i(s, a)``; the implicit policy draws one with weight
``|f'(adv)| / |adv|``.
"""

from __future__ import annotations

import functools
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from idql_func import losses, random
from idql_func.agents.agent import Agent
from idql_func.agents.checks import check_integer
from idql_func.agents.critics import min_q
from idql_func.networks import candidate_sampler
from idql_func.transforms import jit
from idql_func.types import PRNGKey


def sample_candidates(learner: Any, observations: Tensor, count: int) -> tuple[Any, ...]:
    """``count`` actions of the EMA actor for each observation, their values and keys.

    Returns, for observations ``[E, O]``: candidates ``[E, count, A]``, their min-Q
    ``[E, count]``, the observations repeated ``[E * count, O]``, a key for a choice among the
    candidates, and the learner's next key.
    """
    apply_fn, params = learner.score_model.apply_fn, learner.target_score_model.params
    actions, rng = candidate_sampler(
        apply_fn, params, learner.T, learner.rng, learner.act_dim, observations, count,
        learner.alphas, learner.alpha_hats, learner.betas,
        learner.ddpm_temperature, learner.M, learner.clip_sampler,
    )  # fmt: skip
    rng, key = random.split(rng)
    repeated = observations.repeat_interleave(count, dim=0)
    critic = learner.target_critic
    qs = min_q(critic.apply_fn, critic.params, repeated, actions.flatten(0, 1))
    return actions, qs.reshape(-1, count), repeated, key, rng


@functools.partial(jit, static_argnames="count")
def _greedy_actions(learner: Any, observations: Tensor, *, count: int) -> tuple[Tensor, PRNGKey]:
    """The candidate with the largest min-Q; the first one of equals (quirk E4)."""
    actions, qs, _, _, rng = sample_candidates(learner, observations, count)
    best = torch.argmax(qs, dim=1)
    return actions[torch.arange(actions.shape[0], device=best.device), best], rng


@functools.partial(jit, static_argnames="count")
def _implicit_actions(learner: Any, observations: Tensor, *, count: int) -> tuple[Tensor, PRNGKey]:
    """A candidate drawn with the implicit policy's weights."""
    actions, qs, repeated, key, rng = sample_candidates(learner, observations, count)
    v = learner.value.apply_fn(learner.value.params, repeated)
    weights = losses.implicit_policy_weights(
        qs - v.reshape(qs.shape), learner.critic_objective, learner.critic_hyperparam
    )
    rows = actions.shape[0]
    # a single observation uses upstream's key; each of several observations has its own key
    keys = key.unsqueeze(0) if rows == 1 else random.split(key, rows)
    index = torch.stack(
        [random.choice(keys[i], count, p=w / w.sum()) for i, w in enumerate(weights.unbind(0))]
    )
    return actions[torch.arange(rows, device=index.device), index], rng


class CandidateAgent(Agent):
    """Action choice of both IDQL learners; ``BaseDDPMIQL`` declares the fields it reads."""

    def eval_actions(self, observations: np.ndarray | Tensor) -> tuple[np.ndarray, Self]:
        """The best of ``N`` candidates by min-Q for ``[O]`` or ``[E, O]``: ``[A]`` or ``[E, A]``.

        A batch of one observation gives the same action as the observation alone.

        Raises:
            InputError: an observation has another size, or N is below 1.
        """
        return self._act(observations, lambda agent, obs: agent.greedy_actions(obs))

    def greedy_actions(self, observations: Tensor) -> tuple[Tensor, PRNGKey]:
        """:meth:`eval_actions` as a function of tensors, ``[E, O]`` to ``[E, A]``, and the key.

        It does not check the observations and can be called inside ``vmap``.
        """
        return _greedy_actions(self.to_act(), observations, count=self._num_candidates())

    def sample_implicit_policy(self, observations: np.ndarray | Tensor) -> tuple[np.ndarray, Self]:
        """One of ``N`` candidates drawn with weight ``|f'(adv)| / |adv|`` (IDQL, eq. 7).

        Raises:
            InputError: an observation has another size, or N is below 1.
        """
        count = self._num_candidates()
        return self._act(
            observations, lambda agent, obs: _implicit_actions(agent.to_act(), obs, count=count)
        )

    def sample_actions(self, observations: np.ndarray | Tensor) -> tuple[np.ndarray, Self]:
        """:meth:`sample_implicit_policy`; upstream's inherited method crashes (quirk E6).

        Raises:
            InputError: an observation has another size, or N is below 1.
        """
        return self.sample_implicit_policy(observations)

    def to_act(self) -> Self:
        """The learner without the tensors that no action depends on."""
        learner: Any = self
        return learner.replace(
            score_model=learner.score_model.replace(params={}, opt_state=(), tx=None),
            critic=learner.critic.replace(params={}, opt_state=(), tx=None),
            value=learner.value.replace(opt_state=(), tx=None),
        )

    def _num_candidates(self) -> int:
        learner: Any = self
        # a learner taken from a stack of several has tensors in place of numbers
        count: Any = learner.N.item() if isinstance(learner.N, Tensor) else learner.N
        check_integer(f"{type(self).__name__}: N, the number of candidate actions,", count, 1)
        return int(count)
