"""IQL, BC, SAC (REDQ, DroQ) and TD3: common behaviour, then the behaviour of each learner.

The parity suite compares their numbers with upstream's. This file tests the contract and the
properties that such a comparison does not show.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny_learners import ACT, OBS, STATE_LEARNERS, box, make_batch, make_state_learner, same

from idql_func import (
    disable_jit,
    enable_x64,
    jit,
    random,
    tree_leaves,
    tree_map,
    tree_stack,
    tree_unstack,
    vmap,
)
from idql_func.agents import (
    BCLearner,
    FQLLearner,
    IFQLLearner,
    IQLLearner,
    ReBRACLearner,
    SACLearner,
    TD3Learner,
)
from idql_func.agents.joint import JointAgent
from idql_func.agents.sac import mini_batches
from idql_func.types import InputError


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    with disable_jit():
        yield


@pytest.fixture(params=list(STATE_LEARNERS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def update(name: str, learner: Any, batch: Any) -> Any:
    return learner.update(batch, **STATE_LEARNERS[name][2])


# --- the contract ---------------------------------------------------------------------------

UPSTREAM_KEYWORDS: dict[Any, dict[str, Any]] = {
    BCLearner: dict(
        actor_lr=1e-3, hidden_dims=(256, 256), use_layer_norm=False, dropout_rate=None,
        weight_decay=None, entropy_bonus=None,
    ),
    IQLLearner: dict(
        actor_lr=1e-3, critic_lr=3e-4, value_lr=3e-4, hidden_dims=(256, 256), discount=0.99,
        tau=0.005, expectile=0.8, temperature=0.1, num_qs=2,
    ),
    SACLearner: dict(
        actor_lr=3e-4, critic_lr=3e-4, temp_lr=3e-4, hidden_dims=(256, 256), discount=0.99,
        tau=0.005, num_qs=2, num_min_qs=None, critic_dropout_rate=None, critic_layer_norm=False,
        target_entropy=None, init_temperature=1.0, backup_entropy=True,
    ),
    TD3Learner: dict(
        actor_lr=3e-4, critic_lr=3e-4, hidden_dims=(256, 256), discount=0.99, tau=0.005, num_qs=2,
        num_min_qs=None, critic_dropout_rate=None, critic_layer_norm=False, exploration_noise=0.1,
        target_policy_noise=0.2, target_policy_noise_clip=0.5, actor_delay=2,
    ),
    # get_config() of seohongpark/fql without agent_name, batch_size, encoder and the sizes
    FQLLearner: dict(
        lr=3e-4, actor_hidden_dims=(512,) * 4, value_hidden_dims=(512,) * 4, layer_norm=True,
        actor_layer_norm=False, discount=0.99, tau=0.005, q_agg="mean", alpha=10.0, flow_steps=10,
        normalize_q_loss=False,
    ),
    IFQLLearner: dict(
        lr=3e-4, actor_hidden_dims=(512,) * 4, value_hidden_dims=(512,) * 4, layer_norm=True,
        actor_layer_norm=False, discount=0.99, tau=0.005, expectile=0.9, num_samples=32,
        flow_steps=10,
    ),
    ReBRACLearner: dict(
        lr=3e-4, actor_hidden_dims=(512,) * 4, value_hidden_dims=(512,) * 4, layer_norm=True,
        actor_layer_norm=False, discount=0.99, tau=0.005, tanh_squash=True, actor_fc_scale=0.01,
        alpha_actor=0.0, alpha_critic=0.0, actor_freq=2, actor_noise=0.2, actor_noise_clip=0.5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("cls", UPSTREAM_KEYWORDS, ids=lambda cls: cls.__name__)
def test_keywords_and_defaults_equal_upstream(cls: Any) -> None:
    parameters = inspect.signature(cls.create).parameters
    keywords = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
    assert keywords == UPSTREAM_KEYWORDS[cls]
    with pytest.raises(TypeError, match="unknown"):
        cls.create(0, box(OBS), box(ACT), unknown=1)


def test_update_returns_a_changed_copy(name: str) -> None:
    learner = make_state_learner(name)
    before = tree_map(torch.clone, tree_map(torch.as_tensor, learner))
    updated, info = update(name, learner, make_batch())
    assert same(learner, before)
    assert all(v.ndim == 0 and v.isfinite() for v in info.values())
    states = ("actor", "critic", "value", "temp", "network")
    trained = [s for s in states if hasattr(learner, s)]
    # TD3 updates its actor only every second time
    delayed = name == "td3"
    for state in trained[1:] if delayed else trained:
        assert not same(getattr(updated, state).params, getattr(learner, state).params)
    if delayed:
        assert same(updated.actor, learner.actor)


def test_same_seed_gives_the_same_bits(name: str) -> None:
    results = [update(name, make_state_learner(name, 3), make_batch(1)) for _ in range(2)]
    assert same(*results)
    other, _ = update(name, make_state_learner(name, 4), make_batch(1))
    assert not same(other, results[0][0])


@pytest.mark.parametrize("method", ["eval_actions", "sample_actions"])
def test_single_observation_gives_the_action_of_a_batch_of_one(name: str, method: str) -> None:
    learner = make_state_learner(name)
    observations = make_batch()["observations"].numpy()
    one, after_one = getattr(learner, method)(observations[0])
    many, after = getattr(learner, method)(observations)
    assert one.shape == (ACT,) and many.shape == (8, ACT) and one.dtype == np.float32
    moved = not torch.equal(after.rng, learner.rng)
    # IQL's and BC's modes and draws are not squashed (upstream's environments clip)
    # the learners with one network for all draw noise for every action
    assert moved == (method == "sample_actions" or isinstance(learner, JointAgent))
    assert torch.equal(after.rng, after_one.rng)
    single, _ = getattr(learner, method)(observations[:1])
    np.testing.assert_allclose(single[0], one, rtol=1e-5, atol=1e-6)


def test_action_of_size_one_keeps_its_axis(name: str) -> None:
    cls, settings, _ = STATE_LEARNERS[name]
    learner = cls.create(0, box(OBS), box(1), **settings)
    assert learner.eval_actions(np.zeros(OBS))[0].shape == (1,)
    assert learner.sample_actions(np.zeros((2, OBS)))[0].shape == (2, 1)


def test_vmapped_learners_equal_single_ones(name: str) -> None:
    learners = [make_state_learner(name, seed) for seed in range(3)]
    batches = [make_batch(seed) for seed in range(3)]
    cls, keywords = type(learners[0]), STATE_LEARNERS[name][2]
    step = jit(vmap(lambda learner, batch: cls.update(learner, batch, **keywords)))
    stacked = step(tree_stack(learners), tree_stack(batches))
    for mapped, learner, batch in zip(tree_unstack(stacked), learners, batches, strict=True):
        expected = update(name, learner, batch)
        for a, b in zip(tree_leaves(mapped), tree_leaves(expected), strict=True):
            torch.testing.assert_close(a, torch.as_tensor(b).to(a.dtype), rtol=1e-4, atol=1e-6)


def test_float64_learner_stays_in_float64(name: str) -> None:
    with enable_x64():
        learner = tree_map(
            lambda x: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x,
            make_state_learner(name),
        )
        updated, info = update(name, learner, make_batch(dtype=torch.float64))
    assert all(v.dtype == torch.float64 for v in info.values())
    floats = [x for x in tree_leaves(updated) if isinstance(x, torch.Tensor)]
    assert {x.dtype for x in floats if x.is_floating_point()} == {torch.float64}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observations": torch.ones(8, OBS + 1)}, r"'observations'\] must have shape .*\(8, 4\)"),
        ({"actions": torch.ones(7, ACT)}, r"'actions'\] must have shape \(8, 2\).*\(7, 2\)"),
        ({"observations": torch.ones(8, OBS).double()}, "must be torch.float32 as the parameters"),
    ],
    ids=["size", "rows", "dtype"],
)
def test_wrong_batches_raise(name: str, change: dict[str, Any], words: str) -> None:
    learner = make_state_learner(name)
    with pytest.raises(InputError, match=rf"^{type(learner).__name__}: .*{words}"):
        update(name, learner, {**make_batch(), **change})
    missing = make_batch()
    del missing["actions"]
    with pytest.raises(InputError, match="the batch has no 'actions'; it has dones"):
        update(name, learner, missing)
    with pytest.raises(InputError, match=r"observations must have shape \(3,\) or \(batch, 3\)"):
        learner.sample_actions(np.zeros(OBS + 2))


@pytest.mark.parametrize(
    ("cls", "keywords", "words"),
    [
        (BCLearner, {"dropout_rate": 1.0}, r"dropout_rate must lie in \[0, 1\), got 1.0"),
        (BCLearner, {"weight_decay": -1.0}, "weight_decay must be at least 0.0, got -1.0"),
        (BCLearner, {"entropy_bonus": "much"}, "entropy_bonus must be a finite number"),
        (IQLLearner, {"expectile": 1.0}, "expectile must be between 0 and 1, got 1.0"),
        (IQLLearner, {"num_qs": 0}, "num_qs must be an integer of at least 1, got 0"),
        (FQLLearner, {"q_agg": "max"}, "q_agg must be one of mean, min, got 'max'"),
        (FQLLearner, {"flow_steps": 0}, "flow_steps must be an integer of at least 1, got 0"),
        (FQLLearner, {"actor_hidden_dims": ()}, "actor_hidden_dims must name at least one layer"),
        (FQLLearner, {"lr": -1.0}, "lr must be above 0, got -1.0"),
        (IFQLLearner, {"expectile": 0.0}, "expectile must be between 0 and 1, got 0.0"),
        (IFQLLearner, {"num_samples": 0}, "num_samples must be an integer of at least 1, got 0"),
        (ReBRACLearner, {"alpha_critic": -1.0}, "alpha_critic must be at least 0.0, got -1.0"),
        (ReBRACLearner, {"actor_freq": 1.5}, "actor_freq must be an integer of at least 1"),
        (SACLearner, {"num_min_qs": 3}, "num_min_qs must be at most num_qs=2, got 3"),
        (SACLearner, {"init_temperature": 0.0}, "init_temperature must be above 0, got 0.0"),
        (SACLearner, {"discount": 1.1}, r"discount must lie in \[0, 1\], got 1.1"),
        (SACLearner, {"temp_lr": 0}, "temp_lr must be above 0, got 0"),
        (TD3Learner, {"actor_delay": 0}, "actor_delay must be an integer of at least 1, got 0"),
        (TD3Learner, {"exploration_noise": -0.1}, "exploration_noise must be at least 0.0"),
        (TD3Learner, {"hidden_dims": ()}, "hidden_dims must name at least one layer"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_out_of_range_raise(cls: Any, keywords: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        cls.create(0, box(OBS), box(ACT), **keywords)


def test_spaces_must_be_boxes_of_one_axis() -> None:
    for cls in UPSTREAM_KEYWORDS:
        with pytest.raises(InputError, match="action_space must be a Box with one axis"):
            cls.create(0, box(OBS), gym.spaces.Discrete(3))


# --- update-to-data ratios ------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0, 3, 2.0, None])
@pytest.mark.parametrize("which", ["sac", "td3"])
def test_utd_ratio_must_divide_the_batch(which: str, ratio: Any) -> None:
    with pytest.raises(InputError, match=r"utd_ratio must be an integer .* divides the 8 rows"):
        make_state_learner(which).update(make_batch(), ratio)


def test_mini_batches_cut_nested_trees_in_order() -> None:
    batch = {"observations": {"pixels": torch.arange(6)}, "rewards": torch.arange(6)}
    parts = mini_batches(batch, 3)
    assert parts["observations"]["pixels"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert parts["rewards"].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_critic_updates_per_mini_batch_and_actor_once() -> None:
    """Quirk A5: with utd_ratio=4 the critic steps four times, actor and temperature once."""
    learner, _ = make_state_learner("sac").update(make_batch(), 4)
    assert learner.critic.step.item() == 4
    assert learner.actor.step.item() == learner.temp.step.item() == 1


# --- behaviour of each learner --------------------------------------------------------------


def test_bc_fits_the_data_with_a_constant_std() -> None:
    """Quirk U22: the standard deviation gets no gradient, with or without weight decay."""
    learner = make_state_learner("bc-full", actor_lr=1e-2)
    batch = make_batch()
    losses = []
    for _ in range(60):
        learner, info = learner.update(batch)
        losses.append(info["nll"].item())
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(learner.actor.params["OutpuLogStd"], torch.zeros(ACT))


def test_bc_decays_kernels_but_not_biases() -> None:
    """On a batch that is already fitted, only decayed parameters change."""
    decayed = make_state_learner("bc-full", weight_decay=10.0, actor_lr=1e-2, dropout_rate=None)
    kept = make_state_learner("bc-full", weight_decay=0.0, actor_lr=1e-2, dropout_rate=None)
    for_decay, _ = decayed.update(make_batch())
    without, _ = kept.update(make_batch())
    a, b = for_decay.actor.params["OutputDenseMean"], without.actor.params["OutputDenseMean"]
    assert torch.equal(a["bias"], b["bias"]) and not torch.equal(a["kernel"], b["kernel"])


def test_bc_reports_held_out_losses_without_dropout() -> None:
    learner = make_state_learner("bc-full")
    again, info = learner.eval_loss(make_batch())
    assert again is learner and set(info) == {"nll"}
    dist = learner.actor.apply_fn(learner.actor.params, make_batch()["observations"])
    expected = -dist.log_prob(make_batch()["actions"]).mean()
    assert torch.equal(info["nll"], expected)


def test_iql_info_holds_each_critic_and_the_mean_advantage() -> None:
    """Quirks U20 and U21."""
    _, info = make_state_learner("iql").update(make_batch())
    assert set(info) == {
        "actor_loss", "adv", "critic_loss", "q1", "q2", "q3", "v", "value_loss"
    }  # fmt: skip
    _, held_out = make_state_learner("iql").eval_loss(make_batch())
    assert set(held_out) == set(info)


def test_iql_sums_its_critics() -> None:
    """Quirk U4: with each critic twice, the loss is twice as large."""
    learner = make_state_learner("iql", num_qs=1)
    doubled = learner.replace(
        critic=learner.critic.replace(
            params=tree_map(lambda x: torch.cat([x, x]), learner.critic.params)
        )
    )
    one, two = (x.eval_loss(make_batch())[1]["critic_loss"] for x in (learner, doubled))
    torch.testing.assert_close(two, 2 * one)


def test_iql_updates_the_actor_with_the_new_value() -> None:
    """Quirk U2: the order is V, actor, Q."""
    learner, batch = make_state_learner("iql"), make_batch()
    stepped, _ = learner.update_v(batch)
    expected, info = stepped.update_actor(batch)
    whole, whole_info = learner.update(batch)
    assert same(whole.actor, expected.actor) and same(whole_info["adv"], info["adv"])


def test_sac_starts_from_its_target_entropy_and_temperature() -> None:
    """Quirk A4, and the initial temperature."""
    learner = make_state_learner("sac", init_temperature=0.25)
    assert learner.target_entropy == -ACT / 2
    assert learner.temp.params["log_temp"].item() == pytest.approx(math.log(0.25), rel=1e-6)
    _, info = learner.update(make_batch())
    assert info["temperature"].item() == pytest.approx(0.25, rel=1e-6)
    assert make_state_learner("sac", target_entropy=-7.0).target_entropy == -7.0


def test_sac_backup_entropy_changes_only_the_target() -> None:
    batch = make_batch()
    with_entropy, a = make_state_learner("sac").update_critic(batch)
    without, b = make_state_learner("sac", backup_entropy=False).update_critic(batch)
    assert torch.equal(with_entropy.rng, without.rng) and torch.equal(a["q"], b["q"])
    assert not torch.equal(a["critic_loss"], b["critic_loss"])


def test_redq_draws_a_new_subset_each_time() -> None:
    """Targets from subsets differ with the key; the whole ensemble's does not depend on it."""
    learner, batch = make_state_learner("redq"), make_batch()
    losses = {
        learner.replace(rng=random.PRNGKey(i)).update_critic(batch)[1]["critic_loss"].item()
        for i in range(6)
    }
    assert len(losses) == 6
    rows = tree_leaves(learner.target_critic.params)[0].shape[0]
    assert rows == 4  # the target network keeps the whole ensemble


