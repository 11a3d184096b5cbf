"""Noise schedules of diffusion models: ``betas [T]``, after ``jaxrl5/networks/diffusion.py``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from idql_func.boundary import explain_module
from idql_func.switches import float_dtype


def cosine_beta_schedule(timesteps: int, s: float = 0.008) -> Tensor:
    """Betas ``[T]`` of the cosine schedule (arXiv 2102.09672, eq. 17), at most 0.999 (N8).

    >>> [round(b, 4) for b in cosine_beta_schedule(2).tolist()]
    [0.5062, 0.999]
    """
    _check_steps("cosine_beta_schedule", timesteps)
    t = _linspace(0, timesteps, timesteps + 1) / timesteps
    alpha_hat = torch.cos((t + s) / (1 + s) * math.pi * 0.5) ** 2
    alpha_hat = alpha_hat / alpha_hat[0]
    return torch.clamp(1 - alpha_hat[1:] / alpha_hat[:-1], 0, 0.999)


def linear_beta_schedule(
    timesteps: int, beta_start: float = 1e-4, beta_end: float = 2e-2
) -> Tensor:
    """Betas ``[T]`` equally spaced (arXiv 2006.11239), not rescaled to ``T`` (quirk N10).

    >>> [round(b, 5) for b in linear_beta_schedule(3).tolist()]
    [0.0001, 0.01005, 0.02]
    """
    _check_steps("linear_beta_schedule", timesteps)
    return _linspace(beta_start, beta_end, timesteps)


def vp_beta_schedule(timesteps: int) -> Tensor:
    """Betas ``[T]`` of the variance-preserving process with rates 0.1 to 10 (quirk N9).

    >>> [round(b, 4) for b in vp_beta_schedule(2).tolist()]
    [0.724, 0.9768]
    """
    _check_steps("vp_beta_schedule", timesteps)
    t = torch.arange(1, timesteps + 1).to(float_dtype())
    b_max, b_min = 10.0, 0.1
    alpha = torch.exp(-b_min / timesteps - 0.5 * (b_max - b_min) * (2 * t - 1) / timesteps**2)
    return 1 - alpha


def _check_steps(name: str, timesteps: int) -> None:
    if timesteps < 1:
        raise ValueError(
            f"{name}: the number of diffusion steps must be at least 1, got {timesteps}."
        )


def _linspace(start: float, stop: float, num: int) -> Tensor:
    """``jnp.linspace``: a weighted mean of the ends, the last entry exact."""
    if num == 1:
        return torch.full((1,), start, dtype=float_dtype())
    step = torch.arange(num - 1).to(float_dtype()) / (num - 1)
    inner = start * (1 - step) + stop * step
    return torch.cat([inner, torch.full((1,), stop, dtype=float_dtype())])


explain_module(__name__)
