"""Fine-tuning: both variants, from a trained run or from nothing, interrupted and resumed."""

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
from short_pendulum import SHORT_PENDULUM

from idql_func import disable_jit
from idql_func.agents import DDPMIQLLearner
from idql_func.data import ReplayBuffer
from idql_func.training.configs.finetune import FinetuneConfig, FinetuneEvaluationConfig
from idql_func.training.configs.learners import IQLConfig
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.finetune import finetune, settings_for_start
from idql_func.training.offline import TrainingInterrupted, train_offline
from idql_func.training.runs.checkpoint import load_checkpoint
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import open_run_directory
from idql_func.training.runs.metrics import read_metrics
from idql_func.transforms import tree_flatten
from idql_func.types import InputError


@pytest.fixture
def tuned(tmp_path: Path, tiny: TrainConfig) -> FinetuneConfig:
    """Twelve offline updates, then 24 steps of the short pendulum."""
    evaluation = dataclasses.replace(tiny.evaluation, env=SHORT_PENDULUM, N=(2,))
    return FinetuneConfig(
        runs_dir=tmp_path / "runs",
        name="tuned",
        seed=4,
        max_steps=25,
        start_training=6,
        online_batch=3,
        offline_batch=5,
        log_interval=4,
        checkpoint_interval=8,
        matmul="strict",
        device="cpu",
        evaluation=FinetuneEvaluationConfig(N=(1, 3), interval=12, interval_episodes=1, episodes=2),
        offline=dataclasses.replace(tiny, evaluation=evaluation),
    )


@pytest.fixture(scope="module")
def offline_run(
    tmp_path_factory: pytest.TempPathFactory, pendulum_file: Path
) -> Callable[[FinetuneConfig], Path]:
    """Trains the offline policy of a configuration once for all tests."""
    made: list[Path] = []

    def run(config: FinetuneConfig) -> Path:
        if not made:
            offline = dataclasses.replace(
                config.offline, runs_dir=tmp_path_factory.mktemp("offline"), seed=4
            )
            with disable_jit():
                made.append(train_offline(offline, reporter=Reporter(quiet=True)).run.path)
        return made[0]

    return run


@pytest.fixture
def started(tuned: FinetuneConfig, offline_run: Callable[[FinetuneConfig], Path]) -> FinetuneConfig:
    """The same settings, starting from a trained policy."""
    return settings_for_start(tuned, offline_run(tuned))


def leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in tree_flatten(tree)[0]]


def same(one: Any, other: Any) -> bool:
    return all((a == b).all() for a, b in zip(leaves(one), leaves(other), strict=True))


@pytest.mark.usefixtures("drawn")
def test_finetune_trains_the_offline_policy_first(tuned: FinetuneConfig, quiet: Reporter) -> None:
    result = finetune(tuned, reporter=quiet)
    run = result.run
    assert run.read_config(FinetuneConfig) == tuned
    assert (run.path / "offline" / "summary.json").exists()
    assert open_run_directory(run.path / "offline").read_config().seed == 4
    summary = json.loads(run.summary.read_text())
    # 24 of the 25 requested steps (L5); updates start after step 6, after 12 offline updates
    assert (summary["steps"], summary["updates"], summary["offline_updates"]) == (24, 30, 12)
    assert set(summary["before"]) == set(summary["evaluation"]) == {"1", "3"}
    records = read_metrics(run.path / "metrics.jsonl")
    assert [r["step"] for r in records if "val/actor_loss" in r] == [0, 2, 4, 6, 8, 10]
    assert [r["step"] for r in records if "eval/N=3/return" in r] == [12, 24, 36]
    assert [r["step"] for r in records if "episode/return" in r] == [22, 32]
    online = [r for r in records if "train/q" in r and r["step"] > 12]
    assert [(r["step"], r["updates"]) for r in online] == [
        (20, 14), (24, 18), (28, 22), (32, 26), (36, 30)
    ]  # fmt: skip
    loaded, metadata = load_checkpoint(run.checkpoint(24))
    assert same(loaded, result.learner)
    assert (metadata.updates, metadata.extra["env"]) == (30, SHORT_PENDULUM)


@pytest.mark.parametrize("trained", [False, True])
def test_actor_is_frozen_or_trained_by_the_settings(
    started: FinetuneConfig, quiet: Reporter, trained: bool
) -> None:
    """The actor is frozen in the first variant, and learns in the second."""
    exploration = "implicit" if trained else "greedy"
    config = dataclasses.replace(started, train_actor=trained, exploration=exploration)
    result = finetune(config, reporter=quiet)
    assert started.start is not None
    before, _ = load_checkpoint(open_run_directory(started.start).checkpoint(12))
    after = result.learner
    for name in ("score_model", "target_score_model"):
        assert same(getattr(before, name).params, getattr(after, name).params) is not trained
    for name in ("critic", "value", "target_critic"):
        assert not same(getattr(before, name).params, getattr(after, name).params)
    assert after.N == before.N == 2
    assert not (result.run.path / "offline").exists()


