"""The residual perceptron that IDQL's actor is, after ``jaxrl5/networks/resnet.py``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from idql_func.networks.layers import (
    Activation,
    Dense,
    Dropout,
    LayerNorm,
    Part,
    default_init,
    relu,
)
from idql_func.networks.module import LazyRng, Module


class MLPResNetBlock(Module):
    """``x + Dense(act(Dense_4x(norm(dropout(x)))))`` (quirk N3), ``[..., in] -> [..., F]``.

    Its Dense layers start from LeCun's normal, unlike all others (quirk N4). Where the
    input has another size than ``features``, a third Dense projects the residual.

    >>> import torch
    >>> from idql_func import random
    >>> block = MLPResNetBlock(8, relu, use_layer_norm=True)
    >>> block.apply(block.init(random.PRNGKey(0)), torch.ones(2, 8)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        features: int,
        act: Activation,
        dropout_rate: float | None = None,
        use_layer_norm: bool = False,
        input_dim: int | None = None,
    ) -> None:
        super().__init__()
        input_dim = features if input_dim is None else input_dim
        self.act = act
        self.output_dim = features
        self.drop = self.add_optional(Dropout(dropout_rate) if dropout_rate else None)
        self.norm = self.add_optional(LayerNorm(input_dim) if use_layer_norm else None)
        self.expand = self.add(Dense(input_dim, features * 4))
        self.contract = self.add(Dense(features * 4, features))
        self.project = self.add_optional(
            Dense(input_dim, features) if input_dim != features else None
        )

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        residual = x if self.project is None else self.project(x)
        if self.drop is not None:
            x = self.drop(x, training, rng and rng.push("Dropout_0"))
        if self.norm is not None:
            x = self.norm(x)
        return residual + self.contract(self.act(self.expand(x)))


class MLPResNet(Module):
    """Dense, residual blocks, activation, Dense, ``[..., in] -> [..., out_dim]``.

    The input may come in parts (see ``layers.Dense``).

    >>> import torch
    >>> from idql_func import random
    >>> net = MLPResNet(input_dim=5, num_blocks=2, out_dim=3, hidden_dim=16)
    >>> net.apply(net.init(random.PRNGKey(0)), torch.ones(2, 5)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        input_dim: int,
        num_blocks: int,
        out_dim: int,
        dropout_rate: float | None = None,
        use_layer_norm: bool = False,
        hidden_dim: int = 256,
        activations: Activation = relu,
    ) -> None:
        super().__init__()
        self.activations = activations
        self.output_dim = out_dim
        self.first = self.add(Dense(input_dim, hidden_dim, default_init()))
        self.blocks = [
            (
                f"MLPResNetBlock_{i}",
                self.add(MLPResNetBlock(hidden_dim, activations, dropout_rate, use_layer_norm)),
            )
            for i in range(num_blocks)
        ]
        self.last = self.add(Dense(hidden_dim, out_dim, default_init()))

    def forward(
        self, x: Tensor | Sequence[Part], training: bool = False, rng: LazyRng | None = None
    ) -> Tensor:
        h = self.first(x)
        for name, block in self.blocks:
            h = block(h, training, rng and rng.push(name))
        return self.last(self.activations(h))
