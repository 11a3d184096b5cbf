"""The results of a run, and their JSON file: written atomically and checked when read."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idql_func.files import write_bytes
from idql_func.types import InputError

__all__ = ["Result", "Run", "read_run", "run_from_dict", "run_to_dict", "write_run"]

SECONDS = "s"
"""The unit of results where smaller is better."""


@dataclass(frozen=True)
class Result:
    """One variant of a workload at certain settings. Numbers are medians over the rounds."""

    workload: str
    variant: str
    settings: dict[str, Any]
    rate: float
    unit: str
    ratio_to_jax: float | None = None
    """How many times as fast as JAX, from pairs of blocks of the same round."""
    ratio_to_eager: float | None = None
    """The same against the plain variant (``baseline``)."""
    share_of_limit: float | None = None
    """Executed operations a second, divided by the matmul limit of the same round."""
    peak_memory_mb: float | None = None
    """Peak memory of the process (on a GPU: of its tensors) while it ran, after the warm-up."""
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Quartiles of ``rate`` and of the three numbers after it, if present."""
    compile_seconds: float | None = None
    """Seconds of the first call, which compiles."""
    baseline: str | None = None
    gflops: float | None = None
    """Executed GFLOP a second."""
    gflop_executed: float | None = None
    """GFLOP per unit of work, as this variant executes it."""
    gflop_algorithm: float | None = None
    """GFLOP per unit of work in the original's arithmetic."""
    memory: dict[str, float] = field(default_factory=dict)
    """More memory numbers in MB: after the imports, the peak with compilation, …"""
    calls: int | None = None
    """Calls in a block."""
    rates: tuple[float, ...] = ()
    """One for each round."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies the same measurement in another run."""
        return self.workload, self.variant, json.dumps(self.settings, sort_keys=True)

    @property
    def smaller_is_better(self) -> bool:
        return self.unit == SECONDS


@dataclass(frozen=True)
class Run:
    """All results of one run of the benchmarks."""

    environment: dict[str, Any]
    limits: dict[str, Any]
    results: tuple[Result, ...]
    left_out: tuple[str, ...] = ()
    """One sentence for each thing that could not be measured."""


def run_to_dict(run: Run) -> dict[str, Any]:
    """A run as a dictionary for JSON.

    >>> run_to_dict(Run({}, {}, (Result("act", "jax", {}, 2.0, "calls/s"),)))["results"][0]["rate"]
    2.0
    """
    return dataclasses.asdict(run)


def write_run(run: Run, path: str | Path) -> Path:
    """Write a run atomically and return the path."""
    path = Path(path)
    text = json.dumps(run_to_dict(run), indent=1, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())
    return path


def read_run(path: str | Path) -> Run:
    """Read a run.

    Raises:
        InputError: if the file does not exist or does not hold a run; the message names the fault.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from None
    try:
        return run_from_dict(content)
    except InputError as error:
        raise InputError(f"{path} is not a results file of the benchmarks: {error}") from None


def run_from_dict(content: Any) -> Run:
    """Read the dictionary of :func:`run_to_dict`. Unknown entries are ignored.

    Raises:
        InputError: if an entry is missing or has the wrong type; the message says where.
    """
    whole = _object(content, "the file")
    results = whole.get("results")
    if not isinstance(results, list):
        raise InputError("'results' must be a list of objects")
    return Run(
        environment=dict(_object(whole.get("environment", {}), "'environment'")),
        limits=dict(_object(whole.get("limits", {}), "'limits'")),
        results=tuple(_result(entry, f"results[{i}]") for i, entry in enumerate(results)),
        left_out=tuple(str(x) for x in whole.get("left_out", ())),
    )


_TEXTS = ("workload", "variant", "unit")
_NUMBERS = (
    "ratio_to_jax", "ratio_to_eager", "share_of_limit", "peak_memory_mb", "compile_seconds",
    "gflops", "gflop_executed", "gflop_algorithm",
)  # fmt: skip


def _result(entry: Any, where: str) -> Result:
    known = {f.name for f in dataclasses.fields(Result)}
    values = {k: v for k, v in _object(entry, where).items() if k in known}
    for name in (*_TEXTS, "settings", "rate"):
        if name not in values:
            raise InputError(f"{where} has no {name!r}")
    for name in _TEXTS:
        if not isinstance(values[name], str):
            raise InputError(f"{where}.{name} must be a string, got {values[name]!r}")
    _number(values["rate"], f"{where}.rate")
    for name in _NUMBERS:
        if values.get(name) is not None:
            _number(values[name], f"{where}.{name}")
    values["settings"] = dict(_object(values["settings"], f"{where}.settings"))
    values["memory"] = dict(_object(values.get("memory", {}), f"{where}.memory"))
    values["spread"] = {
        name: _pair(value, f"{where}.spread.{name}")
        for name, value in _object(values.get("spread", {}), f"{where}.spread").items()
    }
    values["rates"] = tuple(values.get("rates", ()))
    return Result(**values)


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be an object, got {type(value).__name__}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where} must be a finite number, got {value!r}")
    return float(value)


def _pair(value: Any, where: str) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(f"{where} must be two numbers, the quartiles, got {value!r}")
    return _number(value[0], where), _number(value[1], where)
