"""The original's sampling weights, taken literally (quirks E1 and E2).

For the quantile objective the original divides by the signed advantage, so that "probabilities" are
negative; for the exponential one the weights are all alike but for rounding. The port samples by
mended weights instead. What is kept here serves one end: to show that everything around the
weights, from the sampler to the key, is the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from idql_func import random
from idql_func.networks import ddpm_sampler


def _first_not_below(cumulative: Tensor, draw: Tensor) -> int:
    """Left binary search as JAX runs it, which defines a result for unsorted sums too."""
    low, high = 0, cumulative.shape[0]
    for _ in range(int(np.ceil(np.log2(cumulative.shape[0] + 1)))):
        middle = (low + high) // 2
        if bool(draw <= cumulative[middle]):
            high = middle
        else:
            low = middle
    return high


def _choice(key: Tensor, weights: Tensor) -> int:
    """``jax.random.choice`` without the checks that weights as these would fail."""
    cumulative = torch.cumsum(weights, 0)
    draw = cumulative[-1] * (1 - random.uniform(key, (), dtype=weights.dtype))
    return _first_not_below(cumulative, draw)


def literal_weights(objective: str, adv: Tensor, critic_hyperparam: float) -> Tensor:
    """Weights ``[N]`` of the original's ``sample_implicit_policy`` from advantages ``[N]``.

    Raises:
        ValueError: an objective without a literal form of its own.

    >>> literal_weights("exponential", torch.tensor([2.0, -1.0]), 0.5).tolist()
    [0.25, 0.25]
    """
    if objective == "quantile":
        tau = torch.where(adv > 0, critic_hyperparam, 1 - critic_hyperparam).to(adv.dtype) / adv
        return tau / tau.sum()
    if objective == "exponential":
        return critic_hyperparam * torch.abs(adv * critic_hyperparam) / torch.abs(adv)
    raise ValueError(f"there is no literal form for the objective {objective!r}")


def literal_implicit_action(learner: Any, observation: Tensor) -> tuple[np.ndarray, Any]:
    """An action ``[A]`` for an observation ``[O]`` by the literal weights, and the next learner."""
    repeated = observation.expand(learner.N, -1)
    actions, rng = ddpm_sampler(
        learner.score_model.apply_fn,
        learner.target_score_model.params,
        learner.T,
        learner.rng,
        learner.act_dim,
        repeated,
        learner.alphas,
        learner.alpha_hats,
        learner.betas,
        learner.ddpm_temperature,
        learner.M,
        learner.clip_sampler,
    )
    rng, key = random.split(rng)
    critic, value = learner.target_critic, learner.value
    q = critic.apply_fn(critic.params, repeated, actions).amin(dim=0)
    adv = q - value.apply_fn(value.params, repeated)
    weights = literal_weights(learner.critic_objective, adv, learner.critic_hyperparam)
    return actions[_choice(key, weights)].numpy(), learner.replace(rng=rng)
