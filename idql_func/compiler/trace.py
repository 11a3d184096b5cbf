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
from idql_func.compiler.fx_utils import ends, storage_number, writes
from idql_func.compiler.pass_merge import merge_equal_nodes
from idql_func.compiler.threads import COMPILE_LOCK
from idql_func.compiler.torch_internals import ANALYSIS, DYNAMIC_ROWS, problem_of
from idql_func.compiler.traced_values import TracedValues
from idql_func.files.torch_cache import ensure_cache
from idql_func.kernels.build import inside_forward_mode
from idql_func.switches import jit_disabled

_TRACING: ContextVar[bool] = ContextVar("idql_func_tracing", default=False)


def is_tracing() -> bool:
    """Whether the library traces a function."""
    return _TRACING.get()


def inside_transform() -> bool:
    """Whether the code runs under another transform, where a tensor has no value to read.

    >>> inside_transform()
    False
    """
    if torch.compiler.is_dynamo_compiling() or is_tracing() or torch_internals.inside_functorch():
        return True
    # torch's flag holds for the whole process, also while another thread compiles
    return torch.compiler.is_compiling() and not COMPILE_LOCK.held_by_another_thread()


def inside_torch_compile() -> bool:
    """Whether ``torch.compile`` or ``torch.export`` traces, and the library does not."""
    if torch.compiler.is_dynamo_compiling():
        return True
    return (
        torch.compiler.is_compiling()
        and not is_tracing()
        and not COMPILE_LOCK.held_by_another_thread()
    )


def runs_eagerly() -> bool:
    """Whether a jitted function called now runs its Python code instead of a program.

    A program has no derivative in forward mode.
    """
    return (
        jit_disabled()
        or inside_transform()
        or inside_forward_mode()
        or torch_internals.make_fx() is None
    )


def trace(fn: Callable[..., Any], tensors: Sequence[Tensor], name: str = "jit") -> GraphModule:
    """The graph of operators that ``fn`` runs on tensors of these shapes and dtypes.

    Writing into an input writes into a copy of it. ``name`` is that of the function in messages.
    Equal operators on equal inputs are merged, unless the graph writes in place: there two equal
    copies are two buffers.
    """
    ensure_cache()
    make_fx = torch_internals.make_fx()
    assert make_fx is not None

    def observed(*inputs: Tensor) -> Any:
        with TracedValues(name):
            return fn(*inputs)

    token = _TRACING.set(True)
    try:
        with COMPILE_LOCK, torch_internals.graph_code_on_demand():
            graph = make_fx(observed)(*tensors)
    finally:
        _TRACING.reset(token)
    if problem_of(ANALYSIS) is not None:
        return graph
    _copy_written_inputs(graph)
    _functionalize_inplace(graph)
    if not any(writes(node) for node in graph.graph.nodes) and merge_equal_nodes(graph):
        propagate = torch_internals.fake_tensor_propagation()
        assert propagate is not None
        propagate(graph)
    return graph


def run_on_shapes(fn: Callable[..., Any], shapes: Sequence[Any], name: str) -> Any:
    """The result of ``fn`` on tensors without values; ``shapes`` have a shape, dtype and device.

    Inside another transform, or where torch has no such tensors, these are zeros.
    """
    make_mode = None if inside_transform() else torch_internals.fake_tensor_mode()
    if make_mode is None:
        return fn(*[torch.zeros(s.shape, dtype=s.dtype, device=s.device) for s in shapes])
    token = _TRACING.set(True)
    try:
        with COMPILE_LOCK, make_mode(allow_non_fake_inputs=True), TracedValues(name):
            return fn(*[torch.empty(s.shape, dtype=s.dtype, device=s.device) for s in shapes])
    finally:
        _TRACING.reset(token)


def _copy_written_inputs(graph: GraphModule) -> None:
    """Let the operators that write into an input, or into a view of it, write into a copy."""
    inputs, _ = ends(graph)
    written = {storage_number(n.args[0]) for n in graph.graph.nodes if _writes_first(n)}
    copied = [node for node in inputs if storage_number(node) in written]
    for node in copied:
        with graph.graph.inserting_after(inputs[-1]):
            copy = graph.graph.call_function(torch.ops.aten.clone.default, (node,))
        node.replace_all_uses_with(copy, lambda user, copy=copy: user is not copy)
    propagate = torch_internals.fake_tensor_propagation()
    if copied and propagate is not None:
        graph.recompile()
        propagate(graph)


def _writes_first(node: Node) -> bool:
    return writes(node) and bool(node.args) and isinstance(node.args[0], Node)


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
