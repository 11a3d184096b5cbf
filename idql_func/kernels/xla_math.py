"""Elementary functions that round like XLA on a CPU, where torch differs in the last bits.

They turn uniform draws into normals, from which parameters are initialised; reproducing a training
run in double precision needs them to the bit. Like XLA, polynomials use fused multiply-adds.

Sources: M. Giles, "Approximating the erfinv function" (2010); S. Moshier's Cephes library
for log, log1p and erf; the code that XLA generates, for the conditions of each branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def fused_multiply_add(x: Tensor, y: Tensor, z: Tensor | float) -> Tensor:
    """Compute ``x * y + z`` with one rounding, in the precision of the arguments."""
    if x.dtype == torch.float32:
        # a product of two float32 is exact in float64
        z = z.double() if isinstance(z, Tensor) else float(np.float32(z))
        return (x.double() * y.double() + z).float()
    product, product_error = _two_product(x, y)
    total = product + z
    virtual = total - product
    total_error = (product - (total - virtual)) + (z - virtual)
    return total + (total_error + product_error)


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


def _horner(
    coefficients: Sequence[float],
    x: Tensor,
    step: Callable[[Tensor, Tensor, float], Tensor],
) -> Tensor:
    """Evaluate a polynomial by Horner's rule, highest power first, with steps ``step(p, x, c)``."""
    p = torch.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        p = step(p, x, c)
    return p


# M. Giles, "Approximating the erfinv function", single precision, highest power first:
# the central branch in w - 2.5 and the tail in sqrt(w) - 3.
_ERFINV32_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_ERFINV32_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip

# The same paper's double precision: w < 6.25 in w - 3.125, w < 16 in sqrt(w) - 3.25,
# and the far tail in sqrt(w) - 5.
_ERFINV64_CENTRE = (
    -3.6444120640178196921e-21, -1.685059138182016589e-19, 1.2858480715256400167e-18,
    1.115787767802518096e-17, -1.333171662854620906e-16, 2.0972767875968561637e-17,
    6.6376381343583238325e-15, -4.0545662729752068639e-14, -8.1519341976054721522e-14,
    2.6335093153082322977e-12, -1.2975133253453532498e-11, -5.4154120542946279317e-11,
    1.051212273321532285e-09, -4.1126339803469836976e-09, -2.9070369957882005086e-08,
    4.2347877827932403518e-07, -1.3654692000834678645e-06, -1.3882523362786468719e-05,
    0.0001867342080340571352, -0.00074070253416626697512, -0.0060336708714301490533,
    0.24015818242558961693, 1.6536545626831027356,
)  # fmt: skip
_ERFINV64_MIDDLE = (
    2.2137376921775787049e-09, 9.0756561938885390979e-08, -2.7517406297064545428e-07,
    1.8239629214389227755e-08, 1.5027403968909827627e-06, -4.013867526981545969e-06,
    2.9234449089955446044e-06, 1.2475304481671778723e-05, -4.7318229009055733981e-05,
    6.8284851459573175448e-05, 2.4031110387097893999e-05, -0.0003550375203628474796,
    0.00095328937973738049703, -0.0016882755560235047313, 0.0024914420961078508066,
    -0.0037512085075692412107, 0.005370914553590063617, 1.0052589676941592334,
    3.0838856104922207635,
)  # fmt: skip
_ERFINV64_TAIL = (
    -2.7109920616438573243e-11, -2.5556418169965252055e-10, 1.5076572693500548083e-09,
    -3.7894654401267369937e-09, 7.6157012080783393804e-09, -1.4960026627149240478e-08,
    2.9147953450901080826e-08, -6.7711997758452339498e-08, 2.2900482228026654717e-07,
    -9.9298272942317002539e-07, 4.5260625972231537039e-06, -1.9681778105531670567e-05,
    7.5995277030017761139e-05, -0.00021503011930044477347, -0.00013871931833623122026,
    1.0103004648645343977, 4.8499064014085844221,
)  # fmt: skip


# XLA's log1p for |x| < sqrt(2) - 1 is x - x^2/2 + x^3 P(x)/Q(x), from Cephes. Near the negative
# end this leaves the range in which the approximation is accurate, by many ulp in float64.
_LOG1P_NUMERATOR = (
    4.5270000862445199635215e-5, 4.9854102823193375972212e-1, 6.5787325942061044846969e0,
    2.9911919328553073277375e1, 6.0949667980987787057556e1, 5.7112963590585538103336e1,
    2.0039553499201281259648e1,
)  # fmt: skip
_LOG1P_DENOMINATOR = (
    1.0, 1.5062909083469192043167e1, 8.3047565967967209469434e1, 2.2176239823732856465394e2,
    3.0909872225312059774938e2, 2.1642788614495947685003e2, 6.0118660497603843919306e1,
)  # fmt: skip

