"""What the passes over a traced graph ask about its nodes and their values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

__all__ = ["storage_number", "storage_of", "writes"]


def writes(node: Node) -> bool:
    """Whether an operator writes to one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def storage_of(tensor: Tensor) -> int:
    """The address of a (fake) tensor's storage object, which views of one memory share."""
    return tensor.untyped_storage()._cdata


def storage_number(node: Node) -> int:
    """:func:`storage_of` the node's value; minus the node's own number where it is no tensor."""
    value = node.meta.get("val")
    return storage_of(value) if isinstance(value, Tensor) else -id(node)
