"""One sentence for wrong arguments of networks; see ``boundary.py``.

The package imports this module first, so that every other one gets the functions from here on.
"""

from __future__ import annotations

import functools
from typing import Any

from idql_func.boundary import explain_module, explained_methods
from idql_func.networks import layers, module
from idql_func.types import InputError

__all__ = ["explain_classes"]


def explain_classes(*classes: type) -> None:
    """Let the ``__init__`` of networks raise one sentence.

    >>> explain_classes(module.Ensemble)
    """
    for cls in classes:
        if "__init__" in vars(cls):
            explained_methods("__init__")(cls)
            _check_ranges(cls)


_RANGES: dict[str, tuple[float, float]] = {"dropout_rate": (0, 1), "num_blocks": (0, 10_000)}
"""The least and the largest value of arguments."""


def _check_ranges(cls: Any) -> None:
    """Let ``cls`` refuse numbers that are out of range before it makes any layer."""
    plain = cls.__init__
    names = plain.__wrapped__.__code__.co_varnames[1 : plain.__wrapped__.__code__.co_argcount]
    if not _RANGES.keys() & set(names):
        return

    @functools.wraps(plain)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        for name, value in {**dict(zip(names, args, strict=False)), **kwargs}.items():
            if name in _RANGES and isinstance(value, int | float):
                low, high = _RANGES[name]
                if not low <= value <= high:
                    raise InputError(
                        f"{cls.__name__}: {name} must lie in [{low}, {high}], got {value}."
                    )
        plain(self, *args, **kwargs)

    cls.__init__ = __init__


explain_module(module.__name__)
explain_module(layers.__name__)
explained_methods("init")(module.Module)
explained_methods("__call__")(module.Apply)
