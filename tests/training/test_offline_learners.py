"""The offline loop with learners without N: IQL, BC, and BC from images."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from test_offline import assert_same_bits, losses, stop_after
from tiny_images import SIZE, STACK, STEPS, TINY_DOT, TINY_PIXEL_BC

from idql_func import agents, optim, random
from idql_func.data.hdf5 import read_d4rl_hdf5, write_d4rl_hdf5
from idql_func.training.configs.learners import (
    BCConfig,
    DDPMIQLConfig,
    FQLConfig,
    IFQLConfig,
    IQLConfig,
    ReBRACConfig,
)
from idql_func.training.configs.offline import DatasetConfig, EvaluationConfig, TrainConfig
from idql_func.training.data_info import describe_dataset
from idql_func.training.evaluate import evaluate_checkpoint
from idql_func.training.offline import TrainingInterrupted, train_offline
from idql_func.training.runs.checkpoint import load_checkpoint
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.metrics import read_metrics
from idql_func.training.task import prepare_task
from idql_func.training.updates import training_update
from idql_func.types import InputError

IQL = IQLConfig(hidden_dims=(8,), expectile=0.9, temperature=3.0)
BC = BCConfig(hidden_dims=(8,), dropout_rate=0.1, weight_decay=0.01)
JOINT = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,)}
LEARNERS = {
    "iql": IQL,
    "bc": BC,
    "fql": FQLConfig(**JOINT, flow_steps=2),
    "ifql": IFQLConfig(**JOINT, flow_steps=2, num_samples=3),
    "rebrac": ReBRACConfig(**JOINT, alpha_actor=0.1, alpha_critic=0.1),
}
KINDS = [*LEARNERS, "pixel-bc buffer", "pixel-bc split buffer", "pixel-bc file"]


@pytest.fixture(params=KINDS)
def config(
    request: pytest.FixtureRequest, tiny: TrainConfig, image_files: tuple[Path, Path]
) -> TrainConfig:
    """Twelve updates of each learner, with held-out data except for one buffer."""
    if request.param in LEARNERS:
        learner = LEARNERS[request.param]
        return dataclasses.replace(tiny, learner=learner, cosine_decay=request.param == "bc")
    file = image_files["file" in request.param]
    fraction = 1.0 if request.param == "pixel-bc buffer" else 0.9
    return on_images(tiny, file, cosine_decay=True, train_fraction=fraction)


def on_images(tiny: TrainConfig, file: Path, *, train_fraction: float, **changes: Any) -> Any:
    dataset = DatasetConfig(source=str(file), train_fraction=train_fraction)
    return dataclasses.replace(tiny, **{"learner": TINY_PIXEL_BC, "dataset": dataset, **changes})


def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    config: TrainConfig, quiet: Reporter
) -> None:
    whole = train_offline(dataclasses.replace(config, name="whole"), reporter=quiet)
    cut = dataclasses.replace(config, name="cut")
    with pytest.raises(TrainingInterrupted):
        train_offline(cut, reporter=quiet, on_update=stop_after(5))
    resumed = train_offline(cut, resume=config.runs_dir / "cut", reporter=quiet)
    assert_same_bits(whole.learner, resumed.learner)
    assert losses(whole.run) == losses(resumed.run)
    assert any(k.startswith("val/") for k in losses(whole.run)[0]) == (
        config.dataset.train_fraction < 1
    )


def test_loop_equals_single_updates_on_sampled_batches(
    config: TrainConfig, quiet: Reporter
) -> None:
    """No batch is discarded; only upstream's loop for IDQL does that (D3)."""
    result = train_offline(config, reporter=quiet)
    task = prepare_task(config)
    keywords = config.learner.keywords()
    if config.cosine_decay:
        keywords["actor_lr"] = optim.cosine_decay_schedule(keywords["actor_lr"], config.max_steps)
    learner = getattr(agents, config.learner.class_name).create(
        config.seed, task.observation_space, task.action_space, **keywords
    )
    for _ in range(config.max_steps):
        batch = task.train.sample_torch(8)
        learner, info = training_update(type(learner))(learner, batch)
    assert_same_bits(learner, result.learner)
    assert info.keys() == {k[6:] for k in losses(result.run)[-1] if k.startswith("train/")}


