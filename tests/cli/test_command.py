"""The ``idql`` command: options, exit statuses, one line for each error, 80 columns."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny_pendulum import ENVIRONMENT, as_line, short_run, write_dataset

import idql_func
from idql_func.cli import COMMANDS, finetune, main, online, train
from idql_func.cli.train import LearnerClass, TrainOptions, parse
from idql_func.training.configs.learners import (
    BCConfig,
    GeneralDDPMIQLConfig,
    OfflineLearnerConfig,
)
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.presets import ANTMAZE, LOCOMOTION, POINTMAZE
from idql_func.training.runs.metrics import read_metrics

ROOT = Path(__file__).parents[2]

TINY_LEARNER = [
    *("--learner.critic-hidden-dims", "8", "--learner.actor-num-blocks", "1"),
    *("--learner.time-dim", "4", "--learner.T", "2", "--learner.N", "2"),
]

AS_TRAINED = ["--episodes", "2", "--seed", "1000", "--matmul", "strict"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset and a run of ten updates, made by the command itself."""
    path = tmp_path_factory.mktemp("cli")
    write_dataset(path / "data.hdf5")
    assert main(["train", *options(path, "run")]) == 0
    return path


def options(folder: Path, name: str) -> list[str]:
    settings = short_run(folder, name=name, max_steps=10, log_interval=5)
    return [*as_line({**settings, "evaluation.N": "1 2"}), *TINY_LEARNER]


# --- options ------------------------------------------------------------------------------


def test_options_change_the_settings_of_the_preset() -> None:
    assert parse([]) == TrainOptions(POINTMAZE)
    assert parse(["locomotion"]).config == LOCOMOTION
    options = parse(
        [
            *("antmaze", "--seed", "7", "--overwrite", "--evaluation.N", "1", "2", "3"),
            *("--learner.decay-steps", "None", "--learner.no-clip-sampler"),
            *("--learner.critic_hidden_dims", "4", "5"),
        ]
    )
    config = options.config
    assert (config.seed, config.batch_size) == (7, 512)
    assert (options.resume, options.overwrite) == (None, True)
    assert config.evaluation.N == (1, 2, 3)
    assert config.learner == dataclasses.replace(
        ANTMAZE.learner, decay_steps=None, clip_sampler=False, critic_hidden_dims=(4, 5)
    )


@pytest.mark.parametrize("form", [["--learner-class", "X"], ["--learner_class=X"]])
def test_learner_class_selects_the_options_of_the_learner(form: list[str]) -> None:
    arguments = [part.replace("X", "GeneralDDPMIQLLearner") for part in form]
    learner = parse([*arguments, "--learner.actor-objective", "soft_adv"]).config.learner
    assert isinstance(learner, GeneralDDPMIQLConfig)
    assert learner.actor_objective == "soft_adv"


def test_train_accepts_every_learner_of_fixed_datasets() -> None:
    names = [cls.class_name for cls in typing.get_args(OfflineLearnerConfig)]
    assert list(typing.get_args(LearnerClass)) == names
    config = parse(["iql-antmaze", "--learner-class", "BCLearner", "--no-cosine-decay"]).config
    assert (config.learner, config.cosine_decay) == (BCConfig(), False)
    assert config.dataset.source == "antmaze-umaze-v2"


@pytest.mark.parametrize("cls", typing.get_args(OfflineLearnerConfig), ids=lambda c: c.class_name)
def test_help_names_every_setting(capsys: pytest.CaptureFixture[str], cls: Any) -> None:
    learner = cls()
    with pytest.raises(SystemExit) as stop:
        main(["train", "--learner-class", learner.class_name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out.replace("_", "-")
    names = [f"--learner.{name}" for name in learner.keywords()]
    names += [
        f"--{prefix}{field.name}"
        for prefix, part in (("", TrainConfig()), ("evaluation.", TrainConfig().evaluation))
        for field in dataclasses.fields(part)
        if field.name not in ("dataset", "learner", "evaluation", "preset")
    ]
    for name in names:
        assert name.replace("_", "-") in text, name
    assert "Learning rate of the" in text and "locomotion" in text


@pytest.mark.parametrize("command", [train, online, finetune])
def test_shared_options_are_equal_in_all_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: ModuleType
) -> None:
    line = ["--device", "cuda:1", "--threads", "0", "--matmul", "bf16", "--runs-dir", "mine"]
    config = command.parse(line).config
    got = (config.device, config.threads, config.matmul, config.runs_dir)
    assert got == ("cuda:1", 0, "bf16", Path("mine"))
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        command.parse(["--help"])
    text = capsys.readouterr().out
    for option, help_text in {
        "--device STR": "'auto' takes a GPU if there is one. (default: auto)",
        "--threads {None}|INT": "0: one for each physical core that this process may use",
        "--matmul {auto,strict,bf16}": "'auto' uses torch's oneDNN route if a test shows",
        "--runs-dir PATH": "Folder of all runs. (default: runs)",
    }.items():
        assert option in text and help_text in text, option


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--learner.bogus", "1"],
        ["train", "--preset", "antmaze"],  # a preset is the first word, not an option
        ["train", "--learner.T", "many"],
        ["train", "--learner.beta-schedule", "steep"],
        ["train", "--learner-class", "SACLearner"],
        ["train", "--learner-class", "GeneralDDPMIQLLearner", "--learner.actor-objective", "x"],
        ["evaluate"],
        ["data", "burn"],
    ],
)
def test_unknown_options_and_values_end_with_status_2(
    failure: Callable[[list[str]], str], arguments: list[str]
) -> None:
    assert "--help`" in failure(arguments)


