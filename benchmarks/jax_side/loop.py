"""Updates that sample their batches inside the program: one, several, or of several learners."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jax_side.steps import Batch, Info

Carry = tuple[Any, jax.Array]
"""A learner, and the key of its row numbers."""
Step = Callable[[Carry, Batch], tuple[Carry, Info]]


def transitions(rows: int, observations: int, actions: int, seed: int = 0) -> Batch:
    """A dataset of random transitions on the device."""
    draws = np.random.default_rng(seed)
    columns = {
        "observations": draws.standard_normal((rows, observations)),
        "actions": draws.uniform(-1, 1, (rows, actions)),
        "rewards": draws.uniform(0, 1, rows),
        "masks": draws.uniform(0, 1, rows) > 0.01,
        "next_observations": draws.standard_normal((rows, observations)),
    }
    return {name: jnp.asarray(column, jnp.float32) for name, column in columns.items()}


def sampled(update: Callable[[Any, Batch], tuple[Any, Info]], batch: int) -> Step:
    """One update on ``batch`` rows drawn from the dataset."""

    def step(carry: Carry, data: Batch) -> tuple[Carry, Info]:
        learner, key = carry
        draw, key = jax.random.split(key)
        rows = jax.random.randint(draw, (batch,), 0, data["rewards"].shape[0])
        learner, info = update(learner, jax.tree.map(lambda x: x[rows], data))
        return (learner, key), info

    return step


def repeated(step: Step, times: int) -> Step:
    """``times`` steps in a row; the logged values are averaged."""

    def steps(carry: Carry, data: Batch) -> tuple[Carry, Info]:
        carry, infos = jax.lax.scan(lambda c, _: step(c, data), carry, length=times)
        return carry, jax.tree.map(lambda x: x.mean(axis=0), infos)

    return steps


def stacked(step: Step) -> Step:
    """The step for several learners, stacked on axis 0, each with its own batch."""
    return jax.vmap(step, in_axes=(0, None))
