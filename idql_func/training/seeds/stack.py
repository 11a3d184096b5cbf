"""Several learners stacked into one, with the learning rates in which they differ.

All leaves of a learner (its parameters, its key, numbers such as an expectile) get a first axis
over the members. Learning rates are static parts of the optimisers, not leaves; if members differ
in one, it is an argument of the update, so that a member has the tree of the learner alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from idql_func.optim import learning_rate_of, with_learning_rate
from idql_func.struct import TrainState
from idql_func.switches import float_dtype
from idql_func.training.updates import training_update
from idql_func.tree import tree_flatten, tree_paths, tree_stack, tree_unflatten
from idql_func.types import Batch, InfoDict, InputError

__all__ = ["member_of", "stack_members", "update_member"]

Rates = Mapping[str, Tensor]
"""Trained field of a learner -> learning rates ``[K]``, if members differ in them."""


def stack_members(members: Sequence[Any]) -> tuple[Any, dict[str, Tensor]]:
    """Stack learners of one structure, and collect the learning rates in which they differ.

    Args:
        members: K learners of one class.

    Returns:
        The stacked learner, with leaves ``[K, ...]``, and field name -> rates ``[K]``.

    Raises:
        InputError: members differ in more than their leaves and rates, in the size of a network or
            in a setting that changes the computation.

    >>> import gymnasium as gym
    >>> from idql_func.agents import BCLearner
    >>> space = gym.spaces.Box(-1, 1, (2,))
    >>> stacked, rates = stack_members(
    ...     [BCLearner.create(seed, space, space, actor_lr=10.0**-seed) for seed in (2, 3)])
    >>> stacked.rng.shape, rates["actor"].tolist()
    (torch.Size([2, 2]), [0.009999999776482582, 0.0010000000474974513])
    """
    first = members[0]
    rates: dict[str, Tensor] = {}
    alike = list(members)
    for name in _trained_fields(first):
        own = [learning_rate_of(getattr(member, name).tx) for member in members]
        if len(set(own)) > 1:
            rates[name] = torch.tensor(own, dtype=float_dtype(), device=first.rng.device)
            alike = [_with_rate(member, name, own[0]) for member in alike]
    spec = tree_flatten(first)[1]
    for member in alike:
        if tree_flatten(member)[1] != spec:
            raise InputError(
                f"members of one program may differ in numbers only, but these "
                f"{type(first).__name__}s differ in {_difference(alike[0], member)}"
            )
    for name, *leaves in zip(tree_paths(first), *(tree_flatten(m)[0] for m in alike), strict=True):
        shapes = {tuple(x.shape) if isinstance(x, Tensor) else () for x in leaves}
        if len(shapes) > 1:
            raise InputError(f"members of one program must have the same sizes, but {name} differs")
    return tree_stack(alike), rates


def update_member(learner: Any, rates: Rates, batch: Batch) -> tuple[Any, InfoDict]:
    """Update one member with its own learning rates ``[]``, inside ``vmap``.

    Returns the member and its losses, as ``learner.update`` does.
    """
    own = learner
    for name, rate in rates.items():
        own = _with_rate(own, name, rate)
    own, info = training_update(type(own))(own, batch)
    # remove the rates again: they are traced values, which static parts cannot hold
    states = {n: getattr(own, n).replace(tx=getattr(learner, n).tx) for n in rates}
    return own.replace(**states), info


def member_of(stacked: Any, member: int, template: Any) -> Any:
    """One learner of a stack, as it is when trained alone.

    Args:
        stacked: the stacked learner.
        member: its index in the stack.
        template: the learner before stacking: Python numbers and learning rates, which no update
            changes, are taken from it.

    >>> import gymnasium as gym
    >>> from idql_func.agents import BCLearner
    >>> space = gym.spaces.Box(-1, 1, (2,))
    >>> alone = [BCLearner.create(seed, space, space, entropy_bonus=0.1) for seed in (2, 3)]
    >>> again = member_of(stack_members(alone)[0], 1, alone[1])
    >>> again.entropy_bonus, bool((again.rng == alone[1].rng).all())
    (0.1, True)
    """
    own, spec = tree_flatten(template)
    leaves = [
        mine if not isinstance(mine, Tensor) else theirs[member].clone()
        for mine, theirs in zip(own, tree_flatten(stacked)[0], strict=True)
    ]
    return tree_unflatten(spec, leaves)


def _trained_fields(learner: Any) -> list[str]:
    return [
        f.name
        for f in dataclasses.fields(learner)
        if isinstance(state := getattr(learner, f.name), TrainState) and state.tx is not None
    ]


def _with_rate(learner: Any, name: str, rate: Any) -> Any:
    state = getattr(learner, name)
    return learner.replace(**{name: state.replace(tx=with_learning_rate(state.tx, rate))})


def _difference(first: Any, other: Any) -> str:
    """The field in which two learners have different structures."""
    for f in dataclasses.fields(first):
        mine, theirs = getattr(first, f.name), getattr(other, f.name)
        leaf = f.metadata.get("pytree_node", True)
        if (tree_flatten(mine)[1] != tree_flatten(theirs)[1]) if leaf else (mine != theirs):
            return f.name
    return "their class"
