"""The asymmetric losses of implicit Q-learning, and the policy weights they imply.

Elementwise and pure; ``u`` is ``diff``, ``q - v``. After ``ddpm_iql_learner.py`` and IDQL
(arXiv 2304.10573), sections 4 and 5: a loss ``f`` implies a policy with weight ``|f'(u)| / |u|``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from idql_func.boundary import explain_module
from idql_func.prediction_losses import *  # noqa: F403 - those of optax
from idql_func.types import Number

CRITIC_OBJECTIVES = ("expectile", "quantile", "exponential")
ACTOR_OBJECTIVES = ("bc", "soft_adv", "hard_adv", "exp_adv")
CLIP_MODES = ("zero", "first", "second")


def asymmetry(diff: Tensor, level: Number) -> Tensor:
    """``level`` where ``u > 0`` and ``1 - level`` elsewhere, at zero too (quirk U6).

    >>> asymmetry(torch.tensor([-1.0, 0.0, 1.0]), 0.75).tolist()
    [0.25, 0.25, 0.75]
    """
    level = torch.as_tensor(level, dtype=diff.dtype, device=diff.device)
    return torch.where(diff > 0, level, 1 - level)


def expectile_loss(diff: Tensor, expectile: Number = 0.8) -> Tensor:
    """``|expectile - 1(u <= 0)| u^2`` (IQL, arXiv 2110.06169, eq. 5), elementwise.

    >>> expectile_loss(torch.tensor([-2.0, 2.0]), 0.75).tolist()
    [1.0, 3.0]
    """
    return asymmetry(diff, expectile) * diff**2


def quantile_loss(diff: Tensor, quantile: Number = 0.6) -> Tensor:
    """``|quantile - 1(u <= 0)| |u|`` (IDQL, section 4), elementwise.

    At zero the derivative of ``|u|`` is 1, as JAX has it; torch's is 0.

    >>> quantile_loss(torch.tensor([-2.0, 2.0]), 0.75).tolist()
    [0.5, 1.5]
    """
    return asymmetry(diff, quantile) * torch.where(diff >= 0, diff, -diff)


def exp_w_clip(x: Tensor, x0: float, mode: str = "zero") -> Tensor:
    """``exp(x)`` below ``x0``, and its Taylor polynomial of order 0, 1 or 2 above.

    Raises:
        ValueError: mode is not "zero", "first" or "second".

    >>> [round(exp_w_clip(torch.tensor(2.0), 1.0, mode).item(), 3) for mode in CLIP_MODES]
    [2.718, 5.437, 6.796]
    """
    if mode not in CLIP_MODES:
        raise ValueError(f"exp_w_clip: mode must be one of {CLIP_MODES}, got {mode!r}.")
    top = torch.exp(torch.as_tensor(x0, dtype=x.dtype, device=x.device))
    beyond = top if mode == "zero" else top + top * (x - x0)
    if mode == "second":
        beyond = beyond + (top / 2) * (x - x0) ** 2
    return torch.where(x < x0, torch.exp(x), beyond)


def exponential_loss(
    diff: Tensor, beta: Number, clip: float = math.log(6), mode: str = "zero"
) -> Tensor:
    """``(stop_gradient(exp(beta u)) - 1) u``, clipped: a surrogate, elementwise.

    Its gradient has the direction of that of ``exp(beta u) - beta u``, without the outer
    factor beta; its value is not that objective (quirk U7).

    >>> exponential_loss(torch.tensor([0.0, 1.0]), 1.0).numpy().round(3).tolist()
    [0.0, 1.718000054359436]
    """
    return (exp_w_clip(diff * beta, clip, mode).detach() - 1) * diff


def critic_objective_loss(diff: Tensor, objective: str, hyperparam: Number) -> Tensor:
    """The loss of ``V`` by name, elementwise: expectile, quantile or exponential.

    Raises:
        ValueError: an unknown objective.

    >>> critic_objective_loss(torch.tensor([2.0]), "expectile", 0.75).tolist()
    [3.0]
    """
    functions = (expectile_loss, quantile_loss, exponential_loss)
    losses = dict(zip(CRITIC_OBJECTIVES, functions, strict=True))
    if objective not in losses:
        raise ValueError(
            f"Invalid critic objective {objective!r}: it must be one of {CRITIC_OBJECTIVES}."
        )
    return losses[objective](diff, hyperparam)


def advantage_weights(
    adv: Tensor,
    objective: str,
    critic_hyperparam: Number,
    policy_temperature: Number,
    hard_adv_threshold: float = -0.01,
) -> Tensor:
    """The weight of each transition in the actor's loss, ``[B] -> [B]``.

    ``bc``: 1. ``soft_adv``: the critic's asymmetry. ``hard_adv``: 1 from the threshold on
    (quirk U9), else 0. ``exp_adv``: ``exp(policy_temperature * adv)``, an inverse
    temperature, at most 100 (quirk U10).

    Raises:
        ValueError: an unknown objective.

    >>> advantage_weights(torch.tensor([-1.0, 1.0]), "hard_adv", 0.7, 3.0).tolist()
    [0.0, 1.0]
    """
    if objective == "bc":
        return torch.ones_like(adv)
    if objective == "soft_adv":
        return asymmetry(adv, critic_hyperparam)
    if objective == "hard_adv":
        return (adv >= hard_adv_threshold).to(adv.dtype)
    if objective == "exp_adv":
        return torch.clamp(torch.exp(adv * policy_temperature), max=100.0)
    raise ValueError(
        f"Invalid actor objective {objective!r}: it must be one of {ACTOR_OBJECTIVES}."
    )


def implicit_policy_weights(adv: Tensor, objective: str, critic_hyperparam: Number) -> Tensor:
    """``|f'(u)| / |u|`` up to a factor: the implicit policy's weight of each candidate.

    Upstream divides by the signed advantage for the quantile loss (quirk E1) and cancels
    the exponential weight to a constant (E2). Here both are those of IDQL's table 1, with
    the advantage kept 1e-6 away from zero.

    Raises:
        ValueError: an unknown objective.

    >>> implicit_policy_weights(torch.tensor([-2.0, 2.0]), "quantile", 0.75).tolist()
    [0.125, 0.375]
    """
    size = torch.clamp(adv.abs(), min=1e-6)
    if objective == "expectile":
        return asymmetry(adv, critic_hyperparam)
    if objective == "quantile":
        return asymmetry(adv, critic_hyperparam) / size
    if objective == "exponential":
        exponent = torch.where(adv < 0, -size, size) * critic_hyperparam
        return torch.expm1(torch.clamp(exponent, max=math.log(6))).abs() / size
    raise ValueError(
        f"Invalid critic objective {objective!r}: it must be one of {CRITIC_OBJECTIVES}."
    )


explain_module(__name__)
