"""Operators with an effect, such as printing, in the graph of a jitted function.

A pass over a graph may drop an operator whose result nobody reads, move it, or merge it with an
equal one. Each operator with an effect therefore takes a token and returns the next one, and the
last token is a result of the graph: all of them run, once each and in the order of the function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor

from idql_func.compiler.trace import inside_torch_compile, is_tracing

_TOKENS: ContextVar[list[Tensor] | None] = ContextVar("idql_func_tokens", default=None)


@contextlib.contextmanager
def collected_effects() -> Iterator[list[Tensor]]:
    """A context of tracing a function; the list holds the last token, if there is one."""
    tokens: list[Tensor] = []
    reset = _TOKENS.set(tokens)
    try:
        yield tokens
    finally:
        _TOKENS.reset(reset)


def run_with_effect(name: str, operator: Callable[[Tensor], Tensor]) -> None:
    """Run an operator that takes the token before it and returns the one after it.

    Raises:
        NotImplementedError: ``torch.compile`` or ``torch.export`` traces, which would drop it.
    """
    tokens = _TOKENS.get()
    if inside_torch_compile() or (tokens is None and is_tracing()):
        raise NotImplementedError(
            f"{name}: torch.compile and torch.export would drop it: use idql_func.jit instead, or "
            "print outside."
        )
    after = operator(tokens[-1] if tokens else torch.zeros(1))
    if tokens is not None:
        # a transform that ends would take its tensors with it
        tokens[:] = [torch.func.debug_unwrap(after, recurse=True)]


def without_tokens(
    run: Callable[..., Sequence[Tensor]], count: int
) -> Callable[..., Sequence[Tensor]]:
    """A program without its last results, which are tokens."""
    return lambda *tensors: run(*tensors)[:-count]
