"""Offline training: dataset, held-out split, updates, evaluation, checkpoints, pictures.

One loop for every learner that learns from a fixed dataset, after upstream's three
(``examples/states/train_diffusion_offline.py`` and ``train_offline.py``,
``examples/pixels/train_offline_pixels.py``). Comments at the places that differ from upstream give
the quirk's ID.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idql_func import agents, optim, random
from idql_func.compiler.donation import without_donation
from idql_func.data import ReplayBuffer
from idql_func.data.maze_picture import plot_trajectories
from idql_func.data.pointmaze import ENV_NAME
from idql_func.training.configs.learners import BCConfig, PixelBCConfig
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.options import RunConfig
from idql_func.training.offline_loop import IDQL, Learners, OfflineLoop, State
from idql_func.training.runs import opening
from idql_func.training.runs.checkpoint import CheckpointMetadata
from idql_func.training.runs.console import Reporter, returns_table
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.runs.members import Member, TrainingInterrupted, reading_loop_state
from idql_func.training.runs.opening import open_run
from idql_func.training.runs.plots import learning_curve
from idql_func.training.runs.results import Evaluator, Results, plain_results
from idql_func.training.runs.run import Run
from idql_func.training.runtime.device import eager_on_cpu
from idql_func.training.sources import count_transitions
from idql_func.training.task import Task, prepare_task, shapes_of
from idql_func.training.updates import scan_updates, training_update

__all__ = [
    "RESUMABLE",
    "TrainResult",
    "TrainingInterrupted",
    "create_learner",
    "learner_keywords",
    "train_offline",
]

RESUMABLE = (*opening.RESUMABLE, "evaluation.N")
"""Settings that a resumed run may change: none of them affects what an update computes."""

ACTOR_LOSS_LABELS = {"actor_loss": "Actor loss (noise prediction)"}
"""What the losses of IDQL's learners are called in pictures, where the usual names do not fit."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a finished run.

    ``evaluations`` maps N (None for a learner without one) to the result of the last evaluation;
    ``summary`` is the content of ``summary.json``.
    """

    learner: Any
    run: RunDirectory
    evaluations: Results
    summary: Mapping[str, Any]


def train_offline(
    config: TrainConfig,
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    on_update: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train a learner on a fixed dataset, evaluate it, and write a run's folder.

    Args:
        config: the settings. For a resumed run they must be those of the run, except for the names
            in ``RESUMABLE`` (``open_run_directory(path).read_config()`` gives them).
        resume: a run's folder, or a checkpoint in one, to continue from; the result has the same
            bits as if the run had never stopped (same machine, same versions).
        overwrite: replace a run of the same name.
        reporter: where to print; default: standard output.
        on_update: called with the number of updates done after each of them.

    Returns:
        The trained learner, its run and its evaluations.

    Raises:
        InputError: settings, data or a checkpoint are not usable; the message says what is wrong.
        FileNotFoundError: the dataset or the run to resume does not exist.
        TrainingInterrupted: Ctrl-C; a checkpoint has been written.
    """
    config.validate()
    opened = open_offline_run([config], resume=resume, overwrite=overwrite, reporter=reporter)
    with opened as run:
        return _train(run, config, on_update)


def _train(run: Run, config: TrainConfig, on_update: Callable[[int], None] | None) -> TrainResult:
    run.reporter.stage(f"Data: {config.dataset.source}")
    task = prepare_task(config, run.device, progress=run.reporter.console.is_terminal)
    held_out = 0 if task.held_out is None else count_transitions(task.held_out)
    describe_task(task, (count_transitions(task.train), held_out), run.reporter)

    run.reporter.stage(f"Learner: {config.learner.class_name}, seed {config.seed}, on {run.device}")
    learner = create_learner(config, task)
    if run.resumed:
        [learner] = run.restore([learner])
        task.train.rng = read_data_key(run.members[0])
    elif isinstance(config.learner, IDQL):
        # One batch is drawn and discarded, as upstream does (D3).
        task.train.sample_torch(config.batch_size)
    if run.device.type != "cpu":
        learner = learner.to(run.device)
    state = State(learner, task.train.rng.to(run.device), run.start)
    evaluator = task_evaluator(config, task)
    state, [results], [(summary, files)] = train_members(
        run, task, OneLearner(config, task), state, evaluator, on_update
    )
    title = f"{task.env_name} after {state.updates:,} updates"
    table = returns_table(results, behaviour=summary["behaviour"], title=title) if results else None
    run.report_end(files, table)
    return TrainResult(state.learner, run.directory, results, summary)


