"""The multilayer perceptron, after ``jaxrl5/networks/mlp.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from idql_func.networks.layers import (
    Activation,
    Dense,
    Dropout,
    LayerNorm,
    Part,
    default_init,
    join,
    relu,
)
from idql_func.networks.module import LazyRng, Module
from idql_func.types import Params


class MLP(Module):
    """Dense, dropout, activation (in this order, quirk N2), ``[..., in] -> [..., out]``.

    ``use_layer_norm`` normalises the input only (quirk N1); the last layer is activated
    only with ``activate_final``. The input may come in parts (see ``layers.Dense``). Its
    tree: ``LayerNorm_0?, Dense_0, Dense_1, ...``.

    Raises:
        ValueError: no hidden layer, or a size below 1.

    >>> import torch
    >>> from idql_func import random
    >>> net = MLP(input_dim=3, hidden_dims=[8, 2])
    >>> params = net.init(random.PRNGKey(0))
    >>> net.apply(params, torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int],
        activations: Activation = relu,
        activate_final: bool = False,
        use_layer_norm: bool = False,
        dropout_rate: float | None = None,
    ) -> None:
        super().__init__()
        if not hidden_dims or min(input_dim, *hidden_dims) < 1:
            raise ValueError(
                f"MLP: input_dim and every entry of hidden_dims must be at least 1, "
                f"got {input_dim} and {tuple(hidden_dims)}."
            )
        self.activations = activations
        self.activate_final = activate_final
        self.output_dim = hidden_dims[-1]
        self.norm = self.add_optional(LayerNorm(input_dim) if use_layer_norm else None)
        sizes = [input_dim, *hidden_dims]
        self.layers: list[tuple[Dense, Dropout | None, str]] = []
        for i in range(len(hidden_dims)):
            dense = self.add(Dense(sizes[i], sizes[i + 1], default_init()))
            activated = i + 1 < len(hidden_dims) or activate_final
            drop = Dropout(dropout_rate) if dropout_rate and activated else None
            self.layers.append((dense, self.add_optional(drop), f"Dropout_{i}"))

    def forward(
        self, x: Tensor | Sequence[Part], training: bool = False, rng: LazyRng | None = None
    ) -> Tensor:
        h: Any = x
        if self.norm is not None:
            h = self.norm(x if isinstance(x, Tensor) else join(x))
        for i, (dense, drop, name) in enumerate(self.layers):
            h = dense(h)
            if i + 1 < len(self.layers) or self.activate_final:
                if drop is not None:
                    h = drop(h, training, rng and rng.push(name))
                h = self.activations(h)
        return h


def get_weight_decay_mask(params: Params, exempt: Sequence[str] = ("Input", "Output")) -> Any:
    """True for the leaves that decay: no ``bias``, no name that contains an exempt word.

    >>> import torch
    >>> get_weight_decay_mask({"Dense_0": {"kernel": torch.ones(1), "bias": torch.ones(1)}})
    {'Dense_0': {'kernel': True, 'bias': False}}
    """

    def decays(tree: Mapping[str, Any], inherited: bool) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in tree.items():
            keep = inherited and name != "bias" and not any(word in name for word in exempt)
            result[name] = decays(value, keep) if isinstance(value, Mapping) else keep
        return result

    return decays(params, True)
