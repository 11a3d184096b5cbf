"""What an offline run writes down: losses, evaluations, checkpoints, pictures and the summary.

The loops decide when; here it happens, the same for a learner alone and for each one of several
that are trained side by side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idql_func import agents, optim
from idql_func.data.maze_picture import plot_trajectories
from idql_func.data.pointmaze import ENV_NAME
from idql_func.training.configs.learners import (
    BCConfig,
    DDPMIQLConfig,
    GeneralDDPMIQLConfig,
    PixelBCConfig,
)
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.runs import plots
from idql_func.training.runs.checkpoint import CheckpointMetadata, save_checkpoint
from idql_func.training.runs.console import (
    Reporter,
    TrainingBar,
    duration,
    files_table,
    policy_name,
    returns_table,
)
from idql_func.training.runs.directory import RunDirectory, write_json
from idql_func.training.runs.metrics import MetricsLogger
from idql_func.training.runs.results import (
    Evaluator,
    evaluation_record,
    fetch_scalars,
    for_numbers,
    not_numbers,
    plain_results,
)
from idql_func.training.runtime.matmul_precision import MatmulChoice
from idql_func.training.task import Behaviour, Task

__all__ = [
    "ACTOR_LOSS_LABELS",
    "IDQL",
    "OfflineRecords",
    "State",
    "create",
    "fields_of",
    "learner_keywords",
    "numbers_of",
]

IDQL = (DDPMIQLConfig, GeneralDDPMIQLConfig)
"""Settings of the learners that choose among several actions."""

ACTOR_LOSS_LABELS = {"actor_loss": "Actor loss (noise prediction)"}
"""What their losses are called in pictures, where the usual names do not fit."""


@dataclass(frozen=True)
class State:
    """All that changes from update to update; replaced as a whole, so never half new."""

    learner: Any
    data_key: torch.Tensor
    updates: int


@dataclass
class OfflineRecords:
    """What a run leaves in its folder, piece by piece.

    ``seconds`` and ``updates_made`` are for the loop to fill in; they end up in the summary.
    """

    config: TrainConfig
    task: Task
    run: RunDirectory
    reporter: Reporter
    logger: MetricsLogger
    matmul: MatmulChoice
    warned: bool = False
    updates_made: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"training": 0.0, "updates": 0.0, "compilation": 0.0}
    )

    def save(self, state: State, prune: bool = True) -> Path:
        """Write the checkpoint of a state, and remove those that are too old on ``prune``."""
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
        if prune:
            self.run.prune_checkpoints(config.keep_checkpoints)
        return path

    @property
    def numbers(self) -> tuple[int | None, ...]:
        """The numbers of candidates to evaluate with; one None for a learner that has none."""
        return numbers_of(self.config)

    def final_evaluation(self, state: State) -> dict[int | None, dict[str, Any]]:
        """The evaluation of the finished policy, with all its episodes."""
        if self.task.make_env is None:
            return {}
        settings = self.config.evaluation
        self.reporter.stage(
            f"Evaluation: {settings.episodes} episodes in {self.task.env_name}"
            + for_numbers(self.numbers)
        )
        results = self.evaluator.run_each(
            state.learner,
            self.numbers,
            settings.episodes,
            self.reporter,
            self.records_trajectories,
        )
        self.log_final_evaluation(results)
        return results

    def finish(
        self, state: State, evaluations: Mapping[int | None, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Pictures, summary and the closing table."""
        run, task, config = self.run, self.task, self.config
        behaviour = None if task.behaviour is None else task.behaviour.as_result()
        plots.save_figure(
            plots.learning_curve(
                self.logger.records,
                behaviour_return=None if task.behaviour is None else task.behaviour.mean,
                title=f"{config.learner.class_name} on {config.dataset.source}, seed {config.seed}",
                labels=ACTOR_LOSS_LABELS if isinstance(config.learner, IDQL) else {},
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

    def log_losses(
        self, step: int, groups: Mapping[str, Mapping[str, torch.Tensor]], bar: TrainingBar
    ) -> dict[str, Any]:
        """One record of the losses of a step by group, which waits for the device."""
        return self.record_losses(step, fetch_scalars(groups), bar)

    def record_losses(
        self, step: int, losses: Mapping[str, float], bar: TrainingBar
    ) -> dict[str, Any]:
        """One record of the losses of a step, a warning if one of them is no number."""
        record: dict[str, Any] = {"step": step, "updates": step + 1}
        record.update(losses)
        record["updates_per_second"] = round(bar.meter.rate, 2) or None
        self.logger.log(record)
        bad = not_numbers(record)
        if bad and not self.warned:
            self.warned = True
            self.reporter.warn(
                f"{', '.join(bad)} is not a number since update {step + 1:,}: the training has "
                "diverged; a smaller learning rate may help"
            )
        return record

    def evaluate_on_the_way(self, step: int, learner: Any, bar: TrainingBar) -> None:
        """The evaluation between two updates, with its few episodes, and a line about it."""
        if self.task.make_env is None:
            return
        episodes = self.config.evaluation.interval_episodes
        results = {}
        for n in self.numbers:
            with bar.busy(f"evaluating {policy_name(n)}, {episodes} episodes"):
                results[n] = self.evaluator.run(learner, n, episodes)
        self.log_evaluation(step, step + 1, results)
        self.tell_returns(step, {n: result["return"] for n, result in results.items()})

    def tell_returns(self, step: int, returns: Mapping[int | None, float]) -> None:
        """A line about the returns after a step, beside those of the data."""
        told = ", ".join(f"{policy_name(n)}: {value:.1f}" for n, value in returns.items())
        reference = (
            "" if self.task.behaviour is None else (f" (behaviour {self.task.behaviour.mean:.1f})")
        )
        self.reporter.detail(f"return after {step + 1:,} updates: {told}{reference}")

    @property
    def evaluator(self) -> Evaluator:
        """Tries a learner out in the task's environments."""
        settings, task = self.config.evaluation, self.task
        assert task.make_env is not None
        return Evaluator(task.make_env, settings.seed, settings.num_envs, task.score_name)

    def records_trajectories(self, n: int | None) -> bool:
        """Whether the last evaluation with so many candidates is to be drawn."""
        return self._has_pictures and n == _most(self.numbers)

    def log_evaluation(
        self, step: int, updates: int, results: Mapping[int | None, Mapping[str, Any]]
    ) -> None:
        """One record of an evaluation for each number of candidates."""
        self.logger.log({"step": step, "updates": updates, **evaluation_record(results)})

    def log_final_evaluation(self, results: Mapping[int | None, Mapping[str, Any]]) -> None:
        """The record of the finished policy's evaluation."""
        # Beyond the last step's own label, so that a run that goes on leaves this record behind.
        self.log_evaluation(self.config.max_steps, self.config.max_steps, results)

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


def create(config: TrainConfig, task: Task) -> Any:
    """The learner of the settings, as new."""
    learner_class = getattr(agents, config.learner.class_name)
    return learner_class.create(
        config.seed, task.observation_space, task.action_space, **learner_keywords(config)
    )


def learner_keywords(config: TrainConfig) -> dict[str, Any]:
    """The keywords of the learner's ``create``, with the schedule that the settings ask for.

    Example:
        >>> from idql_func.training.configs.learners import BCConfig
        >>> learner_keywords(TrainConfig(learner=BCConfig(), cosine_decay=True, max_steps=9))
        {'actor_lr': CosineDecaySchedule(init_value=0.001, decay_steps=9, alpha=0.0), ...
    """
    keywords = config.learner.keywords()
    if config.cosine_decay:
        keywords["actor_lr"] = optim.cosine_decay_schedule(keywords["actor_lr"], config.max_steps)
    return keywords


def numbers_of(config: TrainConfig) -> tuple[int | None, ...]:
    """The numbers of candidates to evaluate with; one None for a learner that has none.

    Example:
        >>> from idql_func.training.configs.learners import BCConfig
        >>> numbers_of(TrainConfig()), numbers_of(TrainConfig(learner=BCConfig()))
        ((1, 64), (None,))
    """
    return config.evaluation.N if isinstance(config.learner, IDQL) else (None,)


def fields_of(config: TrainConfig) -> tuple[str, ...] | None:
    """The fields of a batch that a learner needs; None: all. Cloning needs no next images."""
    cloning = isinstance(config.learner, BCConfig | PixelBCConfig)
    return ("observations", "actions") if cloning else None


def _most(numbers: Iterable[int | None]) -> int | None:
    return max(numbers, key=lambda n: n or 0)


def _mean(behaviour: Behaviour | None) -> float:
    return float("nan") if behaviour is None else behaviour.mean


def _episodes(observations: np.ndarray, dones: np.ndarray, most: int) -> list[np.ndarray]:
    """The first episodes of a dataset as a list of ``[n, O]``."""
    ends = (np.flatnonzero(dones) + 1)[:most]
    return [part for part in np.split(observations, ends)[: len(ends)] if len(part)]
