"""The offline loop: resumed runs, held-out losses, written files, and bad input."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console

from idql_func import agents, random
from idql_func.training.configs.learners import GeneralDDPMIQLConfig
from idql_func.training.configs.offline import DatasetConfig, EvaluationConfig, TrainConfig
from idql_func.training.offline import TrainingInterrupted, train_offline
from idql_func.training.runs.checkpoint import TENSORS, load_checkpoint
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.runs.metrics import read_metrics
from idql_func.training.task import prepare_task
from idql_func.tree import tree_leaves, tree_paths
from idql_func.types import InputError

GENERAL = GeneralDDPMIQLConfig(
    actor_hidden_dims=(8,), critic_hidden_dims=(8,), time_dim=4, T=2, N=2, actor_objective="exp_adv"
)


def replace(config: Any, **changes: Any) -> Any:
    return dataclasses.replace(config, **changes)


def leaves(learner: Any) -> dict[str, Any]:
    return dict(zip(tree_paths(learner), tree_leaves(learner), strict=True))


def assert_same_bits(left: Any, right: Any) -> None:
    a, b = leaves(left), leaves(right)
    assert a.keys() == b.keys()
    for name in a:
        assert type(a[name]) is type(b[name]), name
        tensor = isinstance(a[name], torch.Tensor)
        assert torch.equal(a[name], b[name]) if tensor else a[name] == b[name], name


def losses(run: RunDirectory) -> list[dict[str, Any]]:
    """All logged values except the speed, which differs between runs."""
    records = read_metrics(run.path / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k != "updates_per_second"} for r in records]


def stop_after(updates: int) -> Any:
    def check(done: int) -> None:
        if done == updates:
            raise KeyboardInterrupt

    return check


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("stop", [1, 5, 8])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    tiny: TrainConfig, quiet: Reporter, general: bool, stop: int
) -> None:
    config = replace(tiny, learner=GENERAL) if general else tiny
    whole = train_offline(replace(config, name="whole"), reporter=quiet)
    cut = replace(config, name="cut")
    with pytest.raises(TrainingInterrupted, match=f"after {stop} updates; continue with --resume"):
        train_offline(cut, reporter=quiet, on_update=stop_after(stop))
    folder = tiny.runs_dir / "cut"
    assert not (folder / "summary.json").exists()
    resumed = train_offline(cut, resume=folder, reporter=quiet)
    assert_same_bits(whole.learner, resumed.learner)
    assert losses(whole.run) == losses(resumed.run)
    assert len(losses(whole.run)) == 6
    for name in sorted(os.listdir(whole.run.checkpoints)):
        a, b = (r.run.checkpoints / name / TENSORS for r in (whole, resumed))
        assert a.read_bytes() == b.read_bytes(), name


def test_step_interrupted_in_the_middle_is_repeated(
    tiny: TrainConfig, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C arrives after the step's batch was drawn and its losses were logged."""
    whole = train_offline(replace(tiny, name="whole"), reporter=quiet)
    bar = "idql_func.training.runs.console.TrainingBar.losses"

    def interrupt(self: Any, record: dict[str, Any]) -> None:
        if record["step"] == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bar, interrupt)
        with pytest.raises(TrainingInterrupted, match="after 6 updates"):
            train_offline(replace(tiny, name="cut"), reporter=quiet)
    resumed = train_offline(replace(tiny, name="cut"), resume=tiny.runs_dir / "cut", reporter=quiet)
    assert_same_bits(whole.learner, resumed.learner)
    assert losses(whole.run) == losses(resumed.run)


def test_finished_run_resumes_with_more_steps_from_any_checkpoint(
    tiny: TrainConfig, quiet: Reporter
) -> None:
    whole = train_offline(replace(tiny, name="whole"), reporter=quiet)
    short = replace(tiny, name="short", max_steps=8)
    first = train_offline(short, reporter=quiet)
    longer = replace(short, max_steps=12)
    resumed = train_offline(longer, resume=first.run.path, reporter=quiet)
    assert_same_bits(whole.learner, resumed.learner)
    assert losses(whole.run) == losses(resumed.run)
    again = train_offline(longer, resume=first.run.checkpoint(5), reporter=quiet)
    assert_same_bits(whole.learner, again.learner)
    assert sorted(os.listdir(again.run.checkpoints)) == [
        "step_000000005",
        "step_000000010",
        "step_000000012",
    ]


