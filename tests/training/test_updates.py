"""Scans of updates: equality with single updates, mean metrics, donated state, bad input."""

from __future__ import annotations

import gc
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from idql_func import disable_jit, enable_x64, random, vmap
from idql_func.agents import BCLearner, DDPMIQLLearner, IQLLearner, SACLearner, TD3Learner
from idql_func.data import Dataset
from idql_func.training.updates import draw_batch, scan_updates
from idql_func.tree import tree_leaves, tree_map, tree_paths, tree_unstack
from idql_func.types import InputError

OBSERVATIONS, ACTIONS, ROWS, BATCH = 3, 2, 50, 8
SPACES = gym.spaces.Box(-1, 1, (OBSERVATIONS,)), gym.spaces.Box(-1, 1, (ACTIONS,))


def dataset(seed: int = 0, rows: int = ROWS) -> Dataset:
    rng = np.random.default_rng(1)
    return Dataset(
        {
            "observations": rng.standard_normal((rows, OBSERVATIONS)).astype(np.float32),
            "next_observations": rng.standard_normal((rows, OBSERVATIONS)).astype(np.float32),
            "actions": rng.uniform(-0.9, 0.9, (rows, ACTIONS)).astype(np.float32),
            "rewards": rng.standard_normal(rows).astype(np.float32),
            "masks": (rng.random(rows) < 0.9).astype(np.float32),
            "dones": rng.random(rows) < 0.1,
        },
        seed=seed,
    )


def bc(seed: int = 0) -> BCLearner:
    return BCLearner.create(seed, *SPACES, hidden_dims=(8,), dropout_rate=0.1)


def learners() -> list[Any]:
    return [
        bc(),
        IQLLearner.create(0, *SPACES, hidden_dims=(8,)),
        DDPMIQLLearner.create(
            0,
            *SPACES,
            critic_hidden_dims=(8,),
            actor_num_blocks=1,
            time_dim=4,
            T=2,
            actor_dropout_rate=0.1,
        ),
        SACLearner.create(0, *SPACES, hidden_dims=(8,)),
        TD3Learner.create(0, *SPACES, hidden_dims=(8,)),
    ]


def one_by_one(learner: Any, data: Dataset, steps: int) -> tuple[Any, list[dict[str, Any]]]:
    """Alternate ``sample_torch`` and ``update``; the next key is left in ``data.rng``."""
    infos = []
    for _ in range(steps):
        learner, info = learner.update(data.sample_torch(BATCH))
        infos.append(info)
    return learner, infos


def assert_same_bits(left: Any, right: Any) -> None:
    assert tree_paths(left) == tree_paths(right)
    for name, a, b in zip(tree_paths(left), tree_leaves(left), tree_leaves(right), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)), name


def copies(tree: Any) -> Any:
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, tree)


def tensors_alive() -> int:
    gc.collect()
    return sum(issubclass(type(value), torch.Tensor) for value in gc.get_objects())


def resident_bytes() -> int:
    """Memory of the process; 0 if the system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


@pytest.fixture
def compiled() -> Iterator[None]:
    """Enable compilation, which the folder's fixture disables."""
    with disable_jit(False):
        yield


@pytest.mark.parametrize("learner", learners(), ids=lambda learner: type(learner).__name__)
def test_scan_equals_single_updates_on_sampled_batches(learner: Any) -> None:
    data = dataset()
    result, key, info = scan_updates(learner, data.on_device(), data.rng, 5, BATCH, metrics="last")
    expected, infos = one_by_one(learner, data, 5)
    assert_same_bits(result, expected)
    assert torch.equal(key, data.rng)
    assert {k: v.item() for k, v in info.items()} == {k: v.item() for k, v in infos[-1].items()}


def test_two_scans_equal_one_long_scan() -> None:
    arrays, key = dataset().on_device(), random.PRNGKey(3)
    whole, end, _ = scan_updates(bc(), arrays, key, 7, BATCH)
    learner, middle, _ = scan_updates(bc(), arrays, key, 4, BATCH)
    parts, last, _ = scan_updates(learner, arrays, middle, 3, BATCH)
    assert_same_bits(whole, parts)
    assert torch.equal(end, last)


