"""Gradient transformations as init/update pairs, with optax's arithmetic.

Each is a frozen dataclass, hashable and equal by value, so that two learners with the same
settings share one compiled program. States are optax's named tuples: the count and moments of
``adam`` are at ``opt_state[0]``, as in optax.

:func:`step` and :func:`incremental_update` process a whole tree in one operator where possible
(``kernels/tree_ops.py``); the classes below define what they compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import torch
from torch import Tensor

from idql_func.boundary import describe, explain_module, explained_methods, misfit
from idql_func.kernels import tree_ops
from idql_func.switches import float_dtype, x64_enabled
from idql_func.tree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from idql_func.types import Number, Params

OptState: TypeAlias = Any
Schedule: TypeAlias = Callable[[Tensor], Tensor]
"""A function from the number of steps taken so far (int32, scalar) to a value."""


class GradientTransformation(Protocol):
    """An optimiser, or one transformation of a chain (``optax.GradientTransformation``)."""

    def init(self, params: Params) -> OptState:
        """Make the state before the first step."""
        ...

    def update(
        self, updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        """Return the updates to add to the parameters, and the next state."""
        ...


class EmptyState(NamedTuple):
    """The state of a transformation that keeps no state."""


class ScaleByAdamState(NamedTuple):
    """The step count (int32, scalar) and the first and second moments of each gradient."""

    count: Tensor
    mu: Params
    nu: Params


class ScaleByScheduleState(NamedTuple):
    """The number of steps taken (int32, scalar)."""

    count: Tensor


class MaskedState(NamedTuple):
    """The state of a transformation that acts on selected leaves only."""

    inner_state: OptState


# --- schedules ------------------------------------------------------------------------


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


_INITIAL_RATE: dict[type, str] = {CosineDecaySchedule: "init_value", ConstantSchedule: "value"}
"""The field with the initial rate of each schedule."""


# --- transformations ----------------------------------------------------------------------------


@explained_methods("init", "update")
@dataclass(frozen=True)
class ScaleByAdam:
    """Adam's rescaling (arXiv 1412.6980, algorithm 1), with eps outside the square root."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def init(self, params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(
            _zero_count(params),
            tree_map(torch.zeros_like, params),
            tree_map(torch.zeros_like, params),
        )

    def update(
        self, updates: Params, state: ScaleByAdamState, params: Params | None = None
    ) -> tuple[Params, ScaleByAdamState]:
        b1, b2 = self.b1, self.b2
        mu = tree_map(lambda g, m: (1 - b1) * g + b1 * m, updates, state.mu)
        nu = tree_map(lambda g, v: (1 - b2) * g**2 + b2 * v, updates, state.nu)
        count = _increment(state.count)
        # 1 - b**count in the default float, as optax computes it
        correction1 = 1 - torch.pow(torch.full_like(count, b1, dtype=float_dtype()), count)
        correction2 = 1 - torch.pow(torch.full_like(count, b2, dtype=float_dtype()), count)
        updates = tree_map(
            lambda m, v: (
                (m / correction1.to(m.dtype)) / (torch.sqrt(v / correction2.to(v.dtype)) + self.eps)
            ),
            mu,
            nu,
        )
        return updates, ScaleByAdamState(count, mu, nu)


