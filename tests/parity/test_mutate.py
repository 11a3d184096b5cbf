"""Planted bugs: each one applies to the port's source, and the verdicts on them are correct."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import idql_func
from idql_func.kernels.build import c_compiler
from parity import mutate
from parity.__main__ import main
from parity.cases import Case, all_cases
from parity.mutations import MUTATIONS, Mutation
from parity.store import read_manifest, write_manifest

PACKAGE = Path(idql_func.__file__ or "").parent
HARMLESS = Mutation(
    "harmless",
    "a product in the other order: not a bug",
    "losses.py",
    "return asymmetry(diff, expectile) * diff**2",
    "return diff**2 * asymmetry(diff, expectile)",
)

LOSSES = sum(case.group == "losses" for case in all_cases())
"""The number of cases of the record that the tests use."""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The part of the record that holds the losses, so that a whole run takes a second."""
    manifest = read_manifest()
    listed = manifest["files"]["losses"]
    cases = [case for case in manifest["cases"] if case["group"] == "losses"]
    folder = tmp_path / "reference"
    folder.mkdir()
    write_manifest(folder, {**manifest, "files": {"losses": listed}, "cases": cases})
    source = Path(mutate.REFERENCE) / listed["file"]
    (folder / listed["file"]).write_bytes(source.read_bytes())
    return folder


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[m.name for m in MUTATIONS])
def test_text_occurs_count_times_and_the_change_is_valid(
    mutation: Mutation, tmp_path: Path
) -> None:
    text = (PACKAGE / mutation.file).read_text()
    assert text.count(mutation.old) == mutation.count
    changed = text.replace(mutation.old, mutation.new)
    assert changed != text
    if mutation.file.endswith(".py"):
        compile(changed, mutation.file, "exec")
        return
    compiler = c_compiler()
    if compiler is None:
        pytest.skip("needs a C compiler to check a change of a C source")
    original = PACKAGE / mutation.file
    copied = Path(shutil.copytree(original.parent, tmp_path / "csrc"))
    (copied / original.name).write_text(changed)
    # a header is checked through the sources that include it
    for source in copied.glob("*.c"):
        subprocess.run([compiler, "-std=c99", "-fsyntax-only", str(source)], check=True)


def test_mutations_are_many_and_distinct() -> None:
    assert len(MUTATIONS) >= 80
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)
    assert len({(m.file, m.old, m.new) for m in MUTATIONS}) == len(MUTATIONS)


def test_cases_are_ordered_by_cost() -> None:
    def case(group: str, name: str, steps: int | None) -> Case:
        settings = {} if steps is None else {"learner": "simple", "steps": steps}
        return Case(group, name, "run", settings, {})

    given = [
        case("update", "many", 25),
        case("update", "one", 1),
        case("double", "few", 50),
        case("losses", "a", None),
        case("double", "most", 200),
    ]
    ordered = [c.name for c, _ in mutate.cheapest_first([(c, {}) for c in given])]
    assert ordered == ["a", "one", "few", "many", "most"]
    everything = mutate.cheapest_first([(c, {}) for c in all_cases()])
    assert {c.id for c, _ in everything} == {c.id for c in all_cases()}


def test_missing_text_raises(tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text("nothing = 0\n")
    with pytest.raises(ValueError, match=r"'harmless'.* occurs 0 times in losses.py, not 1"):
        HARMLESS.plant(tmp_path)


def test_planted_bug_is_caught_and_the_package_is_unchanged(small: Path) -> None:
    mutation = next(m for m in MUTATIONS if m.name == "expectile-flipped")
    before = (PACKAGE / mutation.file).read_text()
    verdict = mutate.judge(mutation, reference=small)
    assert verdict.caught
    assert verdict.case == "losses/expectile-default"
    assert verdict.tensor == "value"
    assert verdict.kind == "forward"
    assert verdict.error is not None
    assert verdict.error > 0.5
    assert verdict.bound == 2e-6
    assert "losses/expectile-default: 2 of 2 tensors out of bounds" in verdict.message
    assert verdict.failed == {"losses": 1}
    assert (PACKAGE / mutation.file).read_text() == before


def test_command_writes_verdicts_and_counts_failing_cases(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "verdicts.json"
    options = ["--only", "quantile", "--full", "--reference", str(small), "--json", str(path)]
    assert main(["mutate", *options, "--jobs", "1"]) == 0
    written = json.loads(path.read_text())
    assert (written["planted"], written["caught"]) == (1, 1)
    (result,) = written["results"]
    assert result["name"] == "quantile-abs"
    assert result["ran"] == LOSSES
    assert result["failed"] == {"losses": 3}
    printed = capsys.readouterr().out
    assert "1 of 1 planted bugs caught" in printed
    assert "The unchanged port passes all of them." in printed


def test_harmless_change_is_reported_as_survived(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mutate, "MUTATIONS", (HARMLESS,))
    assert main(["mutate", "--no-control", "--reference", str(small), "--jobs", "1"]) == 1
    printed = capsys.readouterr().out
    assert "SURVIVED harmless (losses.py)" in printed
    assert f"all {LOSSES} cases pass" in printed


def test_exception_does_not_count_as_caught(small: Path) -> None:
    crashes = Mutation("crash", "raises", "losses.py", HARMLESS.old, "raise ValueError('no')")
    verdict = mutate.judge(crashes, reference=small)
    assert not verdict.caught
    assert "ValueError" in verdict.message
    broken = Mutation("broken", "no Python", "losses.py", HARMLESS.old, "return (")
    verdict = mutate.judge(broken, reference=small)
    assert not verdict.caught
    assert verdict.message.startswith("SyntaxError")


def test_failing_unchanged_port_is_an_error(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = {"ran": 3, "failed": [{"message": "losses/a: 1 of 2 tensors out of bounds"}]}
    monkeypatch.setattr(mutate, "run_worker", lambda *a, **k: report)
    assert main(["mutate", "--only", "quantile-abs", "--reference", str(small)]) == 2
    assert "fails without a planted bug: losses/a" in capsys.readouterr().err


def test_unknown_name_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mutate", "--only", "nothing"]) == 2
    assert "no mutation begins with 'nothing'" in capsys.readouterr().err
