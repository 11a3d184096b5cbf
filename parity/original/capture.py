"""Record intermediate values of the original's networks and learners. Imports jax, never torch.

The computation does not change: Flax returns the outputs of submodules on request, and a learner's
``apply_fn`` and ``tx`` are wrapped by functions that record their arguments.
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np

from parity.backend import Event


def parts(result: Any) -> Any:
    """An array unchanged; a distribution as a dict of location and deviation ``[..., A]``."""
    if not hasattr(result, "log_prob"):
        return result
    # TFP's diagonal normal is itself a transformed distribution, so the type is tested by name.
    tanh = type(result).__name__ == "TanhTransformedDistribution"
    normal = result.distribution if tanh else result
    return {"loc": normal.loc, "scale": normal.stddev()}


def plain(tree: Any) -> Any:
    """A tree of frozen mappings as nested dicts."""
    if not isinstance(tree, Mapping):
        return tree
    return {name: plain(value) for name, value in tree.items()}


def layers(captured: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Outputs by path from Flax's ``intermediates``; the whole network's own is left out.

    A class that extends another's ``__call__`` has two outputs, the inner one first.
    """
    out: dict[str, Any] = {}
    for name, value in captured.items():
        if name != "__call__":
            out.update(layers(value, f"{path}/{name}" if path else name))
        elif path:
            out[path] = parts(value[-1])
    return out


@contextlib.contextmanager
def recorded_ensembles() -> Iterator[None]:
    """Context in which ensembles also return their members' intermediates, stacked on axis 0.

    The original's ``nn.vmap`` maps only the parameters, so that Flax would drop intermediates.
    """
    import flax.linen as nn

    vmap = nn.vmap

    def vmap_intermediates(target: Any, variable_axes: Mapping[str, Any], **options: Any) -> Any:
        return vmap(target, variable_axes={**variable_axes, "intermediates": 0}, **options)

    with mock.patch.object(nn, "vmap", vmap_intermediates):
        yield


def captured(apply_fn: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, Any]:
    """The result of a module's ``apply`` and the outputs of all its submodules, by path."""
    with recorded_ensembles():
        result, state = apply_fn(
            *args, capture_intermediates=True, mutable=["intermediates"], **options
        )
    return result, layers(state.get("intermediates", {}))


@contextlib.contextmanager
def watched(learner: Any, names: Sequence[str]) -> Iterator[tuple[Any, list[Event]]]:
    """A learner that records every call and optimiser step of its networks, and the list of events.

    The list is filled when the block ends, in the order in which the program was traced (compiled
    programs may send values in another order). It has no events of code that was traced but not
    run, such as the other branch of a condition.
    """
    import jax
    import optax

    slots: list[Event | None] = []
    events: list[Event] = []

    def note(sort: str, network: str, tree: Any) -> None:
        number = len(slots)
        slots.append(None)

        def keep(values: Any) -> None:
            slots[number] = (sort, network, jax.tree_util.tree_map(np.asarray, values))

        jax.debug.callback(keep, tree)

    def watched_state(name: str) -> Any:
        state = getattr(learner, name)

        def apply_fn(variables: Any, *args: Any, **options: Any) -> Any:
            result, inner = captured(state.apply_fn, variables, *args, **options)
            arrays = [plain(value) for value in args if not isinstance(value, bool)]
            tree = {
                "inputs": {f"in{i}": value for i, value in enumerate(arrays)},
                "params": plain(variables["params"]),
                "dropout": dict(options.get("rngs", {})),
                "layers": inner,
                "out": parts(result),
            }
            note("call", name, tree)
            return result

        def update(updates: Any, opt_state: Any, params: Any = None) -> Any:
            note("step", name, {"gradient": plain(updates)})
            return state.tx.update(updates, opt_state, params)

        tx = optax.GradientTransformation(state.tx.init, update)  # type: ignore[arg-type]
        return state.replace(apply_fn=apply_fn, tx=tx)

    yield learner.replace(**{name: watched_state(name) for name in names}), events
    jax.effects_barrier()
    events.extend(event for event in slots if event is not None)
