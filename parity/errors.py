"""Distances between a computed array and its reference, one function a measure.

Every measure returns one float, 0 for equality and infinity where no tolerance makes sense: another
shape, or a NaN or an infinity on one side only.
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
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    if not np.all(same | (np.isfinite(actual) & np.isfinite(expected))):
        return float("inf")
    actual, expected = actual[~same].reshape(-1), expected[~same].reshape(-1)
    if actual.size == 0:
        return 0.0
    return float(np.max(np.abs(_ordered(actual) - _ordered(expected))))


def _difference(actual: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Float64 ``(actual - expected, expected)`` over the finite entries; None if not comparable."""
    if actual.shape != expected.shape:
        return None
    a, e = actual.astype(np.float64).reshape(-1), expected.astype(np.float64).reshape(-1)
    alike = (a == e) | (np.isnan(a) & np.isnan(e))
    finite = np.isfinite(a) & np.isfinite(e)
    if not np.all(alike | finite):
        return None
    return a[finite] - e[finite], e[finite]


def _ratio(error: float, scale: float) -> float:
    if error == 0.0:
        return 0.0
    return error / scale if scale > 0.0 else float("inf")


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

    One small entry beside large ones is judged at the scale of the array it belongs to, which is
    the accuracy that a matrix product can promise.

    >>> relative_error(np.array([1e-9, 2.5]), np.array([0.0, 2.0]))
    0.25
    """
    pair = _difference(actual, expected)
    if pair is None:
        return float("inf")
    difference, reference = pair
    return _ratio(
        float(np.max(np.abs(difference), initial=0.0)),
        float(np.max(np.abs(reference), initial=0.0)),
    )


def elementwise_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest of the relative differences of the entries, each against its own reference.

    >>> elementwise_error(np.array([1.1, 200.0]), np.array([1.0, 200.0]))
    0.10000000000000009
    """
    pair = _difference(actual, expected)
    if pair is None:
        return float("inf")
    ratios = (_ratio(float(abs(d)), float(abs(r))) for d, r in zip(*pair, strict=True))
    return max(ratios, default=0.0)


def l2_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Euclidean norm of the difference over that of the reference.

    >>> l2_error(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
    0.1
    """
    pair = _difference(actual, expected)
    if pair is None:
        return float("inf")
    return _ratio(float(np.linalg.norm(pair[0])), float(np.linalg.norm(pair[1])))


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
