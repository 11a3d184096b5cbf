"""Metrics of a run as JSON lines, and the same as CSV for spreadsheets."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from idql_func.files import atomic_path
from idql_func.types import InputError

__all__ = ["MetricsLogger", "read_metrics"]


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """All records of a ``metrics.jsonl``, without an incomplete last line (of a killed process).

    Raises:
        InputError: a line before the last is not a JSON object.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with MetricsLogger(folder) as logger:
        ...         logger.log({"step": 0, "loss": 0.5})
        ...     read_metrics(f"{folder}/metrics.jsonl")
        [{'step': 0, 'loss': 0.5}]
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if number == len(lines):
                break
            raise InputError(f"line {number} of {path} is not a JSON object: {error}") from None
        records.append(record)
    return records


class MetricsLogger(AbstractContextManager["MetricsLogger"]):
    """Appends records to ``metrics.jsonl`` and ``metrics.csv`` in a folder.

    A record is a flat dictionary with a ``step``; numbers that are not finite become ``null``
    (JSON cannot represent them) and an empty cell. A new column rewrites the CSV file, which
    happens at the first evaluation.

    Args:
        folder: the folder of the two files.
        keep_before: None starts both files from nothing; a number keeps the records of an earlier
            run whose ``step`` is below it, so that a resumed run continues at its checkpoint.

    Raises:
        InputError: ``keep_before`` is given and the earlier file is damaged.
    """

    def __init__(self, folder: str | Path, keep_before: int | None = None) -> None:
        self.jsonl = Path(folder) / "metrics.jsonl"
        self.csv = Path(folder) / "metrics.csv"
        self.records: list[dict[str, Any]] = []
        if keep_before is not None and self.jsonl.exists():
            self.records = [r for r in read_metrics(self.jsonl) if r.get("step", 0) < keep_before]
        with atomic_path(self.jsonl) as temporary:
            temporary.write_text("".join(_line(r) for r in self.records), encoding="utf-8")
        self._columns: list[str] = []
        for record in self.records:
            self._columns += [key for key in record if key not in self._columns]
        self._rewrite_csv()
        self._jsonl_file = self.jsonl.open("a", encoding="utf-8")
        self._csv_file = self.csv.open("a", encoding="utf-8", newline="")

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to both files, and flush it."""
        clean = {key: _finite(value) for key, value in record.items()}
        self.records.append(clean)
        self._jsonl_file.write(_line(clean))
        self._jsonl_file.flush()
        new = [key for key in clean if key not in self._columns]
        if new:
            self._columns += new
            self._csv_file.close()
            self._rewrite_csv()
            self._csv_file = self.csv.open("a", encoding="utf-8", newline="")
        else:
            csv.DictWriter(self._csv_file, self._columns).writerow(clean)
            self._csv_file.flush()

    def close(self) -> None:
        """Close both files."""
        self._jsonl_file.close()
        self._csv_file.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _rewrite_csv(self) -> None:
        with atomic_path(self.csv) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            if self._columns:
                writer.writeheader()
            writer.writerows(self.records)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
