"""Measurement with fake variants that advance a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.timing import Budget, Spread, Timed, Variant, interleave, ratios, spread


class Clock:
    """A fake clock: a variant's call advances it by its seconds, divided by ``speed``."""

    def __init__(self) -> None:
        self.now = 0.0
        self.speed = 1.0
        self.events: list[str] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def variant(self, name: str, seconds: float, first: float = 0.0, units: float = 1) -> Variant:
        def make() -> Callable[[int], Any]:
            self.now += 10.0

            def step(i: int) -> tuple[str, int]:
                self.now += (first if i == 0 else seconds) / self.speed
                self.events.append(name)
                return name, i

            return step

        def wait(result: tuple[str, int]) -> None:
            assert result[0] == name
            self.events.append(f"{name} waited")

        return Variant(name, make, wait, units)


BUDGET = Budget(rounds=3, block_seconds=1.0, pause=0.0, warm_up=2)


def measure(clock: Clock, *variants: Variant, **options: Any) -> list[Timed]:
    return interleave(variants, BUDGET, clock=clock, sleep=clock.sleep, **options)


def test_rates_are_units_per_second_without_the_first_call() -> None:
    clock = Clock()
    [timed] = measure(clock, clock.variant("a", 0.25, first=7.0, units=2))
    assert timed.rates == pytest.approx((8.0, 8.0, 8.0))
    assert timed.make_seconds == pytest.approx(10.0)
    assert timed.first_call_seconds == pytest.approx(7.0)
    assert timed.calls == 4


def test_blocks_alternate_and_begin_with_an_untimed_call() -> None:
    clock = Clock()
    seen: list[tuple[str, int]] = []
    measure(
        clock,
        clock.variant("a", 0.5),
        clock.variant("b", 1.0),
        on_progress=lambda name, done: seen.append((name, done)),
    )
    assert seen == [(name, done) for done in range(4) for name in "ab"]
    calls = [e for e in clock.events if e in ("a", "b")]
    assert calls[-15:] == 3 * (["a"] * 3 + ["b"] * 2)


def test_inputs_rotate_over_all_calls() -> None:
    numbers: list[int] = []

    def make() -> Callable[[int], Any]:
        return lambda i: (numbers.append(i), clock.sleep(0.3))

    clock = Clock()
    measure(clock, Variant("a", make, lambda result: None))
    assert numbers == list(range(len(numbers))) and len(numbers) > 9


def test_wait_each_waits_for_each_call() -> None:
    last, each = Clock(), Clock()
    measure(last, last.variant("a", 0.25))
    measure(each, each.variant("a", 0.25), wait_each=True)
    count = [c.events.count("a waited") / c.events.count("a") for c in (last, each)]
    assert count[0] < 0.6 and count[1] == 1.0


def test_drift_cancels_in_the_ratio_of_a_round() -> None:
    clock = Clock()

    def slower(name: str, done: int) -> None:
        if name == "b":
            clock.speed *= 0.5

    fast, slow = measure(
        clock, clock.variant("a", 0.01), clock.variant("b", 0.02), on_progress=slower
    )
    assert max(fast.rates) > 3 * min(fast.rates)
    found = ratios(fast, slow)
    assert (found.low, found.median, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_variant_runs_in_its_scope() -> None:
    inside: list[bool] = []
    state = {"on": False}

    @contextmanager
    def scope() -> Any:
        state["on"] = True
        yield
        state["on"] = False

    def make() -> Callable[[int], Any]:
        inside.append(state["on"])
        return lambda i: (inside.append(state["on"]), clock.sleep(0.5))

    clock = Clock()
    measure(clock, Variant("a", make, lambda r: None, scope=scope), clock.variant("b", 0.5))
    assert all(inside) and not state["on"]


def test_failing_variant_is_left_out() -> None:
    clock = Clock()

    def broken() -> Callable[[int], Any]:
        raise RuntimeError("no such route")

    failed: list[tuple[str, str]] = []
    bad = Variant("bad", broken, lambda r: None)
    timed = measure(
        clock,
        bad,
        clock.variant("b", 0.5),
        on_failure=lambda name, error: failed.append((name, str(error))),
    )
    assert [t.name for t in timed] == ["b"] and len(timed[0].rates) == 3
    assert failed == [("bad", "no such route")]
    with pytest.raises(RuntimeError, match="no such route"):
        measure(clock, bad)


def test_spread_is_the_median_and_quartiles() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0, 100.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([2.0]) == Spread(2.0, 2.0, 2.0)
