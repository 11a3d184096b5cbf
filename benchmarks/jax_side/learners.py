"""Create learners and batches from the settings of a workload."""

# pyright: reportMissingImports=false
from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jax_side.actor_critic import SAC, TD3
from benchmarks.jax_side.idql import IDQL
from benchmarks.jax_side.loop import transitions
from benchmarks.jax_side.offline import BC, IQL
from benchmarks.jax_side.pixels import DrQ, PixelBC
from benchmarks.jax_side.steps import Batch

_REDQ = {"num_qs": 10, "num_min_qs": 2}
_DROQ = {"critic_dropout_rate": 0.01, "critic_layer_norm": True}

_STATES = {
    "idql": (IDQL.create, {}),
    "idql-general": (IDQL.create_general, {}),
    "iql": (IQL.create, {}),
    "bc": (BC.create, {}),
    "sac": (SAC.create, {}),
    "td3": (TD3.create, {}),
    "redq": (SAC.create, _REDQ),
    "droq": (SAC.create, _DROQ),
}
_PIXELS = {"drq": DrQ.create, "pixel-bc": PixelBC.create}
_WITH_RATIO = (SAC, TD3)


def idql(settings: Any, seed: Any, **more: Any) -> IDQL:
    """The IDQL learner of the workloads ``update``, ``scan``, ``seeds`` and ``act``."""
    create = functools.partial(
        IDQL.create,
        obs_dim=settings.observations,
        act_dim=settings.actions,
        critic_hidden_dims=(settings.hidden, settings.hidden),
        actor_hidden_dim=settings.hidden,
        actor_num_blocks=settings.blocks,
        actor_dropout_rate=settings.dropout,
        T=settings.T,
        **more,
    )
    return jax.jit(create)(seed)


def learner(settings: Any) -> Any:
    """The learner that ``settings.learner`` names."""
    hidden, name = (settings.hidden, settings.hidden), settings.learner
    if name in _PIXELS:
        space = {"pixels": (settings.image, settings.image, 3, settings.frames)}
        make = functools.partial(
            _PIXELS[name], space=space, act_dim=settings.actions, hidden_dims=hidden
        )
        return jax.jit(make)(settings.seed)
    create, options = _STATES[name]
    widths = {"critic_hidden_dims": hidden} if name.startswith("idql") else {"hidden_dims": hidden}
    sizes = {"obs_dim": settings.observations, "act_dim": settings.actions}
    return jax.jit(functools.partial(create, **sizes, **widths, **options))(settings.seed)


def update(learner: Any, batch: Batch, utd: int) -> tuple[Any, Any]:
    """``learner.update``, with the ratio of updates to data where it takes one."""
    return learner.update(batch, utd) if isinstance(learner, _WITH_RATIO) else learner.update(batch)


def batches(settings: Any) -> list[Batch]:
    """``inputs`` batches of ``batch * utd`` rows on the device."""
    rows = settings.batch * settings.utd
    made = []
    for i in range(settings.inputs):
        batch = transitions(rows, settings.observations, settings.actions, settings.seed + i)
        if settings.learner in _PIXELS:
            draws = np.random.default_rng(settings.seed + i)
            shape = (rows, settings.image, settings.image, 3, settings.frames)
            for name in ("observations", "next_observations"):
                frames = draws.integers(0, 256, shape, np.uint8)
                batch[name] = {"pixels": jnp.asarray(frames)}
        made.append(batch)
    return made
