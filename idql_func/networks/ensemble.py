"""Networks in parallel by ``vmap`` over stacked parameters, after ``ensemble.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.kernels import tree_ops
from idql_func.networks.module import LazyRng, Module
from idql_func.tree import tree_flatten, tree_map, tree_stack, tree_unflatten
from idql_func.types import Params, PRNGKey


class Ensemble(Module):
    """``num`` copies of a network with weights of their own: outputs gain a first axis.

    Parameters are stacked on axis 0 under ``Vmap<Class>_0``; each member draws them, and
    its dropout masks, from its own split of the key (``nn.vmap`` with ``split_rngs``).

    Raises:
        ValueError: num is below 1.

    >>> from idql_func.networks import MLP, StateActionValue
    >>> critic = Ensemble(StateActionValue, MLP, input_dim=5, hidden_dims=[8], num=2)
    >>> params = critic.init(random.PRNGKey(0))
    >>> critic.apply(params, torch.ones(4, 3), torch.ones(4, 2)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self, net_cls: Callable[..., Module], *args: Any, num: int = 2, **kwargs: Any
    ) -> None:
        super().__init__()
        if num < 1:
            raise ValueError(f"Ensemble: num must be at least 1, got {num}.")
        self.num = num
        member = net_cls(*args, **kwargs)
        self.output_dim = member.output_dim
        self.member_name = f"Vmap{type(member).__name__}_0"
        self.member = self.add(member, self.member_name)

    def init_from(self, rng: LazyRng) -> Params:
        path = (*rng.path, self.member_name)
        members = [self.member.init_from(LazyRng(key, path)) for key in rng.split(self.num)]
        return {self.member_name: tree_stack(members)}

    def forward(self, *inputs: Any, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        # functional_call has put the stacked tensors in the member's place
        stacked = dict(self.member.named_parameters())
        count = next(iter(stacked.values())).shape[0]

        def one(params: dict[str, Tensor], key: PRNGKey | None) -> Tensor:
            stream = (
                LazyRng(key, (*rng.path, self.member_name)) if rng and key is not None else None
            )
            return torch.func.functional_call(
                self.member, params, inputs, {"training": training, "rng": stream}
            )

        keys = rng.split(count) if rng is not None and training else None
        return torch.func.vmap(one, in_dims=(0, None if keys is None else 0))(stacked, keys)


def subsample_ensemble(key: PRNGKey, params: Params, num_sample: int | None, num_qs: int) -> Params:
    """The parameters of ``num_sample`` members drawn without replacement (REDQ, quirk A7).

    With ``num_sample=None`` all stay. Where the tree has an ``Ensemble_0``, only that
    part of it is cut, into a new dict (quirk A9).

    Raises:
        ValueError: more members asked for than there are.

    >>> cut = subsample_ensemble(random.PRNGKey(0), {"w": torch.zeros(10, 3)}, 2, 10)
    >>> cut["w"].shape
    torch.Size([2, 3])
    """
    if num_sample is None:
        return params
    if num_sample > num_qs:
        raise ValueError(f"subsample_ensemble: {num_sample} members asked for of {num_qs}.")
    index = random.choice(key, num_qs, (num_sample,), replace=False)
    if "Ensemble_0" in params:
        return {**params, "Ensemble_0": _members(params["Ensemble_0"], index)}
    return _members(params, index)


def _members(params: Params, index: Tensor) -> Params:
    leaves, spec = tree_flatten(params)
    if tree_ops.supports(leaves):
        return tree_unflatten(spec, tree_ops.take_members(leaves, index))
    return tree_map(lambda p: p[index.long()], params)
