"""The original's sampling weights (quirks E1 and E2).

For the quantile objective the original divides by the signed advantage, so that "probabilities" are
negative; for the exponential one all weights are equal up to rounding. The port uses corrected
weights. These functions show that everything else, from the sampler to the key, is the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from idql_func import random
from idql_func.agents.ddpm_iql import sample_candidates
from idql_func.losses import asymmetry


def literal_weights(objective: str, adv: Tensor, critic_hyperparam: float) -> Tensor:
    """Weights ``[N]`` of the original's ``sample_implicit_policy`` from advantages ``[N]``.

    Raises:
        ValueError: the objective is neither ``quantile`` nor ``exponential``.

    >>> literal_weights("exponential", torch.tensor([2.0, -1.0]), 0.5).tolist()
    [0.25, 0.25]
    """
    if objective == "quantile":
        tau = asymmetry(adv, critic_hyperparam) / adv
        return tau / tau.sum()
    if objective == "exponential":
        return critic_hyperparam * torch.abs(adv * critic_hyperparam) / torch.abs(adv)
    raise ValueError(f"there is no literal form for the objective {objective!r}")


def literal_implicit_action(learner: Any, observation: Tensor) -> tuple[np.ndarray, Any]:
    """An action ``[A]`` for an observation ``[O]`` by the literal weights, and the next learner."""
    # the numbers of a member of a stack are tensors
    count = int(learner.N)
    actions, q, repeated, key, rng = sample_candidates(learner, observation[None], count)
    adv = q[0] - learner.value.apply_fn(learner.value.params, repeated)
    weights = literal_weights(learner.critic_objective, adv, learner.critic_hyperparam)
    # a choice by cumulative sum and binary search accepts such weights, as JAX's does (E3)
    chosen = actions[0, random.choice(key, count, p=weights)]
    return chosen.cpu().numpy(), learner.replace(rng=rng)
