"""Several offline runs as one program: seeds, and numbers of the learner, side by side.

Member k of a group is the run that ``train_offline`` makes of its settings alone: the same initial
parameters, split, batches and keys, the same folder. The work is shared: the dataset is on the
device once, and one compiled update trains all members.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.compiler.donation import without_donation
from idql_func.evaluation import environments_at_once
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.settings import (
    changed_settings,
    flat_settings,
    with_settings,
)
from idql_func.training.offline import (
    RESUMABLE,
    candidates_of,
    create_learner,
    describe_task,
    fields_of,
    open_offline_run,
    read_data_key,
    train_members,
)
from idql_func.training.offline_loop import IDQL, State
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import RunDirectory, open_run_directory
from idql_func.training.runs.results import Results
from idql_func.training.runs.run import Run
from idql_func.training.runtime.device import eager_on_cpu
from idql_func.training.seeds.acting import StackEvaluator, acting_memory
from idql_func.training.seeds.config import check_members, group_name, member_names
from idql_func.training.seeds.data import MemberData, member_data
from idql_func.training.seeds.memory import check_fits, member_memory
from idql_func.training.seeds.report import finish_group
from idql_func.training.seeds.stack import Rates, member_of, stack_members, update_member
from idql_func.training.task import Task, prepare_task
from idql_func.training.updates import draw_batch
from idql_func.transforms import jit, scan, vmap
from idql_func.tree import tree_map
from idql_func.types import InfoDict, InputError, PRNGKey

__all__ = ["SeedsResult", "open_members", "train_seeds"]


@dataclass(frozen=True)
class SeedsResult:
    """The result of a finished group: its folder, its members' learners and evaluations.

    ``evaluations`` has for each member what :class:`~idql_func.training.offline.TrainResult` has;
    ``summary`` is the content of the group's ``summary.json``.
    """

    run: RunDirectory
    learners: Sequence[Any]
    evaluations: Sequence[Results]
    summary: Mapping[str, Any]


def train_seeds(
    configs: Sequence[TrainConfig],
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    on_update: Callable[[int], None] | None = None,
) -> SeedsResult:
    """Train several learners on one dataset as one program, evaluate each, write a folder for each.

    Args:
        configs: the settings of each member. They may differ in the seed and in what
            :data:`idql_func.training.seeds.config.PER_MEMBER` names. ``runs_dir`` and ``name`` are
            those of the group's folder. For a resumed group: what :func:`open_members` gives,
            except for the names in :data:`idql_func.training.offline.RESUMABLE`.
        resume: a group's folder to continue.
        overwrite, reporter, on_update: as for :func:`idql_func.training.offline.train_offline`.

    Raises:
        InputError: settings that do not go together, more members than memory has room for, or
            what :func:`idql_func.training.offline.train_offline` refuses.
        FileNotFoundError: the dataset or the group to resume does not exist.
        TrainingInterrupted: Ctrl-C; a checkpoint of each member has been written.
    """
    check_members(configs)
    names = member_names(configs)
    opened = open_offline_run(
        configs,
        resume=resume,
        overwrite=overwrite,
        reporter=reporter,
        names=names,
        default_name=group_name(configs),
    )
    with opened as run:
        return _train(run, configs, names, on_update)


def _train(
    run: Run,
    configs: Sequence[TrainConfig],
    names: Sequence[str],
    on_update: Callable[[int], None] | None,
) -> SeedsResult:
    first = configs[0]
    run.reporter.stage(f"Data: {first.dataset.source}")
    task, data = _prepare_data(configs, run)
    shown = names if len(names) <= 6 else [names[0], names[1], "…", names[-1]]
    run.reporter.stage(f"Learners: {len(configs)} x {first.learner.class_name}, {', '.join(shown)}")
    learners, state, acting = _stack(run, task, data)
    evaluator = None
    if task.make_env is not None:
        settings = first.evaluation
        evaluator = StackEvaluator(
            task.make_env, settings.seed, settings.num_envs, task.score_name, acting
        )
    state, results, _ = train_members(run, task, learners, state, evaluator, on_update)
    summary = finish_group(run, state.position, task.env_name, results)
    trained = [member.learner for member in learners.members(state)]
    return SeedsResult(run.directory, trained, results, summary)


def open_members(path: str | Path, changes: TrainConfig | None = None) -> list[TrainConfig]:
    """The settings of the members of the group in a folder.

    Args:
        path: the group's folder.
        changes: the settings of the group with some of them changed; each member gets the changes.

    Raises:
        FileNotFoundError: there is no run.
        InputError: it is no group, or damaged.
    """
    run = open_run_directory(path)
    names = run.member_names()
    if not names:
        raise InputError(f"{run.path} is the run of one learner, not of several members")
    configs = [RunDirectory(run.path / name).read_config() for name in names]
    own = run.read_config()
    given = own if changes is None else changes
    # What may change is taken from the group: a killed process may have left members ahead of it.
    changed = {*changed_settings(own, given), *(set(RESUMABLE) & flat_settings(own).keys())}
    return [with_settings(config, given, sorted(changed)) for config in configs]


def _prepare_data(configs: Sequence[TrainConfig], run: Run) -> tuple[Task, MemberData]:
    """The task with all transitions, and each member's share of them."""
    first, reporter = configs[0], run.reporter
    whole = dataclasses.replace(first.dataset, train_fraction=1.0)
    shared, progress = dataclasses.replace(first, dataset=whole), reporter.console.is_terminal
    task = prepare_task(shared, run.device, progress)
    seeds = [config.seed for config in configs]
    fraction = first.dataset.train_fraction
    data = member_data(task.train, seeds, fraction, fields_of(first), run.device)
    describe_task(task, data.counts, reporter)
    return task, data


