"""Variants on JAX of the benchmark's workloads.

Each function takes the settings of the workload with the same name (``benchmarks/workloads``; any
object with the same fields works) and returns a variant for ``benchmarks.timing``. JAX is imported
when a variant is built, and torch is never imported, so that the memory of a process that runs one
variant is JAX's alone.

Two settings of JAX are fixed. Random streams use the older layout
(``jax_threefry_partitionable=False``; :func:`random` takes it from its settings), which is in JAX's
favour: with the newer one, its default, normals, dropout masks and row numbers cost 1.6 times as
much on a CPU, and an IDQL update of 512 rows a fifth more. Matrix products use full float32 on a
GPU too, as in the port.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.timing import Variant

NEEDED = ("jax", "flax", "optax")
SCANNED = 16
"""Updates in a call of the variants ``scanned`` and ``jax-scan``."""
_FUNCTIONS = {"jax-each": "act_each", "jax-vmap": "act_vmapped", "jax-scan": "learner_scanned"}
"""Functions of the variants that are not named after a workload."""


def missing_packages() -> str | None:
    """Why the variants on JAX cannot run, in one sentence; None if they can.

    >>> missing_packages() is None or missing_packages().startswith("The JAX side needs")
    True
    """
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    return f"The JAX side needs {', '.join(absent)}: pip install jax flax optax."


def make_variant(
    variant: str, workload: str, settings: Mapping[str, Any], plan: Mapping[str, Any]
) -> Variant:
    """The variant of this name, from plain data (for a child process without torch).

    Args:
        variant: ``jax``, or another of a case's variants on JAX.
        workload: of ``benchmarks.workloads.NAMES``.
        settings: the fields of the workload's settings.
        plan: the fields of the plan; ``device`` is used.

    >>> make_variant("jax", "scan", {"steps": 16}, {"device": "cpu"}).units
    16
    """
    function = _FUNCTIONS.get(variant, "learner" if workload == "learners" else workload)
    return globals()[function](SimpleNamespace(**settings), plan["device"])


def update(settings: Any, device: str = "cpu") -> Variant:
    """One IDQL update that samples its batch inside the program; the state is donated."""
    return _trained(settings, device, steps=1)


def scan(settings: Any, device: str = "cpu") -> Variant:
    """``settings.steps`` updates in one call by ``lax.scan``."""
    return _trained(settings, device, steps=settings.steps)


def seeds(settings: Any, device: str = "cpu") -> Variant:
    """One update of each of ``settings.seeds`` stacked learners by ``vmap``."""
    return _trained(settings, device, steps=1, seeds=settings.seeds)


def _trained(settings: Any, device: str, steps: int, seeds: int | None = None) -> Variant:
    def make() -> Callable[[int], Any]:
        import jax

        from benchmarks.jax_side import learners, loop

        step = loop.sampled(lambda learner, batch: learner.update(batch), settings.batch)
        data = loop.transitions(
            settings.rows, settings.observations, settings.actions, settings.seed
        )

        def start(seed: Any) -> Any:
            return learners.idql(settings, seed), jax.random.PRNGKey(seed)

        if seeds is not None:
            step = loop.stacked(step)
            carry = jax.jit(jax.vmap(start))(settings.seed + jax.numpy.arange(seeds))
        else:
            carry = start(settings.seed)
        if steps > 1:
            step = loop.repeated(step, steps)
        return _stateful(jax.jit(step, donate_argnums=0), carry, lambda i: data)

    return _variant("jax", make, device, units=steps * (seeds or 1))


def learner(settings: Any, device: str = "cpu") -> Variant:
    """One ``update`` of the learner that ``settings.learner`` names, on batches that rotate."""

    def make() -> Callable[[int], Any]:
        import jax

        from benchmarks.jax_side import learners

        batches = learners.batches(settings)

        def step(state: Any, batch: Any) -> Any:
            return learners.update(state, batch, settings.utd)

        jitted = jax.jit(step, donate_argnums=0)
        return _stateful(jitted, learners.learner(settings), lambda i: batches[i % len(batches)])

    return _variant("jax", make, device)


def learner_scanned(settings: Any, device: str = "cpu") -> Variant:
    """``SCANNED`` updates in one call by ``lax.scan``, on stacked batches."""

    def make() -> Callable[[int], Any]:
        import jax

        from benchmarks.jax_side import learners

        rotating = learners.batches(settings)
        chosen = [rotating[k % len(rotating)] for k in range(SCANNED)]
        stack = jax.tree.map(lambda *rows: jax.numpy.stack(rows), *chosen)

        def steps(state: Any, stack: Any) -> Any:
            return jax.lax.scan(lambda s, b: learners.update(s, b, settings.utd), state, stack)

        jitted = jax.jit(steps, donate_argnums=0)
        return _stateful(jitted, learners.learner(settings), lambda i: stack)

    return _variant("jax-scan", make, device, units=SCANNED)


def pixels(settings: Any, device: str = "cpu") -> Variant:
    """One DrQ update that samples and crops frames from a buffer inside the program."""

    def make() -> Callable[[int], Any]:
        import jax

        from benchmarks.jax_side import pixels as drq_pixels

        start = drq_pixels.DrQ.create(
            settings.seed,
            {"pixels": (settings.image, settings.image, 3, settings.frames)},
            settings.actions,
            hidden_dims=(settings.hidden, settings.hidden),
        )
        buffer = drq_pixels.episode(settings.rows, settings.image, settings.actions, settings.seed)

        def step(carry: Any, buffer: Any) -> Any:
            drq, key = carry
            draw, key = jax.random.split(key)
            drq, info = drq.update(drq_pixels.packed(draw, buffer, settings.batch, settings.frames))
            return (drq, key), info

        carry = start, jax.random.PRNGKey(settings.seed)
        return _stateful(jax.jit(step, donate_argnums=0), carry, lambda i: buffer)

    return _variant("jax", make, device)


def act(settings: Any, device: str = "cpu") -> Variant:
    """Actions for all environments in one call, from host to host."""

    def make() -> Callable[[int], Any]:
        choose, inputs = _action_choice(settings)
        return lambda i: choose(inputs[i % len(inputs)])

    return _variant("jax", make, device, units=settings.num_envs)


def act_each(settings: Any, device: str = "cpu") -> Variant:
    """One call for each environment, with the program for one."""

    def make() -> Callable[[int], Any]:
        choose, inputs = _action_choice(settings)
        return lambda i: np.concatenate([choose(row[None]) for row in inputs[i % len(inputs)]])

    return _variant("jax-each", make, device, units=settings.num_envs)


def act_vmapped(settings: Any, device: str = "cpu") -> Variant:
    """One call, with the program for one environment mapped over all, each with its own key."""

    def make() -> Callable[[int], Any]:
        choose, inputs = _action_choice(settings, vmapped=True)
        return lambda i: choose(inputs[i % len(inputs)])

    return _variant("jax-vmap", make, device, units=settings.num_envs)


def _action_choice(settings: Any, vmapped: bool = False) -> tuple[Callable[[Any], Any], list[Any]]:
    """A function ``observations -> actions`` on the host, and observations that rotate."""
    import jax

    from benchmarks.jax_side import learners

    def one_by_one(policy: Any, observations: Any) -> Any:
        key, *keys = jax.random.split(policy.rng, 1 + observations.shape[0])

        def one(key: Any, row: Any) -> Any:
            return policy.replace(rng=key).act(row[None])[0][0]

        return jax.vmap(one)(jax.numpy.stack(keys), observations), key

    policy = learners.idql(settings, settings.seed, N=settings.N).to_act()
    choose = jax.jit(one_by_one if vmapped else type(policy).act)
    shape = (settings.num_envs, settings.observations)
    draws = np.random.default_rng(settings.seed)
    inputs = [draws.standard_normal(shape).astype(np.float32) for _ in range(settings.inputs)]

    def call(observations: Any) -> Any:
        nonlocal policy
        actions, rng = choose(policy, observations)
        policy = policy.replace(rng=rng)
        return np.asarray(actions)

    return call, inputs


def random(settings: Any, device: str = "cpu") -> Variant:
    """``settings.count`` draws from a key, with the stream layout of the settings."""

    def make() -> Callable[[int], Any]:
        import jax

        from benchmarks.jax_side.draws import DRAWS

        draw = jax.jit(DRAWS[settings.draw], static_argnums=1)
        keys = list(jax.random.split(jax.random.PRNGKey(0), settings.inputs))
        return lambda i: draw(keys[i % len(keys)], settings.count)

    return _variant("jax", make, device, units=settings.count, partitionable=settings.partitionable)


def ensemble(settings: Any, device: str = "cpu") -> Variant:
    """Loss and gradient of critics under ``nn.vmap``, on batches that rotate."""

    def make() -> Callable[[int], Any]:
        import jax

        from benchmarks.jax_side import loop
        from benchmarks.jax_side.networks import Ensemble

        sizes = settings.batch, settings.observations, settings.actions
        inputs = [loop.transitions(*sizes, settings.seed + i) for i in range(settings.inputs)]
        network = Ensemble((settings.hidden, settings.hidden), settings.members)
        key = jax.random.PRNGKey(settings.seed)
        params = network.init(key, inputs[0]["observations"], inputs[0]["actions"])

        def loss(params: Any, batch: Any) -> Any:
            qs = network.apply(params, batch["observations"], batch["actions"])
            return ((qs - batch["rewards"]) ** 2).mean()

        step = jax.jit(jax.value_and_grad(loss))
        return lambda i: step(params, inputs[i % len(inputs)])

    return _variant("jax", make, device)


# --- shared -------------------------------------------------------------------------------


def _stateful(
    jitted: Callable[[Any, Any], tuple[Any, Any]], carry: Any, inputs: Callable[[int], Any]
) -> Callable[[int], Any]:
    """A step that keeps its donated state between calls and returns the logged values."""

    def step(i: int) -> Any:
        nonlocal carry
        carry, info = jitted(carry, inputs(i))
        return info

    return step


def _variant(
    name: str,
    make: Callable[[], Callable[[int], Any]],
    device: str,
    units: float = 1,
    partitionable: bool = False,
) -> Variant:
    return Variant(name, make, _wait, units, lambda: _jax_settings(device, partitionable))


def _wait(result: Any) -> None:
    import jax

    jax.block_until_ready(result)


@contextmanager
def _jax_settings(device: str, partitionable: bool) -> Iterator[None]:
    import jax

    place = jax.devices("gpu" if device.startswith("cuda") else "cpu")[0]
    layout, products = jax.threefry_partitionable, jax.default_matmul_precision
    with jax.default_device(place), layout(partitionable), products("float32"):
        yield
