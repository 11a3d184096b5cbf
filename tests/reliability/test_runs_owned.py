"""One process owns a run's folder; what state it is in; what is said when something is missing."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from killed_process import ENVIRONMENT, child, content, offline, online, write_data
from matplotlib.figure import Figure
from rich.console import Console
from trials import AtMost, Tally

from idql_func import disable_jit, files
from idql_func.cli import main
from idql_func.errors import InputError
from idql_func.files import system
from idql_func.training.configs.learners import BCConfig
from idql_func.training.configs.offline import EvaluationConfig, TrainConfig
from idql_func.training.offline import TrainingInterrupted, train_offline
from idql_func.training.online import train_online
from idql_func.training.runs import directory
from idql_func.training.runs import lock as locks
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.runs.lock import LOCK, FolderInUse, lock_folder, owner_of
from idql_func.training.runs.metrics import read_metrics
from idql_func.training.seeds.loop import open_members, train_seeds

pytestmark = pytest.mark.reliability


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Eager, without pictures, in episodes of six steps."""
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: _blank(path))
    gym.register(ENVIRONMENT, "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=6)
    with disable_jit():
        yield
    del gym.registry[ENVIRONMENT]


def _blank(path: Any) -> None:
    if hasattr(path, "write"):
        path.write(b"picture")
    else:
        Path(path).write_bytes(b"picture")


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """Four updates of behaviour cloning, without evaluation."""
    write_data(tmp_path / "data.hdf5")
    return dataclasses.replace(
        offline(tmp_path / "runs"),
        learner=BCConfig(hidden_dims=(4,)),
        max_steps=4,
        evaluation=EvaluationConfig(env="none"),
    )


def train(config: Any, **more: Any) -> Path:
    return train_offline(config, reporter=Reporter(quiet=True), **more).run.path


def said_by(config: Any, **more: Any) -> str:
    """What the run prints."""
    stream = io.StringIO()
    train_offline(config, reporter=Reporter(Console(file=stream, width=1000)), **more)
    return stream.getvalue()


def stop_at(step: int, what: Callable[[], Any]) -> Callable[[int], None]:
    return lambda done: what() if done == step else None


def interrupt() -> None:
    raise KeyboardInterrupt


# --- locks ----------------------------------------------------------------------------


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    def hold() -> str:
        lock_folder(tmp_path)
        return str(owner_of(tmp_path))

    code, said = child(hold)
    assert code == 0 and "process " in said
    assert (tmp_path / LOCK).exists() and owner_of(tmp_path) is None  # left, and not locked
    lock = lock_folder(tmp_path)
    assert str(owner_of(tmp_path)).startswith(f"process {os.getpid()}, since 2")
    with pytest.raises(FolderInUse, match=rf"in use by process {os.getpid()}"):
        lock_folder(tmp_path, patience=0)
    assert child(lambda: owner_of(tmp_path) is None) == (0, False)
    assert not lock.lost()
    lock.release()
    assert os.listdir(tmp_path) == []


def test_a_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    process = os.fork()
    if process == 0:
        time.sleep(20)
        os._exit(0)
    lock.release()
    lock_folder(tmp_path, patience=0).release()
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


@pytest.mark.parametrize("without_flock", [False, True])
def test_only_one_of_many_gets_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_flock: bool
) -> None:
    if without_flock:
        _without_flock(monkeypatch)
    (tmp_path / LOCK).write_text(json.dumps({"pid": 2**22 - 1, "host": "nobody"}))
    if without_flock:
        with pytest.raises(FolderInUse, match=r"if that process is gone, remove .*\.lock"):
            lock_folder(tmp_path, patience=0)
        about = {"pid": 2**22 - 1, "host": locks.socket.gethostname()}
        (tmp_path / LOCK).write_text(json.dumps(about))
    got: list[Any] = []

    def attempt() -> None:
        try:
            got.append(lock_folder(tmp_path, patience=0))
        except FolderInUse as error:
            got.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [lock for lock in got if not isinstance(lock, FolderInUse)]
    assert len(held) == 1 and len(got) == 8
    assert owner_of(tmp_path) is not None
    held[0].release()
    assert owner_of(tmp_path) is None and os.listdir(tmp_path) == []