def _stack(
    run: Run, task: Task, data: MemberData
) -> tuple[StackedLearners, State, dict[int | None, int]]:
    """Create or restore all members, if there is memory for them, and stack them.

    Returns:
        The members as one, where their training starts, and the bytes that one member needs to
        choose actions, for each number of candidates.
    """
    config, device = run.config, run.device
    configs = [member.config for member in run.members]
    learners = [create_learner(configs[0], task)]
    shapes = {name: x.shape[1:] for name, x in data.arrays.items()}
    acting = _acting_memory(learners[0], config, task)
    each = dataclasses.replace(
        member_memory(learners[0], shapes, config.batch_size),
        acting=max(acting.values(), default=0),
    )
    run.reporter.detail(check_fits(len(configs), each, config.batch_size, device))
    learners += [create_learner(own, task) for own in configs[1:]]
    keys = data.keys
    if run.resumed:
        learners = run.restore(learners)
        keys = torch.stack([read_data_key(member) for member in run.members]).to(device)
    elif isinstance(config.learner, IDQL):
        # One batch is drawn and discarded, as upstream does (D3).
        keys = vmap(lambda key: random.split(key)[1])(keys)
    stacked, rates = stack_members(learners)
    rates = {name: rate.to(device) for name, rate in rates.items()}
    # the structures and the numbers: the tensors are in the stack
    templates = tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, learners)
    state = State(stacked.to(device), keys, run.start)
    return StackedLearners(config, data, rates, templates), state, acting


def _acting_memory(learner: Any, config: TrainConfig, task: Task) -> dict[int | None, int]:
    settings = config.evaluation
    if task.make_env is None:
        return {}
    most = max(settings.episodes, settings.interval_episodes)
    rows = -(-environments_at_once(most, settings.num_envs) // 2)
    return {n: acting_memory(learner, rows, n) for n in candidates_of(config)}


@dataclass
class StackedLearners:
    """A stack of learners, as :class:`~idql_func.training.offline_loop.Learners`.

    A state has keys ``[K, 2]``, losses are ``[K]``. ``rates`` and ``templates`` (structure and
    numbers of each member, without tensors) are as for :mod:`idql_func.training.seeds.stack`.
    """

    config: TrainConfig
    data: MemberData
    rates: Rates
    templates: Sequence[Any]

    def members(self, state: State) -> list[State]:
        return [
            State(member_of(state.learner, k, template), state.data_key[k], state.updates)
            for k, template in enumerate(self.templates)
        ]

    def advance(self, state: State, count: int, donate: bool) -> tuple[State, InfoDict]:
        data, total = self.data, self.data.counts[0]
        step = functools.partial(
            _step,
            rates=dict(self.rates),
            arrays=dict(data.arrays),
            rows=data.rows,
            total=total,  # an argument, as in scan_updates
            batch_size=self.config.batch_size,
        )
        carry = (state.learner, state.data_key)
        carry = carry if donate else without_donation(carry)
        (learner, keys), infos = scan(step, carry, length=count)
        return State(learner, keys, state.updates + count), tree_map(lambda x: x[-1], infos)

    def held_out_losses(self, step: int, learner: Any) -> InfoDict | None:
        arrays, size = self.data.arrays, self.config.batch_size
        if self.data.held_out is None:
            return None

        def losses(learner: Any, key: PRNGKey, rows: Tensor) -> InfoDict:
            return learner.eval_loss(draw_batch(arrays, key, size, rows)[0])[1]

        with eager_on_cpu(learner.rng.device):
            members = vmap(losses, in_axes=(0, 0, 1))
            return members(learner, self.data.held_out_keys(step), self.data.held_out)


@functools.partial(
    jit, static_argnames="batch_size", donate_argnums=0, open_argnames=("arrays", "rows")
)
def _step(
    carry: tuple[Any, PRNGKey],
    _: None,
    *,
    rates: Rates,
    arrays: Mapping[str, Tensor],
    rows: Tensor | None,
    total: int | Tensor | None,
    batch_size: int,
) -> tuple[tuple[Any, PRNGKey], InfoDict]:
    """One update of all members, each on a batch of its own."""

    def member(
        learner: Any, key: PRNGKey, rates: Rates, rows: Tensor | None
    ) -> tuple[tuple[Any, PRNGKey], InfoDict]:
        batch, key = draw_batch(arrays, key, batch_size, rows, total)
        learner, info = update_member(learner, rates, batch)
        return (learner, key), info

    return vmap(member, in_axes=(0, 0, 0, 1))(*carry, rates, rows)
