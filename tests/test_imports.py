"""There is no import cycle, even with imports inside functions; import-linter checks layers."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("idql_func", "parity", "benchmarks")


def _module(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _imports(path: Path, modules: set[str]) -> set[str]:
    """The modules that a file imports; ``from package import module`` imports the module."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    for node in nodes:
        if _type_checking(node):
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in modules else node.module)
        nodes.extend(ast.iter_child_nodes(node))
    return found & modules


def import_graph(root: Path, packages: tuple[str, ...]) -> dict[str, set[str]]:
    """The modules that each module of the packages imports."""
    files = [path for package in packages for path in (root / package).rglob("*.py")]
    modules = {_module(path, root): path for path in files}
    return {name: _imports(path, {*modules}) - {name} for name, path in modules.items()}


def test_no_import_cycle() -> None:
    graph = import_graph(ROOT, PACKAGES)
    assert len(graph) > 200
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


def test_library_imports_neither_parity_nor_benchmarks() -> None:
    for name, imported in import_graph(ROOT, PACKAGES).items():
        above = {"idql_func": ("parity", "benchmarks"), "parity": ("benchmarks",)}
        forbidden = above.get(name.split(".", maxsplit=1)[0], ())
        assert not [other for other in imported if other.split(".")[0] in forbidden], name


def test_import_cycle_through_a_deferred_import_is_found(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from package import b\n")
    (package / "b.py").write_text("def f():\n    import package.a\n")
    with pytest.raises(CycleError, match=r"package\.a"):
        TopologicalSorter(import_graph(tmp_path, ("package",))).prepare()