def test_td3_updates_its_actor_after_the_delay() -> None:
    """Quirk A2: the critic's target moves every time, actor and target only when due."""
    learner, batch = make_state_learner("td3", actor_delay=3), make_batch()
    for step in range(1, 7):
        after, info = learner.update(batch)
        due = step % 3 == 0
        assert same(after.actor, learner.actor) != due
        assert same(after.target_actor, learner.target_actor) != due
        assert (info["actor_loss"].item() != 0) == due
        assert not same(after.target_critic.params, learner.target_critic.params)
        learner = after
    assert learner.actor.step.item() == 2


def test_td3_counts_updates_not_critic_steps() -> None:
    learner, batch = make_state_learner("td3"), make_batch()
    steps = []
    for _ in range(4):
        learner, _ = learner.update(batch, 4)
        steps.append(learner.actor.step.item())
    assert steps == [0, 1, 1, 2]


def test_td3_delays_each_actor_of_a_stack_by_its_own_step() -> None:
    learners = [make_state_learner("td3", seed) for seed in range(2)]
    batch = make_batch()
    learners[1], _ = learners[1].update(batch)  # an actor update is due for only one of them
    mapped, info = vmap(TD3Learner.update, in_axes=(0, None))(tree_stack(learners), batch)
    assert mapped.actor.step.tolist() == [0, 1]
    assert info["actor_loss"][0].item() == 0 and info["actor_loss"][1].item() != 0
    expected, _ = learners[1].update(batch)
    torch.testing.assert_close(
        tree_unstack(mapped)[1].actor.params, expected.actor.params, rtol=1e-4, atol=1e-6
    )


def test_td3_exploration_noise_stays_in_the_bounds() -> None:
    learner = make_state_learner("td3", exploration_noise=2.0)
    observations = make_batch()["observations"].numpy()
    noisy, after = learner.sample_actions(observations)
    assert np.abs(noisy).max() == 1.0 and not torch.equal(after.rng, learner.rng)
    quiet, _ = learner.replace(exploration_noise=0.0).sample_actions(observations)
    np.testing.assert_array_equal(quiet, learner.eval_actions(observations)[0])
