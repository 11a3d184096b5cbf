"""Optimisers and schedules: steps computed by hand, states, equality by value."""

from __future__ import annotations

import math

import pytest
import torch

from idql_func import enable_x64, jit, optim, tree_map, tree_stack, vmap
from idql_func.optim import EmptyState, MaskedState, ScaleByAdamState, ScaleByScheduleState
from idql_func.tree import tree_paths

PARAMS = {"kernel": torch.tensor([1.0, -2.0]), "bias": torch.tensor([0.5])}
GRADS = {"kernel": torch.tensor([0.3, -0.4]), "bias": torch.tensor([2.0])}


def double(tree):
    return tree_map(lambda x: x.double(), tree)


# --- adam ---------------------------------------------------------------------------------


def test_two_steps_of_adam_equal_hand_computed_values() -> None:
    b1, b2, eps, rate = 0.8, 0.9, 0.01, 0.5
    tx = optim.adam(rate, b1, b2, eps)
    w = torch.tensor([1.0], dtype=torch.float64)
    with enable_x64():
        state = tx.init({"w": w})
        first, state = tx.update({"w": w * 2}, state)
        second, state = tx.update({"w": w * -3}, state)
    # step 1: m = 0.2 * 2, v = 0.1 * 4; bias correction makes them 2 and 4
    assert first["w"].item() == pytest.approx(-rate * 2 / (2 + eps), rel=1e-14)
    # step 2: m = 0.8 * 0.4 + 0.2 * -3, v = 0.9 * 0.4 + 0.1 * 9
    m, v = 0.8 * 0.4 - 0.6, 0.9 * 0.4 + 0.9
    expected = -rate * (m / (1 - b1**2)) / (math.sqrt(v / (1 - b2**2)) + eps)
    assert second["w"].item() == pytest.approx(expected, rel=1e-14)
    assert state[0].mu["w"].item() == pytest.approx(m) and state[0].nu["w"].item() == pytest.approx(
        v
    )
    assert state[0].count.item() == 2


def test_eps_is_outside_the_root() -> None:
    # with a tiny gradient eps dominates: 1e-8 / (1e-8 + 1e-8) is a half
    tx = optim.adam(1.0)
    params = {"w": torch.zeros(1)}
    updates, _ = tx.update({"w": torch.tensor([1e-8])}, tx.init(params))
    assert updates["w"].item() == pytest.approx(-0.5, rel=1e-4)


def test_zero_gradient_changes_no_parameter() -> None:
    tx = optim.adam(1.0)
    zeros = tree_map(torch.zeros_like, PARAMS)
    updates, _ = tx.update(zeros, tx.init(PARAMS))
    assert all(u.abs().max() == 0 for u in updates.values())


def test_states_have_the_structure_of_optax() -> None:
    state = optim.adam(0.1).init(PARAMS)
    assert isinstance(state[0], ScaleByAdamState) and state[1] == EmptyState()
    assert state[0].count.dtype == torch.int32 and state[0].count.shape == ()
    assert state[0].mu.keys() == PARAMS.keys()
    assert all(x.abs().max() == 0 for x in (*state[0].mu.values(), *state[0].nu.values()))

    scheduled = optim.adam(optim.cosine_decay_schedule(0.1, 10)).init(PARAMS)
    assert isinstance(scheduled[1], ScaleByScheduleState) and scheduled[1].count.item() == 0

    decayed = optim.adamw(0.1).init(PARAMS)
    assert len(decayed) == 3 and decayed[1] == EmptyState()
    masked = optim.adamw(0.1, mask={"kernel": True, "bias": False}).init(PARAMS)
    assert isinstance(masked[1], MaskedState)


def test_counts_stay_at_the_largest_integer() -> None:
    tx = optim.adam(optim.constant_schedule(0.1))
    adam_state, schedule_state = tx.init(PARAMS)
    largest = torch.tensor(2**31 - 1, dtype=torch.int32)
    state = (adam_state._replace(count=largest), schedule_state._replace(count=largest))
    updates, state = tx.update(GRADS, state)
    assert state[0].count.item() == state[1].count.item() == 2**31 - 1
    assert state[0].count.dtype == torch.int32
    assert all(bool(u.isfinite().all()) for u in updates.values())


def test_update_is_pure() -> None:
    tx = optim.adamw(0.1, weight_decay=0.5)
    params, grads, state = PARAMS.copy(), GRADS.copy(), tx.init(PARAMS)
    copies = tree_map(torch.clone, (params, grads, state))
    tx.update(grads, state, params)
    assert torch.equal(state[0].count, copies[2][0].count)
    for name in params:
        assert torch.equal(params[name], copies[0][name])
        assert torch.equal(grads[name], copies[1][name])
        assert torch.equal(state[0].mu[name], copies[2][0].mu[name])


