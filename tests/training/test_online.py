"""Online runs: their files, determinism, and resuming."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from short_pendulum import SHORT_PENDULUM

from idql_func.data import MemoryEfficientReplayBuffer, ReplayBuffer
from idql_func.training.configs.learners import DrQConfig, SACConfig, TD3Config
from idql_func.training.configs.online import (
    OnlineConfig,
    OnlineEvaluationConfig,
    PixelConfig,
)
from idql_func.training.offline import TrainingInterrupted
from idql_func.training.online import train_online
from idql_func.training.runs.checkpoint import load_checkpoint, read_metadata
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.metrics import read_metrics
from idql_func.transforms import tree_flatten
from idql_func.types import InputError


@pytest.fixture
def online(tmp_path: Path) -> OnlineConfig:
    """Thirty steps of the short pendulum with networks of a few weights."""
    return OnlineConfig(
        env=SHORT_PENDULUM,
        name="tiny",
        runs_dir=tmp_path / "runs",
        seed=5,
        batch_size=4,
        max_steps=30,
        start_training=12,
        log_interval=4,
        checkpoint_interval=10,
        matmul="strict",
        device="cpu",
        learner=SACConfig(hidden_dims=(4,)),
        evaluation=OnlineEvaluationConfig(interval=15, interval_episodes=1, episodes=2),
    )


def leaves(learner: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in tree_flatten(learner)[0]]


def assert_same(one: Any, other: Any) -> None:
    for left, right in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)


def stop_at(step: int) -> Callable[[int], None]:
    def stop(done: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return stop


@pytest.mark.usefixtures("drawn")
def test_run_folder_is_complete_and_consistent(online: OnlineConfig, quiet: Reporter) -> None:
    result = train_online(online, reporter=quiet)
    run = result.run
    assert run.read_config(OnlineConfig) == online
    files = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert {f"checkpoints/step_{n:09d}/checkpoint.json" for n in (10, 20, 30)} <= files
    assert {f for f in files if "replay" in f} == {"replay_buffer/step_000000030.safetensors"}
    assert {"metrics.jsonl", "metrics.csv", "learning_curve.png", "config.json"} <= files

    summary = json.loads(run.summary.read_text())
    assert (summary["steps"], summary["updates"]) == (30, 19)
    assert summary["evaluation"]["policy"]["episodes"] == 2
    assert summary["solved"] is None
    for name in summary["files"].values():
        assert (run.path / name).exists()

    records = read_metrics(run.path / "metrics.jsonl")
    steps = {
        key: [r["step"] for r in records if key in r]
        for key in ("episode/return", "train/critic_loss", "eval/return")
    }
    assert steps == {
        "episode/return": [10, 20, 30],
        "train/critic_loss": [12, 16, 20, 24, 28],
        "eval/return": [15, 30],
    }
    assert [r["updates"] for r in records if "train/q" in r] == [1, 5, 9, 13, 17]


def test_buffer_contains_the_transitions_of_the_run(online: OnlineConfig, quiet: Reporter) -> None:
    result = train_online(online, reporter=quiet)
    buffer = ReplayBuffer.load(result.run.buffer(30))
    rows = buffer.sample(1, indx=np.arange(30))
    assert len(buffer) == buffer.capacity == 30
    np.testing.assert_array_equal(np.flatnonzero(rows["dones"]), [9, 19, 29])
    np.testing.assert_array_equal(rows["masks"], np.ones(30))  # truncated, never terminal
    follows = ~rows["dones"][:-1]
    np.testing.assert_array_equal(
        rows["observations"][1:][follows], rows["next_observations"][:-1][follows]
    )
    returns = [
        r["episode/return"]
        for r in read_metrics(result.run.path / "metrics.jsonl")
        if "episode/return" in r
    ]
    np.testing.assert_allclose(returns, rows["rewards"].reshape(3, 10).sum(1), rtol=1e-5)


def test_seed_determines_the_run(online: OnlineConfig, quiet: Reporter) -> None:
    one = train_online(online, reporter=quiet)
    two = train_online(dataclasses.replace(online, name="two"), reporter=quiet)
    three = train_online(dataclasses.replace(online, name="three", seed=6), reporter=quiet)
    assert_same(one.learner, two.learner)
    assert one.evaluations == two.evaluations
    first, other = (ReplayBuffer.load(r.run.buffer(30)).dataset_dict for r in (one, three))
    assert not (first["actions"][:11] == other["actions"][:11]).any()


def test_evaluation_does_not_change_the_training(online: OnlineConfig, quiet: Reporter) -> None:
    """Evaluation uses separate environments and drops its key (E14, E8)."""
    one = train_online(online, reporter=quiet)
    evaluation = dataclasses.replace(online.evaluation, interval=4, interval_episodes=3)
    two = train_online(
        dataclasses.replace(online, name="two", evaluation=evaluation), reporter=quiet
    )
    assert_same(one.learner, two.learner)


@pytest.mark.parametrize("stop", [5, 10, 17, 25])
def test_resumed_run_has_the_same_bits(online: OnlineConfig, quiet: Reporter, stop: int) -> None:
    """Runs stop inside an episode, at its end, before and after the first update."""
    whole = train_online(dataclasses.replace(online, name="whole"), reporter=quiet)
    with pytest.raises(TrainingInterrupted, match="--resume") as stopped:
        train_online(online, reporter=quiet, on_step=stop_at(stop))
    run = stopped.value.run
    assert read_metadata(run.checkpoint(stop)).extra["loop"]["step"] == stop
    result = train_online(run.read_config(OnlineConfig), resume=run.path, reporter=quiet)
    assert_same(result.learner, whole.learner)
    kept, full = (load_file(r.run.buffer(30)) for r in (result, whole))
    assert kept.keys() == full.keys()
    for name in kept:
        np.testing.assert_array_equal(kept[name], full[name])

    def comparable_records(run: Any) -> list[dict[str, Any]]:
        records = read_metrics(run.path / "metrics.jsonl")
        return [{k: v for k, v in r.items() if k != "steps_per_second"} for r in records]

    assert comparable_records(result.run) == comparable_records(whole.run)


def test_ctrl_c_waits_for_the_end_of_the_step(online: OnlineConfig, quiet: Reporter) -> None:
    before = signal.getsignal(signal.SIGINT)  # a background job ignores the signal
    done: list[int] = []

    def press(step: int) -> None:
        done.append(step)
        if step == 7:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        train_online(online, reporter=quiet, on_step=press)
    assert done[-1] == 7
    assert signal.getsignal(signal.SIGINT) == before


def test_finished_run_resumes_with_more_steps(online: OnlineConfig, quiet: Reporter) -> None:
    first = train_online(online, reporter=quiet)
    longer = dataclasses.replace(online, max_steps=36)
    result = train_online(longer, resume=first.run.path, reporter=quiet)
    assert result.summary["steps"] == 36
    assert len(ReplayBuffer.load(result.run.buffer(36))) == 36


@pytest.mark.parametrize(
    ("learner", "more"),
    [
        (TD3Config(hidden_dims=(4,)), {}),
        (SACConfig(hidden_dims=(4,), num_qs=4, num_min_qs=2), {"utd_ratio": 3}),
        (SACConfig(hidden_dims=(4,), critic_dropout_rate=0.1, critic_layer_norm=True), {}),
        (SACConfig(hidden_dims=(4,)), {"replay_capacity": 7}),
    ],
)
def test_every_online_learner_trains(
    online: OnlineConfig, quiet: Reporter, learner: Any, more: dict[str, Any]
) -> None:
    config = dataclasses.replace(online, learner=learner, max_steps=20, **more)
    result = train_online(config, reporter=quiet)
    again, metadata = load_checkpoint(result.run.checkpoint(20))
    assert_same(again, result.learner)
    assert metadata.extra["env"] == SHORT_PENDULUM
    assert all(np.isfinite(leaf).all() for leaf in leaves(result.learner))


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("efficient", [True, False])
def test_training_from_images_saves_its_frames(
    online: OnlineConfig, quiet: Reporter, efficient: bool
) -> None:
    config = dataclasses.replace(
        online,
        learner=DrQConfig(
            hidden_dims=(4,), cnn_features=(2,), cnn_filters=(3,), cnn_strides=(2,), latent_dim=3
        ),
        pixels=PixelConfig(image_size=8, num_stack=2, action_repeat=2, memory_efficient=efficient),
        max_steps=34,
        start_training=13,
        evaluation=OnlineEvaluationConfig(interval=40, episodes=1),
    )
    result = train_online(config, reporter=quiet)
    assert (result.summary["steps"], result.summary["updates"]) == (34, 5)
    records = read_metrics(result.run.path / "metrics.jsonl")
    assert [r["step"] for r in records if "episode/return" in r] == [10, 20, 30]
    cls = MemoryEfficientReplayBuffer if efficient else ReplayBuffer
    batch = cls.load(result.run.buffer(17)).sample(3)
    assert batch["observations"]["pixels"].shape == (3, 8, 8, 3, 2)
    assert result.run.frames.exists()
    loaded, metadata = load_checkpoint(result.run.checkpoint(17))
    assert metadata.extra["pixels"]["action_repeat"] == 2
    assert_same(loaded, result.learner)


def test_bad_input_raises_and_writes_nothing(online: OnlineConfig, quiet: Reporter) -> None:
    for change, sentence in [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"start_training": 0}, "start_training is 0"),
        ({"name": "a/b"}, "plain folder name"),
        ({"env": "NoSuch-v0"}, "NoSuch-v0"),
        ({"learner": SACConfig(tau=2.0)}, "tau"),
        ({"pixels": PixelConfig(prefetch=0)}, "pixels.prefetch is 0"),
        ({"env": "CartPole-v1"}, "continuous actions"),
    ]:
        with pytest.raises(InputError, match=sentence):
            train_online(dataclasses.replace(online, **change), reporter=quiet)
    assert not online.runs_dir.exists()


def test_run_that_cannot_be_resumed_raises(online: OnlineConfig, quiet: Reporter) -> None:
    run = train_online(online, reporter=quiet).run
    with pytest.raises(InputError, match="nothing to continue"):
        train_online(online, resume=run.path, reporter=quiet)
    with pytest.raises(InputError, match=r"cannot change batch_size, learner\.tau"):
        changed = dataclasses.replace(
            online, batch_size=5, learner=SACConfig(hidden_dims=(4,), tau=0.1)
        )
        train_online(changed, resume=run.path, reporter=quiet)
    with pytest.raises(InputError, match=r"replay buffer .* is gone"):
        train_online(online, resume=run.checkpoint(10), reporter=quiet)
    with pytest.raises(InputError, match="already holds a finished run"):
        train_online(online, reporter=quiet)
    with pytest.raises(InputError, match=r"of `idql online`, not of `idql train`"):
        run.read_config()


def test_diverged_policy_raises(online: OnlineConfig, quiet: Reporter) -> None:
    config = dataclasses.replace(online, learner=SACConfig(hidden_dims=(4,), actor_lr=1e30))
    with pytest.raises(InputError, match="not finite: its training has diverged"):
        train_online(config, reporter=quiet)


def test_update_gets_utd_ratio_times_batch_size_rows(
    online: OnlineConfig, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idql_func.agents import SACLearner

    seen: list[tuple[int, int]] = []
    update = SACLearner.update

    def recorded(self: Any, batch: Any, utd_ratio: int = 1, **options: Any) -> Any:
        seen.append((len(batch["rewards"]), utd_ratio))
        assert all(isinstance(value, torch.Tensor) for value in batch.values())
        return update(self, batch, utd_ratio, **options)

    monkeypatch.setattr(SACLearner, "update", recorded)
    train_online(dataclasses.replace(online, utd_ratio=3, max_steps=14), reporter=quiet)
    assert seen == [(12, 3)] * 3
