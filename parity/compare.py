"""Compare computed tensors with reference tensors, case by case."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity import errors
from parity.bounds import promised
from parity.cases import Case
from parity.outputs import Function, computed
from parity.programs import on

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Finding:
    """One tensor against its reference; ``error`` is in the measure of its kind.

    ``ulps``, for random draws and initial parameters, counts the entries with an error of 0, 1, 2,
    3, 4 and more ulp. ``growth``, for a series over the steps of a run, has the error of each step.
    """

    tensor: str
    kind: str
    error: float
    bound: float
    absolute: float
    relative: float
    ulp: float
    detail: str = ""
    ulps: tuple[int, ...] | None = None
    growth: tuple[float, ...] | None = None

    @property
    def passed(self) -> bool:
        return self.error <= self.bound


class Judged:
    """A case that was run: it passes if all its findings pass."""

    findings: tuple[Finding, ...]
    crash: str

    @property
    def passed(self) -> bool:
        return not self.crash and bool(self.findings) and all(f.passed for f in self.findings)

    @property
    def first_failure(self) -> Finding | None:
        return next((f for f in self.findings if not f.passed), None)


@dataclass(frozen=True)
class Result(Judged):
    """All findings of one case; ``crash`` is the last line of an exception, if there was one.

    ``mode`` is how the port ran (``eager``, ``compiled``, ``vmapped``) and ``seconds`` how long.
    """

    case: Case
    findings: tuple[Finding, ...]
    crash: str = ""
    mode: str = "eager"
    seconds: float = field(default=0.0, compare=False)


def comparable(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the types allow a comparison: the same float type, or integers of any width.

    The port stores 32-bit words as int64, which is no difference in value. A float of another
    width is a difference.
    """
    return actual.dtype == expected.dtype or all(x.dtype.kind in "iub" for x in (actual, expected))


def _detail(actual: np.ndarray, expected: np.ndarray) -> str:
    if actual.shape != expected.shape:
        return f"shape {actual.shape}, reference {expected.shape}"
    if not comparable(actual, expected):
        return f"type {actual.dtype}, reference {expected.dtype}"
    place = worst_place(actual, expected)
    where = f"worst at {list(place)}: " if place else ""
    return f"{where}{actual[place]!s}, reference {expected[place]!s}"


def worst_place(actual: np.ndarray, expected: np.ndarray) -> tuple[int, ...]:
    """The index of the largest absolute difference of two arrays of one shape and type.

    >>> worst_place(np.array([[1.0, 2.0]]), np.array([[1.0, 2.5]]))
    (0, 1)
    """
    if actual.dtype.kind == "f":
        # equal infinities have distance 0; subtracting them gives NaN
        same = actual == expected
        apart = np.where(same, 0.0, actual), np.where(same, 0.0, expected)
        distance = np.abs(apart[0].astype(np.float64) - apart[1].astype(np.float64))
        distance = np.where(np.isnan(distance), np.inf, distance)
    else:
        distance = (actual != expected).astype(np.float64)
    place = np.unravel_index(int(np.argmax(distance)), expected.shape) if expected.size else ()
    return tuple(map(int, place))


def _ulps(kind: str, actual: np.ndarray, expected: np.ndarray) -> tuple[int, ...] | None:
    if kind not in {"normal", "init"} or expected.dtype.kind != "f":
        return None
    off = np.minimum(errors.ulp_errors(actual, expected), 5.0).astype(np.int64)
    return tuple(np.bincount(off.reshape(-1), minlength=6).tolist())


def _growth(
    name: str, kind: str, actual: np.ndarray, expected: np.ndarray
) -> tuple[float, ...] | None:
    """The error of each step, or None without steps; the largest is the tensor's error."""
    series = name.startswith(("losses/", "means/"))
    if expected.ndim != 1 or not (series and kind in {"loss", "double_loss", "mean", "double"}):
        return None
    each = promised(kind).measure is errors.elementwise_error
    by_step = errors.elementwise_errors if each else errors.relative_errors
    return tuple(by_step(actual, expected).tolist())


