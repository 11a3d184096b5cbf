"""Datasets from policies and replay buffers: what ``idql collect`` does.

After upstream's ``examples/pixels/collect_from_checkpoint.py``, for states too. (Its evaluation
uses arguments that do not exist and unpacks a pair that is not returned: quirk L14.)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idql_func import random
from idql_func.data import MemoryEfficientReplayBuffer, ReplayBuffer
from idql_func.env_imports import check_env_name
from idql_func.evaluation import record_video
from idql_func.files import remove_leftovers
from idql_func.training.configs.collect import CollectConfig
from idql_func.training.data_info import spread
from idql_func.training.interaction import Interaction
from idql_func.training.online_loop import read_saved_loop
from idql_func.training.recording import Recording, join, of_buffer, of_file, roll_out
from idql_func.training.runs.checkpoint import (
    CheckpointMetadata,
    find_checkpoint,
    load_checkpoint,
    read_metadata,
)
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import open_run_directory
from idql_func.training.runtime.device import choose_device, eager_on_cpu
from idql_func.training.sources import load_buffer, spaces_of
from idql_func.training.task import environment_factory
from idql_func.types import InputError

__all__ = ["collect"]

_STEPS = 20_000  # of a policy, by default
_STEPS_OF_ONE_ENV = 1_000  # with fewer most episodes would be cut
_MOST_ENVS = 16


def collect(config: CollectConfig, *, reporter: Reporter | None = None) -> Path:
    """Collect steps from all sources in order, and write them to one file.

    Returns:
        The file, or the folder of a Minari dataset.

    Raises:
        InputError: a source is damaged, sources do not fit together, or the output exists.
        FileNotFoundError: a source does not exist.
    """
    config.validate()
    reporter = reporter if reporter is not None else Reporter()
    remove_leftovers(config.path.parent)
    device = choose_device(config.device)
    if config.video is not None:
        _video(config, device, reporter)
    if config.kind == "buffer":
        buffer = _collect_buffer(config, device, reporter)
        path = buffer.save(config.path)
        reporter.stage(f"{len(buffer.transition_rows):,} transitions written to {path}")
        return path
    recording = join([_recording(source, config, device, reporter) for source in config.sources])
    returns = recording.returns()
    if len(returns):
        reporter.detail(f"{len(returns)} whole episodes, return {spread(returns)}")
    minari = config.kind == "minari"
    path = (recording.write_minari if minari else recording.write)(config.path)
    reporter.stage(f"{len(recording):,} steps written to {path}")
    return path


# --- vectors ------------------------------------------------------------------------------


def _recording(source: Path, config: CollectConfig, device: Any, reporter: Reporter) -> Recording:
    if source.suffix in (".hdf5", ".h5"):
        recording = of_file(source, config.steps)
        reporter.stage(f"{source}: {len(recording):,} steps")
        return recording
    if config.buffer:
        return _of_run_buffer(source, config, reporter)
    policy = _Policy(source, config, device)
    if policy.metadata.extra.get("pixels"):
        raise InputError(
            f"{source} learned from images, which go into a replay buffer: name the output "
            "something.safetensors"
        )
    steps = config.steps or _STEPS
    count = config.num_envs or max(1, min(_MOST_ENVS, steps // _STEPS_OF_ONE_ENV))
    reporter.stage(f"{policy.origin}: {steps:,} steps in {policy.env_name}")
    with reporter.bar(steps, 0, "steps") as bar, eager_on_cpu(device):
        return roll_out(
            policy.act,
            environment_factory(policy.env_name),
            steps,
            seed=config.seed,
            num_envs=count,
            progress=bar.advance,
            env=policy.env_name,
            origin=policy.origin,
        )


def _of_run_buffer(source: Path, config: CollectConfig, reporter: Reporter) -> Recording:
    buffer, metadata = _run_buffer(source)
    if isinstance(buffer, MemoryEfficientReplayBuffer) or metadata.extra.get("pixels"):
        raise InputError(
            f"{source} learned from images; name the output something.safetensors to keep its "
            "replay buffer"
        )
    name = config.env or str(metadata.extra["env"])
    env = environment_factory(name)()
    limit = None if env.spec is None else env.spec.max_episode_steps
    env.close()
    origin = f"{_name_of(source)}: replay buffer"
    recording = of_buffer(buffer, config.steps, env=name, limit=limit, origin=origin)
    reporter.stage(f"{source}: {len(recording):,} of the {len(buffer):,} steps in its buffer")
    return _with_original_rewards(recording, metadata)


def _with_original_rewards(recording: Recording, metadata: CheckpointMetadata) -> Recording:
    """The environment's rewards, from those that fine-tuning stored (quirk D15)."""
    change = metadata.extra.get("online_rewards", "as_stored")
    if change == "as_stored":
        return recording
    if change != "minus_one":
        raise InputError(f"{recording.origin} holds scaled rewards, not those of the environment")
    rewards = recording.arrays["rewards"] + np.float32(1)
    return dataclasses.replace(recording, arrays={**recording.arrays, "rewards": rewards})


def _run_buffer(source: Path) -> tuple[ReplayBuffer, CheckpointMetadata]:
    run = open_run_directory(source)
    saved = read_saved_loop(run, source)
    if not saved.buffer.exists():
        raise InputError(
            f"{source} has no replay buffer: only that of the newest checkpoint is kept"
        )
    return load_buffer(saved.buffer), read_metadata(saved.checkpoint)


# --- images -------------------------------------------------------------------------------


