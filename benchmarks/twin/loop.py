"""Updates on batches drawn inside the program: one, many in a row, and of many learners."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.twin.steps import Batch, Info

Carry = tuple[Any, jax.Array]
"""A learner, and the key of its row numbers."""
Step = Callable[[Carry, Batch], tuple[Carry, Info]]


def transitions(rows: int, observations: int, actions: int, seed: int = 0) -> Batch:
    """A data set of random transitions on the device."""
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
    """One update on ``batch`` rows drawn from the data set."""

    def step(carry: Carry, data: Batch) -> tuple[Carry, Info]:
        learner, key = carry
        draw, key = jax.random.split(key)
        rows = jax.random.randint(draw, (batch,), 0, data["rewards"].shape[0])
        learner, info = update(learner, jax.tree.map(lambda x: x[rows], data))
        return (learner, key), info

    return step


def repeated(step: Step, times: int) -> Step:
    """``times`` steps in a row; what is logged is averaged."""

    def steps(carry: Carry, data: Batch) -> tuple[Carry, Info]:
        carry, infos = jax.lax.scan(lambda c, _: step(c, data), carry, length=times)
        return carry, jax.tree.map(lambda x: x.mean(axis=0), infos)

    return steps


def stacked(step: Step) -> Step:
    """The step of each of several learners, stacked on axis 0, on rows of its own."""
    return jax.vmap(step, in_axes=(0, None))
