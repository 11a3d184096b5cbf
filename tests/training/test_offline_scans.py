"""The offline loop's scans: their length, and Ctrl-C in the middle of one."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from idql_func import disable_jit
from idql_func.agents import BCLearner
from idql_func.data import Dataset, ReplayBuffer
from idql_func.training import offline, offline_loop
from idql_func.training.configs.learners import BCConfig
from idql_func.training.configs.offline import DatasetConfig, TrainConfig
from idql_func.training.offline import TrainingInterrupted, train_offline
from idql_func.training.offline_loop import ScanLength
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.metrics import read_metrics
from idql_func.training.runtime.interrupts import delayed_interrupts
from idql_func.training.task import prepare_task
from idql_func.tree import tree_leaves, tree_paths

BC = BCConfig(hidden_dims=(8,), dropout_rate=0.1)


def replace(config: TrainConfig, **changes: Any) -> TrainConfig:
    return dataclasses.replace(config, **changes)


def assert_same_bits(left: Any, right: Any) -> None:
    assert tree_paths(left) == tree_paths(right)
    for name, a, b in zip(tree_paths(left), tree_leaves(left), tree_leaves(right), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)), name


def losses(config: TrainConfig) -> list[dict[str, Any]]:
    records = read_metrics(config.runs_dir / str(config.name) / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k != "updates_per_second"} for r in records]


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The length of each call, and whether it reuses the learner's memory."""
    seen: list[tuple[int, bool]] = []
    scan = offline.scan_updates

    def counted(learner: Any, arrays: Any, key: Any, steps: int, size: int, **options: Any) -> Any:
        seen.append((steps, options["donate"]))
        return scan(learner, arrays, key, steps, size, **options)

    monkeypatch.setattr(offline, "scan_updates", counted)
    return seen


@pytest.fixture
def long_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make scans end only at events, not after a time."""
    long = ScanLength(seconds=1e9, updates=1_000)
    monkeypatch.setattr(offline_loop, "ScanLength", lambda: long)


def press_ctrl_c_at(
    monkeypatch: pytest.MonkeyPatch, cls: type, call: int, presses: int = 1
) -> Callable[[], int]:
    """Press Ctrl-C in update number ``call``; return a function that counts the updates."""
    update, made = cls.update, [0]

    def interrupted(self: Any, batch: Any, **options: Any) -> Any:
        made[0] += 1
        if made[0] == call:
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)
        return update(self, batch, **options)

    monkeypatch.setattr(cls, "update", interrupted)
    return lambda: made[0]


@pytest.fixture(autouse=True)
def ctrl_c_interrupts() -> Iterator[None]:
    """Handle Ctrl-C as in a terminal; a background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("long_scans")
def test_scans_end_at_events(
    tiny: TrainConfig, quiet: Reporter, scans: list[tuple[int, bool]]
) -> None:
    train_offline(replace(tiny, max_steps=16, log_interval=6), reporter=quiet)
    # the first update and logged updates do not donate the state; checkpoints after
    # 5, 10 and 15 updates end a scan
    assert scans == [
        (1, False),  # step 0, logged
        (4, True),  # checkpoint after 5
        (1, True),
        (1, False),  # step 6, logged
        (3, True),  # checkpoint after 10
        (2, True),
        (1, False),  # step 12, logged
        (2, True),  # checkpoint after 15
        (1, True),
    ]


def test_scan_length_adapts_to_the_time(
    tiny: TrainConfig, quiet: Reporter, scans: list[tuple[int, bool]], monkeypatch: Any
) -> None:
    monkeypatch.setattr(
        ScanLength, "record", lambda self, updates, seconds: setattr(self, "updates", 3)
    )
    train_offline(
        replace(tiny, max_steps=12, log_interval=100, checkpoint_interval=100), reporter=quiet
    )
    assert scans == [(1, False), (1, True), (3, True), (3, True), (3, True), (1, True)]


