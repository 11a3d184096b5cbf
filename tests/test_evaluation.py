"""Evaluation counts each episode once, in separate environments, with reproducible results."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from idql_func import agents, disable_jit, random
from idql_func.data.pointmaze import EXPERT, REF_MAX_SCORE, REF_MIN_SCORE, WaypointController
from idql_func.data.scores import ReferenceScores
from idql_func.envs import ENV_NAME, make_pointmaze_env, video
from idql_func.envs.pointmaze import GOAL
from idql_func.evaluation import (
    episode_seeds,
    evaluate,
    evaluate_members,
    implicit_evaluate,
    record_video,
)
from idql_func.switches import jit_disabled
from idql_func.types import InputError


class Countdown(gym.Env):
    """Ends after a number of steps drawn from the seed; the reward is 10 times the first action.

    Observation: ``[steps left, total steps, draw]``; stepping it after its end is an error.
    """

    observation_space: gym.Space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space: gym.Space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, report_success: bool = True, truncate: bool = False) -> None:
        self.report_success, self.truncate = report_success, truncate
        self.left = 0
        self.closed = False

    def _observe(self) -> Any:
        return np.array([self.left, self.total, self.draw])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.total = self.left = int(self.np_random.integers(1, 9))
        self.draw = float(self.np_random.normal())
        return self._observe(), {}

    def step(self, action):
        assert self.left > 0, "stepped after the end"
        self.left -= 1
        done = self.left == 0
        info = {"success": self.total > 4 and self.left == 1} if self.report_success else {}
        ends = (False, done) if self.truncate else (done, False)
        return self._observe(), 10.0 * float(action[0]), *ends, info

    def close(self) -> None:
        self.closed = True


@dataclasses.dataclass(frozen=True)
class Policy:
    """A deterministic policy: the first action is the fraction of steps left."""

    calls: list = dataclasses.field(default_factory=list)

    def eval_actions(self, observations: np.ndarray) -> tuple[np.ndarray, Policy]:
        self.calls.append(observations.copy())
        actions = np.zeros((len(observations), 2), np.float32)
        actions[:, 0] = observations[:, 0] / np.maximum(observations[:, 1], 1)
        return actions, self

    def sample_implicit_policy(self, observations: np.ndarray) -> tuple[np.ndarray, Policy]:
        actions, _ = self.eval_actions(observations)
        return -actions, self


@dataclasses.dataclass(frozen=True)
class Noisy:
    """Draws its actions from a key that advances, as learners do."""

    rng: torch.Tensor

    def eval_actions(self, observations: np.ndarray) -> tuple[np.ndarray, Noisy]:
        key, rng = random.split(self.rng)
        actions = random.uniform(key, (len(observations), 2), minval=-1, maxval=1)
        return actions.numpy(), dataclasses.replace(self, rng=rng)

    def replace(self, **fields: Any) -> Noisy:
        return dataclasses.replace(self, **fields)


def expected(seed: int, episodes: int) -> tuple[list[float], list[int], list[bool]]:
    """The same numbers from one environment and a plain loop."""
    returns, lengths, success = [], [], []
    for episode_seed in episode_seeds(seed, episodes):
        env = Countdown()
        observation, _ = env.reset(seed=episode_seed)
        total, length, reached, done = 0.0, 0, False, False
        while not done:
            action = np.asarray(
                [np.float32(observation[0]) / np.float32(observation[1]), 0], np.float32
            )
            observation, reward, done, _, info = env.step(action)
            total, length, reached = total + reward, length + 1, reached or info["success"]
        returns.append(total)
        lengths.append(length)
        success.append(reached)
    return returns, lengths, success


@given(st.integers(0, 1000), st.integers(1, 9), st.none() | st.integers(1, 12), st.booleans())
@settings(max_examples=40)
def test_each_episode_counts_once_for_any_number_of_environments(
    seed: int, episodes: int, num_envs: int | None, truncate: bool
) -> None:
    result = evaluate(Policy(), lambda: Countdown(truncate=truncate), episodes, seed, num_envs)
    returns, lengths, success = expected(seed, episodes)
    assert result["returns"] == pytest.approx(returns)
    assert result["lengths"] == lengths
    assert result["episodes"] == episodes
    assert result["return"] == pytest.approx(np.mean(returns))
    assert result["return_std"] == pytest.approx(np.std(returns))
    assert result["length"] == pytest.approx(np.mean(lengths))
    assert result["success"] == pytest.approx(np.mean(success))


def test_actions_are_chosen_in_batches_of_one_size() -> None:
    policy = Policy()
    result = evaluate(policy, Countdown, 7, seed=1, num_envs=3)
    assert {call.shape for call in policy.calls} == {(2, 3)}  # two halves, the smaller one padded
    assert {call.dtype for call in policy.calls} == {np.dtype(np.float32)}
    assert len(policy.calls) < sum(result["lengths"])
    many = Policy()
    evaluate(many, Countdown, 7, seed=1)
    assert {call.shape for call in many.calls} == {(4, 3)}
    longest = [max(result["lengths"][:4]), max(result["lengths"][4:])]
    assert len(many.calls) == sum(longest)
    whole = Policy()
    evaluate(whole, Countdown, 7, seed=1, overlap=False)
    assert {call.shape for call in whole.calls} == {(7, 3)}
    assert len(whole.calls) == max(result["lengths"])


class SlowCountdown(Countdown):
    """Each step of any of these environments sleeps for the next time of a shared list."""

    def __init__(self, waits: Iterator[float]) -> None:
        super().__init__()
        self.waits = waits

    def step(self, action):
        time.sleep(next(self.waits, 0.0))
        return super().step(action)


@dataclasses.dataclass(frozen=True)
class SlowNoisy(Noisy):
    waits: Iterator[float]
    threads: set

    def eval_actions(self, observations: np.ndarray) -> tuple[np.ndarray, Noisy]:
        self.threads.add(threading.current_thread().name)
        time.sleep(next(self.waits, 0.0))
        return super().eval_actions(observations)


@given(
    st.integers(1, 7),
    st.integers(1, 7),
    *[st.lists(st.sampled_from([0.0, 0.002]), max_size=12)] * 2,
)
@settings(max_examples=15)
def test_results_do_not_depend_on_timing(
    episodes: int, num_envs: int, steps: list[float], choices: list[float]
) -> None:
    plain = evaluate(Noisy(random.PRNGKey(0)), Countdown, episodes, 5, num_envs)
    waits, threads = iter(steps), set()
    learner = SlowNoisy(random.PRNGKey(0), iter(choices), threads)
    slow = evaluate(learner, lambda: SlowCountdown(waits), episodes, 5, num_envs)
    assert slow == plain
    assert (threading.current_thread().name in threads) == (min(episodes, num_envs) == 1)


def test_halves_act_alternately() -> None:
    """Halves act alternately, each with the other's returned key; then the longer one alone."""
    seen: list[tuple[int, ...]] = []

    class Counting:
        def __init__(self, number: int = 0) -> None:
            self.number = number

        def eval_actions(self, observations: np.ndarray) -> tuple[np.ndarray, Counting]:
            seen.append((self.number, *observations[:, 1].astype(int)))
            return np.zeros((len(observations), 2), np.float32), Counting(self.number + 1)

    lengths = evaluate(Counting(), Countdown, 3, seed=3)["lengths"]
    first, second = tuple(lengths[:2]), (lengths[2], lengths[2])
    turns = [pair for i in range(8) for pair in ((first, i), (second, i))]
    expected_rows = [rows for rows, i in turns if i < max(rows)]
    assert seen == [(i, *rows) for i, rows in enumerate(expected_rows)]