def _without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(handle: int, shared: bool) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_flock", missing)
    monkeypatch.setattr(locks, "fcntl", None)


def test_a_member_and_its_group_are_not_trained_by_two(config: TrainConfig) -> None:
    group = [dataclasses.replace(config, seed=seed) for seed in (0, 1)]
    folder = train_seeds(group, reporter=Reporter(quiet=True)).run.path
    longer = dataclasses.replace(RunDirectory(folder / "seed1").read_config(), max_steps=6)
    lock = lock_folder(folder)
    lock_folder(folder / "seed0", folder).release()  # by the run of the group itself
    code, said = child(lambda: train(longer, resume=folder / "seed1"))
    assert code == 1 and "is in use by process" in said
    lock.release()

    def group_again() -> None:
        more = dataclasses.replace(RunDirectory(folder).read_config(), max_steps=6)
        with pytest.raises(FolderInUse):
            train_seeds(open_members(folder, more), resume=folder, reporter=Reporter(quiet=True))

    during: list[Any] = []
    watch = stop_at(5, lambda: during.append(child(group_again)))
    train(longer, resume=folder / "seed1", on_update=watch)
    assert during == [(0, None)]


# --- starts ---------------------------------------------------------------------------


def start_together(configs: list[TrainConfig], **more: Any) -> list[tuple[int, Any]]:
    """Train in several processes that begin at the same moment."""
    reading, writing = os.pipe()
    waiting, arrived = os.pipe()
    results: list[Any] = [None] * len(configs)

    def work(config: TrainConfig) -> str:
        os.close(writing)
        os.write(arrived, b"a")
        os.read(reading, 1)
        with disable_jit():  # of this thread
            return str(train(config, **more))

    def wait(number: int) -> None:
        results[number] = child(lambda: work(configs[number]))

    threads = [threading.Thread(target=wait, args=(i,)) for i in range(len(configs))]
    for thread in threads:
        thread.start()
    for _ in threads:
        os.read(waiting, 1)
    os.close(writing)
    for thread in threads:
        thread.join()
    for handle in (reading, waiting, arrived):
        os.close(handle)
    return results


WAYS = ["unnamed", "named", "overwrite", "resume"]


@pytest.mark.parametrize("how", WAYS)
def test_two_starts_at_the_same_moment(config: TrainConfig, how: str) -> None:
    start_pairs(config, how, 1)


@pytest.mark.slow
@pytest.mark.parametrize("how", WAYS)
def test_pairs_that_start_at_the_same_moment(
    config: TrainConfig, how: str, at_most: AtMost, tally: Tally
) -> None:
    pairs = min(20, at_most(5))
    start_pairs(config, how, pairs)
    tally("pairs of starts", how, {"trials": pairs, "right": pairs})


def start_pairs(config: TrainConfig, how: str, pairs: int) -> None:
    for pair in range(pairs):
        runs = config.runs_dir / str(pair)
        name = None if how == "unnamed" else "run"
        own = dataclasses.replace(config, runs_dir=runs, name=name)
        more: dict[str, Any] = {}
        if how in ("overwrite", "resume"):
            train(dataclasses.replace(own, max_steps=2))
            more = {"overwrite": True} if how == "overwrite" else {"resume": runs / "run"}
        results = start_together([own, own], **more)
        assert {code for code, _ in results} <= {0, 1}
        done = [Path(path) for code, path in results if code == 0]
        refused = [text for code, text in results if code == 1]
        assert len(set(done)) == len(done) > 0 or how == "overwrite"
        for text in refused:  # too late, or while the other one was at work
            last = text.strip().splitlines()[-1]
            assert "FolderInUse" in last or "already holds" in last or "nothing to" in last, text
        if how == "unnamed":
            assert len(done) == 2
        folders = [path for path in runs.iterdir() if not path.name.startswith(".")]
        assert sorted({*done}) == sorted(folders)
        for folder in folders:
            assert RunDirectory(folder).state == "finished"
            assert not [path for path in folder.rglob(".*")]
            assert len({r["step"] for r in read_metrics(folder / "metrics.jsonl")}) == 2


