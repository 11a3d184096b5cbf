"""The original itself beside the port, where a checkout of it can be imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import UPSTREAM, Plan
from benchmarks.timing import Variant
from benchmarks.workloads import act as act_workload
from benchmarks.workloads import load
from benchmarks.workloads import update as update_workload

__all__ = ["act", "named", "problem", "update"]

_WIDTH = 256  # of the original's residual blocks, which no setting changes (quirk U14)


def problem(path: Path) -> str | None:
    """One sentence on why the original cannot be imported from there, or None if it can."""
    if not (path / "jaxrl5").is_dir():
        return f"{path} is no checkout of the original: it has no folder jaxrl5."
    try:
        _learner_class(str(path))
    except Exception as error:  # whatever its imports meet in an environment it was not made for
        return f"the original at {path} cannot be imported: {type(error).__name__}: {error}"
    return None


def named(
    variant: str, workload: str, settings: Mapping[str, Any], plan: Mapping[str, Any]
) -> Variant:
    """Its variant of the workload ``update`` or ``act``, from plain data: that of other processes.

    Raises:
        ValueError: it has none at such settings.
    """
    made = {"update": update, "act": act}[workload]
    for one in made(Plan(**plan), load(workload).Settings(**settings)):
        if one.name == variant:
            return one
    raise ValueError(f"the original has no variant {variant!r} of {workload} at these settings")


def update(plan: Plan, settings: update_workload.Settings) -> tuple[Variant, ...]:
    """Its jitted ``update``, on batches that one more jitted function draws, as it does."""
    if plan.upstream is None or settings.hidden != _WIDTH:
        return ()

    def make() -> Callable[[int], Any]:
        import jax  # pyright: ignore[reportMissingImports]
        import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

        from benchmarks.workloads import idql

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


def act(plan: Plan, settings: act_workload.Settings) -> tuple[Variant, ...]:
    """Its ``eval_actions``, which takes one observation."""
    if plan.upstream is None or settings.hidden != _WIDTH or settings.num_envs != 1:
        return ()

    def make() -> Callable[[int], Any]:
        inputs = act_workload.observations(settings)
        state = [_create(plan, settings, N=settings.N)]

        def call(i: int) -> np.ndarray:
            actions, state[0] = state[0].eval_actions(inputs[i % len(inputs)][0])
            return actions

        return call

    return (Variant(UPSTREAM, make, lambda result: None),)


def _create(plan: Plan, settings: Any, **keywords: Any) -> Any:
    from benchmarks.workloads.idql import box

    return _learner_class(str(plan.upstream)).create(
        settings.seed,
        box(settings.observations),
        box(settings.actions),
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

    The original's package of agents imports all of them, and with them libraries that exist for
    old versions of JAX alone; so its packages are laid out here without running their own files.
    Where the old Gym is missing, Gymnasium stands in: the learner looks at the spaces' shapes.
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
