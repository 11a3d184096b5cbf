"""The originals that the port is compared with, and the backend of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.cases import COMMIT, Case, all_cases, flow_cases
from parity.original import arrays, backend, flow


@dataclass(frozen=True)
class Original:
    """A repository at one commit.

    ``folder`` is that of its record in ``parity/reference``; ``marker`` is a path that only its
    checkout has.
    """

    repository: str
    commit: str
    folder: str
    marker: str
    packages: tuple[str, ...]
    cases: Callable[[], list[Case]]
    make_backend: Callable[[Path], Any]

    @property
    def source(self) -> dict[str, str]:
        """Repository and commit, for a manifest."""
        return {"repository": self.repository, "commit": self.commit}

    def checked_backend(self, checkout: Path) -> Any:
        """Its backend, after checking that the checkout is at the pinned commit.

        Raises:
            ValueError: the checkout is at another commit.
        """
        made, found = self.make_backend(checkout), arrays.commit_of(checkout)
        if found != self.commit:
            raise ValueError(f"{checkout} is at commit {found}, but the record is of {self.commit}")
        return made


IDQL = Original(
    "philippe-eecs/IDQL",
    COMMIT,
    "",
    "jaxrl5/agents",
    backend.PACKAGES,
    all_cases,
    backend.JaxBackend,
)
FQL = Original(
    "seohongpark/fql",
    "719d04417cb0b206deddbc7d761b3e710c3d750c",
    "fql",
    "agents/fql.py",
    flow.PACKAGES,
    flow_cases,
    flow.FlowBackend,
)


def original_of(checkout: Path) -> Original:
    """The original whose checkout this is.

    Raises:
        FileNotFoundError: it is a checkout of none.
    """
    for original in (IDQL, FQL):
        if (checkout / original.marker).exists():
            return original
    raise FileNotFoundError(
        f"{checkout} is no checkout of {IDQL.repository} or {FQL.repository}: it has neither "
        f"{IDQL.marker} nor {FQL.marker}"
    )
