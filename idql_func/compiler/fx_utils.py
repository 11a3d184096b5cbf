"""What the passes over a traced graph ask about its nodes and their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from idql_func.compiler import torch_internals


def writes(node: Node) -> bool:
    """Whether an operator writes to one of its arguments."""
    return torch_internals.is_mutable(node.target)


def storage_of(tensor: Tensor) -> int:
    """The address of a (fake) tensor's storage object, which views of one memory share."""
    return torch_internals.storage_number(tensor)


def storage_number(node: Node) -> int:
    """:func:`storage_of` the node's value; minus the node's own number where it is no tensor."""
    value = node.meta.get("val")
    return storage_of(value) if isinstance(value, Tensor) else -id(node)


def results_of(graph: torch.fx.GraphModule) -> Sequence[Any]:
    """The nodes that a flat graph returns."""
    return next(node for node in graph.graph.nodes if node.op == "output").args[0]
