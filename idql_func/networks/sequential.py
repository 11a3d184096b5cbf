"""Networks one after another: Flax's ``nn.Sequential``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from idql_func.networks.module import LazyRng, Module
from idql_func.types import InputError


class Sequential(Module):
    """Each layer on the output of the one before it; a layer is a network or a function.

    The networks are called ``layers_0``, ``layers_2``, ... in the parameter tree; functions count
    too. A tuple that a layer returns is the next one's arguments, and a dict its keywords. A
    network that stands at two places has one set of parameters, under its first name.
    ``training`` and ``rng`` go to the layers that take them.

    Raises:
        InputError: there is no layer, or one can't be called.

    >>> import torch
    >>> from idql_func import random
    >>> from idql_func.networks import Dense, relu
    >>> net = Sequential([Dense(3, 8), relu, Dense(8, 2)])
    >>> params = net.init(random.PRNGKey(0))
    >>> sorted(params), net.apply(params, torch.ones(5, 3)).shape
    (['layers_0', 'layers_2'], torch.Size([5, 2]))
    """

    def __init__(self, layers: Sequence[Callable[..., Any]]) -> None:
        super().__init__()
        listed = isinstance(layers, Sequence) and not isinstance(layers, str)
        if not listed or not layers:
            shown = "none" if listed else f"a {type(layers).__name__}"
            raise InputError(
                "Sequential: layers must be a list of one or more networks or functions, got "
                f"{shown}."
            )
        for place, layer in enumerate(layers):
            if isinstance(layer, type) or not callable(layer):
                shown = f"the class {layer.__name__}" if isinstance(layer, type) else repr(layer)
                raise InputError(
                    f"Sequential: layers[{place}] must be a network or a function, got {shown}."
                )
        self.layers = [*layers]
        first = {id(layer): f"layers_{i}" for i, layer in reversed([*enumerate(layers)])}
        self.names = [first[id(layer)] for layer in layers]
        sized = [layer for layer in layers if hasattr(layer, "output_dim")]
        if sized:  # functions after the last network are taken to keep the size
            self.output_dim = sized[-1].output_dim

    def forward(
        self, *inputs: Any, training: bool = False, rng: LazyRng | None = None, **options: Any
    ) -> Any:
        output: Any = None
        for name, layer in zip(self.names, self.layers, strict=True):
            if isinstance(layer, Module):
                given = {"training": training, "rng": rng and rng.push(name)}
                options |= {key: given[key] for key in layer._forward_options}
            output = layer(*inputs, **options)
            inputs = output if isinstance(output, tuple) else (output,)
            options = {}
            if isinstance(output, dict):
                inputs, options = (), {**output}
        return output