# --- the commands ---------------------------------------------------------------------------


def test_train_then_evaluate_then_resume(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder / "runs" / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["updates"] == 10 and set(summary["evaluation"]) == {"1", "2"}
    assert main(["evaluate", str(run), *AS_TRAINED]) == 0
    result = json.loads((run / "evaluation.json").read_text())
    # The evaluation at the end of training has this seed and these Ns by default.
    assert result["evaluation"] == summary["evaluation"]
    text = capsys.readouterr().out
    assert "behaviour" in text and "evaluation.json" in text
    assert main(["train", "--resume", str(run), "--max-steps", "12"]) == 0
    assert json.loads((run / "summary.json").read_text())["updates"] == 12
    assert [r["step"] for r in read_metrics(run / "metrics.jsonl")] == [0, 5, 10, 12]


@pytest.mark.parametrize("name", ["BCLearner", "IQLLearner"])
def test_learners_without_candidates_train_evaluate_and_resume(
    folder: Path, capsys: pytest.CaptureFixture[str], failure: Callable[[list[str]], str], name: str
) -> None:
    run = folder / "runs" / name
    line = [*options(folder, name)[: -len(TINY_LEARNER)], "--learner.hidden-dims", "8"]
    assert main(["train", "--learner-class", name, *line]) == 0
    assert main(["evaluate", str(run), *AS_TRAINED]) == 0
    summary, result = (
        json.loads((run / file).read_text()) for file in ("summary.json", "evaluation.json")
    )
    assert list(summary["evaluation"]) == ["policy"]
    assert result["evaluation"] == summary["evaluation"]
    capsys.readouterr()
    assert "omit --n" in failure(["evaluate", str(run), "--n", "4"])
    assert main(["train", "--resume", str(run), "--max-steps", "12"]) == 0
    assert json.loads((run / "summary.json").read_text())["updates"] == 12


def test_ctrl_c_prints_how_to_resume(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("idql_func.training.runs.console.TrainingBar.losses", interrupt)
        assert main(["train", *options(folder, "cut")]) == 130
    run = folder / "runs" / "cut"
    assert f"continue with --resume {run}" in capsys.readouterr().err
    assert main(["train", "--resume", str(run)]) == 0


def test_data_info_describes_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(folder / "data.hdf5")]) == 0
    text = capsys.readouterr().out
    for part in ("transitions", "episodes", "from 19.0 to 20.0", "119 x 3", ENVIRONMENT):
        assert part in text, part


def test_data_make_writes_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gymnasium_robotics")
    target = tmp_path / "maze.hdf5"
    assert main(["data", "make", "--steps", "400", "--output", str(target)]) == 0
    assert capsys.readouterr().out.split() == [str(target)]
    assert main(["data", "info", str(target)]) == 0
    assert "behaviour_return" in capsys.readouterr().out


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--learner.T", "0"], "T must be an integer of at least 1, got 0"),
        (["--learner.N", "0"], "N must be an integer of at least 1, got 0"),
        (["--evaluation.N", "0"], "evaluation.N is 0, but must be at least 1"),
        (["--learner.time-dim", "3"], "time_dim must be even"),
        (["--learner.critic-hyperparam", "1"], "critic_hyperparam must be between 0 and 1"),
        (["--dataset.source", "gone.hdf5"], "gone.hdf5"),
        (["--dataset.source", "hopper-mediun-v2"], "did you mean hopper-medium-v2"),
        (["--evaluation.env", "MountainCarContinuous-v0"], "--evaluation.env"),
        (["--device", "quantum"], "device is 'quantum'"),
        (["--learner.actor-lr", "nan"], "learner.actor_lr is nan, but must be a finite number"),
        (["--dataset.filter-threshold", "inf"], "dataset.filter_threshold is inf"),
        (["--seeds", "2", "--grid", "learner.tau=nan"], "learner.tau is nan"),
    ],
)
def test_bad_input_to_train_makes_no_folder(
    folder: Path, failure: Callable[[list[str]], str], extra: list[str], message: str
) -> None:
    assert message in failure(["train", *options(folder, "bad"), *extra])
    assert not (folder / "runs" / "bad").exists()


