"""The C sources: they compile without warnings, are packaged, and are built once."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import idql_func
from idql_func.kernels import build
from idql_func.kernels.build import c_compiler, library

PACKAGE = Path(idql_func.__file__ or "").parent
CSRC = PACKAGE / "kernels" / "csrc"
SOURCES = sorted(path.name for path in CSRC.glob("*.c"))
HEADERS = sorted(path.name for path in CSRC.glob("*.h"))

needs_compiler = pytest.mark.skipif(c_compiler() is None, reason="needs a C compiler")


@needs_compiler
@pytest.mark.parametrize("openmp", [True, False])
@pytest.mark.parametrize("name", SOURCES)
def test_source_compiles_without_warnings(name: str, openmp: bool, tmp_path: Path) -> None:
    # {from, to, ...} sets the fields that matter; C sets the others to 0
    flags = ["-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]
    if openmp:
        flags += ["-fopenmp", "-c", "-o", str(tmp_path / "object.o")]
    else:  # without OpenMP, names that only a pragma uses are unused
        flags += ["-Wno-unknown-pragmas", "-Wno-unused", "-Wno-unused-parameter", "-fsyntax-only"]
    command = [str(c_compiler()), *build._FLAGS, *flags, str(CSRC / name)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_header_is_included_by_a_source() -> None:
    sources = "".join(build._with_headers(CSRC / name) for name in SOURCES)
    assert sorted(set(re.findall(r'#include "([^"]+)"', sources))) == HEADERS


def test_wheel_holds_every_data_file() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["idql_func"]
    data = [*CSRC.iterdir(), *CSRC.parent.glob("*.toml")]
    files = [str(path.relative_to(PACKAGE)) for path in data if path.is_file()]
    assert len(files) >= 5
    for file in files:
        assert any(fnmatch(file, pattern) for pattern in patterns), file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a source that returns the number of a header; an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "number.h").write_text("#define NUMBER 1\n")
    (tmp_path / "number.c").write_text(
        '#include "number.h"\nint number(void) { return NUMBER + EXTRA; }\n'
    )
    return tmp_path


def _number(folder: Path, extra: int = 0) -> int:
    library.cache_clear()
    built = library("number", flags=(f"-DEXTRA={extra}",), folder=folder)
    assert built is not None
    return built.number()


@needs_compiler
def test_change_of_a_header_or_a_flag_builds_a_new_library(folder: Path) -> None:
    assert _number(folder) == 1
    assert _number(folder, extra=40) == 41
    (folder / "number.h").write_text("#define NUMBER 2\n")
    assert _number(folder) == 2
    assert len(list((folder / "cache").rglob("*.so"))) == 3
    assert _number(folder) == 2
    assert len(list((folder / "cache").rglob("*.so"))) == 3


def test_missing_source_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.c"):
        library("absent", folder=tmp_path)
