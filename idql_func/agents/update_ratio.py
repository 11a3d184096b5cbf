"""Several critic steps per batch: the update-to-data ratio of REDQ (arXiv 2101.05982)."""

from __future__ import annotations

from typing import Any, TypeVar

from idql_func.compiler.donation import without_donation
from idql_func.compiler.lazy import peek
from idql_func.transforms import Jitted, inside_transform, scan
from idql_func.tree import tree_leaves, tree_map
from idql_func.types import Batch, InputError

L = TypeVar("L")


def mini_batches(batch: Batch, utd_ratio: int) -> Batch:
    """Split a batch into ``U = utd_ratio`` equal parts, in order: leaves ``[U, B / U, ...]``.

    Raises:
        InputError: ``utd_ratio`` is not an integer of at least 1, or does not divide the rows.

    >>> import torch
    >>> mini_batches({"rewards": torch.arange(4)}, 2)["rewards"].tolist()
    [[0, 1], [2, 3]]
    """
    rows = tree_leaves(batch)[0].shape[0]
    if not isinstance(utd_ratio, int) or utd_ratio < 1 or rows % utd_ratio:
        raise InputError(
            f"utd_ratio must be an integer of at least 1 that divides the {rows} rows of the "
            f"batch, got {utd_ratio!r}."
        )
    return tree_map(lambda leaf: leaf.unflatten(0, (utd_ratio, rows // utd_ratio)), batch)


def step_on_all_but_last(
    step: Jitted, learner: L, batch: Batch, utd_ratio: int, donate: bool
) -> tuple[L, Batch]:
    """The learner after one ``step`` per part of the batch except the last, and the last part.

    The steps are one :func:`idql_func.scan`, which on a CPU is one call of a compiled program.

    Raises:
        InputError: as :func:`mini_batches`.

    >>> import torch
    >>> from idql_func import disable_jit, jit
    >>> step = jit(lambda total, part: (total + part["rewards"].sum(), part["rewards"]))
    >>> with disable_jit():
    ...     step_on_all_but_last(step, torch.tensor(0), {"rewards": torch.arange(6)}, 3, False)
    (tensor(6), {'rewards': tensor([4, 5])})
    """
    if utd_ratio == 1 and type(utd_ratio) is int:
        return learner, batch
    parts = mini_batches(batch, utd_ratio)
    first = tree_map(lambda leaf: leaf[:-1], parts)
    learner, _ = scan(step.donating(), learner if donate else without_donation(learner), first)
    return learner, tree_map(lambda leaf: leaf[-1], parts)


def known_step_count(learner: Any, network: str) -> int | None:
    """The step count of a learner's network if reading it is free, else None.

    It is None under a transform, and on a GPU, where reading waits for the device.

    >>> import gymnasium as gym
    >>> from idql_func.agents import BCLearner
    >>> space = gym.spaces.Box(-1, 1, (2,))
    >>> known_step_count(BCLearner.create(0, space, space, hidden_dims=(8,)), "actor")
    0
    """
    step = peek(learner, network, "step")
    return None if inside_transform() or step.device.type != "cpu" else int(step.item())
