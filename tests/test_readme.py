"""Every fenced code block of every README runs, or its command lines are parsed.

Python blocks run in order, in one namespace for each file. Each command of a shell block is parsed
by the parser that would run it, but not run. Blocks with the language ``text`` are not code.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pytest
import torch
import tyro

from idql_func import cli, disable_jit, tree_leaves
from idql_func.training.configs.catalogue import presets_called
from idql_func.training.runs.directory import RunDirectory

ROOT = Path(__file__).parent.parent
READMES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("README.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
SHELL = ("bash", "sh", "shell", "console")
PARITY_EXAMPLE, PARITY_TEST = (
    ("parity.record(", "parity.check("),
    "tests/parity/test_parity_readme.py",
)
"""Blocks with these calls need JAX; the test runs them with a NumPy function instead of JAX's."""


class Block(NamedTuple):
    """A fenced block: its language, its text and the number of the text's first line."""

    language: str
    text: str
    line: int


def blocks_of(name: str) -> list[Block]:
    """The fenced blocks of a README."""
    found: list[Block] = []
    language, first, lines = None, 0, []
    for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif language is None:
            language, first, lines = line.strip().strip("`").strip(), number + 1, []
        else:
            found.append(Block(language, textwrap.dedent("\n".join(lines)), first))
            language = None
    assert language is None, f"{name}:{first}: the block has no end"
    return found


def test_root_readme_fits_on_a_few_screens() -> None:
    assert (ROOT / "README.md").stat().st_size <= 9_000


def test_blocks_have_a_language_that_is_tested() -> None:
    assert {"README.md", "parity/README.md", "idql_func/training/README.md"} <= set(READMES)
    unknown = [
        f"{name}:{block.line}: {block.language!r}"
        for name in READMES
        for block in blocks_of(name)
        if block.language not in ("python", "text", *SHELL)
    ]
    assert unknown == []


# --- Python -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READMES)
def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    assert (ROOT / PARITY_TEST).is_file()
    names: dict[str, Any] = {}
    with disable_jit():  # the same values; compilation is tested elsewhere
        for block in blocks_of(name):
            if block.language != "python" or any(call in block.text for call in PARITY_EXAMPLE):
                continue
            # The empty lines give tracebacks the line numbers of the README.
            code = compile("\n" * (block.line - 1) + dedent(block.text), str(ROOT / name), "exec")
            try:
                exec(code, names)
            except Exception as error:
                line = _line_of(error, name)
                raise AssertionError(f"{name}:{line}: {type(error).__name__}: {error}") from error
    for value in names.values():
        for leaf in tree_leaves(value):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                assert torch.isfinite(leaf).all()


def _line_of(error: Exception, name: str) -> int:
    traceback, line = error.__traceback__, 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(ROOT / name):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


# --- command lines ------------------------------------------------------------------------


def commands_of(block: Block) -> Iterator[tuple[int, list[str]]]:
    """Each command of a shell block, as words, with the number of its first line."""
    text = re.sub(r"\\\n", lambda _: " \x00", block.text)  # keeps count of continued lines
    number = block.line
    for line in text.split("\n"):
        words = shlex.split(line.replace("\x00", " ").removeprefix("$ "), comments=True)
        command: list[str] = []
        for word in [*words, "&&"]:
            if word != "&&":
                command.append(word)
                continue
            while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                del command[0]
            if command:
                yield number, command
            command = []
        number += 1 + line.count("\x00")


def check_idql(words: list[str]) -> None:
    """Parse the options of an ``idql`` command; the runs that it names exist."""
    if not words or words[0] in ("--help", "--version"):
        return
    command, *rest = words
    assert command in cli.COMMANDS, f"there is no command {command}"
    for run in re.findall(r"\bruns/[\w.=-]+", " ".join(rest)):
        directory = RunDirectory(Path(run))
        if not directory.config.is_file():
            directory.path.mkdir(parents=True)
            [entry, *_] = presets_called(re.sub(r"-\d*seeds?\d*$", "", directory.path.name))
            directory.write_config(entry.config)
    options = import_module(f"idql_func.cli.{command}").parse(rest)
    if command == "train":
        members = import_module("idql_func.cli.train").members
        assert options.resume is not None or members(rest, options)
    if command == "sweep":
        assert cli.main([command, *rest, "--dry-run"]) == 0


def check_parity(words: list[str]) -> None:
    """Parse the options of ``python -m parity``."""
    import_module("parity.__main__")._parser().parse_args(words)


def check_benchmarks(words: list[str]) -> None:
    """Parse the options of ``python -m benchmarks``, and the names of workloads."""
    command = import_module("benchmarks.command")
    if words[:1] == ["compare"]:
        assert len(words) == 3 and all(word.endswith(".json") for word in words[1:])
        return
    options = tyro.cli(command.Options, args=words)
    assert command.chosen(options.only)


