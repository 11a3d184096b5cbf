"""Every public name of the original has a case that executed it, or an exemption with its test."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from parity import coverage, evidence
from parity.__main__ import main
from parity.cases import COMMIT, all_cases
from parity.counterparts import EXEMPT, counterpart, exemption
from parity.evidence import gathered, merged, read_coverage, write_coverage
from parity.original import public
from parity.original.observing import Observer
from parity.store import REFERENCE, RecordError

ROOT = Path(__file__).resolve().parents[2]
RECORDED = read_coverage()
NAMES: evidence.Names = RECORDED["names"]


@pytest.mark.parametrize("name", NAMES)
def test_name_is_covered(name: str) -> None:
    row = coverage.row(name, NAMES[name]["cases"], {})
    assert row.state in ("covered", "exempt"), f"{row.state} {row.note}"


def test_record_is_of_this_revision_and_its_cases_exist() -> None:
    assert RECORDED["commit"] == COMMIT
    ids = {case.id for case in all_cases()}
    assert {case for entry in NAMES.values() for case in entry["cases"]} <= ids


def test_all_modules_of_the_original_are_recorded() -> None:
    modules = {name.rpartition(".")[0] for name, e in NAMES.items() if e["sort"] == "class"}
    assert {module.split(".")[1] for module in modules if module.startswith("jaxrl5.")} == {
        *("agents", "data", "distributions", "networks", "normalization", "wrappers")
    }
    assert {n.rpartition(".")[2] for n in NAMES if n.startswith("jax.random.")} == {
        *("PRNGKey", "choice", "normal", "randint", "split")
    }
    assert len(NAMES) == 200


def test_exempt_names_are_few_and_their_tests_exist() -> None:
    exempt = [name for name in NAMES if exemption(name)]
    outside = [name for name in exempt if not name.startswith("jaxrl5.wrappers.")]
    assert len(outside) <= 20
    for pattern, entry in EXEMPT.items():
        assert any(exemption(name) is entry for name in NAMES), f"{pattern} exempts nothing"
        file, _, function = entry.test.partition("::")
        tests = ast.parse((ROOT / file).read_text()).body
        assert function in {t.name for t in tests if isinstance(t, ast.FunctionDef)}, entry.test


def test_no_name_is_both_covered_and_exempt() -> None:
    # A name that a case executed needs no exemption. (A base class runs as its subclasses.)
    both = [name for name in NAMES if exemption(name) and NAMES[name]["cases"]]
    assert both == []


def test_state_of_a_name_is_that_of_its_cases_and_counterpart() -> None:
    name = "jaxrl5.networks.mlp.MLP"
    assert coverage.row(name, [], {}).state == "no case"
    assert coverage.row("jaxrl5.networks.mlp.NewThing", ["a/b"], {}).state == "no counterpart"
    row = coverage.row(name, ["network/mlp", "init/mlp"], {"network/mlp": False})
    assert (row.state, row.note) == ("fails", "network/mlp")
    assert coverage.row(name, ["network/mlp"], {"network/mlp": True}).state == "covered"


def test_every_counterpart_is_in_the_port() -> None:
    places = {counterpart(name) for name in NAMES} - {None}
    assert all(place and place.startswith("idql_func.") for place in places)
    assert coverage.resolve("idql_func.networks.MLP.forward").__name__ == "forward"
    with pytest.raises(AttributeError):
        coverage.resolve("idql_func.networks.NewThing")


def test_few_cases_cover_all_names() -> None:
    chosen = coverage.fewest(NAMES)
    assert len(chosen) <= 40
    for name, entry in NAMES.items():
        assert not entry["cases"] or set(entry["cases"]) & set(chosen), name


def test_recording_some_groups_keeps_the_others() -> None:
    sorts = {"f": "function", "g": "function"}
    old = gathered(sorts, {"a/1": {"f", "g"}, "b/1": {"f"}, "gone/1": {"f"}})
    new = gathered(sorts, {"a/2": {"f"}, "c/1": {"g"}})
    both = merged(old, new, ["c", "a", "b"], rerecorded=["a", "c"])
    assert {name: entry["cases"] for name, entry in both.items()} == {
        "f": ["a/2", "b/1"],
        "g": ["c/1"],
    }


def test_file_round_trips_and_damage_raises(tmp_path: Path) -> None:
    names: dict[str, dict[str, Any]] = {"f": {"sort": "function", "cases": ["a/1"]}}
    write_coverage(tmp_path, "1234", names)
    assert read_coverage(tmp_path) == {"commit": "1234", "names": names}
    (tmp_path / evidence.COVERAGE).write_text("{")
    with pytest.raises(RecordError, match="is not valid JSON"):
        read_coverage(tmp_path)
    with pytest.raises(RecordError, match="does not exist"):
        read_coverage(tmp_path / "nowhere")


def _package(folder: Path) -> Path:
    module = folder / "jaxrl5" / "parts.py"
    module.parent.mkdir(parents=True)
    (module.parent / "__init__.py").touch()
    module.write_text(
        "import functools, json\n"
        "def used(x): return _inner(x)\n"
        "def _inner(x): return x\n"
        "def unused(): ...\n"
        "class Net:\n"
        "    def __init__(self, tanh=False): self.tanh = tanh\n"
        "    def __call__(self, x): return used(x)\n"
        "    def other(self): ...\n"
        "TanhNet = functools.partial(Net, tanh=True)\n"
        "write = json.dumps\n"
        "def say(x): return write(x)\n"
    )
    for other in ("duplicate", "late"):
        (module.parent / f"{other}.py").write_text(module.read_text())
    return folder


def test_observer_records_only_executed_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(_package(tmp_path)))
    names = public.public_names(tmp_path)
    assert names["jaxrl5.parts.TanhNet"] == names["jaxrl5.parts.write"] == "value"
    from jaxrl5 import duplicate, parts  # pyright: ignore[reportMissingImports]

    observer = Observer(tmp_path, names)
    parts.unused()
    with observer.watching() as first:
        parts.Net()(1)
    with observer.watching() as second:
        parts.TanhNet()(1)
        parts.say({})
    net = {f"jaxrl5.parts.{name}" for name in ("Net", "Net.__init__", "Net.__call__", "used")}
    assert first == net
    called = {f"jaxrl5.parts.{name}" for name in ("TanhNet", "say", "write")}
    assert second == net | called | {"jaxrl5.duplicate.write"}  # one function under two names
    with observer.watching() as third:  # the same code on the same lines, of another module
        duplicate.say({})
    assert third == {"jaxrl5.duplicate.say", "jaxrl5.duplicate.write", "jaxrl5.parts.write"}
    with observer.watching() as fourth:
        from jaxrl5 import late  # pyright: ignore[reportMissingImports]  # noqa: F401
    assert fourth == set()
    json.dumps({})  # not recorded: a call outside of the observed package


def test_folder_without_the_package_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no jaxrl5 package"):
        public.public_names(tmp_path)


def test_command_reports_coverage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coverage, "_run", lambda directory, ids: dict.fromkeys(ids, True))
    assert coverage.coverage_command(REFERENCE) == 0
    printed = capsys.readouterr().out
    assert f"of {len(NAMES)} names covered" in printed and "0 not" in printed
    bare = {"jaxrl5.networks.mlp.MLP": {"sort": "class", "cases": []}}
    write_coverage(tmp_path, COMMIT, bare)
    assert coverage.coverage_command(tmp_path) == 1
    assert "no case jaxrl5.networks.mlp.MLP" in capsys.readouterr().out


@pytest.mark.slow
def test_port_passes_a_case_of_every_name() -> None:
    rows = coverage.coverage(REFERENCE)
    assert [r for r in rows if r.state not in ("covered", "exempt")] == []


@pytest.mark.live
def test_names_equal_those_of_the_checkout() -> None:
    upstream = os.environ.get("IDQL_UPSTREAM")
    assert upstream, "set IDQL_UPSTREAM"
    found = public.public_names(Path(upstream))
    assert {name: entry["sort"] for name, entry in NAMES.items()} == found


README = ROOT / "parity" / "README.md"


def test_module_table_of_the_readme_is_up_to_date() -> None:
    table = coverage.module_table(NAMES)
    text = README.read_text(encoding="utf-8")
    assert coverage.with_module_table(text, table) == text, (
        "run `python -m parity coverage --table parity/README.md`"
    )


def test_module_table_counts_every_name_and_names_tests_that_exist() -> None:
    rows = coverage.module_table(NAMES).splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert sum(int(count or 0) for _, count, _, _ in cells) == len(NAMES)
    for _, _, modules, tests in cells:
        assert modules and tests
        for module in re.findall(r"`(.+?)`", modules):
            importlib.import_module(f"idql_func.{module}")
        for path in re.findall(r"`(tests/.+?)`", tests):
            assert (ROOT / path).exists(), path


def test_module_table_is_printed_or_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["coverage", "--table"]) == 0
    printed = capsys.readouterr().out.rstrip("\n")
    assert printed.startswith("| original |") and "| `networks.state_value` | 2 |" in printed
    page = tmp_path / "page.md"
    page.write_text(f"before\n{coverage.BEGIN}\n{coverage.END}\nafter\n")
    assert main(["coverage", "--table", str(page)]) == 0
    expected = f"before\n{coverage.BEGIN}\n{printed}\n{coverage.END}\nafter\n"
    assert page.read_text() == expected
    page.write_text("no markers")
    assert main(["coverage", "--table", str(page)]) == 2
    assert "must hold the lines" in capsys.readouterr().err
