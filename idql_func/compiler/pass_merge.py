"""Merge operators of a graph that compute the same from the same inputs."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from idql_func.compiler.fx_utils import ends, storage_number
from idql_func.compiler.torch_internals import is_repeatable


def merge_equal_nodes(graph: GraphModule) -> bool:
    """Let equal operators on equal inputs be one, and say whether a view lost its memory.

    Then the fake values of the graph must be computed again, since a view of a merged value is a
    view of another value now. Two results of the graph stay two, and so do random draws and
    unset memory. Nothing in the graph may write in place: there two equal copies are two buffers.
    Numbers are equal if their bits and types are: ``0.0`` is not ``-0.0``.
    """
    _, output = ends(graph)
    results = {storage_number(node) for node in output.all_input_nodes}
    known: dict[Hashable, Node] = {}
    lost: set[int] = set()
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or storage_number(node) in results:
            continue
        if not is_repeatable(node.target):
            continue
        first = known.setdefault(_key((node.target, node.args, node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.graph.erase_node(node)
            if storage_number(node) != storage_number(first):
                lost.add(storage_number(node))
    return not lost.isdisjoint(map(storage_number, graph.graph.nodes))


def _key(value: Any) -> Hashable:
    """A value that equals another only if arguments are equal, with their types."""
    if isinstance(value, tuple | list):
        return type(value).__name__, *map(_key, value)
    if isinstance(value, dict):
        return "dict", *[(name, _key(value[name])) for name in sorted(value)]
    if isinstance(value, float):
        return "float", value.hex()
    if isinstance(value, complex):
        return "complex", value.real.hex(), value.imag.hex()
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return type(value).__name__, value.node
    return type(value), value
