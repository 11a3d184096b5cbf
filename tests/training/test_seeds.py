"""Groups: each member equals the single run, also interrupted, resumed and evaluated."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from torch._dynamo.utils import counters

from idql_func import disable_jit, tree_stack, vmap
from idql_func.agents.agent import TRANSITION_FIELDS
from idql_func.training.configs.learners import BCConfig, GeneralDDPMIQLConfig, IQLConfig
from idql_func.training.configs.offline import EvaluationConfig, TrainConfig
from idql_func.training.evaluate import evaluate_checkpoint
from idql_func.training.offline import (
    TrainingInterrupted,
    candidates_of,
    create_learner,
    train_offline,
)
from idql_func.training.runs.checkpoint import load_checkpoint
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.runs.metrics import read_metrics
from idql_func.training.runs.results import Evaluator
from idql_func.training.seeds import acting as seeds_acting
from idql_func.training.seeds.acting import StackedActor, StackEvaluator, members_at_once
from idql_func.training.seeds.loop import open_members, train_seeds
from idql_func.training.seeds.memory import member_memory, peak_bytes
from idql_func.training.seeds.stack import stack_members, update_member
from idql_func.training.task import prepare_task
from idql_func.tree import tree_leaves, tree_paths
from idql_func.types import InputError

EVALUATION = EvaluationConfig(
    env="ShortPendulum-v0", N=(1, 2), interval=5, interval_episodes=1, episodes=2
)
BC = BCConfig(hidden_dims=(8,), dropout_rate=0.1)


def replace(config: Any, **changes: Any) -> Any:
    return dataclasses.replace(config, **changes)


def seeds(config: TrainConfig, *numbers: int) -> list[TrainConfig]:
    return [replace(config, seed=seed) for seed in numbers]


def losses(run: RunDirectory) -> list[dict[str, Any]]:
    records = read_metrics(run.path / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k != "updates_per_second"} for r in records]


def assert_close(left: Any, right: Any, bound: float) -> None:
    """Compare leaves in relative norm: without a gradient, Adam steps by the sign of rounding."""
    assert tree_paths(left) == tree_paths(right)
    for name, a, b in zip(tree_paths(left), tree_leaves(left), tree_leaves(right), strict=True):
        assert type(a) is type(b), name
        if not isinstance(a, torch.Tensor):
            assert a == b, name
        elif a.is_floating_point():
            assert float((a - b).norm()) <= bound * float(b.norm()), name
        else:
            assert torch.equal(a, b), name


def assert_same_records(left: RunDirectory, right: RunDirectory, bound: float) -> None:
    ours, theirs = losses(left), losses(right)
    assert [sorted(r) for r in ours] == [sorted(r) for r in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=bound, abs=bound)


GENERAL = GeneralDDPMIQLConfig(
    actor_hidden_dims=(8,), critic_hidden_dims=(8,), time_dim=4, T=2, N=2, actor_objective="exp_adv"
)
IQL = IQLConfig(hidden_dims=(8,))
GRIDS = {
    "simple": (None, {"critic_hyperparam": (0.5, 0.9), "actor_lr": (3e-4, 3e-3)}),
    "general": (GENERAL, {"policy_temperature": (3.0, 1.0), "critic_lr": (3e-4, 3e-3)}),
    "iql": (IQL, {"expectile": (0.7, 0.9), "temperature": (0.1, 3.0), "value_lr": (3e-4, 3e-3)}),
    "bc": (replace(BC, weight_decay=0.01), {"actor_lr": (1e-3, 1e-2)}),
}


@pytest.mark.parametrize(
    "learner",
    ["simple", "bc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("general", "iql"))],
)
def test_members_equal_single_runs_over_100_updates(
    tiny: TrainConfig, quiet: Reporter, learner: str
) -> None:
    """Members differ in seed and hyper-parameters; losses and parameters agree within 1e-4."""
    own, varied = GRIDS[learner]
    config = replace(tiny, max_steps=100, log_interval=20, checkpoint_interval=100)
    config = config if own is None else replace(config, learner=own)
    config = replace(config, cosine_decay=learner in ("iql", "bc"))
    configs = [
        replace(
            config,
            seed=seed,
            learner=replace(config.learner, **{k: v[i] for k, v in varied.items()}),
        )
        for i, seed in enumerate((3, 7))
    ]
    group = train_seeds(configs, reporter=quiet)
    for i, member in enumerate(configs):
        single = train_offline(replace(member, name=f"alone{i}"), reporter=quiet)
        assert_close(group.learners[i], single.learner, bound=1e-4)
        name = sorted(p.name for p in group.run.path.iterdir() if p.is_dir())[i]
        run = RunDirectory(group.run.path / name)
        assert_same_records(run, single.run, bound=1e-4)
        own, theirs = (load_checkpoint(r.checkpoint(100)) for r in (run, single.run))
        assert_close(own[0], theirs[0], bound=1e-4)
        without = [
            {k: v for k, v in m[1].extra.items() if k != "records_sha256"} for m in (own, theirs)
        ]
        assert without[0] == without[1] and own[1].create == theirs[1].create
        assert own[1].seed == member.seed
        # the run of one member can be resumed alone
        longer = replace(run.read_config(), max_steps=101)
        if not config.cosine_decay:
            train_offline(longer, resume=run.path, reporter=quiet)


def test_members_with_different_seeds_differ(tiny: TrainConfig, quiet: Reporter) -> None:
    group = train_seeds(seeds(replace(tiny, learner=BC), 0, 1), reporter=quiet)
    first, second = (r.actor.params["MLP_0"]["Dense_0"]["kernel"] for r in group.learners)
    assert not torch.allclose(first, second)
    assert not torch.equal(group.learners[0].rng, group.learners[1].rng)


def test_group_of_one_equals_a_single_run(tiny: TrainConfig, quiet: Reporter) -> None:
    config = replace(tiny, dataset=replace(tiny.dataset, train_fraction=1.0), learner=BC)
    group = train_seeds(seeds(config, 4), reporter=quiet)
    single = train_offline(replace(config, seed=4, name="alone"), reporter=quiet)
    assert_close(group.learners[0], single.learner, bound=1e-5)
    assert not any("val/nll" in record for record in losses(single.run))
    assert_same_records(RunDirectory(group.run.path / "seed4"), single.run, bound=1e-5)


@pytest.mark.parametrize("stop", [1, 8])
def test_interrupted_and_resumed_equals_uninterrupted(
    tiny: TrainConfig, quiet: Reporter, stop: int
) -> None:
    tiny = replace(tiny, learner=IQL)

    def check(done: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    whole = train_seeds(seeds(replace(tiny, name="whole"), 0, 1), reporter=quiet)
    cut = seeds(replace(tiny, name="cut"), 0, 1)
    with pytest.raises(TrainingInterrupted, match=f"after {stop} updates; continue with --resume"):
        train_seeds(cut, reporter=quiet, on_update=check)
    folder = tiny.runs_dir / "cut"
    assert not (folder / "summary.json").exists()
    resumed = train_seeds(open_members(folder), resume=folder, reporter=quiet)
    for k, (own, theirs) in enumerate(zip(whole.learners, resumed.learners, strict=True)):
        assert_close(own, theirs, bound=0)
        name = f"seed{k}"
        assert losses(RunDirectory(whole.run.path / name)) == losses(RunDirectory(folder / name))


def test_group_resumes_from_the_newest_common_checkpoint(
    tiny: TrainConfig, quiet: Reporter
) -> None:
    tiny = replace(tiny, learner=BC)
    whole = train_seeds(seeds(replace(tiny, name="whole"), 0, 1), reporter=quiet)
    short = replace(tiny, name="short", max_steps=8)
    group = train_seeds(seeds(short, 0, 1), reporter=quiet)
    # as if the machine had stopped between the checkpoints of two members
    os.rename(group.run.path / "seed1/checkpoints/step_000000008", group.run.path / "lost")
    again = open_members(group.run.path, replace(group.run.read_config(), max_steps=12))
    assert [config.max_steps for config in again] == [12, 12]
    resumed = train_seeds(again, resume=group.run.path, reporter=quiet)
    for own, theirs in zip(whole.learners, resumed.learners, strict=True):
        assert_close(own, theirs, bound=0)
    with pytest.raises(InputError, match="nothing to continue"):
        train_seeds(again, resume=group.run.path, reporter=quiet)
    changed = open_members(group.run.path, replace(group.run.read_config(), batch_size=9))
    with pytest.raises(InputError, match="cannot change batch_size"):
        train_seeds(changed, resume=group.run.path, reporter=quiet)


@pytest.mark.usefixtures("drawn")
def test_group_folder_is_complete_and_consistent(tiny: TrainConfig) -> None:
    stream = io.StringIO()
    config = replace(tiny, evaluation=EVALUATION, name=None)
    learners = [replace(tiny.learner, critic_hyperparam=value) for value in (0.5, 0.9)]
    configs = [replace(c, learner=own) for own in learners for c in seeds(config, 0, 1)]
    group = train_seeds(configs, reporter=Reporter(Console(file=stream, width=120)))
    names = [f"critic-hyperparam={v}-seed{s}" for v in (0.5, 0.9) for s in (0, 1)]
    assert group.run.path.name == "pointmaze-critic-hyperparam-2seeds"
    files = ["config.json", "learning_curve.png", "members.csv", "members.json", "summary.json"]
    assert sorted(os.listdir(group.run.path)) == sorted([*names, *files])
    inside = ["checkpoints", "config.json", "learning_curve.png", "metrics.csv", "metrics.jsonl"]
    for name, member in zip(names, configs, strict=True):
        run = RunDirectory(group.run.path / name)
        assert sorted(os.listdir(run.path)) == [*inside, "summary.json"]
        assert run.read_config() == replace(member, runs_dir=group.run.path, name=name)
    summary = json.loads(group.run.summary.read_text())
    assert summary == group.summary and summary["updates"] == 12
    returns = [summary["members"][n]["evaluation"]["2"]["return"] for n in names]
    best = [row for row in summary["means"] if row["quantity"] == "N = 2"]
    assert [row["members"] for row in best] == ["critic-hyperparam=0.5", "critic-hyperparam=0.9"]
    assert best[0]["mean"] == pytest.approx(np.mean(returns[:2]))
    assert best[0]["standard_error"] == pytest.approx(np.std(returns[:2], ddof=1) / 2**0.5)
    with (group.run.path / "members.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["member"] for row in rows] == names
    assert [float(row["N = 2"]) for row in rows] == pytest.approx(returns)
    assert [row["learner.critic_hyperparam"] for row in rows] == ["0.5", "0.5", "0.9", "0.9"]
    assert imread(group.run.learning_curve).std() > 0.05
    out = stream.getvalue()
    assert "members need about" in out and "critic-hyperparam=0.5: mean of 2" in out
    assert all(name in out for name in names)

    # a member's folder equals that of a single run: equal returns, and it can be evaluated
    single = train_offline(replace(configs[1], name="alone"), reporter=Reporter(quiet=True))
    run = RunDirectory(group.run.path / names[1])
    assert_same_records(run, single.run, bound=1e-4)
    found = evaluate_checkpoint(
        run.path, n=(2,), episodes=2, seed=1000, reporter=Reporter(quiet=True)
    )
    assert found["evaluation"]["2"]["return"] == pytest.approx(returns[1], rel=1e-5)


@pytest.mark.parametrize("own", [None, GENERAL, IQL, BC], ids=["simple", "general", "iql", "bc"])
def test_members_evaluated_together_equal_single_evaluations(
    tiny: TrainConfig, own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The episodes are equal up to the last bits of actions for any number in one program."""
    config = replace(tiny, evaluation=EVALUATION)
    config = config if own is None else replace(config, learner=own)
    task = prepare_task(config)
    members = [create_learner(c, task) for c in seeds(config, 0, 1, 2)]
    stacked, _ = stack_members(members)
    assert task.make_env is not None
    evaluator = Evaluator(task.make_env, seed=3, num_envs=3)
    together = StackEvaluator(
        task.make_env, seed=3, num_envs=3, memory=dict.fromkeys(candidates_of(config), 1)
    )
    for n in candidates_of(config):
        single = [evaluator.run(member, n, 4, record=True) for member in members]
        for at_once in (2, 3):
            monkeypatch.setattr(seeds_acting, "members_at_once", lambda *_, k=at_once: k)
            found = together.run_members(stacked, n, 4, record=True)
            for one, other in zip(single, found, strict=True):
                paths, expected = other.pop("trajectories"), one["trajectories"]
                np.testing.assert_allclose(np.stack(paths), np.stack(expected), atol=1e-4)
                assert other["lengths"] == one["lengths"]
                assert other["returns"] == pytest.approx(one["returns"], rel=1e-4)
                assert other.keys() | {"trajectories"} == one.keys()


