"""Type aliases for signatures, after ``jaxrl5/types.py``, and the error for bad input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from idql_func.errors import InputError

__all__ = [
    "Batch",
    "DataType",
    "DatasetDict",
    "InfoDict",
    "InputError",
    "Number",
    "PRNGKey",
    "Params",
    "PyTree",
]

PRNGKey: TypeAlias = torch.Tensor
"""A threefry key: an int64 tensor ``[2]`` that holds two unsigned 32-bit words."""

Number: TypeAlias = float | torch.Tensor
"""A number, or a tensor of them, for example one for each member of a stack."""

Params: TypeAlias = dict[str, Any]
"""A Flax parameter tree: nested dicts of tensors, ``kernel`` laid out ``[in, out]``."""

DataType: TypeAlias = np.ndarray | dict[str, "DataType"]
"""An array, or a nested dict of arrays with equal first axes."""

DatasetDict: TypeAlias = dict[str, DataType]
"""The arrays of a dataset by field name."""

Batch: TypeAlias = Mapping[str, Any]
"""``observations, actions, rewards, masks, dones, next_observations`` as tensors ``[B, ...]``."""

InfoDict: TypeAlias = dict[str, torch.Tensor]
"""Scalar tensors under upstream's names: ``actor_loss, value_loss, v, critic_loss, q, ...``."""

PyTree: TypeAlias = Any
"""Any nesting of tuples, lists, dicts, named tuples and registered dataclasses."""