@dataclasses.dataclass(frozen=True)
class EarlyEnding(Noisy):
    """Ends episodes early at random, so that members finish at different times."""

    threshold: float = 1.0

    def eval_actions(self, observations: np.ndarray) -> tuple[np.ndarray, EarlyEnding]:
        actions, learner = super().eval_actions(observations)
        actions[:, 1] = np.abs(actions[:, 1]) > self.threshold
        return actions, learner  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class Members:
    """Several learners in one, each with its own key."""

    each: tuple[EarlyEnding, ...]

    def eval_actions(self, observations: np.ndarray) -> tuple[np.ndarray, Members]:
        chosen = [m.eval_actions(o) for m, o in zip(self.each, observations, strict=True)]
        return np.stack([actions for actions, _ in chosen]), Members(tuple(m for _, m in chosen))


class EndableCountdown(Countdown):
    """Also ends early if the second action is 1."""

    def step(self, action):
        observation, reward, done, truncated, info = super().step(action)
        self.left = 0 if action[1] == 1 else self.left
        return observation, reward, done or self.left == 0, truncated, info


@given(
    st.integers(0, 1000),
    st.integers(1, 9),
    st.none() | st.integers(1, 5),
    st.booleans(),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
@settings(max_examples=25)
def test_members_have_the_results_of_single_evaluation(
    seed: int, episodes: int, num_envs: int | None, overlap: bool, threshold: list[float]
) -> None:
    """Bit for bit, since the key of a member does not depend on when other members finish."""
    each = tuple(EarlyEnding(random.PRNGKey(k), p) for k, p in enumerate(threshold))
    options: Any = {"num_envs": num_envs, "overlap": overlap, "record_trajectories": True}
    found = evaluate_members(Members(each), len(each), EndableCountdown, episodes, seed, **options)
    for member, own in zip(each, found, strict=True):
        single = evaluate(member, EndableCountdown, episodes, seed, **options)
        paths, expected = own.pop("trajectories"), single.pop("trajectories")
        assert own == single
        assert all(np.array_equal(a, b) for a, b in zip(paths, expected, strict=True))


def test_zero_members_raise_input_error() -> None:
    with pytest.raises(InputError, match="members must be at least 1; got 0"):
        evaluate_members(Policy(), 0, Countdown, 1)


def test_switches_apply_in_the_acting_thread() -> None:
    flags = []

    class ReadsSwitches(Policy):
        def eval_actions(self, observations: np.ndarray) -> tuple[np.ndarray, Policy]:
            flags.append(jit_disabled())
            return super().eval_actions(observations)

    with disable_jit():
        evaluate(ReadsSwitches(), Countdown, 2)
    assert set(flags) == {True}


def test_errors_of_environment_and_learner_propagate() -> None:
    class Failing(Countdown):
        def step(self, action):
            raise ArithmeticError("fell")

    before = threading.active_count()
    with pytest.raises(ArithmeticError, match="fell"):
        evaluate(Policy(), Failing, 4)
    with pytest.raises(ZeroDivisionError):
        evaluate(Broken(ZeroDivisionError()), Countdown, 4)
    assert threading.active_count() == before


def test_result_depends_on_the_seed() -> None:
    learner = Noisy(random.PRNGKey(0))
    first = evaluate(learner, Countdown, 6, seed=3, num_envs=4, record_trajectories=True)
    second = evaluate(learner, Countdown, 6, seed=3, num_envs=4, record_trajectories=True)
    assert first["returns"] == second["returns"]
    for one, other in zip(first["trajectories"], second["trajectories"], strict=True):
        np.testing.assert_array_equal(one, other)
    assert evaluate(learner, Countdown, 6, seed=4, num_envs=4)["returns"] != first["returns"]
    assert torch.equal(learner.rng, random.PRNGKey(0))  # E8: the learner passed in is unchanged


def test_fold_seed_changes_the_noise_and_not_the_starts() -> None:
    learner = Noisy(random.PRNGKey(0))
    plain = evaluate(learner, Countdown, 4, seed=3)
    folded = evaluate(learner, Countdown, 4, seed=3, fold_seed=True)
    assert plain["lengths"] == folded["lengths"]
    assert plain["returns"] != folded["returns"]
    again = evaluate(Noisy(random.fold_in(learner.rng, 3)), Countdown, 4, seed=3)
    assert again["returns"] == folded["returns"]


def test_passed_environment_is_not_stepped() -> None:
    """E14: evaluation in the training environment corrupted the next transition."""
    env = Countdown()
    env.reset(seed=0)
    left, state = env.left, env.np_random.bit_generator.state
    result = evaluate(Policy(), env, 3, seed=2)
    assert result["returns"] == pytest.approx(expected(2, 3)[0])
    assert (env.left, env.np_random.bit_generator.state, env.closed) == (left, state, False)


def test_uncopyable_environment_raises_input_error() -> None:
    class Uncopyable(Countdown):
        def __deepcopy__(self, memo):
            raise TypeError("no copy of a window")

    with pytest.raises(InputError, match=r"cannot be copied \(no copy of a window\); pass a"):
        evaluate(Policy(), Uncopyable(), 1)


def test_created_environments_are_closed_after_an_error() -> None:
    made: list[Countdown] = []

    def factory() -> Countdown:
        made.append(Countdown())
        return made[-1]

    evaluate(Policy(), factory, 3, num_envs=2)
    with pytest.raises(ZeroDivisionError):
        evaluate(Broken(ZeroDivisionError()), factory, 3, num_envs=2)
    assert len(made) == 4
    assert all(env.closed for env in made)


@dataclasses.dataclass(frozen=True)
class Broken:
    answer: Any

    def eval_actions(self, observations: np.ndarray) -> tuple[Any, Broken]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, self


def test_success_is_none_without_a_success_flag() -> None:
    assert evaluate(Policy(), lambda: Countdown(report_success=False), 3)["success"] is None


def test_normalized_score_uses_the_reference_scores() -> None:
    result = evaluate(Policy(), Countdown, 5, score_name=ReferenceScores(10.0, 60.0))
    assert result["normalized_score"] == pytest.approx(2 * (result["return"] - 10.0))
    known = evaluate(Policy(), Countdown, 5, score_name="hopper-medium-v2")
    slope = 100 / (3234.3 + 20.272305)
    assert known["normalized_score"] == pytest.approx(slope * (result["return"] + 20.272305))
    assert "normalized_score" not in evaluate(Policy(), Countdown, 5, score_name="unknown")
    assert "normalized_score" not in evaluate(Policy(), Countdown, 5)


def test_implicit_evaluate_uses_the_other_method() -> None:
    plain = evaluate(Policy(), Countdown, 4, seed=1)
    implicit = implicit_evaluate(Policy(), Countdown, 4, seed=1)
    assert implicit["returns"] == pytest.approx([-r for r in plain["returns"]])


def test_progress_bar_is_shown_only_on_request(capsys) -> None:
    evaluate(Policy(), Countdown, 3, progress=True)
    assert "3/3" in capsys.readouterr().err
    evaluate(Policy(), Countdown, 3)
    assert capsys.readouterr().err == ""


def test_reference_controller_of_the_maze_scores_about_100() -> None:
    """Positions per episode, and a score of about 100 for the controller that defines it."""

    class Expert:
        def __init__(self) -> None:
            self.controllers: dict[int, WaypointController] = {}

        def eval_actions(self, observations: np.ndarray) -> tuple[np.ndarray, Expert]:
            for slot in range(len(observations)):
                if slot not in self.controllers:
                    rng = np.random.default_rng(0)
                    self.controllers[slot] = WaypointController(rng, EXPERT, GOAL)
            return np.stack(
                [self.controllers[slot].act(row) for slot, row in enumerate(observations)]
            ), self

    result = evaluate(
        Expert(), ENV_NAME, 12, record_trajectories=True, score_name=ENV_NAME, overlap=False
    )  # the expert keeps a controller for each row, so all rows act together
    assert result["success"] == 1.0
    assert result["lengths"] == [300] * 12
    assert 85 < result["normalized_score"] < 115
    scale = 100 / (REF_MAX_SCORE - REF_MIN_SCORE)
    expected_score = scale * (result["return"] - REF_MIN_SCORE)
    assert result["normalized_score"] == pytest.approx(expected_score)
    env = make_pointmaze_env()
    for seed, trajectory in zip(episode_seeds(0, 12), result["trajectories"], strict=True):
        assert (trajectory.shape, trajectory.dtype) == ((301, 2), np.float32)
        np.testing.assert_array_equal(trajectory[0], env.reset(seed=seed)[0][:2])
        assert np.hypot(*(trajectory[-1] - np.asarray(GOAL, np.float32))) < 0.1


def test_maze_environment_can_be_copied() -> None:
    env = make_pointmaze_env()
    env.reset(seed=0)
    idle = Broken(np.zeros((1, 2), np.float32))
    copied = evaluate(idle, env, 1, record_trajectories=True)
    made = evaluate(idle, make_pointmaze_env, 1, record_trajectories=True)
    np.testing.assert_array_equal(copied["trajectories"][0], made["trajectories"][0])


class SizedPolicy(Policy):
    def __init__(self, observations: int, actions: int) -> None:
        super().__init__()
        object.__setattr__(self, "obs_dim", observations)
        object.__setattr__(self, "act_dim", actions)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((17, 2), "needs observations of size 17, but Countdown has observations of size 3"),
        ((3, 6), "needs actions of size 6, but Countdown has actions of size 2"),
    ],
)
def test_learner_of_another_size_raises_input_error(sizes: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(SizedPolicy(*sizes), Countdown, 1)


def test_learner_of_the_right_size_is_accepted() -> None:
    assert evaluate(SizedPolicy(3, 2), Countdown, 1)["episodes"] == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_episodes": 0}, "num_episodes must be at least 1; got 0"),
        ({"num_episodes": 1, "num_envs": 0}, "num_envs must be at least 1; got 0"),
        ({"num_episodes": 1, "method": "act"}, "Policy has no method 'act'"),
        ({"num_episodes": 1, "seed": -1}, "seed must be an integer and not negative"),
    ],
)
def test_bad_arguments_raise_input_error(kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(Policy(), Countdown, **kwargs)


def test_unsupported_environments_raise_input_error() -> None:
    with pytest.raises(InputError, match=r"flat observations of size 4, but PointMaze.*wrap_gym"):
        evaluate(SizedPolicy(4, 2), lambda: gym.make("PointMaze_UMaze-v3"), 1)
    with pytest.raises(InputError, match=r"observes Discrete\(16\).*wrap it with wrap_gym"):
        evaluate(Policy(), lambda: gym.make("FrozenLake-v1"), 1)
    with pytest.raises(InputError, match="learners need flat vectors"):
        evaluate(Policy(), lambda: gym.make("CartPole-v1"), 1)
    with pytest.raises(InputError, match="There is no environment 'Nowhere-v0'"):
        evaluate(Policy(), "Nowhere-v0", 1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.zeros(2), r"actions of shape \(2,\) for 1 observations; expected \[1, A\]"),
        (np.zeros((2, 2)), r"actions of shape \(2, 2\) for 1 observations"),
        (np.array([[0.0, np.nan]]), "not finite"),
    ],
)
def test_bad_actions_raise_input_error(answer: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(Broken(answer), Countdown, 1)


def test_more_episodes_extend_the_seeds() -> None:
    assert episode_seeds(5, 20)[:7] == episode_seeds(5, 7)
    seeds = episode_seeds(0, 500) + episode_seeds(1, 500)
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)


