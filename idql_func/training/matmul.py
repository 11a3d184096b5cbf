"""Faster float32 matrix products on the CPU, where they are no less exact.

``torch.set_float32_matmul_precision("medium")`` permits torch to hand float32 products to oneDNN.
On many CPUs that is up to twice as fast as the default route with the error of float32; on CPUs
with bfloat16 matrix units the same switch may really compute in bfloat16. Which of the two it is
can only be measured, so it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from idql_func.types import InputError

__all__ = ["MatmulChoice", "matmul_precision", "probe_matmul"]

_SHAPE = (512, 256, 1024)  # rows, inner, columns: the largest product of an update
_REPEATS = 12
_CLEARLY_SLOWER = 0.8


@dataclass(frozen=True)
class MatmulChoice:
    """What was chosen, and why.

    ``setting`` is the argument of ``torch.set_float32_matmul_precision``; the errors are relative
    Frobenius errors against float64; ``speedup`` is the time of the strict route over that of the
    faster one (0 if nothing was measured).
    """

    setting: str
    reason: str
    error_strict: float = 0.0
    error_fast: float = 0.0
    speedup: float = 0.0


def probe_matmul() -> MatmulChoice:
    """Measure both routes on the CPU and choose; takes well under 0.3 s and changes nothing.

    The other route is taken if its error is at most three times that of the strict one (summing
    in another order costs less than that; bfloat16 or TF32 cost a factor of 1,000), unless it is
    clearly slower. What decides is the error, which is the same at every run: a choice by times
    that lie close together would change the bits of a run with the machine's load.

    Example:
        >>> probe_matmul().setting in ("highest", "medium")
        True
    """
    generator = torch.Generator().manual_seed(0)
    rows, inner, columns = _SHAPE
    a = torch.randn(rows, inner, generator=generator)
    b = torch.randn(inner, columns, generator=generator)
    exact = a.double() @ b.double()
    errors = {"highest": 0.0, "medium": 0.0}
    seconds = {"highest": float("inf"), "medium": float("inf")}
    before = torch.get_float32_matmul_precision()
    try:
        # Alternating, so that a slow moment of the machine meets both routes alike.
        for _ in range(_REPEATS):
            for setting in ("highest", "medium"):
                torch.set_float32_matmul_precision(setting)
                start = time.perf_counter()
                product = a @ b
                seconds[setting] = min(seconds[setting], time.perf_counter() - start)
                if errors[setting] == 0.0:
                    errors[setting] = float((product.double() - exact).norm() / exact.norm())
    finally:
        torch.set_float32_matmul_precision(before)
    speedup = seconds["highest"] / seconds["medium"]
    figures = (errors["highest"], errors["medium"], speedup)
    if errors["medium"] > 3.0 * errors["highest"]:
        reason = f"strict: the faster route errs by {errors['medium']:.1e}, more than float32"
        return MatmulChoice("highest", reason, *figures)
    if speedup < _CLEARLY_SLOWER:
        reason = f"strict: the other route has {speedup:.2f}x the speed on this machine"
        return MatmulChoice("highest", reason, *figures)
    reason = f"oneDNN route: {speedup:.2f}x the speed, error {errors['medium']:.1e} as for float32"
    return MatmulChoice("medium", reason, *figures)


@contextmanager
def matmul_precision(
    mode: str = "auto", *, device: str | torch.device = "cpu", setting: str | None = None
) -> Iterator[MatmulChoice]:
    """Within the block, float32 products take the chosen route; afterwards all is as before.

    Args:
        mode: ``"auto"`` probes once and takes the faster route if it is as exact; ``"strict"``
            takes full float32 everywhere.
        device: where the work happens. Only the CPU is probed; on any other device full float32
            is kept, since the switch means TF32 or bfloat16 there.
        setting: a former ``MatmulChoice.setting`` to take instead of choosing anew. A resumed run
            needs the very route it began with to go on with the same bits.

    Raises:
        InputError: ``mode`` or ``setting`` is none of the above.

    Example:
        >>> with matmul_precision("strict") as choice:
        ...     torch.get_float32_matmul_precision(), choice.setting
        ('highest', 'highest')
    """
    if mode not in ("auto", "strict"):
        raise InputError(f"matmul is {mode!r}, but must be 'auto' or 'strict'")
    if setting not in (None, "highest", "medium"):
        raise InputError(f"the matmul setting is {setting!r}, but must be 'highest' or 'medium'")
    if setting is not None:
        choice = MatmulChoice(setting, f"{setting!r}, as the run began")
    elif mode == "strict":
        choice = MatmulChoice("highest", "strict: full float32, as asked")
    elif torch.device(device).type != "cpu":
        choice = MatmulChoice("highest", "strict: full float32 on this device")
    else:
        choice = probe_matmul()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(choice.setting)
    try:
        yield choice
    finally:
        torch.set_float32_matmul_precision(before)
