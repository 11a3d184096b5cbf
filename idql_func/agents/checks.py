"""Checks of the keywords of ``create``: each error is one sentence that names the keyword."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.boundary import describe, explained_methods
from idql_func.switches import x64_enabled
from idql_func.tree import as_tensor
from idql_func.types import InputError, PRNGKey


def check_name(what: str, value: Any, names: Sequence[str]) -> None:
    """Check that a value is one of the names.

    Raises:
        InputError: if it is not.

    >>> check_name("encoder", "d4pg", ("d4pg", "resnet"))
    """
    if not isinstance(value, str) or value not in names:
        raise InputError(f"{what} must be one of {', '.join(names)}, got {value!r}.")


def check_integer(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Check that a value is an integer of at least ``least``, and at most ``most`` if given.

    Raises:
        InputError: if it is not an integer or is out of this range.

    >>> check_integer("num_qs", 2, 1)
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise InputError(f"{name} must be an integer of at least {least}, got {value!r}.")
    if most is not None and int(value) > most:
        raise InputError(f"{name} must be at most {most:,}, got {value:,}.")


def check_number(name: str, value: Any, least: float | None = None) -> None:
    """Check that a value is a finite number, and at least ``least`` if that is given.

    Raises:
        InputError: if it is not a finite number or is below ``least``.

    >>> check_number("temperature", 0.1)
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value!r}.")
    if least is not None and value < least:
        raise InputError(f"{name} must be at least {least}, got {value!r}.")


def check_fraction(name: str, value: Any) -> None:
    """Check that a value is a number in [0, 1].

    Raises:
        InputError: if it is not a number or is outside [0, 1].

    >>> check_fraction("discount", 0.99)
    """
    check_number(name, value)
    if not 0 <= value <= 1:
        raise InputError(f"{name} must lie in [0, 1], got {value}.")


def check_expectile(value: Any) -> None:
    """Check an expectile: a number strictly between 0 and 1.

    Raises:
        InputError: if it is not a number or is outside (0, 1).

    >>> check_expectile(0.9)
    """
    check_number("expectile", value)
    if not 0 < value < 1:
        raise InputError(f"expectile must be between 0 and 1, got {value}.")


def check_dropout(name: str, value: Any) -> None:
    """Check a dropout rate: a number in [0, 1), or None for no dropout.

    Raises:
        InputError: if it is not a number or is outside [0, 1).

    >>> check_dropout("dropout_rate", None)
    """
    if value is not None:
        check_number(name, value)
        if not 0 <= value < 1:
            raise InputError(f"{name} must lie in [0, 1), got {value}.")


def check_rate(name: str, value: Any) -> None:
    """Check a learning rate: a schedule, or a number above 0.

    Raises:
        InputError: if it is neither.

    >>> check_rate("actor_lr", 3e-4)
    """
    if not callable(value):
        check_number(name, value)
        if not value > 0:
            raise InputError(f"{name} must be above 0, got {value}.")


def check_layers(name: str, sizes: Any) -> None:
    """Check the sizes of a network's layers.

    Raises:
        InputError: if they are not a sequence of one or more integers of at least 1.

    >>> check_layers("hidden_dims", (256, 256))
    """
    layers = sizes if isinstance(sizes, Sequence) else ()
    if not layers or not all(isinstance(n, Integral) and int(n) >= 1 for n in layers):
        shown = repr(sizes) if len(repr(sizes)) < 60 else describe(sizes)
        raise InputError(f"{name} must name at least one layer of at least 1 unit, got {shown}.")


def check_subset(num_qs: Any, num_min_qs: Any) -> None:
    """Check the size of an ensemble and of the subset drawn for targets.

    Raises:
        InputError: if either is below 1, or the subset is larger than the ensemble.

    >>> check_subset(10, 2)
    """
    check_integer("num_qs", num_qs, 1)
    if num_min_qs is not None:
        check_integer("num_min_qs", num_min_qs, 1)
        if num_min_qs > num_qs:
            raise InputError(f"num_min_qs must be at most num_qs={num_qs}, got {num_min_qs}.")


def box_size(space: Any, what: str) -> int:
    """The size of a ``Box`` space with one axis.

    Raises:
        InputError: if the space is not a Box, or has several axes.

    >>> import gymnasium as gym
    >>> box_size(gym.spaces.Box(-1, 1, (3,)), "action_space")
    3
    """
    shape = getattr(space, "shape", None)
    # by shape, not by class: spaces of the old gym package, which upstream uses, work too
    bounded = hasattr(space, "low") and hasattr(space, "high")  # no MultiDiscrete or MultiBinary
    if not bounded or shape is None or len(shape) != 1 or shape[0] < 1:
        raise InputError(
            f"{what} must be a Box with one axis, such as Box(-1, 1, (3,)), got {space}."
        )
    return int(shape[0])


def real_tensor(value: Any, what: str) -> Tensor:
    """Convert a tensor, an array or nested lists of real numbers to a tensor.

    Args:
        value: the numbers.
        what: the name of the value in the error message.

    Raises:
        InputError: if it is not a tensor or an array of real numbers.

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
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise InputError(f"{what} must be a dense tensor; call .to_dense() on it.")
    if tensor.is_meta:
        raise InputError(f"{what} must have values, and a tensor on the meta device has none.")
    return tensor.detach()


def key_of_seed(seed: Any) -> PRNGKey:
    """The key of a learner's seed.

    Raises:
        TypeError: the seed is not an integer.
        InputError: it does not fit into the 32 bits that a key uses (64 under ``enable_x64``).

    >>> key_of_seed(3).tolist()
    [0, 3]
    """
    if isinstance(seed, bool):
        raise TypeError(f"seed must be an integer, got {seed}.")
    if isinstance(seed, Integral) and not x64_enabled() and not -(2**31) <= int(seed) < 2**32:
        raise InputError(f"seed must lie in [-2**31, 2**32), got {seed}: a key uses 32 bits of it.")
    return random.PRNGKey(int(seed) if isinstance(seed, Integral) else seed)


_METHODS = (
    *("actor_update", "critic_update", "eval_loss", "to", "to_act"),
    *("eval_actions", "sample_actions", "sample_implicit_policy"),
)


def explained_learner(cls: type) -> None:
    """Let the methods of a learner raise one sentence; see :func:`idql_func.boundary.explained`.

    ``create`` and ``update`` check their arguments themselves.

    >>> explained_learner(type("Learner", (), {"create": lambda: None}))
    """
    explained_methods("create", "update", strict=False)(cls)
    explained_methods(*_METHODS)(cls)
