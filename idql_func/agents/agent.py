"""What all learners share: the key, the boundary checks and the shape of action choice."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from idql_func import random
from idql_func.compiler.lazy import float_dtype_of
from idql_func.struct import PyTreeNode, TrainState, field
from idql_func.transforms import jit
from idql_func.tree import as_tensor, tree_map
from idql_func.types import Batch, InputError, Params, PRNGKey

TRANSITION_FIELDS = ("observations", "actions", "rewards", "masks", "next_observations")
"""The entries of a batch that every learner with a critic reads."""

Self = TypeVar("Self", bound="Agent")
Policy = TypeVar("Policy", bound="PolicyAgent")


class Agent(PyTreeNode):
    """Base of the learners (``jaxrl5/agents/agent.py``): a frozen pytree with a key.

    Methods return ``(result, learner)``, and the learner they return carries the next
    key; the one they were called on is unchanged. ``update(..., donate=True)`` alone gives
    the learner's memory to the one that it returns: the old one then refuses any use (see
    :func:`idql_func.jit`).
    """

    rng: PRNGKey
    obs_dim: Any = field(pytree_node=False)
    """Size of an observation; learners of nested observations keep the shapes of their parts."""
    act_dim: int = field(pytree_node=False)

    def to(self: Self, device: torch.device | str) -> Self:
        """The learner with all its tensors on a device."""
        return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, self)

    @property
    def float_dtype(self) -> torch.dtype:
        """The dtype of the parameters, which batches must have too."""
        return float_dtype_of(self)

    def _act(
        self: Self,
        observations: Any,
        choose: Callable[[Self, Any], tuple[Tensor, PRNGKey]],
    ) -> tuple[np.ndarray, Self]:
        """Choose actions for one observation or ``E`` of them: ``choose`` always sees a batch."""
        obs, single = self._observations_to_act_on(observations)
        actions, rng = choose(self, obs)
        actions = actions[0] if single else actions
        return actions.cpu().numpy(), self.replace(rng=rng)

    def to_act(self: Self) -> Self:
        """The learner without all that no action depends on: less to pass at every step."""
        return self

    # Learners of nested observations replace the two methods below, and nothing else.

    def _observations_to_act_on(self, observations: Any) -> tuple[Any, bool]:
        """``[O]`` or ``[E, O]`` as a checked ``[E, O]`` on the device, and whether it was one."""
        obs = real_tensor(observations, f"{type(self).__name__}: observations").to(
            dtype=self.float_dtype, device=self.rng.device
        )
        if obs.ndim not in (1, 2) or obs.shape[-1] != self.obs_dim:
            raise InputError(
                f"{type(self).__name__}: observations must have shape ({self.obs_dim},) or "
                f"(batch, {self.obs_dim}), got {tuple(obs.shape)}."
            )
        return obs.reshape(-1, self.obs_dim), obs.ndim == 1

    def _observations_of_batch(
        self, value: Any, name: str, rows: int | None, floats: torch.dtype
    ) -> tuple[Any, int]:
        """A batch's observations, checked, and their number of rows (``rows`` if that is known)."""
        tensor = self._field(value, name, rows, (self.obs_dim,), floats)
        return tensor, tensor.shape[0]

    def _fields(self, batch: Batch, names: Iterable[str]) -> dict[str, Tensor]:
        """The named entries of a batch as checked tensors ``[B]`` or ``[B, size]``."""
        if not isinstance(batch, Mapping) and not hasattr(batch, "keys"):
            raise TypeError(
                f"{type(self).__name__}: a batch is a dict of tensors, got {type(batch).__name__}."
            )
        present = batch.keys()
        fields: dict[str, Any] = {}
        floats = self.float_dtype
        rows: int | None = None
        for name in names:
            if name not in present:
                raise InputError(
                    f"{type(self).__name__}: the batch has no {name!r}; it has "
                    f"{', '.join(sorted(map(str, present))) or 'nothing'}."
                )
            if name in ("observations", "next_observations"):
                value, rows = self._observations_of_batch(batch[name], name, rows, floats)
                fields[name] = value
            else:
                size = (self.act_dim,) if name == "actions" else ()
                fields[name] = self._field(batch[name], name, rows, size, floats)
                rows = fields[name].shape[0]
        return fields

    def _field(
        self,
        value: Any,
        name: str,
        rows: int | None,
        size: tuple[int, ...],
        dtype: torch.dtype,
    ) -> Tensor:
        """One entry of a batch as a checked tensor ``[B, *size]``, the parameters' if floating."""
        if type(value) is Tensor and value.dtype is dtype:  # nearly always: in few steps
            shape = value.shape
            if shape and shape[0] and shape[1:] == size and rows in (None, shape[0]):
                return value
        if not isinstance(value, Tensor):
            what = f"{type(self).__name__}: batch[{name!r}]"
            value = real_tensor(value, what).to(self.rng.device)
        shape, what = value.shape, f"{type(self).__name__}: batch"
        rows = shape[0] if rows is None and shape else rows
        if rows == 0 or shape != (rows, *size):
            wanted = ", ".join(["batch" if rows is None else str(rows), *map(str, size)])
            raise InputError(
                f"{what}[{name!r}] must have shape ({wanted}) with at "
                f"least one row, got {tuple(shape)}."
            )
        if value.dtype != dtype:
            as_what = " as the parameters are" if dtype.is_floating_point else ""
            raise InputError(f"{what}[{name!r}] must be {dtype}{as_what}, got {value.dtype}.")
        return value


