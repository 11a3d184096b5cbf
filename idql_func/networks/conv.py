"""Flax's image layers on ``[..., H, W, C]`` tensors: Conv, GroupNorm, max_pool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from idql_func.boundary import explained
from idql_func.networks.initializers import Initializer, lecun_normal, ones, zeros
from idql_func.networks.module import LazyRng, Module
from idql_func.types import InputError

Padding: TypeAlias = str | Sequence[tuple[int, int]]
"""``"SAME"``, ``"VALID"``, or rows and columns to add: ``((top, bottom), (left, right))``."""

Pairs: TypeAlias = tuple[tuple[int, int], tuple[int, int]]


def check_padding(padding: Any) -> str | Pairs:
    """Convert a padding to a hashable form: ``"SAME"``, ``"VALID"`` or two pairs.

    Raises:
        InputError: the padding has an unknown name or form.

    >>> check_padding([[1, 1], [0, 2]])
    ((1, 1), (0, 2))
    """
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        return padding
    pairs = padding if isinstance(padding, Sequence) and len(padding) == 2 else ()
    counts = [n for pair in pairs for n in (pair if isinstance(pair, Sequence) else ())]
    if len(counts) != 4 or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise InputError(
            "padding must be 'SAME', 'VALID' or two pairs of row and column counts such as "
            f"((1, 1), (1, 1)), got {padding!r}."
        )
    top, bottom, left, right = (int(n) for n in counts)
    return ((top, bottom), (left, right))


def pad_widths(
    size: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Padding
) -> Pairs:
    """Rows and columns to add before and after each axis of ``size``, by XLA's rules.

    ``SAME`` makes ``ceil(size / stride)`` windows. If the padding is odd, the extra row goes at
    the end: with strides this differs from the symmetric padding of torch.

    Raises:
        InputError: the padding has an unknown name or form.

    >>> pad_widths((64, 64), (3, 3), (2, 2), "SAME")
    ((0, 1), (0, 1))
    >>> pad_widths((64, 64), (3, 3), (1, 1), "SAME")
    ((1, 1), (1, 1))
    """
    checked = check_padding(padding)
    if not isinstance(checked, str):
        return checked
    if checked == "VALID":
        return ((0, 0), (0, 0))
    totals = [
        max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, window, strides, strict=True)
    ]
    rows, columns = ((total // 2, total - total // 2) for total in totals)
    return (rows, columns)


def output_shape(
    size: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Padding
) -> tuple[int, int]:
    """Height and width of the output: the number of windows along each axis.

    Raises:
        InputError: the window is larger than the padded image.

    >>> output_shape((84, 84), (3, 3), (2, 2), "VALID")
    (41, 41)
    """
    pads = pad_widths(size, window, strides, padding)
    rows, columns = (
        (n + sum(pad) - k) // s + 1
        for n, pad, k, s in zip(size, pads, window, strides, strict=True)
    )
    if rows < 1 or columns < 1:
        raise InputError(
            f"an image of {size[0]}x{size[1]} with padding {padding!r} is smaller than "
            f"the {window[0]}x{window[1]} window."
        )
    return rows, columns


class Conv(Module):
    """``[..., H, W, in] -> [..., H', W', out]`` with ``kernel`` ``[h, w, in, out]`` (Flax's Conv).

    Images stay channels-last in memory. The CPU convolution uses this layout, so they are not
    copied. A number as ``strides`` is that of both axes.

    Raises:
        InputError: the padding has an unknown name or form.

    >>> from idql_func import random
    >>> layer = Conv(3, 8, (3, 3), strides=(2, 2))
    >>> params = layer.init(random.PRNGKey(0))
    >>> tuple(params["kernel"].shape), layer.apply(params, torch.ones(2, 6, 6, 3)).shape
    ((3, 3, 3, 8), torch.Size([2, 3, 3, 8]))
    """

    kernel: Tensor
    bias: Tensor

    def __init__(
        self,
        input_dim: int,
        features: int,
        kernel_size: tuple[int, int],
        strides: int | tuple[int, int] = (1, 1),
        padding: Padding = "SAME",
        use_bias: bool = True,
        kernel_init: Initializer | None = None,
        bias_init: Initializer = zeros,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.strides = (strides, strides) if isinstance(strides, int) else strides
        self.padding = check_padding(padding)
        self.use_bias = use_bias
        self.output_dim = features
        kernel_init = kernel_init or lecun_normal()
        self.declare("kernel", (*kernel_size, input_dim, features), kernel_init, torch.float32)
        if use_bias:
            self.declare("bias", (features,), bias_init, torch.float32)

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        leading = x.shape[:-3]
        images = x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2).to(self.kernel.dtype)
        rows, columns = pad_widths(x.shape[-3:-1], self.kernel_size, self.strides, self.padding)
        if rows[0] != rows[1] or columns[0] != columns[1]:
            images = F.pad(images, (*columns, *rows))
            rows, columns = (0, 0), (0, 0)
        strides = self.strides
        if self.kernel_size == (1, 1) and rows == columns == (0, 0):
            # The same sums of fewer pixels. On processors without AVX-512 the gradient of a strided
            # 1x1 convolution of channels-last images corrupts memory (torch 2.13, oneDNN).
            images, strides = images[:, :, :: strides[0], :: strides[1]], (1, 1)
        y = F.conv2d(
            images,
            self.kernel.permute(3, 2, 0, 1),
            self.bias if self.use_bias else None,
            strides,
            (rows[0], columns[0]),
        ).permute(0, 2, 3, 1)
        return y.reshape(*leading, *y.shape[1:])


class GroupNorm(Module):
    """Flax's group norm of ``[B, ..., C]``: a mean and a variance per row and group of channels.

    The groups are ``num_groups``, or, with ``num_groups=None``, of ``group_size`` channels each.
    Variance is ``E[x^2] - E[x]^2`` floored at 0, as in :class:`LayerNorm` (quirk N5).

    Raises:
        InputError: the channels do not divide into the groups, neither or both of ``num_groups``
            and ``group_size`` are given, or the input has fewer than two axes.

    >>> from idql_func import random
    >>> layer = GroupNorm(4, num_groups=2)
    >>> y = layer.apply(layer.init(random.PRNGKey(0)), torch.tensor([[0.0, 2.0, 5.0, 5.0]]))
    >>> [round(v, 3) for v in y.flatten().tolist()]
    [-1.0, 1.0, 0.0, 0.0]
    """

    scale: Tensor
    bias: Tensor

    def __init__(
        self,
        input_dim: int,
        num_groups: int | None = 32,
        epsilon: float = 1e-6,
        group_size: int | None = None,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = zeros,
        scale_init: Initializer = ones,
    ) -> None:
        super().__init__()
        if (num_groups is None) == (group_size is None):
            raise InputError(
                "GroupNorm: give either num_groups or group_size; with group_size, num_groups "
                f"must be None, got {num_groups} and {group_size}."
            )
        divisor = num_groups or group_size or 0
        if divisor < 1 or input_dim % divisor:
            groups = f"{num_groups} groups" if group_size is None else f"groups of {group_size}"
            raise InputError(f"GroupNorm: {input_dim} channels do not divide into {groups}.")
        self.num_groups = divisor if group_size is None else input_dim // divisor
        self.epsilon, self.use_bias, self.use_scale = epsilon, use_bias, use_scale
        self.output_dim = input_dim
        if use_scale:
            self.declare("scale", (input_dim,), scale_init, torch.float32)
        if use_bias:
            self.declare("bias", (input_dim,), bias_init, torch.float32)

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        if x.ndim < 2:
            raise InputError(
                "GroupNorm: the input must have a batch axis and a channel axis, got shape "
                f"{tuple(x.shape)}."
            )
        rows, channels = x.shape[0], x.shape[-1]
        flat = x.reshape(rows, math.prod(x.shape[1:-1]), channels)
        groups = flat.unflatten(-1, (self.num_groups, channels // self.num_groups))
        mean = groups.mean(dim=(1, 3), keepdim=True)
        square = (groups * groups).mean(dim=(1, 3), keepdim=True)
        variance = torch.clamp(square - mean * mean, min=0.0)
        # with one factor and one offset per channel, x is the only tensor of the image's size
        # that the backward pass saves
        grouped = (1, 1, self.num_groups, channels // self.num_groups)
        scale = self.scale if self.use_scale else x.new_ones(channels)
        bias = self.bias if self.use_bias else x.new_zeros(channels)
        factor = torch.rsqrt(variance + self.epsilon) * scale.reshape(grouped)
        offset = bias.reshape(grouped) - mean * factor
        per_channel = (rows, 1, channels)
        return (flat * factor.reshape(per_channel) + offset.reshape(per_channel)).reshape(x.shape)


@explained
def max_pool(
    x: Tensor,
    window_shape: tuple[int, int],
    strides: tuple[int, int] | None = None,
    padding: Padding = "VALID",
) -> Tensor:
    """The largest value of each window, ``[..., H, W, C] -> [..., H', W', C]`` (``nn.max_pool``).

    Without ``strides`` a window begins at each pixel. The gradient of equal values goes to the
    first of them, as in XLA.

    Raises:
        InputError: the padding has an unknown name or form, or the window is larger than the
            padded image.

    >>> max_pool(torch.arange(4.0).reshape(4, 1, 1), (3, 1), (2, 1), "SAME").flatten()
    tensor([2., 3.])
    """
    strides = (1, 1) if strides is None else strides
    output_shape(x.shape[-3:-1], window_shape, strides, padding)
    rows, columns = pad_widths(x.shape[-3:-1], window_shape, strides, padding)
    images = x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2)
    if any((*rows, *columns)):
        images = F.pad(images, (*columns, *rows), value=-torch.inf)
    y = F.max_pool2d(images, window_shape, strides).permute(0, 2, 3, 1)
    return y.reshape(*x.shape[:-3], *y.shape[1:])
