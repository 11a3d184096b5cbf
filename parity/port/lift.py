"""Apply a mode to a function.

``compiled`` jits it with :func:`idql_func.jit`. ``vmapped`` stacks its tensors with other values
(:func:`decoy`), maps over the stack and returns the result of its own arguments, so that the
batching rule of every operation is tested within the same bounds as the operation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from idql_func.transforms import inside_transform, jit, tree_flatten, tree_unflatten, vmap
from parity.modes import Mode

_OTHER_KEY = 0x5DEECE66


def decoy(x: Tensor) -> Tensor:
    """Another possible value of ``x``, which is stacked with ``x``.

    Floats are halved and reversed, so that variances stay positive and probabilities and actions
    in range; bytes, times and indices are reversed; a single integer is increased by one; keys
    (int64, ``[..., 2]``) become other keys.

    >>> decoy(torch.tensor([1.0, 4.0])).tolist(), decoy(torch.tensor(3)).item()
    ([2.0, 0.5], 4)
    """
    if x.dtype == torch.int64 and x.shape[-1:] == (2,):
        return x ^ _OTHER_KEY
    if x.dtype == torch.bool:
        return ~x
    if x.ndim == 0:
        return x / 2 if x.is_floating_point() else x + 1
    other = x.flip(tuple(range(x.ndim)))
    return other / 2 if x.is_floating_point() else other


class Lift:
    """Applies a mode to functions of tensors; does nothing inside another transform.

    Tensors anywhere in the arguments are traced or mapped; other arguments (numbers, shapes, names)
    are constants. ``calls`` counts the calls to which the mode was applied, so that a case cannot
    pass in a mode that was never used.

    >>> lift = Lift("vmapped")
    >>> lift(torch.matmul)(torch.eye(2), torch.tensor([1.0, 2.0])).tolist(), lift.calls
    ([1.0, 2.0], 1)
    """

    def __init__(self, mode: Mode):
        self.mode: Mode = mode
        self.calls = 0
        self._programs: dict[Any, Callable[..., Any]] = {}

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` as the mode runs it."""
        if self.mode == "eager":
            return function

        @functools.wraps(function, updated=())
        def lifted(*args: Any, **kwargs: Any) -> Any:
            leaves, spec = tree_flatten((args, kwargs), none_is_leaf=True)
            places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
            if not places or inside_transform():
                return function(*args, **kwargs)
            self.calls += 1
            run = self._compiled if self.mode == "compiled" else _mapped
            return run(function, spec, leaves, places)

        return lifted

    def _compiled(
        self, function: Callable[..., Any], spec: Any, leaves: list[Any], places: Sequence[int]
    ) -> Any:
        given = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (function, spec, tuple((type(leaf), leaf) for leaf in given))
        try:
            program = self._programs.get(key)
        except TypeError:  # an argument has no hash, so that the program cannot be cached
            program = jit(_filled(function, spec, given, places))
        if program is None:
            program = self._programs[key] = jit(_filled(function, spec, given, places))
        return program(*(leaves[i] for i in places))


def _filled(
    function: Callable[..., Any], spec: Any, leaves: Sequence[Any], places: Sequence[int]
) -> Callable[..., Any]:
    """The function as a function of its tensors only."""

    def filled(*tensors: Tensor) -> Any:
        whole = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            whole[place] = tensor
        args, kwargs = tree_unflatten(spec, whole)
        return function(*args, **kwargs)

    return filled


def _mapped(
    function: Callable[..., Any], spec: Any, leaves: list[Any], places: Sequence[int]
) -> Any:
    # The decoy comes first, so that a rule that uses the first member for all is detected.
    stacked = (torch.stack([decoy(leaves[i]), leaves[i]]) for i in places)
    filled = _filled(function, spec, leaves, places)
    result: list[Any] = []  # the leaves, and their structure
    made: list[int] = []  # the places of tensors among the leaves

    def tensors_of_result(*tensors: Tensor) -> list[Tensor]:
        result[:] = tree_flatten(filled(*tensors), none_is_leaf=True)
        made[:] = [i for i, leaf in enumerate(result[0]) if isinstance(leaf, Tensor)]
        return [result[0][i] for i in made]

    members = vmap(tensors_of_result)(*stacked)
    last, structure = result
    for place, tensor in zip(made, members, strict=True):
        last[place] = tensor[1]
    return tree_unflatten(structure, last)


class Lifted:
    """A module whose functions all run in the mode."""

    def __init__(self, module: Any, lift: Lift):
        self._module, self._lift = module, lift

    def __getattr__(self, name: str) -> Any:
        return self._lift(getattr(self._module, name))
