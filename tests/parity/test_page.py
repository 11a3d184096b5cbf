"""The HTML report: the verdict comes first, nothing is loaded, and its bytes are reproducible."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from parity import report
from parity.__main__ import main
from parity.reporting import panels, summary
from parity.store import REFERENCE

PNG = b"\x89PNG\r\n\x1a\n"


def _tensor(name: str, kind: str, error: float | None, bound: float, **more: Any) -> dict[str, Any]:
    numbers = {"error": error, "bound": bound, "absolute": error, "relative": error, "ulp": error}
    return {"tensor": name, "kind": kind, **numbers, "detail": "", **more}


def _result(
    case: str, *tensors: dict[str, Any], mode: str = "eager", **more: Any
) -> dict[str, Any]:
    group = case.partition("/")[0]
    return {"case": case, "group": group, "mode": mode, "crash": "", "tensors": tensors, **more}


def _content() -> dict[str, Any]:
    """A case that passes, one that fails in its second tensor and one that crashes."""
    draws = _tensor("out/0/7", "normal", 2.0, 4.0, ulps=[5, 1, 1, 0, 0, 0])
    losses = _tensor("losses/q<b>", "loss", 1e-4, 1e-3, growth=[1e-6, 0.0, 1e-4])
    wrong = _tensor("forward/train", "forward", 5e-6, 2e-6) | {"detail": "worst at [1]: 3, not 2"}
    return {
        "environment": {"python": "3.12.1", "torch": "2.13", "cpu": "a chip"},
        "seconds": {"eager": 12.25},
        "results": [
            _result("random/normal-older-64", draws),
            _result("random/bits-older-32", _tensor("out/0", "bits", 0.0, 0.0)),
            _result("iql/plain", losses),
            _result("network/mlp", _tensor("forward/eval", "forward", 1e-7, 2e-6), wrong),
            _result("network/odd", _tensor("forward/eval", "forward", None, 2e-6)),
            _result("losses/gone", crash="TypeError at losses.py:3: no such loss"),
        ],
    }


def _written(folder: Path, content: Any, name: str = "figures.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def _passing() -> dict[str, Any]:
    content = _content()
    return {**content, "results": content["results"][:3]}


def _report(folder: Path, *arguments: str | Path) -> tuple[int, str]:
    out = folder / "page.html"
    code = main(["report", "--out", str(out), *map(str, arguments)])
    return code, out.read_text() if out.is_file() else ""


@pytest.fixture(autouse=True)
def _no_long_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "CURVES", tmp_path / "none.json")


def test_verdict_counts_cases_and_names_the_worst(tmp_path: Path) -> None:
    code, page = _report(tmp_path, "--figures", _written(tmp_path, _passing()))
    assert code == 0
    assert "✓ 3 of 3 cases within bounds, in mode eager" in page
    assert "error at 50 % of its bound (random/normal-older-64, out/0/7)" in page
    assert "Failures" not in page
    assert "eager 12 s" in page


def test_failures_come_first_with_the_first_tensor_that_fails(tmp_path: Path) -> None:
    code, page = _report(tmp_path, "--figures", _written(tmp_path, _content()))
    assert code == 1
    assert "✗ 3 of 6 cases within bounds" in page
    assert page.index("<h2>Failures") < page.index("<h2>Room to the bound")
    assert "Worst: beyond any bound, not comparable (network/odd, forward/eval)" in page
    failures = page[page.index("<h2>Failures") : page.index("<h2>Room to the bound")]
    assert re.findall(r'<tr class="bad"><td>([^<]*)', failures) == [
        "network/mlp",
        "network/odd",
        "losses/gone",
    ]
    assert "<td>forward/train</td>" in failures
    assert "worst at [1]: 3, not 2" in failures
    assert "1 of 2" in failures
    assert "TypeError at losses.py:3: no such loss" in failures
    assert "∞" in failures
    assert "✗ network" in page


def test_report_of_crashes_has_no_worst_error(tmp_path: Path) -> None:
    figures = _written(tmp_path, {"results": _content()["results"][-1:]})
    code, page = _report(tmp_path, "--figures", figures, "--png", tmp_path / "page.png")
    assert code == 1
    assert "✗ 0 of 1 cases within bounds" in page and "No tensor could be compared" in page


def test_page_loads_nothing_and_shows_its_origin(tmp_path: Path) -> None:
    _, page = _report(tmp_path, "--figures", _written(tmp_path, _content()))
    links = re.findall(r'(?:src|href|action|data)="([^"]*)"', page)
    outside = {link for link in links if not link.startswith("#")}
    commit = json.loads((REFERENCE / "manifest.json").read_text())["upstream"]["commit"]
    assert outside == {f"https://github.com/philippe-eecs/IDQL/tree/{commit}"}
    assert "<script" not in page and "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page
    assert page.count("<svg") == page.count("</svg>") >= 3
    assert "prefers-color-scheme: dark" in page
    # Charts use only colours that change with the reader's colour scheme.
    assert not re.search(r"#[0-9a-f]{6}", page[page.index("<svg") :])
    files = json.loads((REFERENCE / "manifest.json").read_text())["files"]
    assert all(file["sha256"] in page for file in files.values())
    assert "XLA_FLAGS" in page and "2.13" in page
    assert "losses/q<b>" not in page


def test_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    figures = _written(tmp_path, _content())
    pairs = []
    for name in ("one", "two"):
        page, image = tmp_path / f"{name}.html", tmp_path / f"{name}.png"
        files = ["--out", str(page), "--png", str(image)]
        main(["report", "--figures", str(figures), *files])
        pairs.append((page.read_bytes(), image.read_bytes()))
    assert pairs[0] == pairs[1]
    assert pairs[0][1].startswith(PNG)
    assert int.from_bytes(pairs[0][1][16:20], "big") == 1600


def test_modes_of_several_files_are_shown_together(tmp_path: Path) -> None:
    eager = _passing()
    results = [{**r, "mode": "compiled"} for r in eager["results"]]
    compiled = {**eager, "results": results, "seconds": {"compiled": 30}}
    paths = _written(tmp_path, eager, "a.json"), _written(tmp_path, compiled, "b.json")
    code, page = _report(tmp_path, "--figures", *paths)
    assert code == 0
    assert "6 of 6 cases within bounds, in modes eager and compiled" in page
    assert "eager 12 s, compiled 30 s" in page
    assert "error, compiled" in page and "■ compiled" in page


def test_check_is_run_without_figures(tmp_path: Path) -> None:
    code, page = _report(tmp_path, "--only", "optim", "--jobs", "1")
    assert code == 0
    assert re.search(r"✓ (\d+) of \1 cases within bounds, in mode eager", page)


def test_figures_of_two_checks_are_merged(tmp_path: Path) -> None:
    paths = [tmp_path / "losses.json", tmp_path / "actions.json"]
    for path, group in zip(paths, ("losses", "random/normal"), strict=True):
        assert main(["check", "--only", group, "--jobs", "1", "--json", str(path)]) == 0
    code, page = _report(tmp_path, "--figures", *paths)
    assert code == 0
    counts = [json.loads(path.read_text())["cases"] for path in paths]
    assert f"✓ {sum(counts)} of {sum(counts)} cases within bounds" in page
    assert "Draws in float32: all equal" in page
    assert "<td>quantile" not in page and "<td>losses</td>" in page


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is not valid JSON"),
        ("[]", "does not hold the figures"),
        ('{"results": [{"case": "a/b"}]}', "does not hold the figures"),
        ('{"results": [{"case": "a/b", "tensors": [{"tensor": "x"}]}]}', "KeyError: 'error'"),
        ('{"results": []}', "there are no results in"),
    ],
)
def test_other_files_raise_one_sentence(tmp_path, capsys, content, message) -> None:
    path = tmp_path / "figures.json"
    path.write_text(content)
    code, page = _report(tmp_path, "--figures", path)
    captured = capsys.readouterr().err
    assert (code, page) == (2, "")
    assert message in captured and str(path) in captured
    assert captured.count("\n") == 1


def test_missing_files_and_duplicate_results_raise(tmp_path, capsys) -> None:
    path = _written(tmp_path, _passing())
    assert _report(tmp_path, "--figures", tmp_path / "no.json") == (2, "")
    assert "no.json cannot be read" in capsys.readouterr().err
    again = _written(tmp_path, _passing(), "again.json")
    assert _report(tmp_path, "--figures", path, again) == (2, "")
    assert "random/normal-older-64 (eager) is in" in capsys.readouterr().err
    assert _report(tmp_path, "--figures", path, "--mutations", path)[0] == 2
    assert "does not hold what `python -m parity mutate --json`" in capsys.readouterr().err


def test_planted_bugs_are_listed_with_what_caught_them(tmp_path: Path) -> None:
    bug = {"name": "eps", "bug": "LayerNorm eps 1e-5", "file": "layers.py", "message": "first out"}
    planted = {
        "results": [{**bug, "caught": True, "case": "network/mlp"}, {**bug, "caught": False}]
    }
    mutations = _written(tmp_path, planted, "mutations.json")
    figures = _written(tmp_path, _passing())
    code, page = _report(tmp_path, "--figures", figures, "--mutations", mutations)
    assert code == 0
    assert "1 of 2 are caught" in page
    assert "LayerNorm eps 1e-5" in page and "<td>network/mlp</td>" in page


def test_long_runs_are_drawn_but_not_counted(tmp_path, monkeypatch) -> None:
    points = [
        _tensor(f"curve/{s}/{n}", "double", s * 1e-15, 1e-8) for s in (1, 10_000) for n in "ab"
    ]
    curve = {"results": [_result("live-iql/iql-double-10000-updates", *points)]}
    monkeypatch.setattr(report, "CURVES", _written(tmp_path, curve, "curve.json"))
    _, page = _report(tmp_path, "--figures", _written(tmp_path, _passing()))
    assert "3 of 3 cases" in page
    assert "over up to 10,000 updates 1.0e-11" in page
    assert "any parameter: 1e-11" in page


def test_growth_is_grouped_by_learner_and_precision() -> None:
    entry = _result(
        "double/simple-plain", _tensor("means/q", "double", 1e-15, 1e-8, growth=[0, 1e-15, 0])
    )
    other = _result("live-simple/simple-float32-25-updates", *_content()["results"][2]["tensors"])
    figures = summary.figures_of({"results": [entry, other, _content()["results"][2]]})
    found = summary.growths(figures)
    assert list(found) == ["simple", "iql"]
    assert [len(found["simple"].single), len(found["simple"].double)] == [1, 1]
    assert (found["simple"].single_bound, found["simple"].double_bound) == (1e-3, 1e-8)
    assert math.isnan(found["iql"].double_bound)
    assert found["iql"].steps == 3


def test_errors_outside_the_chart_are_drawn_at_its_edge() -> None:
    places = [panels.place(x) for x in (0.0, 1e-30, 1e-3, 1.0, 1e9, math.inf)]
    assert places == sorted(places)
    assert places[0] < places[1] and places[3] == 0 and places[-1] == places[-2]