def _collect_buffer(config: CollectConfig, device: Any, reporter: Reporter) -> ReplayBuffer:
    """One replay buffer from all sources, which learners from images load directly."""
    buffer: ReplayBuffer | None = None
    for source in config.sources:
        if config.buffer or source.suffix == ".safetensors":
            is_file = source.suffix == ".safetensors"
            part = load_buffer(source) if is_file else _run_buffer(source)[0]
            reporter.stage(f"{source}: a buffer of {len(part.transition_rows):,} transitions")
            if buffer is None and config.steps is None:
                buffer = part
                continue
            buffer = _append(buffer, part, config.steps)
        else:
            buffer = _append(buffer, _roll_out_images(source, config, device, reporter), None)
    assert buffer is not None
    return buffer


def _roll_out_images(
    source: Path, config: CollectConfig, device: Any, reporter: Reporter
) -> ReplayBuffer:
    policy = _Policy(source, config, device)
    steps, pixels = config.steps or _STEPS, policy.metadata.extra.get("pixels")
    reporter.stage(f"{policy.origin}: {steps:,} actions in {policy.env_name}")
    env = environment_factory(policy.env_name, pixels)()
    try:
        buffer = _empty_buffer(env.observation_space, env.action_space, steps)
        interaction = Interaction(env, buffer, config.seed)
        with reporter.bar(steps, 0, "steps") as bar, eager_on_cpu(device):
            for step in range(1, steps + 1):
                interaction.step(policy.act(interaction.observation))
                bar.advance(step)
    finally:
        env.close()
    buffer.end_episode()
    return buffer


def _empty_buffer(observation_space: Any, action_space: Any, transitions: int) -> ReplayBuffer:
    if not hasattr(observation_space, "spaces"):
        return ReplayBuffer(observation_space, action_space, transitions)
    stacked = {k: s for k, s in observation_space.spaces.items() if len(s.shape) == 4}
    # Each episode takes one more row for each stacked frame; unused rows need no memory.
    frames = next(iter(stacked.values())).shape[-1]
    capacity = transitions * (frames + 1)
    return MemoryEfficientReplayBuffer(observation_space, action_space, capacity, tuple(stacked))


def _append(buffer: ReplayBuffer | None, part: ReplayBuffer, steps: int | None) -> ReplayBuffer:
    """A buffer with the transitions of ``buffer``, then the first ``steps`` of ``part``."""
    rows = part.transition_rows[:steps]
    parts = [(part, rows)] if buffer is None else [(buffer, buffer.transition_rows), (part, rows)]
    joined = _empty_buffer(*spaces_of(part), sum(len(rows) for _, rows in parts))
    for source, rows in parts:
        for row in rows:
            batch = source.sample(1, indx=np.array([row]))
            joined.insert(_first_row(batch))
        joined.end_episode()
    return joined


def _first_row(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: _first_row(value) for name, value in batch.items()}
    return batch[0]


# --- policies -----------------------------------------------------------------------------


class _Policy:
    """The policy of a checkpoint, with noise on its actions if the settings say so."""

    def __init__(self, source: Path, config: CollectConfig, device: Any) -> None:
        checkpoint = find_checkpoint(source)
        self.learner, self.metadata = load_checkpoint(checkpoint, device=device)
        name = config.env or self.metadata.extra.get("env")
        if not name:
            raise InputError(f"{checkpoint} names no environment; name one with --env")
        self.env_name = check_env_name(str(name))
        if config.N is not None:
            if not hasattr(self.learner, "N"):
                raise InputError(
                    f"N is {config.N}, but a {type(self.learner).__name__} does not choose among "
                    "candidates"
                )
            self.learner = self.learner.replace(N=config.N)
        # Fold in the seed, so that the actions are not those of the training again.
        self.learner = self.learner.replace(rng=random.fold_in(self.learner.rng, config.seed))
        self.method = "eval_actions" if config.actions == "greedy" else "sample_actions"
        self.config = config
        self.generator = np.random.default_rng([config.seed, 3])
        how = config.actions + (f", noise {config.noise:g}" if config.noise else "")
        how += f", {config.random_share:.0%} random" if config.random_share else ""
        self.origin = f"{_name_of(checkpoint)}: {type(self.learner).__name__}, {how} actions"

    def act(self, observations: Any) -> NDArray[Any]:
        """Actions for one observation or for a batch of them."""
        if self.config.actions == "random":
            batch = isinstance(observations, np.ndarray) and observations.ndim == 2
            size = self.metadata.action_space.shape
            shape = (len(observations), *size) if batch else size
            return self.generator.uniform(-1.0, 1.0, shape).astype(np.float32)
        actions, self.learner = getattr(self.learner, self.method)(observations)
        if self.config.noise:
            actions = actions + self.config.noise * self.generator.standard_normal(actions.shape)
        if self.config.random_share:
            chosen = self.generator.random((*actions.shape[:-1], 1)) < self.config.random_share
            actions = np.where(chosen, self.generator.uniform(-1.0, 1.0, actions.shape), actions)
        return np.clip(actions, -1.0, 1.0).astype(np.float32)


def _video(config: CollectConfig, device: Any, reporter: Reporter) -> None:
    policy = _Policy(config.sources[0], config, device)
    pixels = policy.metadata.extra.get("pixels")
    with eager_on_cpu(device):
        saved = record_video(
            policy.learner,
            policy.env_name if pixels is None else environment_factory(policy.env_name, pixels),
            config.video or "",
            seed=config.seed,
            method=policy.method,
            camera_id=config.camera_id,
        )
    reporter.stage(
        f"video of {saved['length']} steps, return {saved['return']:.1f}: {saved['path']}"
    )


def _name_of(path: Path) -> str:
    """The last parts of a path: a file should not contain the paths of the machine it is from."""
    parts = [part for part in path.parts[-3:] if part not in ("checkpoints", "/", "runs")]
    return "/".join(parts)
