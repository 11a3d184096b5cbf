"""Verdicts on two runs: regressions, noise, and results that cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.compare import compare_runs
from benchmarks.results import Result, Run

MACHINE = {"cpu": "a", "gpu": None, "threads": 2, "device": "cpu"}


def run(*results: Result, limit: float = 200.0, **environment: Any) -> Run:
    return Run({**MACHINE, **environment}, {"matmul_gflops": limit}, results)


def result(
    rate: float,
    noise: float = 0.02,
    variant: str = "donated",
    unit: str = "updates/s",
    batch: int = 512,
    **figures: float,
) -> Result:
    spread = {"rate": (rate * (1 - noise), rate * (1 + noise))}
    spread |= {name: (x * (1 - noise), x * (1 + noise)) for name, x in figures.items()}
    return Result("update", variant, {"batch": batch}, rate, unit, spread=spread, **figures)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new", "noise", "verdict"),
    [
        (20.0, 30.0, 0.02, "faster"),
        (30.0, 20.0, 0.02, "slower"),
        (20.0, 20.5, 0.001, "within noise"),  # less than 5 %
        (20.0, 22.0, 0.2, "within noise"),  # quartiles overlap
        (20.0, 20.0, 0.0, "within noise"),
    ],
)
def test_rates_are_compared_at_equal_machine_speed(
    old: float, new: float, noise: float, verdict: str
) -> None:
    found = compare_runs(run(result(old, noise)), run(result(new, noise), limit=205.0))
    assert [e.verdict for e in found.entries] == [verdict]
    assert found.entries[0].ratio == pytest.approx(new / old)
    assert found.regressed == (verdict == "slower")
    assert "had the same speed" in found.terms


def test_fewer_seconds_are_faster() -> None:
    slower = compare_runs(run(result(20.0, unit="s")), run(result(30.0, unit="s")))
    assert slower.entries[0].verdict == "slower" and slower.regressed
    assert slower.entries[0].ratio == pytest.approx(2 / 3)
    faster = compare_runs(run(result(30.0, unit="s")), run(result(20.0, unit="s")))
    assert faster.entries[0].verdict == "faster"


@pytest.mark.parametrize(
    "other_machine", [{"limit": 100.0}, {"cpu": "b"}, {"threads": 1}, {"device": "cuda"}]
)
def test_on_another_machine_the_ratio_to_jax_is_compared(other_machine: dict[str, Any]) -> None:
    old = run(result(20.0, ratio_to_jax=1.5))
    found = compare_runs(old, run(result(10.0, ratio_to_jax=1.5), **other_machine))
    assert [(e.verdict, e.measure) for e in found.entries] == [("within noise", "ratio_to_jax")]
    assert "ratios to JAX are compared" in found.terms
    found = compare_runs(old, run(result(30.0, ratio_to_jax=1.2), **other_machine))
    assert found.entries[0].verdict == "slower" and found.regressed


def test_without_jax_the_share_of_the_limit_is_compared() -> None:
    old, new = result(20.0, share_of_limit=0.5), result(40.0, share_of_limit=0.7)
    [entry] = compare_runs(run(old), run(new, limit=400.0)).entries
    assert (entry.verdict, entry.measure) == ("faster", "share_of_limit")
    [entry] = compare_runs(run(result(20.0)), run(result(5.0), limit=400.0)).entries
    assert entry.verdict == "not comparable" and entry.ratio is None


@pytest.mark.parametrize("limit", [200.0, 400.0])
def test_jax_in_one_process_and_in_a_child_is_not_compared(limit: float) -> None:
    before = result(20.0, ratio_to_jax=1.5, share_of_limit=0.5)
    one_process = run(before, result(13.0, variant="jax", share_of_limit=0.5))
    after = result(20.0, ratio_to_jax=1.9, share_of_limit=0.5)
    jax = result(10.0, variant="jax", share_of_limit=0.4)
    own_process = run(after, jax, limit=limit, processes="own")
    found = compare_runs(one_process, own_process)
    measure = "rate" if limit == 200.0 else "share_of_limit"
    assert [(e.verdict, e.measure) for e in found.entries] == [
        ("within noise", measure),
        ("not comparable", None),
    ]
    assert "JAX shared a process with this library in one run only" in found.terms
    assert "ratios to JAX are compared" not in found.terms
    again = compare_runs(own_process, run(after, jax, limit=limit, processes="own"))
    assert all(e.measure == "rate" for e in again.entries) and "shared" not in again.terms


def test_first_updates_are_always_compared() -> None:
    first = replace(result(10.0, variant="jax", unit="s"), workload="compile")
    [entry] = compare_runs(run(first), run(first, processes="own")).entries
    assert (entry.verdict, entry.measure) == ("within noise", "rate")


def test_slower_jax_is_no_regression() -> None:
    found = compare_runs(run(result(20.0, variant="jax")), run(result(10.0, variant="jax")))
    assert found.entries[0].verdict == "slower" and not found.regressed


def test_new_and_missing_measurements_are_listed() -> None:
    found = compare_runs(run(result(1.0, batch=1)), run(result(1.0, batch=2)))
    assert [(e.settings["batch"], e.verdict) for e in found.entries] == [(2, "new"), (1, "gone")]
    assert not found.regressed


def test_run_without_a_limit_is_not_comparable() -> None:
    found = compare_runs(Run(MACHINE, {}, (result(2.0),)), run(result(1.0)))
    assert found.entries[0].verdict == "not comparable"
    assert "has no matmul limit" in found.terms
