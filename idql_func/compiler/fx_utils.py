"""Properties of a traced graph's nodes and their values, for the passes over it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from idql_func.compiler import torch_internals


def writes(node: Node) -> bool:
    """Whether an operator writes to one of its arguments."""
    return torch_internals.is_mutable(node.target)


def storage_number(node: Node) -> int:
    """The storage of the node's value; minus the node's own number where it is no tensor."""
    value = node.meta.get("val")
    return torch_internals.storage_of(value) if isinstance(value, Tensor) else -id(node)


def ends(graph: torch.fx.GraphModule) -> tuple[list[Node], Any]:
    """The inputs of a flat graph, and its output node, whose ``args[0]`` are the results."""
    *nodes, output = graph.graph.nodes
    return [node for node in nodes if node.op == "placeholder"], output
