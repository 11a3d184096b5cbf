"""``idql train --seeds``: members of one program, resuming, evaluation, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_pendulum import as_line, short_run, write_dataset

from idql_func.cli import main
from idql_func.cli.train import members, parse
from idql_func.training.runs.directory import RunDirectory


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    """A command line of a short run of behaviour cloning."""
    write_dataset(tmp_path / "data.hdf5")
    options = {**short_run(tmp_path, max_steps=6, log_interval=2), "learner.hidden-dims": 8}
    return ["train", "pointmaze-bc", *as_line(options), "--no-cosine-decay"]


def test_seeds_are_trained_resumed_and_evaluated(
    tmp_path: Path,
    line: list[str],
    capsys: pytest.CaptureFixture[str],
    failure: Callable[[list[str]], str],
) -> None:
    assert main([*line, "--seed", "4", "--seeds", "2"]) == 0
    out = capsys.readouterr().out
    assert "2 x BCLearner, seed4, seed5" in out and "mean of 2" in out
    group = RunDirectory(tmp_path / "runs" / "pointmaze-bc-2seeds")
    assert json.loads(group.members.read_text()) == {"members": ["seed4", "seed5"]}
    assert RunDirectory(group.path / "seed5").read_config().seed == 5

    assert main(["evaluate", str(group.path / "seed5"), "--episodes", "1"]) == 0
    assert main(["train", "--resume", str(group.path), "--max-steps", "8"]) == 0
    assert json.loads(group.summary.read_text())["updates"] == 8
    assert RunDirectory(group.path / "seed4").checkpoint(8).is_dir()
    assert "nothing to continue" in failure(["train", "--resume", str(group.path)])
    message = failure(["train", "--resume", str(group.path), "--seeds", "2"])
    assert "uses the members of the run" in message
    # one member continues as a run of its own
    assert main(["train", "--resume", str(group.path / "seed4"), "--max-steps", "9"]) == 0


def test_grid_is_combined_with_every_seed(line: list[str]) -> None:
    grid = ["--grid", "learner.actor-lr=1e-3,1e-2", "--grid", "learner.entropy_bonus=0.1"]
    arguments = [*line[1:], *grid, "--seeds", "7,3"]
    configs = members(arguments, parse(arguments))
    keywords = [(c.learner.keywords()["actor_lr"], c.seed) for c in configs]
    assert keywords == [(1e-3, 7), (1e-3, 3), (1e-2, 7), (1e-2, 3)]
    assert {c.learner.keywords()["entropy_bonus"] for c in configs} == {0.1}


BAD_INPUT = {
    "no number": (["--seeds", "many"], "seeds is 'many', but must be a number of seeds or a list"),
    "none": (["--seeds", "0"], "seeds is 0, but must be at least 1"),
    "twice": (["--seeds", "1,2,1"], "has a seed twice"),
    "axis": (["--grid", "learner.hidden-dims=8,9"], "may differ in seed, learner.actor_lr"),
    "form": (["--grid", "learner.actor-lr"], "must be written like learner.critic-hyperparam="),
    "one": (["--grid", "learner.actor-lr=1e-3", "--grid", "learner.actor_lr=2e-3"], "twice"),
    "value": (["--grid", "learner.actor-lr=1e-3,-1"], "actor_lr must be above 0"),
    "images": (
        ["--learner-class", "PixelBCLearner", "--seeds", "2"],
        "PixelBCLearner is not trained several at a time; DDPMIQLLearner, GeneralDDPMIQLLearner",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_sentence(
    tmp_path: Path, line: list[str], failure: Callable[[list[str]], str], case: str
) -> None:
    more, message = BAD_INPUT[case]
    if case == "images":
        line = [part for part in line if part not in ("--no-cosine-decay",)]
        line = [*line[:1], "pixel-bc", *line[2:]]
        more = more[2:]
    assert message in failure([*line, *more])
    assert not (tmp_path / "runs").exists()


def test_existing_folder_raises_or_is_overwritten(
    tmp_path: Path,
    line: list[str],
    capsys: pytest.CaptureFixture[str],
    failure: Callable[[list[str]], str],
) -> None:
    line = [*line, "--evaluation.env", "none", "--name", "mine"]
    assert main([*line, "--seeds", "0,9"]) == 0
    capsys.readouterr()
    assert "already holds a finished run" in failure([*line, "--seeds", "2"])
    assert main([*line, "--seeds", "2", "--overwrite"]) == 0
    folders = sorted(p.name for p in (tmp_path / "runs/mine").iterdir() if p.is_dir())
    assert folders == ["seed0", "seed1"]
