"""What all learners share: the key, the boundary checks and the shape of action choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from idql_func.struct import PyTreeNode, field
from idql_func.tree import as_tensor, tree_leaves, tree_map
from idql_func.types import Batch, InputError, PRNGKey

Self = TypeVar("Self", bound="Agent")


class Agent(PyTreeNode):
    """Base of the learners (``jaxrl5/agents/agent.py``): a frozen pytree with a key.

    Methods return ``(result, learner)``, and the learner they return carries the next
    key; the one they were called on is unchanged.
    """

    rng: PRNGKey
    obs_dim: int = field(pytree_node=False)
    act_dim: int = field(pytree_node=False)

    def to(self: Self, device: torch.device | str) -> Self:
        """The learner with all its tensors on a device."""
        return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, self)

    @property
    def float_dtype(self) -> torch.dtype:
        """The dtype of the parameters, which batches must have too."""
        return next(
            x.dtype for x in tree_leaves(self) if isinstance(x, Tensor) and x.is_floating_point()
        )

    def _act(
        self: Self,
        observations: np.ndarray | Tensor,
        choose: Callable[[Self, Tensor], tuple[Tensor, PRNGKey]],
    ) -> tuple[np.ndarray, Self]:
        """Choose actions for ``[O]`` or ``[E, O]``: ``choose`` sees ``[E, O]``."""
        obs = _numbers(observations, f"{type(self).__name__}: observations").to(
            dtype=self.float_dtype, device=self.rng.device
        )
        if obs.ndim not in (1, 2) or obs.shape[-1] != self.obs_dim:
            raise InputError(
                f"{type(self).__name__}: observations must have shape ({self.obs_dim},) or "
                f"(batch, {self.obs_dim}), got {tuple(obs.shape)}."
            )
        actions, rng = choose(self, obs.reshape(-1, self.obs_dim))
        actions = actions if obs.ndim == 2 else actions[0]
        return actions.cpu().numpy(), self.replace(rng=rng)

    def _fields(self, batch: Batch, names: Iterable[str]) -> dict[str, Tensor]:
        """The named entries of a batch as checked tensors ``[B]`` or ``[B, size]``."""
        if not isinstance(batch, Mapping) and not hasattr(batch, "keys"):
            raise TypeError(
                f"{type(self).__name__}: a batch is a dict of tensors, got {type(batch).__name__}."
            )
        sizes = {
            "observations": (self.obs_dim,),
            "next_observations": (self.obs_dim,),
            "actions": (self.act_dim,),
        }
        present, dtype = set(batch.keys()), self.float_dtype
        fields: dict[str, Tensor] = {}
        length: int | None = None
        for name in names:
            if name not in present:
                raise InputError(
                    f"{type(self).__name__}: the batch has no {name!r}; it has "
                    f"{', '.join(sorted(map(str, present))) or 'nothing'}."
                )
            value = batch[name]
            if not isinstance(value, Tensor):
                what = f"{type(self).__name__}: batch[{name!r}]"
                value = _numbers(value, what).to(self.rng.device)
            length = value.shape[0] if length is None and value.ndim else length
            expected = (length, *sizes.get(name, ()))
            if length == 0 or tuple(value.shape) != expected:
                wanted = ", ".join(
                    ["batch" if length is None else str(length), *map(str, expected[1:])]
                )
                raise InputError(
                    f"{type(self).__name__}: batch[{name!r}] must have shape ({wanted}) with at "
                    f"least one row, got {tuple(value.shape)}."
                )
            if value.dtype != dtype:
                raise InputError(
                    f"{type(self).__name__}: batch[{name!r}] must be {dtype} as the "
                    f"parameters are, got {value.dtype}."
                )
            fields[name] = value
        return fields


def _numbers(value: Any, what: str) -> Tensor:
    try:
        tensor = as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or tensor.is_complex():
        raise InputError(
            f"{what} must be a tensor or an array of real numbers, got {type(value).__name__}."
        )
    return tensor


def box_size(space: Any, what: str) -> int:
    """The size of a one-axis ``Box``; any other space is refused by name.

    Raises:
        InputError: the space is no Box, or has several axes.

    >>> box_size(gym.spaces.Box(-1, 1, (3,)), "action_space")
    3
    """
    shape = getattr(space, "shape", None)
    # by shape, not by class: upstream's gym spaces and Gymnasium's both have one
    if isinstance(space, gym.spaces.Dict) or shape is None or len(shape) != 1 or shape[0] < 1:
        raise InputError(
            f"{what} must be a Box with one axis, such as Box(-1, 1, (3,)), got {space}."
        )
    return int(shape[0])