class ImageEnv(Countdown):
    """Observes an image whose brightness is the number of steps left, and the state."""

    observation_space: gym.Space = gym.spaces.Dict(
        pixels=gym.spaces.Box(0, 255, (4, 4, 3, 2), np.uint8),
        state=gym.spaces.Box(-np.inf, np.inf, (3,), np.float64),
    )

    def _observe(self) -> Any:
        image = np.full((4, 4, 3, 2), 10 * self.left, np.uint8)
        return {"pixels": image, "state": super()._observe()}


@dataclasses.dataclass(frozen=True)
class ImagePolicy:
    """Acts on the image as :class:`Policy` acts on the state."""

    obs_dim: Any = None
    calls: list = dataclasses.field(default_factory=list)

    def eval_actions(self, observations: dict) -> tuple[np.ndarray, ImagePolicy]:
        self.calls.append(observations)
        actions = np.zeros((len(observations["pixels"]), 2), np.float32)
        left = observations["pixels"][:, 0, 0, 0, -1].astype(np.float32) / 10
        actions[:, 0] = left / np.maximum(observations["state"][:, 1], 1)
        return actions, self


SHAPES = (("pixels", (4, 4, 3, 2)), ("state", (3,)))


@pytest.mark.parametrize("num_envs", [None, 1, 3])
def test_nested_observations_are_stacked_leaf_by_leaf(num_envs: int | None) -> None:
    learner = ImagePolicy(SHAPES)
    result = evaluate(learner, ImageEnv, 5, 2, num_envs, record_trajectories=True)
    returns, lengths, _ = expected(2, 5)
    assert result["returns"] == pytest.approx(returns)
    assert result["lengths"] == lengths
    count = {None: 3, 1: 1, 3: 2}[num_envs]  # halves
    for call in learner.calls:
        assert {key: (value.shape, value.dtype) for key, value in call.items()} == {
            "pixels": ((count, 4, 4, 3, 2), np.dtype(np.uint8)),
            "state": ((count, 3), np.dtype(np.float32)),
        }
    plain = evaluate(Policy(), Countdown, 5, 2, record_trajectories=True)
    for one, other in zip(result["trajectories"], plain["trajectories"], strict=True):
        np.testing.assert_array_equal(one, other)


