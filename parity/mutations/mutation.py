"""The definition of a planted bug."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path


@dataclass(frozen=True)
class Mutation:
    """One realistic bug of a port, as a change of one file's text.

    The changed port must run: an exception would be found without a suite.

    Attributes:
        name: a unique name.
        bug: what is wrong, and where such code comes from.
        file: the changed file, relative to ``idql_func/``.
        old: the text to replace, which occurs exactly ``count`` times.
        new: the replacement.
        count: the number of occurrences of ``old``; all are replaced.
        suite: what must find it: the recorded ``cases`` or the recorded ``programs``.
    """

    name: str
    bug: str
    file: str
    old: str
    new: str
    count: int = 1
    suite: str = "cases"

    def plant(self, package: Path) -> None:
        """Change the file in a copy of the package ``idql_func``.

        Raises:
            ValueError: the text does not occur ``count`` times, so the list is out of date.
        """
        path = package / self.file
        text = path.read_text(encoding="utf-8")
        found = text.count(self.old)
        if found != self.count:
            raise ValueError(
                f"mutation {self.name!r}: its text occurs {found} times in {self.file}, not "
                f"{self.count}: parity/mutations is out of date with the port."
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
        # Python recognises compiled code by size and time in seconds, which may be the same.
        Path(cache_from_source(str(path))).unlink(missing_ok=True)
