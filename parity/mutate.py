"""Plant bugs in the port, one at a time, and check that the suite finds each.

Each mutation of :mod:`parity.mutations` is planted in a copy of ``idql_func``, and a new process
runs the recorded cases on the copy, eagerly, until a tensor is out of its bound. Every case may
run; cheap ones come first. Bugs of transforms and streams run the recorded programs instead. A bug
counts as found if a tensor is out of its bound or a program has another result; an exception does
not count.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from parity.cases import Case
from parity.compare import Result, Tensors, run_case
from parity.mutations import MUTATIONS, Mutation
from parity.store import REFERENCE, recorded, write_whole
from parity.tables import failures, figure

LIBRARIES = ("torch", "tensordict", "gymnasium", "optree", "safetensors.numpy")
LIMIT = 1200.0
"""Seconds after which a worker is stopped: a bug may cause an endless loop."""


@dataclass(frozen=True)
class Verdict:
    """The suite's verdict on one planted bug.

    ``case`` is the first case that failed and ``tensor`` its first tensor out of bounds; both are
    empty if none failed. ``message`` is the suite's line about it. ``failed`` counts the failed
    cases by group; after a run of the whole suite it has all of them.
    """

    name: str
    bug: str
    file: str
    caught: bool
    case: str = ""
    tensor: str = ""
    kind: str = ""
    error: float | None = None
    bound: float | None = None
    message: str = ""
    seconds: float = 0.0
    ran: int = 0
    failed: dict[str, int] | None = None


def cheapest_first(pairs: Iterable[tuple[Case, Tensors]]) -> list[tuple[Case, Tensors]]:
    """Cases without updates in the order of the record; then one of each group in turn.

    Within a group, cases with fewer updates come first.
    """

    def updates(case: Case) -> int:
        return case.settings.get("steps", 0) if "learner" in case.settings else 0

    listed, turns, keys = list(pairs), Counter[str](), {}
    for case, _ in sorted(listed, key=lambda pair: updates(pair[0])):
        if updates(case):
            turns[case.group] += 1
            keys[case.id] = turns[case.group]
    return sorted(listed, key=lambda pair: keys.get(pair[0].id, 0))


def worker(package: Path, out: Path, full: bool, reference: Path, suite: str) -> None:
    """Compare the copy of the port in ``package`` with the record; write the failures to ``out``.

    ``suite`` is ``cases`` or ``programs``.

    Run it in a process that has not imported the port. Stops at the first case with a tensor out of
    bounds unless ``full``. An exception outside the cases is written as a sentence.
    """
    try:
        _import_port(package)
        run = _run_programs if suite == "programs" else _run_cases
        report: Any = run(full, reference)
    except Exception as error:
        report = f"{type(error).__name__}: {error}"
    write_whole(out, json.dumps(report).encode())


def _import_port(package: Path) -> None:
    import torch

    sys.path.insert(0, str(package.parent))
    import idql_func

    found = Path(idql_func.__file__ or "").resolve().parent
    if found != package.resolve():
        raise RuntimeError(f"the port was imported from {found}, not from {package}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _run_programs(full: bool, reference: Path) -> dict[str, Any]:
    from parity.conformance.checking import judge as compare
    from parity.conformance.checking import on_port
    from parity.conformance.store import read_outcomes

    ran, failed = 0, []
    for ran, (program, jax) in enumerate(read_outcomes(reference), 1):
        verdict = compare(program, jax, on_port(program))
        if not verdict.passed:
            refused = (verdict.difference or "").startswith("refused")
            finding = {
                "tensor": verdict.difference,
                "kind": program.family,
                "error": None,
                "bound": None,
            }
            failed.append(
                {
                    "case": f"programs/{ran - 1}",
                    "group": "programs",
                    "message": f"FAIL programs/{ran - 1}: {verdict.difference}",
                    "finding": None if refused else finding,
                }
            )
            if not (refused or full):
                break
    return {"ran": ran, "failed": failed}


def _run_cases(full: bool, reference: Path) -> dict[str, Any]:
    from parity.port.backend import TorchBackend

    backend, ran, failed = TorchBackend(), 0, []
    for case, expected in cheapest_first(recorded(reference)):
        ran += 1
        result = run_case(backend, case, expected)
        if not result.passed:
            failed.append(result)
            if not (result.crash or full):
                break
    return {"ran": ran, "failed": [_entry(r) for r in failed]}


def _entry(result: Result) -> dict[str, Any]:
    first = result.first_failure
    return {
        "case": result.case.id,
        "group": result.case.group,
        "message": failures([result])[0],
        "finding": None
        if first is None
        else {name: getattr(first, name) for name in ("tensor", "kind", "error", "bound")},
    }


@contextmanager
def planted(mutation: Mutation | None) -> Iterator[Path]:
    """A folder with a copy of the port, changed by ``mutation`` if there is one.

    Raises:
        ValueError: if the port does not have the mutation's text the expected number of times.
    """
    spec = find_spec("idql_func")
    assert spec is not None and spec.submodule_search_locations, "parity needs the port"
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "idql_func"
        shutil.copytree(spec.submodule_search_locations[0], package)
        if mutation is not None:
            mutation.plant(package)
        yield Path(folder)


def run_worker(
    mutation: Mutation | None, full: bool, reference: Path = REFERENCE, suite: str = "cases"
) -> Any:
    """The result of :func:`worker` for one planted bug, or a sentence with the reason if none."""
    # fork a process that has imported the libraries but not the port: imports take half of the time
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([*LIBRARIES, __name__])
    with planted(mutation) as folder:
        out = folder / "out.json"
        process = context.Process(
            target=worker,
            args=(folder / "idql_func", out, full, reference, suite),
            daemon=True,
        )
        process.start()
        process.join(LIMIT)
        if process.is_alive():
            process.kill()
            process.join()
            return f"the run was stopped after {LIMIT:.0f} seconds"
        if not out.is_file():
            return f"the run ended with {process.exitcode}"
        return json.loads(out.read_text())


def judge(mutation: Mutation, full: bool = False, reference: Path = REFERENCE) -> Verdict:
    """Plant one bug and run the suite until it is caught, or with ``full`` to its end.

    Raises:
        ValueError: the mutation is out of date.
    """
    begin = time.perf_counter()
    report = run_worker(mutation, full, reference, mutation.suite)
    seconds = round(time.perf_counter() - begin, 1)
    verdict = Verdict(mutation.name, mutation.bug, mutation.file, False, seconds=seconds)
    if isinstance(report, str):
        return replace(verdict, message=report)
    counts = dict(Counter(entry["group"] for entry in report["failed"]))
    verdict = replace(verdict, ran=report["ran"], failed=counts)
    for entry in report["failed"]:
        if entry["finding"] is not None:
            found = {**entry["finding"], "case": entry["case"], "message": entry["message"]}
            return replace(verdict, caught=True, **found)
    return replace(verdict, message=report["failed"][0]["message"] if report["failed"] else "")


def chosen(only: str | None) -> Sequence[Mutation]:
    """All mutations, or those whose name is or begins with ``only``.

    Raises:
        ValueError: there is none.

    >>> [m.name for m in chosen("quantile")]
    ['quantile-abs']
    """
    some = [m for m in MUTATIONS if only in (None, m.name)] or [
        m for m in MUTATIONS if m.name.startswith(only or "")
    ]
    if not some:
        names = ", ".join(m.name for m in MUTATIONS)
        raise ValueError(f"no mutation begins with {only!r}; there are {names}.")
    return some


def control(reference: Path = REFERENCE, suites: Iterable[str] = ("cases",)) -> int:
    """Run whole suites on an unchanged copy; returns the number of cases and programs.

    Raises:
        RuntimeError: if one fails.
    """
    ran = 0
    for suite in suites:
        report = run_worker(None, True, reference, suite)
        if isinstance(report, str) or report["failed"]:
            reason = report if isinstance(report, str) else report["failed"][0]["message"]
            raise RuntimeError(f"the port fails without a planted bug: {reason}")
        ran += report["ran"]
    return ran


def mutate(
    mutations: Sequence[Mutation],
    jobs: int = 1,
    full: bool = False,
    with_control: bool = True,
    reference: Path = REFERENCE,
) -> list[Verdict]:
    """Judge several mutations, ``jobs`` at a time.

    Raises:
        ValueError: a mutation is out of date.
        RuntimeError: the unchanged port fails.
    """
    with ThreadPoolExecutor(jobs) as pool, Progress(transient=True) as progress:
        suites = sorted({m.suite for m in mutations})
        first = [pool.submit(control, reference, suites)] if with_control else []
        verdicts = [pool.submit(judge, m, full, reference) for m in mutations]
        task = progress.add_task("planting bugs", total=len(first) + len(verdicts))
        left: set[Future[Any]] = {*first, *verdicts}
        try:
            while left:
                done, left = wait(left, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                progress.advance(task, len(done))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in verdicts]


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """Lines with rich's markup: one for each planted bug; the first tensor out of bounds below."""
    lines = ["[bold]bugs planted in the port, one at a time[/bold]"]
    lines.append(f"{'bug':<36} {'caught':<6} {'error':>8} {'bound':>8} {'seconds':>8}")
    for v in verdicts:
        error, bound = ("" if x is None else figure(x) for x in (v.error, v.bound))
        caught = "[green]yes[/green]   " if v.caught else "[red]NO[/red]    "
        lines.append(f"{v.name:<36} {caught} {error:>8} {bound:>8} {v.seconds:>8.0f}")
        if v.caught:
            lines.append(f"    {v.case}: {escape(v.tensor)}")
    return lines


