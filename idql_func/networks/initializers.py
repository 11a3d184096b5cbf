"""Initial values of parameters, the ones that Flax draws for a key (``jax.nn.initializers``).

A function here gives an initialiser: a function of a key, a shape and optionally a dtype. Without
a dtype, the values are float32, or float64 with ``enable_x64``. The layers of this package ask for
float32 always, as Flax's layers do. Each initialiser is a function of a module, or a
``functools.partial`` of one, so that networks can be pickled and compared by value.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from idql_func import random
from idql_func.boundary import explained
from idql_func.switches import float_dtype
from idql_func.types import InputError, PRNGKey

Initializer: TypeAlias = Callable[..., Tensor]
"""From a key, a shape and, if it takes one, a dtype to a tensor of that shape."""

Axes: TypeAlias = int | Sequence[int]

_drawn = functools.partial(explained, name="initializer")

_DEVIATION_OF_CUT_NORMAL = 0.87962566103423978
"""Deviation of a unit normal that is cut at two deviations."""


# --- values that need no fans -------------------------------------------------------------


@explained
def zeros(key: PRNGKey, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
    """All zero, whatever the key.

    >>> zeros(random.PRNGKey(0), (2,)).tolist()
    [0.0, 0.0]
    """
    return torch.zeros(shape, dtype=dtype or float_dtype(), device=key.device)


@explained
def ones(key: PRNGKey, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
    """All one, whatever the key.

    >>> ones(random.PRNGKey(0), (2,)).tolist()
    [1.0, 1.0]
    """
    return torch.ones(shape, dtype=dtype or float_dtype(), device=key.device)


@explained
def zeros_init() -> Initializer:
    """:func:`zeros`, in Flax's second spelling.

    >>> zeros_init() is zeros
    True
    """
    return zeros


@explained
def ones_init() -> Initializer:
    """:func:`ones`, in Flax's second spelling.

    >>> ones_init() is ones
    True
    """
    return ones


@explained
def constant(value: Tensor | np.ndarray | float, dtype: torch.dtype | None = None) -> Initializer:
    """``value`` everywhere; an array is broadcast to the shape.

    >>> constant(-0.5)(random.PRNGKey(0), (2,)).tolist()
    [-0.5, -0.5]
    """
    return functools.partial(_draw_constant, value=value, default=dtype)


@_drawn
def _draw_constant(
    key: PRNGKey,
    shape: tuple[int, ...],
    dtype: torch.dtype | None = None,
    *,
    value: Any,
    default: torch.dtype | None = None,
) -> Tensor:
    dtype = dtype or default or float_dtype()
    return torch.as_tensor(value, dtype=dtype, device=key.device).expand(shape).clone()


@explained
def uniform(scale: float = 1e-2, dtype: torch.dtype | None = None) -> Initializer:
    """Uniform in ``[0, scale)``, not symmetric around zero.

    >>> draw = uniform(3.0)(random.PRNGKey(0), (100,))
    >>> bool(draw.min() >= 0), bool(draw.max() < 3)
    (True, True)
    """
    return functools.partial(_draw_uniform, scale=scale, default=dtype)


@_drawn
def _draw_uniform(
    key: PRNGKey,
    shape: tuple[int, ...],
    dtype: torch.dtype | None = None,
    *,
    scale: float,
    default: torch.dtype | None = None,
) -> Tensor:
    return random.uniform(key, shape, dtype or default or float_dtype()) * scale


@explained
def normal(stddev: float = 1e-2, dtype: torch.dtype | None = None) -> Initializer:
    """Normal with a given deviation.

    >>> normal(0.2)(random.PRNGKey(0), (2, 1)).shape
    torch.Size([2, 1])
    """
    return functools.partial(_draw_normal, stddev=stddev, default=dtype)


@_drawn
def _draw_normal(
    key: PRNGKey,
    shape: tuple[int, ...],
    dtype: torch.dtype | None = None,
    *,
    stddev: float,
    default: torch.dtype | None = None,
) -> Tensor:
    return random.normal(key, shape, dtype or default or float_dtype()) * stddev


@explained
def truncated_normal(
    stddev: float = 1e-2,
    dtype: torch.dtype | None = None,
    lower: float = -2.0,
    upper: float = 2.0,
) -> Initializer:
    """``stddev`` times a unit normal that is cut at ``lower`` and ``upper``.

    ``stddev`` is the deviation before the cut: :func:`variance_scaling` corrects for the cut, this
    function does not.

    >>> bool(truncated_normal(0.1)(random.PRNGKey(0), (100,)).abs().max() <= 0.2)
    True
    """
    if not lower < upper:
        raise InputError(f"truncated_normal: lower must be below upper, got {lower} and {upper}.")
    return functools.partial(
        _draw_truncated_normal, stddev=stddev, lower=lower, upper=upper, default=dtype
    )


@_drawn
def _draw_truncated_normal(
    key: PRNGKey,
    shape: tuple[int, ...],
    dtype: torch.dtype | None = None,
    *,
    stddev: float,
    lower: float,
    upper: float,
    default: torch.dtype | None = None,
) -> Tensor:
    draws = random.truncated_normal(key, lower, upper, shape, dtype or default or float_dtype())
    return draws * stddev


# --- a variance from the size of the layer ----------------------------------------------------


@explained
def variance_scaling(
    scale: float,
    mode: str,
    distribution: str,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: torch.dtype | None = None,
) -> Initializer:
    """Mean zero and variance ``scale / n`` (He et al., arXiv 1502.01852; JAX's of that name).

    ``n`` is the number of inputs of a unit (``fan_in``), of outputs (``fan_out``) or the mean of
    the two (``fan_avg``). Axes that are neither input, output nor batch axes are those of a
    convolution's window, and count for both.

    Args:
        scale: at least 0.
        mode: ``fan_in``, ``fan_out`` or ``fan_avg``.
        distribution: ``truncated_normal`` (cut at two deviations), ``normal`` or ``uniform``.
        in_axis: the axis, or axes, of a layer's inputs in its kernel.
        out_axis: the same of its outputs.
        batch_axis: axes that hold kernels of several layers.
        dtype: of the values.

    Raises:
        InputError: an unknown mode or distribution, or a negative scale; when values are drawn, a
            shape of fewer than two axes, without such axes or with an axis of size 0.

    >>> draw = variance_scaling(1.0, "fan_in", "uniform")(random.PRNGKey(0), (3, 50))
    >>> bool(draw.abs().max() <= 1.0)
    True
    """
    _check_choice("mode", mode, ("fan_in", "fan_out", "fan_avg"))
    _check_choice("distribution", distribution, ("truncated_normal", "normal", "uniform"))
    scale = float(scale)
    if not 0 <= scale < math.inf:
        raise InputError(f"variance_scaling: scale must be 0 or a positive number, got {scale}.")
    return functools.partial(
        _draw_scaled,
        scale=scale,
        mode=mode,
        distribution=distribution,
        in_axis=in_axis,
        out_axis=out_axis,
        batch_axis=batch_axis,
        default=dtype,
    )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        listed = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
        raise InputError(f"variance_scaling: {name} must be {listed}, got {value!r}.")


@_drawn
def _draw_scaled(
    key: PRNGKey,
    shape: tuple[int, ...],
    dtype: torch.dtype | None = None,
    *,
    scale: float,
    mode: str,
    distribution: str,
    in_axis: Axes,
    out_axis: Axes,
    batch_axis: Axes,
    default: torch.dtype | None = None,
) -> Tensor:
    dtype = dtype or default or float_dtype()
    fan_in, fan_out = _fans(tuple(shape), in_axis, out_axis, batch_axis)
    size = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    # each step is rounded to the dtype, as in JAX
    variance = _rounded(scale / size, dtype)
    deviation = _rounded(math.sqrt(variance), dtype)
    if distribution == "normal":
        return random.normal(key, shape, dtype) * deviation
    if distribution == "truncated_normal":
        deviation = _rounded(deviation / _rounded(_DEVIATION_OF_CUT_NORMAL, dtype), dtype)
        return random.truncated_normal(key, -2.0, 2.0, shape, dtype) * deviation
    limit = _rounded(math.sqrt(_rounded(3 * variance, dtype)), dtype)
    return random.uniform(key, shape, dtype, -1.0, 1.0) * limit


def _fans(
    shape: tuple[int, ...], in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> tuple[float, float]:
    """The number of inputs of a unit, and of outputs, for a kernel of this shape."""
    if len(shape) < 2 or 0 in shape:
        raise InputError(
            "initializer: a variance that depends on the layer's size needs a shape of at least "
            f"two axes without an axis of size 0, got {shape}."
        )
    inputs, outputs, batch = (
        math.prod(_sizes(shape, axes)) for axes in (in_axis, out_axis, batch_axis)
    )
    window = math.prod(shape) / inputs / outputs / batch
    return inputs * window, outputs * window


def _sizes(shape: tuple[int, ...], axes: Axes) -> list[int]:
    listed = [axes] if isinstance(axes, int) else [*axes]
    for axis in listed:
        if not -len(shape) <= axis < len(shape):
            raise InputError(f"initializer: the shape {shape} has no axis {axis}.")
    return [shape[axis] for axis in listed]


def _rounded(value: float, dtype: torch.dtype) -> float:
    """The number of a dtype that is nearest to ``value``."""
    if dtype == torch.float64:
        return value
    if dtype == torch.bfloat16:  # the upper half of a float32, to even
        bits = int(np.float32(value).view(np.uint32))
        bits += 0x7FFF + (bits >> 16 & 1)
        return float(np.uint32(bits & 0xFFFF0000).view(np.float32))
    return float(np.float16(value) if dtype == torch.float16 else np.float32(value))


@explained
def default_init(scale: float = 1.0) -> Initializer:
    """``variance_scaling(scale, "fan_avg", "uniform")``, as in jaxrl_m, OGBench and fql.

    With scale 1, the default, it is upstream's initialiser of every kernel but those of the
    residual blocks (quirks N4 and N6).

    >>> bool(default_init(1e-2)(random.PRNGKey(0), (3, 3)).abs().max() <= 0.1)
    True
    """
    return variance_scaling(scale, "fan_avg", "uniform")


@explained
def xavier_uniform(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: torch.dtype | None = None,
) -> Initializer:
    """Uniform with variance ``2 / (fan_in + fan_out)`` (Glorot and Bengio, 2010).

    >>> float(xavier_uniform()(random.PRNGKey(0), (3, 3)).abs().max()) <= 1.0
    True
    """
    return variance_scaling(1.0, "fan_avg", "uniform", in_axis, out_axis, batch_axis, dtype)


@explained
def xavier_normal(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: torch.dtype | None = None,
) -> Initializer:
    """Normal, cut at two deviations, with variance ``2 / (fan_in + fan_out)``.

    >>> xavier_normal()(random.PRNGKey(0), (2, 3)).shape
    torch.Size([2, 3])
    """
    return variance_scaling(
        1.0, "fan_avg", "truncated_normal", in_axis, out_axis, batch_axis, dtype
    )


@explained
def lecun_uniform(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: torch.dtype | None = None,
) -> Initializer:
    """Uniform with variance ``1 / fan_in`` (arXiv 1706.02515).

    >>> float(lecun_uniform()(random.PRNGKey(0), (3, 3)).abs().max()) <= 1.0
    True
    """
    return variance_scaling(1.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


@explained
def lecun_normal(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: torch.dtype | None = None,
) -> Initializer:
    """Normal, cut at two deviations, with variance ``1 / fan_in``; Flax's default.

    >>> lecun_normal()(random.PRNGKey(0), (2, 3)).shape
    torch.Size([2, 3])
    """
    return variance_scaling(1.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


@explained
def he_uniform(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: torch.dtype | None = None,
) -> Initializer:
    """Uniform with variance ``2 / fan_in`` (arXiv 1502.01852).

    >>> float(he_uniform()(random.PRNGKey(0), (6, 3)).abs().max()) <= 1.0
    True
    """
    return variance_scaling(2.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


@explained
def he_normal(
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: torch.dtype | None = None,
) -> Initializer:
    """Normal, cut at two deviations, with variance ``2 / fan_in`` (arXiv 1502.01852).

    >>> he_normal()(random.PRNGKey(0), (2, 3)).shape
    torch.Size([2, 3])
    """
    return variance_scaling(2.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


glorot_uniform, glorot_normal = xavier_uniform, xavier_normal
kaiming_uniform, kaiming_normal = he_uniform, he_normal


# --- orthogonal matrices ------------------------------------------------------------------


@explained
def orthogonal(
    scale: float = 1.0, column_axis: int = -1, dtype: torch.dtype | None = None
) -> Initializer:
    """``scale`` times a matrix with orthonormal columns, or rows if there are fewer of them.

    The matrix is uniformly distributed (arXiv 1312.6120): the ``Q`` of a matrix of normal draws
    with the signs that make the diagonal of ``R`` positive. The axis ``column_axis`` is that of
    the columns; all other axes together are that of the rows.

    ``Q`` is computed in double precision and rounded, so that it is within 3e-8 of the exact value
    on every machine. JAX computes it in float32. From 8 x 8 to 512 x 512 its entries were up to
    2.7e-6 from the exact value, and as far from those here; of 256 x 64, 1.4e-7.

    Raises:
        InputError: when values are drawn, a shape of fewer than two axes, without the axis or with
            an axis of size 0.

    >>> q = orthogonal()(random.PRNGKey(0), (5, 3))
    >>> torch.allclose(q.T @ q, torch.eye(3), atol=1e-6)
    True
    """
    return functools.partial(_draw_orthogonal, scale=scale, column_axis=column_axis, default=dtype)


@_drawn
def _draw_orthogonal(
    key: PRNGKey,
    shape: tuple[int, ...],
    dtype: torch.dtype | None = None,
    *,
    scale: float,
    column_axis: int,
    default: torch.dtype | None = None,
) -> Tensor:
    dtype = dtype or default or float_dtype()
    shape = tuple(shape)
    if len(shape) < 2 or 0 in shape:
        raise InputError(
            "initializer: an orthogonal matrix needs a shape of at least two axes without an axis "
            f"of size 0, got {shape}."
        )
    (columns,) = _sizes(shape, column_axis)
    rows = math.prod(shape) // columns
    tall = (max(rows, columns), min(rows, columns))
    q, r = torch.linalg.qr(random.normal(key, tall, dtype).double())
    q = q * torch.sign(torch.diagonal(r))
    if rows < columns:
        q = q.mT
    others = [n for axis, n in enumerate(shape) if axis != column_axis % len(shape)]
    return q.to(dtype).reshape(*others, columns).movedim(-1, column_axis) * scale


@explained
def delta_orthogonal(
    scale: float = 1.0, column_axis: int = -1, dtype: torch.dtype | None = None
) -> Initializer:
    """:func:`orthogonal` in the middle of a convolution's window, and zeros elsewhere.

    For kernels ``[..., in, out]`` with one to three axes of the window (arXiv 1806.05393).

    Raises:
        InputError: when values are drawn, a shape of fewer than three or more than five axes, or
            of more inputs than outputs; or as :func:`orthogonal`.

    >>> kernel = delta_orthogonal()(random.PRNGKey(0), (3, 2, 4))
    >>> kernel[0].abs().max().item(), torch.allclose(kernel[1] @ kernel[1].T, torch.eye(2))
    (0.0, True)
    """
    return functools.partial(
        _draw_delta_orthogonal, scale=scale, column_axis=column_axis, default=dtype
    )


@_drawn
def _draw_delta_orthogonal(
    key: PRNGKey,
    shape: tuple[int, ...],
    dtype: torch.dtype | None = None,
    *,
    scale: float,
    column_axis: int,
    default: torch.dtype | None = None,
) -> Tensor:
    shape = tuple(shape)
    if not 3 <= len(shape) <= 5 or shape[-2] > shape[-1]:
        raise InputError(
            "initializer: delta_orthogonal needs a shape of three to five axes, the last one at "
            f"least as large as the one before it, got {shape}."
        )
    matrix = _draw_orthogonal(
        key, shape[-2:], dtype, scale=scale, column_axis=column_axis, default=default
    )
    if 0 in shape:
        return matrix.new_zeros(shape)
    # by a product with a one-hot window, which also runs under vmap
    window = matrix.new_zeros(shape[:-2])
    window[tuple((n - 1) // 2 for n in shape[:-2])] = 1
    return window.reshape(*shape[:-2], 1, 1) * matrix


def takes_dtype(initializer: Initializer) -> bool:
    """Whether an initialiser can be called with a dtype, as those of this module and of Flax.

    >>> takes_dtype(normal(0.1)), takes_dtype(lambda key, shape: torch.ones(shape))
    (True, False)
    """
    try:
        parameters = inspect.signature(initializer).parameters
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
    return "dtype" in parameters
