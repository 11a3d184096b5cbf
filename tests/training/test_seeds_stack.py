"""Stacked learners: each update equals the single learner's, compiled and in double precision."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from idql_func import agents, disable_jit, enable_x64, jit, random, tree_stack, vmap
from idql_func.optim import cosine_decay_schedule
from idql_func.training.seeds.stack import member_of, stack_members, update_member
from idql_func.tree import tree_flatten, tree_leaves, tree_map
from idql_func.types import InputError

OBS, ACT = gym.spaces.Box(-1, 1, (4,)), gym.spaces.Box(-1, 1, (2,))
SIZES = {
    "observations": (4,),
    "actions": (2,),
    "rewards": (),
    "masks": (),
    "next_observations": (4,),
}

# settings that all members share, and settings that differ
LEARNERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "GeneralDDPMIQLLearner": (
        dict(actor_hidden_dims=(8,), critic_hidden_dims=(8,), time_dim=4, T=2, decay_steps=9),
        [dict(actor_lr=1e-2, critic_hyperparam=0.6), dict(actor_lr=1e-3, critic_lr=1e-2), {}],
    ),
    "IQLLearner": (
        dict(hidden_dims=(8,)),
        [dict(expectile=0.9, value_lr=1e-2), dict(temperature=3.0, discount=0.9), dict(tau=0.5)],
    ),
    "BCLearner": (
        dict(hidden_dims=(8,), dropout_rate=0.3, entropy_bonus=0.1, weight_decay=0.01),
        [dict(actor_lr=1e-2), dict(actor_lr=1e-3), dict(entropy_bonus=0.5)],
    ),
}


def create(name: str) -> list[Any]:
    shared, own = LEARNERS[name]
    cls = getattr(agents, name)
    return [cls.create(seed, OBS, ACT, **{**shared, **k}) for seed, k in enumerate(own)]


def as_double(leaf: Any) -> Any:
    floating = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    return leaf.double() if floating else leaf


def batch_of(seed: int) -> dict[str, torch.Tensor]:
    keys = random.split(random.PRNGKey(seed), len(SIZES))
    return {
        name: random.uniform(key, (8, *size), minval=-1.0, maxval=1.0)
        for key, (name, size) in zip(keys, SIZES.items(), strict=True)
    }


def largest_error(left: Any, right: Any) -> float:
    """The largest relative distance between leaves."""
    distances = [
        float((a - b).norm() / b.norm().clamp(min=1e-12))
        for a, b in zip(tree_leaves(left), tree_leaves(right), strict=True)
        if isinstance(a, torch.Tensor) and a.is_floating_point()
    ]
    return max(distances)


@pytest.mark.parametrize("name", LEARNERS)
def test_members_equal_single_learners_in_double_precision(name: str) -> None:
    """Double precision is used so that rounding cannot hide a difference in the computation."""
    with enable_x64(), disable_jit():
        members = [tree_map(as_double, member) for member in create(name)]
        stacked, rates = stack_members(members)
        single = list(members)
        for step in range(10):
            batches = [batch_of(100 * k + step) for k in range(len(members))]
            stacked, info = vmap(update_member)(stacked, rates, tree_stack(batches))
            for k, batch in enumerate(batches):
                single[k], own = single[k].update(batch)
                for key, value in own.items():
                    assert info[key][k].item() == pytest.approx(value.item(), rel=1e-10), key
        for k, learner in enumerate(single):
            again = member_of(stacked, k, members[k])
            assert largest_error(again, learner) < 1e-10
            assert torch.equal(again.rng, learner.rng)
            assert tree_flatten(again)[1] == tree_flatten(learner)[1]


def test_compiled_members_equal_single_learners() -> None:
    members = create("BCLearner")
    stacked, rates = stack_members(members)
    update, single = jit(vmap(update_member), donate_argnums=0), list(members)
    for step in range(5):
        batches = [batch_of(100 * k + step) for k in range(len(members))]
        with disable_jit(False):
            stacked, info = update(stacked, rates, tree_stack(batches))
        for k, batch in enumerate(batches):
            single[k], own = single[k].update(batch)
            np.testing.assert_allclose(info["nll"][k].item(), own["nll"].item(), rtol=1e-5)
    assert update.cache_size() == 1
    for k, learner in enumerate(single):
        assert largest_error(member_of(stacked, k, members[k]), learner) < 1e-5


def test_only_differing_rates_are_arguments() -> None:
    stacked, rates = stack_members(create("IQLLearner"))
    assert list(rates) == ["value"]
    assert rates["value"].tolist() == pytest.approx([1e-2, 3e-4, 3e-4])
    assert stacked.expectile.tolist() == pytest.approx([0.9, 0.8, 0.8])
    assert stacked.actor.tx == create("IQLLearner")[0].actor.tx


def test_learners_of_different_structure_raise_with_the_difference() -> None:
    make = agents.BCLearner.create
    first = make(0, OBS, ACT, hidden_dims=(8,))
    others = {
        "actor": make(0, OBS, ACT, hidden_dims=(8, 8)),
        "entropy_bonus": make(0, OBS, ACT, hidden_dims=(8,), entropy_bonus=0.1),
        "act_dim": make(0, OBS, OBS, hidden_dims=(8,)),
    }
    for name, other in others.items():
        with pytest.raises(InputError, match=name):
            stack_members([first, other])
    decays = [
        make(0, OBS, ACT, hidden_dims=(8,), actor_lr=cosine_decay_schedule(1e-3, n)) for n in (5, 9)
    ]
    with pytest.raises(InputError, match="differ in actor"):
        stack_members(decays)
