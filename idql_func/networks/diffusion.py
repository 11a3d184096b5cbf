"""Diffusion policies (arXiv 2006.11239): schedules, time features, network, sampler.

After ``jaxrl5/networks/diffusion.py``. ``alphas = 1 - betas`` and ``alpha_hats`` are
the products of their prefixes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.networks.layers import IndexedRows, Part, join, normal
from idql_func.networks.mlp import MLP
from idql_func.networks.module import LazyRng, Module
from idql_func.networks.resnet import MLPResNet
from idql_func.switches import float_dtype
from idql_func.transforms import vmap
from idql_func.types import Params, PRNGKey

# --- noise schedules --------------------------------------------------------------------


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


# --- network ------------------------------------------------------------------------------


class FourierFeatures(Module):
    """Time ``[..., in]`` to ``[cos(f), sin(f)]``, ``[..., output_size]`` (quirk N7).

    Learnable: ``f = 2 pi x @ kernel.T`` with a ``[output_size // 2, in]`` kernel from
    N(0, 0.2^2). Times enter as raw integers 0..T-1.

    >>> net = FourierFeatures(8)
    >>> net.apply(net.init(random.PRNGKey(0)), torch.zeros(3, 1)).shape
    torch.Size([3, 8])
    """

    kernel: Tensor

    def __init__(self, output_size: int, input_dim: int = 1, learnable: bool = True) -> None:
        super().__init__()
        if output_size < 2 or output_size % 2:
            raise ValueError(f"FourierFeatures: output_size must be even, got {output_size}.")
        self.learnable = learnable
        self.half_size = output_size // 2
        self.output_dim = output_size if learnable else output_size * input_dim
        if learnable:
            self.declare("kernel", (self.half_size, input_dim), normal(0.2))

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        if self.learnable:
            f = (2 * math.pi * x.to(self.kernel.dtype)) @ self.kernel.T
        else:
            rate = math.log(10000) / (self.half_size - 1)
            index = torch.arange(self.half_size, device=x.device).to(float_dtype())
            f = x * torch.exp(index * -rate)
        return torch.cat([torch.cos(f), torch.sin(f)], dim=-1)


class DDPM(Module):
    """The noise predictor ``eps(a_t, s, t)``: ``[..., O], [..., A], [..., 1] -> [..., A]``.

    ``reverse_encoder`` sees the noisy action, the observation and the encoded time, in
    this order, so that its ``input_dim`` is ``A + O + cond_encoder.output_dim``. Leading axes
    broadcast: observations ``[E, 1, O]`` and a time ``[1, 1, 1]`` for actions ``[E, N, A]`` are
    encoded, and multiplied by the first kernel, once for each that there is.

    ``steps`` says that times are integers ``0..steps-1``. Each of them is then encoded once, which
    saves where there are many more rows than steps; the values are those without it.

    >>> from idql_func.networks import MLP
    >>> net = DDPM(MLP(8, [4]), MLP(2 + 3 + 4, [2]), FourierFeatures(8))
    >>> params = net.init(random.PRNGKey(0))
    >>> sorted(params)
    ['FourierFeatures_0', 'MLP_0', 'MLP_1']
    >>> observations, actions, time = torch.ones(5, 3), torch.ones(5, 2), torch.ones(5, 1).int()
    >>> eps = net.apply(params, observations, actions, time)
    >>> eps.shape
    torch.Size([5, 2])
    >>> torch.allclose(eps, net.apply(params, observations, actions, time, steps=2), atol=1e-6)
    True
    """

    def __init__(
        self, cond_encoder: Module, reverse_encoder: Module, time_preprocess: Module
    ) -> None:
        super().__init__()
        self.time_preprocess = self.add(time_preprocess)
        self.cond_encoder = self.add(cond_encoder)
        self.reverse_encoder = self.add(reverse_encoder)
        self.names = tuple(self._modules)
        self.output_dim = reverse_encoder.output_dim

    def forward(
        self,
        observations: Tensor,
        actions: Tensor,
        time: Tensor,
        training: bool = False,
        rng: LazyRng | None = None,
        steps: int | None = None,
    ) -> Tensor:
        streams = [rng and rng.push(name) for name in self.names]
        each = time if steps is None else torch.arange(steps, device=time.device).unsqueeze(1)
        features = self.time_preprocess(each, training, streams[0])
        cond = self.cond_encoder(features, training, streams[1])
        encoded: Part = cond if steps is None else IndexedRows(time.squeeze(-1), cond)
        parts = (actions, observations, encoded)
        takes_parts = isinstance(self.reverse_encoder, MLP | MLPResNet)
        return self.reverse_encoder(parts if takes_parts else join(parts), training, streams[2])


# --- sampler ------------------------------------------------------------------------------


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

    Algorithm 2 of arXiv 2006.11239 with noise of scale ``sqrt(beta_t)`` times the
    temperature and the predicted mean unclipped (quirk N12). Noise is drawn at the last
    step too and not used, so the key advances alike (N13). ``clip_sampler`` clips every
    step to [-1, 1]; the result is clipped in any case (N14).

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
    """:func:`ddpm_sampler` of any noise predictor ``eps(x, t)``: actions of a shape ``[..., A]``.

    Shapes with equally many entries get equal draws, in the same order.

    >>> betas = vp_beta_schedule(5)
    >>> alphas = 1 - betas
    >>> actions, key = reverse_process(lambda x, t: x * 0, 5, random.PRNGKey(0), (3, 4, 2),
    ...     alphas, torch.cumprod(alphas, 0), betas, 1.0, 0, True)
    >>> actions.shape
    torch.Size([3, 4, 2])
    """
    # All keys first, in upstream's order, so that the noise of all steps is one draw.
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
