"""Measures of distance, against values worked out by hand."""

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
from parity.compare import compare_case, compare_tensor

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
def test_equal_arrays_are_at_distance_zero(measure, shape) -> None:
    x = np.full(shape, 1.5, np.float32)
    assert measure(x, x.copy()) == 0.0


@pytest.mark.parametrize("measure", MEASURES)
def test_other_shapes_and_lone_nans_are_infinitely_far(measure) -> None:
    x = np.ones(3, np.float32)
    assert measure(np.ones(2, np.float32), x) == math.inf
    if measure is not errors.bit_error:
        assert measure(np.array([1, np.nan, 1], np.float32), x) == math.inf
        assert measure(x, np.array([1, np.inf, 1], np.float32)) == math.inf


@pytest.mark.parametrize("measure", MEASURES)
def test_the_same_nans_are_no_distance(measure) -> None:
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


def test_ulps_cross_zero_and_reach_across_the_whole_range() -> None:
    tiny = np.nextafter(np.float64(0), np.float64(1))
    assert errors.ulp_error(np.array([tiny]), np.array([-tiny])) == 2.0
    big = np.finfo(np.float64).max
    assert errors.ulp_error(np.array([big]), np.array([-big])) > 2.0**63


def test_measures_by_hand() -> None:
    a, b = np.array([3.0, 4.5]), np.array([3.0, 4.0])
    assert errors.absolute_error(a, b) == 0.5
    assert errors.relative_error(a, b) == 0.125
    assert errors.elementwise_error(np.array([1.0, 100.0]), np.array([2.0, 100.0])) == 0.5
    assert errors.l2_error(a, b) == pytest.approx(0.1)
    assert errors.bit_error(a, b) == 1.0


def test_signs_of_zero_differ_in_bits_only() -> None:
    a, b = np.array([-0.0], np.float32), np.array([0.0], np.float32)
    assert errors.bit_error(a, b) == 1.0
    assert errors.ulp_error(a, b) == 0.0


def test_a_float_of_another_width_never_passes() -> None:
    narrow, wide = np.ones(2, np.float32), np.ones(2, np.float64)
    for kind in KINDS:
        assert not compare_tensor("x", kind, narrow, wide).passed


def test_integers_compare_by_value_and_never_wrap() -> None:
    reference = np.array([5], np.uint32)
    assert compare_tensor("x", "bits", np.array([5], np.int64), reference).passed
    assert not compare_tensor("x", "bits", np.array([5 + 2**32], np.int64), reference).passed


def test_missing_and_extra_tensors_fail() -> None:
    case = Case("g", "n", "p", {}, {"value": "forward"})
    one = np.ones(2, np.float32)
    assert compare_case(case, {"value": one}, {"value": one}).passed
    assert not compare_case(case, {}, {"value": one}).passed
    assert not compare_case(case, {"value": one, "value/more": one}, {"value": one}).passed
