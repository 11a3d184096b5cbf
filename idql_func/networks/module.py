"""Networks without weights: Flax's parameter trees on torch's module system.

A module declares the names and shapes of its parameters, under the names that Flax gives
them. :func:`init` draws their values from a key exactly as Flax does;
:func:`apply` runs the module on given values through ``torch.func.functional_call``.
:class:`Ensemble` stacks several copies of a module (Flax's ``nn.vmap``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from idql_func import random
from idql_func.networks.initializers import Initializer
from idql_func.tree import tree_stack
from idql_func.types import InputError, Params, PRNGKey


@dataclass(frozen=True)
class LazyRng:
    """A key and the path of names to fold into it (Flax's ``LazyRng``)."""

    key: PRNGKey
    path: tuple[str | int, ...] = ()

    def push(self, name: str) -> LazyRng:
        """The same key with a submodule's name added to the path."""
        return LazyRng(self.key, (*self.path, name))

    def make(self, count: int) -> PRNGKey:
        """The ``count``-th key (from 1) of the module at this path.

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
        """A root key for each member of an ensemble, ``[num, 2]``."""
        return random.split(self.key, num)


class Module(nn.Module):
    """Base of all networks (``flax.linen.Module``).

    ``forward`` takes the inputs, ``training`` (dropout on) and ``rng``, the keys of the
    dropout layers.
    """

    output_dim: int
    """Size of the last axis of the output."""

    def __init__(self) -> None:
        super().__init__()
        self._initializers: dict[str, Initializer] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # only `add` registers a submodule, under Flax's name; an attribute is an alias
        if isinstance(value, nn.Module):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def declare(self, name: str, shape: tuple[int, ...], initializer: Initializer) -> None:
        """Declare a parameter on the meta device, without a value.

        The n-th declared parameter draws Flax's n-th key of the module.
        """
        self.register_parameter(
            name, nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)
        )
        self._initializers[name] = initializer

    def add(self, child: Module | None, name: str | None = None) -> Any:
        """Register a submodule under Flax's automatic name, ``Class_0``, ``Class_1``, ...

        None, for an optional submodule that is off, is returned as it is.
        """
        if child is None:
            return None
        if name is None:
            prefix = type(child).__name__
            count = sum(other.startswith(f"{prefix}_") for other in self._modules)
            name = f"{prefix}_{count}"
        self.add_module(name, child)
        return child

    def check_values(self, parameter: Tensor, x: Tensor) -> None:
        """Refuse to run on a declared parameter, which has no values.

        Raises:
            InputError: the parameter is on the meta device and the input is not.
        """
        if parameter.is_meta and not x.is_meta:
            raise InputError(
                f"{type(self).__name__}: networks hold no weights; draw them with "
                "params = net.init(key) and run the network with net.apply(params, x)."
            )

    def init_from(self, rng: LazyRng) -> Params:
        """Draw the parameter tree from a key and the path of this module."""
        tree: Params = {}
        for count, (name, initializer) in enumerate(self._initializers.items(), start=1):
            shape = tuple(self.get_parameter(name).shape)
            tree[name] = initializer(rng.make(count), shape)
        for name, child in self.named_children():
            assert isinstance(child, Module)
            params = child.init_from(rng.push(name))
            if params:  # Flax has no entry for a layer without parameters, such as dropout
                tree[name] = params
        return tree

    def init(self, key: PRNGKey) -> Params:
        """See :func:`init`."""
        return init(self, key)

    def apply(self, params: Params, *inputs: Any, **options: Any) -> Any:  # type: ignore[override]
        """See :func:`apply`."""
        return apply(self, params, *inputs, **options)


class Ensemble(Module):
    """``num`` copies of a network with different weights, by ``vmap``: outputs ``[num, ...]``.

    Parameters are stacked on axis 0 under ``Vmap<Class>_0``. Each member draws its parameters
    and its dropout masks from its own split of the key (``nn.vmap`` with ``split_rngs``).

    Raises:
        ValueError: num is below 1.

    >>> from idql_func.networks import MLP, StateActionValue
    >>> critic = Ensemble(StateActionValue, MLP, input_dim=5, hidden_dims=[8], num=2)
    >>> params = critic.init(random.PRNGKey(0))
    >>> critic.apply(params, torch.ones(4, 3), torch.ones(4, 2)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self, net_cls: Callable[..., Module], *args: Any, num: int = 2, **kwargs: Any
    ) -> None:
        super().__init__()
        if num < 1:
            raise ValueError(f"Ensemble: num must be at least 1, got {num}.")
        self.num = num
        member = net_cls(*args, **kwargs)
        self.output_dim = member.output_dim
        self.member_name = f"Vmap{type(member).__name__}_0"
        self.member = self.add(member, self.member_name)

    def init_from(self, rng: LazyRng) -> Params:
        path = (*rng.path, self.member_name)
        members = [self.member.init_from(LazyRng(key, path)) for key in rng.split(self.num)]
        return {self.member_name: tree_stack(members)}

    def forward(self, *inputs: Any, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        # functional_call has replaced the member's parameters with the stacked tensors
        stacked = dict(self.member.named_parameters())
        count = next(iter(stacked.values())).shape[0]
        path = (*rng.path, self.member_name) if rng else ()

        def member_output(params: dict[str, Tensor], key: PRNGKey | None) -> Tensor:
            stream = None if key is None else LazyRng(key, path)
            return torch.func.functional_call(
                self.member, params, inputs, {"training": training, "rng": stream}
            )

        keys = rng.split(count) if rng is not None and training else None
        return torch.func.vmap(member_output, in_dims=(0, None if keys is None else 0))(
            stacked, keys
        )


def init(module: Module, key: PRNGKey) -> Params:
    """Draw a module's initial parameters, a Flax tree with the values that Flax draws.

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
    """Run a module on parameters: a pure function, differentiable in ``params``.

    ``params`` may also be Flax's ``{"params": tree}``. ``rngs={"dropout": key}`` is
    required when dropout is on. Other options go to the module's ``forward``.

    Raises:
        RuntimeError: a parameter is missing, or the module has no parameter of that name.
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
    """Nested parameters as one dict by dotted name, the form of ``functional_call``.

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
