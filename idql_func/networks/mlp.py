"""Multilayer perceptrons, plain and residual, and the value functions built on them.

After ``mlp.py``, ``resnet.py``, ``state_value.py`` and ``state_action_value.py`` of
``jaxrl5/networks``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from idql_func.networks.dropout import Dropout
from idql_func.networks.initializers import Initializer, default_init
from idql_func.networks.layers import Activation, Dense, LayerNorm, Part, join, relu
from idql_func.networks.module import LazyRng, Module
from idql_func.networks.weight_decay import get_weight_decay_mask  # noqa: F401 (upstream's address)


class MLP(Module):
    """Dense, dropout, activation per layer, in this order (quirk N2): ``[..., in] -> [..., out]``.

    ``use_layer_norm`` normalises the input only (quirk N1). ``layer_norm`` puts a LayerNorm after
    each activation, as the MLP of jaxrl_m, OGBench and fql does. The last layer has an activation
    only with ``activate_final``. ``kernel_init`` initialises all kernels, by default with
    :func:`default_init`. The input may be a sequence of parts (see ``layers.Dense``).

    Raises:
        ValueError: ``hidden_dims`` is empty, or a size is below 1.

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
        kernel_init: Initializer | None = None,
        layer_norm: bool = False,
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
        self.norm = self.add(LayerNorm(input_dim) if use_layer_norm else None)
        sizes = [input_dim, *hidden_dims]
        self.layers: list[tuple[Dense, Dropout | None]] = []
        self.norms: list[LayerNorm | None] = []
        for i in range(len(hidden_dims)):
            dense = self.add(Dense(sizes[i], sizes[i + 1], kernel_init or default_init()))
            activated = i + 1 < len(hidden_dims) or activate_final
            drop = Dropout(dropout_rate) if dropout_rate and activated else None
            self.layers.append((dense, self.add(drop)))
            norm = LayerNorm(sizes[i + 1]) if layer_norm and activated else None
            self.norms.append(self.add(norm))

    def forward(
        self, x: Tensor | Sequence[Part], training: bool = False, rng: LazyRng | None = None
    ) -> Tensor:
        h: Any = x
        if self.norm is not None:
            h = self.norm(x if isinstance(x, Tensor) else join(x))
        for i, (dense, drop) in enumerate(self.layers):
            h = dense(h)
            if i + 1 < len(self.layers) or self.activate_final:
                if drop is not None:
                    h = drop(h, training, rng and rng.push(f"Dropout_{i}"))
                h = self.activations(h)
            if (norm := self.norms[i]) is not None:
                h = norm(h)
        return h


class MLPResNetBlock(Module):
    """``x + Dense(act(Dense_4x(norm(dropout(x)))))`` (quirk N3), ``[..., in] -> [..., F]``.

    Its Dense layers are initialised with LeCun's normal, unlike all others (quirk N4). If the
    input's size is not ``features``, a third Dense projects the residual.

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
        self.drop = self.add(Dropout(dropout_rate) if dropout_rate else None)
        self.norm = self.add(LayerNorm(input_dim) if use_layer_norm else None)
        self.expand = self.add(Dense(input_dim, features * 4))
        self.contract = self.add(Dense(features * 4, features))
        self.project = self.add(Dense(input_dim, features) if input_dim != features else None)

    def forward(self, x: Tensor, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        residual = x if self.project is None else self.project(x)
        if self.drop is not None:
            x = self.drop(x, training, rng and rng.push("Dropout_0"))
        if self.norm is not None:
            x = self.norm(x)
        return residual + self.contract(self.act(self.expand(x)))


class MLPResNet(Module):
    """Dense, residual blocks, activation, Dense: ``[..., in] -> [..., out_dim]``; IDQL's actor.

    The input may be a sequence of parts (see ``layers.Dense``).

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
        settings = hidden_dim, activations, dropout_rate, use_layer_norm
        self.blocks = [self.add(MLPResNetBlock(*settings)) for _ in range(num_blocks)]
        self.last = self.add(Dense(hidden_dim, out_dim, default_init()))

    def forward(
        self, x: Tensor | Sequence[Part], training: bool = False, rng: LazyRng | None = None
    ) -> Tensor:
        h = self.first(x)
        for i, block in enumerate(self.blocks):
            h = block(h, training, rng and rng.push(f"MLPResNetBlock_{i}"))
        return self.last(self.activations(h))


class StateValue(Module):
    """``V(s)``: observations ``[..., O]`` to values ``[...]``.

    ``base_cls`` is called with the other arguments: ``StateValue(MLP, input_dim=10,
    hidden_dims=[256, 256], activate_final=True)``.

    >>> from idql_func import random
    >>> from idql_func.networks import MLP
    >>> value = StateValue(MLP, input_dim=3, hidden_dims=[8])
    >>> value.apply(value.init(random.PRNGKey(0)), torch.ones(5, 3)).shape
    torch.Size([5])
    """

    output_dim = 1

    def __init__(self, base_cls: Callable[..., Module], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.base = self.add(base_cls(*args, **kwargs))
        self.head = self.add(Dense(self.base.output_dim, 1, default_init()), "OutputVDense")
        self.base_name = next(iter(self._modules))

    def forward(
        self, observations: Tensor, training: bool = False, rng: LazyRng | None = None
    ) -> Tensor:
        outputs = self.base(observations, training=training, rng=rng and rng.push(self.base_name))
        return self.head(outputs).squeeze(-1)


class StateActionValue(Module):
    """``Q(s, a)``: observations ``[..., O]`` and actions ``[..., A]`` to values ``[...]``.

    ``input_dim`` of the base is ``O + A``.

    >>> from idql_func import random
    >>> from idql_func.networks import MLP
    >>> critic = StateActionValue(MLP, input_dim=5, hidden_dims=[8])
    >>> critic.apply(critic.init(random.PRNGKey(0)), torch.ones(4, 3), torch.ones(4, 2)).shape
    torch.Size([4])
    """

    output_dim = 1

    def __init__(self, base_cls: Callable[..., Module], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.base = self.add(base_cls(*args, **kwargs))
        self.base_name = next(iter(self._modules))
        self.head = self.add(Dense(self.base.output_dim, 1, default_init()))

    def forward(
        self,
        observations: Tensor,
        actions: Tensor,
        training: bool = False,
        rng: LazyRng | None = None,
    ) -> Tensor:
        inputs = torch.cat([observations, actions], dim=-1)
        outputs = self.base(inputs, training=training, rng=rng and rng.push(self.base_name))
        return self.head(outputs).squeeze(-1)