def test_compiled_members_choose_the_same_actions(tiny: TrainConfig) -> None:
    config = replace(tiny, learner=BC)
    task = prepare_task(config)
    members = [create_learner(c, task) for c in seeds(config, 0, 1)]
    seen = np.random.default_rng(0).standard_normal((2, 3, 3)).astype(np.float32)
    actor = StackedActor(stack_members(members)[0].to_act())
    with disable_jit(False):
        actions, after = actor.eval_actions(seen)
    for k, member in enumerate(members):
        expected, _ = member.eval_actions(seen[k])
        np.testing.assert_allclose(actions[k], expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(after.stacked.rng[k], member.rng)


def test_members_at_once_is_limited_by_speed_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, other = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(seeds_acting, "available_memory", lambda device: 1_000)
    assert members_at_once(64, 64, 100, cpu) == 2  # 32 environments by 64 candidates each
    assert members_at_once(64, 1, 100, other) == 8  # 512 environments
    assert members_at_once(64, 1, 300, other) == 3
    assert members_at_once(64, 1, 3_000, other) == 1
    monkeypatch.setattr(seeds_acting, "available_memory", lambda device: None)
    assert members_at_once(1, 1, 300, other) == 512


def test_diverged_members_are_named(tiny: TrainConfig) -> None:
    stream = io.StringIO()
    learners = [replace(IQL, critic_lr=rate) for rate in (1e-3, 1e18)]
    train_seeds(
        [replace(tiny, learner=own) for own in learners],
        reporter=Reporter(Console(file=stream, width=200)),
    )
    assert "losses of critic-lr=1e+18-seed0 are not numbers" in stream.getvalue()


BAD_GROUPS = {
    "batch": (lambda c: [c, replace(c, seed=1, batch_size=3)], "cannot differ in batch_size"),
    "data": (
        lambda c: [c, replace(c, seed=1, dataset=replace(c.dataset, train_fraction=0.5))],
        "cannot differ in dataset.train_fraction",
    ),
    "same": (lambda c: [c, c], "would be the same: seed0"),
    "none": (lambda c: [], "no members"),
    "network": (
        lambda c: [c, replace(c, seed=1, learner=replace(c.learner, time_dim=8))],
        "cannot differ in learner.time_dim",
    ),
    "bonus": (
        lambda c: [replace(c, learner=replace(BC, entropy_bonus=b)) for b in (None, 0.1)],
        "differ in entropy_bonus",
    ),
    "value": (
        lambda c: [replace(c, learner=replace(c.learner, critic_lr=r)) for r in (0.1, -1.0)],
        "critic_lr must be above 0",
    ),
}


@pytest.mark.parametrize("case", BAD_GROUPS)
def test_settings_that_do_not_form_a_group_raise_and_write_nothing(
    tiny: TrainConfig, quiet: Reporter, case: str
) -> None:
    make, message = BAD_GROUPS[case]
    with pytest.raises(InputError, match=message):
        train_seeds(make(tiny), reporter=quiet)
    assert not tiny.runs_dir.exists()


def test_open_members_of_a_single_run_raises(tiny: TrainConfig, quiet: Reporter) -> None:
    run = train_offline(replace(tiny, max_steps=1), reporter=quiet).run
    with pytest.raises(InputError, match="the run of one learner"):
        open_members(run.path)


def test_too_many_members_for_memory_raise(
    tiny: TrainConfig, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idql_func.training.seeds import memory as seeds_memory

    config = replace(tiny, learner=BC)
    monkeypatch.setattr(seeds_memory, "available_memory", lambda device: 40_000)
    few = r"100 members need about 1 MB .* batches of 8, .* at most \d+ fit; give fewer of them"
    with pytest.raises(InputError, match=few):
        train_seeds(seeds(config, *range(100)), reporter=quiet)
    monkeypatch.setattr(seeds_memory, "available_memory", lambda device: 1_000)
    with pytest.raises(InputError, match="not even one fits; give smaller networks"):
        train_seeds(seeds(config, 0), reporter=quiet)
    assert not tiny.runs_dir.exists()
    # the update fits, the choice of actions for so many environments does not
    many = replace(EVALUATION, episodes=100_000, num_envs=100_000)
    monkeypatch.setattr(seeds_memory, "available_memory", lambda device: 100_000)
    with pytest.raises(InputError, match=r"or a smaller --evaluation\.num-envs"):
        train_seeds(seeds(replace(config, evaluation=many), 0), reporter=quiet)
    assert not tiny.runs_dir.exists()
    monkeypatch.setattr(seeds_memory, "available_memory", lambda device: None)
    train_seeds(seeds(config, 0), reporter=quiet)


def test_member_memory_equals_the_measured_memory(tiny: TrainConfig) -> None:
    """The estimate from shapes equals the memory of the update, for one member and three."""
    task = prepare_task(tiny)
    members = [create_learner(config, task) for config in seeds(tiny, 0, 1, 2)]
    batch = task.train.sample_torch(64, keys=TRANSITION_FIELDS)
    each = member_memory(members[0], {n: x.shape[1:] for n, x in batch.items()}, 64)
    assert each.state == sum(
        torch.as_tensor(x).nbytes for x in tree_leaves(tree_stack(members[:1]))
    )
    single = peak_bytes(lambda: members[0].update(batch)) + sum(x.nbytes for x in batch.values())
    assert each.update == pytest.approx(single, rel=0.05)
    stacked, rates = stack_members(members)
    together = tree_stack([batch] * 3)
    three = peak_bytes(lambda: vmap(update_member)(stacked, rates, together))
    assert three + sum(x.nbytes for x in together.values()) == pytest.approx(3 * single, rel=0.05)


@pytest.mark.slow
def test_compiled_members_equal_compiled_single_runs(tiny: TrainConfig, quiet: Reporter) -> None:
    """Both run with donated memory and scans."""
    config = replace(tiny, learner=BC, log_interval=6)
    with disable_jit(False):
        group = train_seeds(seeds(config, 0, 1), reporter=quiet)
        for k, member in enumerate(seeds(config, 0, 1)):
            single = train_offline(replace(member, name=f"alone{k}"), reporter=quiet)
            assert_close(group.learners[k], single.learner, bound=1e-5)
            assert_same_records(RunDirectory(group.run.path / f"seed{k}"), single.run, bound=1e-5)


@pytest.mark.parametrize("held_out", [False, True])
def test_other_numbers_of_transitions_are_not_compiled_again(
    tiny: TrainConfig, quiet: Reporter, tmp_path: Path, held_out: bool
) -> None:
    """Members train on all transitions, or each on its own rows of them."""
    fraction = 0.75 if held_out else 1.0
    longer = tmp_path / "longer.hdf5"
    with h5py.File(tiny.dataset.source) as theirs, h5py.File(longer, "w") as ours:
        ours.attrs.update(theirs.attrs)
        for name in theirs:
            array = np.asarray(theirs[name])
            ours[name] = np.concatenate([array, array[:40]])
    config = replace(tiny, learner=BC, max_steps=2, log_interval=2)
    runs = []
    for source in (tiny.dataset.source, str(longer)):
        dataset = replace(config.dataset, source=source, train_fraction=fraction)
        before = counters["inductor"].copy()
        with disable_jit(False):
            own = seeds(replace(config, dataset=dataset, name=Path(source).stem), 0, 1)
            runs.append(train_seeds(own, reporter=quiet))
        after = counters["inductor"]
    assert after["fxgraph_cache_miss"] == before["fxgraph_cache_miss"]
    assert after["fxgraph_cache_hit"] == before["fxgraph_cache_hit"] + 1
    # rows are drawn from the larger number of transitions
    single = train_offline(replace(own[1], name="alone"), reporter=quiet)
    assert_close(runs[1].learners[1], single.learner, bound=1e-5)
