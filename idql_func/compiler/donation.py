"""Donated arguments: the results take their memory, and any use of the old tensors is an error.

The rules are those of ``jax.jit``: after a call with ``donate_argnums`` the donated tensors can't
be used. Torch tensors have no such state, so the Python object gets a class that raises an error
in every operation, and a new object holds the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from idql_func.tree import tree_map

L = TypeVar("L")

_OWNED = "_idql_func_owned"


DONATED_MESSAGE = (
    "This tensor was donated: a jitted function has put its result into the tensor's memory. "
    "Use the result of that call, or make the call without donation (update(..., donate=False))."
)


class DonatedTensor(Tensor):
    """A tensor whose memory was donated; every operation on it raises an error."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(DONATED_MESSAGE)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return "<donated tensor>"


def donated_tensor() -> Tensor:
    """Placeholder for a donated tensor that was never materialised.

    Raises:
        RuntimeError: inside a transform, where a new tensor has another class.
    """
    tensor = torch.empty(0)
    if type(tensor) is not Tensor:
        raise RuntimeError(DONATED_MESSAGE)
    tensor.__class__ = DonatedTensor
    return tensor


def mark_owned(tensors: Iterable[Tensor]) -> None:
    """Mark tensors whose memory a donating call has made: the next call need not copy them."""
    for tensor in tensors:
        setattr(tensor, _OWNED, True)


def take_donated_memory(leaves: Sequence[Any], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Move donated leaves to memory that nothing else reads, and make the old tensors unusable.

    Memory that an earlier donating call has made is kept. Other memory, such as a user's array,
    is copied, which happens only at the first call of a loop.

    Args:
        leaves: the donated leaves.
        tensors: the same leaves as program inputs; one that is not the leaf itself is a copy.
    """
    taken = [
        tensor
        if tensor is not leaf
        else tensor.detach()
        if hasattr(tensor, _OWNED)
        else tensor.clone()
        for leaf, tensor in zip(leaves, tensors, strict=True)
    ]
    mark_owned(taken)
    for leaf in leaves:
        if type(leaf) is Tensor:
            leaf.__class__ = DonatedTensor
    return taken


def without_donation(tree: L) -> L:
    """The same values in new tensor objects, which a donating call copies before it writes.

    A donating call writes only into memory that an earlier donating call has made, which it
    recognises by the tensor objects.

    >>> import torch
    >>> a = torch.zeros(2)
    >>> without_donation({"a": a})["a"] is a
    False
    """
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)