def test_a_run_that_cannot_begin_leaves_no_folder(config: TrainConfig) -> None:
    bad = dataclasses.replace(config, dataset=dataclasses.replace(config.dataset, source="a.hdf5"))
    runs = config.runs_dir / "deep" / "er"
    for name in (None, "run"):
        with pytest.raises((InputError, FileNotFoundError)):
            train(dataclasses.replace(bad, runs_dir=runs, name=name))
    assert not config.runs_dir.exists()
    runs.mkdir(parents=True)
    with pytest.raises((InputError, FileNotFoundError)):
        train(dataclasses.replace(bad, runs_dir=runs))
    assert os.listdir(runs) == []


# --- overwriting ----------------------------------------------------------------------

FOREIGN = {
    "another config": {"config.json": '{"compilerOptions": {}}'},
    "no settings": {"config.json": "[1]"},
    "damaged settings": {"config.json": '{"seed": '},
    "a paper beside a run": {"config.json": None, "thesis.tex": "years of work"},
    "a folder beside a run": {"config.json": None, "other/config.json": None},
    "a file in checkpoints": {"config.json": None, "checkpoints/notes.txt": "x"},
    "a file in a checkpoint": {"config.json": None, "checkpoints/step_1/notes.txt": "x"},
    "a link to a folder": {"config.json": None, "checkpoints": ".."},
    "only results": {"metrics.jsonl": '{"step": 0}\n'},
    "only a checkpoint": {"checkpoints/step_000000001/checkpoint.json": "{}"},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_overwrite_removes_nothing_but_runs(config: TrainConfig, case: str) -> None:
    folder = config.runs_dir / "run"
    folder.mkdir(parents=True)
    for name, text in FOREIGN[case].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text == "..":
            path.symlink_to(folder.parent)
        elif text is None:
            RunDirectory(path.parent).write_config(config)
        else:
            path.write_text(text)
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=r"something other than a run|does not remove"):
        train(config, overwrite=True)
    assert sorted(folder.rglob("*")) == before


def test_overwrite_replaces_runs_of_every_kind(config: TrainConfig, tmp_path: Path) -> None:
    folder = train_seeds(
        [dataclasses.replace(config, seed=seed) for seed in (0, 1)], reporter=Reporter(quiet=True)
    ).run.path
    assert train(config, overwrite=True) == folder
    (folder / "evaluation.json").write_text("{}")
    (folder / ".config.json.0123456789ab.part").touch()
    assert train(config, overwrite=True) == folder
    whole = train(dataclasses.replace(config, runs_dir=tmp_path / "others"))
    assert content(folder).keys() == content(whole).keys()


@pytest.mark.parametrize("removals", [0, 1, 4])
def test_a_killed_overwrite_leaves_an_empty_folder(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, removals: int
) -> None:
    run, done = RunDirectory(train(config)), 0
    remove = directory._remove

    def killed(path: Path) -> None:
        nonlocal done
        if path.exists():
            if done == removals:
                raise SystemExit
            done += 1
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(directory, "_remove", killed)
        with pytest.raises(SystemExit):
            run.discard()
    assert run.state == "absent" and run.summary.exists()
    assert content(train(config)).keys() >= {"config.json", "summary.json"}
    assert run.state == "finished" and not [*run.path.glob(".*")]


