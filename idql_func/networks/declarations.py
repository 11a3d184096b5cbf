"""What a network consists of: declared parameters and submodules."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from idql_func.networks.initializers import Initializer, takes_dtype
from idql_func.tree import flatten_params, tree_iter
from idql_func.types import InputError, Params

if TYPE_CHECKING:
    from idql_func.networks.module import LazyRng


_CHANGES = itertools.count(1)
_changes = 0


def changes_of_networks() -> int:
    """A number that differs after an attribute of any network was assigned.

    >>> before = changes_of_networks()
    >>> Declarations().size = 3
    >>> changes_of_networks() == before
    False
    """
    return _changes


def declared(shape: tuple[int, ...]) -> nn.Parameter:
    """A parameter of this shape without a value.

    >>> declared((2, 3)).is_meta
    True
    """
    return nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)


def _modules_in(name: str, value: Any) -> Iterator[tuple[str, nn.Module]]:
    """The modules in the value of an attribute, with their names in the parameter tree."""
    if isinstance(value, nn.Module):
        yield name, value
    elif isinstance(value, list | tuple | dict):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _modules_in(f"{name}_{key}", entry)


def _check_has_no_weights(name: str, module: Any) -> None:
    """Refuse what can't be a part of a network.

    Raises:
        InputError: it is no module, or a torch module with weights, random numbers or networks.
    """
    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise InputError(f"{name}: a submodule must be a network, got {kind}.")
    if isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential):
        raise InputError(
            f"{name}: a torch.nn.{kind} can't hold networks; assign a plain list or dict of them."
        )
    if "Dropout" in kind or any(True for _ in (*module.parameters(), *module.buffers())):
        raise InputError(
            f"{name}: a torch.nn.{kind} holds its own weights or state, and networks here hold "
            "none; use a layer of idql_func.networks (Dense, Conv, LayerNorm, GroupNorm, Dropout) "
            "or declare its parameters in a Module, with params = net.init(key) and "
            "net.apply(params, x)."
        )


class Declarations(nn.Module):
    """Declared parameters and submodules: the part of ``Module`` that runs once per network.

    A submodule that is assigned to an attribute has the attribute's name in the parameter tree, as
    in Flax's ``setup``; one in a list, a tuple or a dict has the name and the index or key, such as
    ``layers_0``. :meth:`add` gives Flax's automatic names. A module that is assigned twice keeps
    its first name and has one set of parameters.

    Raises:
        InputError: two submodules have one name, or a torch module holds weights.

    >>> from idql_func import random
    >>> from idql_func.networks import Dense, Module
    >>> class Policy(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = Dense(3, 8)
    ...         self.head = Dense(8, 2)
    ...
    ...     def forward(self, x):
    ...         return self.head(torch.relu(self.hidden(x)))
    >>> policy = Policy()
    >>> params = policy.init(random.PRNGKey(0))
    >>> sorted(params), policy.apply(params, torch.ones(5, 3)).shape
    (['head', 'hidden'], torch.Size([5, 2]))
    """

    def __init__(self) -> None:
        super().__init__()
        self._initializers: dict[str, Initializer] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        """Those of the declared parameters; ``functional_call`` replaces the parameters."""
        self._has_shared_modules = False

    def __setattr__(self, name: str, value: Any) -> None:
        global _changes  # noqa: PLW0603
        _changes = next(_CHANGES)
        for path, module in _modules_in(name, value):
            self.add_module(path, module)
        if isinstance(value, nn.Module):
            object.__setattr__(self, name, value)
            return
        if isinstance(value, nn.Parameter):
            raise InputError(
                f"{type(self).__name__}.{name}: networks hold no weights, so that a Parameter "
                f"can't be assigned; declare it with self.declare({name!r}, shape, initializer)."
            )
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """The attributes, for pickle and copy, without values that a thread has put in."""
        parameters = {name: declared(shape) for name, shape in self._shapes.items()}
        return {**vars(self), "_parameters": parameters}

    def declare(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: Initializer,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Declare a parameter on the meta device, without a value.

        The n-th declared parameter draws Flax's n-th key of the module. With a dtype, the
        initialiser is called with it if it takes one (Flax's ``param_dtype``).
        """
        if dtype is not None and takes_dtype(initializer):
            initializer = functools.partial(initializer, dtype=dtype)
        self.register_parameter(name, declared(shape))
        self._initializers[name] = initializer
        self._shapes[name] = tuple(shape)

    def add(self, child: Any, name: str | None = None) -> Any:
        """Register a submodule under Flax's automatic name, ``Class_0``, ``Class_1``, ...

        None, for an optional submodule that is off, is returned as it is.

        Raises:
            InputError: under the conditions of the class.
        """
        if child is None:
            return None
        if name is None:
            prefix = f"{type(child).__name__}_"
            count = sum(
                other.startswith(prefix) and other.removeprefix(prefix).isdecimal()
                for other in self._modules
            )
            name = f"{prefix}{count}"
        self.add_module(name, child)
        return child

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Register a submodule under a name, unless it is registered already.

        A torch module without weights, such as ``nn.ReLU``, has no entry in the parameter tree.

        Raises:
            InputError: under the conditions of the class.
        """
        if "_initializers" not in vars(self):
            raise InputError(
                f"{type(self).__name__}.__init__: call super().__init__() before the submodule "
                f"{name!r} is assigned."
            )
        if not isinstance(name, str) or not name:
            raise InputError(
                f"{type(self).__name__}: the name of a submodule must be a text that is not empty, "
                f"got {name!r}."
            )
        if not isinstance(module, Declarations):
            _check_has_no_weights(f"{type(self).__name__}.{name}", module)
            return
        if any(module is other for other in self._modules.values()):
            return
        if name in self._modules or name in self._parameters:
            raise InputError(
                f"{type(self).__name__}: two submodules or parameters are called {name!r}; give "
                "each a name of its own."
            )
        if hasattr(Declarations, name) or name in ("init", "forward_options") or "." in name:
            raise InputError(
                f"{type(self).__name__}: a submodule can't be called {name!r}, which is a method "
                "of every network or has a dot; give it another name."
            )
        ours, theirs = {*self.modules()}, {*module.modules()}
        if module._has_shared_modules or not ours.isdisjoint(theirs):
            self._has_shared_modules = True
        self._modules[name] = module

    def init_from(self, rng: LazyRng) -> Params:
        """Draw the parameter tree from a key and the path of this module."""
        for name, value in vars(self).items():
            for path, module in _modules_in(name, value):
                if isinstance(module, Declarations) and module not in self._modules.values():
                    raise InputError(
                        f"{type(self).__name__}: the {type(module).__name__} at {path!r} is not "
                        "registered; assign the whole list after it is filled, or self.add each "
                        "entry."
                    )
        tree: Params = {}
        for count, (name, initializer) in enumerate(self._initializers.items(), start=1):
            tree[name] = initializer(rng.make(count), self._shapes[name])
        for name, child in self.named_children():
            assert isinstance(child, Declarations)
            params = child.init_from(rng.push(name))
            if params:  # Flax has no entry for a layer without parameters, such as dropout
                tree[name] = params
        return tree

    def check_names(self, flat: Mapping[str, Any]) -> None:
        """Check that flat parameters have the names of this network's.

        Raises:
            RuntimeError: some are missing, or belong to no part of the network.
        """
        names = {name for name, _ in self.named_parameters()}
        if flat.keys() != names:
            raise RuntimeError(
                f"{type(self).__name__}: the parameters lack {sorted(names - flat.keys())} and "
                f"have {sorted(flat.keys() - names)} in addition."
            )

    def check_on_meta(self, inputs: Any) -> None:
        """Check that an input is on the meta device: only a run for shapes needs no values.

        Raises:
            InputError: if none is.
        """
        if not any(isinstance(leaf, torch.Tensor) and leaf.is_meta for leaf in tree_iter(inputs)):
            raise InputError(
                f"{type(self).__name__}: networks hold no weights; draw them with "
                "params = net.init(key) and run the network with net.apply(params, x)."
            )

    def without_repetitions(self, tree: Params) -> Params:
        """A parameter tree that holds a shared submodule at its first place alone."""
        if not self._has_shared_modules:
            return tree
        flat = flatten_params(tree)
        tree = {}
        for path, _ in self.named_parameters():
            *names, last = path.split(".")
            node = tree
            for name in names:
                node = node.setdefault(name, {})
            node[last] = flat[path]
        return tree
