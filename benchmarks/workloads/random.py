"""Threefry draws: normals, dropout masks, keys and row numbers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from benchmarks.case import Case, Plan, jax_variants, resized
from benchmarks.roofline import wait_torch
from benchmarks.timing import Variant
from idql_func import random

Draw = Literal["normal", "dropout", "split", "randint"]


@dataclass(frozen=True)
class Settings:
    """``count`` numbers of one kind from a key; the keys rotate.

    ``normal``: float32 ``[count]``; ``dropout``: a Bernoulli mask ``[count]`` that keeps 0.9;
    ``split``: ``count`` keys; ``randint``: ``count`` row numbers below 100,000.
    """

    draw: Draw = "normal"
    count: int = 393_216
    """The default is the size of the three dropout masks of one update."""
    partitionable: bool = False
    """JAX's newer layout of the stream, for this library and for JAX."""
    inputs: int = 16
    """Number of keys that rotate."""


def cases(plan: Plan) -> list[Case]:
    """Each kind of draw; in a full run in both layouts of the stream."""
    kinds: tuple[Draw, ...] = ("normal", "dropout", "split", "randint")
    kinds = plan.pick(kinds[:2], kinds, kinds)
    layouts = plan.pick((False,), (False,), (False, True))
    counts = {"split": 4096, "randint": 4096}
    settings = [
        Settings(kind, counts.get(kind, Settings.count), layout)
        for layout in layouts
        for kind in kinds
    ]
    return [_case(s, plan) for s in resized(plan, settings, count=64)]


def _case(settings: Settings, plan: Plan) -> Case:
    from idql_func import jit

    own = (
        _variant("eager", settings, plan, lambda draw: draw),
        _variant("compiled", settings, plan, jit),
    )
    return Case(
        "random",
        settings,
        "numbers/s",
        (*own, *jax_variants(plan, "random", settings)),
        wait_each=True,
    )


def _variant(
    name: str, settings: Settings, plan: Plan, compile_draw: Callable[[Any], Any]
) -> Variant:
    def make() -> Callable[[int], Tensor]:
        keys = random.split(random.PRNGKey(0, plan.device), settings.inputs).unbind(0)
        draw = compile_draw(_draw(settings))
        return lambda i: draw(keys[i % len(keys)])

    def scope() -> AbstractContextManager[Any]:
        return random.threefry_partitionable(settings.partitionable)

    return Variant(name, make, wait_torch, units=settings.count, scope=scope)


def _draw(settings: Settings) -> Callable[[Tensor], Tensor]:
    shape = (settings.count,)
    return {
        "normal": lambda key: random.normal(key, shape),
        "dropout": lambda key: random.bernoulli(key, 0.9, shape),
        "split": lambda key: random.split(key, settings.count),
        "randint": lambda key: random.randint(key, shape, 0, 100_000),
    }[settings.draw]
