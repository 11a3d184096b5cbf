"""Metrics: the same records in both files, and a resumed run continues where its checkpoint is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idql_func.training.runs.metrics import MetricsLogger, read_metrics
from idql_func.types import InputError


def test_both_files_contain_the_same_records(tmp_path: Path) -> None:
    with MetricsLogger(tmp_path) as logger:
        logger.log({"step": 0, "a": 0.1})
        logger.log({"step": 1, "a": float("nan"), "b": 2})
        logger.log({"step": 2, "b": float("-inf")})
    assert read_metrics(logger.jsonl) == [
        {"step": 0, "a": 0.1},
        {"step": 1, "a": None, "b": 2},
        {"step": 2, "b": None},
    ]
    with logger.csv.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["step", "a", "b"],
            ["0", "0.1", ""],
            ["1", "", "2"],
            ["2", "", ""],
        ]


@given(count=st.integers(0, 8), keep=st.integers(0, 9), cut=st.booleans())
def test_resuming_keeps_the_records_before_the_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, count: int, keep: int, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    records = [{"step": i, "loss": i / 7, **({"new": i} if i > 4 else {})} for i in range(count)]
    with MetricsLogger(folder) as logger:
        for record in records:
            logger.log(record)
    if cut:
        with logger.jsonl.open("a") as file:
            file.write('{"step": 3, "lo')  # a process that was killed while it wrote
    with MetricsLogger(folder, keep_before=keep) as logger:
        assert logger.records == records[:keep]
        logger.log({"step": 100})
    assert read_metrics(logger.jsonl) == [*records[:keep], {"step": 100}]
    with logger.csv.open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == [*range(min(keep, count)), 100]


def test_new_run_removes_old_records(tmp_path: Path) -> None:
    with MetricsLogger(tmp_path) as logger:
        logger.log({"step": 0, "old": 1})
    with MetricsLogger(tmp_path) as logger:
        logger.log({"step": 5})
    assert read_metrics(logger.jsonl) == [{"step": 5}]
    assert logger.csv.read_text().split() == ["step", "5"]


def test_damaged_line_raises(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\nnonsense\n{"step": 1}\n')
    with pytest.raises(InputError, match=r"line 2 of .*metrics.jsonl is not a JSON object"):
        MetricsLogger(tmp_path, keep_before=5)


def test_each_record_is_written_immediately(tmp_path: Path) -> None:
    with MetricsLogger(tmp_path) as logger:
        logger.log({"step": 0, "x": 1.5})
        assert json.loads(logger.jsonl.read_text()) == {"step": 0, "x": 1.5}
        assert logger.csv.read_text().split() == ["step,x", "0,1.5"]
