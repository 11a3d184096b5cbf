"""Datasets from policies, buffers and recordings, and training on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from short_pendulum import SHORT_PENDULUM

from idql_func import disable_jit
from idql_func.data import D4RLDataset, MemoryEfficientReplayBuffer, ReplayBuffer
from idql_func.data.hdf5 import read_d4rl_hdf5, write_d4rl_hdf5
from idql_func.data.minari_format import read_minari
from idql_func.training.collect import collect
from idql_func.training.configs.collect import CollectConfig
from idql_func.training.configs.learners import DrQConfig, SACConfig
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.online import (
    OnlineConfig,
    OnlineEvaluationConfig,
    PixelConfig,
)
from idql_func.training.online import train_online
from idql_func.training.recording import Recording, join, of_buffer, roll_out
from idql_func.training.runs.console import Reporter
from idql_func.training.task import environment_factory, prepare_task
from idql_func.types import InputError


def train(folder: Path, **more: Any) -> Path:
    config = OnlineConfig(
        env=SHORT_PENDULUM,
        runs_dir=folder,
        name="run",
        batch_size=4,
        max_steps=33,
        start_training=30,
        checkpoint_interval=20,
        matmul="strict",
        device="cpu",
        learner=SACConfig(hidden_dims=(4,)),
        evaluation=OnlineEvaluationConfig(episodes=1),
    )
    with disable_jit():
        return train_online(
            dataclasses.replace(config, **more), reporter=Reporter(quiet=True)
        ).run.path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of SAC with two checkpoints and its replay buffer."""
    yield train(tmp_path_factory.mktemp("collect"))