def _explanations(verdicts: Sequence[Verdict], full: bool) -> Iterator[str]:
    for v in verdicts:
        if not v.caught:
            what = v.message or f"all {v.ran} cases pass"
            yield f"[red]SURVIVED[/red] {v.name} ({v.file}): {v.bug}: {what}"
            continue
        counts = ", ".join(f"{group} {count}" for group, count in (v.failed or {}).items())
        more = f" [failing cases: {counts}]".replace("[", "\\[") if full else ""
        yield f"{v.name}: {v.bug}\n    {v.message}{more}"


def as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """All verdicts; an infinite error (no comparison possible) becomes null."""
    results = [asdict(v) for v in verdicts]
    for entry in results:
        entry["error"] = None if entry["error"] == float("inf") else entry["error"]
    return {"planted": len(results), "caught": sum(v.caught for v in verdicts), "results": results}


def mutate_command(
    only: str | None = None,
    jobs: int = 1,
    json_path: Path | None = None,
    full: bool = False,
    with_control: bool = True,
    reference: Path = REFERENCE,
) -> int:
    """``python -m parity mutate``: 0 when the suite catches every bug, else 1."""
    begin = time.perf_counter()
    verdicts = mutate(chosen(only), jobs, full, with_control, reference)
    console = Console()
    for line in table(verdicts):
        console.print(line, highlight=False, soft_wrap=True)
    for line in _explanations(verdicts, full):
        console.print(line, highlight=False, soft_wrap=True)
    caught = sum(v.caught for v in verdicts)
    seconds = time.perf_counter() - begin
    console.print(f"{caught} of {len(verdicts)} planted bugs caught, in {seconds:.0f} s")
    if with_control:
        console.print("The unchanged port passes all of them.")
    if json_path is not None:
        write_whole(json_path, json.dumps(as_json(verdicts), indent=1).encode())
    return 0 if caught == len(verdicts) else 1
