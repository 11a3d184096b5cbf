"""What several members trained as one program leave: a run's folder each, and one about all."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from idql_func.evaluation import environments_at_once
from idql_func.training.configs.settings import flat_settings
from idql_func.training.runs.console import (
    Reporter,
    TrainingBar,
    duration,
    files_table,
    policy_name,
)
from idql_func.training.runs.directory import RunDirectory, write_json
from idql_func.training.runs.offline_records import (
    ACTOR_LOSS_LABELS,
    IDQL,
    OfflineRecords,
    State,
)
from idql_func.training.runs.plots import save_figure
from idql_func.training.runs.results import fetch_scalars, for_numbers, not_numbers, plain_results
from idql_func.training.seeds.acting import evaluate_stack, members_at_once
from idql_func.training.seeds.config import varied_settings
from idql_func.training.seeds.plots import members_curve
from idql_func.training.seeds.report import (
    final_values,
    means_over_seeds,
    members_table,
    write_members_csv,
)
from idql_func.training.seeds.stack import member_of

__all__ = ["GroupRecords"]

Evaluations = Mapping[int | None, Mapping[str, Any]]


@dataclass
class GroupRecords:
    """The records of all members, for the loop that trains them as one.

    ``templates`` are the members as they went into the stack. The members' own records print
    nothing; ``reporter`` prints what is to be said about all of them. ``acting`` has the bytes that
    one member needs to choose actions, for each number of candidates.
    """

    run: RunDirectory
    members: Sequence[OfflineRecords]
    templates: Sequence[Any]
    reporter: Reporter
    acting: Mapping[int | None, int] = field(default_factory=dict)
    warned: bool = False
    updates_made: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"training": 0.0, "updates": 0.0, "compilation": 0.0}
    )

    @property
    def names(self) -> list[str]:
        """The members' names, which their folders have."""
        return [member.run.path.name for member in self.members]

    def member_states(self, state: State) -> list[State]:
        """The states of the members, each as the run alone would have it."""
        return [
            State(member_of(state.learner, k, template), state.data_key[k], state.updates)
            for k, template in enumerate(self.templates)
        ]

    def save(self, state: State) -> None:
        """Write a checkpoint of each member; old ones go when all are there."""
        for member, own in zip(self.members, self.member_states(state), strict=True):
            member.save(own, prune=False)
        for member in self.members:
            member.run.prune_checkpoints(member.config.keep_checkpoints)

    def log_losses(
        self, step: int, groups: Mapping[str, Mapping[str, Tensor]], bar: TrainingBar
    ) -> dict[str, Any]:
        """A record for each member; the mean over them is what the bar shows.

        Args:
            step: the step whose losses they are.
            groups: ``"train"`` and ``"val"`` to losses ``[K]``.
            bar: knows the speed.
        """
        columns = {
            f"{k}": {g: {n: v[k] for n, v in info.items()} for g, info in groups.items()}
            for k in range(len(self.members))
        }
        flat = fetch_scalars(
            {f"{k}/{g}": info for k, own in columns.items() for g, info in own.items()}
        )
        records = []
        for k, member in enumerate(self.members):
            prefix = f"{k}/"
            losses = {n[len(prefix) :]: v for n, v in flat.items() if n.startswith(prefix)}
            records.append(member.record_losses(step, losses, bar))
        diverged = [n for n, r in zip(self.names, records, strict=True) if not_numbers(r)]
        if diverged and not self.warned:
            self.warned = True
            self.reporter.warn(
                f"the losses of {', '.join(diverged)} are not numbers since update {step + 1:,}: "
                "the training has diverged; a smaller learning rate may help"
            )
        names = [n for n in records[0] if "/" in n]
        return {n: sum(r[n] for r in records) / len(records) for n in names}

    def evaluate_on_the_way(self, step: int, learner: Any, bar: TrainingBar) -> None:
        """The evaluation of each member between two updates, and a line about their mean."""
        first = self.members[0]
        episodes = first.config.evaluation.interval_episodes
        means, found = {}, [{} for _ in self.members]
        for n in first.numbers:
            with bar.busy(f"evaluating {policy_name(n)}, {episodes} episodes of each member"):
                results = self._evaluate(learner, n, episodes)
            for own, result in zip(found, results, strict=True):
                own[n] = result
            means[n] = sum(result["return"] for result in results) / len(results)
        for member, own in zip(self.members, found, strict=True):
            member.log_evaluation(step, step + 1, own)
        dataclasses.replace(first, reporter=self.reporter).tell_returns(step, means)

    def final_evaluation(self, state: State) -> Sequence[Evaluations]:
        """The evaluation of each finished policy, with all its episodes."""
        first = self.members[0]
        if first.task.make_env is None:
            return [{} for _ in self.members]
        settings = first.config.evaluation
        self.reporter.stage(
            f"Evaluation: {settings.episodes} episodes in {first.task.env_name}"
            f"{for_numbers(first.numbers)} of each of {len(self.members)} members"
        )
        found: list[dict[int | None, Mapping[str, Any]]] = [{} for _ in self.members]
        for n in first.numbers:
            started = time.monotonic()
            with self.reporter.console.status(f"{policy_name(n)} …"):
                results = self._evaluate(
                    state.learner, n, settings.episodes, record=first.records_trajectories(n)
                )
            for own, result in zip(found, results, strict=True):
                own[n] = result
            mean = sum(result["return"] for result in results) / len(results)
            took = duration(time.monotonic() - started)
            self.reporter.detail(f"{policy_name(n)}: mean return {mean:.1f} ({took})")
        for member, own in zip(self.members, found, strict=True):
            member.log_final_evaluation(own)
        return found

    def _evaluate(
        self, stacked: Any, n: int | None, episodes: int, record: bool = False
    ) -> list[dict[str, Any]]:
        first = self.members[0]
        evaluator, device = first.evaluator, stacked.rng.device
        environments = environments_at_once(episodes, evaluator.num_envs)
        at_once = members_at_once(environments, n, self.acting[n], device)
        return evaluate_stack(evaluator, stacked, n, episodes, at_once, record)

    def finish(self, state: State, evaluations: Sequence[Evaluations]) -> dict[str, Any]:
        """Each member's pictures and summary; the table, picture and summary of all."""
        for member, own, found in zip(
            self.members, self.member_states(state), evaluations, strict=True
        ):
            member.seconds, member.updates_made = self.seconds, self.updates_made
            member.finish(own, found)
        names, configs = self.names, [member.config for member in self.members]
        varied = ["seed", *varied_settings(configs)]
        settings = {
            n: {v: flat_settings(c)[v] for v in varied} for n, c in zip(names, configs, strict=True)
        }
        labels = {n: n.rpartition("-seed")[0] for n in names}
        values = {
            name: final_values(found, member.logger.records)
            for name, member, found in zip(names, self.members, evaluations, strict=True)
        }
        means = means_over_seeds(values, labels)
        table = self.run.path / "members.csv"
        write_members_csv(table, settings, values)
        self._plot(labels)
        summary = {
            "updates": state.updates,
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "updates_per_second": round(self.updates_made / max(self.seconds["updates"], 1e-9), 2),
            "members": {
                n: {"settings": settings[n], "evaluation": plain_results(found)}
                for n, found in zip(names, evaluations, strict=True)
            },
            "means": [row.as_result() for row in means],
        }
        write_json(self.run.summary, summary)
        what = self.members[0].task.env_name or "losses"
        title = f"{what} after {state.updates:,} updates"
        self.reporter.table(members_table(values, means, title))
        self.reporter.stage(f"Done: trained for {duration(self.seconds['training'])}. Files:")
        self.reporter.table(files_table(self._files(table)))
        return summary

    def _files(self, table: Path) -> dict[str, Path]:
        return {
            "a run for each member": self.run.path / (self.names[0] + "/…"),
            "learning curves": self.run.learning_curve,
            "members": table,
            "summary": self.run.summary,
        }

    def _plot(self, labels: Mapping[str, str]) -> None:
        first = self.members[0]
        config, behaviour = first.config, first.task.behaviour
        save_figure(
            members_curve(
                {m.run.path.name: m.logger.records for m in self.members},
                labels,
                behaviour_return=None if behaviour is None else behaviour.mean,
                title=f"{config.learner.class_name} on {config.dataset.source}, "
                f"{len(self.members)} members of one program",
                titles=ACTOR_LOSS_LABELS if isinstance(config.learner, IDQL) else {},
            ),
            self.run.learning_curve,
        )