def test_run_writes_one_evaluation_and_a_loadable_checkpoint(
    tiny: TrainConfig, image_files: tuple[Path, Path]
) -> None:
    stream = io.StringIO()
    evaluation = EvaluationConfig(
        env=TINY_DOT, interval=5, interval_episodes=1, episodes=2, action_repeat=3
    )
    config = on_images(tiny, image_files[0], train_fraction=1.0, evaluation=evaluation)
    reporter = Reporter(Console(file=stream, width=150))
    result = train_offline(config, reporter=reporter)
    assert list(result.evaluations) == [None]
    assert result.evaluations[None]["length"] == STEPS / 3
    summary = json.loads(result.run.summary.read_text())
    assert list(summary["evaluation"]) == ["policy"]
    records = read_metrics(result.run.path / "metrics.jsonl")
    assert [r["updates"] for r in records if "eval/return" in r] == [6, 11, 12]
    assert not any("N=" in key for r in records for key in r)
    learner, metadata = load_checkpoint(result.run.path / summary["files"]["checkpoint"])
    assert_same_bits(learner, result.learner)
    assert metadata.extra["pixels"] == {
        "image_size": SIZE,
        "num_stack": STACK,
        "action_repeat": 3,
        "camera_id": 0,
    }
    trial = evaluate_checkpoint(
        result.run.path, episodes=2, seed=1_000, matmul="strict", reporter=reporter
    )
    assert trial["evaluation"]["policy"]["returns"] == summary["evaluation"]["policy"]["returns"]
    with pytest.raises(InputError, match="PixelBCLearner does not choose among several actions"):
        evaluate_checkpoint(result.run.path, n=[4], reporter=reporter)
    text = stream.getvalue()
    for part in ("108 transitions to train on, 0 held out", "pixels (8, 8, 3, 2)", "policy"):
        assert part in text, part


def test_buffer_and_file_give_the_same_images(
    tiny: TrainConfig, image_files: tuple[Path, Path]
) -> None:
    tasks = [prepare_task(on_images(tiny, file, train_fraction=1.0)) for file in image_files]
    spaces = [task.observation_space for task in tasks]
    assert spaces[0] == spaces[1]
    key = random.PRNGKey(3)
    buffer, file = (task.train.sample_torch(64, key=key) for task in tasks)
    # both draw uniformly from 108 transitions in the order of collection
    assert torch.equal(buffer["observations"]["pixels"], file["observations"]["pixels"])
    np.testing.assert_allclose(buffer["actions"], file["actions"], atol=1.1e-5)  # clipped: D12
    behaviours = [task.behaviour for task in tasks]
    assert behaviours[0] is not None and behaviours[1] is not None
    assert behaviours[0].episodes == behaviours[1].episodes == 12
    assert behaviours[0].mean == pytest.approx(behaviours[1].mean)


def test_held_out_images_are_not_trained_on(
    tiny: TrainConfig, image_files: tuple[Path, Path]
) -> None:
    task = prepare_task(on_images(tiny, image_files[0], train_fraction=0.75))
    rows = [set(part.transition_rows.tolist()) for part in (task.train, task.held_out)]
    assert [len(part) for part in rows] == [81, 27] and not rows[0] & rows[1]


def test_learning_rates_decay_along_a_cosine(tiny: TrainConfig, quiet: Reporter) -> None:
    """At the end of the cosine the rate is 0: a further update changes nothing (quirk U15)."""
    learner = BCConfig(hidden_dims=(8,))
    config = dataclasses.replace(tiny, learner=learner, cosine_decay=True)
    result = train_offline(config, reporter=quiet)
    loaded, metadata = load_checkpoint(result.run.checkpoint(12))
    assert metadata.create["actor_lr"] == optim.cosine_decay_schedule(1e-3, 12)
    batch = prepare_task(config).train.sample_torch(8)
    again, _ = loaded.update(batch)
    for path in ("MLP_0", "OutputDenseMean"):
        before, after = (x.actor.params[path] for x in (loaded, again))
        leaf = before.get("kernel", before.get("Dense_0", {}).get("kernel"))
        other = after.get("kernel", after.get("Dense_0", {}).get("kernel"))
        assert torch.equal(leaf, other)
    with pytest.raises(InputError, match=r"cannot change max_steps; it may change log_interval"):
        train_offline(
            dataclasses.replace(config, max_steps=20), resume=result.run.path, reporter=quiet
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learner": IQL}, "IQLLearner learns from vectors, but the dataset's observations are"),
        (
            {"learner": dataclasses.replace(TINY_PIXEL_BC, pixel_keys=("front",))},
            r"no images \[height, width, channels, frames\] under 'front'.*--learner.pixel-keys",
        ),
        ({"evaluation": EvaluationConfig(env="Pendulum-v1")}, "actions of the environment"),
    ],
)
def test_settings_that_do_not_match_the_images_raise(
    tiny: TrainConfig,
    quiet: Reporter,
    image_files: tuple[Path, Path],
    changes: dict[str, Any],
    message: str,
) -> None:
    changes = {"evaluation": EvaluationConfig(env=TINY_DOT), **changes}
    with pytest.raises(InputError, match=message):
        train_offline(
            on_images(tiny, image_files[1], train_fraction=1.0, **changes), reporter=quiet
        )
    assert not tiny.runs_dir.exists()


