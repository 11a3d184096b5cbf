"""The JSON file of a run: writing, reading, and the errors for malformed files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results import Result, Run, read_run, run_to_dict, write_run
from idql_func.types import InputError

RESULT = Result(
    "act",
    "compiled",
    {"num_envs": 1, "N": 64},
    rate=190.5,
    unit="actions/s",
    ratio_to_jax=2.1,
    share_of_limit=0.7,
    spread={"rate": (180.0, 200.0), "ratio_to_jax": (2.0, 2.2)},
    memory={"peak": 400.0},
    rates=(180.0, 190.5, 200.0),
)
RUN = Run({"cpu": "a", "threads": 2}, {"matmul_gflops": 200.0}, (RESULT,), ("one thing",))


def test_written_run_is_read_back(tmp_path: Path) -> None:
    path = write_run(RUN, tmp_path / "new" / "run.json")
    assert read_run(path) == RUN
    entry = json.loads(path.read_text())["results"][0]
    assert {
        "workload", "variant", "settings", "rate", "unit", "ratio_to_jax", "ratio_to_eager",
        "share_of_limit", "peak_memory_mb", "spread", "compile_seconds",
    } <= set(entry)  # fmt: skip


def test_entries_of_later_versions_are_ignored(tmp_path: Path) -> None:
    content = run_to_dict(RUN)
    content["results"][0]["colour"] = "blue"
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**content, "comment": 1}))
    assert read_run(path) == RUN


def changed(**entries: Any) -> dict[str, Any]:
    content = run_to_dict(RUN)
    content["results"][0].update(entries)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the file must be an object, got list"),
        ({}, "'results' must be a list"),
        ({"results": [1]}, r"results\[0\] must be an object, got int"),
        ({"results": [{"workload": "act"}]}, r"results\[0\] has no 'variant'"),
        (changed(rate="fast"), r"results\[0\].rate must be a finite number, got 'fast'"),
        (changed(ratio_to_jax=True), r"results\[0\].ratio_to_jax must be a finite number"),
        (changed(unit=3), r"results\[0\].unit must be a string, got 3"),
        (changed(spread={"rate": [1]}), r"results\[0\].spread.rate must be two numbers"),
        (changed(settings=None), r"results\[0\].settings must be an object"),
    ],
)
def test_malformed_run_raises_with_the_place(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_run(path)


def test_missing_file_and_invalid_json_raise(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_run(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"results": [')
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_run(tmp_path / "half.json")


def test_non_finite_figures_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with pytest.raises(ValueError, match="JSON"):
        write_run(Run({}, {}, (Result("a", "b", {}, float("nan"), "s"),)), path)
    assert not path.exists()
