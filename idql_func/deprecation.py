"""Old names that still work for one version, with a warning that gives the new name."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["moved_names"]


def moved_names(module: str, moved: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that resolves old names.

    Args:
        module: the ``__name__`` of the module that had the names.
        moved: for each old name the new one with its module: ``"package.module:name"``. The key
            ``"*"`` stands for any other name of a module that has moved as a whole, and its value
            is the new module.

    Example, at the end of ``critics.py``:
        ``__getattr__ = moved_names(__name__, {"follow": "idql_func.agents.critics:soft_update"})``

    >>> find = moved_names("old_module", {"tree_join": "idql_func.tree:tree_stack"})
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     find("tree_join").__name__
    'tree_stack'
    >>> print(caught[0].message)
    old_module.tree_join is now idql_func.tree.tree_stack; the next version removes the old name.
    """

    def find(name: str) -> Any:
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
