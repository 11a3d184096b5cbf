"""Learners and what they hold through pickle, copy, torch.save and worker processes."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pixel_learners
import pytest
import torch
from pixel_cases import CASES
from tiny_learners import (
    ACT,
    OBS,
    STATE_LEARNERS,
    TINY,
    box,
    make_batch,
    make_state_learner,
    same,
)
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from idql_func import agents, disable_jit, optim, random, tree_flatten, tree_stack
from idql_func.agents.bc import _update
from idql_func.data import Dataset
from idql_func.networks import get_weight_decay_mask
from idql_func.training.configs.learners import LEARNERS


def by_torch(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "torch.save": by_torch,
}


def _pixel_update(name: str, learner: Any) -> Any:
    ratio = [CASES[name][3]["utd_ratio"]] if "utd_ratio" in CASES[name][3] else []
    return learner.update(pixel_learners.batch_of(name), *ratio)


# name -> the learner, and its update
LEARNERS_MADE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    **{
        name: (
            lambda name=name: make_state_learner(name),
            lambda learner, name=name: learner.update(make_batch(), **STATE_LEARNERS[name][2]),
        )
        for name in STATE_LEARNERS
    },
    **{
        cls.__name__: (
            lambda cls=cls: cls.create(0, box(OBS), box(ACT), **TINY[cls]),
            lambda learner: learner.update(make_batch()),
        )
        for cls in TINY
    },
    **{
        f"pixels-{name}": (
            lambda name=name: pixel_learners.create(name),
            lambda learner, name=name: _pixel_update(name, learner),
        )
        for name in CASES
    },
}


@pytest.fixture(params=LEARNERS_MADE)
def made(request: pytest.FixtureRequest) -> tuple[Any, Callable[[Any], Any]]:
    make, update = LEARNERS_MADE[request.param]
    return make(), update


def check_equal(a: Any, b: Any) -> None:
    """The same bits at the same places, and the same structure with its static fields."""
    spec, other = tree_flatten(a)[1], tree_flatten(b)[1]
    assert spec == other and hash(spec) == hash(other)
    assert same(a, b)


def separate(learner: Any) -> Any:
    """An equal learner whose networks were built separately."""
    return pickle.loads(pickle.dumps(learner))


# --- learners -----------------------------------------------------------------------------


def test_every_learner_is_copied_here() -> None:
    classes = {type(make()) for make, _ in LEARNERS_MADE.values()}
    assert {cls.__name__ for cls in classes} == {*LEARNERS} == {*agents.__all__} - {"Agent"}


def test_a_copied_learner_updates_to_the_same_bits(made: Any) -> None:
    learner, update = made
    with disable_jit():
        after, info = update(learner)
        for way in WAYS.values():
            for original in (learner, after):
                check_equal(way(original), original)
            again, info_again = update(way(learner))
            check_equal(again, after)
            check_equal(info_again, info)


def test_learners_with_networks_built_separately_stack(made: Any) -> None:
    learner, _ = made
    other = separate(learner)
    stacked = tree_stack([learner, other])
    assert torch.equal(stacked.rng, torch.stack([learner.rng, learner.rng]))
    assert tree_flatten(stacked)[1] == tree_flatten(learner)[1]


@pytest.mark.parametrize("way", WAYS)
def test_a_copied_learner_uses_the_compiled_program(way: str) -> None:
    learner, batch = make_state_learner("bc"), make_batch()
    expected = learner.update(batch)
    donated, _ = separate(learner).update(batch, donate=True)
    programs = _update.cache_size(), _update.donating().cache_size()
    check_equal(WAYS[way](learner).update(batch), expected)
    unread, _ = learner.update(batch)  # no field of it was read yet
    check_equal(WAYS[way](unread), expected[0])
    check_equal(WAYS[way](donated), donated)
    after = separate(donated).update(batch)
    check_equal(WAYS[way](donated).update(batch, donate=True), after)
    assert programs == (_update.cache_size(), _update.donating().cache_size())


def test_a_copied_learner_acts_with_the_compiled_program() -> None:
    learner = make_state_learner("bc")
    actions, _ = learner.eval_actions(np.ones((4, OBS)))
    copied = separate(learner)
    assert copied.actor.apply_fn.__self__ is not learner.actor.apply_fn.__self__
    np.testing.assert_array_equal(copied.eval_actions(np.ones((4, OBS)))[0], actions)


def test_donating_a_deep_copy_leaves_the_original() -> None:
    learner, _ = make_state_learner("bc").update(make_batch(), donate=True)
    copies = [way(learner) for name, way in WAYS.items() if name != "copy"]
    before = tree_flatten(learner)[0][0].clone()
    for copied in copies:
        copied.update(make_batch(), donate=True)
    assert torch.equal(tree_flatten(learner)[0][0], before)
    learner.update(make_batch())


# --- what learners hold -------------------------------------------------------------------


PARAMS = {"Dense_0": {"kernel": torch.ones(2, 3), "bias": torch.zeros(3)}}
OPTIMISERS = {
    "adam": optim.adam(3e-4),
    "schedule": optim.adamw(optim.cosine_decay_schedule(3e-4, 10)),
    "mask function": optim.adamw(3e-4, weight_decay=0.1, mask=get_weight_decay_mask),
    "mask": optim.adamw(3e-4, mask={"Dense_0": {"kernel": True, "bias": False}}),
    "constant": optim.adam(optim.constant_schedule(0.1)),
}


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("way", WAYS)
def test_copied_optimisers_and_states_step_to_the_same_bits(way: str, name: str) -> None:
    tx, copy_of = OPTIMISERS[name], WAYS[way]
    state = tx.init(PARAMS)
    params, state = optim.step(tx, PARAMS, state, PARAMS)
    assert copy_of(tx) == tx and hash(copy_of(tx)) == hash(tx)
    check_equal(copy_of(state), state)
    expected = optim.step(tx, PARAMS, state, params)
    check_equal(optim.step(copy_of(tx), PARAMS, copy_of(state), params), expected)


@pytest.mark.parametrize("way", WAYS)
def test_copied_keys_draw_the_same_bits(way: str) -> None:
    for key in (random.PRNGKey(3), random.split(random.PRNGKey(3), 4)):
        copied = WAYS[way](key)
        assert torch.equal(copied, key) and copied.dtype == key.dtype
    key = random.PRNGKey(3)
    assert torch.equal(random.normal(WAYS[way](key), (5,)), random.normal(key, (5,)))


# --- worker processes ---------------------------------------------------------------------


class Actions(TorchDataset):
    """Items of a dataset, and the actions that a learner chooses for them."""

    def __init__(self, learner: Any, data: Dataset) -> None:
        self.learner, self.data = learner, data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.data.sample(1, indx=np.array([index]))
        with disable_jit():
            actions, _ = self.learner.eval_actions(item["observations"])
        return {**{name: value[0] for name, value in item.items()}, "chosen": actions[0]}


def test_a_worker_of_a_loader_chooses_the_actions_of_the_process_itself() -> None:
    data = Dataset({name: value.numpy() for name, value in make_batch(rows=6).items()})
    items = Actions(make_state_learner("bc"), data)
    loader = DataLoader(items, batch_size=3, num_workers=1, multiprocessing_context="spawn")
    batches = list(loader)
    alone = list(DataLoader(items, batch_size=3))
    assert len(batches) == 2 and batches[0]["chosen"].shape == (3, ACT)
    for got, expected in zip(batches, alone, strict=True):
        check_equal(got, expected)