def test_images_are_evaluated_in_fewer_environments() -> None:
    learner = ImagePolicy()
    evaluate(learner, ImageEnv, 20)
    assert {len(call["pixels"]) for call in learner.calls} == {4}  # two halves


def test_wrong_nested_observations_raise_input_error() -> None:
    class WithoutState(ImageEnv):
        observation_space: gym.Space = gym.spaces.Dict(
            pixels=gym.spaces.Box(0, 255, (4, 4, 3, 2), np.uint8)
        )

        def _observe(self) -> Any:
            return {"pixels": super()._observe()["pixels"]}

    with pytest.raises(InputError, match=r"'state' of shape \(3,\), but WithoutState has none"):
        evaluate(ImagePolicy(SHAPES), WithoutState, 1)
    with pytest.raises(InputError, match=r"'pixels' of shape \(8, 8, 3, 2\), but ImageEnv has"):
        evaluate(ImagePolicy((("pixels", (8, 8, 3, 2)),)), ImageEnv, 1)
    with pytest.raises(InputError, match=r"with pixels, state, but Countdown returns flat vectors"):
        evaluate(ImagePolicy(SHAPES), Countdown, 1)
    with pytest.raises(InputError, match="no 'state', so there are no positions"):
        evaluate(ImagePolicy(), WithoutState, 1, record_trajectories=True)