@pytest.fixture(scope="module")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of DrQ."""
    yield train(
        tmp_path_factory.mktemp("images"),
        learner=DrQConfig(
            hidden_dims=(4,), cnn_features=(2,), cnn_filters=(3,), cnn_strides=(2,), latent_dim=3
        ),
        pixels=PixelConfig(image_size=8, num_stack=2, action_repeat=1),
        replay_capacity=60,
    )


def test_collect_writes_a_dataset_from_a_policy(
    run: Path, tmp_path: Path, tiny: TrainConfig, quiet: Reporter
) -> None:
    path = collect(CollectConfig((run,), tmp_path / "a.hdf5", steps=45), reporter=quiet)
    arrays, attributes = read_d4rl_hdf5(path)
    assert {name: (a.shape, str(a.dtype)) for name, a in arrays.items()} == {
        "observations": ((45, 3), "float32"),
        "next_observations": ((45, 3), "float32"),
        "actions": ((45, 1), "float32"),
        "rewards": ((45,), "float32"),
        "terminals": ((45,), "bool"),
        "timeouts": ((45,), "bool"),
    }
    assert np.flatnonzero(arrays["timeouts"]).tolist() == [9, 19, 29, 39, 44]
    returns = arrays["rewards"][:40].reshape(4, 10).sum(1)
    assert attributes["behaviour_episodes"] == 4
    assert attributes["behaviour_return"] == pytest.approx(returns.mean(), rel=1e-5)
    assert (attributes["env"], attributes["max_episode_steps"]) == (SHORT_PENDULUM, 10)
    assert str(tmp_path) not in attributes["origin"] and "SACLearner" in attributes["origin"]

    # training finds the same environment and the same behaviour in the file
    dataset = dataclasses.replace(tiny.dataset, source=str(path), rewards="as_stored")
    evaluation = dataclasses.replace(tiny.evaluation, env=None)
    task = prepare_task(dataclasses.replace(tiny, dataset=dataset, evaluation=evaluation))
    assert task.env_name == SHORT_PENDULUM
    assert task.behaviour is not None and task.behaviour.episodes == 4
    # the last step of each episode is lost, since its next observation is not an observation
    assert len(D4RLDataset(path)) == 40


def test_recorded_rewards_belong_to_the_recorded_actions(
    run: Path, tmp_path: Path, quiet: Reporter
) -> None:
    """Actions are stored as the wrapped environment takes them (D14), so rewards are equal."""
    path = collect(CollectConfig((run,), tmp_path / "a.hdf5", steps=10), reporter=quiet)
    arrays, _ = read_d4rl_hdf5(path)
    env = environment_factory(SHORT_PENDULUM)()
    env.reset(seed=0)
    cosine, sine, speed = arrays["observations"][0]
    state: Any = env.unwrapped
    state.state = np.array([np.arctan2(sine, cosine), speed], np.float64)
    for action, reward in zip(arrays["actions"], arrays["rewards"], strict=True):
        assert env.step(action)[1] == pytest.approx(reward, rel=1e-3, abs=1e-3)


def test_seed_action_kind_and_noise_change_the_actions(
    run: Path, tmp_path: Path, quiet: Reporter
) -> None:
    made: dict[str, np.ndarray] = {}
    for name, more in {
        "one": {},
        "same": {},
        "other": {"seed": 1},
        "greedy": {"actions": "greedy"},
        "noisy": {"actions": "greedy", "noise": 0.3},
        "partly": {"actions": "greedy", "random_share": 0.5},
        "random": {"actions": "random"},
    }.items():
        config = CollectConfig((run,), tmp_path / f"{name}.hdf5", steps=40, num_envs=2, **more)
        made[name] = read_d4rl_hdf5(collect(config, reporter=quiet))[0]["actions"]
    np.testing.assert_array_equal(made["one"], made["same"])
    assert not (made["one"] == made["other"]).any()
    # two environments of 20 steps; every kind of action starts from the same states
    first = {name: actions[[0, 20]] for name, actions in made.items()}
    assert not (first["one"] == first["greedy"]).any()
    assert 0.01 < np.abs(first["noisy"] - first["greedy"]).mean() < 1
    assert np.abs(made["random"]).mean() > 0.3
    assert all(np.abs(actions).max() <= 1 for actions in made.values())


def test_collect_writes_a_dataset_from_a_replay_buffer(
    run: Path, tmp_path: Path, quiet: Reporter
) -> None:
    config = CollectConfig((run,), tmp_path / "replay.hdf5", buffer=True)
    arrays, attributes = read_d4rl_hdf5(collect(config, reporter=quiet))
    kept = ReplayBuffer.load(run / "replay_buffer" / "step_000000033.safetensors")
    for name in ("observations", "actions", "rewards", "next_observations"):
        np.testing.assert_array_equal(arrays[name], kept.dataset_dict[name][:33])
    assert np.flatnonzero(arrays["timeouts"]).tolist() == [9, 19, 29, 32]
    assert not arrays["terminals"].any() and attributes["behaviour_episodes"] == 3

    first = dataclasses.replace(config, output=tmp_path / "medium.hdf5", steps=15)
    arrays, attributes = read_d4rl_hdf5(collect(first, reporter=quiet))
    assert np.flatnonzero(arrays["timeouts"]).tolist() == [9, 14]
    assert attributes["behaviour_episodes"] == 1


def test_collect_concatenates_recordings(run: Path, tmp_path: Path, quiet: Reporter) -> None:
    one = collect(CollectConfig((run,), tmp_path / "one.hdf5", steps=25), reporter=quiet)
    checkpoint = run / "checkpoints" / "step_000000020"
    config = CollectConfig((one, checkpoint), tmp_path / "two.hdf5", steps=20)
    arrays, attributes = read_d4rl_hdf5(collect(config, reporter=quiet))
    assert len(arrays["rewards"]) == 40
    stored = read_d4rl_hdf5(one)[0]
    np.testing.assert_array_equal(arrays["observations"][:20], stored["observations"][:20])
    assert np.flatnonzero(arrays["timeouts"]).tolist() == [9, 19, 29, 39]
    assert attributes["env"] == SHORT_PENDULUM and "one.hdf5; " in attributes["origin"]

    without = {name: stored[name] for name in stored if name != "next_observations"}
    write_d4rl_hdf5(tmp_path / "plain.hdf5", without, {"env": SHORT_PENDULUM})
    config = CollectConfig((tmp_path / "plain.hdf5", one), tmp_path / "three.hdf5")
    assert "next_observations" not in read_d4rl_hdf5(collect(config, reporter=quiet))[0]


def test_buffer_recording_separates_terminals_and_timeouts() -> None:
    from gymnasium.spaces import Box

    buffer = ReplayBuffer(Box(-9, 9, (1,)), Box(-1, 1, (1,)), 4)
    for number, (mask, done) in enumerate([(1, 0), (0, 1), (1, 1), (1, 0), (1, 0)]):
        buffer.insert(
            {
                "observations": [number],
                "next_observations": [number + 1],
                "actions": [0.0],
                "rewards": number,
                "masks": mask,
                "dones": bool(done),
            }
        )
    recording = of_buffer(buffer, origin="a ring")
    assert recording.arrays["rewards"].tolist() == [1, 2, 3, 4]
    assert recording.arrays["terminals"].tolist() == [True, False, False, False]
    assert recording.arrays["timeouts"].tolist() == [False, True, False, True]
    assert recording.returns().tolist() == [1, 2]  # the last one was cut by the recording


def test_roll_out_divides_the_steps_among_environments() -> None:
    recording = roll_out(
        lambda observations: np.full((len(observations), 1), 2.0, np.float32),
        environment_factory(SHORT_PENDULUM),
        25,
        num_envs=3,
    )
    assert len(recording) == 25 and recording.limit == 10
    assert np.flatnonzero(recording.arrays["timeouts"]).tolist() == [8, 16, 24]
    assert (recording.arrays["actions"] == 1).all()
    starts = recording.arrays["observations"][[0, 9, 17]]
    assert len(np.unique(starts, axis=0)) == 3


def test_recordings_of_different_environments_raise() -> None:
    flags = np.array([False, True])

    def recording(size: int, env: str) -> Recording:
        arrays = {"observations": np.zeros((2, size)), "actions": np.zeros((2, 1))}
        arrays |= {"rewards": np.zeros(2), "terminals": flags, "timeouts": flags}
        return Recording(arrays, env, None, f"the one of {env}")

    with pytest.raises(InputError, match=r"the one of B .*shape \(3,\).*the one of A"):
        join([recording(2, "A"), recording(3, "B")])
    with pytest.raises(InputError, match="the one of A is of A and the one of B of B"):
        join([recording(2, "A"), recording(2, "B")])


def test_collect_writes_a_buffer_from_images(
    image_run: Path, tmp_path: Path, quiet: Reporter
) -> None:
    kept = CollectConfig((image_run,), tmp_path / "kept.safetensors", buffer=True)
    rolled = CollectConfig((image_run,), tmp_path / "rolled.safetensors", steps=12)
    paths = collect(kept, reporter=quiet), collect(rolled, reporter=quiet)
    buffers = [MemoryEfficientReplayBuffer.load(path) for path in paths]
    assert [len(buffer.transition_rows) for buffer in buffers] == [33, 12]

    mixed = CollectConfig(paths, tmp_path / "mixed.safetensors", steps=11)
    both = MemoryEfficientReplayBuffer.load(collect(mixed, reporter=quiet))
    joined = both.sample(1, indx=both.transition_rows)
    for number, buffer in enumerate(buffers):
        part = buffer.sample(1, indx=buffer.transition_rows[:11])
        rows = slice(11 * number, 11 * (number + 1))
        for name in ("observations", "next_observations"):
            np.testing.assert_array_equal(joined[name]["pixels"][rows], part[name]["pixels"])
        np.testing.assert_array_equal(joined["rewards"][rows], part["rewards"])
    assert joined["dones"][[10, 21]].all()


def test_collect_writes_a_minari_dataset(run: Path, tmp_path: Path, quiet: Reporter) -> None:
    config = CollectConfig((run,), Path(f"minari:{tmp_path}/tiny-v0"), steps=24)
    folder = collect(config, reporter=quiet)
    assert folder == tmp_path / "tiny-v0"
    episodes, about, _ = read_minari(folder)
    assert [len(episode["rewards"]) for episode in episodes] == [10, 10, 4]
    assert [e["observations"].shape for e in episodes] == [(11, 3), (11, 3), (5, 3)]
    assert all(episode["truncations"][-1] for episode in episodes)
    assert (about["env"], about["behaviour_episodes"]) == (SHORT_PENDULUM, 2)
    with pytest.raises(InputError, match="tiny-v0 exists"):
        collect(config, reporter=quiet)


def test_collect_writes_a_video(run: Path, tmp_path: Path, quiet: Reporter) -> None:
    pytest.importorskip("imageio")
    config = CollectConfig((run,), tmp_path / "a.hdf5", steps=3, video=tmp_path / "a.gif")
    collect(config, reporter=quiet)
    assert (tmp_path / "a.gif").stat().st_size > 1_000


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"output": Path("a.txt")}, "must end in .hdf5"),
        ({"steps": 0}, "steps is 0"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"random_share": 1.5}, "random_share is 1.5"),
        ({"sources": ()}, "there is no source"),
        ({"N": 4}, "a SACLearner does not choose among candidates"),
        ({"env": "NoSuch-v0"}, "NoSuch-v0"),
    ],
)
def test_bad_input_raises(
    run: Path, tmp_path: Path, quiet: Reporter, change: dict[str, Any], sentence: str
) -> None:
    config = CollectConfig((run,), tmp_path / "a.hdf5", steps=5)
    with pytest.raises(InputError, match=sentence):
        collect(dataclasses.replace(config, **change), reporter=quiet)
    assert not list(tmp_path.iterdir())


def test_existing_output_is_not_replaced_without_overwrite(
    run: Path, tmp_path: Path, quiet: Reporter
) -> None:
    config = CollectConfig((run,), tmp_path / "a.hdf5", steps=5)
    collect(config, reporter=quiet)
    with pytest.raises(InputError, match="exists; replace it with --overwrite"):
        collect(config, reporter=quiet)
    collect(dataclasses.replace(config, steps=6, overwrite=True), reporter=quiet)
    assert len(read_d4rl_hdf5(config.output)[0]["rewards"]) == 6


def test_images_cannot_be_written_as_hdf5(image_run: Path, tmp_path: Path, quiet: Reporter) -> None:
    for buffer in (False, True):
        config = CollectConfig((image_run,), tmp_path / "a.hdf5", buffer=buffer)
        with pytest.raises(InputError, match=r"images.*something\.safetensors"):
            collect(config, reporter=quiet)