# --- settings, records, folders ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 8), ("seed", 3), ("learner", {"actor_lr": 0.5})]
)
def test_edited_settings_are_refused(config: TrainConfig, name: str, value: Any) -> None:
    run = RunDirectory(train(config))
    settings = json.loads(run.config.read_text())
    settings[name] = {**settings[name], **value} if isinstance(value, dict) else value
    settings["max_steps"] = 6  # may change
    run.config.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=rf"config.json was edited: {name}.* was written with"):
        train(run.read_config(), resume=run.path)
    settings = json.loads(run.config.read_text())
    with pytest.raises(InputError, match="was edited"):
        train(run.read_config(), resume=run.checkpoint(2))


def test_a_moved_run_is_continued(config: TrainConfig, tmp_path: Path) -> None:
    whole = train(dataclasses.replace(config, max_steps=6, runs_dir=tmp_path / "whole"))
    path = train(config)
    os.rename(path, tmp_path / "moved")
    more = dataclasses.replace(RunDirectory(tmp_path / "moved").read_config(), max_steps=6)
    train(more, resume=tmp_path / "moved")
    name = "checkpoints/step_000000006/learner.safetensors"
    assert (tmp_path / "moved" / name).read_bytes() == (whole / name).read_bytes()


def test_lost_records_are_counted(config: TrainConfig) -> None:
    path = train(config) / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    longer = dataclasses.replace(config, max_steps=6)
    path.write_text(lines[0] + lines[1][:9])
    text = said_by(longer, resume=path.parent)
    assert "metrics.jsonl has 1 of the 2 records that were written before" in text
    assert [r["step"] for r in read_metrics(path)] == [0, 4]


def test_a_checkpoint_that_is_not_whole_is_named(config: TrainConfig) -> None:
    path = train(config)
    (path / "checkpoints" / "step_000000009").mkdir()
    text = said_by(dataclasses.replace(config, max_steps=6), resume=path)
    assert "step_000000009 is not whole and is left out" in text


