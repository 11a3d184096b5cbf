"""Networks without weights: Flax's parameter trees on torch's module system.

A module declares the names and shapes of its parameters, under the names that Flax gives
them. :func:`init` draws their values from a key exactly as Flax does;
:func:`apply` runs the module on given values through ``torch.func.functional_call``.
:class:`Ensemble` stacks several copies of a module (Flax's ``nn.vmap``).
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from idql_func import random
from idql_func.compiler.threads import in_main_thread
from idql_func.compiler.torch_internals import register_constant
from idql_func.networks.declarations import Declarations
from idql_func.networks.same_module import ModuleMethod
from idql_func.networks.thread_copies import copy_of_this_thread
from idql_func.tree import flatten_params, tree_stack
from idql_func.types import Params, PRNGKey


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


def _with_check_of_values(forward: Callable[..., Any]) -> Callable[..., Any]:
    """``forward`` that refuses to run on declared parameters, which have no values."""

    @functools.wraps(forward)
    def checked(self: Module, *inputs: Any, **options: Any) -> Any:
        for name in self._initializers:
            if _is_declaration(getattr(self, name)):
                self.check_on_meta((inputs, options))
            break  # all have values or none
        return forward(self, *inputs, **options)

    return checked


def _is_declaration(parameter: Tensor) -> bool:
    """Whether a parameter is the declared one, and not a value that ``apply`` has put there."""
    return parameter.is_meta and isinstance(parameter, nn.Parameter)


class Module(Declarations):
    """Base of all networks (``flax.linen.Module``).

    ``__init__`` declares parameters and assigns submodules, see :class:`Declarations`. ``forward``
    takes the inputs, and with dropout also ``training`` (dropout on) and ``rng`` (its keys).
    """

    output_dim: int
    """Size of the last axis of the output; needed only by networks that build on this one."""

    _forward_options: ClassVar[frozenset[str]] = frozenset()
    """Which of ``training`` and ``rng`` the class's ``forward`` takes."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        parameters = inspect.signature(cls.forward).parameters
        open_ended = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
        names = {"training", "rng"}
        cls._forward_options = frozenset(names if open_ended else names & parameters.keys())
        if "forward" in vars(cls):
            cls.forward = _with_check_of_values(cls.forward)

    def forward_options(self, training: bool, rng: LazyRng | None) -> dict[str, Any]:
        """The keywords ``training`` and ``rng`` of ``forward``, without those it does not take.

        ``training=True`` is always among them, so that a network without it refuses it.
        """
        options: dict[str, Any] = {"rng": rng} if "rng" in self._forward_options else {}
        if training or "training" in self._forward_options:
            options["training"] = training
        return options

    def init(self, key: PRNGKey) -> Params:
        """See :func:`init`."""
        return init(self, key)

    @property
    def apply(self) -> Apply:  # type: ignore[override]
        """See :func:`apply`."""
        return Apply(self)


class Apply(ModuleMethod):
    """``module.apply``: :func:`apply` with the module given.

    >>> from idql_func.networks import MLP
    >>> MLP(3, [4]).apply == MLP(3, [4]).apply
    True
    """

    __slots__ = ()

    def __call__(self, params: Params, *inputs: Any, **options: Any) -> Any:
        return apply(self.__self__, params, *inputs, **options)


register_constant(Apply)  # jitted functions take one as a static argument


class Ensemble(Module):
    """``num`` copies of a network with different weights, by ``vmap``: outputs ``[num, ...]``.

    Parameters are stacked on axis 0 under ``Vmap<Class>_0``, or under ``name``, such as
    ``value_net`` for Flax's ``self.value_net = nn.vmap(MLP, ...)(...)``. Each member draws its
    parameters and its dropout masks from its own split of the key (``split_rngs``).

    Raises:
        ValueError: num is below 1.

    >>> from idql_func.networks import MLP, StateActionValue
    >>> critic = Ensemble(StateActionValue, MLP, input_dim=5, hidden_dims=[8], num=2)
    >>> params = critic.init(random.PRNGKey(0))
    >>> critic.apply(params, torch.ones(4, 3), torch.ones(4, 2)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        net_cls: Callable[..., Module],
        *args: Any,
        num: int = 2,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if num < 1:
            raise ValueError(f"Ensemble: num must be at least 1, got {num}.")
        self.num = num
        member = net_cls(*args, **kwargs)
        if hasattr(member, "output_dim"):
            self.output_dim = member.output_dim
        self.member_name = f"Vmap{type(member).__name__}_0" if name is None else name
        self.member = self.add(member, self.member_name)

    def init_from(self, rng: LazyRng) -> Params:
        path = (*rng.path, self.member_name)
        members = [self.member.init_from(LazyRng(key, path)) for key in rng.split(self.num)]
        return {**super().init_from(rng), self.member_name: tree_stack(members)}

    def forward(self, *inputs: Any, training: bool = False, rng: LazyRng | None = None) -> Tensor:
        # functional_call has replaced the member's parameters with the stacked tensors
        stacked = dict(self.member.named_parameters())
        if any(map(_is_declaration, stacked.values())):
            self.check_on_meta(inputs)
            stacked = {name: p.expand(self.num, *p.shape) for name, p in stacked.items()}
        count = next(iter(stacked.values())).shape[0]
        path = (*rng.path, self.member_name) if rng else ()

        def member_output(params: dict[str, Tensor], key: PRNGKey | None) -> Tensor:
            stream = None if key is None else LazyRng(key, path)
            options = self.member.forward_options(training, stream)
            return torch.func.functional_call(
                self.member, params, inputs, options, tie_weights=False
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
    return module.without_repetitions(module.init_from(LazyRng(key)))


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
    if not in_main_thread():
        module = copy_of_this_thread(module)
    flat = flatten_params(params)
    if module._has_shared_modules:  # torch would require their parameters at each of their places
        module.check_names(flat)
    options = {**module.forward_options(training, rng), **options}
    strict = not module._has_shared_modules
    try:
        return torch.func.functional_call(
            module, flat, inputs, options, tie_weights=False, strict=strict
        )
    except RuntimeError:
        module.check_names(flat)  # in one line, unlike torch
        raise