def open_offline_run(configs: Sequence[TrainConfig], **options: Any) -> Run:
    """:func:`open_run` for offline training."""
    # A cosine decay spans all updates, so their number cannot change.
    fixed = {"max_steps"} if configs[0].cosine_decay else set()
    resumable = [name for name in RESUMABLE if name not in fixed]
    return open_run(configs, last=configs[0].max_steps, resumable=resumable, **options)


def train_members(
    run: Run,
    task: Task,
    learners: Learners,
    state: State,
    evaluator: Evaluator | None,
    on_update: Callable[[int], None] | None,
) -> tuple[State, list[Results], list[tuple[dict[str, Any], dict[str, Path]]]]:
    """Train all members of a run, evaluate them, and write their pictures and summaries.

    Nothing of the run has been written before. Without an environment ``evaluator`` is None.

    Returns:
        The last state, each member's evaluations, and its summary and files.
    """
    run.evaluator, run.candidates = evaluator, candidates_of(run.config)
    run.behaviour_return = None if task.behaviour is None else task.behaviour.mean
    for member in run.members:
        member.metadata = _metadata(member.config, task)
    run.begin()
    with run.recording(keep_before=run.start):
        state = OfflineLoop(run, learners, state, on_update).train()
        most = _most(run.candidates)
        results = run.final_evaluation(
            state.position, state.learner, lambda n: _has_trajectories(task) and n == most
        )
        finished = [
            _finish(run, member, task, state, own)
            for member, own in zip(run.members, results, strict=True)
        ]
    return state, results, finished


@dataclass
class OneLearner:
    """A single learner, as :class:`~idql_func.training.offline_loop.Learners`."""

    config: TrainConfig
    task: Task

    def members(self, state: State) -> list[State]:
        return [state]

    @functools.cached_property
    def _arrays(self) -> dict[str, Any] | None:
        """The dataset on the device; None for a buffer, whose batches are gathered on the host."""
        data = self.task.train
        return None if isinstance(data, ReplayBuffer) else data.on_device(fields_of(self.config))

    def advance(
        self, state: State, count: int, donate: bool
    ) -> tuple[State, Mapping[str, torch.Tensor]]:
        size, data = self.config.batch_size, self.task.train
        if self._arrays is not None:
            start = (state.learner, self._arrays, state.data_key)
            learner, key, info = scan_updates(*start, count, size, metrics="last", donate=donate)
            return State(learner, key, state.updates + count), info
        learner = state.learner if donate else without_donation(state.learner)
        info: Mapping[str, torch.Tensor] = {}
        data.rng = state.data_key
        for _ in range(count):
            batch = data.sample_torch(size, keys=fields_of(self.config))
            learner, info = training_update(type(learner))(learner, batch, donate=True)
        return State(learner, data.rng, state.updates + count), info

    def held_out_losses(self, step: int, learner: Any) -> Mapping[str, torch.Tensor] | None:
        """Losses only: upstream updates on the held-out batch and drops the result (E11).

        Neither the learner's key nor the data's moves, so logging does not change the training.
        """
        if self.task.held_out is None:
            return None
        key = random.fold_in(random.PRNGKey(self.config.seed), step)
        batch = self.task.held_out.sample_torch(
            self.config.batch_size, key=key, keys=fields_of(self.config)
        )
        with eager_on_cpu(learner.rng.device):
            return learner.eval_loss(batch)[1]


def create_learner(config: TrainConfig, task: Task) -> Any:
    """The learner of the settings, newly initialised."""
    learner_class = getattr(agents, config.learner.class_name)
    return learner_class.create(
        config.seed, task.observation_space, task.action_space, **learner_keywords(config)
    )


def learner_keywords(config: TrainConfig) -> dict[str, Any]:
    """The keywords of the learner's ``create``, with the schedule that the settings ask for.

    Example:
        >>> learner_keywords(TrainConfig(learner=BCConfig(), cosine_decay=True, max_steps=9))
        {'actor_lr': CosineDecaySchedule(init_value=0.001, decay_steps=9, alpha=0.0), ...
    """
    keywords = config.learner.keywords()
    if config.cosine_decay:
        keywords["actor_lr"] = optim.cosine_decay_schedule(keywords["actor_lr"], config.max_steps)
    return keywords


