"""Both IDQL learners, eagerly: creation, the networks that each step changes, action choice."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_learners import ACT, OBS, SMALL, TINY, box, make_batch, same
from torch import Tensor

from idql_func import (
    disable_jit,
    enable_x64,
    losses,
    optim,
    random,
    tree_leaves,
    tree_map,
    tree_stack,
    tree_unstack,
    vmap,
)
from idql_func.agents import DDPMIQLLearner, GeneralDDPMIQLLearner, ddpm_iql
from idql_func.agents import candidates as acting
from idql_func.tree import tree_paths

NETWORKS = ("score_model", "target_score_model", "critic", "target_critic", "value")


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    with disable_jit():
        yield


def copy_of(tree: Any) -> Any:
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, tree)


def changed(before: Any, after: Any) -> set[str]:
    """The fields that differ in any leaf."""
    return {
        name
        for name in before._child_names
        if not same(getattr(before, name), getattr(after, name))
    }


# --- create: the contract -----------------------------------------------------------------

# copied from upstream's `create` at 7582571: ddpm_iql_simple and ddpm_iql
SIMPLE_DEFAULTS = {
    "actor_lr": 3e-4,
    "critic_lr": 3e-4,
    "value_lr": 3e-4,
    "critic_hidden_dims": (256, 256),
    "discount": 0.99,
    "tau": 0.005,
    "critic_hyperparam": 0.7,
    "ddpm_temperature": 1.0,
    "num_qs": 2,
    "actor_num_blocks": 3,
    "actor_tau": 0.001,
    "actor_dropout_rate": None,
    "actor_layer_norm": True,
    "value_layer_norm": True,
    "policy_temperature": 3.0,
    "T": 5,
    "time_dim": 128,
    "N": 64,
    "M": 0,
    "clip_sampler": True,
    "beta_schedule": "vp",
    "decay_steps": 3_000_000,
}
GENERAL_DEFAULTS = {
    "actor_architecture": "mlp",
    "actor_lr": 3e-4,
    "critic_lr": 3e-4,
    "value_lr": 3e-4,
    "critic_hidden_dims": (256, 256),
    "actor_hidden_dims": (256, 256, 256),
    "discount": 0.99,
    "tau": 0.005,
    "critic_hyperparam": 0.7,
    "ddpm_temperature": 1.0,
    "num_qs": 2,
    "actor_num_blocks": 2,
    "actor_weight_decay": None,
    "actor_tau": 0.001,
    "actor_dropout_rate": None,
    "actor_layer_norm": False,
    "policy_temperature": 3.0,
    "T": 5,
    "time_dim": 64,
    "N": 64,
    "M": 0,
    "clip_sampler": True,
    "actor_objective": "bc",
    "critic_objective": "expectile",
    "beta_schedule": "vp",
    "decay_steps": 2_000_000,
}


@pytest.mark.parametrize(
    ("learner", "defaults"),
    [
        (DDPMIQLLearner, SIMPLE_DEFAULTS),
        # upstream's constant of quirk U9 is an argument here
        (GeneralDDPMIQLLearner, {**GENERAL_DEFAULTS, "hard_adv_threshold": -0.01}),
    ],
)
def test_keywords_and_defaults_equal_upstream(learner: Any, defaults: dict[str, Any]) -> None:
    parameters = list(inspect.signature(learner.create).parameters.values())
    assert [p.name for p in parameters[:3]] == ["seed", "observation_space", "action_space"]
    assert {p.name: p.default for p in parameters[3:]} == defaults


def test_default_sizes_equal_upstream() -> None:
    simple = DDPMIQLLearner.create(0, box(11), box(3))
    assert simple.score_model.params["FourierFeatures_0"]["kernel"].shape == (64, 1)
    assert simple.score_model.params["MLP_0"]["Dense_1"]["kernel"].shape == (256, 256)
    resnet = simple.score_model.params["MLPResNet_0"]
    assert sorted(resnet) == ["Dense_0", "Dense_1", *(f"MLPResNetBlock_{i}" for i in range(3))]
    assert resnet["Dense_0"]["kernel"].shape == (3 + 11 + 256, 256)
    assert "LayerNorm_0" in resnet["MLPResNetBlock_0"]
    assert "LayerNorm_0" in simple.value.params["MLP_0"]
    general = GeneralDDPMIQLLearner.create(0, box(11), box(3))
    assert general.score_model.params["FourierFeatures_0"]["kernel"].shape == (32, 1)
    assert general.score_model.params["MLP_1"]["Dense_0"]["kernel"].shape == (3 + 11 + 128, 256)
    assert general.score_model.params["MLP_1"]["Dense_3"]["kernel"].shape == (256, 3)
    assert "LayerNorm_0" not in general.value.params["MLP_0"]
    for learner in (simple, general):
        critic = learner.critic.params["VmapStateActionValue_0"]
        assert critic["MLP_0"]["Dense_0"]["kernel"].shape == (2, 14, 256)
        assert (learner.N, learner.T, learner.M, learner.act_dim) == (64, 5, 0, 3)


def test_optimisers_equal_upstream(create: Callable[..., Any]) -> None:
    learner = create()
    steps = SIMPLE_DEFAULTS if isinstance(learner, DDPMIQLLearner) else GENERAL_DEFAULTS
    rate = optim.cosine_decay_schedule(3e-4, steps["decay_steps"])
    assert learner.score_model.tx == optim.adamw(rate, weight_decay=1e-4)  # quirk U12
    assert learner.critic.tx == learner.value.tx == optim.adam(3e-4)
    assert learner.target_score_model.tx is None and learner.target_critic.tx is None
    assert create(decay_steps=None).score_model.tx == optim.adamw(3e-4)
    schedule = optim.constant_schedule(1e-3)
    assert create(decay_steps=None, actor_lr=schedule).score_model.tx == optim.adamw(schedule)


def test_weight_decay_uses_upstreams_mask() -> None:
    """Upstream takes ``actor_weight_decay`` and drops it (quirk U13)."""
    tiny = TINY[GeneralDDPMIQLLearner]
    decayed, plain = (
        GeneralDDPMIQLLearner.create(
            0, box(OBS), box(ACT), **tiny, decay_steps=None, actor_lr=0.1, actor_weight_decay=decay
        ).actor_update(make_batch())[0]
        for decay in (0.5, 0.0)
    )
    start = GeneralDDPMIQLLearner.create(0, box(OBS), box(ACT), **tiny).score_model.params
    a, b = decayed.score_model.params["MLP_1"], plain.score_model.params["MLP_1"]
    expected = -0.1 * 0.5 * start["MLP_1"]["Dense_0"]["kernel"]
    difference = a["Dense_0"]["kernel"] - b["Dense_0"]["kernel"]
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(a["Dense_0"]["bias"], b["Dense_0"]["bias"])


def test_seed_determines_the_learner(
    create: Callable[..., Any],
) -> None:
    assert same(create(3), create(3))
    assert not same(create(3).critic.params, create(4).critic.params)
    learner = create(3)
    assert torch.equal(learner.rng, random.split(random.PRNGKey(3), 4)[0])
    assert same(learner.score_model.params, learner.target_score_model.params)
    assert same(learner.critic.params, learner.target_critic.params)


def test_alpha_hats_are_the_products_of_the_alphas(create: Callable[..., Any]) -> None:
    learner = create(T=5)
    assert torch.equal(learner.alphas, 1 - learner.betas)
    torch.testing.assert_close(learner.alpha_hats, torch.cumprod(1 - learner.betas, 0))
    assert create(T=5, beta_schedule="cosine").betas[-1].item() == pytest.approx(0.999)


def test_linear_schedule_of_few_steps_warns(create: Callable[..., Any]) -> None:
    with pytest.warns(UserWarning, match=r"alpha_hat 0\.951.*quirk N10"):
        create(T=5, beta_schedule="linear")


def test_learner_is_a_pytree_of_tensors_and_numbers(create: Callable[..., Any]) -> None:
    learner = create()
    paths = tree_paths(learner)
    for name in ("discount", "tau", "actor_tau", "critic_hyperparam", "N", "ddpm_temperature"):
        assert name in paths
    assert "value/params/OutputVDense/kernel" in paths
    assert not {"T", "M", "act_dim", "clip_sampler"} & set(paths)
    assert all(isinstance(leaf, Tensor | float | int) for leaf in tree_leaves(learner))
    assert same(tree_map(lambda x: x, learner), learner)


# --- updates ----------------------------------------------------------------------------------


def test_update_does_not_change_its_argument(create: Callable[..., Any]) -> None:
    learner, batch = create(), make_batch()
    before, batch_before = copy_of(learner), copy_of(batch)
    for method in ("update", "actor_update", "critic_update", "eval_loss"):
        getattr(learner, method)(batch)
    learner.eval_actions(np.zeros(OBS))
    learner.sample_implicit_policy(np.zeros(OBS))
    assert same(learner, before) and same(batch, batch_before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        learner.rng = None


def test_each_update_changes_only_its_networks(create: Callable[..., Any]) -> None:
    learner, batch = create(), make_batch()
    actor, actor_info = learner.actor_update(batch)
    critic, critic_info = learner.critic_update(batch)
    both, info = learner.update(batch)
    assert changed(learner, actor) == {"score_model", "target_score_model", "rng"}
    assert changed(learner, critic) == {"critic", "target_critic", "value"}
    assert changed(learner, both) == {*NETWORKS, "rng"}
    assert info.keys() == {**actor_info, **critic_info}.keys()
    # update runs actor_update, then critic_update (quirk U1)
    assert same(actor.critic_update(batch)[0], both)
    assert both.score_model.step.item() == both.critic.step.item() == 1
    assert both.target_critic.step.item() == 0  # quirk U18


def test_info_names_equal_upstream(create: Callable[..., Any]) -> None:
    learner, info = create().update(make_batch())
    expected = {"actor_loss", "value_loss", "v", "critic_loss", "q"}
    if isinstance(learner, GeneralDDPMIQLLearner):
        expected |= {"weights"}
        assert info["weights"].item() == 1.0
    assert info.keys() == expected
    assert all(x.shape == () and bool(x.isfinite()) for x in info.values())


def test_losses_equal_hand_computed_values(create: Callable[..., Any]) -> None:
    learner, batch = create(), make_batch()
    after, info = learner.critic_update(batch)
    q = learner.target_critic.apply_fn(
        learner.target_critic.params, batch["observations"], batch["actions"]
    )
    v = learner.value.apply_fn(learner.value.params, batch["observations"])
    u = q.min(0).values - v
    by_hand = torch.where(u > 0, 0.7, 0.3) * u**2
    torch.testing.assert_close(info["value_loss"], by_hand.mean())
    torch.testing.assert_close(info["v"], v.mean())
    # Q bootstraps from the V that was just stepped (quirk U3)
    next_v = after.value.apply_fn(after.value.params, batch["next_observations"])
    target = batch["rewards"] + 0.99 * batch["masks"] * next_v
    qs = learner.critic.apply_fn(learner.critic.params, batch["observations"], batch["actions"])
    torch.testing.assert_close(info["critic_loss"], ((qs - target) ** 2).mean())
    torch.testing.assert_close(info["q"], qs.mean())


def test_targets_are_moving_averages(create: Callable[..., Any]) -> None:
    before = create(tau=0.25, actor_tau=0.5)
    after, _ = before.update(make_batch())
    for name, rate in (("critic", 0.25), ("score_model", 0.5)):
        new = tree_leaves(getattr(after, name).params)
        old = tree_leaves(getattr(before, f"target_{name}").params)
        target = tree_leaves(getattr(after, f"target_{name}").params)
        for n, o, t in zip(new, old, target, strict=True):
            torch.testing.assert_close(t, rate * n + (1 - rate) * o)


def test_training_fits_a_batch(create: Callable[..., Any]) -> None:
    learner = create(actor_lr=3e-3, critic_lr=3e-3, value_lr=3e-3)
    batch, history = make_batch(), []
    for _ in range(40):
        learner, info = learner.update(batch)
        history.append((info["actor_loss"].item(), info["critic_loss"].item()))
    early, late = np.mean(history[:8], axis=0), np.mean(history[-8:], axis=0)
    assert (late < 0.9 * early).all()


def test_eval_loss_changes_only_the_key(create: Callable[..., Any]) -> None:
    learner, batch = create(), make_batch()
    after, info = learner.eval_loss(batch)
    assert changed(learner, after) == {"rng"}
    assert torch.equal(after.rng, learner.actor_update(batch)[0].rng)
    assert info.keys() == {"actor_loss", "value_loss", "v", "critic_loss", "q"}
    # without dropout the actor's loss is that of the update
    torch.testing.assert_close(info["actor_loss"], learner.actor_update(batch)[1]["actor_loss"])


def test_dropout_is_on_in_updates_and_off_in_eval_loss() -> None:
    def made(rate: float | None) -> DDPMIQLLearner:
        tiny = TINY[DDPMIQLLearner]
        return DDPMIQLLearner.create(0, box(OBS), box(ACT), **tiny, actor_dropout_rate=rate)

    batch = make_batch()
    dropped, plain = made(0.5), made(None)
    assert same(dropped.score_model.params, plain.score_model.params)
    assert same(dropped.eval_loss(batch)[1], plain.eval_loss(batch)[1])
    first, again = dropped.update(batch), dropped.update(batch)
    assert same(first, again)
    assert not torch.equal(first[1]["actor_loss"], plain.update(batch)[1]["actor_loss"])


@pytest.mark.parametrize("architecture", ["mlp", "ln_resnet"])
@pytest.mark.parametrize("critic_objective", losses.CRITIC_OBJECTIVES)
@pytest.mark.parametrize("actor_objective", losses.ACTOR_OBJECTIVES)
def test_each_objective_trains_with_each_architecture(
    actor_objective: str, critic_objective: str, architecture: str
) -> None:
    learner = GeneralDDPMIQLLearner.create(
        0, box(OBS), box(ACT), **SMALL, actor_num_blocks=1, actor_architecture=architecture,
        actor_objective=actor_objective, critic_objective=critic_objective, actor_layer_norm=True,
    )  # fmt: skip
    batch = make_batch()
    after, info = learner.update(batch)
    assert all(bool(x.isfinite()) for x in info.values())
    assert changed(learner, after) == {*NETWORKS, "rng"}
    # the weights are those of the advantage under the old V (quirk U1)
    v = learner.value.apply_fn(learner.value.params, batch["observations"])
    q = ddpm_iql.min_q(
        learner.target_critic.apply_fn,
        learner.target_critic.params,
        batch["observations"],
        batch["actions"],
    )
    weights = losses.advantage_weights(q - v, actor_objective, 0.7, 3.0)
    torch.testing.assert_close(info["weights"], weights.mean())


def test_arrays_and_tensordict_give_the_same_update(create: Callable[..., Any]) -> None:
    from tensordict import TensorDict

    learner, batch = create(), make_batch()
    expected = learner.update(batch)
    arrays = {name: x.numpy() for name, x in batch.items()}
    assert same(learner.update(arrays), expected)
    assert same(learner.update(TensorDict(dict(batch), batch_size=[8])), expected)
    assert same(learner.update({**batch, "extra": torch.zeros(3)}), expected)


def test_float64_learner_stays_in_float64(create: Callable[..., Any]) -> None:
    with enable_x64():
        learner = create()
        wide = tree_map(
            lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, learner
        )
        assert wide.float_dtype == torch.float64
        after, info = wide.update(make_batch(dtype=torch.float64))
        actions, _ = after.eval_actions(np.zeros(OBS))
    assert actions.dtype == np.float64
    assert all(x.dtype == torch.float64 for x in info.values())
    floats = [x for x in tree_leaves(after) if isinstance(x, Tensor) and x.is_floating_point()]
    assert {x.dtype for x in floats} == {torch.float64}


# --- many seeds ---------------------------------------------------------------------------------


def test_stacked_learners_update_like_single_ones(create: Callable[..., Any]) -> None:
    learners = [create(seed, discount=0.9 + 0.01 * seed) for seed in range(2)]
    batches = [make_batch(seed) for seed in range(2)]
    stacked, info = vmap(type(learners[0]).update)(tree_stack(learners), tree_stack(batches))
    assert info["q"].shape == (2,)
    for i, (learner, batch) in enumerate(zip(learners, batches, strict=True)):
        # Numbers become tensors in a stack, of JAX's default types.
        expected = tree_stack([learner.update(batch)])
        together = (tree_unstack(stacked)[i], {name: x[i] for name, x in info.items()})
        torch.testing.assert_close(
            [torch.as_tensor(x) for x in tree_leaves(together)],
            [x[0] for x in tree_leaves(expected)],
            rtol=1e-5,
            atol=1e-6,
        )


# --- action choice ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["eval_actions", "sample_implicit_policy", "sample_actions"])
def test_actions_have_the_leading_shape_of_the_observations(
    create: Callable[..., Any], method: str
) -> None:
    for act in (1, 2):
        learner = create(act=act)
        single, after = getattr(learner, method)(np.ones(OBS))
        batch, _ = getattr(learner, method)(np.ones((5, OBS), np.float32))
        one, after_one = getattr(learner, method)(torch.ones(1, OBS))
        assert isinstance(single, np.ndarray) and single.dtype == np.float32
        assert single.shape == (act,) and batch.shape == (5, act) and one.shape == (1, act)
        assert np.abs(batch).max() <= 1
        assert np.array_equal(
            one[0], single
        )  # a batch of one gives the action of the single observation
        assert torch.equal(after.rng, after_one.rng)
        assert changed(learner, after) == {"rng"}
        again, _ = getattr(learner, method)(np.ones(OBS))
        assert np.array_equal(again, single)
        # many rows, since a single action may be at its bounds both times
        rows = np.ones((20, OBS))
        later, _ = getattr(after, method)(rows)
        assert not np.array_equal(later, getattr(learner, method)(rows)[0])


def test_rows_of_a_batch_have_different_noise(create: Callable[..., Any]) -> None:
    actions, _ = create(act=6).eval_actions(np.zeros((4, OBS)))
    assert len({tuple(row) for row in actions}) == 4


def test_eval_actions_returns_the_candidate_with_the_largest_value(
    create: Callable[..., Any],
) -> None:
    learner = create(N=6)
    obs = torch.tensor([[0.1, -0.2, 0.3], [1.0, 0.0, -1.0]])
    candidates, qs, repeated, _, rng = acting.sample_candidates(learner, obs, 6)
    assert candidates.shape == (2, 6, ACT) and qs.shape == (2, 6)
    assert torch.equal(repeated, obs.repeat_interleave(6, 0))
    actions, after = learner.eval_actions(obs)
    best = candidates[torch.arange(2), qs.argmax(1)]
    assert np.array_equal(actions, best.numpy())
    assert torch.equal(after.rng, rng)


def test_custom_network_gets_complete_rows(create: Callable[..., Any]) -> None:
    """The built-in network gets shared inputs once and times as indices, with equal results."""
    learner = create()
    net, shapes = learner.score_model.apply_fn, []

    def custom(params: Any, s: Tensor, a: Tensor, t: Tensor, **options: Any) -> Tensor:
        shapes.append((s.shape[0], a.shape[0], tuple(t.shape)))
        return net(params, s, a, t, **options)

    other = learner.replace(score_model=learner.score_model.replace(apply_fn=custom))
    obs, batch = torch.ones(3, OBS), make_batch(rows=32)
    candidates, *_ = acting.sample_candidates(learner, obs, 4)
    torch.testing.assert_close(acting.sample_candidates(other, obs, 4)[0], candidates)
    torch.testing.assert_close(other.update(batch)[1], learner.update(batch)[1])
    assert set(shapes) == {(12, 12, (12, 1)), (32, 32, (32, 1))}


def test_to_act_drops_what_only_training_uses(create: Callable[..., Any]) -> None:
    """Optimiser states and networks used only in training are not arguments."""
    learner, obs = create(), torch.ones(3, OBS)
    light = learner.to_act()
    assert not any("opt_state" in path for path in tree_paths(light))
    assert not light.score_model.params and not light.critic.params
    for act in (acting._greedy_actions, acting._implicit_actions):
        for a, b in zip(act(light, obs, count=4), act(learner, obs, count=4), strict=True):
            assert torch.equal(a, b)


def test_actions_come_from_the_moving_average(create: Callable[..., Any]) -> None:
    """Quirk E4: the actor itself is not used."""
    learner = create()
    obs = np.ones((20, OBS))
    zero = tree_map(torch.zeros_like, learner.score_model.params)
    expected, _ = learner.eval_actions(obs)
    other = learner.replace(score_model=learner.score_model.replace(params=zero))
    assert np.array_equal(other.eval_actions(obs)[0], expected)
    other = learner.replace(target_score_model=learner.target_score_model.replace(params=zero))
    assert not np.array_equal(other.eval_actions(obs)[0], expected)


def test_first_of_equal_candidates_is_chosen(create: Callable[..., Any]) -> None:
    learner = create(N=5)
    flat = tree_map(torch.zeros_like, learner.target_critic.params)
    learner = learner.replace(target_critic=learner.target_critic.replace(params=flat))
    candidates, *_ = acting.sample_candidates(learner, torch.ones(1, OBS), 5)
    assert np.array_equal(learner.eval_actions(np.ones(OBS))[0], candidates[0, 0].numpy())


@pytest.mark.filterwarnings("ignore:beta_schedule='linear'")
def test_implicit_policy_samples_by_its_weights() -> None:
    """Candidates of positive advantage are drawn as often as the expectile's weights say."""
    learner = GeneralDDPMIQLLearner.create(
        0, box(OBS), box(6), **TINY[GeneralDDPMIQLLearner], beta_schedule="linear"
    )
    obs = torch.ones(200, OBS)
    for level in (0.5, 0.9):
        chosen, _ = learner.replace(critic_hyperparam=level).sample_implicit_policy(obs)
        candidates, qs, repeated, *_ = acting.sample_candidates(learner, obs, 4)
        v = learner.value.apply_fn(learner.value.params, repeated).reshape(qs.shape)
        weights = losses.implicit_policy_weights(qs - v, "expectile", level)
        share = (weights / weights.sum(1, keepdim=True))[qs > v].sum() / 200
        assert 0.1 < share < 0.97  # both kinds occur
        taken = (torch.from_numpy(chosen)[:, None] == candidates).all(-1)
        assert bool((taken.sum(1) == 1).all())
        assert taken[qs > v].sum().item() / 200 == pytest.approx(share.item(), abs=0.09)


