"""Faster matrix products: on the CPU where they are no less exact, and in bfloat16 if asked for.

``torch.set_float32_matmul_precision("medium")`` permits torch to hand float32 products to oneDNN.
On many CPUs that is up to twice as fast as the default route with the error of float32; on CPUs
with bfloat16 matrix units the same switch may really compute in bfloat16. Which of the two it is
can only be measured, so it is.

In compiled programs the library's own products (``matmul.py``) do what follows a product along
with it. They are taken where they are built, as exact, and not clearly slower on their own.

bfloat16 keeps 8 bits of each factor: an error of 3e-3 in place of 3e-7. Where the CPU has units
for it, a product takes about half the time; nobody gets it without asking.
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
    """What was chosen, and why.

    ``setting`` is the argument of ``torch.set_float32_matmul_precision``, with ``+own`` behind it
    where compiled programs multiply by themselves, or ``"bf16"``; the errors are relative Frobenius
    errors against float64; ``speedup`` is the time of the strict route over that of the faster one
    (0 if nothing was measured), in bfloat16 the time of the faster float32 route over it.
    """

    setting: str
    reason: str
    error_strict: float = 0.0
    error_fast: float = 0.0
    speedup: float = 0.0


def probe_matmul() -> MatmulChoice:
    """Measure the routes on the CPU and choose; takes well under 0.3 s and changes nothing.

    A route is taken if its error is at most three times that of the strict one (summing in
    another order costs less than that; bfloat16 or TF32 cost a factor of 1,000), unless it is
    clearly slower. What decides is the error, which is the same at every run: a choice by times
    that lie close together would change the bits of a run with the machine's load.

    Where the library's own products have not been built yet, that takes some seconds, once.

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
    """Measure products in bfloat16 on the CPU, beside the faster route of float32.

    There is nothing to choose: the reason says what it costs and what it brings, and on a CPU
    without units for bfloat16 that it brings nothing.

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
    """The error of a product by each route, and its seconds; all is as before afterwards."""
    generator = torch.Generator().manual_seed(0)
    rows, inner, columns = _SHAPE
    a = torch.randn(rows, inner, generator=generator)
    b = torch.randn(inner, columns, generator=generator)
    exact = a.double() @ b.double()
    errors = dict.fromkeys(settings, 0.0)
    seconds = dict.fromkeys(settings, float("inf"))
    # Alternating, so that a slow moment of the machine meets all routes alike.
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
    # what no layer multiplies (convolutions) takes the faster route of float32 in bfloat16 too
    torch.set_float32_matmul_precision("medium" if of_torch == "bf16" else of_torch)
    try:
        with (
            set_bfloat16_matmul(setting == "bf16"),
            set_native_matmul(setting.endswith(_OWN)),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def matmul_precision(
    mode: str = "auto", *, device: str | torch.device = "cpu", setting: str | None = None
) -> Iterator[MatmulChoice]:
    """Within the block, products take the chosen route; afterwards all is as before.

    Args:
        mode: ``"auto"`` probes once and takes the faster route if it is as exact; ``"strict"``
            takes full float32 everywhere; ``"bf16"`` rounds the factors of the layers' products
            to bfloat16, in the gradient too (parameters, sums and all else stay float32).
        device: where the work happens. Only the CPU is probed; on any other device ``"auto"``
            keeps full float32, since the switch means TF32 or bfloat16 there.
        setting: a former ``MatmulChoice.setting`` to take instead of choosing anew. A resumed run
            needs the very route it began with to go on with the same bits.

    Raises:
        InputError: ``mode`` or ``setting`` is none of the above.

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
            f"first two perhaps with {_OWN!r} behind them"
        )
    on_cpu = torch.device(device).type == "cpu"
    if setting is not None:
        choice = MatmulChoice(setting, f"{setting!r}, as the run began")
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
