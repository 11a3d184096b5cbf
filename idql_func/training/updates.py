"""Many updates in one call: the dataset is on the device and each batch is drawn there.

The batches are those of :meth:`idql_func.data.Dataset.sample_torch`, row for row, so a scan of K
updates gives the same learner as K calls of ``sample_torch`` and ``update``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from torch import Tensor

from idql_func import random
from idql_func.boundary import explain_module
from idql_func.compiler.donation import without_donation
from idql_func.data.arrays import map_arrays, named_leaves
from idql_func.data.dataset import check_integer
from idql_func.switches import float_dtype
from idql_func.transforms import jit, scan
from idql_func.tree import tree_map
from idql_func.types import InfoDict, InputError, PRNGKey

__all__ = ["Update", "draw_batch", "scan_updates", "training_update"]

L = TypeVar("L")

Update = Callable[[Any, dict[str, Any]], tuple[Any, InfoDict]]
"""From a learner and a batch to the next learner and its losses, as ``IQLLearner.update``."""


_MOST_STEPS = 10**9


def training_update(cls: type) -> Callable[..., tuple[Any, InfoDict]]:
    """The update of a learner's class in training loops: ``training_update`` or ``update``.

    They differ for learners that train a network in some updates only, such as ReBRAC.

    >>> from idql_func.agents import BCLearner
    >>> training_update(BCLearner) is BCLearner.update
    True
    """
    return getattr(cls, "training_update", None) or cls.update  # type: ignore[attr-defined]


def draw_batch(
    arrays: Mapping[str, Any],
    key: PRNGKey,
    batch_size: int,
    rows: Tensor | None = None,
    count: int | Tensor | None = None,
) -> tuple[dict[str, Any], PRNGKey]:
    """Draw a batch with replacement; the pure function of ``Dataset.sample_torch``.

    It works inside ``jit`` and ``vmap``, over keys, rows and arrays.

    Args:
        arrays: field name -> tensor ``[N, ...]``, nested or not, from ``Dataset.on_device``.
        key: a key ``[2]`` on the same device.
        batch_size: number of rows, ``B``.
        rows: row numbers ``[n]`` to draw from, from ``Dataset.split_rows``. Default: all.
        count: how many rows to draw from, if that must not be a constant of the program.

    Returns:
        Field name -> tensor ``[B, ...]``, nested as the arrays are, and the next key.

    >>> import torch
    >>> batch, key = draw_batch({"a": torch.arange(100.0)}, random.PRNGKey(0), 3)
    >>> batch["a"], key.tolist()
    (tensor([92., 52., 87.]), [2718843009, 1272950319])
    """
    draw, key = random.split(key)
    if count is None:
        count = _length(arrays) if rows is None else rows.shape[0]
    index = random.randint(draw, (batch_size,), 0, count)
    if rows is not None:
        # Under vmap, index_select would make the number of rows a constant of the program.
        index = rows[index]
    return map_arrays(arrays, lambda field: field.index_select(0, index)), key


def scan_updates(
    learner: L,
    arrays: Mapping[str, Any],
    key: PRNGKey,
    steps: int,
    batch_size: int,
    *,
    metrics: Literal["mean", "last"] = "mean",
    update: Update | None = None,
    donate: bool = False,
) -> tuple[L, PRNGKey, InfoDict]:
    """Make ``steps`` updates in one call, each on a batch drawn inside the compiled program.

    One program draws a batch and makes an update, and runs ``steps`` times on the same memory:
    nothing is flattened, copied or waited for between the steps. It is compiled once for a learner
    and a batch size, for any number of steps and of rows in the dataset.

    Args:
        learner: any of the learners, or a pytree that ``update`` takes.
        arrays: the dataset: field name -> tensor ``[N, ...]``, nested or not, on the learner's
            device (``Dataset.on_device()``). It is not copied or changed.
        key: the key ``[2]`` of the batches: ``dataset.rng`` draws the batches of ``sample_torch``.
        steps: how many updates, at least 1.
        batch_size: rows of a batch, at least 1.
        metrics: return the mean losses of all steps, or those of the last one.
        update: the update of a step. Default: :func:`training_update`. One program is compiled
            for each function, so pass a module's function or a class's method
            (``DDPMIQLLearner.critic_update``), not a new lambda at each call.
        donate: let the updates reuse the memory of ``learner`` and ``key``, which cannot be
            used afterwards. Without it they are copied once, at the start.

    Returns:
        The learner, the next key, and the losses: scalars under the names of ``update``.

    Raises:
        InputError: steps or batch_size below 1, other metrics, arrays without rows or of unequal
            lengths, or ``update`` refuses the batch.
        TypeError: an array is not a tensor.

    >>> import gymnasium as gym
    >>> import torch
    >>> from idql_func import disable_jit
    >>> from idql_func.agents import BCLearner
    >>> space = gym.spaces.Box(-1, 1, (2,))
    >>> learner = BCLearner.create(0, space, space, hidden_dims=(8,))
    >>> arrays = {"observations": torch.ones(50, 2), "actions": torch.zeros(50, 2)}
    >>> with disable_jit():  # compiling takes seconds; the values are the same
    ...     learner, key, info = scan_updates(
    ...         learner, arrays, random.PRNGKey(0), steps=5, batch_size=4, metrics="last"
    ...     )
    >>> learner.actor.step.item(), sorted(info)
    (5, ['entropy', 'nll'])
    """
    steps = check_integer(steps, "steps", at_least=1)
    if steps > _MOST_STEPS:
        raise InputError(f"steps must be at most {_MOST_STEPS:,} in one call, got {steps:,}.")
    batch_size = check_integer(batch_size, "batch_size", at_least=1)
    if metrics not in ("mean", "last"):
        raise InputError(f"metrics is {metrics!r}, but must be 'mean' or 'last'.")
    count = _checked_length(arrays)
    step = functools.partial(
        _step,
        arrays=dict(arrays),
        count=count,  # an argument, so that the program works for other datasets
        batch_size=batch_size,
        update=update or training_update(type(learner)),
    )
    carry = (learner, key) if donate else without_donation((learner, key))
    (learner, key), infos = scan(step, carry, length=steps)
    reduce = _mean if metrics == "mean" else operator.itemgetter(-1)
    return learner, key, tree_map(reduce, infos)


@functools.partial(
    jit, static_argnames=("batch_size", "update"), donate_argnums=0, open_argnames="arrays"
)
def _step(
    carry: tuple[Any, PRNGKey],
    _: None,
    *,
    arrays: Mapping[str, Any],
    count: int | Tensor | None,
    batch_size: int,
    update: Update,
) -> tuple[tuple[Any, PRNGKey], InfoDict]:
    learner, key = carry
    batch, key = draw_batch(arrays, key, batch_size, count=count)
    learner, info = update(learner, batch)
    return (learner, key), info


def _mean(values: Tensor) -> Tensor:
    return (values if values.is_floating_point() else values.to(float_dtype())).mean(0)


def _length(arrays: Mapping[str, Any]) -> int:
    return next(field for _, field in named_leaves(arrays)).shape[0]


def _checked_length(arrays: Mapping[str, Any]) -> int:
    """The common number of rows."""
    count = None
    for name, field in named_leaves(arrays):
        if not isinstance(field, Tensor) or field.ndim == 0:
            what = "a scalar" if isinstance(field, Tensor) else f"a {type(field).__name__}"
            raise TypeError(
                f"scan_updates: the field {name!r} is {what}; it must be a tensor [N, ...], as "
                "Dataset.on_device() gives."
            )
        count = field.shape[0] if count is None else count
        if field.shape[0] != count:
            raise InputError(
                f"scan_updates: the field {name!r} has {field.shape[0]} rows and others have "
                f"{count}; all must have the same."
            )
    if not count:
        raise InputError("scan_updates: the arrays have no rows to draw from.")
    return count


explain_module(__name__, strict=False)
