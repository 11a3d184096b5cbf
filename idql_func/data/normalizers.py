"""Normalisers that give back the very numbers they were given.

``normalize`` is ``z = (x - shift) / scale`` in float64, and ``denormalize`` is ``z * scale +
shift`` rounded to float32. *Exact inversion* means: for every finite float32 ``x``, zeros of both
signs and subnormal numbers included, ``denormalize(normalize(x))`` has the bits of ``x``, as long
as ``z`` is kept in float64. (A float32 ``z`` has too few bits to tell all ``x`` apart; from one,
``x`` comes back to the usual rounding error.)

Float64 alone gives that for most numbers only: its 53 bits hold ``x - shift`` well enough to round
back to ``x`` as long as ``x`` is not very small beside ``shift``. Below ``2^-18 |shift|`` a plain
quotient would send many ``x`` to the same ``z``. There the float32 numbers are spread evenly, in
their order, over the room that ``z`` leaves between the images of the larger ones. This moves ``z``
by at most ``2^-17 |shift| / scale`` (and at least half of float32's least number, which keeps the
two zeros apart), for such ``x`` only; all others get the plain quotient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from idql_func.struct import PyTreeNode
from idql_func.types import InputError

__all__ = ["Normalizer", "fit_mean_std", "fit_min_max"]


class Normalizer(PyTreeNode):
    """An affine map of features, and its exact inverse.

    A frozen pytree: pass it through ``jit``, ``vmap`` and checkpoints like any other.

    Args:
        shift: float64 ``[...]``, what goes to 0; its shape broadcasts against the data's last axes.
        scale: float64 ``[...]`` > 0, how far from it 1 lies.

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
            x: ``[..., *shape]`` float32, or a dtype that float32 holds (float16, uint8, ...).

        Returns:
            float64, shape of ``x``; ``.float()`` of it is what a network takes.

        Raises:
            InputError: float64 or 64-bit integers, which float32 does not hold.
        """
        x = _float32(x, "normalize").to(self.shift.device)
        # where there is no shift nothing is taken off or added, which keeps the sign of zero
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
        # Small numbers fill half of the room up to the edge's image; the rest keeps them apart.
        offset = z - (0.0 - self.shift) / self.scale
        is_small = offset.abs() * self.scale < 0.75 * edge
        ordinal = torch.where(is_small, offset / step, 0.0).round()
        return torch.where(is_small, _from_ordinal(ordinal), moved.float())

    def _small(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Below which magnitude numbers are spread out, and how far apart: 0 without a shift."""
        # what is smaller than float32's least number is no number of it, but for the two zeros
        edge = (self.shift.abs() * 2.0**-18).clamp(min=2.0**-149)
        step = edge / (2 * self.scale * (_ordinal(edge.float()) + 1))
        return torch.where(self.shift == 0, 0.0, edge), torch.where(self.shift == 0, 1.0, step)


def fit_mean_std(x: torch.Tensor | np.ndarray) -> Normalizer:
    """Mean 0 and standard deviation 1 for each feature.

    Args:
        x: ``[N, ...]`` finite; the statistics are taken over the first axis, in float64.

    Returns:
        A normaliser of ``[..., *x.shape[1:]]``. A feature that does not vary keeps its scale.

    Raises:
        InputError: no rows, NaN or infinity, or a dtype that float32 does not hold.

    Example:
        >>> fit_mean_std(torch.tensor([[0.0], [4.0]]))
        Normalizer(shift=tensor([2.], dtype=torch.float64), scale=tensor([2.], dtype=torch.float64))
    """
    rows = _rows(x, "fit_mean_std")
    mean = rows.mean(0)
    return _normalizer(mean, (rows - mean).square().mean(0).sqrt())


def fit_min_max(x: torch.Tensor | np.ndarray) -> Normalizer:
    """The least value of each feature at -1 and the greatest at 1.

    Args:
        x: ``[N, ...]`` finite; the extremes are taken over the first axis.

    Returns:
        A normaliser of ``[..., *x.shape[1:]]``. A feature that does not vary goes to 0.

    Raises:
        InputError: no rows, NaN or infinity, or a dtype that float32 does not hold.

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
        raise InputError(f"{where}: the data holds NaN or infinity; all values must be finite.")
    return x.double()


def _float32(x: Any, where: str) -> torch.Tensor:
    x = torch.as_tensor(x)
    if x.dtype in (torch.float64, torch.int64, torch.int32) or x.is_complex():
        raise InputError(
            f"{where}: the data has dtype {x.dtype}, which float32 does not hold exactly; convert "
            "it with .float() first."
        )
    return x.float()


def _ordinal(x: torch.Tensor) -> torch.Tensor:
    """The place of a float32 among all of them, as float64: 0.0 is 0, -0.0 is -1."""
    bits = x.contiguous().view(torch.int32)
    return torch.where(bits < 0, ~(bits & 0x7FFFFFFF), bits).double()


def _from_ordinal(ordinal: torch.Tensor) -> torch.Tensor:
    # a negative number has the bits of its magnitude and the sign bit
    place = ordinal.int()
    return torch.where(place < 0, ~place | -(2**31), place).view(torch.float32)