def test_batches_mix_online_and_offline_data(
    started: FinetuneConfig, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    update = DDPMIQLLearner.critic_update
    monkeypatch.setattr(
        DDPMIQLLearner, "critic_update", lambda self, b: (seen.append(b), update(self, b))[1]
    )
    result = finetune(started, reporter=quiet)
    buffer = ReplayBuffer.load(result.run.buffer(24)).dataset_dict
    kept = {tuple(row) for row in buffer["observations"].tolist()}
    assert len(seen) == 18
    for batch in seen:
        rows = [tuple(row) in kept for row in batch["observations"].tolist()]
        assert rows == [True] * 3 + [False] * 5
    # Offline rewards were scaled by their returns; online ones are not (D16).
    assert set(seen[-1]["rewards"][:3].tolist()) <= set(buffer["rewards"].tolist())


@pytest.mark.parametrize(
    ("offline", "normalize", "change"),
    [
        ("minus_one", False, lambda r, scale: r - 1),
        ("as_stored", True, lambda r, scale: r),
        ("normalize_returns", False, lambda r, scale: r),
        ("normalize_returns", True, lambda r, scale: r * scale),
    ],
)
def test_stored_rewards_follow_the_settings(
    started: FinetuneConfig, quiet: Reporter, offline: Any, normalize: bool, change: Any
) -> None:
    from idql_func.training.sources import load_source

    dataset = dataclasses.replace(started.offline.dataset, rewards=offline)
    config = dataclasses.replace(
        started,
        max_steps=11,
        normalize_online_rewards=normalize,
        offline=dataclasses.replace(started.offline, dataset=dataset),
    )
    result = finetune(config, reporter=quiet)
    records = read_metrics(result.run.path / "metrics.jsonl")
    total = next(r["episode/return"] for r in records if "episode/return" in r)
    returns = load_source(dataset).dataset.trajectory_boundaries_and_returns()[2]
    scale = 1_000 / float(returns.max() - returns.min())
    kept = ReplayBuffer.load(result.run.buffer(10)).dataset_dict["rewards"]
    offset = -10 if offline == "minus_one" else 0
    expected = change(total, scale) if offset == 0 else total + offset
    assert kept.sum() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stop", [4, 15])
def test_resumed_run_has_the_same_bits(started: FinetuneConfig, quiet: Reporter, stop: int) -> None:
    def interrupt(step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    config = dataclasses.replace(started, train_actor=True)
    whole = finetune(dataclasses.replace(config, name="whole"), reporter=quiet)
    with pytest.raises(TrainingInterrupted) as stopped:
        finetune(config, reporter=quiet, on_step=interrupt)
    run = stopped.value.run
    result = finetune(run.read_config(FinetuneConfig), resume=run.path, reporter=quiet)
    assert same(result.learner, whole.learner)
    assert result.before[3]["returns"] == whole.before[3]["returns"]

    def comparable_records(run: Any) -> list[dict[str, Any]]:
        records = read_metrics(run.path / "metrics.jsonl")
        return [{k: v for k, v in r.items() if "_per_second" not in k} for r in records]

    assert comparable_records(run) == comparable_records(whole.run)


def test_run_interrupted_offline_resumes_offline(
    tuned: FinetuneConfig, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, calls = DDPMIQLLearner.update, []

    def interrupted(self: Any, batch: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:
            signal.raise_signal(signal.SIGINT)
        return update(self, batch, **options)

    monkeypatch.setattr(DDPMIQLLearner, "update", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
    try:
        with pytest.raises(TrainingInterrupted, match=r"after \d+ updates") as stopped:
            finetune(tuned, reporter=quiet)
    finally:
        signal.signal(signal.SIGINT, before)
    assert 8 <= stopped.value.updates < 12
    run = stopped.value.run
    assert run.path.name == "tuned"
    result = finetune(tuned, resume=run.path, reporter=quiet)
    assert len(calls) == 12  # no update is repeated
    assert result.summary["steps"] == 24


def test_collection_uses_the_last_n_or_collect_n(
    started: FinetuneConfig, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default is the last N of the evaluation, which upstream's loop leaves set (E10)."""
    seen: list[int] = []
    act = DDPMIQLLearner.eval_actions

    def recorded(self: Any, observations: Any) -> Any:
        if np.ndim(observations) == 1:
            seen.append(self.N)
        return act(self, observations)

    monkeypatch.setattr(DDPMIQLLearner, "eval_actions", recorded)
    short = dataclasses.replace(started, max_steps=4, start_training=2)
    finetune(short, reporter=quiet)
    finetune(dataclasses.replace(short, name="other", collect_N=5), reporter=quiet)
    assert seen == [3] * 3 + [5] * 3


def test_bad_input_raises_and_writes_nothing(
    tuned: FinetuneConfig, started: FinetuneConfig, quiet: Reporter
) -> None:
    no_environment = dataclasses.replace(tuned.offline.evaluation, env="none")
    for config, sentence in [
        (dataclasses.replace(tuned, max_steps=1), "max_steps is 1"),
        (dataclasses.replace(tuned, online_batch=0), "online_batch is 0"),
        (
            dataclasses.replace(tuned, evaluation=FinetuneEvaluationConfig(N=())),
            r"evaluation\.N is empty",
        ),
        (
            dataclasses.replace(
                tuned, offline=dataclasses.replace(tuned.offline, learner=IQLConfig())
            ),
            "trains a IQLLearner, but what is fine-tuned",
        ),
        (
            dataclasses.replace(
                tuned, offline=dataclasses.replace(tuned.offline, evaluation=no_environment)
            ),
            "name no environment",
        ),
    ]:
        with pytest.raises(InputError, match=sentence):
            finetune(config, reporter=quiet)
    with pytest.raises(FileNotFoundError, match="no run or checkpoint"):
        finetune(dataclasses.replace(started, start=Path("gone")), reporter=quiet)
    assert not tuned.runs_dir.exists()
