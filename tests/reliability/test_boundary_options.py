"""Every option of the command line with hostile values, up to where the work would start."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from idql_func import cli
from idql_func.training.configs.learners import LEARNERS
from idql_func.training.configs.settings import flat_settings

pytestmark = pytest.mark.reliability

VALUES = [
    "nan", "inf", "-inf", "-1", "0", "2.5", "1e400", "4294967296", "9223372036854775808",
    "1000000000", "1000000000000", "", " ", "../../x", "None", "True", "[1", "1,2", "é", "x" * 300,
]  # fmt: skip
EVERY = 3
"""The short form gives every third option one value."""


class Started(BaseException):
    """The work would start now."""


def started(*args: Any, **kwargs: Any) -> Any:
    raise Started


RAW = re.compile(r"Traceback|invalid literal|could not convert|Error\(|0x[0-9a-f]{6}")
"""What Python says, and the parser must not repeat."""

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
    """What a command line did: right, sentence, parser (its own message), or raw."""
    try:
        status = cli.main(words)
    except Started:
        return "right", ""
    except SystemExit as stop:
        text = capsys.readouterr().err
        return ("raw" if stop.code != 2 or RAW.search(text) else "parser"), text
    except Exception as error:
        return "raw", repr(error)
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    good = status == 2 and len(lines) == 1 and "Traceback" not in text and len(lines[0]) < 600
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


def lines(every: bool) -> Iterator[list[str]]:
    """Command lines with one hostile value each."""
    for place, (words, option) in enumerate(options()):
        if not every and place % EVERY:
            continue
        values = VALUES if every else [VALUES[place // EVERY % len(VALUES)]]
        for value in values:
            yield [*words, f"--{option.replace('_', '-')}={value}"]


def walk(every: bool, capsys: pytest.CaptureFixture[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    bad: list[Any] = []
    for words in lines(every):
        kind, text = outcome(words, capsys)
        counts[kind] += 1
        if kind == "raw":
            bad.append((words, text[-300:]))
    assert not bad, bad
    return counts


def test_hostile_options(capsys: pytest.CaptureFixture[str]) -> None:
    counts = walk(False, capsys)
    print(dict(counts))


@pytest.mark.slow
def test_all_hostile_options(capsys: pytest.CaptureFixture[str]) -> None:
    counts = walk(True, capsys)
    assert counts.total() >= 300
    with capsys.disabled():
        print(dict(counts))


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
    [("--seed=nan", "'nan' is not an integer"), ("--learner.tau=x", "'x' is not a number")],
)
def test_the_parser_explains_a_number_in_its_own_words(
    option: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, text = outcome(["train", option], capsys)
    assert kind == "parser" and sentence in " ".join(text.split()), text


def test_an_error_of_the_program_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("internal")

    monkeypatch.setattr(WORK[0], fails)
    assert cli.main(["train"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "unexpected KeyError" in line and "IDQL_DEBUG=1" in line