def compare_tensor(name: str, kind: str, actual: np.ndarray, expected: np.ndarray) -> Finding:
    """Compare one tensor with its reference, in the measure of its kind.

    >>> one = np.array([1.0], np.float32)
    >>> compare_tensor("x", "forward", one, one).passed
    True
    """
    promise = promised(kind)
    actual = np.asarray(actual)
    error = promise.measure(actual, expected) if comparable(actual, expected) else math.inf
    comparable_shapes = comparable(actual, expected) and actual.shape == expected.shape
    return Finding(
        tensor=name,
        kind=kind,
        error=error,
        bound=promise.bound,
        absolute=errors.absolute_error(actual, expected),
        relative=errors.relative_error(actual, expected),
        ulp=errors.ulp_error(actual, expected) if expected.dtype.kind == "f" else 0.0,
        detail="" if error <= promise.bound else _detail(actual, expected),
        ulps=_ulps(kind, actual, expected) if comparable_shapes else None,
        growth=_growth(name, kind, actual, expected) if comparable_shapes else None,
    )


def compare_case(case: Case, actual: Tensors, expected: Tensors) -> Result:
    """Compare every tensor of a case; a missing or an extra tensor fails.

    Findings are in the order of computation: the order of ``actual``, within the stages of a run
    (:data:`STAGES`). Missing tensors come last in their stage.
    """
    findings = []
    for name in in_order(case, actual, expected):
        head = name.partition("/")[0]
        kind = case.kinds[head] if name in expected else case.kinds.get(head, "bits")
        if name not in actual:
            findings.append(_unpaired(name, kind, "missing from the port's outputs"))
        elif name not in expected:
            findings.append(_unpaired(name, kind, "not in the reference"))
        else:
            findings.append(compare_tensor(name, kind, actual[name], expected[name]))
    return Result(case, tuple(findings))


STAGES = (
    ("rng",),
    ("constants",),
    ("initial",),
    (),
    ("losses",),
    ("means",),
    ("params", "norms", "curve"),
    ("actions", "keys"),
)
"""When the parts of a program's outputs are computed, by the first part of their names.

A program returns all of its outputs at the end, so their order does not tell when each was
computed. Keys come first, since they depend only on keys. The empty stage has all parts that are
not named: forward passes, calls, gradients.
"""


def in_order(case: Case, actual: Tensors, expected: Tensors) -> list[str]:
    """Names of the tensors of both sides in the order of computation; see :func:`compare_case`.

    >>> one = np.ones(1)
    >>> in_order(Case("g", "n", "run", {}), {"params/a": one, "losses/b": one}, {"losses/a": one})
    ['losses/b', 'losses/a', 'params/a']
    """
    stages = {head: number for number, heads in enumerate(STAGES) for head in heads}
    places = {name: place for place, name in enumerate(actual)}

    def order(name: str) -> tuple[int, int, str]:
        # the stages of a user's functions are unknown
        stage = stages.get(name.partition("/")[0], STAGES.index(())) if case.program else 0
        return stage, places.get(name, len(places)), name

    return sorted({*actual, *expected}, key=order)


def _unpaired(name: str, kind: str, detail: str) -> Finding:
    inf = math.inf
    return Finding(name, kind, inf, promised(kind).bound, inf, inf, inf, detail)


def outputs_or_error(function: Function, case: Case) -> Tensors | str:
    """Outputs of a function for a case; after an exception, one line with its place."""
    try:
        return computed(function, case)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
        line = next(iter(str(error).splitlines()), "")
        return f"{type(error).__name__} at {where}: {line}"


def compared(case: Case, run: Tensors | str, expected: Tensors) -> Result:
    """Compare the result of :func:`outputs_or_error` with the record; an exception is a failure."""
    return Result(case, (), run) if isinstance(run, str) else compare_case(case, run, expected)


def run_and_compare(function: Function, case: Case, expected: Tensors) -> Result:
    """Run a function on a case and compare its outputs; an exception is a failure."""
    begin = time.perf_counter()
    run = outputs_or_error(function, case)
    seconds = time.perf_counter() - begin
    return replace(compared(case, run, expected), seconds=seconds)


def attempt(backend: Any, case: Case) -> Tensors | str:
    """Run a case's program on a backend with :func:`outputs_or_error`."""
    return outputs_or_error(on(backend), case)


def run_case(backend: Any, case: Case, expected: Tensors) -> Result:
    """Run a case's program on a backend with :func:`run_and_compare`."""
    return run_and_compare(on(backend), case, expected)
