"""Elementary functions that round like XLA on a CPU, where torch differs in the last bits.

They turn uniform draws into normals, from which parameters are initialised; reproducing a training
run in double precision needs them to the bit. Like XLA, polynomials use fused multiply-adds.
Derivatives are those of the exact functions, as in JAX, not those of the polynomials.

Sources: M. Giles, "Approximating the erfinv function" (2010); S. Moshier's Cephes library
for log, log1p and erf; the code that XLA generates, for the conditions of each branch.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idql_func.kernels.build import differentiated

_Step = Callable[[Tensor, Tensor, float], Tensor]

_COEFFICIENTS: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("xla_math.toml").read_text(encoding="utf-8")
)
"""Polynomials, highest power first, by function and branch; the file names their sources."""


def fused_multiply_add(x: Tensor, y: Tensor, z: Tensor | float) -> Tensor:
    """Compute ``x * y + z`` with one rounding, in the precision of the arguments.

    A float32 result is rounded a second time where the sum does not fit into float64, as for a
    tiny ``z``; :func:`fused_multiply_add_once` is not.
    """
    if x.dtype == torch.float32:
        # a product of two float32 is exact in float64
        z = z.double() if isinstance(z, Tensor) else float(np.float32(z))
        return (x.double() * y.double() + z).float()
    product, product_error = _two_product(x, y)
    total, total_error = _two_sum(product, z)
    return total + (total_error + product_error)


def fused_multiply_add_once(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """:func:`fused_multiply_add` of float32, with one rounding for any size of ``z``.

    The float64 sum is rounded to odd, so that rounding it to float32 sees which side of a tie it is
    on (S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    total, error = _two_sum(x.double() * y.double(), z.double())
    bits = total.view(torch.int64)
    step = torch.where(error * total > 0, 1, -1)
    odd = torch.where((error != 0) & (bits % 2 == 0), bits + step, bits)
    rounded = odd.view(torch.float64)
    return (_with_derivatives_of(total, rounded) if differentiated(total) else rounded).float()


def _with_derivatives_of(smooth: Tensor, value: Tensor) -> Tensor:
    """The bits of ``value`` with the derivatives of ``smooth``, the same number before rounding."""
    zero = smooth.detach() - smooth
    # subtracted, since the sum of -0.0 and 0.0 is 0.0
    return torch.where(smooth.isfinite(), value.detach() - zero, value.detach())


def _two_sum(x: Tensor, y: Tensor | float) -> tuple[Tensor, Tensor]:
    """The rounded sum and its exact error (Knuth, 1969)."""
    total = x + y
    virtual = total - x
    return total, (x - (total - virtual)) + (y - virtual)


def _two_product(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The float64 product and its exact error (Dekker, 1971)."""

    def halves(value: Tensor) -> tuple[Tensor, Tensor]:
        scaled = value * (2.0**27 + 1)
        high = scaled - (scaled - value)
        return high, value - high

    product = x * y
    (x1, x2), (y1, y2) = halves(x), halves(y)
    return product, ((x1 * y1 - product) + x1 * y2 + x2 * y1) + x2 * y2


def sqrt2(dtype: torch.dtype) -> float:
    """The square root of two, rounded to the dtype."""
    return math.sqrt(2) if dtype == torch.float64 else float(np.float32(math.sqrt(2)))


def _horner(coefficients: Sequence[float], x: Tensor, step: _Step) -> Tensor:
    """Evaluate a polynomial by Horner's rule, highest power first, with steps ``step(p, x, c)``."""
    p = torch.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        p = step(p, x, c)
    return p


def _ratio(name: str, x: Tensor, step: _Step, factor: Tensor | float = 1.0) -> Tensor:
    """``factor`` times the quotient of two polynomials."""
    numerator, denominator = _COEFFICIENTS[name].values()
    return factor * _horner(numerator, x, step) / _horner(denominator, x, step)


def log(x: Tensor) -> Tensor:
    """XLA's logarithm of positive normal numbers, equal to the bit in float32."""
    if x.dtype == torch.float64:
        return torch.log(x)
    if differentiated(x):
        return _with_derivatives_of(torch.log(x), _log32(x.detach()))
    return _log32(x)


def _log32(x: Tensor) -> Tensor:
    mantissa, power = torch.frexp(x)
    low = mantissa < math.sqrt(0.5)
    t = torch.where(low, mantissa + mantissa, mantissa) - 1
    exponent = power.float() - low.float()
    square, cube = t * t, t * t * t
    polynomials = _COEFFICIENTS["log32"]["parts"]
    parts = [_horner(polynomial, t, fused_multiply_add) for polynomial in polynomials]
    y = fused_multiply_add(fused_multiply_add(parts[0], cube, parts[1]), cube, parts[2])
    y = fused_multiply_add(y, cube, exponent * float(np.float32(-2.12194440e-4)))
    half = torch.full_like(t, 0.5)
    y = fused_multiply_add(-square, half, t) + y
    return fused_multiply_add(torch.full_like(t, 0.693359375), exponent, y)


def _log1p(x: Tensor) -> Tensor:
    """XLA's log1p for arguments above -1."""
    step = fused_multiply_add if x.dtype == torch.float32 else _multiply_add
    ratio = _ratio("log1p", x, step)
    square = x * x
    small = x + step(x * square, ratio, -0.5 * square)
    return torch.where(x.abs() < math.sqrt(2) - 1, small, log(x + 1))


def erfinv(x: Tensor) -> Tensor:
    """XLA's inverse error function; ``torch.erfinv`` differs from it by tens of ulp."""
    if differentiated(x):
        return _with_derivatives_of(torch.erfinv(x), _erfinv(x.detach()))
    return _erfinv(x)


def _erfinv(x: Tensor) -> Tensor:
    w = -_log1p(x * -x)
    if x.dtype == torch.float32:
        centre = w < 5
        # The square root is taken in float64 because torch's float32 one can be an ulp off.
        # Coefficients are selected per element; each step is a fused multiply-add, as in XLA.
        v = torch.where(centre, w - 2.5, torch.sqrt(w.double()).float() - 3)
        (c, *centres), (t, *tails) = _COEFFICIENTS["erfinv32"].values()
        p = torch.where(centre, c, t).float()
        for c, t in zip(centres, tails, strict=True):
            p = fused_multiply_add(p, v, torch.where(centre, c, t).float())
    else:
        root = torch.sqrt(w)
        arguments = w - 3.125, root - 3.25, root - 5
        central, middle, tail = (
            _horner(coefficients, x, _multiply_add)
            for coefficients, x in zip(_COEFFICIENTS["erfinv64"].values(), arguments, strict=True)
        )
        p = torch.where(w < 6.25, central, torch.where(w < 16, middle, tail))
    return torch.where(x.abs() == 1, x * math.inf, p * x)


def erf(x: Tensor) -> Tensor:
    """XLA's error function, used for the bounds of the truncated normal."""
    if differentiated(x):
        return _with_derivatives_of(torch.erf(x), _erf(x.detach()))
    return _erf(x)


def _erf(x: Tensor) -> Tensor:
    if x.dtype == torch.float32:
        x = torch.clamp(x, -4, 4)
        return torch.clamp(_ratio("erf32", x * x, fused_multiply_add, x), -1, 1)
    inner = _ratio("erf64", x * x, fused_multiply_add, x)
    # for |x| >= 6, erfc is below half an ulp of 1
    size = torch.clamp(x.abs(), max=6)
    rest = _ratio("erfc64", size, fused_multiply_add, torch.exp(-size * size))
    return torch.where(x.abs() < 1, inner, torch.sign(x) * (1 - rest))


def _multiply_add(x: Tensor, y: Tensor, z: Tensor | float) -> Tensor:
    return x * y + z
