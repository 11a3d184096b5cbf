"""Image encoders, ``[..., H, W, C] -> [..., F]``, after ``jaxrl5/networks/encoders``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from idql_func.networks.conv import Conv, GroupNorm, Padding, max_pool, output_shape
from idql_func.networks.initializers import default_init
from idql_func.networks.layers import Activation, relu
from idql_func.networks.module import LazyRng, Module
from idql_func.types import InputError

_STEM_WIDTH = 224


class D4PGEncoder(Module):
    """Convolutions with ReLU (``d4pg_encoder.py``; the network of arXiv 1804.08617).

    ``input_shape`` is ``(H, W, C)``. ``filters`` holds the side length of each kernel; its default
    is the value that upstream's learners pass, since upstream's default repeats the strides
    (quirk A13).

    Raises:
        InputError: the settings differ in length, or the image is smaller than a kernel.

    >>> import torch
    >>> from idql_func import random
    >>> net = D4PGEncoder((16, 16, 3), features=(8, 4), filters=(3, 3), strides=(2, 1))
    >>> net.output_dim, net.apply(net.init(random.PRNGKey(0)), torch.ones(2, 16, 16, 3)).shape
    (100, torch.Size([2, 100]))
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        features: Sequence[int] = (32, 32, 32, 32),
        filters: Sequence[int] = (3, 3, 3, 3),
        strides: Sequence[int] = (2, 1, 1, 1),
        padding: Padding = "VALID",
    ) -> None:
        super().__init__()
        if not 1 <= len(features) == len(filters) == len(strides):
            raise InputError(
                "D4PGEncoder: features, filters and strides must have one entry per layer, got "
                f"{tuple(features)}, {tuple(filters)} and {tuple(strides)}."
            )
        *size, channels = input_shape
        self.convs: list[Conv] = []
        for out, side, stride in zip(features, filters, strides, strict=True):
            window, steps = (side, side), (stride, stride)
            size = output_shape(size, window, steps, padding)
            conv = Conv(channels, out, window, steps, padding, kernel_init=default_init())
            self.convs.append(self.add(conv))
            channels = out
        self.output_dim = size[0] * size[1] * channels

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        for conv in self.convs:
            x = relu(conv(x))
        return x.flatten(-3)


class MyGroupNorm(GroupNorm):
    """Upstream's group norm: 4 groups, eps 1e-5. The class name is part of the parameter names.

    An input of three axes is one image ``[H, W, C]``; :class:`GroupNorm` takes its first axis for
    that of a batch.

    >>> MyGroupNorm(8).num_groups, MyGroupNorm(8).epsilon
    (4, 1e-05)
    """

    def __init__(self, input_dim: int) -> None:
        super().__init__(input_dim, num_groups=4, epsilon=1e-5)

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        return super().forward(x.unsqueeze(0)).squeeze(0) if x.ndim == 3 else super().forward(x)


def _conv(
    channels: int,
    features: int,
    side: int,
    stride: int = 1,
    padding: Padding = "SAME",
) -> Conv:
    window, steps = (side, side), (stride, stride)
    return Conv(channels, features, window, steps, padding, False, default_init())


class ResNetV2Block(Module):
    """Pre-activation block: norm, act, conv, twice, plus the input (arXiv 1603.05027).

    If the channels or the size change, a 1x1 convolution projects the input to the output shape.

    >>> block = ResNetV2Block((8, 8, 4), filters=8, stride=2)
    >>> sorted(name for name, _ in block.named_children())
    ['Conv_0', 'Conv_1', 'Conv_2', 'MyGroupNorm_0', 'MyGroupNorm_1']
    """

    def __init__(
        self, input_shape: Sequence[int], filters: int, stride: int = 1, act: Activation = relu
    ) -> None:
        super().__init__()
        height, width, channels = input_shape
        self.act = act
        size = output_shape((height, width), (3, 3), (stride, stride), "SAME")
        self.output_shape = (*size, filters)
        self.output_dim = filters
        self.first_norm = self.add(MyGroupNorm(channels))
        self.first = self.add(_conv(channels, filters, 3, stride))
        self.second_norm = self.add(MyGroupNorm(filters))
        self.second = self.add(_conv(filters, filters, 3))
        changes = (height, width, channels) != self.output_shape
        self.project = self.add(_conv(channels, filters, 1, stride) if changes else None)

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        y = self.first(self.act(self.first_norm(x)))
        y = self.second(self.act(self.second_norm(y)))
        return (x if self.project is None else self.project(x)) + y


class ResNetV2Encoder(Module):
    """Pre-activation residual network without final pooling (``ln_resnet_encoder.py``).

    ``stage_sizes`` holds the number of blocks of each stage. Each stage after the first halves the
    image and doubles the filters. For images 224 pixels wide the stem is ImageNet's: a 7x7
    convolution and max pooling, which reduce the width to 56.

    Raises:
        InputError: there is no stage, or the filters are not divisible by 4.

    >>> import torch
    >>> from idql_func import random
    >>> net = ResNetV2Encoder((8, 8, 3), stage_sizes=(1, 1), num_filters=4)
    >>> net.output_dim, net.apply(net.init(random.PRNGKey(0)), torch.ones(2, 8, 8, 3)).shape
    (128, torch.Size([2, 128]))
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        stage_sizes: Sequence[int],
        num_filters: int = 64,
        act: Activation = relu,
    ) -> None:
        super().__init__()
        if not stage_sizes or min(stage_sizes) < 1:
            raise InputError(
                "ResNetV2Encoder: stage_sizes must have at least one block per stage, got "
                f"{tuple(stage_sizes)}."
            )
        *size, channels = input_shape
        self.act = act
        self.has_stem = size[1] == _STEM_WIDTH
        if self.has_stem:
            pads = ((3, 3), (3, 3))
            self.stem = self.add(_conv(channels, num_filters, 7, 2, pads))
            size = output_shape(size, (7, 7), (2, 2), pads)
            size = output_shape(size, (3, 3), (2, 2), "SAME")
        else:
            self.stem = self.add(_conv(channels, num_filters, 3))
        shape = (*size, num_filters)
        self.blocks: list[ResNetV2Block] = []
        for stage, count in enumerate(stage_sizes):
            for k in range(count):
                stride = 2 if stage > 0 and k == 0 else 1
                block = ResNetV2Block(shape, num_filters * 2**stage, stride, act)
                self.blocks.append(self.add(block))
                shape = block.output_shape
        self.norm = self.add(MyGroupNorm(shape[-1]))
        self.output_dim = shape[0] * shape[1] * shape[2]

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        x = self.stem(x)
        if self.has_stem:
            x = max_pool(x, (3, 3), (2, 2), "SAME")
        for block in self.blocks:
            x = block(x)
        return self.act(self.norm(x)).flatten(-3)