# --- decay --------------------------------------------------------------------------------


def test_adamw_decays_every_leaf_by_rate_times_decay() -> None:
    params = double(PARAMS)
    with enable_x64():
        plain, _ = optim.adam(0.1).update(double(GRADS), optim.adam(0.1).init(params), params)
        tx = optim.adamw(0.1, weight_decay=0.5)
        decayed, _ = tx.update(double(GRADS), tx.init(params), params)
    for name, p in params.items():
        torch.testing.assert_close(decayed[name], plain[name] - 0.1 * 0.5 * p)


def test_default_decay_is_that_of_optax() -> None:
    """1e-4, not torch's 1e-2 (quirk U12)."""
    tx = optim.adamw(1.0)
    params = {"w": torch.tensor([100.0])}
    updates, _ = tx.update({"w": torch.zeros(1)}, tx.init(params), params)
    assert updates["w"].item() == pytest.approx(-1e-2)


@pytest.mark.parametrize(
    "mask",
    [
        {"kernel": True, "bias": False},
        lambda params: {name: name == "kernel" for name in params},
    ],
    ids=["tree", "function"],
)
def test_masked_leaves_do_not_decay(mask) -> None:
    tx = optim.adamw(0.1, weight_decay=0.5, mask=mask)
    zeros = tree_map(torch.zeros_like, PARAMS)
    updates, _ = tx.update(zeros, tx.init(PARAMS), PARAMS)
    assert updates["bias"].tolist() == [0.0]
    torch.testing.assert_close(updates["kernel"], -0.05 * PARAMS["kernel"])


def test_decay_without_parameters_raises() -> None:
    tx = optim.adamw(0.1)
    with pytest.raises(ValueError, match="adamw: weight decay needs the parameters"):
        tx.update(GRADS, tx.init(PARAMS))


# --- schedules ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, 2.0), (25, 2 * (0.5 + math.sqrt(0.5) / 2)), (50, 1.0), (100, 0.0), (1000, 0.0)],
)
def test_cosine_decay_equals_hand_computed_values(count: int, expected: float) -> None:
    schedule = optim.cosine_decay_schedule(2.0, 100)
    value = schedule(torch.tensor(count, dtype=torch.int32))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected, rel=1e-6)
    if count >= 100:
        assert value.item() == 0.0  # exactly (quirk U15)


def test_cosine_decay_ends_at_alpha() -> None:
    schedule = optim.cosine_decay_schedule(2.0, 100, alpha=0.25)
    assert schedule(torch.tensor(0)).item() == 2.0
    assert schedule(torch.tensor(500)).item() == pytest.approx(0.5)


def test_schedules_have_the_current_precision() -> None:
    with enable_x64():
        value = optim.cosine_decay_schedule(1.0, 3)(torch.tensor(1))
        assert value.dtype == torch.float64
        assert value.item() == pytest.approx(0.75, rel=1e-15)
        assert optim.constant_schedule(0.1)(torch.tensor(1)).item() == 0.1


def test_first_update_uses_count_zero() -> None:
    tx = optim.adam(optim.cosine_decay_schedule(1.0, 2))
    state, sizes = tx.init(PARAMS), []
    for _ in range(4):
        updates, state = tx.update(GRADS, state, PARAMS)
        sizes.append(updates["bias"].abs().item())
    # with a constant gradient, each of Adam's steps has the size of the rate
    assert sizes == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize("steps", [0, -5])
def test_decay_over_no_steps_raises(steps: int) -> None:
    with pytest.raises(ValueError, match=f"decay_steps must be positive, got {steps}"):
        optim.cosine_decay_schedule(0.1, steps)


# --- chains, averages -----------------------------------------------------------------------


def test_chain_applies_its_parts_in_order() -> None:
    tx = optim.chain(optim.ScaleByLearningRate(2.0), optim.AddDecayedWeights(1.0))
    updates, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    torch.testing.assert_close(updates["kernel"], -2 * GRADS["kernel"] + PARAMS["kernel"])
    assert state == (EmptyState(), EmptyState())


def test_apply_updates_adds() -> None:
    updated = optim.apply_updates(PARAMS, GRADS)
    assert updated["bias"].tolist() == [2.5] and PARAMS["bias"].tolist() == [0.5]