@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize("call", [2, 5, 9])
@pytest.mark.usefixtures("long_scans")
def test_ctrl_c_waits_for_the_scan_and_the_resumed_run_has_the_same_bits(
    tiny: TrainConfig, quiet: Reporter, monkeypatch: pytest.MonkeyPatch, call: int, presses: int
) -> None:
    settings = {"log_interval": 4, "checkpoint_interval": 100, "learner": BC}
    whole = train_offline(replace(tiny, name="whole", **settings), reporter=quiet)
    cut = replace(tiny, name="cut", **settings)
    with monkeypatch.context() as patch:
        made = press_ctrl_c_at(patch, BCLearner, call, presses)
        with pytest.raises(TrainingInterrupted) as stop:
            train_offline(cut, reporter=quiet)
    # steps 0, 4 and 8 are logged and are single calls; the scans between end after 4 and 8
    expected = {2: (4, 4), 5: (4, 5), 9: (8, 9)}[call]
    assert (stop.value.updates, made()) == expected
    resumed = train_offline(cut, resume=stop.value.run.path, reporter=quiet)
    assert_same_bits(whole.learner, resumed.learner)
    assert losses(replace(tiny, name="whole")) == losses(cut)


@pytest.mark.usefixtures("long_scans")
def test_hanging_update_can_be_interrupted(
    tiny: TrainConfig, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner may be partly overwritten then, so no further checkpoint is written."""
    monkeypatch.setattr(offline_loop, "_PATIENCE", 0.0)
    press_ctrl_c_at(monkeypatch, BCLearner, call=9, presses=2)
    config = replace(tiny, log_interval=100, learner=BC)
    with pytest.raises(KeyboardInterrupt) as stop:
        train_offline(config, reporter=quiet)
    assert not isinstance(stop.value, TrainingInterrupted)
    run = tiny.runs_dir / "tiny"
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000000005"]


def test_batches_of_a_buffer_are_the_same_as_of_a_dataset(
    tiny: TrainConfig, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows of a saved replay buffer are training data."""
    task = prepare_task(tiny)
    fields = task.train.dataset_dict
    buffer = ReplayBuffer(task.observation_space, task.action_space, len(task.train))
    for i in range(len(task.train)):
        names = ("observations", "next_observations", "actions", "rewards", "masks", "dones")
        buffer.insert({name: fields[name][i] for name in names})
    path = buffer.save(tiny.runs_dir.parent / "buffer.safetensors")
    config = replace(
        tiny,
        learner=BC,
        log_interval=5,
        dataset=DatasetConfig(source=str(path), train_fraction=1.0),
    )
    result = train_offline(config, reporter=quiet)
    task = prepare_task(config)
    assert isinstance(task.train, ReplayBuffer)
    learner = BCLearner.create(0, task.observation_space, task.action_space, **BC.keywords())
    rows = Dataset(fields, seed=config.seed)
    for _ in range(12):
        learner, _ = learner.update(rows.sample_torch(8, keys=("observations", "actions")))
    assert_same_bits(result.learner, learner)


@pytest.mark.parametrize("jitted", [False, True])
def test_compiled_runs_resume_with_the_same_bits(
    tiny: TrainConfig, quiet: Reporter, monkeypatch: pytest.MonkeyPatch, jitted: bool
) -> None:
    """With donated memory, the saved, logged and returned values are complete."""
    config = replace(tiny, learner=BC, log_interval=5, checkpoint_interval=4)
    with disable_jit(not jitted):
        whole = train_offline(replace(config, name="whole"), reporter=quiet)
        cut = replace(config, name="cut")

        def stop(done: int) -> None:
            if done == 7:
                raise KeyboardInterrupt

        with pytest.raises(TrainingInterrupted, match="after 7 updates"):
            train_offline(cut, reporter=quiet, on_update=stop)
        resumed = train_offline(cut, resume=tiny.runs_dir / "cut", reporter=quiet)
        assert_same_bits(whole.learner, resumed.learner)
        assert losses(replace(config, name="whole")) == losses(cut)
        assert resumed.learner.actor.step.item() == 12


def test_second_ctrl_c_interrupts_after_the_patience() -> None:
    with delayed_interrupts(patience=60.0) as interrupt:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert interrupt.pending
    with pytest.raises(KeyboardInterrupt), delayed_interrupts() as interrupt:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
