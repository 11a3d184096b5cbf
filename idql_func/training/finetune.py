"""From offline to online: IDQL continues on its policy's own experience and the old data.

After the online half of upstream's ``examples/states/train_diffusion_offline.py``, and the paper's
second variant, which upstream's switches name and its loop no longer has (quirk L3). Comments at
the places that differ from upstream give the quirk's ID.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idql_func.agents.agent import TRANSITION_FIELDS
from idql_func.data import ReplayBuffer
from idql_func.data.maze_picture import plot_trajectories
from idql_func.data.pointmaze import ENV_NAME
from idql_func.training.configs.finetune import FinetuneConfig
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.interaction import Interaction
from idql_func.training.offline import (
    ACTOR_LOSS_LABELS,
    TrainingInterrupted,
    task_evaluator,
    train_offline,
)
from idql_func.training.online_loop import (
    LoopState,
    OnlineLoop,
    SavedLoop,
    open_online_run,
    resume_loop,
)
from idql_func.training.runs.checkpoint import CheckpointMetadata, find_checkpoint, load_checkpoint
from idql_func.training.runs.console import Reporter, returns_table
from idql_func.training.runs.directory import OFFLINE, RunDirectory, open_run_directory
from idql_func.training.runs.members import reading_loop_state
from idql_func.training.runs.metrics import read_metrics
from idql_func.training.runs.opening import RESUMABLE
from idql_func.training.runs.plots import learning_curve
from idql_func.training.runs.results import Results, evaluation_record, plain_results
from idql_func.training.runs.run import Run
from idql_func.training.sources import load_source
from idql_func.training.task import Task, prepare_task
from idql_func.types import InputError

__all__ = ["RESUMABLE", "FinetuneResult", "finetune", "settings_for_start"]

_BUFFER_SEED = 1241  # what upstream adds to the seed of the run


@dataclass(frozen=True)
class FinetuneResult:
    """What a finished run returns: evaluations ``before`` and ``after`` going online, by N."""

    learner: Any
    run: RunDirectory
    before: Mapping[int | None, Mapping[str, Any]]
    after: Mapping[int | None, Mapping[str, Any]]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class _Start:
    """The offline policy that a run begins with."""

    learner: Any
    metadata: CheckpointMetadata
    checkpoint: Path
    records: list[dict[str, Any]]


def settings_for_start(config: FinetuneConfig, start: str | Path) -> FinetuneConfig:
    """The same settings for a policy that is trained already, whose run gives the offline ones.

    Raises:
        FileNotFoundError: there is no run.
        InputError: it is not a run of ``idql train``, or its settings are damaged.
    """
    offline = open_run_directory(start).read_config()
    return dataclasses.replace(config, start=Path(start), offline=offline)


def finetune(
    config: FinetuneConfig,
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    on_step: Callable[[int], None] | None = None,
) -> FinetuneResult:
    """Fine-tune an offline policy online; evaluate it before and after; write a run's folder.

    Where the settings name no policy to start from, one is trained first, in the folder ``offline``
    of the run. A run that was stopped while its offline policy was trained continues with that. The
    arguments are those of :func:`idql_func.training.online.train_online`.

    Raises:
        InputError: settings, data, environment or a checkpoint are not usable.
        FileNotFoundError: the run to resume or to start from does not exist.
        TrainingInterrupted: Ctrl-C; a checkpoint (and online, the buffer) has been written.
    """
    config.validate()
    how = {"resume": resume, "overwrite": overwrite, "reporter": reporter}
    opened, saved = open_online_run(config, config.last, **how)
    with opened as run:
        return _finetune(run, saved, on_step)


def _finetune(
    run: Run, saved: SavedLoop | None, on_step: Callable[[int], None] | None
) -> FinetuneResult:
    config = run.config
    offline = config.offline
    if config.start is None:
        offline = dataclasses.replace(
            offline,
            runs_dir=run.directory.path,
            name=OFFLINE,
            seed=config.seed,
            device=config.device,
            threads=config.threads,
            matmul=config.matmul,
        )
    else:
        find_checkpoint(config.start)
    run.reporter.stage(f"Data: {offline.dataset.source}")
    task = prepare_task(offline, run.device, progress=run.reporter.console.is_terminal)
    if task.make_env is None:
        raise InputError(
            "the offline settings name no environment, which fine-tuning needs; give one with "
            "--offline.evaluation.env"
        )
    if not run.resumed:
        run.begin()
    start = _start(config, offline, run)
    return _online(run, saved, task, start, on_step)


def _start(config: FinetuneConfig, offline: TrainConfig, run: Run) -> _Start:
    """The offline policy: the one that the settings name, or one that is trained now."""
    source = RunDirectory(run.directory.path / OFFLINE)
    if config.start is not None:
        source = open_run_directory(config.start)
    elif not source.is_complete:
        run.reporter.stage("First the offline policy.")
        try:
            train_offline(
                offline,
                resume=None if source.state == "absent" else source.path,
                reporter=run.reporter,
            )
        except TrainingInterrupted as stopped:
            raise TrainingInterrupted(run.directory, stopped.updates) from None
    checkpoint = find_checkpoint(source.path if config.start is None else config.start)
    learner, metadata = load_checkpoint(checkpoint)
    if not hasattr(learner, "sample_implicit_policy"):
        raise InputError(
            f"{checkpoint} holds a {type(learner).__name__}, but what is fine-tuned must be a "
            "DDPMIQLLearner or a GeneralDDPMIQLLearner"
        )
    metrics = source.path / "metrics.jsonl"
    records = read_metrics(metrics) if metrics.exists() else []
    before = [record for record in records if record.get("step", 0) <= metadata.updates]
    return _Start(learner, metadata, checkpoint, before)


def _online(
    run: Run,
    saved: SavedLoop | None,
    task: Task,
    start: _Start,
    on_step: Callable[[int], None] | None,
) -> FinetuneResult:
    assert task.make_env is not None
    config, reporter = run.config, run.reporter
    offset = start.metadata.updates
    env = task.make_env()
    try:
        interaction = Interaction(
            env,
            _buffer(config, env, saved),
            config.seed,
            change_reward=_reward_change(config),
            bootstrap_at_limit=config.bootstrap_at_limit,
        )
        state = LoopState(start.learner, updates=offset)
        # Upstream leaves the order of the batches to chance here (D4).
        task.train.seed(config.seed)
        if saved is not None:
            state = resume_loop(run, saved, start.learner, interaction)
            with reading_loop_state(saved.checkpoint, "a fine-tuning run"):
                task.train.rng = torch.tensor(saved.strategy["data_key"], dtype=torch.int64)
            run.begin()
        state = dataclasses.replace(state, learner=state.learner.to(run.device))
        run.evaluator, run.candidates = task_evaluator(config, task), config.evaluation.N
        run.members[0].metadata = _metadata(start, task, config)
        arguments = {"batch_size": config.online_batch, "keys": TRANSITION_FIELDS}
        online = interaction.buffer.get_iterator(1, arguments, run.device)
        loop = OnlineLoop(
            run=run,
            strategy=_Finetuning(config, task.train, online),
            interaction=interaction,
            last=config.last,
            offset=offset,
            on_step=on_step,
        )
        in_maze = task.env_name == ENV_NAME
        with run.recording(keep_before=loop.position(state).step + 1):
            at = loop.position(state)
            # The offline policy, in the very episodes of the evaluation at the end.
            learner = start.learner.to(run.device)
            title = "Before, the offline policy"
            [before] = run.evaluate_all(at, learner, title, lambda _: in_maze)
            if saved is None:
                for record in start.records:
                    run.members[0].metrics.log(record)
                run.log(at, [evaluation_record(before)])
            reporter.stage(
                f"Online: {config.last:,} steps in {task.env_name}, N = {config.candidates}, "
                f"{'actor, Q and V learn' if config.train_actor else 'Q and V learn'}; "
                f"everything goes to {run.directory.path}"
            )
            state = loop.train(state)
            [after] = run.final_evaluation(loop.position(state), state.learner, lambda _: in_maze)
            summary = _finish(run, loop, state, start, task, before, after)
    finally:
        env.close()
    return FinetuneResult(state.learner, run.directory, before, after, summary)


@dataclass
class _Finetuning:
    """The policy acts from the first step on; updates on half new and half old data (L4)."""

    config: FinetuneConfig
    data: Any
    online: Iterator[dict[str, Any]]

    def act(self, learner: Any, interaction: Interaction, step: int) -> tuple[np.ndarray, Any]:
        acting = learner.replace(N=self.config.candidates)
        implicit = self.config.exploration == "implicit"
        choose = acting.sample_implicit_policy if implicit else acting.eval_actions
        action, acting = choose(interaction.observation)
        return action, learner.replace(rng=acting.rng)

    def learns(self, step: int) -> bool:
        return step > self.config.start_training

    def update(self, learner: Any) -> tuple[Any, Mapping[str, torch.Tensor]]:
        online = next(self.online)
        offline = self.data.sample_torch(self.config.offline_batch, keys=tuple(online))
        batch = {name: torch.cat([online[name], offline[name]]) for name in online}
        if not self.config.train_actor:
            return learner.critic_update(batch)
        return learner.update(batch, donate=True)

    def state(self) -> dict[str, Any]:
        return {"data_key": self.data.rng.tolist()}


def _buffer(config: FinetuneConfig, env: Any, saved: SavedLoop | None) -> ReplayBuffer:
    if saved is not None:
        return saved.load_buffer(ReplayBuffer, config.last)
    spaces = env.observation_space, env.action_space
    return ReplayBuffer(*spaces, config.last, seed=config.seed + _BUFFER_SEED)


def _online_rewards(config: FinetuneConfig) -> str:
    """The change of online rewards: that of the offline ones, as upstream does or as the settings
    say (quirks D15, D16)."""
    change = config.offline.dataset.rewards
    scaled = change == "normalize_returns" and not config.normalize_online_rewards
    return "as_stored" if scaled else change


def _reward_change(config: FinetuneConfig) -> Callable[[float], float] | None:
    change = _online_rewards(config)
    if change == "minus_one":
        return lambda reward: reward - 1.0
    if change == "normalize_returns":
        source = load_source(config.offline.dataset)
        _, _, returns = source.dataset.trajectory_boundaries_and_returns()
        scale = 1_000.0 / float(np.max(returns) - np.min(returns))
        return lambda reward: reward * scale
    return None


def _metadata(start: _Start, task: Task, config: FinetuneConfig) -> CheckpointMetadata:
    behaviour = None if task.behaviour is None else task.behaviour.as_result()
    return dataclasses.replace(
        start.metadata,
        extra={
            "env": task.env_name,
            "score_name": task.score_name,
            "dataset": config.offline.dataset.source,
            "online_rewards": _online_rewards(config),
            "pixels": None,
            "behaviour": behaviour,
        },
    )


def _finish(
    run: Run,
    loop: OnlineLoop,
    state: LoopState,
    start: _Start,
    task: Task,
    before: Results,
    after: Results,
) -> dict[str, Any]:
    """Pictures, summary and the final table."""
    config, directory, [member] = run.config, run.directory, run.members
    behaviour = member.metadata.extra["behaviour"]
    variant = "actor kept training" if config.train_actor else "frozen actor"
    done = f"{loop.offset:,} offline updates, then {state.step:,} online steps ({variant}"
    curve = learning_curve(
        member.metrics.records,
        behaviour_return=None if behaviour is None else behaviour["return"],
        title=f"{type(state.learner).__name__} in {task.env_name}: {done}), seed {config.seed}",
        labels=ACTOR_LOSS_LABELS,
        x="step",
        handover=loop.offset,
    )
    pictures = {}
    if task.env_name == ENV_NAME:
        most = max(config.evaluation.N)
        panels = [
            (f"{when}: N = {most}, return {result['return']:.0f}", result["trajectories"])
            for when, result in (("before", before[most]), ("after", after[most]))
        ]
        run.save_picture(lambda: plot_trajectories(directory.trajectories, panels))
        pictures["trajectories"] = directory.trajectories
    summary = {
        "env": task.env_name,
        "start": str(start.checkpoint),
        "variant": variant,
        "offline_updates": loop.offset,
        "behaviour": behaviour,
        "before": plain_results(before),
        "evaluation": plain_results(after),
    }
    summary, files = run.finish_member(member, loop.position(state), summary, curve, pictures)
    rows = {
        when if len(results) == 1 else f"{when}, N = {n}": result
        for when, results in (("before", before), ("after", after))
        for n, result in results.items()
    }
    title = f"{done}, N = {', '.join(map(str, after))})"
    run.report_end(files, returns_table(rows, behaviour=behaviour, title=title))
    return summary
