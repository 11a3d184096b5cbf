"""Training on the policy's own experience: SAC, TD3, REDQ and DroQ from states, DrQ from images.

After upstream's ``examples/states/train_online.py`` and ``examples/pixels/train_online_pixels.py``,
which are one loop here. Comments at the places that differ from upstream give the quirk's ID.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from matplotlib.figure import Figure

from idql_func import agents
from idql_func.agents.agent import TRANSITION_FIELDS
from idql_func.data import MemoryEfficientReplayBuffer, ReplayBuffer
from idql_func.training.configs.learners import DrQConfig
from idql_func.training.configs.online import OnlineConfig
from idql_func.training.interaction import Interaction
from idql_func.training.offline import TrainResult
from idql_func.training.online_loop import (
    LoopState,
    OnlineLoop,
    SavedLoop,
    open_online_run,
    resume_loop,
)
from idql_func.training.runs import plots
from idql_func.training.runs.checkpoint import CheckpointMetadata
from idql_func.training.runs.console import Reporter, returns_table
from idql_func.training.runs.opening import RESUMABLE
from idql_func.training.runs.results import Evaluator, Results, plain_results
from idql_func.training.runs.run import Run
from idql_func.training.task import environment_factory, pixel_environment_factory, shapes_of
from idql_func.types import InputError

__all__ = ["RESUMABLE", "train_online"]

# Where Gymnasium has no threshold: an optimal policy earns about -150, depending on the start.
_SOLVED = {"Pendulum-v1": -200.0}


def train_online(
    config: OnlineConfig,
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    on_step: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train a learner on its own experience, evaluate it, and write a run's folder.

    The arguments and the result are as for :func:`idql_func.training.offline.train_offline`.

    Args:
        resume: a run's folder, or the newest checkpoint in one, to continue from. Environments that
            are deterministic give the same bits as if the run had never stopped (except for batches
            that were drawn ahead, see ``PixelConfig.prefetch``); others begin a new episode.
        on_step: called with the number of actions taken after each of them.

    Raises:
        InputError: settings, environment or a checkpoint are not usable; the sentence says why.
        FileNotFoundError: the run to resume does not exist.
        TrainingInterrupted: Ctrl-C; a checkpoint and the buffer have been written.
    """
    config.validate()
    factory, pixels = _environment(config)
    frames = 1 if pixels is None else int(pixels["action_repeat"])
    last = config.max_steps // frames
    if config.start_training > last:
        raise InputError(
            f"start_training is {config.start_training}, but only {last} actions are taken, "
            f"repeated {frames} times each: nothing would be learned"
        )
    opened, saved = open_online_run(
        config, last, resume=resume, overwrite=overwrite, reporter=reporter
    )
    with opened as run:
        return _train(run, saved, factory, pixels, on_step)


def _train(
    run: Run,
    saved: SavedLoop | None,
    factory: Callable[[], gym.Env],
    pixels: dict[str, Any] | None,
    on_step: Callable[[int], None] | None,
) -> TrainResult:
    config = run.config
    frames = 1 if pixels is None else int(pixels["action_repeat"])
    last = config.max_steps // frames
    env = factory()
    try:
        run.reporter.stage(
            f"Environment: {config.env}, observations {shapes_of(env.observation_space)}, "
            f"actions {env.action_space.shape}"
        )
        run.reporter.stage(
            f"Learner: {config.learner.class_name}, seed {config.seed}, on {run.device}"
        )
        learner = getattr(agents, config.learner.class_name).create(
            config.seed, env.observation_space, env.action_space, **config.learner.keywords()
        )
        buffer = _buffer(config, env, last, saved)
        interaction = Interaction(
            env, buffer, config.seed, bootstrap_at_limit=config.bootstrap_at_limit
        )
        state = LoopState(learner)
        if saved is not None:
            state = resume_loop(run, saved, learner, interaction)
        state = dataclasses.replace(state, learner=state.learner.to(run.device))
        evaluation = config.evaluation
        run.evaluator = Evaluator(factory, evaluation.seed, evaluation.num_envs)
        run.members[0].metadata = CheckpointMetadata(
            updates=0,
            seed=config.seed,
            create=config.learner.keywords(),
            observation_space=env.observation_space,
            action_space=env.action_space,  # type: ignore[arg-type]
            extra={"env": config.env, "score_name": None, "pixels": pixels},
        )
        loop = OnlineLoop(
            run=run,
            strategy=_Exploration(config, _batches(config, buffer, run.device)),
            interaction=interaction,
            last=last,
            frames=frames,
            on_step=on_step,
        )
        run.begin()
        with run.recording(keep_before=loop.position(state).step + 1):
            run.reporter.stage(
                f"Training: {config.max_steps:,} steps, the first {config.start_training:,} "
                f"actions at random; everything goes to {run.directory.path}"
            )
            state = loop.train(state)
            [results] = run.final_evaluation(loop.position(state), state.learner)
            summary = _finish(run, loop, state, results, solved_return(config, env))
    finally:
        env.close()
    return TrainResult(state.learner, run.directory, results, summary)


