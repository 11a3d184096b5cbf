"""Hold the port against the record. Needs no JAX."""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.progress import track

from parity import tables
from parity.cases import Case
from parity.compare import Result, Tensors, run_case
from parity.store import REFERENCE, read_manifest, recorded, write_whole

FEW = 60


def _held(compiled: bool, pair: tuple[Case, Tensors]) -> Result:
    from parity.torch_backend import TorchBackend

    return run_case(TorchBackend("compiled" if compiled else "eager"), *pair)


def _one_thread() -> None:
    import torch

    # The tensors are tiny: a second thread costs more than it brings (on two busy cores, tenfold).
    torch.set_num_threads(1)


def check(
    directory: Path = REFERENCE,
    only: str | None = None,
    compiled: bool = False,
    jobs: int = 1,
    case: str | None = None,
) -> list[Result]:
    """Run the port on the recorded cases and compare, in ``jobs`` processes.

    Raises:
        RecordError: as :func:`recorded`.
    """
    pairs = list(recorded(directory, only, case))
    held = functools.partial(_held, compiled)
    with contextlib.ExitStack() as stack:
        # Another process takes seconds to start, which few cases are not worth.
        if jobs > 1 and len(pairs) > FEW:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(jobs, context, _one_thread)
            results = stack.enter_context(pool).map(held, pairs, chunksize=4)
        else:
            results = map(held, pairs)
        return list(track(results, "checking", len(pairs), transient=True))


def check_command(
    directory: Path,
    only: str | None = None,
    json_path: Path | None = None,
    compiled: bool = False,
    jobs: int = 1,
    case: str | None = None,
) -> int:
    """``python -m parity check``: 0 when every promise holds, else 1."""
    _one_thread()
    results = check(directory, only, compiled, jobs, case)
    commit = read_manifest(directory)["upstream"]["commit"][:7]
    mode = "compiled" if compiled else "eager"
    tables.show(results, f"the port ({mode}) against the original at {commit}")
    if json_path is not None:
        write_whole(json_path, json.dumps(tables.as_json(results), indent=1).encode())
    return 0 if all(r.passed for r in results) else 1
