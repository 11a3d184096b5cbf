"""How many updates go into one call, so that the user is never left waiting for its end."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pace"]

_FASTER = 8


@dataclass
class Pace:
    """The number of updates that take about ``seconds``, by the time that others have taken.

    A progress bar is drawn and Ctrl-C heeded between two calls only. How the updates are parted
    into calls changes none of their numbers.

    >>> pace = Pace(seconds=0.5)
    >>> pace.took(1, seconds=0.02)
    >>> pace.updates  # grows in steps: one slow or fast moment says little
    8
    >>> pace.took(8, seconds=0.16)
    >>> pace.updates
    25
    """

    seconds: float = 0.4
    updates: int = 1

    def took(self, updates: int, seconds: float) -> None:
        """Take note of a call."""
        fitting = self.seconds * updates / seconds if seconds > 0 else float("inf")
        self.updates = max(1, int(min(fitting, _FASTER * self.updates)))
