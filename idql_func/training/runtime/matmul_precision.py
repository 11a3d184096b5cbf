"""Faster matrix products: on the CPU if they are as exact, and in bfloat16 if the settings say so.

``torch.set_float32_matmul_precision("medium")`` allows torch to compute float32 products with
oneDNN. On many CPUs that is up to twice as fast as the default route with the error of float32; on
CPUs with bfloat16 matrix units the same switch may compute in bfloat16. Which of the two it is can
only be measured, so this module measures it.

In compiled programs the library's own matmul (``kernels/matmul.py``) fuses a product with the
operations after it. It is used if it is built, as exact, and not clearly slower by itself.

bfloat16 keeps 8 bits of each factor: an error of 3e-3 instead of 3e-7. If the CPU has units for it,
a product takes about half the time. It is used on request only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from idql_func.kernels import matmul as own_matmul
from idql_func.networks.layers import matmul
from idql_func.switches import set_bfloat16_matmul, set_native_matmul
from idql_func.types import InputError

__all__ = ["MatmulChoice", "matmul_precision", "probe_bfloat16", "probe_matmul"]

MODES = ("auto", "strict", "bf16")
_OWN = "+own"
_SETTINGS = ("highest", "medium", "bf16", f"highest{_OWN}", f"medium{_OWN}")

_SHAPE = (512, 256, 1024)  # rows, inner, columns: the largest product of an update
_REPEATS = 12
_AS_EXACT = 3.0
_CLEARLY_SLOWER = 0.8
_CLEARLY_FASTER = 1.15


@dataclass(frozen=True)
class MatmulChoice:
    """The chosen route, and why.

    ``setting`` is the argument of ``torch.set_float32_matmul_precision``, followed by ``+own`` if
    compiled programs use the library's own matmul, or ``"bf16"``; the errors are relative Frobenius
    errors against float64; ``speedup`` is the time of the strict route over that of the faster one
    (0 if nothing was measured), in bfloat16 the time of the faster float32 route over it.
    """

    setting: str
    reason: str
    error_strict: float = 0.0
    error_fast: float = 0.0
    speedup: float = 0.0


def probe_matmul() -> MatmulChoice:
    """Measure the routes on the CPU and choose one; takes less than 0.3 s and changes no setting.

    A route is chosen if its error is at most three times that of the strict one (another order of
    summation costs less; bfloat16 or TF32 cost a factor of 1,000), unless it is clearly slower. The
    error decides, because it is the same in every run: a choice by similar times would change the
    bits of a run with the machine's load.

    If the library's own matmul is not built yet, this builds it, which takes some seconds.

    Example:
        >>> probe_matmul().setting.removesuffix("+own") in ("highest", "medium")
        True
    """
    routes = ("highest", "medium", *([_OWN] if own_matmul.available() else []))
    errors, seconds = _measure(routes)
    strict = errors["highest"]

    def as_exact(route: str) -> bool:
        return errors[route] <= _AS_EXACT * strict

    def choice(setting: str, route: str, reason: str) -> MatmulChoice:
        speedup = seconds["highest"] / seconds[route]
        if setting != "highest":
            reason = f"{reason}: {speedup:.2f}x the speed, error {errors[route]:.1e} as for float32"
            reason += f" ({strict:.1e})"
        return MatmulChoice(setting, reason, strict, errors[route], speedup)

    speed = seconds["highest"] / seconds["medium"]
    if not as_exact("medium"):
        reason = f"strict: the faster route errs by {errors['medium']:.1e}, more than float32"
        chosen = choice("highest", "medium", reason)
    elif speed < _CLEARLY_SLOWER:
        reason = f"strict: the other route has {speed:.2f}x the speed on this machine"
        chosen = choice("highest", "medium", reason)
    else:
        chosen = choice("medium", "medium", "oneDNN route")
    own = _OWN in routes and as_exact(_OWN)
    if own and seconds[chosen.setting] >= _CLEARLY_SLOWER * seconds[_OWN]:
        return choice(chosen.setting + _OWN, _OWN, "own matmul")
    return chosen


def probe_bfloat16() -> MatmulChoice:
    """Measure products in bfloat16 on the CPU, and compare with the faster route of float32.

    The choice is always bfloat16; the reason gives its error and speed, and on a CPU without units
    for bfloat16 that it is no faster.

    Example:
        >>> choice = probe_bfloat16()
        >>> choice.setting, 1e-3 < choice.error_fast < 1e-2
        ('bf16', True)
    """
    errors, seconds = _measure(("highest", "medium", "bf16"))
    exact = [s for s in ("highest", "medium") if errors[s] <= _AS_EXACT * errors["highest"]]
    speedup = min(seconds[s] for s in exact) / seconds["bf16"]
    brings = f"{speedup:.2f}x the speed of float32"
    if speedup < _CLEARLY_FASTER:
        brings = f"no faster than float32 on this CPU ({speedup:.2f}x), only less exact"
    reason = (
        f"bfloat16, as asked: {brings}, error {errors['bf16']:.1e} where float32 has "
        f"{errors['highest']:.1e}"
    )
    return MatmulChoice("bf16", reason, errors["highest"], errors["bf16"], speedup)


def _measure(settings: tuple[str, ...]) -> tuple[dict[str, float], dict[str, float]]:
    """The error and the seconds of a product by each route; no setting is changed."""
    generator = torch.Generator().manual_seed(0)
    rows, inner, columns = _SHAPE
    a = torch.randn(rows, inner, generator=generator)
    b = torch.randn(inner, columns, generator=generator)
    exact = a.double() @ b.double()
    errors = dict.fromkeys(settings, 0.0)
    seconds = dict.fromkeys(settings, float("inf"))
    # Alternating, so that a slow moment of the machine affects all routes equally.
    for _ in range(_REPEATS):
        for setting in settings:
            with _set("highest" if setting == _OWN else setting):
                multiply = _own if setting == _OWN else matmul
                start = time.perf_counter()
                product = multiply(a, b)
                seconds[setting] = min(seconds[setting], time.perf_counter() - start)
                if errors[setting] == 0.0:
                    errors[setting] = float((product.double() - exact).norm() / exact.norm())
    return errors, seconds


def _own(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return own_matmul.fused_matmul(a, b, False, False, None, False, None, False)


@contextmanager
def _set(setting: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    of_torch = setting.removesuffix(_OWN)
    # products outside of layers (convolutions) use the faster route of float32 with bf16 too
    torch.set_float32_matmul_precision("medium" if of_torch == "bf16" else of_torch)
    try:
        with set_bfloat16_matmul(setting == "bf16"), set_native_matmul(setting.endswith(_OWN)):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def matmul_precision(
    mode: str = "auto", *, device: str | torch.device = "cpu", setting: str | None = None
) -> Iterator[MatmulChoice]:
    """Use the chosen route of matrix products within the block.

    Args:
        mode: ``"auto"`` measures once and uses the faster route if it is as exact; ``"strict"``
            uses full float32 everywhere; ``"bf16"`` rounds the factors of the layers' products
            to bfloat16, in the gradient too (parameters, sums and everything else stay float32).
        device: where products are computed. Only the CPU is measured; on any other device
            ``"auto"`` uses full float32, because the switch means TF32 or bfloat16 there.
        setting: an earlier ``MatmulChoice.setting`` to use instead of a new choice. A resumed run
            needs the route that it began with to continue with the same bits.

    Raises:
        InputError: ``mode`` or ``setting`` is not one of the above.

    Example:
        >>> with matmul_precision("strict") as choice:
        ...     torch.get_float32_matmul_precision(), choice.setting
        ('highest', 'highest')
    """
    if mode not in MODES:
        raise InputError(f"matmul is {mode!r}, but must be 'auto', 'strict' or 'bf16'")
    if setting not in (None, *_SETTINGS):
        raise InputError(
            f"the matmul setting is {setting!r}, but must be 'highest', 'medium' or 'bf16', the "
            f"first two optionally followed by {_OWN!r}"
        )
    on_cpu = torch.device(device).type == "cpu"
    if setting is not None:
        choice = MatmulChoice(setting, f"{setting!r}, as at the start of the run")
    elif mode == "strict":
        choice = MatmulChoice("highest", "strict: full float32, as asked")
    elif mode == "bf16" and on_cpu:
        choice = probe_bfloat16()
    elif mode == "bf16":
        choice = MatmulChoice("bf16", "bfloat16, as asked; its error is about 3e-03 (not measured)")
    elif not on_cpu:
        choice = MatmulChoice("highest", "strict: full float32 on this device")
    else:
        choice = probe_matmul()
    with _set(choice.setting):
        yield choice