@functools.partial(jit, static_argnames="apply_fn")
def _modes(params: Params, observations: Any, *, apply_fn: Any) -> Tensor:
    return apply_fn(params, observations).mode()


@functools.partial(jit, static_argnames="apply_fn")
def _draws(
    params: Params, observations: Any, rng: PRNGKey, *, apply_fn: Any
) -> tuple[Tensor, PRNGKey]:
    key, rng = random.split(rng)
    return apply_fn(params, observations).sample(key), rng


class PolicyAgent(Agent):
    """A learner whose actor gives a distribution over actions: it acts by mode or by draws."""

    actor: TrainState

    def eval_actions(self: Policy, observations: Any) -> tuple[np.ndarray, Policy]:
        """The policy's mode for ``[O]`` or ``[E, O]``: ``[A]`` or ``[E, A]``; the key stays.

        Raises:
            InputError: an observation of another size.
        """
        return self._act(observations, lambda agent, obs: agent.greedy_actions(obs))

    def greedy_actions(self, observations: Any) -> tuple[Tensor, PRNGKey]:
        """:meth:`eval_actions` as a function of tensors, ``[E, O]`` to ``[E, A]``, and the key.

        It checks nothing and may stand inside ``vmap``.
        """
        actor = self.actor
        return _modes(actor.params, observations, apply_fn=actor.apply_fn), self.rng

    def to_act(self: Policy) -> Policy:
        """The learner without all that no action depends on: less to pass at every step."""
        idle = {
            f.name: state.replace(params={}, opt_state=(), tx=None)
            for f in dataclasses.fields(self)
            if isinstance(state := getattr(self, f.name), TrainState)
        }
        return self.replace(**{**idle, "actor": self.actor.replace(opt_state=(), tx=None)})

    def sample_actions(self: Policy, observations: Any) -> tuple[np.ndarray, Policy]:
        """A draw from the policy for ``[O]`` or ``[E, O]``, and the learner with the next key.

        Raises:
            InputError: an observation of another size.
        """
        actor = self.actor
        return self._act(
            observations,
            lambda agent, obs: _draws(actor.params, obs, agent.rng, apply_fn=actor.apply_fn),
        )


def real_tensor(value: Any, what: str) -> Tensor:
    """A tensor of what the user gave, or one sentence that names ``what``.

    Raises:
        InputError: it is no tensor or array of real numbers.

    >>> real_tensor([1, 2], "observations").tolist()
    [1, 2]
    """
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
