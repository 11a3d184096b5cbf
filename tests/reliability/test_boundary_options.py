"""Every option of the command line with hostile values, up to where the work would start."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from trials import AtMost, Tally, spread

from idql_func import cli
from idql_func.cli.train import LearnerClass
from idql_func.training.configs.learners import LEARNERS
from idql_func.training.configs.settings import flat_settings

pytestmark = pytest.mark.reliability

VALUES = [
    "nan", "inf", "-inf", "-1", "0", "2.5", "1e400", "4294967296", "9223372036854775808",
    "1000000000", "1000000000000", "", " ", "../../x", "None", "True", "[1", "1,2", "é", "x" * 300,
]  # fmt: skip
ROOT = Path(__file__).parents[2]
BOUNDED = 2
"""Values for each option in the long form unless all are given; the short form gives every third
option one value."""


class Started(BaseException):
    """The work would start now."""


def started(*args: Any, **kwargs: Any) -> Any:
    raise Started


RAW = re.compile(
    r"Traceback|invalid literal|could not convert|Error\(|\b0x[0-9a-f]{6}|<class|[│─╭╰\x1b]"
)
"""What Python says and how the parser prints it, which no sentence repeats."""

WORK = [
    "idql_func.training.offline.train_offline",
    "idql_func.training.seeds.loop.train_seeds",
    "idql_func.training.online.train_online",
    "idql_func.training.finetune.finetune",
    "idql_func.training.collect.collect",
    "idql_func.data.pointmaze.make_pointmaze_dataset",
]


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in WORK:
        monkeypatch.setattr(name, started)
    monkeypatch.chdir(tmp_path)
    yield
    assert not [*tmp_path.iterdir()]  # nothing was written


def outcome(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What a command line did: right, sentence (one line without a box), or raw."""
    try:
        status = cli.main(words)
    except Started:
        return "right", ""
    except (Exception, SystemExit) as error:
        return "raw", repr(error)
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    good = status == 2 and len(lines) == 1 and len(lines[0]) < 600 and not RAW.search(text)
    return ("sentence" if good else "raw"), f"status {status}: {text}"


def options() -> Iterator[tuple[list[str], str]]:
    """The words before each option, and the option."""
    from idql_func.cli import evaluate
    from idql_func.cli.data import MakeOptions
    from idql_func.training.configs.catalogue import presets_of
    from idql_func.training.configs.collect import CollectConfig

    seen: set[tuple[str, str]] = set()
    for command in ("train", "online", "finetune"):
        preset, entry = next(iter(presets_of(command).items()))
        for name in flat_settings(entry.config):
            if not name.endswith(("class", "command", "preset")):
                yield [command, preset], name
                seen.add((command, name.removeprefix("learner.")))
    for command, class_name in (
        ("train", "GeneralDDPMIQLLearner"),
        ("train", "IQLLearner"),
        ("train", "BCLearner"),
    ):
        for name in flat_settings(LEARNERS[class_name]()):
            if name != "class" and (command, name) not in seen:
                yield [command, "--learner-class", class_name], f"learner.{name}"
    for name in ("seeds", "grid", "resume", "learner_class"):
        yield ["train"], name
    for command, cls, first in (
        ("evaluate", evaluate.EvaluateOptions, ["nothing"]),
        ("collect", CollectConfig, ["nothing", "--output", "out.hdf5"]),
    ):
        for field in dataclasses.fields(cls):
            if field.name not in ("checkpoint", "sources", "output", "overwrite", "buffer"):
                yield [command, *first], field.name
    for field in dataclasses.fields(MakeOptions):
        yield ["data", "make"], field.name
    for name in ("seeds", "first-seed", "command", "grid"):
        yield ["sweep", "pointmaze", "--dry-run"], name


def lines() -> list[list[str]]:
    """Command lines with one hostile value each."""
    return [
        [*words, f"--{option.replace('_', '-')}={value}"]
        for words, option in options()
        for value in VALUES
    ]


