"""Normalisers with an exact inverse.

``normalize`` is ``z = (x - shift) / scale`` in float64, and ``denormalize`` is ``z * scale +
shift`` rounded to float32. *Exact inversion* means: for every finite float32 ``x``, zeros of both
signs and subnormal numbers included, ``denormalize(normalize(x))`` has the bits of ``x``, as long
as ``z`` stays in float64. (A float32 ``z`` has too few bits to distinguish all ``x``; its inverse
is ``x`` up to rounding.)

Float64 alone is exact for most numbers only: its 53 bits represent ``x - shift`` well enough to
round back to ``x`` unless ``x`` is very small compared with ``shift``. Below ``2^-18 |shift|`` a
plain quotient would map many ``x`` to the same ``z``. There the float32 numbers are spaced evenly,
in order, over the interval of ``z`` between the images of the larger ones. This moves ``z`` by at
most ``2^-17 |shift| / scale`` (and at least half of float32's smallest number, which separates the
two zeros), for these ``x`` only; all others get the plain quotient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from idql_func.boundary import explain_module
from idql_func.struct import PyTreeNode
from idql_func.types import InputError

__all__ = ["Normalizer", "fit_mean_std", "fit_min_max"]


class Normalizer(PyTreeNode):
    """An affine map of features with an exact inverse.

    A frozen pytree: pass it through ``jit``, ``vmap`` and checkpoints like any other.

    Args:
        shift: float64 ``[...]``, mapped to 0; its shape broadcasts against the data's last axes.
        scale: float64 ``[...]`` > 0; ``shift + scale`` is mapped to 1.

    Example:
        >>> normalizer = fit_mean_std(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        >>> z = normalizer.normalize(torch.tensor([1e-30, 5.0]))
        >>> z, normalizer.denormalize(z)
        (tensor([-2.0000,  0.0000], dtype=torch.float64), tensor([1.0000e-30, 5.0000e+00]))
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def normalize(self, x: torch.Tensor | np.ndarray) -> torch.Tensor:
        """``(x - shift) / scale``.

        Args:
            x: ``[..., *shape]`` float32, or a dtype that float32 represents (float16, uint8, ...).

        Returns:
            float64, shape of ``x``; convert it with ``.float()`` for a network.

        Raises:
            InputError: if the dtype is float64, int64, int32 or complex, which float32 cannot
                represent.
        """
        x = _float32(x, "normalize").to(self.shift.device)
        # without a shift nothing is subtracted or added, which keeps the sign of zero
        plain = torch.where(self.shift == 0, x.double(), x.double() - self.shift) / self.scale
        edge, step = self._small()
        at_zero = (0.0 - self.shift) / self.scale
        return torch.where(x.abs() < edge, at_zero + _ordinal(x) * step, plain)

    def denormalize(self, z: torch.Tensor | np.ndarray) -> torch.Tensor:
        """``z * scale + shift``, the inverse of :meth:`normalize`.

        Args:
            z: ``[..., *shape]``, float64 for an exact inverse.

        Returns:
            float32, shape of ``z``.
        """
        z = torch.as_tensor(z, device=self.shift.device).double()
        moved = torch.where(self.shift == 0, z * self.scale, z * self.scale + self.shift)
        edge, step = self._small()
        # Small numbers fill half of the interval up to the image of edge; the rest is a gap.
        offset = z - (0.0 - self.shift) / self.scale
        is_small = offset.abs() * self.scale < 0.75 * edge
        ordinal = torch.where(is_small, offset / step, 0.0).round()
        return torch.where(is_small, _from_ordinal(ordinal), moved.float())

    def _small(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The magnitude below which numbers are spaced evenly (0 without shift); the spacing."""
        # below float32's smallest positive number there are only the two zeros
        edge = (self.shift.abs() * 2.0**-18).clamp(min=2.0**-149)
        step = edge / (2 * self.scale * (_ordinal(edge.float()) + 1))
        return torch.where(self.shift == 0, 0.0, edge), torch.where(self.shift == 0, 1.0, step)


def fit_mean_std(x: torch.Tensor | np.ndarray) -> Normalizer:
    """Normalise each feature to mean 0 and standard deviation 1.

    Args:
        x: ``[N, ...]`` finite; the statistics are taken over the first axis, in float64.

    Returns:
        A normaliser for ``[..., *x.shape[1:]]``. A constant feature has scale 1.

    Raises:
        InputError: if there are no rows, a value is NaN or infinite, or float32 cannot represent
            the dtype.

    Example:
        >>> fit_mean_std(torch.tensor([[0.0], [4.0]])).shift
        tensor([2.], dtype=torch.float64)
    """
    rows = _rows(x, "fit_mean_std")
    mean = rows.mean(0)
    return _normalizer(mean, (rows - mean).square().mean(0).sqrt())


def fit_min_max(x: torch.Tensor | np.ndarray) -> Normalizer:
    """Map the minimum of each feature to -1 and the maximum to 1.

    Args:
        x: ``[N, ...]`` finite; the extrema are taken over the first axis.

    Returns:
        A normaliser for ``[..., *x.shape[1:]]``. A constant feature is mapped to 0.

    Raises:
        InputError: as :func:`fit_mean_std`.

    Example:
        >>> fit_min_max(torch.tensor([[1.0], [2.0], [5.0]])).normalize(torch.tensor([1.0]))
        tensor([-1.], dtype=torch.float64)
    """
    rows = _rows(x, "fit_min_max")
    low, high = rows.amin(0), rows.amax(0)
    return _normalizer((low + high) / 2, (high - low) / 2)


def _normalizer(shift: torch.Tensor, scale: torch.Tensor) -> Normalizer:
    return Normalizer(shift=shift, scale=torch.where(scale > 0, scale, 1.0))


def _rows(x: Any, where: str) -> torch.Tensor:
    x = _float32(x, where)
    if x.ndim == 0 or x.numel() == 0:
        raise InputError(f"{where}: the data has shape {tuple(x.shape)}; it must be [N, ...].")
    if not torch.isfinite(x).all():
        raise InputError(f"{where}: the data contains NaN or infinity; all values must be finite.")
    return x.double()


def _float32(x: Any, where: str) -> torch.Tensor:
    x = torch.as_tensor(x)
    if x.dtype in (torch.float64, torch.int64, torch.int32) or x.is_complex():
        raise InputError(
            f"{where}: the data has dtype {x.dtype}, which float32 cannot represent exactly; "
            "convert it with .float() first."
        )
    return x.float()


def _ordinal(x: torch.Tensor) -> torch.Tensor:
    """The index of a float32 in the sorted float32 numbers, as float64: 0.0 is 0, -0.0 is -1."""
    bits = x.contiguous().view(torch.int32)
    return torch.where(bits < 0, ~(bits & 0x7FFFFFFF), bits).double()


def _from_ordinal(ordinal: torch.Tensor) -> torch.Tensor:
    # a negative number has the bits of its magnitude and the sign bit
    index = ordinal.int()
    return torch.where(index < 0, ~index | -(2**31), index).view(torch.float32)


explain_module(__name__)