@pytest.mark.parametrize("name", ["BCLearner", "IQLLearner", "SACLearner", "TD3Learner"])
def test_learners_without_candidates_can_be_evaluated(name: str) -> None:
    """They have no N and, except IQL, no value network; evaluation needs neither."""
    spaces = (gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (2,)))
    learner = getattr(agents, name).create(0, *spaces, hidden_dims=(8,))
    assert not hasattr(learner, "N")
    with disable_jit():
        result = evaluate(learner, Countdown, 3, num_envs=2)
    assert result["episodes"] == 3
    assert np.isfinite(result["returns"]).all()
    learner = getattr(agents, name).create(0, gym.spaces.Box(-1, 1, (4,)), spaces[1])
    with pytest.raises(InputError, match="needs observations of size 4, but Countdown has"):
        evaluate(learner, Countdown, 1)


class RenderedEnv(Countdown):
    """Renders the number of steps left as brightness."""

    render_mode = "rgb_array"

    def render(self) -> Any:
        return np.full((10, 10, 3), 20 * self.left, np.uint8)


def test_record_video_runs_the_first_episode_of_evaluate(tmp_path) -> None:
    result = evaluate(Policy(), RenderedEnv, 1, seed=4)
    summary = record_video(Policy(), RenderedEnv, tmp_path / "film.gif", seed=4, size=10, fps=10)
    assert summary == {
        "return": pytest.approx(result["return"]),
        "length": result["lengths"][0],
        "success": bool(result["success"]),
        "path": tmp_path / "film.gif",
    }
    with Image.open(summary["path"]) as film:
        shades = [
            int(np.array(frame.convert("RGB")).mean()) for frame in ImageSequence.Iterator(film)
        ]
    assert shades == [20 * left for left in range(summary["length"], -1, -1)]


