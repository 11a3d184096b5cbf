"""The numeric bounds.

Every tensor of a case belongs to one *kind*, and a kind has one measure and one bound. The bounds
are those of the project's specification; none is ever widened to make a case pass. Two kinds
(``mean``, ``state``) have a bound that the specification does not state; it follows from another
one, which ``promise`` names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parity import errors


@dataclass(frozen=True)
class Kind:
    """The bound of one kind of tensor: ``measure(actual, expected) <= bound``."""

    name: str
    measure: Callable[[np.ndarray, np.ndarray], float]
    bound: float
    unit: str
    promise: str


_KINDS = (
    Kind(
        "bits",
        errors.bit_error,
        0.0,
        "entries",
        "keys, bits, uniform, randint, bernoulli, permutation, choice: identical bits",
    ),
    Kind("normal", errors.ulp_error, 4.0, "ulp", "normal, truncated_normal: within 4 ulp"),
    Kind("init", errors.ulp_error, 4.0, "ulp", "initial parameters from a seed: within 4 ulp"),
    Kind("forward", errors.relative_error, 2e-6, "relative", "one forward pass: within 2e-6"),
    Kind("gradient", errors.l2_error, 1e-5, "relative L2", "gradients: within 1e-5, each leaf"),
    Kind(
        "loss",
        errors.elementwise_error,
        1e-3,
        "relative",
        "25 updates: every loss of every step within 1e-3",
    ),
    Kind(
        "mean",
        errors.relative_error,
        1e-3,
        "relative",
        "as the losses, but for logged means, which may cross zero: relative to the series",
    ),
    Kind(
        "state",
        errors.l2_error,
        1e-3,
        "relative L2",
        "as the losses, for the parameters of each network after at most 25 updates",
    ),
    Kind(
        "double_loss",
        errors.elementwise_error,
        1e-8,
        "relative",
        "double precision: every loss of every step within 1e-8",
    ),
    Kind(
        "double",
        errors.relative_error,
        1e-8,
        "relative",
        "double precision: every parameter tensor within 1e-8",
    ),
    Kind("action", errors.absolute_error, 1e-4, "absolute", "chosen actions: within 1e-4"),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _KINDS}


MEASURES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], str]] = {
    "bits": (errors.bit_error, "entries"),
    "ulp": (errors.ulp_error, "ulp"),
    "absolute": (errors.absolute_error, "absolute"),
    "relative": (errors.relative_error, "relative"),
    "elementwise": (errors.elementwise_error, "relative"),
    "l2": (errors.l2_error, "relative L2"),
}
"""The measures of custom bounds, and the unit that is printed."""


def promised(name: str) -> Kind:
    """The kind of this name, or a custom one: a measure and a bound, ``"relative 1e-5"``.

    Raises:
        ValueError: it is neither.

    >>> promised("forward").bound, promised("ulp 2").bound
    (2e-06, 2.0)
    """
    if (kind := KINDS.get(str(name))) is not None:
        return kind
    measure, _, number = str(name).partition(" ")
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if measure not in MEASURES or not 0 <= bound < math.inf:
        raise ValueError(
            f"unknown promise {name!r}: give one of {', '.join(KINDS)}, or one of "
            f"{', '.join(MEASURES)} with a bound, such as 'relative 1e-5'"
        )
    function, unit = MEASURES[measure]
    return Kind(name, function, bound, unit, f"{measure} error: within {bound:g}")
