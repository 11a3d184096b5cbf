"""Compare what both sides did with one program."""

from __future__ import annotations

import re

import numpy as np

from parity.conformance.outcomes import Outcome
from parity.conformance.text import Program

RELATIVE = {"float64": 1e-10, "float32": 2e-5, "float16": 4e-3}
NARROW = {"float16": 4e-3, "bfloat16": 3e-2}
RAW = re.compile(
    r"aten|torch\.fx|make_fx|FakeTensor|functorch|vmap: It looks|Dynamo|BatchedTensor|GuardOn"
    r"|optree|TracingContext|AssertionError|KeyError|IndexError|NoneType"
    r"|__torch|in_dims|out_dims|Expected|expected|Sizes of|must match the size|INTERNAL|C\+\+"
    r"|object has no"
)
"""Parts of messages that come from torch or Python and not from this library."""
OPERATORS = (
    "unsupported operand type",
    "The size of tensor a",
    "Attempting to broadcast a dimension",
)
"""How messages of torch's own operators begin, which a program calls itself."""


def difference(program: Program, jax: Outcome, port: Outcome) -> str | None:
    """What differs, in one line; None if both did the same."""
    if jax.error is not None:
        if port.error is None:
            return f"accepted, but JAX refuses: {jax.kind}: {_first_line(jax.error)}"
        return raw_message(port)
    if port.error is not None:
        return f"refused: {port.kind}: {_first_line(port.error)}"
    if port.written:
        return "wrote into an argument"
    if port.structure != jax.structure:
        return f"structure {port.structure}, JAX {jax.structure}"
    for place, (mine, theirs) in enumerate(zip(port.leaves, jax.leaves, strict=True)):
        if problem := _leaf_difference(program, mine, theirs):
            return f"leaf {place}: {problem}"
    return None


def raw_message(outcome: Outcome) -> str | None:
    """A sentence on a refusal that is not one clear sentence of this library."""
    text = outcome.error or ""
    if outcome.kind not in (
        "TypeError",
        "ValueError",
        "RuntimeError",
        "IndexError",
        "OverflowError",
        "InputError",
        "DonatedError",
    ):
        return f"a raw {outcome.kind}: {_first_line(text)}"
    if text.startswith(OPERATORS):
        return None  # on an operator of the program itself
    if "\n" in text or RAW.search(text):
        return f"a raw message: {_first_line(text)}"
    return None


def _relative(program: Program, dtype: str) -> float:
    """The bound of a leaf; a program that computes in 16 bits is rounded to them on the way."""
    narrow = [bound for name, bound in NARROW.items() if f"'{name}'" in program.text]
    return max([RELATIVE[dtype], *narrow])


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:160]


def _leaf_difference(program: Program, mine: np.ndarray, theirs: np.ndarray) -> str | None:
    if mine.shape != theirs.shape:
        return f"shape {mine.shape}, JAX {theirs.shape}"
    # words of keys and bits are int64 here, since torch has few operations on uint32
    wide = (
        theirs.astype(np.int64) if theirs.dtype == np.uint32 and mine.dtype == np.int64 else theirs
    )
    if mine.dtype != wide.dtype:
        return f"dtype {mine.dtype}, JAX {theirs.dtype}"
    if mine.dtype.kind not in "f":
        if not np.array_equal(mine, wide):
            return f"{mine.ravel()[:4].tolist()}, JAX {wide.ravel()[:4].tolist()}"
        return None
    if not np.array_equal(np.isnan(mine), np.isnan(wide)):
        return f"NaN at other places: {mine.ravel()[:4].tolist()}, JAX {wide.ravel()[:4].tolist()}"
    finite = np.isfinite(mine) & np.isfinite(wide)
    if not np.array_equal(mine[~finite], wide[~finite], equal_nan=True):
        return f"{mine.ravel()[:4].tolist()}, JAX {wide.ravel()[:4].tolist()}"
    a, b = mine[finite].astype(np.float64), wide[finite].astype(np.float64)
    if program.bound == "equal":
        off = a != b
    elif program.bound == "ulp":
        off = np.abs(a - b) > 4 * np.abs(np.spacing(wide[finite])).astype(np.float64)
    else:
        scale = max(np.abs(b).max(initial=0.0), 1.0 if program.bound == "close" else 0.0)
        off = np.abs(a - b) > _relative(program, str(mine.dtype)) * scale
    if off.any():
        i = int(np.argmax(off))
        return f"{a[i]!r}, JAX {b[i]!r}"
    signs = np.signbit(mine[finite]), np.signbit(wide[finite])
    if program.bound == "equal" and not np.array_equal(*signs):
        return "the sign of a zero"
    return None