def test_damaged_files_are_named(
    folder: Path, failure: Callable[[list[str]], str], tmp_path: Path
) -> None:
    whole = (folder / "data.hdf5").read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.hdf5").write_text("not this")
    for name in ("cut", "text"):
        source = str(tmp_path / f"{name}.hdf5")
        arguments = [*options(folder, "bad"), "--dataset.source", source]
        assert source in failure(["train", *arguments])
        assert source in failure(["data", "info", source])
    assert not (folder / "runs" / "bad").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([]) == 0
    assert f"\n  {command} " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: idql {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        *("", "--help", "presets", "presets antmaze", "presets drq", "data info --help"),
        *("train pixel-bc --help", "online drq --help", "data make --help"),
        *(f"{command} --help" for command in COMMANDS),
    ],
)
def test_output_fits_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.suppress(SystemExit):
        main(line.split())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert [text for text in lines if len(text) > 80] == []


def test_output_to_a_file_fits_80_columns(tmp_path: Path) -> None:
    """A table written to a pipe is as wide as rich's default, and its cells are not cut."""
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    code = "from idql_func.cli import main; main(['presets'])"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("idql finetune antmaze-actor" in x and "GeneralDDPMIQLLearner" in x for x in lines)


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"idql_func {idql_func.__version__}\n"


def test_mistakes_end_with_one_line_and_status_2(
    folder: Path, failure: Callable[[list[str]], str]
) -> None:
    run = str(folder / "runs" / "run")
    assert "no command is called 'fly'" in failure(["fly"])
    assert "is called 'mars'; there are pointmaze, " in failure(["train", "mars"])
    assert "is called 'sac'; there is `idql online sac`" in failure(["train", "sac"])
    assert "is called 'bc'; there is `idql train bc`" in failure(["online", "bc"])
    assert "there is no run at nowhere" in failure(["train", "--resume", "nowhere"])
    assert "give no preset" in failure(["train", "antmaze", "--resume", run])
    changed = ["train", "--resume", run, "--max-steps", "99", "--learner.tau", "0.5"]
    assert "cannot change learner.tau" in failure(changed)
    assert "already holds a finished run" in failure(["train", *options(folder, "run")])
    assert "no run or checkpoint at gone" in failure(["evaluate", "gone"])
    assert "episodes is 0" in failure(["evaluate", run, "--episodes", "0"])
    assert "device is 'quantum'" in failure(["evaluate", run, "--device", "quantum"])
    assert "n is -1" in failure(["evaluate", run, "--n", "4", "-1"])
    wrong = ["evaluate", run, "--env", "MountainCarContinuous-v0"]
    assert "MountainCarContinuous-v0 are (2,), but those of the policy are" in failure(wrong)


def test_idql_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDQL_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        main(["evaluate", "gone"])


@pytest.mark.parametrize(
    ("arguments", "output", "needed"),
    [
        (["--help"], "usage: idql [-h]", set()),
        (["--version"], "idql_func ", set()),
        (["fly"], "error: no command is called 'fly'", set()),
        (["presets"], "idql train antmaze", {"tyro", "rich"}),
        (["train", "--help"], "usage: idql train", {"tyro", "rich"}),
        (["finetune", "mars"], "error: mars is neither a preset", {"tyro", "rich"}),
    ],
)
def test_commands_without_torch_do_not_import_it(
    arguments: list[str], output: str, needed: set[str]
) -> None:
    packages = ["torch", "numpy", "matplotlib", "h5py", "gymnasium", "mujoco", "tyro", "rich"]
    code = (
        "import sys\n"
        "from idql_func.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print(*(name for name in {packages} if name in sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert output in result.stdout + result.stderr
    assert set(result.stdout.splitlines()[-1].split()) <= needed
