"""Schedules: functions of the number of steps taken, with optax's arithmetic.

Each is a frozen dataclass, hashable and equal by value, as the optimisers that hold it
(:mod:`idql_func.optim`, which has these names too) must be.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from idql_func.boundary import describe, explain_module, explained_methods
from idql_func.switches import float_dtype, x64_enabled

__all__ = [
    "ConstantSchedule",
    "CosineDecaySchedule",
    "JoinedSchedules",
    "LinearSchedule",
    "Schedule",
    "constant_schedule",
    "cosine_decay_schedule",
    "join_schedules",
    "linear_schedule",
]

Schedule: TypeAlias = Callable[[Tensor], Tensor]
"""A function from the number of steps taken so far (int32, scalar) to a value."""


@explained_methods("__call__")
@dataclass(frozen=True)
class ConstantSchedule:
    """A constant value; see :func:`constant_schedule`."""

    value: float | Tensor

    def __call__(self, count: Tensor) -> Tensor:
        return torch.ones_like(count, dtype=float_dtype()) * self.value


@explained_methods("__call__")
@dataclass(frozen=True)
class CosineDecaySchedule:
    """Half a cosine from ``init_value`` down; see :func:`cosine_decay_schedule`."""

    init_value: float | Tensor
    decay_steps: int
    alpha: float = 0.0

    def __call__(self, count: Tensor) -> Tensor:
        count = torch.clamp(count, max=self.decay_steps).to(float_dtype())
        decay = 0.5 * (1 + torch.cos(math.pi * count / self.decay_steps))
        return self.init_value * ((1 - self.alpha) * decay + self.alpha)


@explained_methods("__call__")
@dataclass(frozen=True)
class LinearSchedule:
    """A straight line between two values; see :func:`linear_schedule`."""

    init_value: float | Tensor
    end_value: float | Tensor
    transition_steps: int
    transition_begin: int = 0

    def __call__(self, count: Tensor) -> Tensor:
        steps = torch.clamp(count - self.transition_begin, 0, self.transition_steps)
        # 32-bit integers are divided in float32, also with x64, as in JAX
        dtype = torch.float64 if count.dtype == torch.int64 and x64_enabled() else torch.float32
        left = 1 - steps.to(dtype) / self.transition_steps
        return (self.init_value - self.end_value) * left + self.end_value


@explained_methods("__call__")
@dataclass(frozen=True)
class JoinedSchedules:
    """One schedule after another; see :func:`join_schedules`."""

    schedules: tuple[Schedule, ...]
    boundaries: tuple[int, ...]

    def __call__(self, count: Tensor) -> Tensor:
        begins = (0, *self.boundaries)
        values = [
            torch.as_tensor(schedule(count - begin if begin else count), device=count.device)
            for begin, schedule in zip(begins, self.schedules, strict=True)
        ]
        dtype = self._dtype(values)
        value = values[0].to(dtype)
        for boundary, later in zip(self.boundaries, values[1:], strict=True):
            value = torch.where(count < boundary, value, later.to(dtype))
        return value

    def _dtype(self, values: Sequence[Tensor]) -> torch.dtype:
        """That of the parts which have one: JAX's constants and cosines take any float dtype."""
        fixed = [
            value.dtype
            for value, schedule in zip(values, self.schedules, strict=True)
            if not isinstance(schedule, ConstantSchedule | CosineDecaySchedule)
        ]
        return functools.reduce(torch.promote_types, fixed) if fixed else float_dtype()


def constant_schedule(value: float) -> ConstantSchedule:
    """Make a schedule with a constant value (``optax.constant_schedule``).

    >>> constant_schedule(0.5)(torch.tensor(3)).item()
    0.5
    """
    return ConstantSchedule(float(value))


def cosine_decay_schedule(
    init_value: float, decay_steps: int, alpha: float = 0.0
) -> CosineDecaySchedule:
    """Make a cosine decay schedule (``optax.cosine_decay_schedule``, arXiv 1608.03983).

    ``init * ((1 - alpha) * (1 + cos(pi * t / decay_steps)) / 2 + alpha)``. With ``alpha`` 0 it is
    exactly zero from ``decay_steps`` on (quirk U15).

    Raises:
        ValueError: if decay_steps is not positive.

    >>> [round(cosine_decay_schedule(1.0, 4)(torch.tensor(t)).item(), 3) for t in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """
    if decay_steps <= 0:
        raise ValueError(f"cosine_decay_schedule: decay_steps must be positive, got {decay_steps}.")
    return CosineDecaySchedule(float(init_value), int(decay_steps), float(alpha))


def linear_schedule(
    init_value: float, end_value: float, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """Make a schedule that goes straight from one value to another (``optax.linear_schedule``).

    It has the first value until ``transition_begin`` and the last one from ``transition_steps``
    later on. A learning rate that warms up is a linear schedule before another one
    (:func:`join_schedules`).

    Args:
        init_value: the value before the transition.
        end_value: the value after it.
        transition_steps: at least 1; optax takes 0 or less for "always ``init_value``".
        transition_begin: steps before the transition, at least 0.

    Raises:
        ValueError: transition_steps is not positive, or transition_begin is negative.

    >>> [linear_schedule(0.0, 1.0, 4)(torch.tensor(t)).item() for t in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """
    if transition_steps <= 0:
        raise ValueError(
            f"linear_schedule: transition_steps must be positive, got {transition_steps}."
        )
    if transition_begin < 0:
        raise ValueError(
            f"linear_schedule: transition_begin must not be negative, got {transition_begin}."
        )
    return LinearSchedule(
        float(init_value), float(end_value), int(transition_steps), int(transition_begin)
    )


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> JoinedSchedules:
    """Make a schedule of several, one after another (``optax.join_schedules``).

    Args:
        schedules: N schedules. Each counts from its own first step.
        boundaries: the N - 1 steps at which the next one begins, increasing.

    Raises:
        ValueError: the numbers do not fit together, or the boundaries do not increase.
        TypeError: a schedule is not a function.

    >>> warm_up = linear_schedule(0.0, 1.0, 2)
    >>> rate = join_schedules([warm_up, cosine_decay_schedule(1.0, 4)], [2])
    >>> [round(rate(torch.tensor(t)).item(), 3) for t in (0, 1, 2, 4, 6)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    schedules, boundaries = tuple(schedules), tuple(boundaries)
    if not schedules or len(schedules) != len(boundaries) + 1:
        raise ValueError(
            "join_schedules: give schedules and one boundary less, got "
            f"{len(schedules)} and {len(boundaries)}."
        )
    for schedule in schedules:
        if not callable(schedule):
            raise TypeError(
                f"join_schedules: a schedule must be a function of the step, got "
                f"{describe(schedule)}."
            )
    if any(a >= b for a, b in itertools.pairwise((0, *boundaries))):
        raise ValueError(
            f"join_schedules: the boundaries must be positive and increase, got {boundaries}."
        )
    return JoinedSchedules(schedules, tuple(map(int, boundaries)))


explain_module(__name__)
