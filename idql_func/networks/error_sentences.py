"""One sentence for wrong arguments of networks; see ``boundary.py``.

The package imports this module first, so that every other one gets the functions from here on.
"""

from __future__ import annotations

from idql_func.boundary import explain_module, explained_methods
from idql_func.networks import layers, module

__all__ = ["explain_classes"]


def explain_classes(*classes: type) -> None:
    """Let the ``__init__`` of networks raise one sentence.

    >>> explain_classes(module.Ensemble)
    """
    for cls in classes:
        if "__init__" in vars(cls):
            explained_methods("__init__", strict=True)(cls)


explain_module(module.__name__)
explain_module(layers.__name__)
explained_methods("init")(module.Module)
explained_methods("__call__")(module.Apply)
