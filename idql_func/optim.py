"""Gradient transformations as init/update pairs, with optax's arithmetic.

Each is a frozen dataclass, hashable and equal by value, so that two learners with the same
settings share one compiled program. States are optax's named tuples: the count and moments of
``adam`` are at ``opt_state[0]``, as in optax.

:func:`step` and :func:`incremental_update` process a whole tree in one operator where possible
(``kernels/tree_ops.py``); the classes below define what they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import torch
from torch import Tensor

from idql_func.boundary import describe, explain_module, explained_methods, misfit
from idql_func.kernels import tree_ops
from idql_func.schedules import (
    ConstantSchedule,
    CosineDecaySchedule,
    JoinedSchedules,
    LinearSchedule,
    Schedule,
    constant_schedule,
    cosine_decay_schedule,
    join_schedules,
    linear_schedule,
)
from idql_func.switches import float_dtype, x64_enabled
from idql_func.tree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from idql_func.types import Number, Params

__all__ = [
    "AddDecayedWeights",
    "Chain",
    "Clip",
    "ClipByGlobalNorm",
    "ConstantSchedule",
    "CosineDecaySchedule",
    "EmptyState",
    "GradientTransformation",
    "Identity",
    "JoinedSchedules",
    "LinearSchedule",
    "MaskedState",
    "OptState",
    "ScaleByAdam",
    "ScaleByAdamState",
    "ScaleByLearningRate",
    "ScaleBySchedule",
    "ScaleByScheduleState",
    "Schedule",
    "Trace",
    "TraceState",
    "adam",
    "adamw",
    "apply_updates",
    "chain",
    "clip",
    "clip_by_global_norm",
    "constant_schedule",
    "cosine_decay_schedule",
    "device_of",
    "global_norm",
    "incremental_update",
    "join_schedules",
    "learning_rate_of",
    "linear_schedule",
    "scale_by_adam",
    "scale_by_schedule",
    "sgd",
    "step",
    "with_learning_rate",
]

OptState: TypeAlias = Any


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


class TraceState(NamedTuple):
    """The decaying sum of the gradients so far."""

    trace: Params


class MaskedState(NamedTuple):
    """The state of a transformation that acts on selected leaves only."""

    inner_state: OptState


_INITIAL_RATE: dict[type, str] = {CosineDecaySchedule: "init_value", ConstantSchedule: "value"}
"""The field with the initial rate of each schedule."""


# --- transformations ----------------------------------------------------------------------------


@explained_methods("init", "update")
@dataclass(frozen=True)
class ScaleByAdam:
    """Adam's rescaling (arXiv 1412.6980, algorithm 1), with eps outside the square root.

    ``eps_root`` is added inside it, so that the step has a derivative where a gradient is 0.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0

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
        correction1 = 1 - torch.pow(_filled(count, b1), count)
        correction2 = 1 - torch.pow(_filled(count, b2), count)

        def rescaled(m: Tensor, v: Tensor) -> Tensor:
            square = v / correction2.to(v.dtype)
            if not _is_zero(self.eps_root):
                square = square + self.eps_root
            return (m / correction1.to(m.dtype)) / (torch.sqrt(square) + self.eps)

        return tree_map(rescaled, mu, nu), ScaleByAdamState(count, mu, nu)


@explained_methods("init", "update")
@dataclass(frozen=True)
class Trace:
    """A decaying sum of the gradients (momentum); with ``nesterov`` one step ahead of it."""

    decay: float
    nesterov: bool = False

    def init(self, params: Params) -> TraceState:
        return TraceState(tree_map(torch.zeros_like, params))

    def update(
        self, updates: Params, state: TraceState, params: Params | None = None
    ) -> tuple[Params, TraceState]:
        trace = tree_map(self._add, updates, state.trace)
        return tree_map(self._add, updates, trace) if self.nesterov else trace, TraceState(trace)

    def _add(self, gradient: Tensor, trace: Tensor) -> Tensor:
        return gradient + self.decay * trace


