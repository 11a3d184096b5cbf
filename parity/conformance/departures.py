"""Where this library departs from JAX on purpose: what, why, and which programs it explains."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parity.conformance.outcomes import Outcome
from parity.conformance.text import Program


@dataclass(frozen=True)
class Departure:
    """A documented difference.

    ``explains(program, jax, port)`` says whether a difference between the outcomes is this one.
    """

    name: str
    reason: str
    explains: Callable[[Program, Outcome, Outcome], bool]


def _wide(program: Program, jax: Outcome, port: Outcome) -> bool:
    return not program.x64 and bool(re.search(r"xp\.(u?int|float)64", program.text))


def _refuses(pattern: str) -> Callable[[Program, Outcome, Outcome], bool]:
    def explains(_: Program, jax: Outcome, port: Outcome) -> bool:
        return jax.error is None and bool(re.search(pattern, port.error or ""))

    return explains


_READING = (
    "ConcretizationTypeError",
    "NonConcreteBooleanIndexError",
    "TracerArrayConversionError",
    "TracerBoolConversionError",
    "TracerIntegerConversionError",
)


def _reads(program: Program, jax: Outcome, port: Outcome) -> bool:
    return jax.kind in _READING and port.error is None and not _calls_jitted(program)


def _calls_jitted(program: Program) -> bool:
    """Whether the result is that of a jitted function, or of several calls of one."""
    called = re.match(r"\(?(\w[\w.]*)\(", program.result)
    name = called[1] if called else ""
    return name == "xp.jit" or f"{name} = xp.jit(" in program.setup


def _returns_text(program: Program, jax: Outcome, port: Outcome) -> bool:
    inside = "'text'" in program.setup and not _calls_jitted(program)
    return jax.kind == "TypeError" and port.error is None and inside


def _uses_erf(program: Program, jax: Outcome, port: Outcome) -> bool:
    if jax.error is not None or port.error is not None or port.structure != jax.structure:
        return False
    return "truncated_normal" in program.result and all(
        a.shape == b.shape and np.allclose(a, b, 1e-5 if a.itemsize < 8 else 1e-13, 0, True)
        for a, b in zip(jax.leaves, port.leaves, strict=True)
    )


def _promotes(program: Program, jax: Outcome, port: Outcome) -> bool:
    if jax.error is not None or port.error is not None or port.structure != jax.structure:
        return False
    if not re.search(r"True|bool|np\.", program.setup + program.result):
        return False
    wider = {("int32", "int64"), ("float32", "float64")}
    pairs = list(zip(jax.leaves, port.leaves, strict=True))
    different = {(str(a.dtype), str(b.dtype)) for a, b in pairs if a.dtype != b.dtype}
    return (
        bool(different)
        and different <= wider
        and all(
            np.allclose(a, b, 1e-6, 1e-6, equal_nan=True) for a, b in pairs if a.shape == b.shape
        )
    )


def _separates_zeros(program: Program, jax: Outcome, port: Outcome) -> bool:
    """The program of 0.0 ran for a static -0.0: the magnitudes are equal, a sign is not."""
    if jax.error is not None or port.error is not None or port.structure != jax.structure:
        return False
    return (
        "static_arg" in program.setup
        and "-0.0" in program.result
        and all(
            a.shape == b.shape and np.array_equal(np.abs(a), np.abs(b), equal_nan=True)
            for a, b in zip(jax.leaves, port.leaves, strict=True)
        )
    )


def _maps_number(program: Program, jax: Outcome, port: Outcome) -> bool:
    number = re.search(r"[=(,] ?-?\d+(\.\d+)?[,)]", program.result)
    return jax.kind == "ValueError" and port.error is None and bool(number)


DEPARTURES: tuple[Departure, ...] = (
    Departure(
        "64 bits on request",
        "A 64-bit dtype that is asked for by name is given. JAX gives 32 bits, and refuses bounds "
        "that do not fit, until jax_enable_x64 is set.",
        _wide,
    ),
    Departure(
        "eager values",
        "Outside jit, a function in scan or grad may read its values: float(x), if x > 0. Under "
        "jit it is refused.",
        _reads,
    ),
    Departure(
        "mapped numbers",
        "vmap gives a Python number whole to each member. JAX refuses it, as it has no axis.",
        _maps_number,
    ),
    Departure(
        "choice weights",
        "Weights of choice that are negative, not finite or all zero are refused. JAX gives an "
        "index, which may be past the end.",
        _refuses(r"^choice: the weights p must be finite"),
    ),
    Departure(
        "zero gradients",
        "A gradient that is zero for all members counts as mapped, so that out_axes None is "
        "refused for it.",
        lambda program, jax, port: (
            "grad(" in program.text and _refuses("out_axes is None for a leaf")(program, jax, port)
        ),
    ),
    Departure(
        "text inside",
        "A jitted function inside another transform is called directly, and may return text.",
        _returns_text,
    ),
    Departure(
        "newer erf",
        "JAX computes erf in other steps since 0.4.13, by which truncated_normal, which follows "
        "the older ones here, moves by up to 60 ulp.",
        _uses_erf,
    ),
    Departure(
        "torch's promotion",
        "Operators are torch's: a boolean tensor times a Python integer is int64, a tensor plus a "
        "float64 array of NumPy is float64.",
        _promotes,
    ),
    Departure(
        "static zeros",
        "0.0 and -0.0 as static arguments have a program each. JAX runs the program of whichever "
        "came first for both.",
        _separates_zeros,
    ),
    Departure(
        "donated and not read",
        "A donated argument is gone after the call. JAX keeps one that the function does not read.",
        _refuses(r"^This tensor was donated"),
    ),
    Departure(
        "writes inside",
        "A function inside another transform that writes into its arguments, x += y, is refused: "
        "torch writes into the value of the function around it.",
        _refuses(r"writes into an argument, which the function around it still needs"),
    ),
    Departure(
        "mapped writes",
        "x += y with a mapped y and an x that is not mapped is refused: torch writes into x, where "
        "JAX binds the name to a new array.",
        _refuses(r"the function writes mapped values into one that is not mapped"),
    ),
)


def departure_of(program: Program, jax: Outcome, port: Outcome) -> str | None:
    """The name of the departure that explains a difference, or None."""
    found = (d.name for d in DEPARTURES if d.explains(program, jax, port))
    return next(found, None)