def test_another_version_of_torch_is_said(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = train(config)
    monkeypatch.setattr("torch.__version__", "9.9.9")
    text = said_by(dataclasses.replace(config, max_steps=6), resume=path)
    assert "and continues with 9.9.9: the last bits of its numbers may differ" in text


def test_metrics_that_are_changed_during_a_run_are_written_again(config: TrainConfig) -> None:
    path = config.runs_dir / "run" / "metrics.jsonl"
    for change in (path.unlink, lambda: os.truncate(path, 3)):
        text = said_by(config, overwrite=True, on_update=stop_at(3, change))
        assert "metrics.jsonl was changed by somebody else: it is written again" in text
        assert [r["step"] for r in read_metrics(path)] == [0, 2]
        assert len(path.with_suffix(".csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("remove", [shutil.rmtree, lambda path: path.rename(f"{path}-moved")])
def test_a_folder_that_is_removed_stops_its_run(config: TrainConfig, remove: Any) -> None:
    folder = config.runs_dir / "run"
    with pytest.raises(FileNotFoundError, match="run was removed or moved while its run was in"):
        train(config, on_update=stop_at(1, lambda: remove(folder)))
    assert not folder.exists()


def test_the_row_of_the_final_evaluation_stands_once(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idql_func.training.runs.run import Run

    folder = tmp_path / "online"
    result = train_online(online(folder / "a"), reporter=Reporter(quiet=True))
    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish_member", lambda *_: interrupt())
        with pytest.raises(KeyboardInterrupt):
            train_online(online(folder / "b"), reporter=Reporter(quiet=True))
    run = RunDirectory(folder / "b" / "run")
    assert run.state == "evaluating"
    train_online(online(folder / "b"), resume=run.path, reporter=Reporter(quiet=True))
    assert run.state == "finished"
    assert content(run.path)["metrics.jsonl"] == content(result.run.path)["metrics.jsonl"]


def test_a_group_is_finished_by_its_own_summary(config: TrainConfig) -> None:
    group = [dataclasses.replace(config, seed=seed) for seed in (0, 1)]
    run = train_seeds(group, reporter=Reporter(quiet=True)).run
    before = content(run.path)
    run.summary.unlink()
    RunDirectory(run.path / "seed1").summary.unlink()
    assert run.state == "evaluating"
    train_seeds(open_members(run.path), resume=run.path, reporter=Reporter(quiet=True))
    assert run.state == "finished" and content(run.path) == before


def test_the_lock_of_an_inner_run_that_was_killed_is_removed(config: TrainConfig) -> None:
    group = [dataclasses.replace(config, seed=seed) for seed in (0, 1)]
    run = train_seeds(group, reporter=Reporter(quiet=True)).run
    for name in ("seed1", "offline"):
        (run.path / name).mkdir(exist_ok=True)
        (run.path / name / LOCK).write_text("{}")
    run.clean()
    assert not [*run.path.rglob(LOCK)]


def test_a_group_whose_members_were_lengthened_in_part_is_continued(config: TrainConfig) -> None:
    group = [dataclasses.replace(config, seed=seed) for seed in (0, 1)]
    run = train_seeds(group, reporter=Reporter(quiet=True)).run
    first = RunDirectory(run.path / "seed0")  # as if killed between the members' settings
    first.write_config(dataclasses.replace(first.read_config(), max_steps=6))
    again = open_members(run.path)
    assert [member.max_steps for member in again] == [4, 4]


# --- stopping and full disks ------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_stop_a_run_after_its_checkpoint(config: TrainConfig, number: int) -> None:
    def work() -> str:
        # a test run in the background may have inherited that they are ignored
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)
        stop = stop_at(3, lambda: os.kill(os.getpid(), number))
        with pytest.raises(TrainingInterrupted) as caught:
            train(config, on_update=stop)
        return str(caught.value)

    code, said = child(work)
    assert code == 0 and "continue with --resume" in said, said
    run = RunDirectory(config.runs_dir / "run")
    assert run.state == "training" and owner_of(run.path) is None
    train(config, resume=run.path)


def test_a_full_disk_says_how_to_go_on(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, folder = system.write, config.runs_dir / "run"

    def full(handle: int, data: memoryview) -> int:
        name = os.readlink(f"/proc/self/fd/{handle}")
        if "step_000000004" in name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(system, "write", full)
        with pytest.raises(files.FileWriteError) as caught:
            train(config)
    said = str(caught.value)
    assert "step_000000004 could not be written: No space left on its disk" in said
    assert said.endswith(f"; free some space, then continue with --resume {folder}.")
    assert RunDirectory(folder).state == "training"
    train(config, resume=folder)


LINES = {
    "seeds": (["train", "pointmaze-bc", "--seeds", "1000000"], "1,000,000 members, but at most"),
    "a long seed": (["train", "--seeds", "9" * 5000], "a number of 5000 digits"),
    "grid": (
        ["train", "--seeds", "9000", "--grid", "learner.tau=0.1,0.2"],
        "18,000 members, but at most",
    ),
    "sweep": (["sweep", "pointmaze", "--seeds", "1000000000"], "1,000,000,000 runs, but at most"),
    "start": (["online", "--max-steps", "5"], "start_training is 1000, but must be below max_st"),
    "finetune": (["finetune", "--max-steps", "9"], "but must be below the 8 steps that are taken"),
    "threads": (["online", "--threads", "100000"], "threads is 100000, but must be at most"),
}


@pytest.mark.parametrize("case", LINES)
def test_numbers_that_never_end_are_refused_at_once(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line, sentence = LINES[case]
    began = time.process_time()
    assert main(line) == 2
    assert time.process_time() - began < 10
    captured = capsys.readouterr().err
    assert sentence in captured and len(captured.splitlines()) == 1
    assert not (tmp_path / "runs").exists() or os.listdir(tmp_path / "runs") == []