def test_replace_n_takes_effect_and_keeps_the_rest(create: Callable[..., Any]) -> None:
    learner = create()
    wide = learner.replace(N=16)
    assert (learner.N, wide.N) == (4, 16) and wide.critic is learner.critic
    more, _ = wide.eval_actions(np.ones(OBS))
    candidates, *_ = acting.sample_candidates(wide, torch.ones(1, OBS), 16)
    assert any(np.array_equal(more, c) for c in candidates[0].numpy())
    one, _ = learner.replace(N=1).eval_actions(np.ones(OBS))
    single, *_ = acting.sample_candidates(learner, torch.ones(1, OBS), 1)
    assert np.array_equal(one, single[0, 0].numpy())


def test_temperature_and_repeated_steps_change_the_actions(create: Callable[..., Any]) -> None:
    obs = np.ones((20, OBS))
    base = create().eval_actions(obs)[0]
    assert not np.array_equal(create(ddpm_temperature=0.0).eval_actions(obs)[0], base)
    assert not np.array_equal(create(M=2).eval_actions(obs)[0], base)


# --- devices --------------------------------------------------------------------------------------


def test_to_moves_every_tensor(create: Callable[..., Any]) -> None:
    learner = create().to("meta")
    tensors = [x for x in tree_leaves(learner) if isinstance(x, Tensor)]
    assert {x.device.type for x in tensors} == {"meta"}
    assert learner.discount == 0.99 and learner.N == 4
    back = create()
    assert same(back.to("cpu"), back)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_update_on_cuda_equals_cpu(create: Callable[..., Any]) -> None:
    learner, batch = create(), make_batch()
    expected, info = learner.update(batch)
    on_gpu = {name: x.cuda() for name, x in batch.items()}
    actual, gpu_info = learner.to("cuda").update(on_gpu)
    assert torch.equal(actual.rng.cpu(), expected.rng)
    for name, value in info.items():
        torch.testing.assert_close(gpu_info[name].cpu(), value, rtol=1e-3, atol=1e-5)
    actions, _ = actual.eval_actions(np.ones(OBS))
    assert actions.shape == (ACT,)