def candidates_of(config: TrainConfig) -> tuple[int | None, ...]:
    """The numbers of candidates to evaluate with; one None for a learner that has none.

    Example:
        >>> candidates_of(TrainConfig()), candidates_of(TrainConfig(learner=BCConfig()))
        ((1, 64), (None,))
    """
    return config.evaluation.N if isinstance(config.learner, IDQL) else (None,)


def fields_of(config: TrainConfig) -> tuple[str, ...] | None:
    """The fields of a batch that a learner needs; None: all. Cloning needs no next images."""
    cloning = isinstance(config.learner, BCConfig | PixelBCConfig)
    return ("observations", "actions") if cloning else None


def task_evaluator(config: RunConfig, task: Task) -> Evaluator | None:
    """The evaluator in the task's environment; None if there is no environment."""
    if task.make_env is None:
        return None
    settings = config.evaluation
    return Evaluator(task.make_env, settings.seed, settings.num_envs, task.score_name)


def describe_task(task: Task, counts: tuple[int, int], reporter: Reporter) -> None:
    """Print what there is to learn from: ``counts`` transitions to train on and held out."""
    reporter.detail(
        f"{counts[0]:,} transitions to train on, {counts[1]:,} held out; "
        f"observations {shapes_of(task.observation_space)}, actions {task.action_space.shape}"
    )
    if (own := task.behaviour) is not None:
        score = "" if own.score is None else f", normalised score {own.score:.1f}"
        text = f"behaviour's mean return {own.mean:.1f} over {own.episodes} episodes{score}"
        reporter.detail(text)


def read_data_key(member: Member) -> torch.Tensor:
    """The dataset's key in the checkpoint that a member is resumed from.

    Raises:
        InputError: the checkpoint has none.
    """
    checkpoint, metadata = member.resumed_from
    with reading_loop_state(checkpoint, "a training run"):
        return torch.tensor(metadata.extra["data_key"], dtype=torch.int64)


def _metadata(config: TrainConfig, task: Task) -> CheckpointMetadata:
    return CheckpointMetadata(
        updates=0,
        seed=config.seed,
        create=learner_keywords(config),
        observation_space=task.observation_space,
        action_space=task.action_space,
        extra={
            "env": task.env_name,
            "score_name": task.score_name,
            "dataset": config.dataset.source,
            "pixels": None if task.pixels is None else dict(task.pixels),
            "behaviour": None if task.behaviour is None else task.behaviour.as_result(),
        },
    )


def _finish(
    run: Run, member: Member, task: Task, state: State, results: Results
) -> tuple[dict[str, Any], dict[str, Path]]:
    """A member's pictures and summary."""
    config, directory = member.config, member.directory
    curve = learning_curve(
        member.metrics.records,
        behaviour_return=run.behaviour_return,
        title=f"{config.learner.class_name} on {config.dataset.source}, seed {config.seed}",
        labels=ACTOR_LOSS_LABELS if isinstance(config.learner, IDQL) else {},
    )
    pictures = {}
    if results and _has_trajectories(task):
        run.save_picture(lambda: _plot_trajectories(directory.trajectories, task, results))
        pictures["trajectories"] = directory.trajectories
    behaviour = member.metadata.extra["behaviour"]
    summary = {"behaviour": behaviour, "evaluation": plain_results(results)}
    return run.finish_member(member, state.position, summary, curve, pictures)


def _has_trajectories(task: Task) -> bool:
    """Whether this is the maze, with trajectories in the data to compare with."""
    return task.env_name == ENV_NAME and task.observations is not None


def _plot_trajectories(path: Path, task: Task, results: Results) -> None:
    """The maze before (behaviour) and after (policy)."""
    assert task.observations is not None and task.dones is not None
    best = _most(results)
    policy = "policy" if best is None else f"policy, N = {best}"
    after = [np.asarray(positions) for positions in results[best]["trajectories"]]
    ends = (np.flatnonzero(task.dones) + 1)[: len(after)]
    parts = np.split(task.observations, ends)[: len(ends)]
    mean = float("nan") if task.behaviour is None else task.behaviour.mean
    plot_trajectories(
        path,
        [
            (f"before: behaviour, return {mean:.0f}", [part for part in parts if len(part)]),
            (f"after: {policy}, return {results[best]['return']:.0f}", after),
        ],
    )


def _most(candidates: Iterable[int | None]) -> int | None:
    return max(candidates, key=lambda n: n or 0)
