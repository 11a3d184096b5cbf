"""The IMPALA image encoder, ``[..., H, W, C] -> [..., F]``, as OGBench and fql have it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from idql_func.networks.activations import gelu
from idql_func.networks.conv import Conv, max_pool
from idql_func.networks.dropout import Dropout
from idql_func.networks.initializers import xavier_uniform
from idql_func.networks.layers import LayerNorm, relu
from idql_func.networks.mlp import MLP
from idql_func.networks.module import LazyRng, Module
from idql_func.types import InputError


class ResnetStack(Module):
    """A convolution, max pooling that halves the image, and residual blocks (arXiv 1802.01561).

    Each block adds two 3x3 convolutions, each after a ReLU, to its input. ``input_shape`` is
    ``(H, W, C)``; ``output_shape`` is ``(ceil(H / 2), ceil(W / 2), num_features)``, or with
    ``max_pooling=False`` of the same size as the image.

    >>> from idql_func import random
    >>> stack = ResnetStack((8, 7, 3), num_features=4, num_blocks=1)
    >>> params = stack.init(random.PRNGKey(0))
    >>> sorted(params), stack.output_shape, stack.apply(params, torch.ones(2, 8, 7, 3)).shape
    (['Conv_0', 'Conv_1', 'Conv_2'], (4, 4, 4), torch.Size([2, 4, 4, 4]))
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_features: int,
        num_blocks: int,
        max_pooling: bool = True,
    ) -> None:
        super().__init__()
        height, width, channels = input_shape
        self.max_pooling = max_pooling
        if max_pooling:
            height, width = -(-height // 2), -(-width // 2)
        self.output_shape = (height, width, num_features)
        self.output_dim = num_features
        self.first = self.add(_conv(channels, num_features))
        self.blocks = [
            tuple(self.add(_conv(num_features, num_features)) for _ in range(2))
            for _ in range(num_blocks)
        ]

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        x = self.first(x)
        if self.max_pooling:
            x = max_pool(x, (3, 3), (2, 2), "SAME")
        for first, second in self.blocks:
            x = x + second(relu(first(relu(x))))
        return x


def _conv(channels: int, features: int) -> Conv:
    return Conv(channels, features, (3, 3), kernel_init=xavier_uniform())


class ImpalaEncoder(Module):
    """Stacks of residual blocks and an MLP, for images of bytes (IMPALA, arXiv 1802.01561).

    The names in the parameter tree are ``stack_blocks_0``, ..., ``MLP_0``. With ``layer_norm`` the
    last image has a LayerNorm over its channels, ``LayerNorm_0``, and the MLP one per layer.
    ``dropout_rate`` applies to the output of each stack, with ``training=True`` only.

    Args:
        input_shape: ``(H, W, C)``; stacked frames are channels.
        width: factor of the number of features.
        stack_sizes: features of each stack, before ``width``.
        num_blocks: residual blocks of each stack.
        dropout_rate: None for no dropout.
        mlp_hidden_dims: layers of the MLP; the last one is the size of the output.
        layer_norm: whether there are LayerNorms.

    Raises:
        InputError: there is no stack.

    >>> from idql_func import random
    >>> net = ImpalaEncoder((16, 16, 3), stack_sizes=(4, 4), num_blocks=1, mlp_hidden_dims=(8,))
    >>> params = net.init(random.PRNGKey(0))
    >>> sorted(params)
    ['MLP_0', 'stack_blocks_0', 'stack_blocks_1']
    >>> net.apply(params, torch.zeros(2, 16, 16, 3, dtype=torch.uint8)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        width: int = 1,
        stack_sizes: Sequence[int] = (16, 32, 32),
        num_blocks: int = 2,
        dropout_rate: float | None = None,
        mlp_hidden_dims: Sequence[int] = (512,),
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        if not stack_sizes:
            raise InputError("ImpalaEncoder: stack_sizes must have at least one entry.")
        shape = tuple(input_shape)
        stacks: list[ResnetStack] = []
        for features in stack_sizes:
            stacks.append(ResnetStack(shape, features * width, num_blocks))
            shape = stacks[-1].output_shape
        self.stack_blocks = stacks
        self.dropout = Dropout(dropout_rate) if dropout_rate is not None else None
        self.norm = self.add(LayerNorm(shape[-1]) if layer_norm else None)
        inputs = shape[0] * shape[1] * shape[2]
        self.mlp = self.add(
            MLP(inputs, mlp_hidden_dims, gelu, activate_final=True, layer_norm=layer_norm)
        )
        self.output_dim = self.mlp.output_dim

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        # multiply: XLA replaces the original's division by a constant with this product
        x = x.to(torch.float32) * (1.0 / 255.0)
        for place, stack in enumerate(self.stack_blocks, start=1):
            x = stack(x)
            if self.dropout is not None:  # one layer, used once per stack
                x = self.dropout(x, training, rng and rng.push("dropout"), place)
        x = relu(x)
        if self.norm is not None:
            x = self.norm(x)
        return self.mlp(x.flatten(-3))


encoder_modules: dict[str, Callable[..., ImpalaEncoder]] = {
    "impala": ImpalaEncoder,
    "impala_debug": functools.partial(ImpalaEncoder, num_blocks=1, stack_sizes=(4, 4)),
    "impala_small": functools.partial(ImpalaEncoder, num_blocks=1),
    "impala_large": functools.partial(
        ImpalaEncoder, stack_sizes=(64, 128, 128), mlp_hidden_dims=(1024,)
    ),
}
"""The encoders by the names that OGBench's and fql's settings have for them."""
