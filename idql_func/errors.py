"""The error of bad input; apart from ``idql_func.types``, since settings and help need no torch."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input, told in one sentence: what was wrong, where, and what would be right.

    The command line prints the sentence and exits with status 2.

    >>> from idql_func.types import InputError
    >>> issubclass(InputError, ValueError)
    True
    """
