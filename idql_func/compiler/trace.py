"""From a Python function of tensors to one flat graph of operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from idql_func.compiler import torch_internals
from idql_func.compiler.fx_utils import storage_number, writes
from idql_func.compiler.torch_internals import ANALYSIS, DYNAMIC_ROWS, problem_of
from idql_func.switches import jit_disabled

_TRACING: ContextVar[bool] = ContextVar("idql_func_tracing", default=False)


def inside_transform() -> bool:
    """Whether the code runs under another transform, where a tensor has no value to read.

    >>> inside_transform()
    False
    """
    return torch.compiler.is_compiling() or _TRACING.get() or torch_internals.inside_functorch()


def runs_eagerly() -> bool:
    """Whether a jitted function called now runs its Python code instead of a program."""
    return jit_disabled() or inside_transform() or torch_internals.make_fx() is None


def trace(fn: Callable[..., Any], tensors: Sequence[Tensor]) -> GraphModule:
    """The graph of operators that ``fn`` runs on tensors of these shapes and dtypes.

    Equal operators on equal inputs are merged, unless the graph writes in place: there two equal
    copies are two buffers.
    """
    make_fx = torch_internals.make_fx()
    assert make_fx is not None
    token = _TRACING.set(True)
    try:
        graph = make_fx(fn)(*tensors)
    finally:
        _TRACING.reset(token)
    if problem_of(ANALYSIS) is not None:
        return graph
    _functionalize_inplace(graph)
    if not any(writes(node) for node in graph.graph.nodes):
        merge = torch_internals.merge_equal_nodes()
        propagate = torch_internals.fake_tensor_propagation()
        assert merge is not None and propagate is not None
        graph.graph = merge(graph.graph)
        propagate(graph)  # a view of a value that was merged away is a view of another value now
    return graph


def _functionalize_inplace(graph: GraphModule) -> None:
    """Replace in-place operators on intermediate results by their out-of-place forms.

    Some of torch's derivatives have such operators, for example that of ``clamp``. A result that
    another node can see through a view is left as it is.
    """
    aliases = Counter(map(storage_number, graph.graph.nodes))
    replaced: dict[Node, Node] = {}
    for node in graph.graph.nodes:
        node.args = map_arg(node.args, lambda n: replaced.get(n, n))
        node.kwargs = map_arg(node.kwargs, lambda n: replaced.get(n, n))
        pure = torch_internals.out_of_place(node.target) if writes(node) else None
        if pure is None:
            continue
        (written, *_) = node.args
        # the two aliases of the buffer are the argument and the result
        if written.op == "call_function" and aliases[storage_number(written)] == 2:
            node.target = pure
            replaced[written] = node
    graph.recompile()


def example_inputs(tensors: Sequence[Tensor], dynamic_rows: Collection[int] = ()) -> list[Any]:
    """Tensors to trace a function with, of the same shapes and dtypes.

    Args:
        tensors: the inputs of a call.
        dynamic_rows: which of them may have any length along the first axis.
    """
    dynamic = bool(dynamic_rows) and problem_of(DYNAMIC_ROWS) is None
    maker = torch_internals.fake_tensor_with_dynamic_rows() if dynamic else None
    if maker is None:
        return [torch.empty_like(t) for t in tensors]
    make = maker()
    return [make(tensor, k in dynamic_rows) for k, tensor in enumerate(tensors)]
