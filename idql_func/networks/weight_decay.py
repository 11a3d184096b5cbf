"""Which parameters weight decay applies to, after ``jaxrl5/networks/mlp.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from idql_func.boundary import explain_module
from idql_func.types import Params


def get_weight_decay_mask(params: Params, exempt: Sequence[str] = ("Input", "Output")) -> Any:
    """True for the leaves that decay: no ``bias``, no name that contains an exempt word.

    >>> import torch
    >>> get_weight_decay_mask({"Dense_0": {"kernel": torch.ones(1), "bias": torch.ones(1)}})
    {'Dense_0': {'kernel': True, 'bias': False}}
    """

    def decays(tree: Mapping[str, Any], inherited: bool) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in tree.items():
            keep = inherited and name != "bias" and not any(word in name for word in exempt)
            result[name] = decays(value, keep) if isinstance(value, Mapping) else keep
        return result

    return decays(params, True)


explain_module(__name__)
