"""From a Python function of tensors to one flat graph of operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from idql_func.compiler.fx_utils import storage_number, writes

_TRACING: ContextVar[bool] = ContextVar("idql_func_tracing", default=False)


def tracing() -> bool:
    """Whether :func:`trace` is at work."""
    return _TRACING.get()


def inside_transform() -> bool:
    """Whether the code runs under another transform, where no tensor has a value to read.

    >>> inside_transform()
    False
    """
    return (
        tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined]
        or torch.compiler.is_compiling()
    )


def trace(fn: Callable[..., Any], tensors: Sequence[Tensor]) -> torch.fx.GraphModule:
    """The graph of operations that ``fn`` does on such tensors."""
    token = _TRACING.set(True)
    try:
        graph = make_fx(fn, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    finally:
        _TRACING.reset(token)
    # What is computed twice from the same values is computed once, unless something is written in
    # place, where two equal copies are two places.
    _functionalize_inplace(graph)
    if not any(writes(node) for node in graph.graph.nodes):
        from torch._functorch.compile_utils import fx_graph_cse  # brings sympy, half a second

        graph.graph = fx_graph_cse(graph.graph)
        _refresh_fake_values(graph)
    return graph


def _refresh_fake_values(graph: torch.fx.GraphModule) -> None:
    """Note anew what each node makes: views of a value that was merged away are another's now."""
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    values = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    mode = next((value.fake_mode for value in values if isinstance(value, FakeTensor)), None)
    if mode is not None:
        FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*values)


def _functionalize_inplace(graph: torch.fx.GraphModule) -> None:
    """Let operators that write over an intermediate result make a new one, where none sees it.

    Some of torch's derivatives do so, that of ``clamp`` for one.
    """
    names = Counter(map(storage_number, graph.graph.nodes))
    later: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in graph.graph.nodes:
        node.args = map_arg(node.args, lambda n: later.get(n, n))
        node.kwargs = map_arg(node.kwargs, lambda n: later.get(n, n))
        pure = _without_writing(node) if writes(node) else None
        if pure is None:
            continue
        (written, *_) = node.args
        # the two names of the one place that is written: the argument's and the result's
        if written.op == "call_function" and names[storage_number(written)] == 2:
            node.target = pure
            later[written] = node
    graph.recompile()


def _without_writing(node: torch.fx.Node) -> torch._ops.OpOverload | None:
    """The operator that does the same as ``name_`` does to its first argument, but to a copy."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    first, *others = target._schema.arguments
    written = [argument for argument in others if argument.alias_info is not None]
    namespace, name = target._schema.name.split("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    if written or first.alias_info is None or not name.endswith("_") or packet is None:
        return None
    return getattr(packet, target._overloadname, None)


def examples(tensors: Sequence[Tensor], open_rows: Collection[int] = ()) -> list[Any]:
    """Tensors like these to trace a function with; the first axis of some may be of any length."""
    if not open_rows:
        return [torch.empty_like(t) for t in tensors]
    # not at the top: it brings sympy with it, which takes half a second
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import (
        DimDynamic,
        ShapeEnv,
        StatelessSymbolicContext,
    )

    mode = FakeTensorMode(
        shape_env=ShapeEnv(assume_static_by_default=True, duck_shape=False),
        allow_non_fake_inputs=True,
    )
    fakes = []
    for k, tensor in enumerate(tensors):
        sizes = [DimDynamic.STATIC] * tensor.ndim
        if k in open_rows and tensor.ndim:
            sizes[0] = DimDynamic.DYNAMIC
        fakes.append(
            mode.from_tensor(
                tensor.detach(), symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes)
            )
        )
    return fakes
