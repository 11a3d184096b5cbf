"""The ways to run one step of training with this library: eager, compiled, donated, scanned, …"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.case import Plan
from benchmarks.roofline import wait_torch
from benchmarks.timing import Variant
from idql_func import disable_jit, jit, scan
from idql_func.training.matmul import matmul_precision

__all__ = ["Route", "Work", "route"]

Route = Literal[
    "eager", "compiled", "donated", "scanned", "cuda graph", "donated cuda graph", "strict", "bf16"
]
SCANNED = 16
"""Steps in a call of the route ``scanned``."""


@dataclass(frozen=True)
class Work:
    """One step, and what it starts from."""

    step: Callable[[Any, Any], tuple[Any, Any]]
    """``(state, input) -> (state, losses)``, pure."""
    start: Callable[[], Any]
    """The first state."""
    inputs: Callable[[], Sequence[Any]]
    """What rotates: input ``i`` is number ``i`` modulo their count."""
    units: float = 1


def route(name: Route, work: Work, plan: Plan) -> Variant:
    """The work by one of the ways, as a variant of that name."""
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
        case "scanned":
            return scanned(work, SCANNED)


def scanned(work: Work, steps: int, name: str = "scanned") -> Variant:
    """``steps`` steps a call with donated state and nothing of the host's between them."""

    def make() -> Callable[[int], Any]:
        inputs, state = work.inputs(), [work.start()]
        program = jit(work.step, donate_argnums=0)

        def call(i: int) -> Any:
            given = inputs[i % len(inputs)]
            state[0], losses = scan(lambda carry, _: program(carry, given), state[0], length=steps)
            return losses

        return call

    return Variant(name, make, wait_torch, units=work.units * steps)


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
