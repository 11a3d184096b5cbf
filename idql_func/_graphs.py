"""What the passes over a traced graph ask about its nodes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

__all__ = ["storage_number", "writes"]


def writes(node: Node) -> bool:
    """Whether an operator writes to one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def storage_number(node: Node) -> int:
    """What nodes share that are views of one memory; minus the node's own number without any."""
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, Tensor) else -id(node)
