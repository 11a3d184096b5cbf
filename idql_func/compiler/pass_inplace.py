"""Put the results of a graph into the memory of its donated inputs.

A copy at the end costs a pass over memory. An operator with an in-place form (``tree_ops.py``)
writes the result there directly, if all readers of the old values have run by then.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from idql_func.compiler import torch_internals
from idql_func.compiler.fx_utils import ends, storage_number
from idql_func.compiler.torch_internals import ANALYSIS, problem_of
from idql_func.kernels.tree_ops import INPLACE_FORMS


def reuse_donated_memory(
    graph: GraphModule,
    outputs: list[tuple[str, Any]],
    donated: Sequence[int],
    tensors: Sequence[Tensor],
) -> list[tuple[str, Any]]:
    """Assign to each output of the graph the memory of a donated leaf of its shape and dtype.

    It is the leaf that an in-place operator can write to, or else the first free one.
    """
    free = [k for k in donated if ("argument", k) not in outputs]
    results = ends(graph)[1].args[0]
    buffers = {} if problem_of(ANALYSIS) else output_buffers(graph)
    pairs: dict[int, int] = {}
    made_here = [value for kind, value in outputs if kind == "graph"]
    for value in sorted(made_here, key=lambda value: value not in buffers):
        made = results[value].meta["val"]
        fits = [k for k in free if (tensors[k].shape, tensors[k].dtype) == (made.shape, made.dtype)]
        if fits:
            pairs[value] = buffers[value] if buffers.get(value) in fits else fits[0]
            free.remove(pairs[value])
    copied = pairs if problem_of(ANALYSIS) else use_inplace_ops(graph, pairs)
    _write_into_inputs(graph, pairs, copied)
    left = [k for k in range(len(results)) if k not in pairs]
    return [
        (kind, value)
        if kind != "graph"
        else ("donated", pairs[value])
        if value in pairs
        else ("graph", left.index(value))
        for kind, value in outputs
    ]


def output_buffers(graph: GraphModule) -> dict[int, int]:
    """For each result, the input whose memory an in-place operator could write it to.

    Only results of operators with an in-place form, or of several in a row, have one.
    """
    inputs, output = ends(graph)
    buffer = {node: k for k, node in enumerate(inputs)}
    for node in graph.graph.nodes:
        if node.target is operator.getitem and _has_inplace_form(node.args[0]):
            written = _whole(_written(node.args[0])[node.args[1]])
            if written in buffer:
                buffer[node] = buffer[written]
    results = [_whole(node) for node in output.args[0]]
    return {k: buffer[r] for k, r in enumerate(results) if r in buffer and r.op != "placeholder"}


def use_inplace_ops(graph: GraphModule, pairs: dict[int, int]) -> dict[int, int]:
    """Replace operators by their in-place forms where no value changes; the pairs left over.

    ``pairs`` maps the number of a result to that of the input whose memory it takes. An in-place
    form is used if it writes each result to the right input and nothing reads the old values
    afterwards. The graph then returns that input instead of the result.
    """
    inputs, output = ends(graph)
    number = {node: k for k, node in enumerate(inputs)}
    order = {node: k for k, node in enumerate(graph.graph.nodes)}
    sharing: dict[int, list[Node]] = defaultdict(list)
    for node in order:
        sharing[storage_number(node)].append(node)

    def is_result_of(value: Node, buffer: Node) -> bool:
        for alias in sharing[storage_number(value)]:
            for k, result in enumerate(output.args[0]):
                if result is alias and (
                    _whole(alias) is not value or pairs.get(k) != number[buffer]
                ):
                    return False
        return True

    def is_last_read(old: Node, reader: Node) -> bool:
        aliases = sharing[storage_number(old)]
        mentions: list[Node] = []
        map_arg((reader.args, reader.kwargs), mentions.append)
        return sum(node in aliases for node in mentions) == 1 and all(
            order[user] <= order[reader] for alias in aliases for user in alias.users
        )

    for node in list(graph.graph.nodes):
        if not _has_inplace_form(node):
            continue
        written = [_whole(old) for old in _written(node)]
        values = {user: written[user.args[1]] for user in node.users}
        if (
            all(old in number and number[old] in pairs.values() for old in written)
            and all(is_last_read(old, node) for old in written)
            and all(is_result_of(value, buffer) for value, buffer in values.items())
        ):
            aliases = {alias for old in written for alias in sharing[storage_number(old)]}
            readers = [
                value
                for value in _readers(graph, aliases)
                if order[value] < order[node] < max(order[user] for user in value.users)
            ]
            with graph.graph.inserting_before(node):
                form, _ = INPLACE_FORMS[node.target]
                arguments = map_arg(node.args, _whole)
                inplace = graph.graph.call_function(form, arguments, {"run_after": readers})
            order[inplace] = order[node]
            for value, buffer in values.items():
                sharing[storage_number(buffer)] += sharing[storage_number(value)]
                value.replace_all_uses_with(buffer)
                graph.graph.erase_node(value)
            graph.graph.erase_node(node)
    graph.recompile()
    return {k: p for k, p in pairs.items() if _whole(output.args[0][k]) is not inputs[p]}


def _write_into_inputs(graph: GraphModule, pairs: dict[int, int], copied: dict[int, int]) -> None:
    """Let a flat graph leave results in its inputs instead of returning them.

    ``pairs`` maps a result's place to the place of the input that takes it; those in ``copied``
    are copied there at the end, the others are there already. The results left are returned in
    their order. None may be a view of an input.
    """
    inputs, output = ends(graph)
    results = output.args[0]
    with graph.graph.inserting_before(output):
        for place, target in copied.items():
            graph.graph.call_function(
                torch.ops.aten.copy_.default, (inputs[target], results[place])
            )
    output.args = (tuple(r for k, r in enumerate(results) if k not in pairs),)
    graph.recompile()


def _readers(graph: GraphModule, old: set[Node]) -> list[Node]:
    """The tensors that depend on the values of some nodes and are used.

    In the graph's order: it becomes part of the program, which the compiler's cache finds by its
    text, and a set of nodes has another order each time.
    """
    dependent = set(old)
    readers = []
    for node in graph.graph.nodes:
        if not dependent.isdisjoint(node.all_input_nodes):
            dependent.add(node)
            if node not in old and node.users and isinstance(node.meta.get("val"), Tensor):
                readers.append(node)
    return readers


def _has_inplace_form(node: Any) -> bool:
    return node.op == "call_function" and node.target in INPLACE_FORMS


def _written(node: Node) -> list[Any]:
    """The arguments that the in-place form writes to, in the order of the operator's results."""
    operator: Any = node.target
    names = torch_internals.argument_names(operator)
    written: list[Any] = []
    for name in INPLACE_FORMS[operator][1]:
        argument: Any = node.args[names.index(name)]
        written.extend(argument if isinstance(argument, list | tuple) else [argument])
    return written


def _whole(node: Any) -> Any:
    """The node behind views that change nothing, such as a ``view`` to the same shape."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], Node):
        source = node.args[0]
        value, other = node.meta.get("val"), source.meta.get("val")
        if not (isinstance(value, Tensor) and isinstance(other, Tensor)):
            break
        if storage_number(node) != storage_number(source) or _geometry(value) != _geometry(other):
            break
        node = source
    return node


def _geometry(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype
