"""Error measures equal hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parity import errors
from parity.bounds import KINDS
from parity.cases import Case
from parity.compare import Finding, Result, compare_case, compare_tensor
from parity.tables import as_json

MEASURES = (
    errors.ulp_error,
    errors.absolute_error,
    errors.relative_error,
    errors.elementwise_error,
    errors.l2_error,
    errors.bit_error,
)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 2)])
def test_equal_arrays_have_error_zero(measure, shape) -> None:
    x = np.full(shape, 1.5, np.float32)
    assert measure(x, x.copy()) == 0.0


@pytest.mark.parametrize("measure", MEASURES)
def test_different_shapes_and_unmatched_nans_have_infinite_error(measure) -> None:
    x = np.ones(3, np.float32)
    assert measure(np.ones(2, np.float32), x) == math.inf
    if measure is not errors.bit_error:
        assert measure(np.array([1, np.nan, 1], np.float32), x) == math.inf
        assert measure(x, np.array([1, np.inf, 1], np.float32)) == math.inf


@pytest.mark.parametrize("measure", MEASURES)
def test_matching_nans_have_error_zero(measure) -> None:
    x = np.array([1.0, np.nan, np.inf], np.float32)
    assert measure(x, x.copy()) == 0.0


@given(
    hnp.arrays(np.float32, 8, elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    st.integers(0, 9),
)
def test_ulps_count_steps_to_the_next_float(x: np.ndarray, steps: int) -> None:
    y = x
    for _ in range(steps):
        y = np.nextafter(y, np.float32(np.inf))
    assert errors.ulp_error(y, x) == steps
    assert errors.ulp_error(x, y) == steps


def test_ulps_across_zero_and_the_whole_range() -> None:
    tiny = np.nextafter(np.float64(0), np.float64(1))
    assert errors.ulp_error(np.array([tiny]), np.array([-tiny])) == 2.0
    big = np.finfo(np.float64).max
    assert errors.ulp_error(np.array([big]), np.array([-big])) > 2.0**63


def test_measures_equal_hand_computed_values() -> None:
    a, b = np.array([3.0, 4.5]), np.array([3.0, 4.0])
    assert errors.absolute_error(a, b) == 0.5
    assert errors.relative_error(a, b) == 0.125
    assert errors.elementwise_error(np.array([1.0, 100.0]), np.array([2.0, 100.0])) == 0.5
    assert errors.l2_error(a, b) == pytest.approx(0.1)
    assert errors.bit_error(a, b) == 1.0


def test_signed_zeros_differ_only_in_bits() -> None:
    a, b = np.array([-0.0], np.float32), np.array([0.0], np.float32)
    assert errors.bit_error(a, b) == 1.0
    assert errors.ulp_error(a, b) == 0.0


def test_float_of_another_width_fails() -> None:
    narrow, wide = np.ones(2, np.float32), np.ones(2, np.float64)
    for kind in KINDS:
        assert not compare_tensor("x", kind, narrow, wide).passed


def test_integers_are_compared_by_value_without_wrapping() -> None:
    reference = np.array([5], np.uint32)
    assert compare_tensor("x", "bits", np.array([5], np.int64), reference).passed
    assert not compare_tensor("x", "bits", np.array([5 + 2**32], np.int64), reference).passed


def test_missing_and_extra_tensors_fail() -> None:
    case = Case("g", "n", "p", {}, {"value": "forward"})
    one = np.ones(2, np.float32)
    assert compare_case(case, {"value": one}, {"value": one}).passed
    assert not compare_case(case, {}, {"value": one}).passed
    assert not compare_case(case, {"value": one, "value/more": one}, {"value": one}).passed


def test_ulps_are_counted_per_entry() -> None:
    one = np.ones(9, np.float32)
    shifted = np.array([1, 1, 1, 1, 1, 1, 1, 1, np.inf], np.float32)
    for steps, place in enumerate((4, 5, 6, 7), start=1):
        for _ in range(steps):
            shifted[place] = np.nextafter(shifted[place], np.float32(2))
    found = compare_tensor("out/0", "normal", shifted, one)
    assert found.ulps == (4, 1, 1, 1, 1, 1)
    assert found.error == math.inf
    assert found.growth is None
    assert compare_tensor("out/0", "bits", one, one).ulps is None
    assert compare_tensor("out/0", "normal", one[:3], one).ulps is None
    assert compare_tensor("p", "init", one[:0], one[:0]).ulps == (0, 0, 0, 0, 0, 0)
    assert compare_tensor("p", "init", shifted[0:1], one[0:1]).ulps == (1, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "name, kind, growth",
    [
        ("losses/q", "loss", (0.0, 0.25, 0.0)),
        ("losses/q", "double_loss", (0.0, 0.25, 0.0)),
        ("means/q", "mean", (0.0, 0.0625, 0.0)),
        ("means/q", "double", (0.0, 0.0625, 0.0)),
        ("params/q", "double", None),
        ("params/q", "state", None),
    ],
)
def test_errors_of_a_series_are_kept_per_step(name, kind, growth) -> None:
    actual, expected = np.array([4.0, 1.25, 0.0]), np.array([4.0, 1.0, 0.0])
    found = compare_tensor(name, kind, actual, expected)
    assert found.growth == growth
    assert growth is None or max(growth) == found.error
    assert compare_tensor(name, kind, actual[:2], expected).growth is None
    assert compare_tensor(name, kind, actual[None], expected[None]).growth is None


def test_nan_loss_is_null_in_json() -> None:
    found = compare_tensor("losses/q", "loss", np.array([1.0, np.nan]), np.ones(2))
    assert found.growth == (0.0, math.inf)
    case = Case("g", "n", "p", {}, {"losses": "loss"})
    written = as_json([Result(case, (found,))])["results"][0]["tensors"][0]
    assert written["growth"] == [0.0, None]
    assert written["error"] is None


def test_counts_and_steps_of_findings_are_optional() -> None:
    found = Finding("x", "forward", 0.0, 2e-6, 0.0, 0.0, 0.0)
    assert (found.ulps, found.growth) == (None, None)