class _Stateless:
    """A transformation of the updates alone."""

    def init(self, params: Params) -> EmptyState:
        return EmptyState()


@explained_methods("init", "update")
@dataclass(frozen=True)
class Identity(_Stateless):
    """Leave the updates as they are (``optax.identity``)."""

    def update(
        self, updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        return updates, state


@explained_methods("init", "update")
@dataclass(frozen=True)
class Clip(_Stateless):
    """Clip each element; see :func:`clip`."""

    max_delta: float

    def update(
        self, updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        limit = self.max_delta
        return tree_map(lambda g: torch.clamp(g, -limit, limit), updates), state


@explained_methods("init", "update")
@dataclass(frozen=True)
class ClipByGlobalNorm(_Stateless):
    """Scale down updates with a large norm; see :func:`clip_by_global_norm`."""

    max_norm: float

    def update(
        self, updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        norm = global_norm(updates)
        small = norm < self.max_norm
        return tree_map(
            lambda g: torch.where(small, g, (g / norm.to(g.dtype)) * self.max_norm), updates
        ), state


@explained_methods("init", "update")
@dataclass(frozen=True)
class ScaleBySchedule:
    """Multiply by a schedule's value; see :func:`scale_by_schedule`."""

    step_size_fn: Schedule

    def init(self, params: Params) -> ScaleByScheduleState:
        return ScaleByScheduleState(_zero_count(params))

    def update(
        self, updates: Params, state: ScaleByScheduleState, params: Params | None = None
    ) -> tuple[Params, ScaleByScheduleState]:
        factor = self.step_size_fn(state.count)
        updates = tree_map(lambda g: factor.to(g.dtype) * g, updates)
        return updates, ScaleByScheduleState(_increment(state.count))


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
        return tree_map(self._decayed, updates, params, self.mask(params)), state

    def _decayed(self, gradient: Tensor, leaf: Tensor, decays: Any) -> Tensor:
        if not isinstance(decays, Tensor) and (words := misfit(decays, "bool")) is not None:
            raise TypeError(f"adamw: each leaf of mask must be {words}, got {describe(decays)}.")
        return gradient + self.weight_decay * leaf if decays else gradient


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
        ValueError: there is no part.

    >>> state = chain(ScaleByAdam(), ScaleByLearningRate(0.1)).init({"w": torch.zeros(2)})
    >>> type(state[0]).__name__
    'ScaleByAdamState'
    """
    if not parts:
        raise ValueError("chain: give at least one transformation, such as scale_by_adam().")
    for part in parts:
        if (words := misfit(part, "GradientTransformation")) is not None:
            raise TypeError(f"chain: a part must be {words}, got {describe(part)}.")
    return Chain(parts)


def scale_by_adam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0
) -> ScaleByAdam:
    """Make Adam's rescaling without a learning rate, for a chain (``optax.scale_by_adam``).

    >>> tx = chain(clip_by_global_norm(1.0), scale_by_adam(), ScaleByLearningRate(0.1))
    >>> updates, _ = tx.update({"w": torch.tensor([3.0])}, tx.init({"w": torch.tensor([1.0])}))
    >>> round(updates["w"].item(), 4)
    -0.1
    """
    return ScaleByAdam(b1, b2, eps, eps_root)


def scale_by_schedule(step_size_fn: Schedule) -> ScaleBySchedule:
    """Multiply updates by a schedule's value (``optax.scale_by_schedule``).

    It has no minus sign: to go down, the schedule must be negative.

    >>> tx = scale_by_schedule(linear_schedule(-1.0, 0.0, 2))
    >>> state = tx.init({"w": torch.zeros(1)})
    >>> _, state = tx.update({"w": torch.ones(1)}, state)
    >>> tx.update({"w": torch.ones(1)}, state)[0]
    {'w': tensor([-0.5000])}
    """
    return ScaleBySchedule(step_size_fn)


def clip(max_delta: float) -> Clip:
    """Clip each element of the updates to ``[-max_delta, max_delta]`` (``optax.clip``).

    Raises:
        ValueError: max_delta is negative.

    >>> clip(0.5).update({"w": torch.tensor([0.2, -3.0])}, EmptyState())[0]
    {'w': tensor([ 0.2000, -0.5000])}
    """
    _check_not_negative(max_delta, "clip: max_delta")
    return Clip(max_delta)


def clip_by_global_norm(max_norm: float) -> ClipByGlobalNorm:
    """Scale updates whose norm over the whole tree is ``max_norm`` or more to that norm.

    As ``optax.clip_by_global_norm`` (arXiv 1211.5063): updates with NaN stay NaN.

    Raises:
        ValueError: max_norm is negative.

    >>> clip_by_global_norm(1.0).update({"w": torch.tensor([3.0, 4.0])}, EmptyState())[0]
    {'w': tensor([0.6000, 0.8000])}
    """
    _check_not_negative(max_norm, "clip_by_global_norm: max_norm")
    return ClipByGlobalNorm(max_norm)


def global_norm(updates: Params) -> Tensor:
    """Compute the Euclidean norm of all elements of a tree, a scalar (``optax.global_norm``).

    >>> global_norm({"a": torch.tensor([3.0]), "b": torch.tensor(4.0)})
    tensor(5.)
    """
    leaves = tree_leaves(updates)
    if not leaves:
        return torch.zeros((), dtype=float_dtype())
    total = torch.square(leaves[0]).sum()
    for leaf in leaves[1:]:
        total = total + torch.square(leaf).sum()
    return torch.sqrt(total)


def sgd(
    learning_rate: float | Schedule, momentum: float | None = None, nesterov: bool = False
) -> Chain:
    """Make stochastic gradient descent, with momentum if it is given, as ``optax.sgd``.

    >>> tx = sgd(0.1, momentum=0.5)
    >>> state = tx.init({"w": torch.zeros(1)})
    >>> _, state = tx.update({"w": torch.ones(1)}, state)
    >>> tx.update({"w": torch.ones(1)}, state)[0]
    {'w': tensor([-0.1500])}
    """
    first = Identity() if momentum is None else Trace(momentum, nesterov)
    return chain(first, ScaleByLearningRate(learning_rate))


def adam(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> Chain:
    """Make an Adam optimiser (arXiv 1412.6980), as ``optax.adam``.

    ``eps_root`` above 0 keeps the derivative of a step finite where a gradient is 0, as needed for
    meta-gradients.

    >>> tx = adam(0.1)
    >>> params = {"w": torch.tensor([1.0])}
    >>> updates, state = tx.update({"w": torch.tensor([2.0])}, tx.init(params))
    >>> round(updates["w"].item(), 4)
    -0.1
    """
    return chain(ScaleByAdam(b1, b2, eps, eps_root), ScaleByLearningRate(learning_rate))


def adamw(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
    mask: Any = None,
    *,
    eps_root: float = 0.0,
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
        ScaleByAdam(b1, b2, eps, eps_root),
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
        or not _is_zero(moments.eps_root)
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


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


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


def _check_not_negative(value: Any, what: str) -> None:
    if isinstance(value, int | float) and value < 0:
        raise ValueError(f"{what} must not be negative, got {value}.")


def _filled(count: Tensor, value: Any) -> Tensor:
    """A number or a scalar tensor in the default float, beside a step count."""
    dtype = float_dtype()
    if isinstance(value, Tensor):
        return value.to(dtype)
    return torch.full_like(count, value, dtype=dtype)


def _increment(count: Tensor) -> Tensor:
    """``count + 1``, saturating at the largest int32."""
    return torch.clamp(count, max=2**31 - 2) + 1


explain_module(__name__)
