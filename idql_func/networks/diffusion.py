"""Actions from a diffusion model: the DDPM sampler, after ``jaxrl5/networks/diffusion.py``.

The noise predictor is in ``noise_predictor.py`` and the schedules are in ``noise_schedules.py``;
their names can be imported from here too, as upstream's. ``alphas = 1 - betas``, and
``alpha_hats[t]`` is the product of ``alphas[0]`` to ``alphas[t]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.boundary import explain_module
from idql_func.networks.noise_predictor import DDPM, FourierFeatures, is_ddpm
from idql_func.networks.noise_schedules import (
    cosine_beta_schedule,
    linear_beta_schedule,
    vp_beta_schedule,
)
from idql_func.transforms import vmap
from idql_func.types import Params, PRNGKey

__all__ = [
    "DDPM",
    "FourierFeatures",
    "candidate_sampler",
    "cosine_beta_schedule",
    "ddpm_sampler",
    "linear_beta_schedule",
    "reverse_process",
    "vp_beta_schedule",
]


def ddpm_sampler(
    actor_apply_fn: Callable[..., Tensor],
    actor_params: Params,
    T: int,
    rng: PRNGKey,
    act_dim: int,
    observations: Tensor,
    alphas: Tensor,
    alpha_hats: Tensor,
    betas: Tensor,
    sample_temperature: Any,
    repeat_last_step: int,
    clip_sampler: bool,
    training: bool = False,
) -> tuple[Tensor, PRNGKey]:
    """Actions ``[B, A]`` for observations ``[B, O]``, and the next key.

    Algorithm 2 of arXiv 2006.11239; the noise has scale ``sqrt(beta_t)`` times the
    temperature, and the predicted mean is not clipped (quirk N12). Noise is also drawn at the
    last step and not used, as upstream, so that the key is the same (N13). ``clip_sampler``
    clips every step to [-1, 1]; the result is always clipped (N14).

    >>> net_apply = lambda params, s, a, t, training: a * 0
    >>> betas = vp_beta_schedule(5)
    >>> alphas = 1 - betas
    >>> actions, key = ddpm_sampler(net_apply, {}, 5, random.PRNGKey(0), 2, torch.zeros(3, 4),
    ...     alphas, torch.cumprod(alphas, 0), betas, 1.0, 0, True)
    >>> actions.shape
    torch.Size([3, 2])
    """
    rows = observations.shape[0]

    def predict(x: Tensor, t: int) -> Tensor:
        times = torch.full((rows, 1), t, device=observations.device)
        return actor_apply_fn(actor_params, observations, x, times, training=training)

    return reverse_process(
        predict, T, rng, (rows, act_dim), alphas, alpha_hats, betas,
        sample_temperature, repeat_last_step, clip_sampler,
    )  # fmt: skip


def candidate_sampler(
    actor_apply_fn: Callable[..., Tensor],
    actor_params: Params,
    T: int,
    rng: PRNGKey,
    act_dim: int,
    observations: Tensor,
    count: int,
    alphas: Tensor,
    alpha_hats: Tensor,
    betas: Tensor,
    sample_temperature: Any,
    repeat_last_step: int,
    clip_sampler: bool,
) -> tuple[Tensor, PRNGKey]:
    """``count`` actions for each of ``[E, O]`` observations, ``[E, count, A]``, and the next key.

    The actions are those of :func:`ddpm_sampler` for each observation repeated ``count`` times.
    A :class:`DDPM` encodes each observation and each time once; any other noise predictor is
    called with ``E * count`` rows.

    >>> net_apply = lambda params, s, a, t: a * 0
    >>> betas = vp_beta_schedule(5)
    >>> alphas = 1 - betas
    >>> actions, key = candidate_sampler(net_apply, {}, 5, random.PRNGKey(0), 2, torch.zeros(3, 4),
    ...     6, alphas, torch.cumprod(alphas, 0), betas, 1.0, 0, True)
    >>> actions.shape
    torch.Size([3, 6, 2])
    """
    shape = (observations.shape[0], count, act_dim)
    if is_ddpm(actor_apply_fn):

        def predict(x: Tensor, t: int) -> Tensor:
            times = torch.full((1, 1, 1), t, device=x.device)
            return actor_apply_fn(actor_params, observations.unsqueeze(1), x, times, steps=T)

    else:
        repeated = observations.repeat_interleave(count, dim=0)

        def predict(x: Tensor, t: int) -> Tensor:
            times = torch.full((len(repeated), 1), t, device=x.device)
            return actor_apply_fn(actor_params, repeated, x.flatten(0, 1), times).reshape(shape)

    return reverse_process(
        predict, T, rng, shape, alphas, alpha_hats, betas,
        sample_temperature, repeat_last_step, clip_sampler,
    )  # fmt: skip


def reverse_process(
    predict: Callable[[Tensor, int], Tensor],
    T: int,
    rng: PRNGKey,
    shape: tuple[int, ...],
    alphas: Tensor,
    alpha_hats: Tensor,
    betas: Tensor,
    sample_temperature: Any,
    repeat_last_step: int,
    clip_sampler: bool,
) -> tuple[Tensor, PRNGKey]:
    """:func:`ddpm_sampler` for a noise predictor ``eps(x, t)`` and actions of ``shape [..., A]``.

    Shapes with the same number of entries get the same draws, in the same order.

    >>> betas = vp_beta_schedule(5)
    >>> alphas = 1 - betas
    >>> actions, key = reverse_process(lambda x, t: x * 0, 5, random.PRNGKey(0), (3, 4, 2),
    ...     alphas, torch.cumprod(alphas, 0), betas, 1.0, 0, True)
    >>> actions.shape
    torch.Size([3, 4, 2])
    """
    # all keys first, in upstream's order (N15), so that the noise of all steps is one draw
    key, rng = random.split(rng)
    keys = random.split_chain(rng, T + repeat_last_step)
    noise = vmap(lambda key: random.normal(key, shape))(torch.cat([key.unsqueeze(0), keys[:-1]]))

    x = noise[0]
    steps = [*range(T - 1, -1, -1), *[0] * repeat_last_step]
    for t, z in zip(steps, noise[1:], strict=True):
        mean_scale = (1 - alphas[t]) / torch.sqrt(1 - alpha_hats[t])
        x = 1 / torch.sqrt(alphas[t]) * (x - mean_scale * predict(x, t))
        if t > 0:
            x = x + torch.sqrt(betas[t]) * (sample_temperature * z)
        if clip_sampler:
            x = torch.clamp(x, -1, 1)
    return torch.clamp(x, -1, 1), keys[-1]


explain_module(__name__)