def walk(some: list[list[str]], capsys: pytest.CaptureFixture[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    bad: list[Any] = []
    for words in some:
        kind, text = outcome(words, capsys)
        counts["trials"] += 1
        counts[kind] += 1
        if kind == "raw":
            bad.append((words, text[-300:]))
    assert not bad, bad
    return counts


def test_hostile_options(capsys: pytest.CaptureFixture[str]) -> None:
    every = lines()
    walk(spread(every, len(every) // len(VALUES) // 3 + 1), capsys)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_all_hostile_options(
    part: int, capsys: pytest.CaptureFixture[str], at_most: AtMost, tally: Tally
) -> None:
    every = lines()
    count = len(every) // len(VALUES) * BOUNDED
    some = spread(every, at_most(count))
    counts = walk(some[part * len(some) // 2 : (part + 1) * len(some) // 2], capsys)
    tally("options", f"part {part}", counts)
    assert len(some) >= 300


NOT_WALKED = {"help", "output", "overwrite", "buffer", "json", "dry-run", "resume", "seeds", "grid"}
"""Paths and switches; those of ``resume``, ``seeds`` and ``grid`` are walked for ``train``."""


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "online",
        "finetune",
        "collect",
        "evaluate",
        "sweep",
        "presets",
        "data make",
        "doctor",
    ],
)
def test_each_option_of_the_help_is_walked(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.split()
    with contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    shown = {*re.findall(r"(?<![\w-])--([a-z][\w.-]*)", capsys.readouterr().out)}
    walked = {o.replace("_", "-") for before, o in options() if before[: len(words)] == words}
    switches = {name.replace("no-", "", 1) if "no-" in name else name for name in shown}
    missing = switches - walked - NOT_WALKED
    assert not missing, missing


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--learner.T", "1000000000"], "learner.T is 1,000,000,000, but must be at most 100,000"),
        (["--learner.N", "1000000000000"], "candidates would take at least 16.0 TB of memory"),
        (["--evaluation.N", "1000000000000"], "candidates would take at least 16.0 TB of memory"),
        (["--batch-size", "1000000000000"], "transitions of a batch would take at least 32.0 TB"),
        (["--learner.critic-hidden-dims", "10000000", "10000000"], "layers would take at least"),
        (["--device", "mps"], "device is 'mps', but must be 'auto', 'cpu' or 'cuda'"),
        (["--device", "meta"], "device is 'meta', but must be 'auto', 'cpu' or 'cuda'"),
        (["--device", "cpu:3"], "device is 'cpu:3', but there is one 'cpu'"),
        (["--seed", "4294967296"], "seed is 4,294,967,296, but must be at most 4,294,967,295"),
        (["--learner.tau", "1.5"], "tau must lie in [0, 1], got 1.5"),
        (["--learner.actor-lr", "-1"], "actor_lr must be above 0, got -1"),
        (["--dataset.pointmaze-steps", "1000000000000"], "would take at least 48.0 TB"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_sizes_and_settings_are_checked_before_the_work(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, text = outcome(["train", *words], capsys)
    assert kind == "sentence" and sentence in text, text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "--threads", "100000"], "threads is 100000, but must be at most"),
        (["train", "--seeds", "1000000"], "1,000,000 members, but at most 10,000"),
        (["sweep", "pointmaze", "--dry-run", "--seeds", "1000000000"], "1,000,000,000 runs, but"),
        (["online", "--start-training", "20000"], "must be below max_steps, which is 10000"),
    ],
    ids=["threads", "seeds", "sweep", "start-training"],
)
def test_settings_that_would_never_end_or_learn_nothing_are_refused(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, text = outcome(words, capsys)
    assert kind == "sentence" and sentence in text, text


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--seed=nan", "--seed must be an integer, got 'nan'"),
        ("--learner.tau=x", "--learner.tau must be a number, got 'x'"),
        ("--evaluation.num_envs=x", "--evaluation.num_envs must be an integer or None, got 'x'"),
        ("--learner.beta-schedule=x", "must be 'vp', 'cosine' or 'linear', got 'x'"),
        ("--overwrite=yes", "--overwrite is a switch without a value, got 'yes'"),
        ("--critic-hyperparam=1", "(did you mean --learner.critic-hyperparam?)"),
    ],
)
def test_a_refusal_names_the_option_as_it_was_typed(
    option: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, text = outcome(["train", option], capsys)
    assert kind == "sentence" and sentence in text, text


def test_an_error_of_the_program_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("internal")

    monkeypatch.setattr(WORK[0], fails)
    assert cli.main(["train"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "unexpected KeyError" in line and "IDQL_DEBUG=1" in line


# --- what the parser refuses ----------------------------------------------------------------

LINES: dict[str, list[str]] = {
    **{command: [command] for command in cli.COMMANDS if command != "data"},
    "evaluate": ["evaluate", "nothing"],
    "collect": ["collect", "nothing", "--output", "out.hdf5"],
    "sweep": ["sweep", "pointmaze", "--dry-run"],
    "data make": ["data", "make"],
    "data info": ["data", "info"],
    **{f"train {name}": ["train", "--learner-class", name] for name in get_args(LearnerClass)},
}
"""Command lines that are right, for every command and every learner of ``idql train``."""
SHORT = 12
"""The short form mistypes this share of the options."""


def options_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The options that the help of a command shows, with the forms of their values."""
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
        patch.setenv("COLUMNS", "120")
        cli.main([*words, "--help"])
    text = capsys.readouterr().out
    found = re.findall(r"^(?:│ |  )(--\w[\w.-]*)(?:, --[\w.-]+)?(?: (\S+))?", text, re.MULTILINE)
    return {name: metavar for name, metavar in found if not metavar.startswith("-")}


def mistakes(words: list[str], name: str, metavar: str) -> Iterator[tuple[list[str], str]]:
    """Command lines with one mistake about an option, and what their sentence must say."""
    letter = name[-1] * 3
    yield [*words, name + letter, "1"], f"no option is called {name}{letter}"
    yield [*words, f"{name}{letter}=1"], f"no option is called {name}{letter}"
    if not metavar:
        yield [*words, f"{name}=\x1b[31m"], f"{name} is a switch without a value, got '\\x1b[31m'"
        return
    if not metavar.startswith(("[", "{None}|{[")):
        typed = name.replace("-", "_").replace("__", "--", 1)
        yield [*words, typed], f"{typed} needs a value: "
        yield [*words, name, "--no-such"], f"{name} needs a value: "
    kind = {"INT": "an integer", "FLOAT": "a number"}.get(metavar.rpartition("|")[2])
    if metavar.startswith("{") and not metavar.startswith("{None}"):
        kind = "'"
    if kind is not None:
        yield [*words, name, "x" * 300], f"{name} must be {kind}"


def mistakes_of(
    command: str, capsys: pytest.CaptureFixture[str], every: int = 1
) -> list[tuple[list[str], str]]:
    """The mistakes in a command's options, or in every so many of them."""
    found = [*options_of(LINES[command], capsys).items()][::every]
    return [
        mistake
        for name, metavar in found
        if name not in ("--learner-class", "--resume")
        for mistake in mistakes(LINES[command], name, metavar)
    ]


def assert_refused(made: list[tuple[list[str], str]], capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in made:
        kind, text = outcome(words, capsys)
        assert kind == "sentence" and sentence in text, (words, text)
        assert "--help`" in text or "switch" in text


@pytest.mark.parametrize("command", LINES)
def test_each_refusal_of_the_parser_is_one_sentence(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(mistakes_of(command, capsys, SHORT), capsys)


@pytest.mark.slow
@pytest.mark.parametrize("command", LINES)
def test_every_refusal_of_the_parser_is_one_sentence(
    command: str, capsys: pytest.CaptureFixture[str], at_most: AtMost, tally: Tally
) -> None:
    made = spread(mistakes_of(command, capsys), at_most(25))
    assert_refused(made, capsys)
    tally("mistyped options", command, {"trials": len(made), "one sentence": len(made)})


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "train --seed 1 antmaze",
            "'antmaze' is one word too many: no option takes it, and PRESET",
        ),
        ("train --preset antmaze", "no option is called --preset, PRESET is given without a name"),
        (
            "train --learner.bogus 1",
            "is called --learner.bogus; `idql train --help` lists",
        ),
        ("train --learner.tua 1", "(did you mean --learner.tau"),
        ("train --sed 1", "(did you mean --seed"),
        ("train --learner_tau 1", "no option is called --learner_tau (did you mean --learner.tau"),
        ("train -x", "no option is called -x; `idql train --help` lists all"),
        ("train --name -x", "one that begins with '-' is given as --name=-x"),
        ("train --resume --seed 1", "--resume needs a value: a path or None"),
        ("train --learner.critic-hidden-dims 3 x", "must be integers (one or more), got '3 x'"),
        ("train --allow-env-imports=1", "--allow-env-imports is a switch without a value"),
        ("evaluate", "RUN|CHECKPOINT is missing; `idql evaluate --help` describes it"),
        ("evaluate --epsiodes 3", "no option is called --epsiodes (did you mean --episodes?)"),
        ("evaluate a b", "'b' is one word too many"),
        ("collect a", "--output PATH is missing"),
        ("collect a --output b --buffer=1", "--buffer is a switch without a value, got '1'"),
        ("presets --json=1", "--json is a switch without a value, got '1'"),
        ("data", "a command must follow `idql data`: make or info"),
        ("data burn", "no command of `idql data` is called 'burn', there are make and info"),
        ("data make --steps 1.5", "--steps must be an integer, got '1.5'; `idql data make --help`"),
        ("doctor --json 1", "'1' is one word too many"),
        ("sweep pointmaze --grid learner.tau=x", "--learner.tau must be a number, got 'x'"),
        ("trian", "no command is called 'trian'; there are train, online"),
        ("--seed 1", "no command is called '--seed'"),
    ],
)
def test_refusals_of_other_kinds(
    line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, text = outcome(line.split(), capsys)
    assert kind == "sentence" and sentence in text, text


@pytest.mark.parametrize("line", ["train --bogus 1", "train --seed x", "data", "evaluate"])
def test_without_the_hook_of_the_parser_a_refusal_is_one_sentence_too(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idql_func.cli.refusals._hook", lambda call: contextlib.nullcontext())
    kind, text = outcome(line.split(), capsys)
    assert kind == "sentence" and "--help`" in text, text


@pytest.mark.parametrize("module", ["idql_func", "idql_func.cli"])
def test_the_package_runs_as_the_command(module: str) -> None:
    line = [sys.executable, "-m", module, "train", "--bogus"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    said = "error: no option is called --bogus; `idql train --help` lists all\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_a_terminal_shows_errors_broken_between_words() -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", "idql_func", "train", "--learner-class", "x"]
    environment = {**os.environ, "COLUMNS": "80"}
    with subprocess.Popen(line, stderr=theirs, env=environment, cwd=ROOT) as process:
        assert process.wait() == 2
    os.close(theirs)
    text = os.read(ours, 4096).decode()
    os.close(ours)
    lines = text.splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 80 and "\x1b" not in text
    assert " 'ReBRACLearner' or 'PixelBCLearner', got 'x';" in " ".join(lines)
