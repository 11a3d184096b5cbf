"""What the steps of every learner are made of."""

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
    """The state of a network that ``tx`` trains, initialised on inputs of one row."""
    params = module.init(key, *inputs)["params"]
    return TrainState.create(apply_fn=module.apply, params=params, tx=tx)


def target_of(state: TrainState) -> Target:
    """A copy, so that state and target can be donated together."""
    return Target(jax.tree.map(jnp.copy, state.params))


def apply(
    state: TrainState, params: Any, *inputs: Any, dropout_key: jax.Array | None = None
) -> Any:
    """The network of a state at other parameters; with a key, dropout is on."""
    if dropout_key is None:
        return state.apply_fn({"params": params}, *inputs)
    return state.apply_fn({"params": params}, *inputs, True, rngs={"dropout": dropout_key})


def descend(
    state: TrainState, loss: Callable[[Any], tuple[jax.Array, Info]]
) -> tuple[TrainState, Info]:
    """One step of a state's optimiser on ``loss(params) -> (loss, info)``."""
    grads, info = jax.grad(loss, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads), info


def soft_update(target: Target, source: TrainState, tau: float) -> Target:
    """``tau * source + (1 - tau) * target`` of each parameter (quirk U17)."""
    return Target(optax.incremental_update(source.params, target.params, tau))


def expectile(diff: jax.Array, level: float) -> jax.Array:
    """The asymmetric square of IQL (quirk U6)."""
    return jnp.where(diff > 0, level, 1 - level) * diff**2


def adopt(learner: Any, trees: Mapping[str, Any], rng: Any) -> Any:
    """A learner with parameters and key taken over as NumPy arrays; optimisers start anew.

    ``trees`` holds the parameters of each trained network under its name; a target starts as
    its source.
    """

    def taken(name: str) -> Any:
        return jax.tree.map(jnp.array, dict(trees[name.removeprefix("target_")]))

    changes: dict[str, Any] = {"rng": jnp.asarray(rng, jnp.uint32)}
    for name, state in vars(learner).items():
        if isinstance(state, TrainState):
            changes[name] = TrainState.create(
                apply_fn=state.apply_fn, params=taken(name), tx=state.tx
            )
        elif isinstance(state, Target):
            changes[name] = Target(taken(name))
    return learner.replace(**changes)
