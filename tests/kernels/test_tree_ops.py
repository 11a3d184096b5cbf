"""Operators on a whole tree give the same bits as operations on single tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idql_func import enable_x64, grad, jit, optim, tree_map, vmap
from idql_func.kernels import tree_ops
from idql_func.struct import TrainState
from idql_func.training.runtime.threads import cpu_threads
from idql_func.tree import tree_leaves

pytestmark = pytest.mark.skipif(
    not tree_ops.supports([torch.zeros(1)]),
    reason="no C compiler",
)

SHAPES = {"kernel": (3, 5), "bias": (5,), "scalar": (), "empty": (0, 2), "wide": (2, 3, 7)}
OPTIMISERS = {
    "adam": optim.adam(1e-3),
    "adam with a schedule": optim.adam(optim.cosine_decay_schedule(1e-3, 40)),
    "adamw": optim.adamw(1e-3, 0.8, 0.9, 1e-3, weight_decay=0.3),
    "adamw with a mask": optim.adamw(
        optim.constant_schedule(1e-3), mask=lambda p: {name: name == "kernel" for name in p}
    ),
}
each_optimiser = pytest.mark.parametrize("tx", OPTIMISERS.values(), ids=OPTIMISERS.keys())


@pytest.fixture
def exact_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round square roots correctly; on some CPUs eager torch's differ in the last bit."""
    monkeypatch.setattr(torch, "sqrt", lambda x: torch.from_numpy(np.asarray(np.sqrt(x.numpy()))))


