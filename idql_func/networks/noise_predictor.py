"""The noise predictor of a diffusion policy: time features and the conditioned network.

After ``jaxrl5/networks/diffusion.py``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from idql_func.networks.initializers import normal
from idql_func.networks.layers import IndexedRows, Part, join
from idql_func.networks.mlp import MLP, MLPResNet
from idql_func.networks.module import LazyRng, Module
from idql_func.switches import float_dtype


class FourierFeatures(Module):
    """Time ``[..., in]`` to ``[cos(f), sin(f)]``, ``[..., output_size]`` (quirk N7).

    Learnable: ``f = 2 pi x @ kernel.T`` with a ``[output_size // 2, in]`` kernel from
    N(0, 0.2^2). Times enter as raw integers 0..T-1.

    >>> from idql_func import random
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
            self.declare("kernel", (self.half_size, input_dim), normal(0.2), torch.float32)

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
    this order: its ``input_dim`` is ``A + O + cond_encoder.output_dim``. Leading axes
    broadcast: with observations ``[E, 1, O]`` and a time ``[1, 1, 1]`` for actions ``[E, N, A]``,
    each observation and the time are encoded and multiplied by the first kernel once.

    ``steps`` promises that times are integers from 0 to ``steps - 1``. If there are many more
    rows than that, each time is encoded once and its row is selected; the values are the same.

    >>> from idql_func import random
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
        rngs = [rng and rng.push(name) for name in self.names]
        # with more than 64 times, selecting the rows takes as long as the table saves
        if steps is None or steps > 64 or steps > actions.shape[:-1].numel() // 4:
            features = self.time_preprocess(time, training, rngs[0])
            encoded: Part = self.cond_encoder(features, training, rngs[1])
        else:
            times = torch.arange(steps, device=time.device).unsqueeze(1)
            features = self.time_preprocess(times, training, rngs[0])
            table = self.cond_encoder(features, training, rngs[1])
            encoded = IndexedRows(time.squeeze(-1), table)
        parts = (actions, observations, encoded)
        takes_parts = isinstance(self.reverse_encoder, MLP | MLPResNet)
        return self.reverse_encoder(parts if takes_parts else join(parts), training, rngs[2])


def with_integer_times(apply_fn: Callable[..., Tensor], steps: int) -> Callable[..., Tensor]:
    """The noise predictor ``apply_fn`` for times that are integers from 0 to ``steps - 1``.

    A :class:`DDPM` may then encode each time once. Any other function is returned unchanged.

    >>> from idql_func.networks import MLP
    >>> net = DDPM(MLP(8, [4]), MLP(2 + 3 + 4, [2]), FourierFeatures(8))
    >>> with_integer_times(net.apply, 5).keywords
    {'steps': 5}
    """
    return functools.partial(apply_fn, steps=steps) if is_ddpm(apply_fn) else apply_fn


def is_ddpm(apply_fn: Callable[..., Any]) -> bool:
    """Whether a function is the ``apply`` of a :class:`DDPM`.

    >>> is_ddpm(torch.relu)
    False
    """
    return isinstance(getattr(apply_fn, "__self__", None), DDPM)
