"""Offline training: dataset, held-out split, updates, evaluation, checkpoints, pictures.

One loop for every learner that learns from a fixed dataset, after upstream's three
(``examples/states/train_diffusion_offline.py`` and ``train_offline.py``,
``examples/pixels/train_offline_pixels.py``). What differs is said where it does, with the quirk's
ID.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idql_func import agents, optim, random
from idql_func._switches import jit_disabled
from idql_func.data.maze_picture import plot_trajectories
from idql_func.data.pointmaze import ENV_NAME
from idql_func.training import plots
from idql_func.training.checkpoint import (
    CheckpointMetadata,
    find_checkpoint,
    read_metadata,
    restore_learner,
    save_checkpoint,
)
from idql_func.training.config import TrainConfig, differences
from idql_func.training.device import choose_device
from idql_func.training.eager import eagerly_on_cpu
from idql_func.training.learners import (
    BCConfig,
    DDPMIQLConfig,
    GeneralDDPMIQLConfig,
    PixelBCConfig,
)
from idql_func.training.loggers import MetricsLogger
from idql_func.training.matmul import MatmulChoice, matmul_precision
from idql_func.training.report import (
    Reporter,
    TrainingBar,
    duration,
    files_table,
    policy_name,
    returns_table,
)
from idql_func.training.results import (
    Evaluator,
    evaluation_record,
    fetch_scalars,
    for_numbers,
    not_numbers,
    plain_results,
)
from idql_func.training.rundir import (
    RunDirectory,
    choose_run_directory,
    open_run_directory,
    write_json,
)
from idql_func.training.sources import count_transitions
from idql_func.training.task import Behaviour, Task, prepare_task, shapes_of
from idql_func.types import InputError

__all__ = ["RESUMABLE", "TrainResult", "TrainingInterrupted", "learner_keywords", "train_offline"]

_IDQL = (DDPMIQLConfig, GeneralDDPMIQLConfig)
_IDQL_LABELS = {"actor_loss": "Actor loss (noise prediction)"}

RESUMABLE = (
    "max_steps",
    "log_interval",
    "checkpoint_interval",
    "keep_checkpoints",
    "evaluation.interval",
    "evaluation.interval_episodes",
    "evaluation.episodes",
    "evaluation.N",
    "evaluation.num_envs",
    "evaluation.seed",
)
"""Settings that a resumed run may change: none of them touches what is computed by an update."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training, after the checkpoint was written."""

    def __init__(self, run: RunDirectory, updates: int, done: str | None = None) -> None:
        done = f"{updates} updates" if done is None else done
        super().__init__(f"interrupted after {done}; continue with --resume {run.path}")
        self.run = run
        self.updates = updates


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    ``evaluations`` maps N (None for a learner without one) to the result of the last evaluation;
    ``summary`` is the content of ``summary.json``.
    """

    learner: Any
    run: RunDirectory
    evaluations: Mapping[int | None, Mapping[str, Any]]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class _State:
    """All that changes from update to update; replaced as a whole, so never half new."""

    learner: Any
    data_key: torch.Tensor
    updates: int


def train_offline(
    config: TrainConfig,
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    on_update: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train a learner on a fixed dataset, evaluate it, and leave a run's folder behind.

    Args:
        config: the settings. For a resumed run they must be those of the run, but for the names in
            ``RESUMABLE`` (``open_run_directory(path).read_config()`` gives them).
        resume: a run's folder, or a checkpoint in one, to continue from; the result has the same
            bits as if the run had never stopped (same machine, same versions).
        overwrite: replace a run of the same name.
        reporter: where to print; default: standard output.
        on_update: called with the number of updates done after each of them.

    Returns:
        The trained learner, its run and its evaluations.

    Raises:
        InputError: settings, data or a checkpoint are not usable; the sentence says what is wrong.
        FileNotFoundError: the dataset or the run to resume does not exist.
        TrainingInterrupted: Ctrl-C; a checkpoint has been written.
    """
    config.validate()
    reporter = reporter if reporter is not None else Reporter()
    device = choose_device(config.device)
    checkpoint = None
    if resume is None:
        run = choose_run_directory(config, overwrite)
    else:
        run = open_run_directory(resume)
        checkpoint = find_checkpoint(resume)
        _check_resumable(run, config, checkpoint)

    reporter.stage(f"Data: {config.dataset.source}")
    task = prepare_task(config, device, progress=reporter.console.is_terminal)
    _describe(task, reporter)

    reporter.stage(f"Learner: {config.learner.class_name}, seed {config.seed}, on {device}")
    learner = _create(config, task)
    setting = None
    start = 0
    if checkpoint is None:
        if isinstance(config.learner, _IDQL):
            # One batch is drawn and thrown away, as upstream does (D3).
            task.train.sample_torch(config.batch_size)
    else:
        metadata = read_metadata(checkpoint)
        learner = restore_learner(learner, checkpoint)
        setting, data_key = _loop_state(metadata, checkpoint)
        task.train.rng = data_key
        start = metadata.updates
        reporter.detail(f"continues {checkpoint} at {start:,} updates")
        if metadata.versions["torch"] != torch.__version__:
            reporter.warn(
                f"the run was begun with torch {metadata.versions['torch']} and goes on with "
                f"{torch.__version__}: the last bits of its numbers may differ"
            )
    if device.type != "cpu":
        learner = learner.to(device)

    # Not before everything above has been found to be in order: bad input leaves no trace.
    if checkpoint is None:
        run.start()
    else:
        run.discard_after(start)
    run.write_config(config)
    state = _State(learner, task.train.rng, start)
    with (
        matmul_precision(config.matmul, device=device, setting=setting) as matmul,
        MetricsLogger(run.path, keep_before=start if checkpoint is not None else None) as logger,
    ):
        reporter.detail(f"matrix products: {matmul.reason}")
        loop = _Loop(config, task, run, reporter, logger, matmul, on_update)
        state = loop.train(state)
        try:
            evaluations = loop.final_evaluation(state)
        except KeyboardInterrupt:
            # The checkpoint of the last update is written; what is missing is the evaluation.
            raise TrainingInterrupted(run, state.updates) from None
        summary = loop.finish(state, evaluations)
    return TrainResult(state.learner, run, evaluations, summary)