def test_pixel_learner_on_vectors_raises(
    tiny: TrainConfig, quiet: Reporter, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="PixelBCLearner learns from images under names"):
        train_offline(dataclasses.replace(tiny, learner=TINY_PIXEL_BC), reporter=quiet)
    with pytest.raises(
        InputError, match=r"'Nowhere-v0'.*name the environment with --evaluation.env"
    ):
        nowhere = EvaluationConfig(env="Nowhere-v0")
        train_offline(dataclasses.replace(tiny, evaluation=nowhere), reporter=quiet)
    with pytest.raises(InputError, match=r"no file .*buffer\.safetensors"):
        source = DatasetConfig(source=str(tmp_path / "buffer.safetensors"))
        train_offline(dataclasses.replace(tiny, dataset=source), reporter=quiet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": None}, "has no 'actions', which a file in D4RL's layout must have"),
        ({"observations/pixels": np.zeros((3, 8, 8, 3, 2), np.uint8)}, "observations/pixels"),
    ],
)
def test_incomplete_image_file_raises(
    tiny: TrainConfig,
    quiet: Reporter,
    image_files: tuple[Path, Path],
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    arrays = {**read_d4rl_hdf5(image_files[1])[0], **changes}
    kept = {name: array for name, array in arrays.items() if array is not None}
    path = write_d4rl_hdf5(tmp_path / "damaged.hdf5", kept)
    with pytest.raises(InputError, match=message):
        train_offline(on_images(tiny, path, train_fraction=1.0), reporter=quiet)
    assert not tiny.runs_dir.exists()


def test_idql_trains_on_a_replay_buffer_of_states(tiny: TrainConfig, quiet: Reporter) -> None:
    """The replay buffer that an online run saves is a dataset for every learner."""
    from idql_func.data import ReplayBuffer

    fields = prepare_task(tiny).train.dataset_dict
    task = prepare_task(tiny)
    buffer = ReplayBuffer(task.observation_space, task.action_space, capacity=500)
    for i in range(len(task.train)):
        buffer.insert({name: fields[name][i] for name in buffer.dataset_dict})
    path = buffer.save(tiny.runs_dir.parent / "state.safetensors")
    assert isinstance(tiny.learner, DDPMIQLConfig)
    source = DatasetConfig(source=str(path), rewards="minus_one")
    config = dataclasses.replace(tiny, dataset=source, max_steps=3)
    assert train_offline(config, reporter=quiet).summary["updates"] == 3
    sampled = prepare_task(config).train.sample_torch(200)["rewards"].numpy()
    assert np.isin(sampled, fields["rewards"] - np.float32(1)).all()


def test_buffer_is_evaluated_in_the_environment_of_its_file_name(
    tiny: TrainConfig, image_files: tuple[Path, Path], tmp_path: Path
) -> None:
    """The environment is that of the run that holds the buffer, else that of the file name."""
    named = tmp_path / f"{TINY_DOT}.safetensors"
    in_run = tmp_path / "run" / "replay_buffer" / "step_000000009.safetensors"
    in_run.parent.mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps({"env": TINY_DOT}))
    for path in (named, in_run):
        shutil.copy(image_files[0], path)
        config = on_images(tiny, path, train_fraction=1.0, evaluation=EvaluationConfig())
        task = prepare_task(config)
        assert task.env_name == TINY_DOT and task.pixels is not None
        assert task.pixels["action_repeat"] == 2


def test_data_info_describes_images(image_files: tuple[Path, Path]) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=150)
    for file in image_files:
        for table in describe_dataset(str(file)):
            console.print(table)
    text = stream.getvalue()
    assert text.count("108") >= 2 and text.count("observations/pixels") == 2
    assert "TinyDot-v0" in text