@explained_methods("init", "update")
@dataclass(frozen=True)
class AddDecayedWeights:
    """Add ``weight_decay * params`` to the updates, for all leaves or those of ``mask``."""

    weight_decay: float
    mask: Callable[[Params], Any] | None = None

    def init(self, params: Params) -> OptState:
        return EmptyState() if self.mask is None else MaskedState(EmptyState())

    def update(
        self, updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        if params is None:
            raise ValueError("adamw: weight decay needs the parameters; pass params to update.")
        if self.mask is None:
            return tree_map(lambda g, p: g + self.weight_decay * p, updates, params), state
        decayed = tree_map(
            lambda g, p, m: g + self.weight_decay * p if m else g,
            updates,
            params,
            self.mask(params),
        )
        return decayed, state


@explained_methods("init", "update")
@dataclass(frozen=True)
class ScaleByLearningRate:
    """Multiply by minus the learning rate: a number, a scalar tensor, or a schedule."""

    learning_rate: float | Tensor | Schedule

    def init(self, params: Params) -> OptState:
        if callable(self.learning_rate):
            return ScaleByScheduleState(_zero_count(params))
        return EmptyState()

    def update(
        self, updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        rate = self.learning_rate
        if not callable(rate):
            return tree_map(lambda g: -rate * g, updates), state
        step_size = -rate(state.count)
        updates = tree_map(lambda g: step_size.to(g.dtype) * g, updates)
        return updates, ScaleByScheduleState(_increment(state.count))


@explained_methods("init", "update")
@dataclass(frozen=True)
class Chain:
    """Apply transformations in order; the state is the tuple of their states."""

    parts: tuple[GradientTransformation, ...]

    def init(self, params: Params) -> tuple[OptState, ...]:
        return tuple(part.init(params) for part in self.parts)

    def update(
        self, updates: Params, state: tuple[OptState, ...], params: Params | None = None
    ) -> tuple[Params, tuple[OptState, ...]]:
        states = []
        for part, old in zip(self.parts, state, strict=True):
            updates, new = part.update(updates, old, params)
            states.append(new)
        return updates, tuple(states)


# --- optimisers -----------------------------------------------------------------------


def chain(*parts: GradientTransformation) -> Chain:
    """Combine transformations that are applied in order (``optax.chain``).

    Raises:
        TypeError: a part is not a transformation.

    >>> state = chain(ScaleByAdam(), ScaleByLearningRate(0.1)).init({"w": torch.zeros(2)})
    >>> type(state[0]).__name__
    'ScaleByAdamState'
    """
    for part in parts:
        if (words := misfit(part, "GradientTransformation")) is not None:
            raise TypeError(f"chain: a part must be {words}, got {describe(part)}.")
    return Chain(parts)


def adam(
    learning_rate: float | Schedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Chain:
    """Make an Adam optimiser (arXiv 1412.6980), as ``optax.adam``.

    >>> tx = adam(0.1)
    >>> params = {"w": torch.tensor([1.0])}
    >>> updates, state = tx.update({"w": torch.tensor([2.0])}, tx.init(params))
    >>> round(updates["w"].item(), 4)
    -0.1
    """
    return chain(ScaleByAdam(b1, b2, eps), ScaleByLearningRate(learning_rate))


def adamw(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
    mask: Any = None,
) -> Chain:
    """Make an Adam optimiser with decoupled weight decay (arXiv 1711.05101), as ``optax.adamw``.

    The default decay is optax's 1e-4, not torch's 1e-2 (quirk U12). ``mask`` is a tree
    of booleans, or a function from parameters to one, that is True where a leaf decays.

    >>> tx = adamw(0.1, weight_decay=0.5)
    >>> params = {"w": torch.tensor([1.0])}
    >>> updates, _ = tx.update({"w": torch.tensor([0.0])}, tx.init(params), params)
    >>> round(updates["w"].item(), 4)
    -0.05
    """
    if mask is not None and not callable(mask):
        leaves, spec = tree_flatten(mask)
        for leaf in leaves:
            if (words := misfit(leaf, "bool")) is not None:
                raise TypeError(f"adamw: each leaf of mask must be {words}, got {describe(leaf)}.")
        mask = _FixedMask(tuple(map(bool, leaves)), spec)
    return chain(
        ScaleByAdam(b1, b2, eps),
        AddDecayedWeights(weight_decay, mask),
        ScaleByLearningRate(learning_rate),
    )


def learning_rate_of(tx: Chain) -> float | Tensor:
    """Return the learning rate of an optimiser, or the initial rate of its schedule.

    Raises:
        ValueError: if it has no learning rate, or a schedule without a known initial rate.

    >>> learning_rate_of(adam(0.1)), learning_rate_of(adamw(cosine_decay_schedule(0.2, 9)))
    (0.1, 0.2)
    """
    rate = _rate_part(tx).learning_rate
    if type(rate) in _INITIAL_RATE:
        return getattr(rate, _INITIAL_RATE[type(rate)])
    if callable(rate):
        raise ValueError(
            f"learning_rate_of: the initial rate of the schedule {describe(rate)} is not known; "
            "use constant_schedule or cosine_decay_schedule."
        )
    return rate


def with_learning_rate(tx: Chain, rate: float | Tensor) -> Chain:
    """Return the optimiser with another learning rate, or its schedule with another initial rate.

    The rate may be a scalar tensor, also one of a batch under ``vmap``: each member of a stack
    then has its own rate, and the states are the same as without it (``optax.inject_hyperparams``
    keeps the rate in the state instead). An optimiser that holds a tensor cannot be a static field
    of a tree; make it inside the transformed function.

    Raises:
        ValueError: under the conditions of :func:`learning_rate_of`.

    >>> with_learning_rate(adam(0.1), 0.2) == adam(0.2)
    True
    """
    part = _rate_part(tx)
    old: Any = part.learning_rate
    learning_rate_of(tx)
    field = _INITIAL_RATE.get(type(old))
    changed = replace(part, learning_rate=replace(old, **{field: rate}) if field else rate)
    return replace(tx, parts=tuple(changed if p is part else p for p in tx.parts))


def _rate_part(tx: Chain) -> ScaleByLearningRate:
    for part in tx.parts:
        if isinstance(part, ScaleByLearningRate):
            return part
    raise ValueError("learning_rate_of: the optimiser has no ScaleByLearningRate; chain one to it.")


def apply_updates(params: Params, updates: Params) -> Params:
    """Return ``params + updates`` (``optax.apply_updates``).

    >>> apply_updates({"w": torch.tensor(1.0)}, {"w": torch.tensor(0.5)})
    {'w': tensor(1.5000)}
    """
    return tree_map(lambda p, u: p + u, params, updates)


def step(
    tx: GradientTransformation, grads: Params, state: OptState, params: Params
) -> tuple[Params, OptState]:
    """Return the parameters after ``tx.update`` and ``apply_updates``, and the next state.

    For Adam and AdamW on CPU tensors this is one operator for the whole tree, with the same
    values. Other optimisers, and a step that is itself differentiated, make the two calls.

    >>> tx = adam(0.1)
    >>> params = {"w": torch.tensor([1.0])}
    >>> params, state = step(tx, {"w": torch.tensor([2.0])}, tx.init(params), params)
    >>> round(params["w"].item(), 4), state[0].count.item()
    (0.9, 1)
    """
    fused = _fused_step(tx, grads, state, params)
    if fused is not None:
        return fused
    updates, state = tx.update(grads, state, params)
    return apply_updates(params, updates), state


def incremental_update(new_tensors: Params, old_tensors: Params, step_size: Number) -> Params:
    """Compute ``step_size * new + (1 - step_size) * old`` (``optax.incremental_update``).

    Computed with two multiplications and an addition, as in optax; ``torch.lerp`` rounds
    differently (quirk U17).

    >>> incremental_update({"w": torch.tensor(1.0)}, {"w": torch.tensor(0.0)}, 0.25)
    {'w': tensor(0.2500)}
    """
    (new, spec), (old, old_spec) = tree_flatten(new_tensors), tree_flatten(old_tensors)
    if spec == old_spec and tree_ops.supports(old, new) and _is_rate(step_size, old[0]):
        return tree_unflatten(spec, tree_ops.moving_average(new, old, step_size))
    return tree_map(
        lambda new, old: step_size * new + (1 - step_size) * old, new_tensors, old_tensors
    )


@dataclass(frozen=True)
class _FixedMask:
    """A tree of booleans as a hashable function of the parameters."""

    leaves: tuple[bool, ...]
    spec: Any

    def __call__(self, params: Params) -> Any:
        return tree_unflatten(self.spec, self.leaves)


def _fused_step(
    tx: GradientTransformation, grads: Params, state: OptState, params: Params
) -> tuple[Params, OptState] | None:
    """:func:`step` as one operator, or None if the operator does not support it."""
    if not isinstance(tx, Chain):
        return None
    kinds = [type(part) for part in tx.parts]
    parts: Any = tx.parts
    if kinds == [ScaleByAdam, ScaleByLearningRate]:
        weight_decay, mask = 0.0, tree_map(lambda leaf: False, params)
    elif kinds == [ScaleByAdam, AddDecayedWeights, ScaleByLearningRate]:
        weight_decay, mask = parts[1].weight_decay, parts[1].mask
        mask = tree_map(lambda leaf: True, params) if mask is None else mask(params)
    else:
        return None
    moments, (old, *between, rate_state) = parts[0], state
    flat, specs = zip(*map(tree_flatten, (grads, params, old.mu, old.nu, mask)), strict=True)
    *tensors, decayed = flat
    numbers = (moments.b1, moments.b2, moments.eps, weight_decay)
    if (
        any(spec != specs[0] for spec in specs)
        or not tree_ops.supports(*tensors)
        or not all(isinstance(x, float) for x in numbers)
    ):
        return None
    rate, leaf = parts[-1].learning_rate, tensors[0][0]
    if callable(rate):
        step_size: Any = (-cast(Schedule, rate)(rate_state.count)).to(leaf.dtype)
        rate_state = ScaleByScheduleState(_increment(rate_state.count))
    else:
        step_size = -rate
    if not _is_rate(step_size, leaf):
        return None
    g, p, mu, nu = tensors
    options: Any = {"decayed": [bool(x) for x in decayed], "wide": x64_enabled()}
    *lists, count = tree_ops.adam_step(g, p, mu, nu, old.count, step_size, numbers, **options)
    new_params, mu, nu = (tree_unflatten(specs[0], leaves) for leaves in lists)
    return new_params, (ScaleByAdamState(count, mu, nu), *between, rate_state)


def _is_rate(value: Any, leaf: Tensor) -> bool:
    """Whether ``value`` is a number, or a scalar tensor with the dtype and device of ``leaf``."""
    if isinstance(value, Tensor):
        return (
            value.ndim == 0
            and value.dtype == leaf.dtype
            and value.device == leaf.device
            and not tree_ops.differentiated(value)
        )
    return isinstance(value, int | float)


def device_of(params: Params) -> torch.device | None:
    """The device of the first tensor of a tree.

    >>> device_of({"w": torch.zeros(2)}), device_of({})
    (device(type='cpu'), None)
    """
    leaf = next(iter(tree_leaves(params)), None)
    return leaf.device if isinstance(leaf, Tensor) else None


def _zero_count(params: Params) -> Tensor:
    return torch.zeros((), dtype=torch.int32, device=device_of(params))


def _increment(count: Tensor) -> Tensor:
    """``count + 1``, saturating at the largest int32."""
    return torch.clamp(count, max=2**31 - 2) + 1


explain_module(__name__)