@dataclass
class _Loop:
    """The loop over updates and what happens at its intervals."""

    config: TrainConfig
    task: Task
    run: RunDirectory
    reporter: Reporter
    logger: MetricsLogger
    matmul: MatmulChoice
    on_update: Callable[[int], None] | None
    warned: bool = False
    updates_made: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"training": 0.0, "updates": 0.0, "compilation": 0.0}
    )

    def train(self, state: _State) -> _State:
        """All updates from ``state`` on. On Ctrl-C the last whole state is written first."""
        config, task = self.config, self.task
        fields = _fields_of(config)
        self.reporter.stage(
            f"Training: {config.max_steps:,} updates of {config.batch_size} transitions; "
            f"everything goes to {self.run.path}"
        )
        began, start = time.monotonic(), state.updates
        try:
            with self.reporter.bar(config.max_steps, start) as bar:
                for step in range(start, config.max_steps):
                    batch = task.train.sample_torch(config.batch_size, keys=fields)
                    if step == start:
                        learner, info = self._first_update(state.learner, batch, bar)
                    else:
                        learner, info = state.learner.update(batch)
                    updates = step + 1
                    bar.advance(updates)
                    # Intervals are counted as upstream counts them: the records of step i come
                    # after its update, so after i + 1 updates (E13).
                    if step % config.log_interval == 0:
                        self._log_losses(step, learner, info, bar)
                    if (
                        step % config.evaluation.interval == 0
                        and step > 0
                        and updates < config.max_steps
                    ):
                        self._evaluate_on_the_way(step, learner, bar)
                    # From here on, and not before, the step counts as done: an interrupt above
                    # leaves a checkpoint from which all of it is done again.
                    state = _State(learner, task.train.rng, updates)
                    if updates % config.checkpoint_interval == 0 or updates == config.max_steps:
                        self.save(state)
                    if self.on_update is not None:
                        self.on_update(updates)
                self.seconds["training"] = time.monotonic() - began
                self.seconds["updates"] = self.seconds["training"] - bar.meter.paused
                self.updates_made = state.updates - start
        except KeyboardInterrupt:
            self.reporter.warn("Interrupted: writing a checkpoint.")
            self.save(state)
            raise TrainingInterrupted(self.run, state.updates) from None
        return state

    def save(self, state: _State) -> Path:
        """Write the checkpoint of a state."""
        config = self.config
        path = save_checkpoint(
            self.run.checkpoint(state.updates),
            state.learner,
            CheckpointMetadata(
                updates=state.updates,
                seed=config.seed,
                create=learner_keywords(config),
                observation_space=self.task.observation_space,
                action_space=self.task.action_space,
                extra={
                    "data_key": state.data_key.tolist(),
                    "matmul": self.matmul.setting,
                    "env": self.task.env_name,
                    "score_name": self.task.score_name,
                    "dataset": config.dataset.source,
                    "pixels": None if self.task.pixels is None else dict(self.task.pixels),
                    "behaviour": (
                        None if self.task.behaviour is None else self.task.behaviour.as_result()
                    ),
                },
            ),
        )
        self.run.prune_checkpoints(config.keep_checkpoints)
        return path

    @property
    def numbers(self) -> tuple[int | None, ...]:
        """The numbers of candidates to evaluate with; one None for a learner that has none."""
        has_one = isinstance(self.config.learner, _IDQL)
        return self.config.evaluation.N if has_one else (None,)

    def final_evaluation(self, state: _State) -> dict[int | None, dict[str, Any]]:
        """The evaluation of the finished policy, with all its episodes."""
        if self.task.make_env is None:
            return {}
        settings = self.config.evaluation
        self.reporter.stage(
            f"Evaluation: {settings.episodes} episodes in {self.task.env_name}"
            + for_numbers(self.numbers)
        )
        results = {}
        for n in self.numbers:
            started = time.monotonic()
            with self.reporter.console.status(f"{policy_name(n)} …"):
                results[n] = self._evaluate(
                    state.learner,
                    n,
                    settings.episodes,
                    record=self._has_pictures and n == _most(self.numbers),
                )
            took = duration(time.monotonic() - started)
            self.reporter.detail(f"{policy_name(n)}: return {results[n]['return']:.1f} ({took})")
        # Beyond the last step's own label, so that a run that goes on leaves this record behind.
        self._log_evaluation(self.config.max_steps, self.config.max_steps, results)
        return results

    def finish(
        self, state: _State, evaluations: Mapping[int | None, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Pictures, summary and the closing table."""
        run, task, config = self.run, self.task, self.config
        behaviour = None if task.behaviour is None else task.behaviour.as_result()
        plots.save_figure(
            plots.learning_curve(
                self.logger.records,
                behaviour_return=None if task.behaviour is None else task.behaviour.mean,
                title=f"{config.learner.class_name} on {config.dataset.source}, seed {config.seed}",
                labels=_IDQL_LABELS if isinstance(config.learner, _IDQL) else {},
            ),
            run.learning_curve,
        )
        files = {
            "checkpoint": run.checkpoint(state.updates),
            "metrics": self.logger.jsonl,
            "as a table": self.logger.csv,
            "learning curve": run.learning_curve,
        }
        if self._plot_trajectories(evaluations):
            files["trajectories"] = run.trajectories
        files["summary"] = run.summary
        summary = {
            "updates": state.updates,
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "updates_per_second": round(self.updates_made / max(self.seconds["updates"], 1e-9), 2),
            "behaviour": behaviour,
            "evaluation": plain_results(evaluations),
            "matmul": dataclasses.asdict(self.matmul),
            "files": {name: str(path.relative_to(run.path)) for name, path in files.items()},
        }
        write_json(run.summary, summary)
        if evaluations:
            self.reporter.table(
                returns_table(
                    evaluations,
                    behaviour=behaviour,
                    title=f"{task.env_name} after {state.updates:,} updates",
                )
            )
        self.reporter.stage(f"Done: trained for {duration(self.seconds['training'])}. Files:")
        self.reporter.table(files_table(files))
        return summary

    def _first_update(
        self, learner: Any, batch: Mapping[str, torch.Tensor], bar: TrainingBar
    ) -> tuple[Any, Mapping[str, torch.Tensor]]:
        """The first call compiles; say so, and wait for its end to know how long it took."""
        if jit_disabled():
            return learner.update(batch)
        took = "30 to 45 s" if isinstance(self.config.learner, _IDQL) else "up to a minute"
        self.reporter.detail(
            f"The first update is being compiled for this machine: {took} on two cores when it "
            "is new, less when torch still has it in its cache. All others are fast because of it."
        )
        with bar.busy("compiling the update") as busy:
            learner, info = learner.update(batch)
            next(iter(info.values())).item()
        self.seconds["compilation"] = busy.seconds
        self.reporter.detail(f"compiled in {duration(busy.seconds)}")
        return learner, info

    def _log_losses(
        self, step: int, learner: Any, info: Mapping[str, torch.Tensor], bar: TrainingBar
    ) -> None:
        """One record of training and held-out losses; the only place that waits for the device."""
        groups = {"train": info}
        # Its time is kept out of the rate.
        with bar.busy("measuring held-out losses"):
            if self.task.held_out is not None:
                groups["val"] = self._held_out_losses(step, learner)
            losses = fetch_scalars(groups)
        record: dict[str, Any] = {"step": step, "updates": step + 1}
        record.update(losses)
        record["updates_per_second"] = round(bar.meter.rate, 2) or None
        self.logger.log(record)
        bar.losses(record)
        bad = not_numbers(record)
        if bad and not self.warned:
            self.warned = True
            self.reporter.warn(
                f"{', '.join(bad)} is not a number since update {step + 1:,}: the training has "
                "diverged; a smaller learning rate may help"
            )

    def _held_out_losses(self, step: int, learner: Any) -> Mapping[str, torch.Tensor]:
        """Losses only: upstream updates on the held-out batch and drops the result (E11).

        Neither the learner's key nor the data's moves, so logging does not touch the training.
        """
        assert self.task.held_out is not None
        key = random.fold_in(random.PRNGKey(self.config.seed), step)
        batch = self.task.held_out.sample_torch(
            self.config.batch_size, key=key, keys=_fields_of(self.config)
        )
        with eagerly_on_cpu(learner.rng.device):
            return learner.eval_loss(batch)[1]

    def _evaluate_on_the_way(self, step: int, learner: Any, bar: TrainingBar) -> None:
        if self.task.make_env is None:
            return
        settings = self.config.evaluation
        results = {}
        for n in self.numbers:
            with bar.busy(f"evaluating {policy_name(n)}, {settings.interval_episodes} episodes"):
                results[n] = self._evaluate(learner, n, settings.interval_episodes)
        self._log_evaluation(step, step + 1, results)
        returns = ", ".join(
            f"{policy_name(n)}: {result['return']:.1f}" for n, result in results.items()
        )
        reference = (
            "" if self.task.behaviour is None else (f" (behaviour {self.task.behaviour.mean:.1f})")
        )
        self.reporter.detail(f"return after {step + 1:,} updates: {returns}{reference}")

    def _evaluate(
        self, learner: Any, n: int | None, episodes: int, record: bool = False
    ) -> dict[str, Any]:
        settings, task = self.config.evaluation, self.task
        assert task.make_env is not None
        evaluator = Evaluator(task.make_env, settings.seed, settings.num_envs, task.score_name)
        return evaluator.run(learner, n, episodes, record)

    def _log_evaluation(
        self, step: int, updates: int, results: Mapping[int | None, Mapping[str, Any]]
    ) -> None:
        self.logger.log({"step": step, "updates": updates, **evaluation_record(results)})

    @property
    def _has_pictures(self) -> bool:
        """Whether this is the maze, with trajectories in the data to compare with."""
        return self.task.env_name == ENV_NAME and self.task.observations is not None

    def _plot_trajectories(self, evaluations: Mapping[int | None, Mapping[str, Any]]) -> bool:
        """The maze before (behaviour) and after (policy), if this is the maze."""
        observations, dones = self.task.observations, self.task.dones
        if not self._has_pictures or not evaluations:
            return False
        assert observations is not None and dones is not None
        best = _most(evaluations)
        policy = "policy" if best is None else f"policy, N = {best}"
        after = [np.asarray(path) for path in evaluations[best]["trajectories"]]
        before = _episodes(observations, dones, most=len(after))
        plot_trajectories(
            self.run.trajectories,
            [
                (f"before: behaviour, return {_mean(self.task.behaviour):.0f}", before),
                (f"after: {policy}, return {evaluations[best]['return']:.0f}", after),
            ],
        )
        return True


def _create(config: TrainConfig, task: Task) -> Any:
    learner_class = getattr(agents, config.learner.class_name)
    return learner_class.create(
        config.seed, task.observation_space, task.action_space, **learner_keywords(config)
    )


def learner_keywords(config: TrainConfig) -> dict[str, Any]:
    """The keywords of the learner's ``create``, with the schedule that the settings ask for.

    Example:
        >>> from idql_func.training.learners import BCConfig
        >>> learner_keywords(TrainConfig(learner=BCConfig(), cosine_decay=True, max_steps=9))
        {'actor_lr': CosineDecaySchedule(init_value=0.001, decay_steps=9, alpha=0.0), ...
    """
    keywords = config.learner.keywords()
    if config.cosine_decay:
        keywords["actor_lr"] = optim.cosine_decay_schedule(keywords["actor_lr"], config.max_steps)
    return keywords


def _fields_of(config: TrainConfig) -> tuple[str, ...] | None:
    """The fields of a batch that a learner needs; None: all. Cloning needs no next images."""
    cloning = isinstance(config.learner, BCConfig | PixelBCConfig)
    return ("observations", "actions") if cloning else None


def _most(numbers: Iterable[int | None]) -> int | None:
    return max(numbers, key=lambda n: n or 0)


def _check_resumable(run: RunDirectory, config: TrainConfig, checkpoint: Path) -> None:
    own = run.read_config()
    # Where the run lies and what it is called changes when its folder is moved.
    free = {*RESUMABLE, "runs_dir", "name", "preset"}
    if own.cosine_decay:
        free.discard("max_steps")  # the decay spans all updates
    changed = [name for name in differences(own, config) if name not in free]
    if changed:
        raise InputError(
            f"a run that is continued cannot change {', '.join(changed)}; it may change "
            + ", ".join(name for name in RESUMABLE if name in free)
        )
    updates = read_metadata(checkpoint).updates
    if updates > config.max_steps or (updates == config.max_steps and run.summary.exists()):
        raise InputError(
            f"{checkpoint} already has {updates:,} updates and max_steps is {config.max_steps:,}: "
            "there is nothing to continue; give a larger --max-steps"
        )


def _loop_state(metadata: CheckpointMetadata, checkpoint: Path) -> tuple[str, torch.Tensor]:
    """The matmul route and the dataset's key that a run's checkpoint carries."""
    try:
        key = torch.tensor(metadata.extra["data_key"], dtype=torch.int64)
        return str(metadata.extra["matmul"]), key
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{checkpoint} was not written by a training run: it lacks the state of the loop"
        ) from None


def _describe(task: Task, reporter: Reporter) -> None:
    behaviour = task.behaviour
    held_out = 0 if task.held_out is None else count_transitions(task.held_out)
    reporter.detail(
        f"{count_transitions(task.train):,} transitions to train on, {held_out:,} held out; "
        f"observations {shapes_of(task.observation_space)}, actions {task.action_space.shape}"
    )
    if behaviour is not None:
        score = "" if behaviour.score is None else f", normalised score {behaviour.score:.1f}"
        reporter.detail(
            f"behaviour's mean return {behaviour.mean:.1f} over {behaviour.episodes} episodes"
            + score
        )


def _mean(behaviour: Behaviour | None) -> float:
    return float("nan") if behaviour is None else behaviour.mean


def _episodes(observations: np.ndarray, dones: np.ndarray, most: int) -> list[np.ndarray]:
    """The first episodes of a dataset as a list of ``[n, O]``."""
    ends = (np.flatnonzero(dones) + 1)[:most]
    return [part for part in np.split(observations, ends)[: len(ends)] if len(part)]
