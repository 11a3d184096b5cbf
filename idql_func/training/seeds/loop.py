"""Several offline runs as one program: seeds, and numbers of the learner, side by side.

Member k of a group is the run that ``train_offline`` makes of its settings alone: the same initial
parameters, split, batches and keys, the same folder. What is shared is the work: the dataset lies
on the device once, and one compiled update moves all members.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.compiler.donation import without_donation
from idql_func.evaluation import environments_at_once
from idql_func.switches import x64_enabled
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.settings import changed_settings, with_settings
from idql_func.training.offline import (
    OfflineLoop,
    TrainingInterrupted,
    check_resumable,
    describe_task,
    loop_state,
    warn_of_versions,
)
from idql_func.training.runs.checkpoint import read_metadata, restore_learner
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import (
    RunDirectory,
    choose_run_directory,
    open_run_directory,
    write_json,
)
from idql_func.training.runs.metrics import MetricsLogger
from idql_func.training.runs.offline_records import (
    IDQL,
    OfflineRecords,
    State,
    create,
    fields_of,
    numbers_of,
)
from idql_func.training.runtime.device import choose_device
from idql_func.training.runtime.eager import eagerly_on_cpu
from idql_func.training.runtime.matmul_precision import matmul_precision
from idql_func.training.runtime.threads import cpu_threads
from idql_func.training.seeds.acting import acting_memory
from idql_func.training.seeds.config import check_members, group_name, member_names
from idql_func.training.seeds.data import MemberData, member_data
from idql_func.training.seeds.memory import check_fits, member_memory
from idql_func.training.seeds.records import Evaluations, GroupRecords
from idql_func.training.seeds.stack import Rates, stack_members, update_member
from idql_func.training.task import Task, prepare_task
from idql_func.training.updates import draw_batch
from idql_func.transforms import jit, scan, vmap
from idql_func.tree import tree_map
from idql_func.types import InfoDict, InputError, PRNGKey

__all__ = ["SeedsResult", "open_members", "train_seeds"]


@dataclass(frozen=True)
class SeedsResult:
    """What a finished group leaves: its folder, its members' learners, and their evaluations.

    ``evaluations`` has for each member what :class:`~idql_func.training.offline.TrainResult` has;
    ``summary`` is the content of the group's ``summary.json``.
    """

    run: RunDirectory
    learners: Sequence[Any]
    evaluations: Sequence[Evaluations]
    summary: Mapping[str, Any]


def train_seeds(
    configs: Sequence[TrainConfig],
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    on_update: Callable[[int], None] | None = None,
) -> SeedsResult:
    """Train several learners on one dataset as one program, evaluate each, leave a folder each.

    Args:
        configs: the settings of each member. They may differ in the seed and in what
            :data:`idql_func.training.seeds.config.PER_MEMBER` names. ``runs_dir`` and ``name`` are
            those of the group's folder. For a resumed group: what :func:`open_members` gives, but
            for the names in :data:`idql_func.training.offline.RESUMABLE`.
        resume: a group's folder to continue.
        overwrite: replace a group of the same name.
        reporter: where to print; default: standard output.
        on_update: called with the number of updates done after each of them.

    Returns:
        The group's folder, the learners and their evaluations.

    Raises:
        InputError: settings that do not go together, more members than memory has room for, or
            data or checkpoints that are not usable; the sentence says what is wrong.
        FileNotFoundError: the dataset or the group to resume does not exist.
        TrainingInterrupted: Ctrl-C; a checkpoint of each member has been written.
    """
    check_members(configs)
    reporter = reporter if reporter is not None else Reporter()
    first, names = configs[0], member_names(configs)
    device = choose_device(first.device)
    if resume is None:
        run = choose_run_directory(first, overwrite, group_name(configs))
    else:
        run = open_run_directory(resume)
    runs = [RunDirectory(run.path / name) for name in names]
    configs = [
        dataclasses.replace(config, runs_dir=run.path, name=name)
        for config, name in zip(configs, names, strict=True)
    ]
    checkpoints = None if resume is None else _common_checkpoints(runs)
    for config, own, checkpoint in zip(configs, runs, checkpoints or [], strict=False):
        check_resumable(own, config, checkpoint)

    reporter.stage(f"Data: {first.dataset.source}")
    task, data = _prepare(configs, device, reporter)
    reporter.stage(f"Learners: {len(configs)} x {first.learner.class_name}, {_told(names)}")
    learners = _Learners.of(configs, task, data, checkpoints, device, reporter)

    # Not before everything above has been found to be in order: bad input leaves no trace.
    start = learners.start
    if checkpoints is None:
        run.start()
    run.summary.unlink(missing_ok=True)
    run.write_config(dataclasses.replace(first, name=run.path.name))
    write_json(run.members, {"members": names})
    for own, config in zip(runs, configs, strict=True):
        own.start() if checkpoints is None else own.discard_after(start)
        own.write_config(config)
    with (
        cpu_threads(first.threads),
        matmul_precision(first.matmul, device=device, setting=learners.matmul) as matmul,
        ExitStack() as stack,
    ):
        reporter.detail(f"matrix products: {matmul.reason}")
        keep = None if checkpoints is None else start
        loggers = [stack.enter_context(MetricsLogger(own.path, keep_before=keep)) for own in runs]
        silent = Reporter(quiet=True)
        members = [
            OfflineRecords(config, task, own, silent, logger, matmul)
            for config, own, logger in zip(configs, runs, loggers, strict=True)
        ]
        records = GroupRecords(run, members, learners.templates, reporter, learners.acting)
        state = State(learners.stacked, learners.keys, start)
        config = dataclasses.replace(first, runs_dir=run.path.parent, name=run.path.name)
        loop = _GroupLoop(config, task, records, state, on_update, data=data, rates=learners.rates)
        del learners
        state = loop.train()
        try:
            evaluations = records.final_evaluation(state)
        except KeyboardInterrupt:
            # The checkpoints of the last update are written; what is missing is the evaluation.
            raise TrainingInterrupted(run, state.updates) from None
        summary = records.finish(state, evaluations)
        return SeedsResult(
            run, [own.learner for own in records.member_states(state)], evaluations, summary
        )


def open_members(path: str | Path, changes: TrainConfig | None = None) -> list[TrainConfig]:
    """The settings of the members of a group that lies at a path.

    Args:
        path: the group's folder.
        changes: the settings of the group with some of them changed; each member gets the changes.

    Raises:
        FileNotFoundError: there is no run.
        InputError: it is no group, or damaged.
    """
    run = open_run_directory(path)
    if not run.members.is_file():
        raise InputError(f"{run.path} is the run of one learner, not of several members")
    try:
        names = [str(name) for name in json.loads(run.members.read_text("utf-8"))["members"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run.members} is damaged: {error}") from None
    configs = [RunDirectory(run.path / name).read_config() for name in names]
    if changes is None:
        return configs
    changed = changed_settings(run.read_config(), changes)
    return [with_settings(config, changes, changed) for config in configs]


def _common_checkpoints(runs: Sequence[RunDirectory]) -> list[Path]:
    """The newest checkpoints that all members have; a kill between two writes leaves some ahead."""
    found = [{path.name for path in run.checkpoints.glob("step_*")} for run in runs]
    common = set.intersection(*found)
    if not common:
        raise FileNotFoundError(
            f"the members in {runs[0].path.parent} have no checkpoint in common: there is nothing "
            "to continue from; start anew with --overwrite"
        )
    return [run.checkpoints / max(common) for run in runs]


def _prepare(
    configs: Sequence[TrainConfig], device: torch.device, reporter: Reporter
) -> tuple[Task, MemberData]:
    """The task with all transitions, and each member's share of them."""
    first = configs[0]
    whole = dataclasses.replace(first.dataset, train_fraction=1.0)
    task = prepare_task(
        dataclasses.replace(first, dataset=whole), device, progress=reporter.console.is_terminal
    )
    seeds = [config.seed for config in configs]
    fraction = first.dataset.train_fraction
    data = member_data(task.train, seeds, fraction, fields_of(first), device)
    describe_task(task, data.counts, reporter)
    return task, data


