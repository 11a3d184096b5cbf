"""Compare the port with the record, in every mode. Needs no JAX."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from rich.progress import Progress

from parity import tables
from parity.cases import Case
from parity.compare import Result, Tensors, run_case
from parity.junit import as_junit
from parity.modes import (
    MODES,
    Mode,
    chosen,
    compiled_part,
    modes_of,
    seconds,
    unchecked,
)
from parity.store import (
    REFERENCE,
    RecordError,
    folders_of,
    read_manifest,
    recorded,
    write_whole,
)

FEW = 60


@dataclass(frozen=True)
class Job:
    """One case in one mode on one device, and its reference tensors.

    In compiled mode a learner's case compiles the part that it tests, or with ``whole`` all parts.
    """

    case: Case
    mode: Mode
    device: str
    expected: Tensors
    whole: bool = False


def run_job(job: Job) -> Result:
    """Run one case in its mode; fails too if the mode was applied to none of its functions."""
    from parity.port.backend import TorchBackend

    part = None if job.whole else compiled_part(job.case)
    backend = TorchBackend(job.mode, job.device, part)
    with full_precision(job.mode, job.device):
        result = replace(run_case(backend, job.case, job.expected), mode=job.mode)
    if job.mode != "eager" and not backend.lift.calls and not result.crash:
        return replace(result, crash=f"no function of the case ran {job.mode}")
    return result


@contextlib.contextmanager
def full_precision(mode: Mode, device: str) -> Iterator[None]:
    """Context of a job: full float32 precision, and one compiler thread.

    Compiled functions use native matrix products, as in training; eager ones use torch's.
    """
    import torch

    from idql_func.compiler.torch_internals import one_compiler_thread
    from idql_func.switches import set_native_matmul

    with contextlib.ExitStack() as stack:
        if mode == "compiled":
            # several compiler threads in each of several processes slow each other down
            stack.enter_context(one_compiler_thread())
            stack.enter_context(set_native_matmul())
        if torch.device(device).type == "cuda":
            # cuDNN's convolutions use TF32 by default, which has a mantissa of 10 bits
            cudnn = torch.backends.cudnn
            stack.enter_context(
                cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            )
        yield


def _one_thread() -> None:
    import torch

    # the tensors are tiny: a second thread makes it slower (ten times, on two busy cores)
    torch.set_num_threads(1)


def check_machine(modes: Sequence[Mode], device: str) -> None:
    """Raise an error if this machine cannot run the check.

    Raises:
        RuntimeError: there is no such device, or no compiler where one is needed.
    """
    import torch

    from idql_func.switches import jit_disabled
    from idql_func.transforms import compiler_problem

    kind = device.partition(":")[0]
    if kind not in {"cpu", "cuda"}:
        raise RuntimeError(f"--device {device}: give cpu, cuda, or cuda:1 for the second one.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"--device {device}: torch finds no CUDA device on this machine; "
            "leave --device out to check on the CPU."
        )
    if "compiled" in modes:
        if jit_disabled():
            raise RuntimeError(
                "--mode compiled: IDQL_DISABLE_JIT is set, so nothing would be compiled; unset it."
            )
        if problem := compiler_problem(torch.device(device)):
            raise RuntimeError(f"--mode compiled: {problem}")


def jobs_of(
    directory: Path = REFERENCE,
    modes: Sequence[Mode] = ("eager",),
    only: str | None = None,
    case: str | None = None,
    every: bool = False,
    device: str = "cpu",
) -> list[Job]:
    """The jobs of the recorded cases, mode by mode.

    A case given by name runs in all its modes, and so does each with ``every``; otherwise
    :func:`parity.modes.chosen` decides.

    Raises:
        RecordError: the record is damaged or has no such case, or none of them has such a mode.
    """
    pairs = list(recorded(directory, only, case))
    listed = [
        Job(member, mode, device, expected, every)
        for mode in modes
        for member, expected in pairs
        if chosen(member, mode, every or case is not None)
    ]
    if not listed:
        (mode,) = modes
        having = any(mode in modes_of(member) for member, _ in pairs)
        reason = "--every runs the omitted cases" if having else "it has no such mode"
        raise RecordError(f"no case of {case or only!r} runs {mode}: {reason}.")
    return listed


def check(
    directory: Path = REFERENCE,
    only: str | None = None,
    modes: Sequence[Mode] = ("eager",),
    jobs: int = 1,
    case: str | None = None,
    every: bool = False,
    device: str = "cpu",
) -> list[Result]:
    """Run the port on the recorded cases and compare, in ``jobs`` processes.

    Raises:
        RecordError: as :func:`jobs_of`.
        RuntimeError: there is no such device, or no compiler where one is needed.
    """
    listed = jobs_of(directory, modes, only, case, every, device)
    check_machine([job.mode for job in listed], device)
    results: dict[int, Result] = {}
    with Progress(transient=True) as progress:
        task = progress.add_task("checking", total=len(listed))
        for place, result in _done(listed, jobs):
            results[place] = result
            progress.update(task, advance=1, description=f"{result.mode} {result.case.id}")
    return [results[place] for place in range(len(listed))]


def _done(listed: Sequence[Job], jobs: int) -> Iterator[tuple[int, Result]]:
    """Indices and results as they finish; the longest jobs start first."""
    order = sorted(
        range(len(listed)), key=lambda i: seconds(listed[i].case, listed[i].mode), reverse=True
    )
    # starting a process takes seconds, more than a few short cases
    if jobs == 1 or (len(listed) <= FEW and all(job.mode != "compiled" for job in listed)):
        for place in order:
            yield place, run_job(listed[place])
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(listed)), context, _one_thread) as pool:
        places = {pool.submit(run_job, listed[place]): place for place in order}
        for future in as_completed(places):
            yield places[future], future.result()


def check_command(
    directory: Path = REFERENCE,
    only: str | None = None,
    json_path: Path | None = None,
    mode: str = "eager",
    jobs: int = 1,
    case: str | None = None,
    every: bool = False,
    device: str = "cpu",
    junit_path: Path | None = None,
) -> int:
    """``python -m parity check``: 0 if all tensors are within their bounds, else 1.

    Raises:
        ValueError: an unknown mode; or as :func:`check`.
        RuntimeError: as :func:`check`.
    """
    if mode not in (*MODES, "all"):
        raise ValueError(f"unknown mode {mode!r}; there are {', '.join(MODES)} and all")
    modes = MODES if mode == "all" else (mode,)
    begin = time.perf_counter()
    _one_thread()
    results = check(directory, only, modes, jobs, case, every, device)
    wall = time.perf_counter() - begin
    manifest = read_manifest(directory)
    groups = {result.case.group for result in results}
    originals = [
        f"{own['upstream']['repository']} at {own['upstream']['commit'][:7]}"
        for own in map(read_manifest, folders_of(directory))
        if groups & own["files"].keys()
    ]
    how = ", ".join(dict.fromkeys(result.mode for result in results))
    title = f"the port ({how}; {device}) against {' and '.join(originals)}"
    tables.show(results, title, wall)
    out = unchecked([member for member, _ in recorded(directory, only, case)], modes)
    for line in out:
        print(line)
    if json_path is not None:
        figures = tables.as_json(results, manifest, device, wall, out)
        write_whole(json_path, json.dumps(figures, indent=1).encode())
    if junit_path is not None:
        write_whole(junit_path, as_junit(results))
    return 0 if all(r.passed for r in results) else 1
