"""Members of an ensemble drawn at random, after ``jaxrl5/networks/ensemble.py``."""

from __future__ import annotations

from torch import Tensor

from idql_func import random
from idql_func.boundary import explain_module
from idql_func.kernels import tree_ops
from idql_func.networks.module import Ensemble
from idql_func.tree import tree_flatten, tree_map, tree_unflatten
from idql_func.types import Params, PRNGKey

__all__ = ["Ensemble", "subsample_ensemble"]


def subsample_ensemble(key: PRNGKey, params: Params, num_sample: int | None, num_qs: int) -> Params:
    """The parameters of ``num_sample`` members drawn without replacement (REDQ, quirk A7).

    With ``num_sample=None`` the parameters are returned unchanged. In a tree with an
    ``Ensemble_0``, members are taken from that entry only, in a new dict (quirk A9).

    Raises:
        ValueError: ``num_sample`` is below 1 or above ``num_qs``.

    >>> import torch
    >>> from idql_func import random
    >>> cut = subsample_ensemble(random.PRNGKey(0), {"w": torch.zeros(10, 3)}, 2, 10)
    >>> cut["w"].shape
    torch.Size([2, 3])
    """
    if num_sample is None:
        return params
    if not 1 <= num_sample <= num_qs:
        at = "at least 1" if num_sample < 1 else f"at most num_qs={num_qs}"
        raise ValueError(f"subsample_ensemble: num_sample must be {at}, got {num_sample}.")
    index = random.choice(key, num_qs, (num_sample,), replace=False)
    if "Ensemble_0" in params:
        return {**params, "Ensemble_0": _members(params["Ensemble_0"], index)}
    return _members(params, index)


def _members(params: Params, index: Tensor) -> Params:
    leaves, spec = tree_flatten(params)
    if tree_ops.supports(leaves):
        return tree_unflatten(spec, tree_ops.take_members(leaves, index))
    return tree_map(lambda p: p[index.long()], params)


explain_module(__name__)
