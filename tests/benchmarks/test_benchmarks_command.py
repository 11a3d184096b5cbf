"""The command: a small run, the exit status of a comparison, and messages for bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import command, processes
from benchmarks.__main__ import main
from benchmarks.case import Effort, Plan
from benchmarks.jax_side.variants import SCANNED
from benchmarks.plots import figure_of
from benchmarks.results import Result, Run, read_run, write_run
from benchmarks.roofline import Limits
from benchmarks.runner import measure_case, run
from benchmarks.tables import label, own_best, summary
from benchmarks.timing import Budget, Variant
from benchmarks.workloads import NAMES, learners, load
from idql_func import disable_jit
from idql_func.types import InputError

SHORT = Budget(rounds=2, block_seconds=1e-3, pause=0.0, warm_up=1)


@pytest.fixture
def eager_mode() -> Iterator[None]:
    """Disable the compiler, because only the measurement is tested."""
    with disable_jit():
        yield


@pytest.mark.parametrize(("more", "processes"), [([], "own"), (["--one-process"], "one")])
@pytest.mark.usefixtures("eager_mode")
def test_quick_run_writes_and_prints_its_results(
    more: list[str],
    processes: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.runner.BUDGETS", {"quick": SHORT})
    out = tmp_path / "run.json"
    arguments = ["--quick", "--tiny", "--only", "random", "--no-jax", "--json", str(out)]
    assert main([*arguments, "--threads", "1", *more]) == 0
    written = read_run(out)
    found = {(r.settings["draw"], r.variant) for r in written.results}
    assert found == {(d, v) for d in ("normal", "dropout") for v in ("eager", "compiled")}
    for r in written.results:
        assert r.rate > 0 and r.unit == "numbers/s" and r.baseline == "eager"
        assert len(r.rates) == 2 and r.spread["rate"][0] <= r.rate <= r.spread["rate"][1]
        assert r.ratio_to_jax is None and r.share_of_limit is None
    assert all(r.ratio_to_eager == 1.0 for r in written.results if r.variant == "eager")
    assert written.environment["processes"] == processes
    assert written.environment["threads"] == 1 and written.environment["versions"]["torch"]
    assert written.limits["matmul_gflops"] > 0 and written.limits["copy_gb_s"] > 0
    assert written.left_out == ("The variants on JAX are left out (--no-jax).",)
    shown = capsys.readouterr().out
    assert "left out (--no-jax)" in shown and "numbers/s" in shown and "random normal" in shown


def test_compare_exits_with_1_if_slower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = Result("act", "compiled", {"num_envs": 1}, 100.0, "actions/s")
    limits = {"matmul_gflops": 200.0}
    old = write_run(Run({}, limits, (result,)), tmp_path / "old.json")
    new = write_run(Run({}, limits, (replace(result, rate=50.0),)), tmp_path / "new.json")
    assert main(["compare", str(old), str(new)]) == 1
    assert "something regressed" in capsys.readouterr().out
    assert main(["compare", str(new), str(old)]) == 0
    assert "no regression" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "walk"], "no workload is called 'walk'; there are update, act"),
        (["--quick", "--full"], "--quick and --full exclude each other"),
        (["--threads", "0"], "--threads must be from 1 to"),
        (["--device", "abacus"], "device is 'abacus'"),
        (["--upstream", "/nowhere"], "/nowhere is not a checkout of the original"),
        (["--json", "/"], "/ is a folder; name a file to write"),
        (["compare", "/nowhere/a.json", "/nowhere/b.json"], "there is no file /nowhere/a.json"),
    ],
)
def test_bad_input_gives_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""


@pytest.mark.parametrize("arguments", [["--fast"], ["--matmul", "quick"], ["compare", "a"]])
def test_unknown_options_end_with_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_missing_jax_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.jax_side.variants.NEEDED", ("jax_that_is_not_there",))
    from benchmarks.machine import jax_problem

    assert "jax_that_is_not_there" in str(jax_problem())


@pytest.mark.parametrize("name", [n for n in NAMES if n != "compile"])
@pytest.mark.parametrize("effort", ["quick", "usual", "full"])
def test_cases_have_distinct_labels_and_variants(name: str, effort: str) -> None:
    cases = load(name).cases(Plan(effort))  # type: ignore[arg-type]
    assert cases
    labels = [label(name, case.settings_dict()) for case in cases]
    assert len(set(labels)) == len(labels)
    for case in cases:
        names = [variant.name for variant in case.variants]
        assert len(set(names)) == len(names)
        assert case.workload == name and json.dumps(case.settings_dict())


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("compile", "learners", "pixels")])
@pytest.mark.usefixtures("eager_mode")
def test_each_variant_of_a_case_gives_a_result(name: str) -> None:
    limits = Limits((16, 16, 16), 1.0, 1.0, {})
    notes: list[str] = []
    case = load(name).cases(Plan("quick", tiny=True))[-1]
    results, rates = measure_case(case, SHORT, limits, Plan(tiny=True), note=notes.append)
    assert not notes
    assert [r.variant for r in results] == [v.name for v in case.variants]
    assert len(rates) == (SHORT.rounds if case.flops else 0)
    for r in results:
        assert r.rate > 0 and (r.share_of_limit is None) == (case.flops is None)


@pytest.mark.parametrize("name", learners.IN_ONE_PROGRAM)
@pytest.mark.usefixtures("eager_mode")
def test_scanned_updates_equal_single_calls(name: learners.LearnerName) -> None:
    settings = learners.Settings(name, batch=4, hidden=8, inputs=3)
    plan = Plan("usual", tiny=True)
    names = [v.name for case in learners.cases(plan) for v in case.variants]
    assert names.count("scanned") == len(learners.IN_ONE_PROGRAM)
    scanned = learners.scanned(settings, plan)
    losses = scanned.make()(0)
    learner, batches = learners.create(settings), learners.batches(settings)
    assert scanned.units == SCANNED == len(next(iter(losses.values())))
    for k in range(SCANNED):
        learner, info = learner.update(batches[k % 3], **learners.keywords_of_update(settings))
        assert set(info) == set(losses)
        for entry, value in info.items():
            assert torch.equal(losses[entry][k], value)


@pytest.mark.usefixtures("eager_mode")
def test_failing_variant_is_named_and_the_others_are_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workload = load("random")
    [case, *_] = workload.cases(Plan("quick", tiny=True))

    def broken() -> None:
        raise RuntimeError("this route\nis closed")

    variants = (case.variants[0], Variant("closed", broken, print))  # type: ignore[arg-type]
    monkeypatch.setattr(workload, "cases", lambda plan: [replace(case, variants=variants)])
    report = run(Plan("quick", tiny=True), ["random"], threads=1, memory=False, budget=SHORT)
    assert [r.variant for r in report.results] == ["eager"]
    [note] = report.left_out
    assert note.endswith("closed: RuntimeError: this route is closed")


@pytest.mark.usefixtures("eager_mode")
def test_memory_is_measured_where_a_case_sets_it_and_always_in_a_full_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = []
    monkeypatch.setattr(
        processes, "memory", lambda task: measured.append(task["variant"]) or {"peak": 7.0}
    )
    workload = load("random")
    first = workload.cases(Plan("quick", tiny=True))[0]

    def memory_of(effort: Effort, memory: bool) -> tuple[list[str], set[float | None]]:
        measured.clear()
        monkeypatch.setattr(workload, "cases", lambda plan: [replace(first, memory=memory)])
        report = run(Plan(effort, tiny=True), ["random"], threads=1, budget=SHORT)
        return sorted(measured), {r.peak_memory_mb for r in report.results}

    assert memory_of("usual", False) == ([], {None})
    [best], figures = memory_of("usual", True)
    assert best in ("compiled", "eager") and figures == {7.0, None}
    assert memory_of("full", False) == (["compiled", "eager"], {7.0})


def test_summary_names_the_best_float32_variant() -> None:
    def result(variant: str, rate: float, **more: float) -> Result:
        return Result("act", variant, {"num_envs": 1}, rate, "actions/s", **more)  # type: ignore[arg-type]

    jax, bf16 = result("jax", 90.0), result("bf16", 300.0)
    own = result("compiled", 180.0, ratio_to_jax=2.0, share_of_limit=0.75)
    best = own_best([jax, bf16, own, result("eager", 50.0)])
    assert best is own
    [sentence] = summary(Run({}, {}, (jax, bf16, own)))
    assert sentence == (
        "act num_envs=1: 180 actions/s (compiled), 2.00 times JAX (2.00 to 2.00), "
        "75% of the matmul limit"
    )


def test_plots_have_a_panel_for_each_kind_of_result() -> None:
    def result(workload: str, variant: str, settings: dict, rate: float = 2.0) -> Result:
        ratio = {"ratio_to_jax": rate, "share_of_limit": 0.5, "peak_memory_mb": 100.0}
        ratio |= {"ratio_to_eager": rate} if workload == "seeds" else {}
        unit = "s" if workload == "compile" else "updates/s"
        return Result(workload, variant, settings, rate, unit, **ratio)  # type: ignore[arg-type]

    results = [
        result("update", v, {"batch": b, "hidden": h}, rate)
        for b in (256, 512)
        for h in (256, 512)
        for v, rate in (("donated", 2.0), ("jax", 1.0))
    ]
    results += [result("seeds", "compiled", {"seeds": n}) for n in (1, 4)]
    results += [result("compile", "compiled", {"learner": "idql", "cache": "cold"})]
    figure = figure_of(Run({"cpu": "x", "threads": 2}, {}, tuple(results)))
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == 6 and "update: over batch and width of the layers" in titles
    default = [r for r in results if r.settings.get("batch") == 512][:1]
    assert len(figure_of(Run({}, {}, tuple(default))).axes) == 2  # ratio and share
    with pytest.raises(InputError, match="no result"):
        figure_of(Run({}, {}, ()))


def test_peak_memory_of_a_child_process_is_ordered() -> None:
    task = {
        "plan": {"effort": "quick", "tiny": True, "device": "cpu"},
        "workload": "random",
        "case": 0,
        "variant": "eager",
        "settings": {},
        "threads": 1,
        "matmul": "strict",
    }
    found = processes.memory(task)
    assert 20 < found["imports"] < found["peak"] <= found["with_compiling"]


def test_failing_child_reports_its_error() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'threads'"):
        processes.first_update({"variant": "jax"}, {})


def test_only_option_keeps_the_order_of_a_run() -> None:
    assert command.chosen("seeds, update") == ["update", "seeds"]
    assert command.chosen(None) == list(NAMES)
