"""Old names that still work for one version, with a warning that gives the new name."""

from __future__ import annotations

import importlib
import tomllib
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["moved_names"]


def moved_names(module: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module with old names, which ``moved_names.toml`` lists.

    It stands at the end of the module: ``__getattr__ = moved_names(__name__)``.

    Args:
        module: the ``__name__`` of the module that had the names.

    >>> find = moved_names("idql_func.agents.critics")
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     find("summed_critic_loss").__name__
    'summed_critic_loss'
    >>> print(str(caught[0].message).partition(" is now ")[2])
    idql_func.agents.iql.summed_critic_loss; the next version removes the old name.
    """

    def find(name: str) -> Any:
        moved = table_of_moved_names()[module]
        new = moved.get(name)
        if new is None and "*" in moved and not name.startswith("__"):
            new = f"{moved['*']}:{name}"
        if new is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, attribute = new.partition(":")
        found = getattr(importlib.import_module(place), attribute)
        warnings.warn(
            f"{module}.{name} is now {place}.{attribute}; the next version removes the old name.",
            DeprecationWarning,
            stacklevel=2,
        )
        return found

    return find


@cache
def table_of_moved_names() -> dict[str, dict[str, str]]:
    """For each module with old names the new name of each, as in ``moved_names.toml``.

    >>> table_of_moved_names()["idql_func.networks.values"]
    {'*': 'idql_func.networks.mlp'}
    """
    path = Path(__file__).with_name("moved_names.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))