@dataclass(frozen=True)
class _Learners:
    """The members as one, and what belongs to them: see ``stack_members`` and ``GroupRecords``."""

    stacked: Any
    rates: Rates
    keys: PRNGKey
    templates: Sequence[Any]
    acting: Mapping[int | None, int]
    start: int
    matmul: str | None

    @staticmethod
    def of(
        configs: Sequence[TrainConfig],
        task: Task,
        data: MemberData,
        checkpoints: Sequence[Path] | None,
        device: torch.device,
        reporter: Reporter,
    ) -> _Learners:
        """Create or restore all, when there is memory for them."""
        first = create(configs[0], task)
        shapes = {name: x.shape[1:] for name, x in data.arrays.items()}
        acting = _acting(first, configs[0], task)
        each = dataclasses.replace(
            member_memory(first, shapes, configs[0].batch_size),
            acting=max(acting.values(), default=0),
        )
        reporter.detail(check_fits(len(configs), each, configs[0].batch_size, device))
        members = [first, *(create(config, task) for config in configs[1:])]
        keys, start, matmul = data.keys, 0, None
        if checkpoints is None:
            if isinstance(configs[0].learner, IDQL):
                # One batch is drawn and thrown away, as upstream does (D3).
                keys = vmap(lambda key: random.split(key)[1])(keys)
        else:
            members = [restore_learner(m, c) for m, c in zip(members, checkpoints, strict=True)]
            metadata = [read_metadata(checkpoint) for checkpoint in checkpoints]
            start = metadata[0].updates
            states = [loop_state(m, c) for m, c in zip(metadata, checkpoints, strict=True)]
            matmul, keys = states[0][0], torch.stack([key for _, key in states]).to(device)
            reporter.detail(f"continues {checkpoints[0].parents[2]} at {start:,} updates")
            warn_of_versions(metadata[0], reporter)
        stacked, rates = stack_members(members)
        return _Learners(
            stacked.to(device),
            {name: rate.to(device) for name, rate in rates.items()},
            keys,
            [_without_values(member) for member in members],
            acting,
            start,
            matmul,
        )


