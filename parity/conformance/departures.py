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
        a.shape == b.shape and np.allclose(a, b, 1e-3 if a.itemsize < 8 else 1e-13, 0, True)
        for a, b in zip(jax.leaves, port.leaves, strict=True)
    )


def _promotes(program: Program, jax: Outcome, port: Outcome) -> bool:
    if jax.error is not None or port.error is not None or port.structure != jax.structure:
        return False
    stacked = (
        bool(re.search(r"^x\d = -?\d", program.setup, re.MULTILINE)) and "stack" in program.text
    )
    if not (stacked or re.search(r"True|bool|np\.", program.setup + program.result)):
        return False
    wider = {("int32", "int64"), ("float32", "float64")} | (
        {("float16", "float32")} if stacked else set()
    )
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


def _leaves_none(program: Program, jax: Outcome, port: Outcome) -> bool:
    none = re.search(r"out_axes=[^)]*None", program.text)
    return (
        jax.kind == "ValueError" and port.error is None and "scan(" in program.text and bool(none)
    )


def _makes_number(program: Program, jax: Outcome, port: Outcome) -> bool:
    made = re.search(r"(choice|permutation)\(k, xp\.array\(\d", program.result)
    return jax.kind == "ConcretizationTypeError" and port.error is None and bool(made)


def _masks_nothing(program: Program, jax: Outcome, port: Outcome) -> bool:
    empty = re.search(r"\(\[\]|\[\], '", program.setup)
    return jax.kind == "NonConcreteBooleanIndexError" and port.error is None and bool(empty)


def _mixes_numpy(program: Program, jax: Outcome, port: Outcome) -> bool:
    mixed = re.search(
        r"^(Concatenation operation|unsupported operand type|where expected)|reads the value",
        port.error or "",
    )
    closed_over = re.search(r"^x\d = (np\.array|True|False)", program.setup, re.MULTILINE)
    return jax.error is None and bool(mixed) and bool(closed_over)


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
        "JAX computes erf in other steps since 0.4.13, and in others again for short draws, by "
        "which truncated_normal moves, in its tails by up to 1e-3. Here it equals long draws of "
        "0.4.13.",
        _uses_erf,
    ),
    Departure(
        "torch's promotion",
        "Operators are torch's: a boolean tensor times a Python integer is int64, a tensor plus a "
        "float64 array of NumPy is float64, a stack of Python numbers is float32.",
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
    Departure(
        "operands outside",
        "An operator between a traced tensor and a NumPy array or a boolean that is no argument of "
        "the jitted function is torch's or NumPy's, which may refuse it.",
        _mixes_numpy,
    ),
    Departure(
        "constants inside",
        "A tensor that is made inside jit from Python numbers has a value: it may be the length of "
        "a permutation or choice. JAX traces it.",
        _makes_number,
    ),
    Departure(
        "empty masks",
        "Under jit a mask without elements selects nothing. JAX refuses all masks.",
        _masks_nothing,
    ),
    Departure(
        "scans of one step",
        "The output of a scan counts as mapped if its value is: not the carry before the first "
        "step. JAX counts it by the carry after all steps.",
        _leaves_none,
    ),
    Departure(
        "negative sizes",
        "A shape with a negative size is refused. JAX's choice takes -1 as its reshape does.",
        _refuses(r"must not have negative sizes|of 0 or more, got .*-\d"),
    ),
)


def departure_of(program: Program, jax: Outcome, port: Outcome) -> str | None:
    """The name of the departure that explains a difference, or None."""
    found = (d.name for d in DEPARTURES if d.explains(program, jax, port))
    return next(found, None)
