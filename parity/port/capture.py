"""Record intermediate values of the port's networks and learners. Imports torch, never jax.

The counterpart of :mod:`parity.original.capture`: hooks on the modules, which have Flax's names,
and a learner whose ``apply_fn`` and ``tx`` record their arguments.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import idql_func
from idql_func import distributions
from parity.backend import Event


class Optimiser(NamedTuple):
    """A gradient transformation (two functions), as in the port's train states."""

    init: Callable[..., Any]
    update: Callable[..., Any]


def unwrapped(value: Any) -> Any:
    """Unwrap a tensor of ``grad`` and ``vmap``: its values, and the mapped axis of each ``vmap``.

    Trees are unwrapped leaf by leaf. :func:`array` reads the values, outside the transforms.
    """
    if isinstance(value, Mapping):
        return {name: unwrapped(entry) for name, entry in value.items()}
    axes = []
    while (inner := torch.func.debug_unwrap(value, recurse=False)) is not value:
        if inner.ndim > value.ndim:
            axes.append(_mapped_axis(value, inner))
        value = inner
    return value, axes


def _mapped_axis(outer: Tensor, inner: Tensor) -> int:
    """The axis of ``inner`` that ``vmap`` hides in ``outer``."""
    for axis in range(inner.ndim):
        if inner.select(axis, 0).shape == outer.shape and (
            inner.select(axis, 0).stride() == outer.stride()
        ):
            return axis
    raise ValueError(f"no axis of {tuple(inner.shape)} is hidden in {tuple(outer.shape)}")


def array(value: Any) -> Any:
    """The result of :func:`unwrapped` as NumPy arrays, with mapped axes in front."""
    if isinstance(value, Mapping):
        return {name: array(entry) for name, entry in value.items()}
    tensor, axes = value
    out = tensor.detach().cpu().numpy()
    # the outermost map was unwrapped last, and counts its axis without those further in
    for depth, axis in enumerate(reversed(axes)):
        out = np.moveaxis(out, axis + depth, depth)
    return out


def parts(result: Any) -> Any:
    """A tensor unchanged; a distribution as a dict of location and deviation ``[..., A]``."""
    if not isinstance(result, distributions.Diagonal):
        return result
    return {"loc": result.loc, "scale": result.scale.expand(result.loc.shape)}


def captured(module: Any, run: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """The result of ``run`` and the outputs of all of the module's submodules, by path.

    Outputs are results of :func:`unwrapped`, in the order of computation.
    """
    out: dict[str, Any] = {}

    def keep(path: str, _module: Any, _inputs: Any, output: Any) -> None:
        out[path] = unwrapped(parts(output))

    with contextlib.ExitStack() as stack:
        for name, child in module.named_modules():
            if name:
                hook = functools.partial(keep, name.replace(".", "/"))
                stack.callback(child.register_forward_hook(hook).remove)
        return run(), out


@contextlib.contextmanager
def watched(learner: Any, names: Sequence[str]) -> Iterator[tuple[Any, list[Event]]]:
    """A learner that records every call and optimiser step of its networks, and the list of events.

    Inside the block the port runs eagerly, because a compiled graph has no values to record. The
    list is filled when the block ends, in the order of computation.
    """
    notes: list[Event] = []
    events: list[Event] = []

    def watched_state(name: str) -> Any:
        state = getattr(learner, name)

        def apply_fn(params: Any, *args: Any, **options: Any) -> Any:
            call = functools.partial(state.apply_fn, params, *args, **options)
            result, inner = captured(state.apply_fn.__self__, call)
            tree = {
                "inputs": {f"in{i}": unwrapped(value) for i, value in enumerate(args)},
                "params": unwrapped(params),
                "dropout": unwrapped(options.get("rngs") or {}),
                "layers": inner,
                "out": unwrapped(parts(result)),
            }
            notes.append(("call", name, tree))
            return result

        def update(gradient: Any, opt_state: Any, params: Any = None) -> Any:
            notes.append(("step", name, {"gradient": unwrapped(gradient)}))
            return state.tx.update(gradient, opt_state, params)

        tx = state.tx and Optimiser(state.tx.init, update)
        return state.replace(apply_fn=apply_fn, tx=tx)

    with idql_func.disable_jit():
        yield learner.replace(**{name: watched_state(name) for name in names}), events
    events.extend((sort, network, array(tree)) for sort, network, tree in notes)
