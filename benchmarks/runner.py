"""Run the cases of the chosen workloads, one after the other, and collect one :class:`Run`."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import processes
from benchmarks.case import JAX, UPSTREAM, Case, Flops, Plan, is_external
from benchmarks.machine import environment
from benchmarks.remote import ChildProcess, RemoteVariant
from benchmarks.results import Result, Run
from benchmarks.roofline import LIMIT, SHAPES, Limits, Shape, matmul_variant, measure_limits
from benchmarks.tables import label, own_best
from benchmarks.timing import Budget, Measured, Spread, Timed, interleave, ratios, spread
from benchmarks.workloads import compile as compile_workload
from benchmarks.workloads import load
from idql_func.training.runtime.matmul_precision import matmul_precision

__all__ = ["BUDGETS", "measure_case", "run"]

BUDGETS = {
    "quick": Budget(rounds=5, block_seconds=0.15),
    "usual": Budget(rounds=7, block_seconds=0.4),
    "full": Budget(rounds=11, block_seconds=0.5),
}

_MODULES = {JAX: "benchmarks.jax_side.variants", UPSTREAM: "benchmarks.upstream"}
"""The origins of variants that run in child processes, and the modules that make them there."""

Note = Callable[[str], Any]
"""Called with one sentence about something that could not be measured."""


@dataclass(frozen=True)
class _Bars:
    """Progress bars of a run."""

    progress: Progress
    all_cases: Any
    this_case: Any

    def case(self, text: str, blocks: int) -> None:
        self.progress.update(self.this_case, description=text, total=blocks, completed=0)

    def block(self) -> None:
        self.progress.advance(self.this_case)

    def done(self) -> None:
        self.progress.advance(self.all_cases)


def run(
    plan: Plan,
    names: Sequence[str],
    *,
    threads: int,
    matmul: str = "auto",
    memory: bool = True,
    budget: Budget | None = None,
    console: Console | None = None,
    left_out: Sequence[str] = (),
) -> Run:
    """Measure the named workloads.

    A variant that fails is left out; ``left_out`` names it with its error, and the run continues.

    Args:
        plan: what to measure, and what is installed.
        names: workloads, of ``benchmarks.workloads.NAMES``.
        threads: the number that :func:`benchmarks.machine.use_threads` has set.
        matmul: the mode of matrix products, of ``matmul_precision``.
        memory: also run variants in separate processes to measure their memory: all of them
            in a full run, else the fastest and JAX's in cases with ``memory``.
        budget: rounds and length of blocks; default: the one of the plan's effort.
        console: shows the progress; default: nothing is shown.
        left_out: sentences about what is left out already.
    """
    budget = budget or BUDGETS[plan.effort]
    notes = list(left_out)
    results: list[Result] = []
    limit_rates: list[float] = []
    with matmul_precision(matmul, device=plan.device) as choice, _bars(console) as bars:
        bars.case("the machine's limits", 1)
        few = dataclasses.replace(budget, rounds=min(budget.rounds, 5), block_seconds=0.05)
        limits = measure_limits(plan.device, SHAPES[:1] if plan.tiny else SHAPES, few)
        timed_names = [name for name in names if name != "compile"]
        cases = [(k, case) for name in timed_names for k, case in enumerate(load(name).cases(plan))]
        bars.progress.update(bars.all_cases, total=len(cases) + ("compile" in names))
        for number, case in cases:
            found, rates = measure_case(case, budget, limits, plan, bars=bars, note=notes.append)
            limit_rates += rates
            if memory and (case.memory or plan.effort == "full"):
                found = _with_memory(found, case, number, plan, threads, matmul, bars, notes.append)
            results += found
            bars.done()
        if "compile" in names:
            bars.case("compile", 1)
            results += compile_workload.measure(
                plan,
                threads,
                lambda text: bars.case(f"compile: {text}", 1),
                lambda name, error: notes.append(_sentence("compile", name, error)),
            )
            bars.done()
    return Run(
        environment(
            plan.device,
            threads,
            choice.setting,
            matmul_mode=matmul,
            matmul_reason=choice.reason,
            effort=plan.effort,
            budget=dataclasses.asdict(budget),
            tiny=plan.tiny,
            processes="one" if plan.one_process else "own",
        ),
        _limits_dict(limits, limit_rates),
        tuple(results),
        tuple(notes),
    )


def measure_case(
    case: Case,
    budget: Budget,
    limits: Limits,
    plan: Plan,
    bars: _Bars | None = None,
    note: Note = lambda sentence: None,
) -> tuple[list[Result], list[float]]:
    """A case's results, and the rates of the matmul limit in its rounds (operations a second).

    This library's variants and the limit run in this process, JAX and the original each in a child
    process (unless ``plan.one_process``). The blocks of all of them alternate.
    """
    limit_names: list[str] = []
    variants: list[Measured] = list(case.variants)
    if case.flops is not None:
        shapes: list[Shape] = [limits.shape]
        if case.limit_shape not in (None, limits.shape):
            shapes.append(case.limit_shape)
        limit_names = [f"{LIMIT} {k}" for k in range(len(shapes))]
        variants += [
            matmul_variant(shape, plan.device, name)
            for shape, name in zip(shapes, limit_names, strict=True)
        ]
    if bars:
        bars.case(_title(case), len(variants) * (budget.rounds + 1))
    with contextlib.ExitStack() as stack:
        timed = interleave(
            variants if plan.one_process else _in_processes(variants, case, plan, stack),
            budget,
            wait_each=case.wait_each,
            on_progress=lambda name, done: bars.block() if bars else None,
            on_failure=lambda name, error: note(_sentence(_title(case), name, error)),
        )
    work: Flops | None = None
    if case.flops is not None:
        try:
            work = case.flops()
        except Exception as error:
            note(_sentence(_title(case), "counting its operations", error))
    gc.collect()
    by_name = {one.name: one for one in timed}
    limit = _best(limits, [by_name[name] for name in limit_names if name in by_name])
    results = [
        _result(case, one, by_name, work, limit) for one in timed if one.name not in limit_names
    ]
    return results, list(limit.rates) if limit else []


def _in_processes(
    variants: Sequence[Measured], case: Case, plan: Plan, stack: contextlib.ExitStack
) -> list[Measured]:
    """The variants, with those on JAX and of the original in child processes; the stack ends them.

    A child starts at its first request.
    """
    fields = case.settings_dict(), dataclasses.asdict(plan)
    children = {
        side: stack.enter_context(contextlib.closing(ChildProcess(module, case.workload, *fields)))
        for side, module in _MODULES.items()
    }

    def placed(one: Measured) -> Measured:
        if not is_external(one.name):
            return one
        return RemoteVariant(one.name, children[UPSTREAM if one.name == UPSTREAM else JAX])

    return [placed(one) for one in variants]


def _best(limits: Limits, timed: list[Timed]) -> Timed | None:
    """The limit of each round: the fastest product in it."""
    if not timed:
        return None
    rates = tuple(max(pair) for pair in zip(*(one.rates for one in timed), strict=True))
    return dataclasses.replace(timed[0], rates=rates)


def _result(
    case: Case, one: Timed, others: dict[str, Timed], work: Flops | None, limit: Timed | None
) -> Result:
    found: dict[str, Spread] = {"rate": spread(one.rates)}
    if JAX in others:
        found["ratio_to_jax"] = ratios(one, others[JAX])
    if case.baseline in others:
        found["ratio_to_eager"] = ratios(one, others[case.baseline])
    operations = None
    if work is not None:
        # JAX and the original do all of the algorithm's work
        operations = work.algorithm if is_external(one.name) else work.executed
        if limit is not None:
            share = ratios(one, limit)
            found["share_of_limit"] = Spread(
                *(operations * x for x in (share.median, share.low, share.high))
            )
    medians: dict[str, Any] = {name: figure.median for name, figure in found.items()}
    return Result(
        workload=case.workload,
        variant=one.name,
        settings=case.settings_dict(),
        unit=case.unit,
        **medians,
        spread={name: (figure.low, figure.high) for name, figure in found.items()},
        compile_seconds=one.first_call_seconds,
        baseline=case.baseline if case.baseline in others else None,
        gflops=None if operations is None else operations * medians["rate"] / 1e9,
        gflop_executed=None if operations is None else operations / 1e9,
        gflop_algorithm=None if work is None else work.algorithm / 1e9,
        calls=one.calls,
        rates=one.rates,
    )


def _with_memory(
    results: list[Result],
    case: Case,
    number: int,
    plan: Plan,
    threads: int,
    matmul: str,
    bars: _Bars,
    note: Note,
) -> list[Result]:
    bars.case(f"{_title(case)}: memory", len(results))
    measured = []
    best = own_best(results)
    few = {JAX} if best is None else {JAX, best.variant}
    for result in results:
        left_out = plan.effort != "full" and result.variant not in few
        if left_out or result.variant == UPSTREAM:  # the original needs this library's data
            measured.append(result)
            bars.block()
            continue
        task = {
            "plan": dataclasses.asdict(plan),
            "workload": case.workload,
            "case": number,
            "variant": result.variant,
            "settings": result.settings,
            "threads": threads,
            "matmul": matmul,
        }
        try:
            figures = processes.memory(task)
        except RuntimeError as error:
            note(_sentence(_title(case), f"memory of {result.variant}", error))
            measured.append(result)
            continue
        finally:
            bars.block()
        peak = figures.get("device_peak", figures["peak"])
        measured.append(dataclasses.replace(result, peak_memory_mb=peak, memory=figures))
    return measured


def _sentence(title: str, what: str, error: Exception) -> str:
    message = " ".join(str(error).split()) or "no message"
    return f"{title}, {what}: {type(error).__name__}: {message[:300]}"


def _title(case: Case) -> str:
    named = label(case.workload, case.settings_dict())
    return f"{case.workload} {named}".strip()


def _limits_dict(limits: Limits, rates: list[float]) -> dict[str, Any]:
    """The limits measured at the start, and the matmul limit measured during the workloads."""
    during = spread(rates) if rates else None
    return {
        "matmul_gflops": during.median / 1e9 if during else limits.matmul_gflops,
        "matmul_gflops_quartiles": [during.low / 1e9, during.high / 1e9] if during else None,
        "matmul_gflops_at_start": limits.matmul_gflops,
        "matmul_shape": list(limits.shape),
        "matmul_by_shape": limits.by_shape,
        "copy_gb_s": limits.copy_gb_s,
    }


@contextlib.contextmanager
def _bars(console: Console | None) -> Iterator[_Bars]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
    )
    quiet = console is None
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        all_cases = progress.add_task("cases", total=1)
        yield _Bars(progress, all_cases, progress.add_task("", total=1))