def test_logging_and_evaluation_do_not_change_the_training(
    tiny: TrainConfig, quiet: Reporter
) -> None:
    evaluation = EvaluationConfig(
        env="ShortPendulum-v0", N=(1, 2), interval=4, interval_episodes=1, episodes=2
    )
    often = train_offline(
        replace(tiny, name="often", log_interval=1, evaluation=evaluation), reporter=quiet
    )
    seldom = train_offline(replace(tiny, name="seldom", log_interval=100), reporter=quiet)
    assert_same_bits(often.learner, seldom.learner)


def test_loop_equals_single_updates_on_sampled_batches(tiny: TrainConfig, quiet: Reporter) -> None:
    """The loop discards one batch (D3), then makes one update per batch."""
    result = train_offline(tiny, reporter=quiet)
    task = prepare_task(tiny)
    learner = agents.DDPMIQLLearner.create(
        tiny.seed, task.observation_space, task.action_space, **tiny.learner.keywords()
    )
    task.train.sample_torch(8)
    for step in range(12):
        learner, info = learner.update(task.train.sample_torch(8))
        if step == 10:
            key = random.fold_in(random.PRNGKey(tiny.seed), step)
            _, held_out = learner.eval_loss(task.held_out.sample_torch(8, key=key))
            record = losses(result.run)[-1]
            assert record["step"] == 10 and record["updates"] == 11
            assert {k[6:]: v for k, v in record.items() if k.startswith("train/")} == {
                k: v.item() for k, v in info.items()
            }
            assert {k[4:]: v for k, v in record.items() if k.startswith("val/")} == {
                k: v.item() for k, v in held_out.items()
            }
    assert_same_bits(learner, result.learner)