def test_incremental_update_rounds_like_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    new, old = torch.randn(2, 1000, generator=generator)
    got = optim.incremental_update({"w": new}, {"w": old}, 0.005)["w"]
    assert torch.equal(got, 0.005 * new + (1 - 0.005) * old)
    assert not torch.equal(got, torch.lerp(old, new, 0.005))  # has another rounding (quirk U17)
    assert torch.equal(optim.incremental_update({"w": new}, {"w": old}, 1.0)["w"], new)
    assert torch.equal(optim.incremental_update({"w": new}, {"w": old}, 0.0)["w"], old)


# --- equality, transforms ---------------------------------------------------------------------


def test_transformations_are_equal_and_hash_by_value() -> None:
    def made(decay: float = 0.1, steps: int = 10, kernel: bool = True):
        schedule = optim.cosine_decay_schedule(3e-4, steps)
        return optim.adamw(schedule, weight_decay=decay, mask={"a": kernel, "b": False})

    assert made() == made() and hash(made()) == hash(made())
    assert made() != made(decay=0.2)
    assert made() != made(steps=11)
    assert made() != made(kernel=False)
    assert optim.adam(0.1) == optim.adam(0.1) != optim.adam(0.2)
    assert optim.constant_schedule(1) == optim.constant_schedule(1.0)


def test_steps_map_over_stacked_states() -> None:
    tx = optim.adamw(optim.cosine_decay_schedule(0.1, 10), weight_decay=0.5)

    def step(scale: torch.Tensor):
        params = tree_map(lambda p: p * scale, PARAMS)
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(tree_map(lambda g: g * scale, GRADS), state, params)
            params = optim.apply_updates(params, updates)
        return params

    scales = torch.tensor([1.0, 2.0, -0.5])
    mapped = vmap(step)(scales)
    for i, scale in enumerate(scales):
        for name, value in step(scale).items():
            torch.testing.assert_close(mapped[name][i], value)


def test_transformations_are_static_arguments(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr("idql_func.compiler.jit.compiler_problem", lambda device: "No compiler.")
    step = jit(lambda g, tx: tx.update(g, tx.init(g))[0], static_argnames="tx")
    with pytest.warns(RuntimeWarning):
        step(GRADS, tx=optim.adam(0.1))
    step(GRADS, tx=optim.adam(0.1))
    assert step.cache_size() == 1


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        optim.adam,
        lambda rate: optim.adamw(rate, weight_decay=0.1),
        lambda rate: optim.adamw(optim.cosine_decay_schedule(rate, 3)),
        lambda rate: optim.adam(optim.constant_schedule(rate)),
    ],
    ids=["adam", "adamw", "cosine", "constant"],
)
def test_stacked_members_have_their_own_learning_rates(make, compiled: bool) -> None:
    rates = [0.1, 0.003, 2.0]
    tx = make(0.5)
    params = [tree_map(lambda x, k=k: x + k, PARAMS) for k in range(3)]
    grads = [tree_map(lambda x, k=k: x * (k - 1.5), GRADS) for k in range(3)]

    def step(params, state, grads, rate):
        updates, state = optim.with_learning_rate(tx, rate).update(grads, state, params)
        return optim.apply_updates(params, updates), state

    step = jit(vmap(step)) if compiled else vmap(step)
    stacked, state = tree_stack(params), tree_stack([tx.init(p) for p in params])
    for _ in range(4):
        stacked, state = step(stacked, state, tree_stack(grads), torch.tensor(rates))
    for k, rate in enumerate(rates):
        single, own = make(rate), params[k]
        own_state = single.init(own)
        for _ in range(4):
            updates, own_state = single.update(grads[k], own_state, own)
            own = optim.apply_updates(own, updates)
        for name in own:
            torch.testing.assert_close(stacked[name][k], own[name], rtol=1e-6, atol=1e-7)
    # the states are those of the optimiser without a learning rate for each member
    assert tree_paths(state) == tree_paths(tx.init(params[0]))


def test_learning_rate_of_an_optimiser_is_read_and_replaced() -> None:
    decayed = optim.adamw(optim.cosine_decay_schedule(0.3, 7), weight_decay=0.1)
    assert optim.learning_rate_of(decayed) == 0.3
    wanted = optim.adamw(optim.cosine_decay_schedule(0.2, 7), weight_decay=0.1)
    assert optim.with_learning_rate(decayed, 0.2) == wanted
    with pytest.raises(ValueError, match="has no ScaleByLearningRate"):
        optim.learning_rate_of(optim.chain(optim.ScaleByAdam()))
    with pytest.raises(ValueError, match="initial rate of the schedule"):
        optim.with_learning_rate(optim.adam(lambda count: count * 0.1), 0.2)
