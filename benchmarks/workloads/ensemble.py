"""An ensemble of critics under ``vmap``, against a loop over its members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Case, Flops, Plan, jax_variants, resized
from benchmarks.roofline import count_flops, wait_torch
from benchmarks.timing import Variant
from idql_func import disable_jit, jit, random, tree_map, value_and_grad
from idql_func.agents.factories import critic_network


@dataclass(frozen=True)
class Settings:
    """Value and gradient of ``mean((Q_i(s, a) - y)^2)`` over all members."""

    members: int = 2
    batch: int = 256
    observations: int = 17
    actions: int = 6
    hidden: int = 256
    """Width of each of the two layers."""
    seed: int = 0
    inputs: int = 8
    """Number of batches that rotate."""


def cases(plan: Plan) -> list[Case]:
    """Two to ten critics."""
    numbers = plan.pick((10,), (10,), (2, 3, 5, 10))
    settings = [Settings(n) for n in numbers]
    return [_case(s, plan) for s in resized(plan, settings, batch=8, hidden=16)]


def _case(settings: Settings, plan: Plan) -> Case:
    stacked, looped = _stacked(settings), _looped(settings)
    own = [_variant("loop", settings, plan, looped), _variant("compiled", settings, plan, stacked)]
    if plan.effort != "quick":
        eager = _variant("eager", settings, plan, stacked, scope=disable_jit)
        own.insert(0, eager)

    def flops() -> Flops:
        count = count_flops(stacked, _params(settings, "cpu"), *_inputs(settings, "cpu")[0])
        return Flops(count, count)

    return Case(
        "ensemble",
        settings,
        "gradients/s",
        (*own, *jax_variants(plan, "ensemble", settings)),
        flops=flops,
        baseline="loop",
        limit_shape=(settings.batch, settings.hidden, settings.hidden),
    )


def _stacked(settings: Settings) -> Callable[..., Any]:
    """The library's ensemble: one set of stacked weights under ``vmap``."""
    network = _network(settings, settings.members)

    def loss(params: Any, s: Tensor, a: Tensor, y: Tensor) -> Tensor:
        return ((network.apply(params, s, a) - y) ** 2).mean()

    return value_and_grad(loss)


def _looped(settings: Settings) -> Callable[..., Any]:
    """One member after the other."""
    member = _network(settings, 1)

    def loss(params: Any, s: Tensor, a: Tensor, y: Tensor) -> Tensor:
        parts = []
        for k in range(settings.members):
            own = tree_map(lambda x, k=k: x[k : k + 1], params)
            parts.append(((member.apply(own, s, a) - y) ** 2).mean())
        return torch.stack(parts).mean()

    return value_and_grad(loss)


def _variant(
    name: str, settings: Settings, plan: Plan, fn: Callable[..., Any], **options: Any
) -> Variant:
    def make() -> Callable[[int], Any]:
        program = jit(fn)
        params, inputs = _params(settings, plan.device), _inputs(settings, plan.device)
        return lambda i: program(params, *inputs[i % len(inputs)])

    return Variant(name, make, wait_torch, **options)


def _network(settings: Settings, members: int) -> Any:
    layers = (settings.hidden, settings.hidden)
    return critic_network(settings.observations, settings.actions, layers, members)


def _params(settings: Settings, device: str) -> Any:
    params = _network(settings, settings.members).init(random.PRNGKey(settings.seed))
    return tree_map(lambda x: x.to(device), params)


def _inputs(settings: Settings, device: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(settings.seed)
    sizes_of = (settings.observations,), (settings.actions,), ()
    return [
        tuple(torch.randn(settings.batch, *size, generator=draws).to(device) for size in sizes_of)  # type: ignore[misc]
        for _ in range(settings.inputs)
    ]
