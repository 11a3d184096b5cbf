"""Compare two runs: what became faster or slower, and what is noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.case import JAX, is_external
from benchmarks.results import Result, Run

__all__ = ["Comparison", "Verdict", "compare_runs"]

Verdict = Literal["faster", "slower", "within noise", "not comparable", "new", "gone"]
Measure = Literal["rate", "ratio_to_jax", "share_of_limit"]

_SAME_SPEED = 0.05
"""Runs whose matmul limits differ by at most this share were made at the same machine speed."""
_SMALLEST_CHANGE = 0.05
"""A smaller change counts as noise, whatever the quartiles."""


@dataclass(frozen=True)
class Comparison:
    """One measurement in both runs."""

    workload: str
    variant: str
    settings: dict
    verdict: Verdict
    measure: Measure | None = None
    """The number that was compared."""
    ratio: float | None = None
    """How many times as fast the new run is."""


@dataclass(frozen=True)
class Comparisons:
    """All measurements of two runs, and a sentence that says how they were compared."""

    entries: tuple[Comparison, ...]
    terms: str

    @property
    def regressed(self) -> bool:
        """Whether a variant of this library became slower (JAX and the original do not count)."""
        return any(e.verdict == "slower" and not is_external(e.variant) for e in self.entries)


def compare_runs(old: Run, new: Run) -> Comparisons:
    """Compare what both runs measured.

    If the machine had the same speed in both runs (by its matmul limit), rates are compared.
    Otherwise the ratio to JAX is compared, or else the share of the limit, since both were measured
    in the same rounds as the variant. A change counts if it exceeds 5 % and the quartiles do not
    overlap. If JAX shared a process with this library in only one of the runs, JAX's and the
    original's results and all ratios to JAX are not compared.
    """
    same_processes = _processes(old) == _processes(new)
    same, terms = _same_speed(old, new, same_processes)
    if not same_processes:
        terms += (
            " JAX shared a process with this library in one run only, so JAX's and the original's "
            "results and ratios to JAX are not compared."
        )
    before = {result.key: result for result in old.results}
    after = {result.key: result for result in new.results}
    entries = []
    for key, result in after.items():
        if key in before:
            # a first update always runs in a fresh process
            entries.append(
                _compared(before[key], result, same, same_processes or key[0] == "compile")
            )
        else:
            entries.append(_entry(result, "new"))
    entries += [_entry(result, "gone") for key, result in before.items() if key not in after]
    return Comparisons(tuple(entries), terms)


def _same_speed(old: Run, new: Run, same_processes: bool) -> tuple[bool, str]:
    ratios = "ratios to JAX are compared, or shares of the limit"
    shares = "shares of the limit are compared"
    instead = f"so {ratios if same_processes else shares}, and rates are not."
    for name in ("cpu", "gpu", "threads", "device"):
        a, b = old.environment.get(name), new.environment.get(name)
        if a != b:
            return False, f"The machines differ ({name}: {a} and {b}), {instead}"
    a, b = old.limits.get("matmul_gflops"), new.limits.get("matmul_gflops")
    if not (isinstance(a, int | float) and isinstance(b, int | float) and a > 0 and b > 0):
        return False, f"A file has no matmul limit, {instead}"
    figures = f"{a:.0f} and {b:.0f} GFLOP/s"
    if max(a, b) / min(a, b) > 1 + _SAME_SPEED:
        return False, f"The machine's speed differs ({figures}), {instead}"
    return True, f"The machine had the same speed ({figures}), so rates are compared."


def _processes(run: Run) -> str:
    return run.environment.get("processes", "one")  # older files have no such entry


def _compared(old: Result, new: Result, same_speed: bool, same_processes: bool) -> Comparison:
    measure = _measure(old, new, same_speed, same_processes)
    if measure is None:
        return _entry(new, "not comparable")
    inverted = measure == "rate" and new.smaller_is_better
    a, b = getattr(old, measure), getattr(new, measure)
    a_low, a_high = old.spread.get(measure, (a, a))
    b_low, b_high = new.spread.get(measure, (b, b))
    ratio = b / a
    up = ratio > 1 + _SMALLEST_CHANGE and b_low > a_high
    down = ratio < 1 / (1 + _SMALLEST_CHANGE) and b_high < a_low
    better, worse = (down, up) if inverted else (up, down)
    verdict: Verdict = "faster" if better else "slower" if worse else "within noise"
    return _entry(new, verdict, measure, 1 / ratio if inverted else ratio)


def _measure(old: Result, new: Result, same_speed: bool, same_processes: bool) -> Measure | None:
    if is_external(new.variant) and not same_processes:
        return None
    order: tuple[Measure, ...] = ("rate",) if same_speed else ("ratio_to_jax", "share_of_limit")
    for name in order:
        if name == "ratio_to_jax" and (new.variant == JAX or not same_processes):
            continue  # 1 by definition, or relative to JAX in another process
        if (getattr(old, name) or 0) > 0 and (getattr(new, name) or 0) > 0:
            return name
    return None


def _entry(
    result: Result, verdict: Verdict, measure: Measure | None = None, ratio: float | None = None
) -> Comparison:
    return Comparison(result.workload, result.variant, result.settings, verdict, measure, ratio)