def _acting(learner: Any, config: TrainConfig, task: Task) -> dict[int | None, int]:
    """Bytes that a member needs to choose actions, for each number of candidates."""
    settings = config.evaluation
    if task.make_env is None:
        return {}
    most = max(settings.episodes, settings.interval_episodes)
    rows = -(-environments_at_once(most, settings.num_envs) // 2)
    return {n: acting_memory(learner, rows, n) for n in numbers_of(config)}


@dataclass(kw_only=True)
class _GroupLoop(OfflineLoop):
    """The loop over a stack of learners: keys ``[K, 2]``, losses ``[K]``."""

    data: MemberData
    rates: Rates

    def _advance(self, state: State, count: int, donate: bool) -> tuple[State, InfoDict]:
        data, total = self.data, self.data.counts[0]
        step = functools.partial(
            _step,
            rates=dict(self.rates),
            arrays=dict(data.arrays),
            rows=data.rows,
            # as in scan_updates: an argument, and part of the program for 64-bit draws alone
            total=None if x64_enabled() else total,
            batch_size=self.config.batch_size,
        )
        carry = (state.learner, state.data_key)
        (learner, keys), infos = scan(
            step, carry if donate else without_donation(carry), length=count
        )
        return State(learner, keys, state.updates + count), tree_map(lambda x: x[-1], infos)

    def _held_out_losses(self, step: int, learner: Any) -> InfoDict | None:
        arrays, size = self.data.arrays, self.config.batch_size
        if self.data.held_out is None:
            return None

        def losses(learner: Any, key: PRNGKey, rows: Tensor) -> InfoDict:
            return learner.eval_loss(draw_batch(arrays, key, size, rows)[0])[1]

        with eagerly_on_cpu(learner.rng.device):
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


def _without_values(learner: Any) -> Any:
    """The structure of a learner and its numbers; its tensors are in the stack."""
    return tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, learner)


def _told(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{names[0]}, {names[1]}, … {names[-1]}"
