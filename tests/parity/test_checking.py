"""The port equals the record: one test for each recorded case in eager mode; a few compiled.

``python -m parity check --mode all`` runs every case in all of its modes, as does ``-m slow`` here.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from rich.text import Text

from parity import tables
from parity.__main__ import main
from parity.cases import Case, all_cases, flow_cases
from parity.checking import Job, check, check_command, jobs_of, recorded, run_job
from parity.compare import Finding, Result, Tensors, run_case
from parity.modes import Mode, chosen, modes_of, seconds
from parity.original.originals import FQL, IDQL
from parity.port.backend import TorchBackend
from parity.store import REFERENCE, RecordError, read_cases, read_manifest, read_pairs
from parity.tables import failures

CASES = [*all_cases(), *flow_cases()]
COMPILED = (
    "random/randint-5-older-32",
    "update/simple-dropout",
    "td3/every_step",
)
COMPILED_SLOW = (
    *("actions/implicit-expectile", "pixel_bc/plain"),
    *("fql/normalized", "ifql/few", "rebrac/every_step"),
)


@functools.cache
def _group(group: str) -> dict[str, Tensors]:
    return {case.name: tensors for case, tensors in recorded(REFERENCE, group)}


def _check_case(case: Case, mode: Mode) -> None:
    result = run_job(Job(case, mode, "cpu", _group(case.group)[case.name]))
    assert result.mode == mode
    assert result.passed, "\n".join(failures([result]))


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_port_is_within_bounds(case: Case) -> None:
    _check_case(case, "eager")


@pytest.mark.parametrize(
    "name", [*COMPILED, *(pytest.param(name, marks=pytest.mark.slow) for name in COMPILED_SLOW)]
)
def test_compiled_port_is_within_bounds(name: str) -> None:
    _check_case(next(case for case in CASES if case.id == name), "compiled")


def _is_long(case: Case) -> bool:
    # without -m slow, of the long runs only the examples and single updates are run
    return not chosen(case, "compiled") and seconds(case, "vmapped") > 0.4


_VMAPPED = [
    pytest.param(case, id=case.id, marks=[pytest.mark.slow] if _is_long(case) else [])
    for case in CASES
    if "vmapped" in modes_of(case)
]


@pytest.mark.parametrize("case", _VMAPPED)
def test_vmapped_port_is_within_bounds(case: Case) -> None:
    _check_case(case, "vmapped")


def test_manifest_lists_all_cases_and_their_origin() -> None:
    assert len(CASES) >= 580
    assert len({case.id for case in CASES}) == len(CASES)
    for original, start in ((IDQL, "7582571"), (FQL, "719d044")):
        manifest, cases = read_manifest(REFERENCE / original.folder), original.cases()
        assert read_cases(manifest) == cases
        assert manifest["upstream"] == original.source
        assert original.commit.startswith(start)
        assert {"jax", "jaxlib", "flax", "optax", "numpy", "python"} <= set(manifest["versions"])
        assert {"XLA_FLAGS", "jax_enable_x64", "jax_threefry_partitionable"} <= set(
            manifest["settings"]
        )
        assert set(manifest["files"]) == {case.group for case in cases}


def test_record_is_small() -> None:
    assert sum(path.stat().st_size for path in REFERENCE.rglob("*")) < 12e6


def test_wrong_port_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from idql_func import losses

    correct = losses.expectile_loss
    monkeypatch.setattr(
        losses, "expectile_loss", lambda diff, *a, **k: correct(diff, *a, **k) * 1.00001
    )
    case = next(c for c in CASES if c.id == "losses/expectile-0.7")
    result = run_case(TorchBackend(), case, _group("losses")[case.name])
    assert not result.passed
    first = result.first_failure
    assert first is not None
    assert first.error == pytest.approx(1e-5, rel=0.1)
    assert "bound 2.0e-06" in failures([result])[0] or "bound 1.0e-05" in failures([result])[0]


def test_crashing_case_fails_with_its_location() -> None:
    case = next(c for c in CASES if c.group == "losses")
    broken = dataclasses.replace(case, settings={"loss": "no_such_loss", "args": {}})
    result = run_case(TorchBackend(), broken, {"value": np.zeros(1, np.float32)})
    assert not result.passed
    assert "no_such_loss" in result.crash


def test_damaged_record_raises(tmp_path) -> None:
    with pytest.raises(RecordError, match="does not exist"):
        read_manifest(tmp_path)
    manifest = read_manifest()
    (tmp_path / "manifest.json").write_bytes((REFERENCE / "manifest.json").read_bytes())
    with pytest.raises(RecordError, match="the manifest lists it"):
        list(read_pairs("losses", manifest, tmp_path))
    whole = (REFERENCE / "losses.safetensors").read_bytes()
    (tmp_path / "losses.safetensors").write_bytes(whole[:-1])
    with pytest.raises(RecordError, match="SHA-256"):
        list(read_pairs("losses", manifest, tmp_path))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RecordError, match="is not valid JSON"):
        read_manifest(tmp_path)


def test_unknown_group_raises() -> None:
    with pytest.raises(RecordError, match="no case begins with 'nothing'"):
        list(recorded(only="nothing"))
    with pytest.raises(RecordError, match="no case begins with 'nothing'"):
        list(recorded(only="random,nothing"))


def test_several_groups_are_separated_by_commas() -> None:
    def names(only: str) -> list[str]:
        return [case.id for case, _ in recorded(only=only)]

    assert set(names("optim, losses")) == {*names("optim"), *names("losses")}


def test_results_do_not_depend_on_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.checking.FEW", 0)
    single, together = (check(only="optim/ema", jobs=jobs) for jobs in (1, 2))
    assert [r.case.id for r in together] == ["optim/ema-32", "optim/ema-64"]
    assert together == single


def test_command_writes_every_figure(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    figures_path, junit_path = tmp_path / "figures.json", tmp_path / "junit.xml"
    options = {"mode": "all", "json_path": figures_path, "junit_path": junit_path}
    # in compiled mode, another case is the example for this one
    assert check_command(only="optim/ema-64", **options) == 0
    figures = json.loads(figures_path.read_text())
    assert figures["passed"] == figures["cases"] == 2
    assert [r["mode"] for r in figures["results"]] == ["eager", "vmapped"]
    assert set(figures["seconds"]) == {"eager", "vmapped"}
    assert figures["promises"]["forward"]["bound"] == 2e-6
    assert figures["environment"]["device"] == "cpu"
    assert figures["reference"]["commit"].startswith("7582571")
    suites = ElementTree.parse(junit_path).getroot()
    assert suites.attrib["tests"] == "2"
    assert [s.attrib["name"] for s in suites] == ["parity.optim.eager", "parity.optim.vmapped"]
    printed = capsys.readouterr().out
    assert "vmapped: 1 of 1 cases within bounds" in printed


def test_status_is_1_if_a_bound_is_exceeded(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("idql_func.losses.exp_w_clip", lambda x, x0, mode="zero": x * x0)
    path = tmp_path / "junit.xml"
    assert check_command(only="losses/exp_w_clip-zero", mode="vmapped", junit_path=path) == 1
    (case,) = ElementTree.parse(path).getroot().iter("testcase")
    (failure,) = case
    assert failure.tag == "failure"
    assert failure.attrib["message"].startswith("losses/exp_w_clip-zero (vmapped): 2 of 2 tensors")
    assert "FAIL losses/exp_w_clip-zero (vmapped): 2 of 2" in capsys.readouterr().out


def test_compiled_mode_runs_only_examples_unless_every_is_set() -> None:
    assert {job.mode for job in jobs_of(only="losses", modes=("compiled",))} == {"compiled"}
    assert len(jobs_of(only="losses", modes=("compiled",))) == 3
    losses = sum(case.group == "losses" for case in CASES)
    assert len(jobs_of(only="losses", modes=("compiled",), every=True)) == losses
    (one,) = jobs_of(case="losses/quantile-default", modes=("compiled",))
    assert one.case.id == "losses/quantile-default"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mode", "vmapped", "--only", "dataset"], "no case of 'dataset' runs vmapped"),
        (["--mode", "compiled", "--only", "sac/plain"], "--every runs the omitted cases"),
        (["--only", "losses/"], ""),
        (["--case", "losses/nothing"], "losses/nothing"),
        (["--device", "cuda:0", "--only", "losses"], "torch finds no CUDA device"),
        (["--device", "abacus", "--only", "losses"], "--device abacus: "),
    ],
    ids=["no-mode", "no-example", "fine", "no-case", "no-cuda", "no-device"],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda:0" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    status = main(["check", "--jobs", "1", *arguments])
    error = capsys.readouterr().err
    assert status == (2 if words else 0)
    assert words in error
    assert error.count("\n") == bool(words)


def test_unknown_mode_raises(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["check", "--mode", "jitted"])
    assert stop.value.code == 2
    assert "'jitted'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown mode 'jitted'; there are eager, compiled, "):
        check_command(mode="jitted")


def test_compiled_mode_raises_if_jit_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDQL_DISABLE_JIT", "1")
    with pytest.raises(RuntimeError, match="IDQL_DISABLE_JIT is set"):
        check(only="losses", modes=("compiled",))


def test_mode_that_runs_no_part_of_a_case_fails() -> None:
    case = next(c for c in CASES if c.id == "dataset/split")
    result = run_job(Job(case, "vmapped", "cpu", _group("dataset")["split"]))
    assert result.crash == "no function of the case ran vmapped"
    assert not result.passed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("group", ["random", "network", "losses", "optim", "update"])
def test_port_on_cuda_is_within_bounds(group: str) -> None:
    results = check(only=group, device="cuda")
    assert all(r.passed for r in results), "\n".join(failures(results))


@pytest.mark.parametrize("mode", ["eager", "compiled", "vmapped"])
def test_table_fits_80_columns_and_has_every_figure(mode: Mode) -> None:
    finding = Finding("out", "double_loss", 1.3e-9, 1e-8, 3.3e-7, 1.3e-9, 123456.0)
    wide = Case("augmentation", "a", "crops")
    results = [Result(wide, (finding,), mode=mode)]
    lines = tables.table(results, "title")
    assert max(len(Text.from_markup(line)) for line in lines) <= 80
    text = "\n".join(lines)
    assert f"agents.augmentations, {mode}" in text
    [row] = [line.split() for line in lines if "double_loss" in line]
    expected = ["1", "1", "3.3e-07", "1.3e-09", "123456", "1.3e-09", "1.0e-08", "rel", "ok"]
    assert row == ["double_loss", *expected]
