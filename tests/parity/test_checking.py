"""The port against the record: one test for each recorded case, eager; a few compiled."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from parity.cases import Case, all_cases
from parity.checking import check, check_command, recorded
from parity.compare import Tensors, run_case
from parity.modes import Mode
from parity.store import REFERENCE, RecordError, read_cases, read_group, read_manifest
from parity.tables import failures
from parity.torch_backend import TorchBackend

CASES = all_cases()
COMPILED = (
    "random/normal-older-32",
    "update/simple-dropout",
    "actions/implicit-expectile",
    "td3/every_step",
    "pixel_bc/plain",
)


@functools.cache
def _group(group: str) -> dict[str, Tensors]:
    return dict(read_group(group, read_manifest()))


def _hold(case: Case, mode: Mode) -> None:
    result = run_case(TorchBackend(mode), case, _group(case.group)[case.name])
    assert result.passed, "\n".join(failures([result]))


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
@pytest.mark.filterwarnings("ignore:beta_schedule='linear'")
def test_port_is_within_the_promises(case: Case) -> None:
    _hold(case, "eager")


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_port_is_within_the_promises(name: str) -> None:
    _hold(next(case for case in CASES if case.id == name), "compiled")


def test_manifest_lists_the_cases_of_the_code_and_says_where_they_come_from() -> None:
    manifest = read_manifest()
    assert read_cases(manifest) == CASES
    assert len(CASES) >= 400
    assert len({case.id for case in CASES}) == len(CASES)
    assert manifest["upstream"]["commit"].startswith("7582571")
    assert {"jax", "jaxlib", "flax", "optax", "numpy", "python"} <= set(manifest["versions"])
    assert {"XLA_FLAGS", "jax_enable_x64", "jax_threefry_partitionable"} <= set(
        manifest["settings"]
    )
    assert set(manifest["files"]) == {case.group for case in CASES}


def test_record_is_small() -> None:
    assert sum(path.stat().st_size for path in REFERENCE.iterdir()) < 10e6


def test_a_port_that_is_wrong_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from idql_func import losses

    right = losses.expectile_loss
    monkeypatch.setattr(
        losses, "expectile_loss", lambda diff, *a, **k: right(diff, *a, **k) * 1.00001
    )
    case = next(c for c in CASES if c.id == "losses/expectile-0.7")
    result = run_case(TorchBackend(), case, _group("losses")[case.name])
    assert not result.passed
    first = result.first_failure
    assert first is not None
    assert first.error == pytest.approx(1e-5, rel=0.1)
    assert "bound 2.0e-06" in failures([result])[0] or "bound 1.0e-05" in failures([result])[0]


def test_a_case_that_crashes_fails_and_says_where() -> None:
    case = next(c for c in CASES if c.group == "losses")
    broken = dataclasses.replace(case, settings={"loss": "no_such_loss", "args": {}})
    result = run_case(TorchBackend(), broken, {"value": np.zeros(1, np.float32)})
    assert not result.passed
    assert "no_such_loss" in result.crash


def test_a_damaged_record_is_named(tmp_path) -> None:
    with pytest.raises(RecordError, match="does not exist"):
        read_manifest(tmp_path)
    manifest = read_manifest()
    (tmp_path / "manifest.json").write_bytes((REFERENCE / "manifest.json").read_bytes())
    with pytest.raises(RecordError, match="the manifest lists it"):
        read_group("losses", manifest, tmp_path)
    whole = (REFERENCE / "losses.safetensors").read_bytes()
    (tmp_path / "losses.safetensors").write_bytes(whole[:-1])
    with pytest.raises(RecordError, match="SHA-256"):
        read_group("losses", manifest, tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RecordError, match="no JSON"):
        read_manifest(tmp_path)


def test_unknown_group_is_refused() -> None:
    with pytest.raises(RecordError, match="no case begins with 'nothing'"):
        list(recorded(only="nothing"))


def test_several_processes_find_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.checking.FEW", 0)
    alone, together = (check(only="optim/ema", jobs=jobs) for jobs in (1, 2))
    assert [r.case.id for r in together] == ["optim/ema-32", "optim/ema-64"]
    assert together == alone


def test_command_writes_every_figure(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    path = tmp_path / "figures.json"
    assert check_command(REFERENCE, "losses", path) == 0
    figures = json.loads(path.read_text())
    assert figures["passed"] == figures["cases"] == 15
    assert figures["promises"]["forward"]["bound"] == 2e-6
    assert "15 of 15 cases within bounds" in capsys.readouterr().out