@dataclass
class _Exploration:
    """Random actions first, then the policy's own with an update for each."""

    config: OnlineConfig
    batches: Iterator[dict[str, Any]]

    def act(self, learner: Any, interaction: Interaction, step: int) -> tuple[np.ndarray, Any]:
        if step < self.config.start_training:
            return interaction.random_action(), learner
        return learner.sample_actions(interaction.observation)

    def learns(self, step: int) -> bool:
        return step >= self.config.start_training

    def update(self, learner: Any) -> tuple[Any, Mapping[str, torch.Tensor]]:
        return learner.update(next(self.batches), self.config.utd_ratio, donate=True)

    def state(self) -> dict[str, Any]:
        return {}


def solved_return(config: OnlineConfig, env: gym.Env) -> float | None:
    """The mean return at which the task counts as solved, if it is known."""
    if config.solved_return is not None:
        return config.solved_return
    threshold = None if env.spec is None else env.spec.reward_threshold
    return _SOLVED.get(config.env) if threshold is None else float(threshold)


def _environment(config: OnlineConfig) -> tuple[Callable[[], gym.Env], dict[str, Any] | None]:
    """A function that makes the environment, and its arguments if observations are images."""
    if not config.from_pixels:
        return environment_factory(config.env), None
    pixels = config.pixels
    images = (pixels.image_size, pixels.num_stack, pixels.action_repeat, pixels.camera_id)
    factory: Any = pixel_environment_factory(config.env, *images)
    return factory, dict(factory.keywords)


def _buffer(config: OnlineConfig, env: gym.Env, last: int, saved: SavedLoop | None) -> ReplayBuffer:
    efficient = config.from_pixels and config.pixels.memory_efficient
    cls = MemoryEfficientReplayBuffer if efficient else ReplayBuffer
    capacity = config.replay_capacity or last
    if saved is not None:
        return saved.load_buffer(cls, capacity)
    return cls(env.observation_space, env.action_space, capacity, seed=config.seed)


def _batches(
    config: OnlineConfig, buffer: ReplayBuffer, device: torch.device
) -> Iterator[dict[str, Any]]:
    arguments: dict[str, Any] = {
        "batch_size": config.batch_size * config.utd_ratio,
        "keys": TRANSITION_FIELDS,
    }
    if isinstance(buffer, MemoryEfficientReplayBuffer):
        # Overlapping stacks are transferred together and separated on the device.
        arguments["pack_obs_and_next_obs"] = True
    queue = config.pixels.prefetch if config.from_pixels else 1
    return buffer.get_iterator(queue, arguments, device)


def _finish(
    run: Run, loop: OnlineLoop, state: LoopState, results: Results, solved: float | None
) -> dict[str, Any]:
    """Pictures, summary and the final table."""
    config, [member] = run.config, run.members
    curve = plots.learning_curve(
        member.metrics.records,
        title=f"{config.learner.class_name} ({config.preset}) in {config.env}, seed {config.seed}",
        x="step",
        solved_return=solved,
    )
    pictures = {}
    if isinstance(config.learner, DrQConfig):
        frames = _frames_figure(loop.interaction.buffer, config.learner.pixel_keys[0])
        run.save_picture(lambda: plots.save_figure(frames, run.directory.frames))
        pictures["frames"] = run.directory.frames
    is_solved = None if solved is None else bool(results[None]["return"] >= solved)
    summary = {
        "env": config.env,
        "solved_return": solved,
        "solved": is_solved,
        "evaluation": plain_results(results),
    }
    at = loop.position(state)
    summary, files = run.finish_member(member, at, summary, curve, pictures)
    title = f"{config.env} after {at.done:,} steps"
    if solved is not None:
        title += f" (counts as solved at {solved:g}: {'yes' if is_solved else 'no'})"
    run.report_end(files, returns_table(results, title=title))
    return summary


def _frames_figure(buffer: ReplayBuffer, key: str) -> Figure:
    """A few observations as the learner sees them, spread over the replay buffer."""
    rows = buffer.transition_rows
    chosen = rows[np.linspace(0, len(rows) - 1, min(5, len(rows))).astype(int)]
    stacks = buffer.sample(1, keys=("observations",), indx=chosen)["observations"][key]
    title = f"Observations, the newest frame on the right: {tuple(stacks.shape[1:])}"
    return plots.frames_figure(stacks, title)
