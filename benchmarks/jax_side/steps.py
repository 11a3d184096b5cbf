"""Functions that the updates of all learners share."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training.train_state import TrainState

Batch = dict[str, Any]
Info = dict[str, jax.Array]


class Target(struct.PyTreeNode):
    """A target network: parameters without an optimiser."""

    params: Any


def trained(module: nn.Module, key: jax.Array, inputs: tuple[Any, ...], tx: Any) -> TrainState:
    """Train state of a network with optimiser ``tx``, initialised with inputs of one row."""
    params = module.init(key, *inputs)["params"]
    return TrainState.create(apply_fn=module.apply, params=params, tx=tx)


def target_of(state: TrainState) -> Target:
    """Target network: a copy, so that state and target can be donated together."""
    return Target(jax.tree.map(jnp.copy, state.params))


def apply(
    state: TrainState, params: Any, *inputs: Any, dropout_key: jax.Array | None = None
) -> Any:
    """Apply a state's network to other parameters; with a key, dropout is on."""
    if dropout_key is None:
        return state.apply_fn({"params": params}, *inputs)
    return state.apply_fn({"params": params}, *inputs, True, rngs={"dropout": dropout_key})


def gradient_step(
    state: TrainState, loss: Callable[[Any], tuple[jax.Array, Info]]
) -> tuple[TrainState, Info]:
    """One optimiser step on ``loss(params) -> (loss, info)``."""
    grads, info = jax.grad(loss, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads), info


def soft_update(target: Target, source: TrainState, tau: float) -> Target:
    """``tau * source + (1 - tau) * target`` of each parameter (quirk U17)."""
    return Target(optax.incremental_update(source.params, target.params, tau))


def expectile(diff: jax.Array, level: float) -> jax.Array:
    """Asymmetric squared loss of IQL (quirk U6)."""
    return jnp.where(diff > 0, level, 1 - level) * diff**2


def with_parameters(learner: Any, trees: Mapping[str, Any], rng: Any) -> Any:
    """The learner with other parameters and key (NumPy arrays) and fresh optimisers.

    ``trees`` holds the parameters of each trained network by name; a target network gets a copy of
    its source's.
    """

    def copied(name: str) -> Any:
        return jax.tree.map(jnp.array, dict(trees[name.removeprefix("target_")]))

    changes: dict[str, Any] = {"rng": jnp.asarray(rng, jnp.uint32)}
    for name, state in vars(learner).items():
        if isinstance(state, TrainState):
            changes[name] = TrainState.create(
                apply_fn=state.apply_fn, params=copied(name), tx=state.tx
            )
        elif isinstance(state, Target):
            changes[name] = Target(copied(name))
    return learner.replace(**changes)
