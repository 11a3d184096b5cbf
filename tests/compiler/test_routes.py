"""The report of ``idql doctor``: the machine, and each route with the reason why it is off."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from idql_func.cli import main
from idql_func.compiler import replay, routes, torch_internals
from idql_func.compiler.inductor import compiler_problem
from idql_func.kernels import matmul, threefry, tree_ops


@pytest.fixture(autouse=True)
def fresh_caches() -> Iterator[None]:
    compiler_problem.cache_clear()
    torch_internals.reset()
    yield
    compiler_problem.cache_clear()
    torch_internals.reset()


@pytest.fixture
def no_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with neither a C nor a C++ compiler."""
    monkeypatch.setattr(routes, "c_compiler", lambda: None)
    monkeypatch.setattr(torch_internals, "cpp_compiler", lambda: None)
    monkeypatch.setattr(threefry, "functions", lambda: None)
    monkeypatch.setattr(tree_ops, "supports", lambda *trees: False)
    monkeypatch.setattr(matmul, "available", lambda: False)
    monkeypatch.setattr(replay, "available", lambda: False)


def _states() -> dict[str, routes.Route]:
    return {route.name: route for route in routes.routes()}


def test_all_routes_are_on_with_compilers() -> None:
    if routes.c_compiler() is None or torch_internals.cpp_compiler() is None:
        pytest.skip("needs a C and a C++ compiler")
    off = {name for name, route in _states().items() if not route.on}
    assert off <= {"CUDA graphs"}
    assert {*torch_internals.FALLBACKS} < {*_states()}


def test_without_compilers_each_route_names_the_remedy(no_compilers: None) -> None:
    states = _states()
    for name in ("threefry", "random draws", "Adam and averages", "matmul", "replay"):
        route = states[f"C kernels: {name}"]
        assert not route.on and "install gcc" in route.detail and "instead" in route.detail
    assert not states["compiled programs"].on
    assert "install g++" in states["compiled programs"].detail
    assert not states[torch_internals.REPLAY].on


def test_route_without_its_part_of_torch_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> Any:
        raise ImportError("it is gone")

    monkeypatch.setattr(torch_internals.INTERNALS["lowering"], "find", find)
    route = _states()[torch_internals.MATMUL]
    assert not route.on
    assert "it is gone" in route.detail and "torch multiplies" in route.detail


def test_disabled_jit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDQL_DISABLE_JIT", "1")
    assert _states()["compiled programs"].detail == "IDQL_DISABLE_JIT is set."


def test_environment_has_versions_and_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    facts = routes.environment()
    assert facts["torch"] == torch.__version__
    assert facts["cache folder"] == f"{tmp_path / 'idql_func'} (writable)"
    (tmp_path / "idql_func").write_text("a file in the folder's place")
    assert routes.environment()["cache folder"].endswith("(not writable)")


def test_compiler_that_does_not_run_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", os.devnull)
    assert routes.environment()["C compiler"].startswith(f"{os.devnull}, which does not run")


def test_command_prints_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == (compiler_problem(torch.device("cpu")) is not None)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for word in ("torch", torch.__version__, "C++ compiler", "CUDA graphs", "recording and replay"):
        assert word in text


def test_json_has_the_same_content_and_status_1_without_compilers(
    no_compilers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["environment"]["C compiler"] == "none"
    assert {route["name"]: route["on"] for route in shown["routes"]} == {
        name: route.on for name, route in _states().items()
    }
