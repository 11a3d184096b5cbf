"""A backend for the parity suite over the benchmarks' JAX side (``benchmarks/jax_side``).

Learners start from the port's parameters and key. Only the methods that programs of learners call
are implemented.
"""

# pyright: reportMissingImports=false
# ruff: noqa: E402 (imports that need JAX come after the skip)
from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

for _name in ("jax", "flax", "optax"):
    pytest.importorskip(_name, reason=f"the benchmark's JAX side needs {_name}")

import jax
import jax.numpy as jnp

from benchmarks.jax_side.actor_critic import SAC, TD3
from benchmarks.jax_side.idql import IDQL
from benchmarks.jax_side.offline import BC, IQL
from benchmarks.jax_side.pixels import DrQ, PixelBC
from benchmarks.jax_side.steps import with_parameters
from parity.backend import Settings
from parity.port.backend import TorchBackend
from parity.programs.learners import NETWORKS

CREATE = {
    "simple": IDQL.create,
    "general": IDQL.create_general,
    "iql": IQL.create,
    "bc": BC.create,
    "sac": SAC.create,
    "td3": TD3.create,
    "drq": DrQ.create,
    "pixel_bc": PixelBC.create,
}

_OBJECTIVES = {"critic_objective": "expectile", "actor_objective": "bc"}
"""The only objectives that the JAX side's general learner has."""


def port_learner(settings: Settings) -> Any:
    """The port's new learner for a case."""
    return TorchBackend().learner(settings)


def port_trees(learner: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Parameters of a learner's trained networks as NumPy arrays."""
    nested = TorchBackend().nested
    return {name: nested(getattr(learner, name).params) for name in names if "target" not in name}


class JaxSideBackend:
    """The part of :class:`parity.backend.Backend` that programs of learners use."""

    def __init__(self) -> None:
        self._update = jax.jit(_update, static_argnums=(1, 3))
        self._act = jax.jit(_act, static_argnums=1)

    @contextlib.contextmanager
    def flags(self, x64: bool, partitionable: bool) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(TorchBackend().flags(x64, partitionable))
            stack.enter_context(jax.enable_x64(x64))
            stack.enter_context(jax.threefry_partitionable(partitionable))
            stack.enter_context(jax.default_matmul_precision("float32"))
            yield

    def learner(self, settings: Settings) -> Any:
        name, kwargs = settings["learner"], dict(settings["kwargs"])
        for key, value in _OBJECTIVES.items():
            assert kwargs.pop(key, value) == value
        kwargs.pop("policy_temperature", None)
        kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()}
        source = port_learner(settings)
        size = settings["space"] if "space" in settings else settings["obs_dim"]
        # the seed has no effect: parameters and key are replaced by the port's
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Explicitly requested dtype")
            learner = CREATE[name](0, size, settings["act_dim"], **kwargs)
        trees = port_trees(source, NETWORKS[name])
        return with_parameters(learner, trees, source.rng.numpy().astype(np.uint32))

    def updated(self, learner: Any, method: str, batch: Any, *ratio: int) -> tuple[Any, Any]:
        return self._update(learner, method, batch, ratio)

    def choose(self, learner: Any, how: str, observations: Any) -> tuple[np.ndarray, Any]:
        single = jax.tree.leaves(observations)[0].ndim in (1, 4)
        if single:
            observations = jax.tree.map(lambda x: x[None], observations)
        actions, rng = self._act(learner, how, observations)
        return np.asarray(actions[0] if single else actions), learner.replace(rng=rng)

    def nested(self, tree: Any) -> dict[str, Any]:
        return jax.tree.map(np.asarray, dict(tree))

    def first_moments(self, learner: Any, name: str) -> dict[str, Any]:
        return self.nested(getattr(learner, name).opt_state[0].mu)

    def numpy(self, value: Any) -> np.ndarray:
        return np.asarray(value)

    def batch(self, arrays: Any) -> Any:
        if isinstance(arrays, Mapping):
            return {name: self.batch(value) for name, value in arrays.items()}
        return jnp.asarray(arrays)


def _update(learner: Any, method: str, batch: Any, ratio: tuple[int, ...]) -> tuple[Any, Any]:
    if method == "critic_update":
        learner, value_info = learner.update_v(batch)
        learner, info = learner.update_q(batch)
        return learner, {**value_info, **info}
    method = {"update": "update", "actor_update": "update_actor"}[method]
    return getattr(learner, method)(batch, *ratio)


def _act(learner: Any, how: str, observations: Any) -> tuple[jax.Array, jax.Array]:
    if hasattr(learner, "act"):
        assert how == "eval_actions"
        return learner.act(observations)
    actor = learner.actor
    dist = actor.apply_fn({"params": actor.params}, observations)
    if how == "eval_actions":
        return dist if isinstance(learner, TD3) else dist.mode(), learner.rng
    key, rng = jax.random.split(learner.rng)
    if isinstance(learner, TD3):
        noise = jax.random.normal(key, dist.shape) * learner.exploration_noise
        return jnp.clip(dist + noise, -1, 1), rng
    return dist.sample_and_log_prob(key)[0], rng
