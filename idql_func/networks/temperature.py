"""The temperature of soft actor-critic, after ``jaxrl5/agents/sac/temperature.py``."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from idql_func.kernels.xla_math import log
from idql_func.networks.module import LazyRng, Module
from idql_func.switches import float_dtype
from idql_func.types import PRNGKey


class Temperature(Module):
    """A learned number ``exp(log_temp)``: the weight of the entropy in SAC.

    Raises:
        ValueError: the initial temperature is not above 0.

    >>> from idql_func import random
    >>> temperature = Temperature(0.5)
    >>> round(temperature.apply(temperature.init(random.PRNGKey(0))).item(), 6)
    0.5
    """

    output_dim = 1
    log_temp: Tensor

    def __init__(self, initial_temperature: float = 1.0) -> None:
        super().__init__()
        if not initial_temperature > 0:
            raise ValueError(
                f"Temperature: initial_temperature must be above 0, got {initial_temperature}."
            )
        self.declare("log_temp", (), functools.partial(_log_of, initial_temperature))

    def forward(self, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        return torch.exp(self.log_temp)


def _log_of(temperature: float, key: PRNGKey, shape: tuple[int, ...]) -> Tensor:
    return log(torch.full(shape, temperature, dtype=float_dtype(), device=key.device))
