"""The side of github.com/seohongpark/fql: FQL, IFQL and ReBRAC, in its own JAX environment.

It is recorded with JAX 0.10.2. XLA of JAX 0.4.26, the oldest that the repository accepts, compiles
the layer norm of a vmapped network wrongly for a CPU: in float32 all members of the critic get the
scale and bias of the first one.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity.backend import Settings
from parity.original.arrays import JaxArrays, use_one_thread

PACKAGES = ("jax", "jaxlib", "flax", "optax", "distrax", "tfp-nightly", "ml_collections", "numpy")
_AGENTS = {"fql": "FQLAgent", "ifql": "IFQLAgent", "rebrac": "ReBRACAgent"}
_ACTING = {"sample_actions": 1.0, "eval_actions": 0.0}
"""The temperatures at which the original acts and is evaluated."""


class FlowBackend(JaxArrays):
    """The part of :class:`parity.backend.Backend` that programs of learners use."""

    def __init__(self, upstream: Path):
        use_one_thread()
        sys.path.insert(0, str(upstream))
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_default_matmul_precision", "float32")
        self.jax, self.jnp = jax, jnp

    def learner(self, settings: Settings) -> Any:
        name = settings["learner"]
        module = importlib.import_module(f"agents.{name}")
        config = module.get_config()
        for option, value in settings["kwargs"].items():
            config[option] = tuple(value) if isinstance(value, list) else value
        observations = np.zeros((1, settings["obs_dim"]), np.float32)
        actions = np.zeros((1, settings["act_dim"]), np.float32)
        agent = getattr(module, _AGENTS[name]).create(
            settings["seed"], observations, actions, config
        )
        if not settings.get("x64"):
            return agent

        def widen(leaf: Any) -> Any:
            narrow = getattr(leaf, "dtype", None) == np.float32
            return leaf.astype(np.float64) if narrow else leaf

        return self.tree_map(widen, agent)

    def batch(self, arrays: Any) -> Any:
        return self.tree_map(self.jnp.asarray, arrays)

    def updated(
        self, learner: Any, method: str, batch: Any, *options: Any
    ) -> tuple[Any, Mapping[str, Any]]:
        return getattr(learner, method)(batch, *options)

    def first_moments(self, learner: Any, name: str) -> dict[str, Any]:
        return self.nested(getattr(learner, name).opt_state[0].mu)

    def choose(self, learner: Any, how: str, observations: Any) -> tuple[np.ndarray, Any]:
        # the original takes a key and returns no learner; here the key is split off its own
        rng, key = self.jax.random.split(learner.rng)
        actions = learner.sample_actions(observations, seed=key, temperature=_ACTING[how])
        return np.asarray(actions), learner.replace(rng=rng)
