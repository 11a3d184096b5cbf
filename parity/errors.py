"""Distances between a computed array and its reference, one function per measure.

Every measure returns one float: 0 for equality, and infinity where no tolerance makes sense
(another shape, or a NaN or an infinity on one side only).
"""

from __future__ import annotations

import numpy as np


def _ordered(x: np.ndarray) -> np.ndarray:
    """Map floats to integers so that neighbouring floats are neighbouring integers.

    The bit pattern of a non-negative float already grows with its value; negative floats are
    mirrored. Both zeros map to 0. Returned as unsigned integers shifted by half the range, so that
    differences can be taken without overflow.
    """
    width = x.dtype.itemsize * 8
    bits = np.ascontiguousarray(x).view(np.dtype(f"i{x.dtype.itemsize}")).astype(object)
    low = -(1 << (width - 1))
    return np.where(bits < 0, low - bits, bits)


def ulp_errors(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Number of representable floats between the entries of two arrays of one shape and type.

    >>> one = np.array([1.0, np.nan, 1.0], np.float32)
    >>> ulp_errors(np.array([np.nextafter(one[0], 2), np.nan, np.inf], np.float32), one)
    array([ 1.,  0., inf])
    """
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    finite = np.isfinite(actual) & np.isfinite(expected)
    out = np.where(same, 0.0, np.inf)
    far = finite & ~same
    out[far] = np.abs(_ordered(actual[far]) - _ordered(expected[far])).astype(np.float64)
    return out


def ulp_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest number of representable floats between two arrays of the same float type.

    >>> import numpy as np
    >>> one = np.array([1.0], np.float32)
    >>> ulp_error(np.nextafter(one, np.float32(2)), one)
    1.0
    >>> ulp_error(np.array([-0.0], np.float32), np.array([0.0], np.float32))
    0.0
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return float("inf")
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0 if np.array_equal(actual, expected) else float("inf")
    return float(np.max(ulp_errors(actual, expected), initial=0.0))


def _difference(actual: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Float64 ``(actual - expected, expected)``, each ``[N]``; None for another shape.

    Equal infinities and NaNs on both sides differ by 0, those on one side by infinity; neither
    counts in the reference's scale.
    """
    if actual.shape != expected.shape:
        return None
    a, e = actual.astype(np.float64).reshape(-1), expected.astype(np.float64).reshape(-1)
    equal = (a == e) | (np.isnan(a) & np.isnan(e))
    finite = np.isfinite(a) & np.isfinite(e)
    difference = np.where(equal, 0.0, np.inf)
    difference[finite] = a[finite] - e[finite]
    return difference, np.where(finite, e, 0.0)


def _ratio(error: np.ndarray | np.floating, scale: np.ndarray | np.floating) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0.0, 0.0, error / scale)


def absolute_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference.

    >>> absolute_error(np.array([1.0, 2.5]), np.array([1.0, 2.0]))
    0.5
    """
    pair = _difference(actual, expected)
    if pair is None:
        return float("inf")
    return float(np.max(np.abs(pair[0]), initial=0.0))


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference over the largest absolute reference value (max norm).

    A small entry among large ones is compared at the scale of its array, which is the accuracy of
    a matrix product.

    >>> relative_error(np.array([1e-9, 2.5]), np.array([0.0, 2.0]))
    0.25
    """
    return float(np.max(relative_errors(actual, expected), initial=0.0))


def relative_errors(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Absolute differences of the entries over the largest absolute reference value, ``[N]``.

    >>> relative_errors(np.array([1.0, 2.5]), np.array([0.0, 2.0]))
    array([0.5 , 0.25])
    """
    pair = _difference(actual, expected)
    if pair is None:
        return np.full(expected.size or 1, np.inf)
    return _ratio(np.abs(pair[0]), np.max(np.abs(pair[1]), initial=0.0))


def elementwise_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest of the relative differences of the entries, each against its own reference.

    >>> elementwise_error(np.array([1.1, 200.0]), np.array([1.0, 200.0]))
    0.10000000000000009
    """
    return float(np.max(elementwise_errors(actual, expected), initial=0.0))


def elementwise_errors(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Relative differences of the entries, each against its own reference, ``[N]``.

    >>> elementwise_errors(np.array([1.5, 200.0]), np.array([1.0, 200.0]))
    array([0.5, 0. ])
    """
    pair = _difference(actual, expected)
    if pair is None:
        return np.full(expected.size or 1, np.inf)
    return _ratio(np.abs(pair[0]), np.abs(pair[1]))


def l2_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Euclidean norm of the difference over that of the reference.

    >>> l2_error(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
    0.1
    """
    pair = _difference(actual, expected)
    if pair is None:
        return float("inf")
    return float(_ratio(np.linalg.norm(pair[0]), np.linalg.norm(pair[1])))


def bit_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Number of entries whose value is not the reference's, signs of zeros included.

    >>> bit_error(np.array([1, 2, 3]), np.array([1, 2, 4]))
    1.0
    """
    if actual.shape != expected.shape:
        return float("inf")
    floats = [np.issubdtype(x.dtype, np.floating) for x in (actual, expected)]
    if any(floats):
        if actual.dtype != expected.dtype:
            return float("inf")
        integer = np.dtype(f"i{expected.dtype.itemsize}")
        actual = np.ascontiguousarray(actual).view(integer)
        expected = np.ascontiguousarray(expected).view(integer)
    return float(np.sum(actual != expected))
