"""Metrics of a run as JSON lines, and the same as CSV for spreadsheets."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from idql_func.files import (
    OutputFile,
    digest,
    explain_write_errors,
    read_bytes,
    system,
    write_bytes,
)
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
    content = read_bytes(path, "the metrics of a run")
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: byte {error.start} is not part of a text") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
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
        keep_first: keep only so many of the first records, those before the checkpoint.

    ``records`` are all that the files hold, ``found`` is the number that the earlier file had, and
    ``found_digest`` the digest of its first ones.

    Raises:
        InputError: ``keep_before`` is given and the earlier file is damaged.
    """

    def __init__(
        self, folder: str | Path, keep_before: int | None = None, keep_first: int | None = None
    ) -> None:
        self.jsonl = Path(folder) / "metrics.jsonl"
        self.csv = Path(folder) / "metrics.csv"
        self.records: list[dict[str, Any]] = []
        self.found, self.found_digest = 0, ""
        if keep_before is not None and self.jsonl.exists():
            earlier = read_metrics(self.jsonl)
            self.found = len(earlier)
            self.found_digest = digest("".join(map(_line, earlier[:keep_first])).encode())
            kept = (r for r in earlier[:keep_first] if _step(r) < keep_before)
            self.records = list(kept)
        self._columns: list[str] = []
        self._write_all()

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to both files.

        Raises:
            FileWriteError: the disk is full or cannot be written.
        """
        clean = {key: _finite(value) for key, value in record.items()}
        self.records.append(clean)
        new = [key for key in clean if key not in self._columns]
        with explain_write_errors(self.jsonl):
            self._jsonl_file.write(_line(clean).encode())
            self._size += len(_line(clean).encode())
            self._sum.update(_line(clean).encode())
        if new:
            self._columns += new
            self._csv_file.close()
            self._rewrite_csv()
            return
        with explain_write_errors(self.csv):
            self._csv_file.write(_table([clean], self._columns))

    @property
    def digest(self) -> str:
        """The SHA-256 digest of all records."""
        return self._sum.hexdigest()

    def flush_to_disk(self) -> bool:
        """Flush the records to the disk; a file that somebody removed or changed is written again.

        Returns:
            Whether it had to be written again.

        Raises:
            FileWriteError: the disk is full or cannot be written.
        """
        try:
            there, ours = os.stat(self.jsonl), os.fstat(self._jsonl_file.fileno())
            same = os.path.samestat(there, ours) and there.st_size == self._size
        except OSError:
            same = False
        if not same:
            self.close()
            self._write_all()
        with explain_write_errors(self.jsonl):
            system.sync(self._jsonl_file.fileno())
        return not same

    def close(self) -> None:
        """Close both files."""
        self._jsonl_file.close()
        self._csv_file.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write_all(self) -> None:
        """Write both files from ``records``, and open them for further ones."""
        content = "".join(_line(record) for record in self.records).encode()
        write_bytes(self.jsonl, content)
        self._size, self._sum = len(content), hashlib.sha256(content)
        self._columns = list(dict.fromkeys(key for record in self.records for key in record))
        with explain_write_errors(self.jsonl):
            self._jsonl_file = OutputFile(self.jsonl, "a")
        self._rewrite_csv()

    def _rewrite_csv(self) -> None:
        header = [dict(zip(self._columns, self._columns, strict=True))] if self._columns else []
        write_bytes(self.csv, _table([*header, *self.records], self._columns))
        with explain_write_errors(self.csv):
            self._csv_file = OutputFile(self.csv, "a")


def _table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue().encode()


def _step(record: Mapping[str, Any]) -> float:
    step = record.get("step", 0)
    return step if isinstance(step, int | float) else 0


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