def test_metrics_are_averaged_or_those_of_the_last_step() -> None:
    data = dataset()
    arguments = (bc(), data.on_device(), data.rng, 4, BATCH)
    mean, last = (scan_updates(*arguments, metrics=how)[2] for how in ("mean", "last"))
    _, infos = one_by_one(bc(), data, 4)
    for name in ("nll", "entropy"):
        values = [info[name].item() for info in infos]
        assert mean[name].shape == last[name].shape == ()
        assert mean[name].item() == pytest.approx(np.mean(values), rel=1e-6)
        assert last[name].item() == values[-1]
        assert len(set(values)) == 4


def test_integer_metrics_are_averaged_as_floats() -> None:
    def update(learner: torch.Tensor, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        return learner + 1, {"steps": learner}

    _, _, info = scan_updates(
        torch.tensor(0), {"a": torch.zeros(3)}, random.PRNGKey(0), 4, 2, update=update
    )
    assert info["steps"].item() == 1.5


def test_scan_accepts_another_update_function() -> None:
    learner = learners()[2]
    data = dataset()
    result, _, info = scan_updates(
        learner, data.on_device(), data.rng, 2, BATCH, update=DDPMIQLLearner.critic_update
    )
    for _ in range(2):
        learner, _ = learner.critic_update(data.sample_torch(BATCH))
    assert_same_bits(result, learner)
    assert "actor_loss" not in info and "critic_loss" in info


def test_scan_does_not_change_learner_key_and_arrays() -> None:
    learner, data = bc(), dataset()
    arrays, key = data.on_device(), data.rng
    before = copies((learner, arrays, key))
    scan_updates(learner, arrays, key, 3, BATCH)
    assert_same_bits(before, (learner, arrays, key))


def test_draw_batch_draws_from_the_given_rows() -> None:
    whole = dataset(seed=5)
    half, _ = whole.split(0.8)
    whole.seed(5)
    (rows, seed), _ = whole.split_rows(0.8)
    batch, key = draw_batch(
        whole.on_device(), random.PRNGKey(seed), BATCH, rows=torch.from_numpy(rows)
    )
    expected = half.sample_torch(BATCH)
    assert batch.keys() == expected.keys()
    for name in batch:
        assert torch.equal(batch[name], expected[name]), name
    assert torch.equal(key, half.rng)


def test_vmapped_draw_batch_equals_single_draws() -> None:
    arrays = dataset().on_device()
    keys = random.split(random.PRNGKey(0), 3)
    batches, following = vmap(lambda key: draw_batch(arrays, key, BATCH))(keys)
    for i, key in enumerate(keys):
        batch, after = draw_batch(arrays, key, BATCH)
        assert_same_bits(tree_unstack(batches)[i], batch)
        assert torch.equal(following[i], after)


def test_draw_batch_in_double_precision_equals_the_dataset() -> None:
    with enable_x64():
        data = dataset()
        batch, _ = draw_batch(data.on_device(), data.rng, BATCH)
        assert_same_bits(batch, data.sample_torch(BATCH))


def test_nested_fields_are_drawn_together() -> None:
    rows = torch.arange(20.0)
    arrays = {"observations": {"pixels": rows, "state": -rows}, "actions": 2 * rows}
    batch, _ = draw_batch(arrays, random.PRNGKey(0), 4)
    assert torch.equal(batch["actions"], 2 * batch["observations"]["pixels"])
    assert torch.equal(batch["actions"], -2 * batch["observations"]["state"])


@pytest.mark.usefixtures("compiled")
def test_compiled_scans_equal_eager_ones_and_keep_the_arguments() -> None:
    learner, data = bc(), dataset()
    arguments = (learner, data.on_device(), data.rng)
    before = copies(arguments)
    result, key, info = scan_updates(*arguments, 6, BATCH)
    result, key, last = scan_updates(result, data.on_device(), key, 3, BATCH, metrics="last")
    assert_same_bits(before, arguments)
    with disable_jit():
        expected, infos = one_by_one(learner, data, 9)
    assert torch.equal(key, data.rng)
    for a, b in zip(tree_leaves(result), tree_leaves(expected), strict=True):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-5, atol=1e-6)
    for name, value in info.items():
        mean = np.mean([i[name].item() for i in infos[:6]])
        assert value.item() == pytest.approx(mean, rel=1e-4, abs=1e-6), name
        assert last[name].item() == pytest.approx(infos[-1][name].item(), rel=1e-4, abs=1e-6)


