"""Training on what the policy does itself: SAC, TD3, REDQ and DroQ from states, DrQ from images.

After upstream's ``examples/states/train_online.py`` and ``examples/pixels/train_online_pixels.py``,
which are one loop here. What differs is said where it does, with the quirk's ID.
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

from idql_func import agents
from idql_func.agents.agent import TRANSITION_FIELDS
from idql_func.data import MemoryEfficientReplayBuffer, ReplayBuffer
from idql_func.training.configs.learners import DrQConfig
from idql_func.training.configs.online import OnlineConfig
from idql_func.training.configs.settings import changed_settings
from idql_func.training.interaction import Interaction
from idql_func.training.offline import TrainResult
from idql_func.training.online_loop import (
    Intervals,
    LoopState,
    OnlineLoop,
    SavedLoop,
    read_saved_loop,
)
from idql_func.training.pixels import pixel_environment_factory
from idql_func.training.runs import plots
from idql_func.training.runs.checkpoint import CheckpointMetadata, restore_learner
from idql_func.training.runs.console import Reporter, returns_table
from idql_func.training.runs.directory import RunDirectory, choose_run_directory, open_run_directory
from idql_func.training.runs.metrics import MetricsLogger
from idql_func.training.runs.results import Evaluator, plain_results
from idql_func.training.runtime.device import choose_device
from idql_func.training.runtime.matmul_precision import matmul_precision
from idql_func.training.runtime.threads import cpu_threads
from idql_func.training.task import environment_factory, shapes_of
from idql_func.types import InputError

__all__ = ["RESUMABLE", "train_online"]

RESUMABLE = (
    "max_steps",
    "log_interval",
    "checkpoint_interval",
    "keep_checkpoints",
    "solved_return",
    "evaluation.interval",
    "evaluation.interval_episodes",
    "evaluation.episodes",
    "evaluation.num_envs",
    "evaluation.seed",
)
"""Settings that a resumed run may change: none of them touches what is computed by a step."""

# Where Gymnasium names no threshold: an optimal policy earns about -150, by the luck of the start.
_SOLVED = {"Pendulum-v1": -200.0}


def train_online(
    config: OnlineConfig,
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    on_step: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train a learner on its own experience, evaluate it, and leave a run's folder behind.

    Args:
        config: the settings. For a resumed run they must be those of the run, but for the names in
            ``RESUMABLE`` (``open_run_directory(path).read_config(OnlineConfig)`` gives them).
        resume: a run's folder, or the newest checkpoint in one, to continue from. Environments that
            repeat themselves give the same bits as if the run had never stopped (but for batches
            that were drawn ahead, see ``PixelConfig.prefetch``); others begin a new episode.
        overwrite: replace a run of the same name.
        reporter: where to print; default: standard output.
        on_step: called with the number of actions taken after each of them.

    Returns:
        The trained learner, its run and its evaluation.

    Raises:
        InputError: settings, environment or a checkpoint are not usable; the sentence says why.
        FileNotFoundError: the run to resume does not exist.
        TrainingInterrupted: Ctrl-C; a checkpoint and the buffer have been written.
    """
    config.validate()
    reporter = reporter if reporter is not None else Reporter()
    device = choose_device(config.device)
    saved = None
    if resume is None:
        run = choose_run_directory(config, overwrite)
    else:
        run = open_run_directory(resume)
        saved = read_saved_loop(run, resume)
        check_resumable(run, config, saved, RESUMABLE, config.max_steps // _frames(config))

    factory, pixels = _environment(config)
    env = factory()
    try:
        frames = _frames(config)
        last = config.max_steps // frames
        reporter.stage(
            f"Environment: {config.env}, observations {shapes_of(env.observation_space)}, "
            f"actions {env.action_space.shape}"
        )
        reporter.stage(f"Learner: {config.learner.class_name}, seed {config.seed}, on {device}")
        learner = getattr(agents, config.learner.class_name).create(
            config.seed, env.observation_space, env.action_space, **config.learner.keywords()
        )
        buffer = _buffer(config, env, last, saved)
        interaction = Interaction(
            env, buffer, config.seed, bootstrap_at_limit=config.bootstrap_at_limit
        )
        state = LoopState(learner)
        if saved is not None:
            state = restore_state(saved, learner, interaction, reporter)
        state = dataclasses.replace(state, learner=state.learner.to(device))

        # Not before everything above has been found to be in order: bad input leaves no trace.
        begin_run(run, config, saved)
        step = state.step
        with (
            cpu_threads(config.threads),
            matmul_precision(
                config.matmul, device=device, setting=None if saved is None else saved.matmul
            ) as matmul,
            MetricsLogger(
                run.path, keep_before=None if saved is None else step * frames + 1
            ) as logger,
        ):
            reporter.detail(f"matrix products: {matmul.reason}")
            evaluation = config.evaluation
            loop = OnlineLoop(
                course=_Exploration(config, _batches(config, buffer, device)),
                interaction=interaction,
                run=run,
                reporter=reporter,
                logger=logger,
                matmul=matmul,
                evaluator=Evaluator(factory, evaluation.seed, evaluation.num_envs),
                evaluation=evaluation,
                numbers=(None,),
                intervals=Intervals(
                    config.log_interval,
                    evaluation.interval,
                    config.checkpoint_interval,
                    config.keep_checkpoints,
                ),
                metadata=CheckpointMetadata(
                    updates=0,
                    seed=config.seed,
                    create=config.learner.keywords(),
                    observation_space=env.observation_space,  # type: ignore[arg-type]
                    action_space=env.action_space,  # type: ignore[arg-type]
                    extra={"env": config.env, "score_name": None, "pixels": pixels},
                ),
                last=last,
                frames=frames,
                on_step=on_step,
            )
            reporter.stage(
                f"Training: {config.max_steps:,} steps, the first {config.start_training:,} "
                f"actions at random; everything goes to {run.path}"
            )
            state = loop.train(state)
            try:
                results = loop.final_evaluation(state)
            except KeyboardInterrupt:
                # All is saved; what is missing is the evaluation.
                raise loop.interrupted(state) from None
            summary = _finish(config, loop, state, results, solved_return(config, env))
    finally:
        env.close()
    return TrainResult(state.learner, run, results, summary)


@dataclass
class _Exploration:
    """Random actions first, then the policy's own; an update for each of the latter."""

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


def begin_run(run: RunDirectory, config: Any, saved: SavedLoop | None) -> None:
    """Make the run's folder, or ready it for what a continued run makes anew."""
    if saved is None:
        run.start()
    else:
        run.discard_after(saved.step)
    run.write_config(config)


def restore_state(
    saved: SavedLoop, learner: Any, interaction: Interaction, reporter: Reporter
) -> LoopState:
    """The state that a checkpoint holds; the environment is taken where it was then.

    Raises:
        InputError: the checkpoint is of another learner or size, or damaged.
    """
    learner = restore_learner(learner, saved.checkpoint)
    reporter.detail(f"continues {saved.checkpoint} at {saved.step:,} steps")
    if not interaction.restore(saved.interaction):
        reporter.detail("the environment does not repeat itself: a new episode begins")
    if saved.torch_version != torch.__version__:
        reporter.warn(
            f"the run was begun with torch {saved.torch_version} and goes on with "
            f"{torch.__version__}: the last bits of its numbers may differ"
        )
    return LoopState(learner, saved.step, saved.updates)


def check_resumable(
    run: RunDirectory,
    config: Any,
    saved: SavedLoop,
    resumable: tuple[str, ...],
    last: int,
) -> None:
    """Refuse to continue a run with other settings, or one that is finished.

    Args:
        run: the run, which holds its own settings.
        config: those to continue it with.
        saved: where it stands.
        resumable: names of the settings that may differ.
        last: the last step by ``config``.

    Raises:
        InputError: so.
    """
    own = run.read_config(type(config))
    # Where the run lies and what it is called changes when its folder is moved.
    free = {*resumable, "runs_dir", "name", "preset"}
    changed = [name for name in changed_settings(own, config) if name not in free]
    if changed:
        raise InputError(
            f"a run that is continued cannot change {', '.join(changed)}; it may change "
            + ", ".join(resumable)
        )
    if saved.step > last or (saved.step == last and run.summary.exists()):
        raise InputError(
            f"{saved.checkpoint} already has {saved.step:,} of {last:,} steps: there is nothing to "
            "continue; give a larger --max-steps"
        )


def solved_return(config: OnlineConfig, env: gym.Env) -> float | None:
    """The mean return at which the task counts as solved, if anybody says."""
    if config.solved_return is not None:
        return config.solved_return
    own = None if env.spec is None else env.spec.reward_threshold
    return _SOLVED.get(config.env) if own is None else float(own)


def _environment(config: OnlineConfig) -> tuple[Callable[[], gym.Env], dict[str, Any] | None]:
    """What makes the environment, and the arguments of images where it is seen through them."""
    if not config.from_pixels:
        return environment_factory(config.env), None
    settings = config.pixels
    factory: Any = pixel_environment_factory(
        config.env,
        settings.image_size,
        settings.num_stack,
        settings.action_repeat,
        settings.camera_id,
    )
    return factory, dict(factory.keywords)


def _frames(config: OnlineConfig) -> int:
    """Steps of the environment for each action."""
    pixels = _environment(config)[1]
    return 1 if pixels is None else int(pixels["action_repeat"])


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
        # Overlapping stacks travel together and are taken apart on the device.
        arguments["pack_obs_and_next_obs"] = True
    queue = config.pixels.prefetch if config.from_pixels else 1
    return buffer.get_iterator(queue, arguments, device)


def _finish(
    config: OnlineConfig,
    loop: OnlineLoop,
    state: LoopState,
    results: Mapping[int | None, Mapping[str, Any]],
    solved: float | None,
) -> dict[str, Any]:
    """Pictures, summary and the closing table."""
    plots.save_figure(
        plots.learning_curve(
            loop.logger.records,
            title=f"{config.learner.class_name} ({config.preset}) in {config.env}, "
            f"seed {config.seed}",
            x="step",
            solved_return=solved,
        ),
        loop.run.learning_curve,
    )
    pictures = {}
    if isinstance(config.learner, DrQConfig):
        _save_frames(config.learner.pixel_keys[0], loop)
        pictures["frames"] = loop.run.frames
    mean = results[None]["return"]
    verdict = ""
    if solved is not None:
        verdict = f" (counts as solved at {solved:g}: {'yes' if mean >= solved else 'no'})"
    title = f"{config.env} after {state.step * loop.frames:,} steps{verdict}"
    summary = {
        "env": config.env,
        "solved_return": solved,
        "solved": None if solved is None else bool(mean >= solved),
        "evaluation": plain_results(results),
    }
    return loop.conclude(state, summary, returns_table(results, title=title), pictures)


def _save_frames(key: str, loop: OnlineLoop) -> None:
    """A few observations as the learner sees them, spread over the replay buffer."""
    buffer = loop.interaction.buffer
    rows = buffer.transition_rows
    chosen = rows[np.linspace(0, len(rows) - 1, min(5, len(rows))).astype(int)]
    stacks = buffer.sample(1, keys=("observations",), indx=chosen)["observations"][key]
    title = f"Observations, the newest frame on the right: {tuple(stacks.shape[1:])}"
    plots.save_figure(plots.frames_figure(stacks, title), loop.run.frames)