def check_python(words: list[str]) -> None:
    """Look for the module, or compile the code."""
    if words[:1] == ["-c"]:
        compile(words[1], "-c", "exec")
    elif words[:1] == ["-m"]:
        module, *rest = words[1:]
        known = {"parity": check_parity, "benchmarks": check_benchmarks, "pytest": check_pytest}
        if module in known:
            known[module](rest)
        elif module == "pip":
            check_pip(rest)
        else:
            assert importlib.util.find_spec(module) is not None, f"there is no module {module}"
    else:
        assert (ROOT / words[0]).is_file(), f"there is no file {words[0]}"


def check_pip(words: list[str]) -> None:
    """Compare the extras that are installed with those of pyproject.toml."""
    assert words[:1] == ["install"]
    targets = [word for word in words[1:] if not word.startswith("-")]
    for target in targets:
        match = re.fullmatch(r"(?:\.|idql_func)(?:\[([\w,-]+)\])?", target)
        assert match is not None, f"{target} is not this package"
        unknown = set((match[1] or "all").split(",")) - EXTRAS.keys()
        assert not unknown, f"pyproject.toml has no extra {unknown}"
    assert targets


def check_pytest(words: list[str]) -> None:
    """Parse the usual options of pytest; paths and markers exist."""
    parser = argparse.ArgumentParser("pytest", exit_on_error=False)
    parser.add_argument("-n", type=int)
    parser.add_argument("-m", choices=[m.partition(":")[0] for m in MARKERS])
    parser.add_argument("-k")
    parser.add_argument("-q", action="store_true")
    parser.add_argument("-x", action="store_true")
    parser.add_argument("--durations", type=int)
    parser.add_argument("paths", nargs="*")
    for path in parser.parse_args(words).paths:
        assert (ROOT / path.partition("::")[0]).exists(), f"there is no {path}"


MARKERS: list[str] = PROJECT["tool"]["pytest"]["ini_options"]["markers"]
CHECKS: dict[str, Callable[[list[str]], None]] = {
    "idql": check_idql,
    "pip": check_pip,
    "pytest": check_pytest,
    "python": check_python,
}
DISTRIBUTIONS = {"lint-imports": "import-linter"}


def check_command(words: list[str]) -> None:
    """Check one command. Other programs must be files of the repository or in the extra ``dev``."""
    program, *rest = words
    if program in CHECKS:
        CHECKS[program](rest)
    elif "/" in program:
        assert (ROOT / program).is_file(), f"there is no file {program}"
    elif program not in ("cd", "git"):
        wanted = DISTRIBUTIONS.get(program, program)
        found = [x for x in EXTRAS["dev"] if re.match(rf"{re.escape(wanted)}\b", x)]
        assert found, f"the program {program} is unknown"


@pytest.mark.parametrize("name", READMES)
def test_command_lines_are_valid(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # for the runs that the lines name
    for block in blocks_of(name):
        if block.language not in SHELL:
            continue
        for line, words in commands_of(block):
            try:
                check_command(words)
            except (Exception, SystemExit) as error:
                printed = " ".join(capsys.readouterr().err.split())
                raise AssertionError(
                    f"{name}:{line}: {shlex.join(words)}: {error} {printed}"
                ) from error


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("idql fly", "there is no command fly"),
        ("idql train mars", "no preset"),
        ("idql train --bogus 1", "no option is called --bogus"),
        ("idql train --grid learner.T=1,2", "may differ in"),
        ("python -m parity chekc", "2"),
        ("python -m benchmarks --only nothing", "nothing"),
        ("pip install -e '.[al]'", "no extra"),
        ("pytest -m slwo", "invalid choice"),
        ("pytest tests/gone", "there is no tests/gone"),
        ("python -m no_such_module", "there is no module"),
        (".ci/gone", "there is no file"),
        ("frobnicate .", "the program frobnicate is unknown"),
        ("true && FLAG=1 \\\n  idql fly", "the program true is unknown"),
    ],
)
def test_invalid_command_lines_are_found(line: str, message: str) -> None:
    [(_, words), *_] = commands_of(Block("bash", line, 1))
    with pytest.raises((Exception, SystemExit), match=message):
        check_command(words)


def test_lines_are_counted_across_continuations() -> None:
    block = Block("bash", "A=1 pip install x \\\n  y && pytest -q  # run\n\nidql presets", 10)
    assert list(commands_of(block)) == [
        (10, ["pip", "install", "x", "y"]),
        (10, ["pytest", "-q"]),
        (13, ["idql", "presets"]),
    ]