# XLA's float32 log is Cephes' logf: three interleaved parts of a degree-8 polynomial.
_LOG32 = (
    (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1),
    (-1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1),
    (2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)


def log(x: Tensor) -> Tensor:
    """XLA's logarithm of positive normal numbers, equal to the bit in float32."""
    if x.dtype == torch.float64:
        return torch.log(x)
    mantissa, power = torch.frexp(x)
    low = mantissa < math.sqrt(0.5)
    t = torch.where(low, mantissa + mantissa, mantissa) - 1
    exponent = power.float() - low.float()
    square, cube = t * t, t * t * t
    parts = [fused_multiply_add(t * 0 + c0, t, c1) for c0, c1, _ in _LOG32]
    parts = [fused_multiply_add(p, t, c[2]) for p, c in zip(parts, _LOG32, strict=True)]
    y = fused_multiply_add(fused_multiply_add(parts[0], cube, parts[1]), cube, parts[2])
    y = fused_multiply_add(y, cube, exponent * float(np.float32(-2.12194440e-4)))
    half = torch.full_like(t, 0.5)
    y = fused_multiply_add(-square, half, t) + y
    return fused_multiply_add(torch.full_like(t, 0.693359375), exponent, y)


def _log1p(x: Tensor) -> Tensor:
    """XLA's log1p for arguments above -1."""
    step = fused_multiply_add if x.dtype == torch.float32 else _multiply_add
    ratio = _horner(_LOG1P_NUMERATOR, x, step) / _horner(_LOG1P_DENOMINATOR, x, step)
    square = x * x
    small = x + step(x * square, ratio, -0.5 * square)
    return torch.where(x.abs() < math.sqrt(2) - 1, small, log(x + 1))


def erfinv(x: Tensor) -> Tensor:
    """XLA's inverse error function; ``torch.erfinv`` differs from it by tens of ulp."""
    w = -_log1p(x * -x)
    if x.dtype == torch.float32:
        centre = w < 5
        # The square root is taken in float64 because torch's float32 one can be an ulp off.
        # Coefficients are selected per element; each step is a fused multiply-add, as in XLA.
        v = torch.where(centre, w - 2.5, torch.sqrt(w.double()).float() - 3)
        p = torch.where(centre, _ERFINV32_CENTRE[0], _ERFINV32_TAIL[0]).float()
        for c, t in zip(_ERFINV32_CENTRE[1:], _ERFINV32_TAIL[1:], strict=True):
            p = fused_multiply_add(p, v, torch.where(centre, c, t).float())
    else:
        root = torch.sqrt(w)
        p = torch.where(
            w < 6.25,
            _horner(_ERFINV64_CENTRE, w - 3.125, _multiply_add),
            torch.where(
                w < 16,
                _horner(_ERFINV64_MIDDLE, root - 3.25, _multiply_add),
                _horner(_ERFINV64_TAIL, root - 5, _multiply_add),
            ),
        )
    return torch.where(x.abs() == 1, x * math.inf, p * x)


# XLA's single-precision erf: x * P(x^2) / Q(x^2) on [-4, 4].
_ERF32_NUMERATOR = (
    -2.72614237e-10, 2.77068146e-08, -2.10102394e-06, -5.69250624e-05, -0.000734990637,
    -0.0029546, -0.0160960332,
)  # fmt: skip
_ERF32_DENOMINATOR = (
    -1.45660715e-05, -0.000213374049, -0.00168282702, -0.00737332925, -0.0142647391,
)  # fmt: skip

# XLA's double-precision erf is that of the Cephes library (S. Moshier): x * P(x^2) / Q(x^2) for
# |x| < 1, else 1 - exp(-x^2) * R(x) / S(x).
_ERF64_NUMERATOR = (
    9.60497373987051638749e0, 9.00260197203842689217e1, 2.23200534594684319226e3,
    7.00332514112805075473e3, 5.55923013010394962768e4,
)  # fmt: skip
_ERF64_DENOMINATOR = (
    1.0, 3.35617141647503099647e1, 5.21357949780152679795e2, 4.59432382970980127987e3,
    2.26290000613890934246e4, 4.92673942608635921086e4,
)  # fmt: skip
_ERFC64_NUMERATOR = (
    2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687e0,
    4.86371970985681366614e1, 1.96520832956077098242e2, 5.26445194995477358631e2,
    9.34528527171957607540e2, 1.02755188689515710272e3, 5.57535335369399327526e2,
)  # fmt: skip
_ERFC64_DENOMINATOR = (
    1.0, 1.32281951154744992508e1, 8.67072140885989742329e1, 3.54937778887819891062e2,
    9.75708501743205489753e2, 1.82390916687909736289e3, 2.24633760818710981792e3,
    1.65666309194161350182e3, 5.57535340817727675546e2,
)  # fmt: skip


def erf(x: Tensor) -> Tensor:
    """XLA's error function, used for the bounds of the truncated normal."""

    def ratio(p: Sequence[float], q: Sequence[float], y: Tensor, factor: Tensor) -> Tensor:
        return factor * _horner(p, y, fused_multiply_add) / _horner(q, y, fused_multiply_add)

    if x.dtype == torch.float32:
        x = torch.clamp(x, -4, 4)
        return torch.clamp(ratio(_ERF32_NUMERATOR, _ERF32_DENOMINATOR, x * x, x), -1, 1)
    inner = ratio(_ERF64_NUMERATOR, _ERF64_DENOMINATOR, x * x, x)
    # for |x| >= 6, erfc is below half an ulp of 1
    size = torch.clamp(x.abs(), max=6)
    rest = ratio(_ERFC64_NUMERATOR, _ERFC64_DENOMINATOR, size, torch.exp(-size * size))
    return torch.where(x.abs() < 1, inner, torch.sign(x) * (1 - rest))


def _multiply_add(x: Tensor, y: Tensor, z: Tensor | float) -> Tensor:
    return x * y + z
