"""The error for bad input, in a module that does not import torch: settings and help need it."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input. The message is one sentence: what was wrong, where, and what would be right.

    The command line prints the message and exits with status 2.

    >>> from idql_func.types import InputError
    >>> issubclass(InputError, ValueError)
    True
    """
