"""Parse JSON of a bounded depth and size."""

from __future__ import annotations

import json
import re
from typing import Any

from idql_func.errors import InputError

JSON_LIMIT = 1 << 22
"""Largest JSON text that is read, in bytes: parsed, it takes up to 25 times as much memory."""
JSON_DEPTH = 64


def parse_json(text: bytes | str, where: str) -> Any:
    """Parse JSON of bounded depth; NaN, infinity and a key that stands twice are refused.

    Args:
        text: the JSON, in UTF-8.
        where: the file or part of a file, for the message.

    Raises:
        InputError: the text is not JSON, or nested deeper than 64 levels.

    Example:
        >>> parse_json('{"a": 1, "a": 2}', "a.json")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.json is damaged: it has the key 'a' twice.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} is damaged: byte {error.start} is not part of a text in UTF-8."
        ) from None
    level = deepest = 0
    for match in _BRACKET_OR_STRING.finditer(decoded):
        if bracket := match[1]:
            level += 1 if bracket in "[{" else -1
            deepest = max(deepest, level)
    if deepest > JSON_DEPTH:
        raise InputError(
            f"{where} is damaged: its JSON is nested {deepest} levels deep; {JSON_DEPTH} are read."
        )
    try:
        return json.loads(decoded, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is damaged: it is not JSON in line {error.lineno}, column {error.colno}."
        ) from None
    except _JSONError as error:
        raise InputError(f"{where} is damaged: {error}.") from None
    except (ValueError, RecursionError):  # an integer of thousands of digits
        raise InputError(f"{where} is damaged: a number in it is too long.") from None


# possessive, so that a string without an end takes no more than one pass
_BRACKET_OR_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?|([\[\]{}])', re.DOTALL)


class _JSONError(Exception):
    """What is wrong with a JSON text; :func:`parse_json` adds the place."""


def _refuse_constant(name: str) -> Any:
    raise _JSONError(f"{name} is not a number in JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _JSONError(f"it has the key {twice!r} twice")
    return found