def test_losses_are_fetched_at_log_points_only(
    tiny: TrainConfig, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idql_func.training.runs import run

    fetched = []
    fetch = run.fetch_losses
    monkeypatch.setattr(run, "fetch_losses", lambda g: fetched.append(1) or fetch(g))
    train_offline(replace(tiny, log_interval=5), reporter=quiet)
    assert len(fetched) == 3  # steps 0, 5 and 10


@pytest.mark.usefixtures("drawn")
def test_run_folder_is_complete_and_consistent(tiny: TrainConfig) -> None:
    stream = io.StringIO()
    config = replace(
        tiny,
        evaluation=EvaluationConfig(N=(1, 2), interval=5, interval_episodes=1, episodes=2),
    )
    result = train_offline(config, reporter=Reporter(Console(file=stream, width=120)))
    folder = result.run.path
    assert sorted(os.listdir(folder)) == [
        "checkpoints",
        "config.json",
        "learning_curve.png",
        "metrics.csv",
        "metrics.jsonl",
        "summary.json",
    ]
    assert result.run.read_config() == config
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == result.summary
    assert summary["updates"] == 12
    assert summary["evaluation"]["2"]["episodes"] == 2
    assert summary["evaluation"]["2"]["return"] == np.mean(summary["evaluation"]["2"]["returns"])
    assert summary["behaviour"]["episodes"] == 10
    for name in summary["files"].values():
        assert (folder / name).exists()
    records = read_metrics(folder / "metrics.jsonl")
    evaluations = [r for r in records if "eval/N=1/return" in r]
    assert [(r["step"], r["updates"]) for r in evaluations] == [(5, 6), (10, 11), (12, 12)]
    assert evaluations[-1]["eval/N=2/return"] == summary["evaluation"]["2"]["return"]
    assert imread(folder / "learning_curve.png").std() > 0.05
    learner, metadata = load_checkpoint(folder / summary["files"]["checkpoint"])
    assert_same_bits(learner, result.learner)
    assert metadata.extra["env"] == "ShortPendulum-v0"
    text = stream.getvalue()
    for part in ("370 transitions", "return after 6 updates", "N = 2", "behaviour", "summary.json"):
        assert part in text, part


@pytest.mark.usefixtures("drawn")
def test_maze_run_draws_its_trajectories(tiny: TrainConfig, quiet: Reporter) -> None:
    pytest.importorskip("gymnasium_robotics")
    config = replace(
        tiny,
        max_steps=2,
        dataset=DatasetConfig(pointmaze_steps=700),
        evaluation=EvaluationConfig(N=(1,), episodes=2),
    )
    result = train_offline(config, reporter=quiet)
    assert imread(result.run.trajectories).std() > 0.05
    assert result.evaluations[1]["length"] == 300
    assert result.summary["evaluation"]["1"]["normalized_score"] is not None
    assert "trajectories" not in result.summary["evaluation"]["1"]


def test_seed_determines_the_run(tiny: TrainConfig, quiet: Reporter) -> None:
    runs = [
        train_offline(replace(tiny, name=f"run{i}", seed=seed), reporter=quiet)
        for i, seed in enumerate((0, 0, 1))
    ]
    assert_same_bits(runs[0].learner, runs[1].learner)
    assert losses(runs[0].run) == losses(runs[1].run) != losses(runs[2].run)
    tasks = [prepare_task(replace(tiny, seed=seed)) for seed in (0, 1)]
    first, second = (task.held_out.dataset_dict["observations"] for task in tasks)
    assert first.shape == (20, 3) and not np.array_equal(first, second)


def test_rewards_follow_the_settings(tiny: TrainConfig) -> None:
    def rewards(how: Any) -> np.ndarray:
        config = replace(tiny, dataset=replace(tiny.dataset, rewards=how))
        task = prepare_task(config)
        return np.sort(
            np.concatenate([d.dataset_dict["rewards"] for d in (task.train, task.held_out)])
        )

    stored = rewards("as_stored")
    np.testing.assert_array_equal(rewards("minus_one"), stored - np.float32(1))
    scaled = rewards("normalize_returns")
    factor = scaled / stored
    np.testing.assert_allclose(factor, factor[0], rtol=1e-5)
    assert prepare_task(tiny).behaviour == prepare_task(replace(tiny, seed=3)).behaviour


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": DatasetConfig(source="missing.hdf5")}, "missing.hdf5"),
        ({"device": "nonsense"}, "device is 'nonsense'"),
        ({"evaluation": EvaluationConfig(env="CartPole-v1")}, "continuous actions"),
        (
            {"evaluation": EvaluationConfig(env="MountainCarContinuous-v0")},
            "observations of the env",
        ),
        ({"evaluation": EvaluationConfig(env="Nowhere-v0")}, "Nowhere-v0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_input_raises_and_writes_nothing(
    tiny: TrainConfig, quiet: Reporter, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((InputError, FileNotFoundError), match=message):
        train_offline(replace(tiny, **changes), reporter=quiet)
    assert not tiny.runs_dir.exists()


def test_bad_learner_settings_raise_and_write_nothing(tiny: TrainConfig, quiet: Reporter) -> None:
    for changes in ({"T": 0}, {"N": 0}, {"beta_schedule": "steep"}, {"critic_hyperparam": 1.5}):
        with pytest.raises(InputError, match=next(iter(changes))):
            train_offline(replace(tiny, learner=replace(tiny.learner, **changes)), reporter=quiet)
    assert not tiny.runs_dir.exists()


def test_resuming_with_other_settings_raises(tiny: TrainConfig, quiet: Reporter) -> None:
    run = train_offline(tiny, reporter=quiet).run
    changed = replace(tiny, max_steps=20, learner=replace(tiny.learner, tau=0.1))
    with pytest.raises(InputError, match=r"cannot change learner\.tau; it may change max_steps"):
        train_offline(changed, resume=run.path, reporter=quiet)
    with pytest.raises(InputError, match="nothing to continue; give a larger --max-steps"):
        train_offline(tiny, resume=run.path, reporter=quiet)
    with pytest.raises(InputError, match="already holds a finished run"):
        train_offline(tiny, reporter=quiet)


def test_divergence_warns_once(tiny: TrainConfig) -> None:
    stream = io.StringIO()
    learner = replace(tiny.learner, critic_lr=1e30)
    result = train_offline(
        replace(tiny, learner=learner), reporter=Reporter(Console(file=stream, width=300))
    )
    assert stream.getvalue().count("the training has diverged") == 1
    assert None in [r["train/critic_loss"] for r in read_metrics(result.run.path / "metrics.jsonl")]
