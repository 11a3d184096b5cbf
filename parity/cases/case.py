"""The definition of a case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parity.bounds import promised

Options = dict[str, Any]

COMMIT = "7582571ce686c77b4ee0f592dd639ab8151295fa"
"""The commit of the original that everything here is compared with."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        group: the file its tensors are saved in, and a row of the table.
        name: unique within the group.
        program: the steps, a name in ``parity.programs.PROGRAMS``. Functions of your own may read
            it or leave it empty.
        settings: JSON values only.
        kinds: promise by the first part of a tensor's name: a name in ``parity.bounds.KINDS``, or
            a measure and a bound such as ``"relative 1e-5"``.
        arrays: inputs that are saved with the record, a nested dict; both functions are handed
            them as NumPy arrays. Everything else they make themselves from the settings.

    Raises:
        ValueError: a name cannot be stored, settings are not JSON, or there is no such promise.

    >>> Case("mlp", "small", settings={"width": 8}, kinds={"out": "forward"}).id
    'mlp/small'
    """

    group: str
    name: str
    program: str = ""
    settings: Options = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.group or set(self.group) & set("/\\:"):
            raise ValueError(
                f"the group {self.group!r} of case {self.name!r} is also the name of a file: "
                "give a name without slashes and colons"
            )
        if not self.name or "::" in self.name:
            raise ValueError(f"{self.name!r} is not a valid case name: give one without '::'")
        for name, value in self.settings.items():
            if not _is_json({name: value}):
                raise ValueError(
                    f"case {self.id}: setting {name!r} is not JSON ({type(value).__name__}): "
                    "give numbers, strings, lists and dicts; arrays go into `arrays`"
                )
        for name, kind in self.kinds.items():
            try:
                promised(kind)
            except ValueError as error:
                raise ValueError(f"case {self.id}, output {name!r}: {error}") from None

    @property
    def id(self) -> str:
        """``group/name``."""
        return f"{self.group}/{self.name}"


def _is_json(value: Any) -> bool:
    """Whether JSON preserves the value; it does not preserve tuples or numeric keys."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False