@pytest.mark.usefixtures("compiled")
def test_compiled_steps_do_not_depend_on_the_scan_lengths() -> None:
    arrays, key = dataset().on_device(), random.PRNGKey(3)
    whole, end, _ = scan_updates(bc(), arrays, key, 7, BATCH)
    learner, middle, _ = scan_updates(bc(), arrays, key, 1, BATCH)
    for steps in (1, 2, 3):
        learner, middle, _ = scan_updates(learner, arrays, middle, steps, BATCH, donate=steps > 1)
    assert_same_bits(whole, learner)
    assert torch.equal(end, middle)


@pytest.mark.usefixtures("compiled")
def test_donated_learner_is_updated_in_place_and_cannot_be_used() -> None:
    arrays, key = dataset().on_device(), random.PRNGKey(3)
    learner, key, _ = scan_updates(bc(), arrays, key, 1, BATCH)
    places = [leaf.data_ptr() for leaf in tree_leaves((learner, key)) if torch.is_tensor(leaf)]
    result, following, _ = scan_updates(learner, arrays, key, 5, BATCH, donate=True)
    assert places == [
        leaf.data_ptr() for leaf in tree_leaves((result, following)) if torch.is_tensor(leaf)
    ]
    for old in (learner.actor.step, key):
        with pytest.raises(RuntimeError, match="This tensor was donated"):
            old.add(1)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("steps", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_nothing_is_allocated_after_the_first_step(steps: int) -> None:
    arrays = dataset().on_device()

    def train(learner: Any, key: Any, steps: int) -> tuple[Any, Any]:
        for _ in range(steps // 50):
            learner, key, _ = scan_updates(learner, arrays, key, 50, BATCH, donate=True)
        return learner, key

    state = train(bc(), random.PRNGKey(0), 100)
    tracemalloc.start()
    try:
        state = train(*state, 100)
        before = tensors_alive(), tracemalloc.get_traced_memory()[0], resident_bytes()
        state = train(*state, steps)
        after = tensors_alive(), tracemalloc.get_traced_memory()[0], resident_bytes()
    finally:
        tracemalloc.stop()
    assert after[0] == before[0]
    assert after[1] - before[1] < 150_000  # Python's caches grow; 15 bytes a step would exceed it
    assert after[2] - before[2] < 4_000_000  # one step's batch and losses are a few hundred bytes
    assert state[0].actor.step.item() == 200 + steps


@pytest.mark.usefixtures("compiled")
def test_other_numbers_of_rows_are_not_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a separate cache, so that other processes do not change the count of hits
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    scan_updates(bc(), dataset(rows=40).on_device(), random.PRNGKey(0), 1, BATCH)
    before = counters["inductor"].copy()
    data = dataset(rows=41)
    result, *_ = scan_updates(bc(), data.on_device(), data.rng, 1, BATCH)
    after = counters["inductor"]
    assert after["fxgraph_cache_miss"] == before["fxgraph_cache_miss"]
    assert after["fxgraph_cache_hit"] == before["fxgraph_cache_hit"] + 1
    # rows are drawn from the new number of rows
    with disable_jit():
        expected, _ = one_by_one(bc(), data, 1)
    for a, b in zip(tree_leaves(result), tree_leaves(expected), strict=True):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"steps": 0}, InputError, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, InputError, "batch_size must be at least 1"),
        ({"steps": 2.0}, TypeError, "steps must be an integer"),
        ({"metrics": "all"}, InputError, "metrics is 'all', but must be 'mean' or 'last'"),
        ({"arrays": {}}, InputError, "no rows to draw from"),
        ({"arrays": {"a": torch.zeros(0, 2)}}, InputError, "no rows to draw from"),
        ({"arrays": {"a": {"b": np.zeros(3)}}}, TypeError, "'a/b' is a ndarray; it must be a"),
        ({"arrays": {"a": torch.zeros(())}}, TypeError, "'a' is a scalar; it must be a tensor"),
        (
            {"arrays": {"a": torch.zeros(3), "b": torch.zeros(4)}},
            InputError,
            "'b' has 4 rows and others have 3",
        ),
        ({"arrays": {"a": torch.zeros(3)}}, InputError, "the batch has no 'observations'"),
    ],
)
def test_bad_input_raises_with_its_name(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {
        "learner": bc(),
        "arrays": dataset().on_device(),
        "key": random.PRNGKey(0),
        "steps": 1,
        "batch_size": BATCH,
    }
    with pytest.raises(error, match=message):
        scan_updates(**{**arguments, **changes})
