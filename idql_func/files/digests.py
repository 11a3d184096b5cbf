"""SHA-256 digests of bytes and of JSON objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from idql_func.errors import InputError


def digest(content: Any) -> str:
    """The SHA-256 digest of bytes or a C-contiguous buffer.

    >>> digest(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def add_digest(data: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a JSON object with the digest of all of them as the last entry, ``digest``.

    >>> list(add_digest({"a": 1}))
    ['a', 'digest']
    """
    plain = {name: value for name, value in data.items() if name != "digest"}
    return {**plain, "digest": _digest_of_values(plain)}


def check_digest(data: Mapping[str, Any], where: str) -> bool:
    """Check what :func:`add_digest` added; False if there is no digest (of an earlier version).

    Raises:
        InputError: the digest does not match the values.

    Example:
        >>> check_digest(add_digest({"a": 1}), "a.json"), check_digest({"a": 1}, "a.json")
        (True, False)
        >>> check_digest({**add_digest({"a": 1}), "a": 2}, "a.json")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: a.json is damaged: its values do not match their digest.
    """
    if "digest" not in data:
        if name := misnamed_digest(data, _digest_of_values):
            raise InputError(f"{where} is damaged: its entry {name!r} is that of its digest.")
        return False
    if add_digest(data)["digest"] != data["digest"]:
        raise InputError(f"{where} is damaged: its values do not match their digest.")
    return True


def misnamed_digest(
    data: Mapping[str, Any], digest_of: Callable[[Mapping[str, Any]], str]
) -> str | None:
    """The entry that holds the digest of all others under another name: its name was damaged.

    >>> misnamed_digest({"a": "1", "digesu": "0" * 64}, lambda others: "0" * 64)
    'digesu'
    """
    for name, value in data.items():
        if isinstance(value, str) and len(value) == 64:
            others = {other: entry for other, entry in data.items() if other != name}
            if digest_of(others) == value:
                return name
    return None


def _digest_of_values(data: Mapping[str, Any]) -> str:
    # after a round trip through JSON: tuples are lists then, and keys are strings
    text = json.dumps(json.loads(json.dumps(data)), sort_keys=True, separators=(",", ":"))
    return digest(text.encode())
