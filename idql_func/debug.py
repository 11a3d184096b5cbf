"""Print values from inside transforms, after ``jax.debug``."""

from __future__ import annotations

import builtins
import string
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import optree
import torch
from torch import Tensor

from idql_func.boundary import describe, misfit
from idql_func.compiler.effects import run_with_effect
from idql_func.kernels.build import operator
from idql_func.tree import array_tensor, tree_flatten, tree_unflatten

__all__ = ["print"]


def print(fmt: str, *args: Any, ordered: bool = True, **kwargs: Any) -> None:
    """Print a text with values, also of traced and mapped tensors (``jax.debug.print``).

    ``fmt`` is a text with placeholders as for ``str.format``; an f-string would show the traced
    tensor. A jitted function prints at each call. Under ``vmap`` there is one line for each member
    if a value is mapped, under ``grad`` one for the function itself. Tensors are shown as NumPy
    shows them.

    Args:
        fmt: the text.
        args: values for ``{}`` and ``{0}``: tensors, arrays, numbers, texts, or trees of them.
        ordered: accepted for JAX's sake: lines are always in the order of the function.
        kwargs: values for ``{name}``.

    Raises:
        ValueError: a placeholder has no argument, an argument has no placeholder, or a format does
            not suit its value.
        TypeError: fmt is no text, or a value is of another kind.
        NotImplementedError: inside ``torch.compile`` or ``torch.export``.

    >>> from idql_func import vmap
    >>> _ = vmap(lambda x: print("x = {x:.1f}", x=x))(torch.arange(2.0))
    x = 0.0
    x = 1.0
    """
    if not isinstance(fmt, str):
        raise TypeError(f"debug.print: fmt must be a text, got {describe(fmt)}.")
    leaves, spec = tree_flatten((args, kwargs))
    constants: list[Any] = []
    tensors: list[Tensor] = []
    for leaf in leaves:
        tensor = _as_tensor(leaf)
        constants.append(leaf if tensor is None else None)
        tensors += [] if tensor is None else [tensor]
    line = _Line(fmt, spec, tuple(constants))
    line.check(tensors)
    number = _number_of(line)
    run_with_effect("debug.print", lambda token: _PRINT(tensors, token, number))


def _as_tensor(leaf: Any) -> Tensor | None:
    """The tensor of a value; None for a text."""
    if isinstance(leaf, str):
        return None
    try:
        tensor = leaf if isinstance(leaf, Tensor) else array_tensor(leaf)
    except (OverflowError, RuntimeError, ValueError):
        raise ValueError(
            f"debug.print: the number {leaf} has too many digits; enable_x64 takes 64 bits."
        ) from None
    if tensor is None or misfit(tensor, "Tensor") is not None:
        raise TypeError(
            "debug.print: values must be dense tensors, arrays, numbers or texts, got "
            f"{describe(leaf)}."
        )
    return tensor


class _Line:
    """A text with placeholders, and the structure of its values."""

    def __init__(
        self, fmt: str, spec: optree.PyTreeSpec, constants: tuple[str | None, ...]
    ) -> None:
        self.fmt, self.spec, self.constants = fmt, spec, constants

    def __hash__(self) -> int:
        return hash((self.fmt, self.spec, self.constants))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Line)
            and (self.fmt, self.constants) == (other.fmt, other.constants)
            and self.spec == other.spec
        )

    def text(self, arrays: Sequence[np.ndarray]) -> str:
        """The text with these values."""
        args, kwargs = self._values(arrays)
        return self.fmt.format(*args, **kwargs)

    def check(self, tensors: Sequence[Tensor]) -> None:
        """Raise if the placeholders do not suit the values."""
        args, kwargs = self._values([_example(x) for x in tensors])
        try:
            _PLACEHOLDERS.vformat(self.fmt, args, kwargs)
            self.fmt.format(*args, **kwargs)
        except _Misfit as misfit:
            raise ValueError(f"debug.print: in the text {self.fmt!r} {misfit}.") from None
        except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise ValueError(
                f"debug.print: the text {self.fmt!r} can't be filled in: {error}."
            ) from None

    def _values(self, arrays: Sequence[np.ndarray]) -> Any:
        left = iter(arrays)
        leaves = [next(left) if text is None else text for text in self.constants]
        return tree_unflatten(self.spec, leaves)


class _Misfit(Exception):
    """What is wrong with the placeholders."""


class _Placeholders(string.Formatter):
    """Checks the names and numbers of placeholders, and fills in nothing."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        """Check that the argument of a placeholder exists."""
        name = field_name.partition(".")[0].partition("[")[0]
        key = int(name) if name.isdigit() else name
        given = [*map(str, builtins.range(len(args))), *kwargs]
        if name not in given:
            shown = ", ".join(given) or "none"
            raise _Misfit(f"the placeholder {{{name}}} has no argument, there are {shown}")
        return "", key

    def format_field(self, value: Any, format_spec: str) -> str:
        """Nothing: formats are checked with the values."""
        return ""

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        """The value as it is."""
        return value

    def check_unused_args(self, used_args: Any, args: Any, kwargs: Any) -> None:
        """Check that each argument has a placeholder."""
        given = [*builtins.range(len(args)), *kwargs]
        unused = [str(key) for key in given if key not in used_args]
        if unused:
            raise _Misfit(
                f"the argument {unused[0]} has no placeholder: write {{{unused[0]}}} where its "
                "value belongs, and no f-string"
            )


_PLACEHOLDERS = _Placeholders()
_LINES: list[_Line] = []
"""All lines that were printed or traced; an operator has the number of one."""
_NUMBERS: dict[_Line, int] = {}
_LOCK = threading.Lock()


def _number_of(line: _Line) -> int:
    with _LOCK:
        if line not in _NUMBERS:
            _LINES.append(line)
            _NUMBERS[line] = len(_LINES) - 1
        return _NUMBERS[line]


# --- the operator -------------------------------------------------------------------------------


def _print(values: list[Tensor], token: Tensor, number: int) -> Tensor:
    sys.stdout.write(_LINES[number].text([_array(value) for value in values]) + "\n")
    return torch.zeros(1)


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _example(value: Tensor) -> np.ndarray:
    """An array of the number of axes and the dtype; a traced tensor has no values."""
    dtype = str(torch.float32 if value.dtype == torch.bfloat16 else value.dtype)
    return np.zeros([1] * value.ndim, dtype.removeprefix("torch."))


def _fake_print(values: list[Tensor], token: Tensor, number: int) -> Tensor:
    return token.new_empty(1)


def _map_print(info, in_dims, values: list[Tensor], token: Tensor, number: int):
    token = token.clone()  # of no member
    for i in range(info.batch_size):
        rows = [x if d is None else x.select(d, i) for x, d in zip(values, in_dims[0], strict=True)]
        token = _PRINT(rows, token, number)
    return token, None


_PRINT = operator(
    "debug_print(Tensor[] values, Tensor token, int number) -> Tensor",
    _print,
    fake=_fake_print,
    vmap=_map_print,
    has_derivative=False,
    has_effect=True,
)
