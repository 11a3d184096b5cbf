"""Donated arguments: their memory becomes the result's, and the old tensors say so if used.

The rules are ``jax.jit``'s: after a call with ``donate_argnums`` the donated tensors are gone.
torch has no such state of a tensor, so the Python object changes its class to one that refuses
every operation, while a new object takes over the memory.
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
    """What is left of a tensor whose memory was given away."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(DONATED_MESSAGE)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return "<donated tensor>"


def donated_tensor() -> Tensor:
    """The refusing rest of a tensor that nobody had looked at before it was given away.

    Raises:
        RuntimeError: under a transform, where a tensor has another class, it refuses at once.
    """
    tensor = torch.empty(0)
    if type(tensor) is not Tensor:
        raise RuntimeError(DONATED_MESSAGE)
    tensor.__class__ = DonatedTensor
    return tensor


def mark_owned(tensors: Iterable[Tensor]) -> None:
    """Note that the memory of tensors was made by a donating call, so that the next may keep it."""
    for tensor in tensors:
        setattr(tensor, _OWNED, True)


def take_donated_memory(leaves: Sequence[Any], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The values of donated leaves in memory that nothing else reads; the leaves are refused.

    ``tensors`` are the leaves as a program takes them: where one is not the leaf itself, it is a
    copy already. Memory that an earlier donating call has made is kept. Any other, such as a
    user's array, is copied, which happens at the first call of a loop alone.
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
    """The tree for a donating call that leaves this one as it is: the call works on a copy.

    Only memory that an earlier donating call has made is taken over, under the very tensor objects
    which that call gave; here are the values under other ones.

    >>> import torch
    >>> a = torch.zeros(2)
    >>> without_donation({"a": a})["a"] is a
    False
    """
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)
