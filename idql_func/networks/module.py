"""Networks without weights: Flax's parameter trees and keys on torch's module system.

A module declares its parameters on the meta device, under the names that Flax gives
them. :func:`init` draws their values from a key exactly as Flax does;
:func:`apply` runs the module on given values through ``torch.func.functional_call``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from idql_func import random
from idql_func.types import Params, PRNGKey

Initializer = Callable[[PRNGKey, tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class LazyRng:
    """A key and the path of names to fold into it (Flax's ``LazyRng``)."""

    key: PRNGKey
    path: tuple[str | int, ...] = ()

    def push(self, name: str) -> LazyRng:
        """The stream of a submodule."""
        return LazyRng(self.key, (*self.path, name))

    def make(self, count: int) -> PRNGKey:
        """The ``count``-th key (from 1) that a module asks of this stream.

        Flax folds in the first four bytes of a SHA-1 over the path and the count.
        """
        digest = hashlib.sha1()
        for entry in (*self.path, count):
            if isinstance(entry, str):
                digest.update(entry.encode())
            else:
                digest.update(entry.to_bytes((entry.bit_length() + 7) // 8, "big"))
        return random.fold_in(self.key, int.from_bytes(digest.digest()[:4], "big"))

    def split(self, num: int) -> Tensor:
        """One root key for each member of an ensemble, ``[num, 2]``; the path stays."""
        return random.split(self.key, num)


class Module(nn.Module):
    """Base of the networks; see the module's docstring.

    ``forward`` takes the inputs, ``training`` (dropout on) and ``rng``, the stream from
    which dropout layers draw.
    """

    output_dim: int
    """Size of the last axis of the output."""

    def __init__(self) -> None:
        super().__init__()
        self._initializers: dict[str, Initializer] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # a submodule is registered by `add` alone, under Flax's name; an attribute is an alias
        if isinstance(value, nn.Module):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def declare(self, name: str, shape: tuple[int, ...], initializer: Initializer) -> None:
        """Declare a parameter; the order of declaration is the order of Flax's counter."""
        self.register_parameter(
            name, nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)
        )
        self._initializers[name] = initializer

    def add(self, child: Module, name: str | None = None) -> Any:
        """Register a submodule under Flax's automatic name, ``Class_0``, ``Class_1``, ..."""
        if name is None:
            prefix = type(child).__name__
            count = sum(other.startswith(f"{prefix}_") for other in self._modules)
            name = f"{prefix}_{count}"
        self.add_module(name, child)
        return child

    def add_optional(self, child: Module | None) -> Any:
        """Register a submodule that settings may leave out."""
        return None if child is None else self.add(child)

    def init_from(self, rng: LazyRng) -> Params:
        """The parameter tree drawn from a stream."""
        tree: Params = {}
        for count, (name, initializer) in enumerate(self._initializers.items(), start=1):
            shape = tuple(self.get_parameter(name).shape)
            tree[name] = initializer(rng.make(count), shape)
        for name, child in self.named_children():
            assert isinstance(child, Module)
            params = child.init_from(rng.push(name))
            if params:  # dropout layers have none, and Flax keeps no empty entries
                tree[name] = params
        return tree

    def init(self, key: PRNGKey) -> Params:
        """See :func:`init`."""
        return init(self, key)

    def apply(self, params: Params, *inputs: Any, **options: Any) -> Any:  # type: ignore[override]
        """See :func:`apply`."""
        return apply(self, params, *inputs, **options)


def init(module: Module, key: PRNGKey) -> Params:
    """The Flax tree of a module's initial parameters, the values Flax draws for the key.

    >>> from idql_func.networks import MLP
    >>> params = init(MLP(input_dim=3, hidden_dims=[4]), random.PRNGKey(0))
    >>> {name: tuple(p.shape) for name, p in params["Dense_0"].items()}
    {'kernel': (3, 4), 'bias': (4,)}
    """
    return module.init_from(LazyRng(key))


def apply(
    module: Module,
    params: Params,
    *inputs: Any,
    training: bool = False,
    rngs: Mapping[str, PRNGKey] | None = None,
    **options: Any,
) -> Any:
    """Run a module on parameters; pure, and differentiable in them.

    ``params`` may be Flax's ``{"params": tree}`` too. ``rngs={"dropout": key}`` is
    needed where dropout is on. Other options are the module's own.

    Raises:
        RuntimeError: a parameter is missing or has no place in the module.
        ValueError: dropout is on and has no key.

    >>> from idql_func.networks import MLP
    >>> net = MLP(input_dim=3, hidden_dims=[4])
    >>> apply(net, init(net, random.PRNGKey(0)), torch.ones(2, 3)).shape
    torch.Size([2, 4])
    """
    if set(params) == {"params"}:
        params = params["params"]
    rng = LazyRng(rngs["dropout"]) if rngs and "dropout" in rngs else None
    return torch.func.functional_call(
        module,
        flatten_params(params),
        inputs,
        {"training": training, "rng": rng, **options},
        tie_weights=False,
        strict=True,
    )


def flatten_params(params: Params, prefix: str = "") -> dict[str, Tensor]:
    """Nested parameters by dotted name, as ``functional_call`` wants them.

    >>> flatten_params({"Dense_0": {"bias": torch.zeros(1)}})
    {'Dense_0.bias': tensor([0.])}
    """
    flat: dict[str, Tensor] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat.update(flatten_params(dict(value), f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