@pytest.fixture
def tensor_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use only the tensor form, as on a machine without a C compiler."""
    monkeypatch.setattr(tree_ops, "_kernels", lambda: None)


def random_state(seed: int, dtype: torch.dtype, shapes: Any = None) -> tuple[Any, Any, Any, Any]:
    """Parameters, gradients of many sizes, and moments."""
    generator = torch.Generator().manual_seed(seed)

    def tree(scale) -> dict[str, Tensor]:
        return {
            name: scale(torch.randn(shape, generator=generator, dtype=dtype))
            for name, shape in (shapes or SHAPES).items()
        }

    return (
        tree(lambda x: x),
        tree(lambda x: x * 10 ** (-6 * torch.rand(x.shape, generator=generator, dtype=dtype))),
        tree(lambda x: 0.1 * x),
        tree(lambda x: 0.1 * x**2),
    )


def state_of(tx: Any, params: Any, mu: Any, nu: Any, count: int = 0) -> Any:
    first, *others = tx.init(params)
    taken = torch.tensor(count, dtype=torch.int32)
    others = [type(s)(taken) if isinstance(s, optim.ScaleByScheduleState) else s for s in others]
    return (first._replace(count=taken, mu=mu, nu=nu), *others)


def by_definition(tx: Any, grads: Any, state: Any, params: Any) -> Any:
    updates, state = tx.update(grads, state, params)
    return optim.apply_updates(params, updates), state


def assert_same(got: Any, expected: Any) -> None:
    assert optim.tree_flatten(got)[1] == optim.tree_flatten(expected)[1]
    for a, b in zip(tree_leaves(got), tree_leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


# --- Adam ---------------------------------------------------------------------------------


@each_optimiser
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("x64", [False, True], ids=["", "x64"])
@pytest.mark.parametrize("count", [0, 7, 1999, 2**31 - 1])
def test_step_equals_the_tensor_form_bit_for_bit(tx, dtype, x64, count, exact_roots) -> None:
    params, grads, mu, nu = random_state(count % 100, dtype)
    state = state_of(tx, params, mu, nu, count)
    with enable_x64(x64):
        fused = optim._fused_step(tx, grads, state, params)
        assert fused is not None
        assert_same(fused, by_definition(tx, grads, state, params))


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 400),
    columns=st.integers(1, 400),
    threads=st.integers(1, 5),
)
def test_number_of_threads_changes_no_bit(seed, rows, columns, threads) -> None:
    tx, shapes = OPTIMISERS["adamw"], {"a": (rows,), "b": (rows, columns), "c": (columns, 3)}
    params, grads, mu, nu = random_state(seed, torch.float32, shapes)
    state, before = state_of(tx, params, mu, nu, 3), torch.get_num_threads()
    single = optim.step(tx, grads, state, params)
    average = optim.incremental_update(params, grads, 0.1)
    try:
        torch.set_num_threads(threads)
        assert_same(optim.step(tx, grads, state, params), single)
        assert_same(optim.incremental_update(params, grads, 0.1), average)
    finally:
        torch.set_num_threads(before)


@each_optimiser
def test_stacked_members_step_like_single_ones(tx) -> None:
    members = [random_state(seed, torch.float32) for seed in range(3)]
    states = [state_of(tx, p, mu, nu, 5 * k) for k, (p, _, mu, nu) in enumerate(members)]
    expected = [optim.step(tx, g, s, p) for (p, g, _, _), s in zip(members, states, strict=True)]
    stacked = [
        tree_map(lambda *leaves: torch.stack(leaves), *trees)
        for trees in (
            [g for _, g, _, _ in members], states, [p for p, _, _, _ in members]
        )
    ]  # fmt: skip
    mapped = vmap(lambda g, s, p: optim.step(tx, g, s, p))(*stacked)
    assert_same(mapped, tree_map(lambda *leaves: torch.stack(leaves), *expected))


def test_mapped_step_may_share_arguments_and_nest() -> None:
    tx = OPTIMISERS["adamw"]
    params, _, mu, nu = random_state(0, torch.float32)
    state = state_of(tx, params, mu, nu, 4)
    scales = torch.tensor([[1.0, -2.0], [0.5, 3.0]])

    def step(scale):
        return optim.step(tx, tree_map(lambda p: scale * p, params), state, params)

    mapped = vmap(vmap(step))(scales)
    for i in range(2):
        for j in range(2):
            expected = step(scales[i, j])
            assert_same(tree_map(lambda x, i=i, j=j: x[i, j], mapped), expected)


def test_each_member_has_its_own_rate() -> None:
    tx = optim.adam(1e-3)
    params, grads, mu, nu = random_state(1, torch.float32)
    state, rates = state_of(tx, params, mu, nu), torch.tensor([1e-2, 3e-4])
    mapped = vmap(
        lambda rate: optim.step(optim.with_learning_rate(tx, rate), grads, state, params)
    )(rates)
    for i, rate in enumerate(rates):
        expected = optim.step(optim.adam(rate.item()), grads, state, params)
        assert_same(tree_map(lambda x, i=i: x[i], mapped), expected)


def test_compiled_step_equals_eager_step() -> None:
    tx = OPTIMISERS["adamw with a mask"]
    params, grads, mu, nu = random_state(2, torch.float32)
    state = state_of(tx, params, mu, nu, 9)

    def step(grads, state, params, target):
        params, state = optim.step(tx, grads, state, params)
        return params, state, optim.incremental_update(params, target, 0.25)

    args = grads, state, params, mu
    assert_same(jit(step)(*args), step(*args))
    stacked = tree_map(lambda x: torch.stack([x, x + 1]), args)
    assert_same(jit(vmap(step))(*stacked), vmap(step)(*stacked))


def test_inputs_keep_their_values_and_may_have_any_strides() -> None:
    tx = OPTIMISERS["adam"]
    params, grads, mu, nu = random_state(3, torch.float32, {"w": (4, 6)})
    strided = [tree_map(lambda x: x.T.contiguous().T, t) for t in (params, grads, mu, nu)]
    copies = tree_map(torch.clone, strided)
    expected = optim.step(tx, grads, state_of(tx, params, mu, nu), params)
    p, g, m, v = strided
    assert_same(optim.step(tx, g, state_of(tx, p, m, v), p), expected)
    assert_same(strided, copies)


# --- fallback to the tensor form --------------------------------------------------------------


def test_update_can_be_differentiated() -> None:
    """A gradient through a step, as in meta-learning, uses the tensor form."""
    tx = OPTIMISERS["adam"]
    params, grads, mu, nu = random_state(4, torch.float64, {"w": (3,)})
    state = state_of(tx, params, mu, nu)

    def after(scale: Tensor) -> Tensor:
        new, _ = optim.step(tx, tree_map(lambda g: scale * g, grads), state, params)
        return optim.incremental_update(new, params, scale)["w"].sum()

    one, d = torch.tensor(1.0, dtype=torch.float64), 1e-6
    slope = (after(one + d) - after(one - d)) / (2 * d)
    assert grad(after)(one).item() == pytest.approx(slope.item(), rel=1e-6)
    leaf = one.clone().requires_grad_()
    assert torch.autograd.grad(after(leaf), leaf)[0].item() == pytest.approx(slope.item(), rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: {**tree, "bias": tree["bias"].double()},
        lambda tree: {**tree, "bias": tree["bias"].half()},
        lambda tree: {**tree, "bias": torch.ones(1)},
    ],
    ids=["two dtypes", "half", "to be broadcast"],
)
def test_other_leaves_use_the_tensor_form(change) -> None:
    tx = OPTIMISERS["adam"]
    params, grads, mu, nu = random_state(5, torch.float32)
    grads, state = change(grads), state_of(tx, params, mu, nu)
    assert optim._fused_step(tx, grads, state, params) is None
    assert_same(optim.step(tx, grads, state, params), by_definition(tx, grads, state, params))


def test_other_chains_use_the_tensor_form() -> None:
    class Half(optim.ScaleByAdam):
        def update(self, updates, state, params=None):
            return tree_map(lambda g: g / 2, updates), state

    params, grads, *_ = random_state(6, torch.float32)
    for tx in (
        optim.chain(optim.ScaleByLearningRate(0.1)),
        optim.chain(Half(), optim.ScaleByLearningRate(0.1)),
        optim.chain(optim.ScaleByLearningRate(0.1), optim.ScaleByAdam()),
    ):
        state = tx.init(params)
        assert_same(optim.step(tx, grads, state, params), by_definition(tx, grads, state, params))


def test_without_a_compiler_the_tensor_form_runs(tensor_form) -> None:
    params, grads, _, _ = random_state(7, torch.float32)
    state = TrainState.create(params=params, tx=OPTIMISERS["adamw"])
    new = state.apply_gradients(grads=grads)
    expected, _ = by_definition(state.tx, grads, state.opt_state, params)
    assert_same(new.params, expected)
    assert_same(
        optim.incremental_update(params, grads, 0.25),
        tree_map(lambda new, old: 0.25 * new + 0.75 * old, params, grads),
    )


# --- moving average ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["number", "tensor"])
def test_average_equals_its_formula(dtype, kind) -> None:
    new, old, *_ = random_state(8, dtype)
    tau: Any = 0.005 if kind == "number" else torch.tensor(0.005, dtype=dtype)
    expected = tree_map(lambda a, b: tau * a + (1 - tau) * b, new, old)
    assert_same(optim.incremental_update(new, old, tau), expected)


def test_tau_of_another_precision_promotes() -> None:
    new, old, *_ = random_state(9, torch.float32)
    tau = torch.tensor(0.25, dtype=torch.float64)
    averaged = optim.incremental_update(new, old, tau)
    assert averaged["scalar"].dtype == torch.float64 and averaged["bias"].dtype == torch.float32


def test_each_member_has_its_own_tau() -> None:
    new, old, *_ = random_state(10, torch.float32)
    taus = torch.tensor([0.0, 0.25, 1.0])
    mapped = vmap(lambda tau: optim.incremental_update(new, old, tau))(taus)
    for i, tau in enumerate(taus):
        assert_same(tree_map(lambda x, i=i: x[i], mapped), optim.incremental_update(new, old, tau))


# --- members ----------------------------------------------------------------------------------


def members(dtype: torch.dtype) -> list[torch.Tensor]:
    shapes = (5, 3, 4), (5,), (5, 700)
    return [torch.arange(float(math.prod(s)), dtype=dtype).reshape(s) for s in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("index", [[3], [4, 0], [1, 1, 2, 0, 4, 3]])
@pytest.mark.parametrize("threads", [1, 2])
def test_take_members_equals_indexing(dtype, index, threads) -> None:
    leaves, chosen = members(dtype), torch.tensor(index)
    strided = [leaf.flip(0).contiguous().mT if leaf.ndim > 2 else leaf for leaf in leaves]
    with cpu_threads(threads):
        for tree in (leaves, strided):
            expected = [leaf[chosen] for leaf in tree]
            assert_same(tree_ops.take_members(tree, chosen), expected)
            compiled = jit(tree_ops.take_members)(tree, chosen)
            assert_same(compiled, expected)


def test_mapped_take_members_equals_single_ones() -> None:
    stacks = [torch.stack([leaf, leaf + 1, leaf * 2]) for leaf in members(torch.float32)]
    index = torch.tensor([[0, 4], [3, 3], [2, 1]])

    def one(*leaves_and_index: Tensor) -> list[Tensor]:
        *leaves, chosen = leaves_and_index
        return tree_ops.take_members(leaves, chosen)

    mapped = vmap(one)(*stacks, index)
    shared = vmap(one, in_axes=(None, None, None, 0))(*[s[0] for s in stacks], index)
    last = vmap(one, in_axes=(0, 0, 0, 1))(*stacks, index.mT)
    for i, chosen in enumerate(index):
        assert_same([t[i] for t in mapped], [stack[i][chosen] for stack in stacks])
        assert_same([t[i] for t in last], [stack[i][chosen] for stack in stacks])
        assert_same([t[i] for t in shared], [stack[0][chosen] for stack in stacks])
    nested = vmap(vmap(one, in_axes=(None, None, None, 0)))(*stacks, index[:, :, None])
    assert_same([t[:, :, 0] for t in nested], mapped)
