"""Variants of one training step with this library: eager, compiled, donated, …"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.case import Plan
from benchmarks.roofline import wait_torch
from benchmarks.timing import Variant
from idql_func import disable_jit, jit
from idql_func.training.runtime.matmul_precision import matmul_precision

__all__ = ["Route", "Work", "route"]

Route = Literal[
    "eager", "compiled", "donated", "cuda graph", "donated cuda graph", "strict", "bf16"
]


@dataclass(frozen=True)
class Work:
    """One training step, its initial state and its inputs."""

    step: Callable[[Any, Any], tuple[Any, Any]]
    """``(state, input) -> (state, losses)``, pure."""
    start: Callable[[], Any]
    """Makes the initial state."""
    inputs: Callable[[], Sequence[Any]]
    """Makes the inputs, which rotate."""
    units: float = 1


def route(name: Route, work: Work, plan: Plan) -> Variant:
    """The variant of this name for the work."""
    device = plan.device
    match name:
        case "eager":
            return _loop(name, work, lambda step: step, scope=disable_jit)
        case "compiled":
            return _loop(name, work, jit)
        case "donated":
            return _loop(name, work, lambda step: jit(step, donate_argnums=0))
        case "cuda graph":
            return _loop(name, work, lambda step: jit(step, cuda_graphs=True))
        case "donated cuda graph":
            return _loop(name, work, lambda step: jit(step, donate_argnums=0, cuda_graphs=True))
        case "strict":
            return _loop(name, work, jit, scope=lambda: matmul_precision("strict", device=device))
        case "bf16":
            return _loop(name, work, jit, scope=lambda: matmul_precision("bf16", device=device))


def _loop(name: str, work: Work, compile_step: Callable[[Any], Any], scope: Any = None) -> Variant:
    def make() -> Callable[[int], Any]:
        inputs, state = work.inputs(), [work.start()]
        program = compile_step(work.step)

        def call(i: int) -> Any:
            state[0], losses = program(state[0], inputs[i % len(inputs)])
            return losses

        return call

    more = {} if scope is None else {"scope": scope}
    return Variant(name, make, wait_torch, units=work.units, **more)