def test_recording_of_mujoco_and_of_image_observations(tmp_path) -> None:
    idle = Broken(np.zeros((1, 2), np.float32))
    summary = record_video(
        idle, ENV_NAME, tmp_path / "maze.gif", size=24, max_steps=4, camera_id=-1
    )
    assert (summary["length"], summary["success"]) == (4, False)
    with Image.open(summary["path"]) as film:
        assert film.size == (24, 24)


def test_bad_recordings_raise_input_error(tmp_path) -> None:
    with pytest.raises(InputError, match="must be created with render_mode"):
        record_video(Policy(), Countdown, tmp_path / "film.gif")
    with pytest.raises(InputError, match="Policy has no method 'act'"):
        record_video(Policy(), RenderedEnv, tmp_path / "film.gif", method="act")
    with pytest.raises(InputError, match=r"must end in \.mp4 or \.gif"):
        record_video(Policy(), RenderedEnv, tmp_path / "film.txt")
    assert list(tmp_path.iterdir()) == []


def test_first_episode_is_logged_to_wandb(monkeypatch) -> None:
    logged: list[dict] = []
    fake = SimpleNamespace(
        Video=lambda path, format: sum(1 for _ in ImageSequence.Iterator(Image.open(path))),
        log=lambda values, commit: logged.append(values),
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(video, "video_suffix", lambda: ".gif")
    result = evaluate(Policy(), RenderedEnv, 4, seed=1, num_envs=2, save_video=True)
    assert logged == [{"eval_video": result["lengths"][0] + 1}]
    assert result["returns"] == evaluate(Policy(), RenderedEnv, 4, seed=1)["returns"]
