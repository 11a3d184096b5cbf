"""Kill a command at each of its changes of the disk, continue it, and compare with the whole run.

Trials are children, by ``fork``, of a process that has imported everything (``trial_server.py``).
The changes that count are those in the trial's own folder: files that are opened for writing, bytes
that are written (the kill comes after half of them), flushes, renames, and new and removed files
and folders.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from trials import spread

from idql_func import disable_jit
from idql_func.data.hdf5 import read_d4rl_hdf5, write_d4rl_hdf5
from idql_func.files import system
from idql_func.training.configs.collect import CollectConfig
from idql_func.training.configs.finetune import FinetuneConfig, FinetuneEvaluationConfig
from idql_func.training.configs.learners import BCConfig, DDPMIQLConfig, SACConfig
from idql_func.training.configs.offline import DatasetConfig, EvaluationConfig, TrainConfig
from idql_func.training.configs.online import OnlineConfig, OnlineEvaluationConfig
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.runs.metrics import read_metrics
from idql_func.types import InputError

ENVIRONMENT = "SixStepPendulum-v0"
NEVER = 10**9
_CHANGES = {
    *("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "os.link"),
    *("os.symlink",),
}


@dataclass(frozen=True)
class Command:
    """One command: what it does in a folder, at first and again, and what it leaves there.

    ``run`` starts it; ``again`` continues it after a kill, as a user would.
    """

    run: Callable[[Path], Any]
    again: Callable[[Path], Any]
    result: Callable[[Path], Any]
    compiled: bool = False


# --- the commands ---------------------------------------------------------------------


def settings(folder: Path) -> dict[str, Any]:
    evaluation = EvaluationConfig(
        env=ENVIRONMENT, N=(2,), interval=4, interval_episodes=1, episodes=1
    )
    return {
        "runs_dir": folder,
        "name": "run",
        "batch_size": 4,
        "max_steps": 6,
        "log_interval": 2,
        "checkpoint_interval": 2,
        "keep_checkpoints": 2,
        "matmul": "strict",
        "device": "cpu",
        "dataset": DatasetConfig(source=str(data_file(folder))),
        "evaluation": evaluation,
    }


def data_file(folder: Path) -> Path:
    """The dataset of all trials, beside their folders."""
    return folder.parent / "data.hdf5"


IDQL = DDPMIQLConfig(critic_hidden_dims=(4,), actor_num_blocks=1, time_dim=4, T=2, N=2)


def offline(folder: Path) -> TrainConfig:
    return TrainConfig(learner=IDQL, **settings(folder))


def online(folder: Path) -> OnlineConfig:
    return OnlineConfig(
        env=ENVIRONMENT,
        name="run",
        runs_dir=folder,
        batch_size=2,
        max_steps=8,
        start_training=4,
        log_interval=2,
        checkpoint_interval=3,
        keep_checkpoints=2,
        matmul="strict",
        device="cpu",
        learner=SACConfig(hidden_dims=(4,)),
        evaluation=OnlineEvaluationConfig(interval=4, interval_episodes=1, episodes=1),
    )


def finetuned(folder: Path) -> FinetuneConfig:
    return FinetuneConfig(
        runs_dir=folder,
        name="run",
        max_steps=7,
        start_training=2,
        online_batch=2,
        offline_batch=2,
        log_interval=2,
        checkpoint_interval=3,
        matmul="strict",
        device="cpu",
        evaluation=FinetuneEvaluationConfig(N=(2,), interval=4, interval_episodes=1, episodes=1),
        offline=dataclasses.replace(offline(folder), max_steps=3),
    )


def members(folder: Path) -> list[TrainConfig]:
    config = TrainConfig(learner=BCConfig(hidden_dims=(4,)), **settings(folder))
    return [dataclasses.replace(config, seed=seed) for seed in (0, 1)]


@contextlib.contextmanager
def refused_if(finished: bool) -> Iterator[None]:
    """A run that is finished has nothing to continue, and says so."""
    try:
        yield
    except InputError as error:
        if not (finished and "nothing to continue" in str(error)):
            raise


def quiet() -> Reporter:
    return Reporter(quiet=True)


def run_of(function: Callable[..., Any], config: Callable[[Path], Any]) -> Command:
    """A command that is continued with ``--resume`` if its folder has settings."""

    def again(folder: Path) -> None:
        state = RunDirectory(folder / "run").state
        resume = None if state == "absent" else folder / "run"
        with refused_if(state == "finished"):
            function(config(folder), resume=resume, reporter=quiet())

    return Command(lambda f: function(config(f), reporter=quiet()), again, content)


def group() -> Command:
    from idql_func.training.seeds.loop import open_members, train_seeds

    def again(folder: Path) -> None:
        state = RunDirectory(folder / "run").state
        run = None if state == "absent" else folder / "run"
        configs = members(folder) if run is None else open_members(run)
        with refused_if(state == "finished"):
            train_seeds(configs, resume=run, reporter=quiet())

    return Command(lambda f: train_seeds(members(f), reporter=quiet()), again, content)


def command_line(arguments: Callable[[Path], list[str]], result: Callable[[Path], Any]) -> Command:
    """A command that is continued by its own line."""

    def run(folder: Path) -> None:
        from idql_func.cli import main

        if (code := main(arguments(folder))) != 0:
            raise SystemExit(code)

    return Command(run, run, result)


def sweep_line(folder: Path) -> list[str]:
    options = {
        "dataset.source": data_file(folder),
        "runs-dir": folder,
        "batch-size": 4,
        "max-steps": 2,
        "matmul": "strict",
        "device": "cpu",
        "evaluation.episodes": 1,
        "evaluation.env": ENVIRONMENT,
        "learner.hidden-dims": "4",
        "learner.expectile": "0.7,0.8",
    }
    return ["sweep", "iql-mujoco", *(f"--grid={k}={v}" for k, v in options.items())]


def collected() -> Command:
    from idql_func.training.collect import collect

    def run(folder: Path) -> None:
        output = folder / "out.hdf5"
        if not output.exists():
            policy = folder.parent / "policy" / "run"
            collect(CollectConfig((policy,), output, steps=9), reporter=quiet())

    return Command(run, run, arrays)


def maze_data() -> Command:
    from idql_func.data.pointmaze import make_pointmaze_dataset

    def run(folder: Path) -> None:
        make_pointmaze_dataset(folder / "out.hdf5", steps=20, progress=False)

    return Command(run, run, arrays)


def commands() -> dict[str, Command]:
    from idql_func.training.finetune import finetune
    from idql_func.training.offline import train_offline
    from idql_func.training.online import train_online

    train = run_of(train_offline, offline)
    return {
        "train": train,
        "train compiled": dataclasses.replace(train, compiled=True),
        "online": run_of(train_online, online),
        "finetune": run_of(finetune, finetuned),
        "groups": group(),
        "sweep": command_line(sweep_line, content),
        "collect": collected(),
        "data make": maze_data(),
    }


# --- what is left ---------------------------------------------------------------------


def content(folder: Path) -> dict[str, Any]:
    """All files by name, with what must be equal of each; times and speeds may differ."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = "folder"
        elif path.name == "metrics.jsonl":
            found[name] = [without_times(record) for record in read_metrics(path)]
        elif path.name == "metrics.csv":
            found[name] = len(path.read_text().splitlines())
        elif path.name in ("summary.json", "checkpoint.json", "config.json"):
            found[name] = without_times(json.loads(path.read_text()))
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def without_times(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    left_out = ("seconds", "matmul", "digest", "settings", "runs_dir", "start", "dataset")
    left_out += ("records_sha256",)
    return {
        name: without_times(inner)
        for name, inner in value.items()
        if name not in left_out and not name.endswith("_per_second")
    }


def arrays(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"files": sorted(os.listdir(folder))}
    for name, array in read_d4rl_hdf5(folder / "out.hdf5")[0].items():
        found[name] = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return found


# --- children -------------------------------------------------------------------------


class Counter:
    """Counts the changes of the disk in a folder, and kills the process at one of them."""

    def __init__(self, folder: Path, kill_at: int) -> None:
        self.folder, self.kill_at, self.count = str(folder), kill_at, 0
        self.on = True

    def change(self) -> bool:
        """Count a change; whether it is the one at which the process is killed."""
        if not self.on:
            return False
        self.count += 1
        return self.count == self.kill_at

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or not self.on:
            return
        path = arguments[0]
        if event == "open":
            flags = arguments[2]
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        in_folder = isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(
            self.folder
        )
        relative = event in ("os.remove", "os.rmdir") and arguments[-1] != -1  # inside rmtree
        if (in_folder or relative) and self.change():
            self.die()

    def install(self) -> None:
        sys.addaudithook(self.audit)
        write, sync, exchange = system.write, system.sync, system.exchange

        def half(handle: int, data: memoryview) -> int:
            if self.change():
                write(handle, data[: len(data) // 2])
                self.die()
            return write(handle, data)

        def synced(handle: int) -> None:
            if self.change():
                self.die()
            sync(handle)

        def exchanged(first: Path, second: Path) -> bool:
            if self.change():
                self.die()
            return exchange(first, second)

        system.write, system.sync, system.exchange = half, synced, exchanged


def child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Run a function in a child; its exit status (-9: killed), and its result or its error."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        code = 1
        try:
            result: Any = work()
            code = 0
        except BaseException:
            result = traceback.format_exc()[-3000:]
        with os.fdopen(writing, "w") as pipe:
            json.dump(result, pipe)
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), json.loads(text) if text else None


@contextlib.contextmanager
def silent() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def trial(command: Command, folder: Path, kill_at: int, again: bool = False) -> tuple[int, Any]:
    """Run a command in a child, killed at a change; the status, and the number of changes."""

    def work() -> Any:
        counter = Counter(folder, kill_at)
        counter.install()
        with silent(), disable_jit(not command.compiled):
            (command.again if again else command.run)(folder)
        counter.on = False
        return counter.count

    return child(work)


def whole(command: Command, folder: Path) -> dict[str, Any]:
    """The result of a command that nothing stops, and its number of changes."""
    folder.mkdir()
    code, count = trial(command, folder, NEVER)
    if code != 0:
        raise RuntimeError(f"the whole run failed: {count}")
    return {"changes": count, "result": json.loads(json.dumps(command.result(folder)))}


def kill_and_continue(command: Command, folder: Path, kills: list[int]) -> dict[str, Any]:
    """Kill a command at one change after the other, continue it, and return what it left."""
    folder.mkdir()
    killed = 0
    for number, kill_at in enumerate(kills):
        code, error = trial(command, folder, kill_at, again=number > 0)
        if code not in (0, -9):
            return {"error": error}
        killed += code == -9
    code, error = trial(command, folder, NEVER, again=True)
    if code != 0:
        return {"error": error}
    return {"killed": killed, "result": json.loads(json.dumps(command.result(folder)))}


def differences(result: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {str(result.get(name))[:300]} / {str(other.get(name))[:300]}"
        for name in sorted({*result, *other})
        if result.get(name) != other.get(name)
    ]


def examine(name: str, folder: Path, kills: int) -> dict[str, Any]:
    """Kill a command at some of its changes, at every fourth one again while it continues."""
    command = prepare(folder, name)
    folder = folder / "trials"
    folder.mkdir()
    write_data(folder / "data.hdf5")
    if name == "collect":
        make_policy(folder)
    expected = whole(command, folder / "whole")
    if not command.compiled:
        return all_trials(command, folder, kills, expected)

    def with_programs() -> Any:
        (folder / "programs").mkdir()
        with silent():
            command.run(folder / "programs")
        return all_trials(command, folder, kills, expected)

    code, found = child(with_programs)  # whose programs the trials find in memory
    if code != 0:
        raise RuntimeError(f"{name} failed: {found}")
    return found


def all_trials(command: Command, folder: Path, kills: int, whole: dict[str, Any]) -> dict[str, Any]:
    """The trials of a command that leaves this when nothing stops it, with their outcomes."""
    failures, done, places = [], 0, spread(range(1, whole["changes"] + 1), kills)
    for number, at in enumerate(places):
        left = whole["changes"] - at
        at_twice = [at, max(2, left // 3)] if number % 4 == 3 else [at]
        place = folder / f"kill{at}"
        found = kill_and_continue(command, place, at_twice)
        wrong = found.get("error") or differences(found["result"], whole["result"])
        done += found.get("killed", 0)
        if wrong:
            failures.append(f"killed at {at_twice} of {whole['changes']}: {wrong}")
        else:
            shutil.rmtree(place)
    counts = {"trials": len(places), "kills": done, "equal": len(places) - len(failures)}
    return {"changes": whole["changes"], "counts": counts, "failures": failures}


# --- the parent -----------------------------------------------------------------------


def write_data(path: Path) -> None:
    rng = np.random.default_rng(1)
    n = 60
    write_d4rl_hdf5(
        path,
        {
            "observations": rng.standard_normal((n, 3)).astype(np.float32),
            "next_observations": rng.standard_normal((n, 3)).astype(np.float32),
            "actions": rng.uniform(-0.9, 0.9, (n, 1)).astype(np.float32),
            "rewards": rng.standard_normal(n).astype(np.float32),
            "terminals": np.arange(n) % 20 == 19,
            "timeouts": np.zeros(n, bool),
        },
        {"env": ENVIRONMENT},
    )


def prepare(folder: Path, name: str) -> Command:
    """A command, when this process has imported what it imports and knows the environment."""
    from matplotlib.figure import Figure

    def blank(self: Any, path: Any, **options: Any) -> None:
        with contextlib.suppress(AttributeError):
            path.write(b"picture")
            return
        Path(path).write_bytes(b"picture")

    Figure.savefig = blank  # type: ignore[assignment]
    if ENVIRONMENT not in gym.registry:
        gym.register(ENVIRONMENT, "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=6)
    place = folder / "imports"
    place.mkdir(parents=True)
    write_data(place / "data.hdf5")
    command = commands()[name]
    if name == "collect":
        make_policy(place)

    def modules() -> list[str]:
        (place / "run").mkdir()
        with silent(), disable_jit():
            command.run(place / "run")
        return list(sys.modules)

    code, found = child(modules)
    if code != 0:
        raise RuntimeError(f"{name} failed: {found}")
    for module in sorted(set(found) - set(sys.modules)):
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a child would copy the memory of this process
    return command


def make_policy(folder: Path) -> None:
    """A run whose policy is collected from; in a child, since this process computes nothing."""
    (folder / "policy").mkdir()
    code, error = trial(commands()["online"], folder / "policy", NEVER)
    if code != 0:
        raise RuntimeError(f"the policy could not be trained: {error}")
