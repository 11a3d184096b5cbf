"""Let each write of a command fail for want of room, then continue it and compare.

Trials are children of the process of ``trial_server.py``. The faults are injected into
``idql_func.files.system``, through which everything is written. A disk that is full fails from the
k-th change on, after half of the bytes of a write; every other trial is one with a single failure,
after which there is room again.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import gymnasium as gym
from killed_process import (
    NEVER,
    Command,
    child,
    commands,
    content,
    differences,
    make_policy,
    prepare,
    silent,
    write_data,
)
from trials import spread

from idql_func import disable_jit, interop
from idql_func.files import FileWriteError, system
from idql_func.training.runs.directory import RunDirectory

BOX = gym.spaces.Box(-1, 1, (2,))
LEFT = re.compile(r"\..*")
"""Names that nothing may have when a command has ended."""


class FullDisk:
    """Counts the changes of the disk; from the ``full_at``-th on, or then alone, they fail."""

    def __init__(self, full_at: int, once: bool = False) -> None:
        self.full_at, self.once, self.count, self.failed = full_at, once, 0, 0

    def fails(self) -> bool:
        self.count += 1
        fails = self.count == self.full_at if self.once else self.count >= self.full_at
        self.failed += fails
        return fails

    def install(self, replace: Callable[[Any, str, Any], None] = setattr) -> None:
        names = ("write", "reserve", "sync", "rename", "exchange")
        write, *others = (getattr(system, name) for name in names)

        def half(handle: int, data: memoryview) -> int:
            if not self.fails():
                return write(handle, data)
            if len(data) > 1:
                write(handle, data[: len(data) // 2])
            raise no_room()

        def failing(call: Callable[..., Any]) -> Callable[..., Any]:
            def changed(*arguments: Any) -> Any:
                if self.fails():
                    raise no_room()
                return call(*arguments)

            return changed

        replace(system, "write", half)
        for name, call in zip(names[1:], others, strict=True):
            replace(system, name, failing(call))


def no_room() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def all_commands() -> dict[str, Command]:
    return {**commands(), "evaluate": evaluated(), "export": exported(), "line": line()}


def evaluated() -> Command:
    from idql_func.training.evaluate import evaluate_checkpoint
    from idql_func.training.runs.console import Reporter

    def run(folder: Path) -> None:
        evaluate_checkpoint(
            folder.parent / "policy" / "run",
            episodes=1,
            matmul="strict",
            output=folder / "out.json",
            reporter=Reporter(quiet=True),
        )

    return Command(run, run, lambda folder: {"out": (folder / "out.json").read_text()})


def exported() -> Command:
    from idql_func.agents import IQLLearner

    def run(folder: Path) -> None:
        policy = interop.policy_module(IQLLearner.create(0, BOX, BOX, hidden_dims=(4,)))
        interop.save_policy(policy, folder / "policy.safetensors")

    return Command(run, run, content)


def line() -> Command:
    """The command line of offline training, which ends with a status and one line of text."""

    def start(folder: Path, *more: str) -> None:
        from idql_func.cli import main

        options = {
            "dataset.source": folder.parent / "data.hdf5",
            "runs-dir": folder,
            "name": "run",
            "batch-size": 4,
            "max-steps": 4,
            "checkpoint-interval": 2,
            "log-interval": 2,
            "matmul": "strict",
            "device": "cpu",
            "evaluation.env": "none",
            "learner.hidden-dims": "4",
        }
        words = ["train", "pointmaze-bc"]
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        said = io.StringIO()
        with redirect_stderr(said):
            code = main(list(more) or words)
        if code == 2:
            raise LineError(said.getvalue())
        if code != 0:
            raise SystemExit(code)

    def again(folder: Path) -> None:
        run = RunDirectory(folder / "run")
        if not run.is_complete:
            start(folder, *(["train", "--resume", str(run.path)] if run.state != "absent" else []))

    return Command(start, again, content)


class LineError(Exception):
    """What a command printed as an error when it ended with status 2."""


def attempt(
    command: Command,
    folder: Path,
    full_at: int,
    once: bool = False,
    replace: Callable[[Any, str, Any], None] = setattr,
) -> dict[str, Any]:
    """Run a command on a disk that gets full; what was raised, and what it left."""
    disk = FullDisk(full_at, once)
    disk.install(replace)
    raised, text = "", ""
    with silent(), disable_jit():
        try:
            command.run(folder)
        except FileWriteError as error:
            raised, text = "sentence", str(error)
        except LineError as error:
            raised, text = "sentence", str(error).removeprefix("error: ").removesuffix("\n")
        except SystemExit as error:  # of a sweep, one of whose runs failed
            raised, text = "status", str(error.code)
    left = [str(path.relative_to(folder)) for path in folder.rglob("*") if LEFT.match(path.name)]
    return {
        "count": disk.count,
        "failed": disk.failed,
        "raised": raised,
        "text": text,
        "left": left,
    }


def problem_with(found: dict[str, Any], folder: Path, name: str) -> str:
    """What is wrong with how a command ended on a full disk, nothing if it is right."""
    text = found["text"]
    if found["left"]:
        return f"left {found['left']}"
    if found["raised"] == "status":
        return "" if name == "sweep" and text == "1" else f"ended with status {text}"
    if not found["raised"]:  # a picture, or the folder's own flush
        return "" if found["failed"] else "did not meet the full disk"
    if "\n" in text or text.count(folder.name) == 0 or "; " not in text:
        return f"said {text!r}"
    if "--resume" not in text and (folder / "run" / "config.json").exists():
        return f"did not say how to continue: {text!r}"
    return ""


def examine(name: str, folder: Path, trials: int) -> dict[str, Any]:
    """Fill the disk at changes of a command, spread over all of them."""
    prepare(folder, name if name in commands() else "train")
    command = all_commands()[name]
    folder = folder / "trials"
    folder.mkdir()
    write_data(folder / "data.hdf5")
    if name in ("collect", "evaluate"):
        make_policy(folder)
    right = folder / "whole"
    right.mkdir()
    code, whole = child(lambda: attempt(command, right, NEVER))
    if code != 0 or whole["raised"]:
        raise RuntimeError(f"{name} failed on a disk with room: {whole}")
    expected = json.loads(json.dumps(command.result(right)))
    failures: list[str] = []
    outcomes = {"one sentence": 0, "complete": 0, "one run of several": 0}
    places = spread(range(1, whole["count"] + 1), trials)
    for number, at in enumerate(places):
        place, once = folder / f"full{at}", number % 2 == 1
        place.mkdir()

        def work(place: Path = place, at: int = at, once: bool = once) -> Any:
            return attempt(command, place, at, once)

        code, found = child(work)
        wrong = str(found) if code != 0 else problem_with(found, place, name)
        if not wrong:
            kinds = {"sentence": "one sentence", "": "complete", "status": "one run of several"}
            outcomes[kinds[found["raised"]]] += 1

            def again(place: Path = place) -> None:
                with silent(), disable_jit():
                    command.again(place)

            code, error = child(again)
            wrong = str(error) if code != 0 else ""
            result = {} if wrong else json.loads(json.dumps(command.result(place)))
            wrong = wrong or "; ".join(differences(result, expected))
        if wrong:
            failures.append(f"full at {at} of {whole['count']}, once {once}: {wrong}")
        else:
            shutil.rmtree(place)
    counts = {"trials": len(places), **outcomes, "equal": len(places) - len(failures)}
    return {"changes": whole["count"], "counts": counts, "failures": failures}
