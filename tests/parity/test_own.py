"""A user's functions: recorded by ``parity.record``, compared by ``parity.check``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import parity
from parity import inputs
from parity.bounds import KINDS, promised
from parity.cases import Case
from parity.store import RecordError, read_cases, read_manifest

KINDS_OF_CELL = {"hidden": "forward", "loss": "relative 1e-6", "grads": "gradient"}


def _cell(name: str = "small", batch: int = 3, **changes: Any) -> Case:
    shapes = {"Dense_0/kernel": (4, 5), "Dense_0/bias": (5,)}
    arrays = {
        "params": inputs.parameters("cell", shapes),
        "x": inputs.uniform("cell/x", (batch, 4)).astype(np.float32),
    }
    settings = {"scale": 0.5, "batch": batch}
    case = Case("cell", name, settings=settings, kinds=KINDS_OF_CELL, arrays=arrays)
    return dataclasses.replace(case, **changes)


def _reference(case: Case) -> dict[str, Any]:
    """``scale * mean(tanh(x W + b)²)`` and its gradient, written out in NumPy."""
    params, x = case.arrays["params"]["Dense_0"], case.arrays["x"]
    assert isinstance(x, np.ndarray)
    hidden = np.tanh(x @ params["kernel"] + params["bias"])
    loss = case.settings["scale"] * np.mean(hidden**2)
    inner = 2 * case.settings["scale"] * hidden * (1 - hidden**2) / np.float32(hidden.size)
    grads = {"kernel": x.T @ inner, "bias": inner.sum(0)}
    return {"hidden": hidden, "loss": np.float32(loss), "grads": {"Dense_0": grads}}


def _port(case: Case, activation: Any = torch.tanh) -> dict[str, Any]:
    params = {k: torch.from_numpy(v) for k, v in case.arrays["params"]["Dense_0"].items()}
    x = torch.from_numpy(case.arrays["x"])

    def run(params: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = activation(x @ params["kernel"] + params["bias"])
        return case.settings["scale"] * hidden.square().mean(), hidden

    grads, (loss, hidden) = torch.func.grad_and_value(run, has_aux=True)(params)
    hidden.requires_grad_()  # outputs may carry a gradient
    return {"hidden": hidden, "loss": loss, "grads": {"Dense_0": grads}}


def _wrong(case: Case) -> dict[str, Any]:
    return _port(case, torch.sin)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    parity.record([_cell(), _cell("large", 64)], _reference, tmp_path / "record")
    return tmp_path / "record"


def test_correct_port_passes_and_prints_the_table(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = parity.check(_port, folder)
    assert found
    assert [r.case.id for r in found.results] == ["cell/small", "cell/large"]
    small = found.results[0].findings
    assert [f.tensor for f in small] == [
        *("hidden", "loss"),
        *("grads/Dense_0/bias", "grads/Dense_0/kernel"),
    ]
    assert [f.kind for f in small[:3]] == ["forward", "relative 1e-6", "gradient"]
    assert (small[1].bound, small[2].bound) == (1e-6, KINDS["gradient"].bound)
    assert max(f.relative for f in small) < 1e-6
    out = capsys.readouterr().out
    assert "_port against the record in record" in out
    assert "relative 1e-6" in out and "2 of 2 cases within bounds (8 tensors)" in out


def test_wrong_port_fails_at_the_first_computed_tensor(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = parity.check(_wrong, folder, only="cell/small")
    assert not found and not found.passed
    first = found.results[0].first_failure
    assert first is not None and first.tensor == "hidden"
    case, expected = _cell(), _reference(_cell())["hidden"]
    distance = np.abs(_wrong(case)["hidden"].detach().numpy() - expected)
    place = list(map(int, np.unravel_index(distance.argmax(), distance.shape)))
    assert first.error == pytest.approx(distance.max() / np.abs(expected).max())
    out = capsys.readouterr().out
    assert "FAIL cell/small: 4 of 4 tensors out of bounds; first hidden (forward): " in out
    assert f"{first.error:.1e} relative, bound 2.0e-06; worst at {place}: " in out
    assert "0 of 1 cases within bounds" in out


def test_figures_are_written_on_request(folder: Path, tmp_path: Path, capsys) -> None:
    figures, suites = tmp_path / "figures.json", tmp_path / "suites.xml"
    assert not parity.check(_wrong, folder, show=False, json_path=figures, junit_path=str(suites))
    assert capsys.readouterr().out == ""
    written = json.loads(figures.read_text())
    assert (written["cases"], written["passed"]) == (2, 0)
    assert written["promises"]["relative 1e-6"] == {"bound": 1e-6, "unit": "relative"}
    assert written["reference"]["function"] == "_reference"
    assert written["reference"]["versions"]["numpy"] == np.__version__
    suite = ElementTree.parse(suites).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "2", "0")
    messages = [failure.get("message", "") for failure in suite.iter("failure")]
    assert messages[1].startswith("cell/large: 4 of 4 tensors out of bounds; first hidden")


def test_record_has_its_origin_and_is_reproducible(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest["upstream"] == {"function": "_reference"}
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["inputs"]["sha256"] == inputs.fingerprint()
    assert read_cases(manifest) == [_cell(), _cell("large", 64)]
    assert manifest["files"]["cell"]["sha256"] == _sha256(folder / "cell.safetensors")
    source = {"repository": "someone/cell", "commit": "0123456"}
    again = parity.record([_cell(), _cell("large", 64)], _reference, tmp_path / "2", source)
    assert again["upstream"] == {"function": "_reference", **source}
    assert again["files"] == manifest["files"]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_numbers_and_nested_names_are_accepted_as_outputs(tmp_path: Path) -> None:
    kinds = {"count": "bits", "mean": "bits", "tree": "ulp 0", "half": "relative 1e-3"}
    case = Case("g", "n/m", kinds=kinds)

    def reference(case: Case) -> dict[str, Any]:
        half = np.ones(2, np.float16)
        return {"count": 3, "mean": 0.5, "tree": {"a": {"b": np.arange(3.0)}}, "half": half}

    def port(case: Case) -> dict[str, Any]:
        deep = torch.arange(3.0, dtype=torch.float64)
        half = torch.ones(2, dtype=torch.float16)
        return {"count": torch.tensor(3), "mean": 0.5, "tree": {"a/b": deep}, "half": half}

    parity.record([case], reference, tmp_path)
    found = parity.check(port, str(tmp_path), [case])
    assert found, found.results
    assert [f.tensor for f in found.results[0].findings] == ["count", "mean", "tree/a/b", "half"]


def test_exception_or_invalid_output_fails_only_its_case(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising(case: Case) -> dict[str, Any]:
        if case.name == "large":
            raise RuntimeError("no memory\nat all")
        return _port(case)

    found = parity.check(raising, folder)
    assert [r.passed for r in found.results] == [True, False]
    assert found.results[1].crash.startswith("RuntimeError at test_own.py:")
    assert found.results[1].crash.endswith("no memory")
    assert "(did not run)" in capsys.readouterr().out
    crash = parity.check(lambda case: [1.0], folder).results[0].crash  # pyright: ignore
    assert crash.endswith("the outputs of cell/small are a list: give a dict of named arrays")


def test_group_may_have_the_name_of_a_recorded_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case("update", "n", kinds={"out": "bits"})
    parity.record([case], lambda case: {"out": 1}, tmp_path)
    assert parity.check(lambda case: {"out": torch.tensor(1)}, tmp_path)
    out = capsys.readouterr().out
    assert "update, eager" in out and "ddpm_iql" not in out


def test_missing_extra_and_different_outputs_fail(folder: Path) -> None:
    def other(case: Case) -> dict[str, Any]:
        out = _port(case)
        return {"hidden": out["hidden"].double(), "loss": out["loss"][None], "more": 1.0}

    findings = {
        f.tensor: f for f in parity.check(other, folder, only="cell/small").results[0].findings
    }
    assert not any(f.passed for f in findings.values())
    assert findings["hidden"].detail == "type float64, reference float32"
    assert findings["loss"].detail == "shape (1,), reference ()"
    assert findings["more"].detail == "not in the reference"
    assert findings["grads/Dense_0/bias"].detail == "missing from the port's outputs"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kinds": {"out": "forwrd"}}, "case cell/small, output 'out': unknown promise 'forwrd'"),
        ({"kinds": {"out": "relative"}}, "unknown promise 'relative': give one of bits, normal"),
        ({"kinds": {"out": "relative -1"}}, "unknown promise 'relative -1'"),
        ({"kinds": {"out": "relative nan"}}, "unknown promise"),
        ({"kinds": {"out": {"measure": "l2"}}}, "unknown promise"),
        ({"settings": {"a": 1, "b": (1, 2)}}, "setting 'b' is not JSON (tuple)"),
        ({"settings": {"x": np.ones(2)}}, "'x' is not JSON (ndarray): give numbers, strings"),
        ({"settings": {"x": float("nan")}}, "setting 'x' is not JSON (float)"),
        ({"settings": {"x": {1: 2}}}, "setting 'x' is not JSON (dict)"),
        ({"name": "a::b"}, "'a::b' is not a valid case name: give one without '::'"),
        ({"name": ""}, "'' is not a valid case name"),
        ({"group": "a/b"}, "the group 'a/b' of case 'small' is also the name of a file"),
    ],
)
def test_case_that_cannot_be_saved_raises_on_creation(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        _cell(**changes)
    assert message in str(error.value)


OUTPUTS: list[tuple[Any, str]] = [
    (np.ones(2), "the outputs of cell/small are a ndarray: give a dict of named arrays"),
    ({}, "the outputs of cell/small are empty: give at least one array"),
    ({"hidden": {}}, "the outputs of cell/small are empty"),
    ({"hidden": [1.0]}, "the outputs of cell/small: 'hidden' is a list: give an array"),
    ({"hidden": None}, "'hidden' is a NoneType"),
    ({"hidden": {"a::b": 1.0}}, "'hidden/a::b' holds '::'"),
    ({"hidden": {"a": 1.0}, "hidden/a": 1.0}, "two are named 'hidden/a'"),
    ({"hidden": "text"}, "'hidden' is of type str: give booleans, integers or floats"),
    ({"hidden": np.ones(1, complex)}, "'hidden' is of type complex128"),
    ({"hidden": torch.ones(1, dtype=torch.bfloat16)}, "'hidden' is of type torch.bfloat16"),
    ({"other/a": 1.0}, "output 'other/a' has no promise in kinds, which has hidden, loss, grads"),
]


@pytest.mark.parametrize("outputs, message", OUTPUTS, ids=[m for _, m in OUTPUTS])
def test_outputs_that_cannot_be_saved_raise_and_write_nothing(
    outputs: Any, message: str, tmp_path: Path
) -> None:
    first = _cell("first")
    with pytest.raises(ValueError) as error:
        parity.record(
            [first, _cell()], lambda c: _reference(c) if c == first else outputs, tmp_path
        )
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_no_cases_or_duplicate_names_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no cases to record"):
        parity.record([], _reference, tmp_path)
    with pytest.raises(ValueError, match="two cases are named cell/small"):
        parity.record([_cell(), _cell()], _reference, tmp_path)
    with pytest.raises(ValueError, match="the arrays of cell/small: 'x' is of type object"):
        parity.record([_cell(arrays={"x": np.array([{}])})], _reference, tmp_path)


def test_record_of_other_cases_raises(folder: Path) -> None:
    small, large = _cell(), _cell("large", 64)
    assert parity.check(_port, folder, [small, large], show=False)
    changed = {**small.arrays, "x": small.arrays["x"] + 1}
    for cases, difference in [
        ([small], "also has case cell/large"),
        ([small, large, _cell("more")], "lacks case cell/more"),
        ([_cell(settings={"scale": 2}), large], "has another case cell/small"),
        ([_cell(kinds={**KINDS_OF_CELL, "loss": "bits"}), large], "has another case cell/small"),
        ([_cell(arrays=changed), large], "has another case cell/small"),
    ]:
        with pytest.raises(RecordError, match=f"record {difference}: make the record again"):
            parity.check(_port, folder, cases)


def test_damaged_or_missing_record_raises(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="does not exist: make a record first"):
        parity.check(_port, tmp_path / "nothing")
    with pytest.raises(RecordError, match="no case begins with 'cells'; the groups are cell"):
        parity.check(_port, folder, only="cells")
    (folder / "cell.safetensors").write_bytes(b"")
    with pytest.raises(RecordError, match="SHA-256"):
        parity.check(_port, folder)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(RecordError, match="is not the manifest of a record: it lacks 'cases'"):
        parity.check(_port, folder)


def test_custom_bound_is_a_measure_and_a_number() -> None:
    kind = promised("l2 0.5")
    assert (kind.bound, kind.unit) == (0.5, "relative L2")
    assert kind.measure(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    assert promised("forward") is KINDS["forward"]
    assert not set(KINDS) & {"ulp", "absolute", "relative", "elementwise", "l2"}


PROBE = """
import json, os, sys
before = dict(os.environ)
import parity
none = [m for m in ("numpy", "torch", "rich", "jax") if m in sys.modules]
parity.Case, parity.record, parity.check, parity.inputs
half = [m for m in ("torch", "rich", "jax", "matplotlib") if m in sys.modules]
try:
    parity.nothing
except AttributeError as error:
    print(json.dumps([none, half, str(error), before == dict(os.environ)]))
"""


def test_import_loads_neither_framework_and_has_no_effect() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=Path(parity.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    message = "module 'parity' has no attribute 'nothing'"
    assert json.loads(result.stdout) == [[], [], message, True]
