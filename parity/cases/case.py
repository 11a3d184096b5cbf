"""What a case is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Options = dict[str, Any]

COMMIT = "7582571ce686c77b4ee0f592dd639ab8151295fa"
"""The revision of the original that everything here is held to."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        group: the file its tensors are saved in.
        name: unique within the group.
        program: the steps, a name in ``parity.programs.PROGRAMS``.
        settings: JSON values only.
        kinds: promise (a name in ``parity.bounds.KINDS``) by the first part of a tensor's name.
    """

    group: str
    name: str
    program: str
    settings: Options
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """``group/name``."""
        return f"{self.group}/{self.name}"
