"""Variants that run the original, if a checkout of it is given and can be imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import idql
from benchmarks.case import UPSTREAM, Plan
from benchmarks.timing import Variant

__all__ = ["act", "make_variant", "problem", "update"]

_WIDTH = 256  # the original's residual blocks always have this width (quirk U14)


def problem(path: Path) -> str | None:
    """Why the original cannot be imported from this path, in one sentence; None if it can."""
    if not (path / "jaxrl5").is_dir():
        return f"{path} is not a checkout of the original: it has no folder jaxrl5."
    try:
        _learner_class(str(path))
    except Exception as error:  # its imports may fail in any way with other versions
        return f"the original at {path} cannot be imported: {type(error).__name__}: {error}"
    return None


def make_variant(
    variant: str, workload: str, settings: Mapping[str, Any], plan: Mapping[str, Any]
) -> Variant:
    """The original's variant of ``update`` or ``act``, from plain data (for a child process).

    Raises:
        ValueError: it has none at such settings.
    """
    made = (
        update(Plan(**plan), idql.UpdateSettings(**settings))
        if workload == "update"
        else act(Plan(**plan), idql.ActSettings(**settings))
    )
    for one in made:
        if one.name == variant:
            return one
    raise ValueError(f"the original has no variant {variant!r} of {workload} at these settings")


def update(plan: Plan, settings: idql.UpdateSettings) -> tuple[Variant, ...]:
    """The original's jitted ``update``; like the original, another jitted function samples."""
    if plan.upstream is None or settings.hidden != _WIDTH:
        return ()

    def make() -> Callable[[int], Any]:
        import jax  # pyright: ignore[reportMissingImports]
        import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

        columns = {k: jnp.asarray(v.numpy()) for k, v in idql.dataset(settings).items()}

        @jax.jit
        def sample(key: Any) -> Any:
            draw, key = jax.random.split(key)
            rows = jax.random.randint(draw, (settings.batch,), 0, settings.rows)
            return key, {name: jnp.take(column, rows, axis=0) for name, column in columns.items()}

        state = [_create(plan, settings), jax.random.PRNGKey(settings.seed + 1)]

        def call(i: int) -> Any:
            state[1], batch = sample(state[1])
            state[0], losses = state[0].update(batch)
            return losses

        return call

    return (Variant(UPSTREAM, make, _wait),)


def act(plan: Plan, settings: idql.ActSettings) -> tuple[Variant, ...]:
    """The original's ``eval_actions``, which takes one observation."""
    if plan.upstream is None or settings.hidden != _WIDTH or settings.num_envs != 1:
        return ()

    def make() -> Callable[[int], Any]:
        inputs = idql.observations(settings)
        state = [_create(plan, settings, N=settings.N)]

        def call(i: int) -> np.ndarray:
            actions, state[0] = state[0].eval_actions(inputs[i % len(inputs)][0])
            return actions

        return call

    return (Variant(UPSTREAM, make, lambda result: None),)


def _create(plan: Plan, settings: Any, **keywords: Any) -> Any:
    return _learner_class(str(plan.upstream)).create(
        settings.seed,
        idql.box(settings.observations),
        idql.box(settings.actions),
        actor_num_blocks=settings.blocks,
        actor_dropout_rate=settings.dropout or None,
        T=settings.T,
        **keywords,
    )


def _wait(result: Any) -> None:
    import jax  # pyright: ignore[reportMissingImports]

    jax.block_until_ready(result)


def _learner_class(path: str) -> Any:
    """``DDPMIQLLearner`` of a checkout.

    The original's ``agents`` package imports all learners, some of which need libraries for old
    versions of JAX. So its packages are created here without running their ``__init__`` files.
    If Gym is not installed, Gymnasium replaces it: the learner reads only the spaces' shapes.
    """
    if path not in sys.path:
        sys.path.insert(0, path)
    if "gym" not in sys.modules and importlib.util.find_spec("gym") is None:
        sys.modules["gym"] = importlib.import_module("gymnasium")
    for name in ("jaxrl5.agents", "jaxrl5.agents.ddpm_iql_simple"):
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = [str(Path(path, *name.split(".")))]
            sys.modules[name] = package
    return importlib.import_module(f"{name}.ddpm_iql_learner").DDPMIQLLearner
