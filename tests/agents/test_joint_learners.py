"""FQL, IFQL and ReBRAC: what they do beyond the contract that all learners on states have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_learners import ACT, OBS, make_batch, make_state_learner, same

from idql_func import disable_jit, random, tree_leaves, tree_map, tree_stack, tree_unstack, vmap
from idql_func.agents.joint import integrate_flow
from idql_func.interop import policy_module
from idql_func.networks.flow import Actor, ModuleDict, Value
from idql_func.training.updates import scan_updates, training_update
from idql_func.types import InputError

NAMES = ("fql", "ifql", "rebrac")


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    with disable_jit():
        yield


@pytest.fixture(params=NAMES)
def learner(request: pytest.FixtureRequest) -> Any:
    return make_state_learner(request.param)


def observations(rows: int = 5) -> np.ndarray:
    return make_batch(rows=rows)["observations"].numpy()


# --- acting -------------------------------------------------------------------------------


def test_actions_of_a_given_key_leave_the_learners_key(learner: Any) -> None:
    key = random.PRNGKey(3)
    actions, after = learner.sample_actions(observations(), seed=key)
    again, _ = learner.sample_actions(observations(), seed=key)
    other, _ = learner.sample_actions(observations(), seed=random.PRNGKey(4))
    assert torch.equal(after.rng, learner.rng)
    assert np.array_equal(actions, again) and not np.array_equal(actions, other)
    assert np.abs(actions).max() <= 1


def test_own_key_is_split_as_the_original_splits_it(learner: Any) -> None:
    rng, key = random.split(learner.rng).unbind(0)
    actions, after = learner.sample_actions(observations())
    expected, _ = learner.sample_actions(observations(), seed=key)
    assert np.array_equal(actions, expected) and torch.equal(after.rng, rng)


@pytest.mark.parametrize("seed", [0, np.zeros(2), torch.zeros(3), torch.zeros(2), "0"])
def test_a_seed_that_is_no_key_is_refused(learner: Any, seed: Any) -> None:
    with pytest.raises(InputError, match=r"seed must be a key such as random\.PRNGKey"):
        learner.sample_actions(observations(), seed=seed)


def test_temperature_scales_the_noise_of_rebrac() -> None:
    learner = make_state_learner("rebrac")
    modes = learner.run("actor", torch.from_numpy(observations())).numpy()
    actions, _ = learner.eval_actions(observations())
    np.testing.assert_array_equal(actions, modes)
    key = random.PRNGKey(1)
    half, _ = learner.sample_actions(observations(), seed=key, temperature=0.5)
    full, _ = learner.sample_actions(observations(), seed=key)
    np.testing.assert_allclose(full - modes, 2 * (half - modes), rtol=1e-4, atol=1e-6)


def test_ifql_takes_the_candidate_with_the_largest_q() -> None:
    learner, obs = make_state_learner("ifql"), torch.from_numpy(observations(1))
    key = random.PRNGKey(5)
    noise = random.normal(random.split(key)[0], (1, 4, ACT))
    network, repeated = learner.network, obs.unsqueeze(1).expand(1, 4, OBS)
    candidates = integrate_flow(network.params, network.apply_fn, "actor_flow", repeated, noise, 3)
    q = learner.run("critic", repeated, candidates).amin(0)[0]
    chosen = learner.choose_actions(obs, key)
    assert len({tuple(row) for row in candidates[0].tolist()}) == 4
    torch.testing.assert_close(chosen[0], candidates[0, q.argmax()])


def test_policy_of_these_learners_has_no_module(learner: Any) -> None:
    with pytest.raises(InputError, match=r"has no module yet; call learner\.choose_actions"):
        policy_module(learner)


def test_choice_of_actions_is_one_graph_of_torch_export(learner: Any) -> None:
    class Choice(torch.nn.Module):
        def forward(self, rows: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            return learner.choose_actions(rows, key)

    rows, key = torch.from_numpy(observations()), random.PRNGKey(2)
    exported = torch.export.export(Choice(), (rows, key)).module()
    torch.testing.assert_close(exported(rows, key), learner.choose_actions(rows, key))


# --- updates ------------------------------------------------------------------------------


def test_targets_have_no_gradient_and_average_the_parameters_before_the_step(learner: Any) -> None:
    updated, info = learner.update(make_batch())
    before, mu = learner.network.params, updated.network.opt_state[0].mu
    for name in before:
        if name.startswith("modules_target_"):
            source = before[name.replace("target_", "")]
            assert not any(leaf.any() for leaf in tree_leaves(mu[name]))
            expected = tree_map(
                lambda new, old: 0.005 * new + (1 - 0.005) * old, source, before[name]
            )
            assert same(updated.network.params[name], expected)
    assert learner.network.step == 1 and updated.network.step == 2
    assert {"grad/max", "grad/min", "grad/norm", "critic/q_mean"} <= info.keys()


def test_losses_without_an_update_change_nothing(learner: Any) -> None:
    after, info = learner.eval_loss(make_batch())
    assert same(after, learner) and info["critic/critic_loss"].isfinite()


def test_partial_update_of_rebrac_moves_no_target_and_has_no_loss_of_the_actor() -> None:
    learner, _ = make_state_learner("rebrac").update(make_batch())
    updated, info = learner.update(make_batch(1), full_update=False)
    old, new = learner.network.params, updated.network.params
    assert not any(name.startswith("actor/") for name in info)
    for name in ("modules_target_critic", "modules_target_actor"):
        assert same(new[name], old[name])
    # Adam's momentum moves the actor without a gradient
    assert not same(new["modules_actor"], old["modules_actor"])


@pytest.mark.parametrize("frequency", [1, 2, 3])
def test_training_updates_of_rebrac_are_full_in_every_kth(frequency: int) -> None:
    first = make_state_learner("rebrac", actor_freq=frequency)
    alone = counted = first
    for step in range(1, 5):
        alone, _ = alone.update(make_batch(step), step % frequency == 0)
        counted, _ = counted.training_update(make_batch(step))
    assert same(alone, counted)
    # inside a transform the count has no value
    mapped = tree_stack([first, first])
    for step in range(1, 5):
        batches = tree_stack([make_batch(step), make_batch(step)])
        mapped, _ = vmap(training_update(type(first)))(mapped, batches)
    member = tree_unstack(mapped)[1]
    for a, b in zip(tree_leaves(member), tree_leaves(alone), strict=True):
        torch.testing.assert_close(a, torch.as_tensor(b).to(a.dtype), rtol=1e-4, atol=1e-6)


def test_scanned_updates_use_the_training_update() -> None:
    learner, arrays = make_state_learner("rebrac"), make_batch(rows=40)
    key = random.PRNGKey(0)
    scanned, _, _ = scan_updates(learner, arrays, key, steps=3, batch_size=8)
    expected, _, _ = scan_updates(
        learner, arrays, key, steps=3, batch_size=8, update=type(learner).training_update
    )
    assert same(scanned, expected)


def test_batch_of_rebrac_needs_next_actions() -> None:
    batch = make_batch()
    del batch["next_actions"]
    with pytest.raises(InputError, match="the batch has no 'next_actions'"):
        make_state_learner("rebrac").update(batch)


# --- networks -----------------------------------------------------------------------------


def test_networks_of_a_dict_run_by_name() -> None:
    networks = ModuleDict(
        {"value": Value(OBS, (8,), num_ensembles=1), "actor": Actor(OBS, 2, (8,))}
    )
    params = networks.init(random.PRNGKey(0))
    rows = torch.ones(4, OBS)
    assert networks.apply(params, rows, name="actor").shape == (4, 2)
    with pytest.raises(ValueError, match="there is no network 'critic'; there are value, actor"):
        networks.apply(params, rows, name="critic")
    with pytest.raises(ValueError, match="at least one network"):
        ModuleDict({})
