"""Pixel BC: equality with upstream, both distributions, transforms, bad input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pixel_cases import CASES, SMALL, make_observations
from pixel_learners import ACTIONS, batch_of, check_case, create, space
from tiny_learners import same

from idql_func import disable_jit, optim, tree_leaves, tree_map, tree_stack, tree_unstack, vmap
from idql_func.agents import PixelBCLearner
from idql_func.transforms import compiler_problem
from idql_func.types import InputError

BC = [name for name, case in CASES.items() if case[0] == "PixelBCLearner"]


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    with disable_jit():
        yield


@pytest.mark.parametrize("name", BC)
def test_five_updates_equal_upstream(name: str) -> None:
    check_case(name)


def test_gradients_reach_the_encoder() -> None:
    learner = create("bc")
    new, info = learner.update(batch_of("bc"))
    assert not same(new.actor.params["encoder_0"], learner.actor.params["encoder_0"])
    assert set(info) == {"nll", "entropy"} and int(new.actor.step) == 1


def test_rewards_and_next_observations_are_not_needed() -> None:
    learner, batch = create("bc"), batch_of("bc")
    few = {name: batch[name] for name in ("observations", "actions")}
    assert same(learner.update(few), learner.update(batch))


def test_normal_policy_without_tanh_trains() -> None:
    """Upstream looks up ``Normal`` in its globals but does not import it."""
    learner = create("bc", distr_name="Normal")
    batch = batch_of("bc")
    params = learner.actor.params
    dist = learner.actor.apply_fn(params, batch["observations"])
    assert not dist.tanh and set(params["Normal_0"]) == {
        "MLP_0", "OutputDenseMean", "OutputDenseLogStd"
    }  # fmt: skip
    _, info = learner.update(batch)
    assert bool(info["nll"].isfinite())
    np.testing.assert_allclose(
        learner.eval_actions(make_observations(CASES["bc"][1], 0, (3,)))[0].shape, (3, 2)
    )


def test_learning_rate_may_be_a_schedule() -> None:
    learner = create("bc", actor_lr=optim.cosine_decay_schedule(1e-3, 2))
    for step in range(3):
        learner, _ = learner.update(batch_of("bc", step))
    after, _ = learner.update(batch_of("bc", 3))
    assert same(after.actor.params, learner.actor.params)  # the rate has reached 0


def test_eval_losses_use_no_crops_and_no_dropout() -> None:
    learner, batch = create("bc"), batch_of("bc")
    unchanged, info = learner.eval_loss(batch)
    dist = learner.actor.apply_fn(learner.actor.params, batch["observations"])
    torch.testing.assert_close(info["nll"], -dist.log_prob(batch["actions"]).mean())
    assert same(unchanged, learner)


def test_vmapped_learners_equal_single_ones() -> None:
    learners = [create("bc", seed, entropy_bonus=None) for seed in range(2)]
    batches = [batch_of("bc", seed) for seed in range(2)]
    mapped = vmap(PixelBCLearner.update)(tree_stack(learners), tree_stack(batches))
    for actual, learner, batch in zip(tree_unstack(mapped), learners, batches, strict=True):
        for x, y in zip(tree_leaves(actual), tree_leaves(learner.update(batch)), strict=True):
            torch.testing.assert_close(x, torch.as_tensor(y), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(
    compiler_problem(torch.device("cpu")) is not None, reason="needs a C++ compiler"
)
def test_compiled_equals_eager() -> None:
    learner, batch = create("bc-cameras"), batch_of("bc-cameras")
    expected = learner.update(batch)
    with disable_jit(False):
        actual = learner.update(batch)
    actual, expected = (tree_map(torch.as_tensor, tree) for tree in (actual, expected))
    for x, y in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"distr_name": "Beta"}, "distr_name must be one of TanhNormal, Normal, got 'Beta'"),
        ({"dropout_rate": 1.0}, r"dropout_rate must lie in \[0, 1\)"),
        ({"actor_lr": 0.0}, "actor_lr must be above 0"),
        ({"entropy_bonus": "much"}, "entropy_bonus must be a finite number"),
        ({"encoder": "vit"}, "encoder must be one of d4pg, resnet"),
        ({"pixel_keys": ()}, "pixel_keys must name at least one camera"),
    ],
)
def test_bad_settings_raise(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PixelBCLearner.create(0, space(CASES["bc"][1]), ACTIONS, **{**SMALL, **keywords})


def test_bad_batches_raise() -> None:
    learner, batch = create("bc-cameras"), batch_of("bc-cameras")
    del batch["observations"]["near"]
    with pytest.raises(InputError, match="must have an entry 'near'; it has far, pixels, state"):
        learner.update(batch)
    with pytest.raises(InputError, match="the batch has no 'actions'"):
        learner.update({"observations": batch_of("bc-cameras")["observations"]})
