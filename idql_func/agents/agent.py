"""What all learners share: the key, the checks of a batch, and action choice on tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from idql_func.agents.checks import real_tensor
from idql_func.compiler.lazy import float_dtype_of
from idql_func.deprecation import moved_names
from idql_func.struct import PyTreeNode, field
from idql_func.tree import tree_map
from idql_func.types import Batch, InputError, PRNGKey

TRANSITION_FIELDS = ("observations", "actions", "rewards", "masks", "next_observations")
"""The entries of a batch that every learner with a critic reads."""


class Agent(PyTreeNode):
    """Base of the learners (``jaxrl5/agents/agent.py``): a frozen pytree with a key.

    Methods return ``(result, learner)``. The returned learner has the next key; the learner
    whose method was called is unchanged. Only ``update(..., donate=True)`` reuses the memory of
    its learner, which then raises an error at any use (see :func:`idql_func.jit`).

    ``pickle``, ``copy.deepcopy`` and ``torch.save`` keep every bit, and the copy uses the compiled
    programs of its original. Unpickling runs code: exchange files with ``save_checkpoint``.
    """

    rng: PRNGKey
    obs_dim: Any = field(pytree_node=False)
    """Size of an observation; for nested observations the shape of each entry."""
    act_dim: int = field(pytree_node=False)

    def to(self, device: torch.device | str) -> Self:
        """The learner with all its tensors on a device."""
        return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, self)

    def to_act(self) -> Self:
        """The learner without the tensors that no action depends on."""
        return self

    @property
    def float_dtype(self) -> torch.dtype:
        """The dtype of the parameters, which batches must have too."""
        return float_dtype_of(self)

    def _act(
        self,
        observations: Any,
        choose: Callable[[Self, Any], tuple[Any, PRNGKey]],
    ) -> tuple[np.ndarray, Self]:
        """Choose actions for one observation or ``E`` of them; ``choose`` gets a batch."""
        obs, single = self._observations_to_act_on(observations)
        actions, rng = choose(self, obs)
        actions = actions[0] if single else actions
        if not torch.compiler.is_exporting():  # a graph of torch.export returns tensors
            actions = actions.cpu().numpy()
        return actions, self.replace(rng=rng)

    # Learners of nested observations override the two methods below.

    def _observations_to_act_on(self, observations: Any) -> tuple[Any, bool]:
        """Check ``[O]`` or ``[E, O]``; return ``[E, O]`` and whether there was no first axis."""
        obs = real_tensor(observations, f"{type(self).__name__}: observations").to(
            dtype=self.float_dtype, device=self.rng.device
        )
        if obs.ndim not in (1, 2) or obs.shape[-1] != self.obs_dim:
            raise InputError(
                f"{type(self).__name__}: observations must have shape ({self.obs_dim},) or "
                f"(batch, {self.obs_dim}), got {tuple(obs.shape)}."
            )
        return obs.reshape(-1, self.obs_dim), obs.ndim == 1

    def _checked_observations(
        self, value: Any, name: str, rows: int | None, floats: torch.dtype
    ) -> tuple[Any, int]:
        """A batch's observations, checked, and their number of rows."""
        tensor = self._checked_entry(value, name, rows, (self.obs_dim,), floats)
        return tensor, tensor.shape[0]

    def _checked_batch(self, batch: Batch, names: Iterable[str]) -> dict[str, Tensor]:
        """The named entries of a batch as checked tensors ``[B]`` or ``[B, size]``."""
        if not isinstance(batch, Mapping) and not hasattr(batch, "keys"):
            raise TypeError(
                f"{type(self).__name__}: a batch is a dict of tensors, got {type(batch).__name__}."
            )
        present = batch.keys()
        entries: dict[str, Any] = {}
        floats = self.float_dtype
        rows: int | None = None
        for name in names:
            if name not in present:
                raise InputError(
                    f"{type(self).__name__}: the batch has no {name!r}; it has "
                    f"{', '.join(sorted(map(str, present))) or 'nothing'}."
                )
            if name in ("observations", "next_observations"):
                entries[name], rows = self._checked_observations(batch[name], name, rows, floats)
            else:
                size = (self.act_dim,) if name.endswith("actions") else ()
                entries[name] = self._checked_entry(batch[name], name, rows, size, floats)
                rows = entries[name].shape[0]
        return entries

    def _checked_entry(
        self, value: Any, name: str, rows: int | None, size: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        """One entry of a batch as a checked tensor ``[B, *size]`` of ``dtype``."""
        if type(value) is Tensor and value.dtype is dtype and not value.is_meta:  # usual: fast
            shape = value.shape
            if shape and shape[0] and shape[1:] == size and rows in (None, shape[0]):
                return value
        what = f"{type(self).__name__}: batch[{name!r}]"
        if not isinstance(value, Tensor) or value.is_sparse or value.is_meta != self.rng.is_meta:
            value = real_tensor(value, what).to(self.rng.device)
        shape = value.shape
        rows = shape[0] if rows is None and shape else rows
        if rows == 0 or shape != (rows, *size):
            wanted = ", ".join(["batch" if rows is None else str(rows), *map(str, size)])
            raise InputError(
                f"{what} must have shape ({wanted}) with at least one row, got {tuple(shape)}."
            )
        if value.dtype != dtype:
            reason = " as the parameters are" if dtype.is_floating_point else ""
            raise InputError(f"{what} must be {dtype}{reason}, got {value.dtype}.")
        return value


__getattr__ = moved_names(__name__)
