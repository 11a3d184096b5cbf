"""Lazy results of jitted calls: reading, changing, copying and donating them keeps all values."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from idql_func import (
    disable_jit,
    enable_x64,
    jit,
    optim,
    scan,
    struct,
    transforms,
    tree_flatten,
    tree_leaves,
    vmap,
)
from idql_func.compiler import lazy
from idql_func.compiler.donation import DonatedTensor
from idql_func.tree import tree_map, tree_stack

X = torch.tensor([0.3, 0.7])
DONATED = "This tensor was donated"


class Learner(struct.PyTreeNode):
    """A key, a training state, tensors that no update changes, a number and a static field."""

    rng: Tensor
    actor: struct.TrainState
    fixed: dict[str, Tensor]
    rate: Any
    name: str = struct.field(pytree_node=False)


class WithDefault(struct.PyTreeNode):
    """The default is a class attribute, which would hide a field that is not materialized."""

    weights: Any
    scale: Any = 2.0


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run traced graphs without the compiler, which does not affect these tests."""
    monkeypatch.setattr("idql_func.compiler.jit.compiler_problem", lambda device: "No compiler.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "jit: No compiler", RuntimeWarning)
        yield


def make_learner(rate: Any = 0.5, name: str = "a") -> Learner:
    params = {"layer": {"w": torch.tensor([1.0, -2.0]), "b": torch.tensor(0.5)}}
    return Learner(
        rng=torch.zeros(2, dtype=torch.int64),
        actor=struct.TrainState.create(params=params, tx=optim.adam(0.1)),
        fixed={"t": torch.tensor([5.0])},
        rate=rate,
        name=name,
    )


def update(learner: Learner, x: Tensor) -> tuple[Learner, dict[str, Tensor]]:
    def loss(params: Any) -> Tensor:
        layer = params["layer"]
        return ((layer["w"] * x).sum() + layer["b"] - learner.fixed["t"].sum()) ** 2

    value, grads = transforms.value_and_grad(loss)(learner.actor.params)
    actor = learner.actor.apply_gradients(grads=grads)
    return learner.replace(actor=actor, rng=learner.rng + 1), {"loss": value * learner.rate}


def assert_same(ours: Any, theirs: Any) -> None:
    assert tree_flatten(ours)[1] == tree_flatten(theirs)[1]
    for a, b in zip(tree_leaves(ours), tree_leaves(theirs), strict=True):
        assert type(a) is type(b)
        torch.testing.assert_close(a, b)


def is_lazy(tree: Any) -> bool:
    return lazy.lazy_tree_of(tree) is not None


@pytest.mark.parametrize("donate", [False, True])
def test_loop_flattens_its_learner_once(donate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    program = jit(update).donating(donate)
    learner, expected = make_learner(), make_learner()
    learner, _ = program(learner, X)
    calls: list[Any] = []
    monkeypatch.setattr(struct, "_flatten", calls.append)
    monkeypatch.setattr(Learner, "_unflatten", calls.append)
    for k in range(4):
        assert is_lazy(learner)
        learner, info = program(learner, X * k)
    monkeypatch.undo()
    assert not calls and program.cache_size() == 1
    for k in (1, 0, 1, 2, 3):
        expected, expected_info = update(expected, X * k)
    torch.testing.assert_close(info["loss"], expected_info["loss"])
    assert_same(learner, expected)


@pytest.mark.parametrize("donate", [False, True])
def test_reading_fields_between_calls_changes_no_value(donate: bool) -> None:
    """Read a key, a step count, a nested node, a dict, the whole tree; write to a key in place."""
    reads = (
        lambda learner: learner.rng.tolist(),
        lambda learner: learner.actor.step.item(),
        lambda learner: learner.actor,
        lambda learner: (learner.actor.tx, learner.name, learner.rate, learner.actor.opt_state),
        lambda learner: learner.actor.params["layer"]["w"].tolist(),
        tree_leaves,
        repr,
    )
    program = jit(update).donating(donate)
    learner, expected = make_learner(), make_learner()
    for k in range(2 * len(reads)):
        learner, info = program(learner, X)
        expected, expected_info = update(expected, X)
        torch.testing.assert_close(info["loss"], expected_info["loss"])
        read = reads[k // 2]
        if k % 2:
            read(learner)
        else:
            learner.rng.add_(1)  # in place, in a tensor that was read
            expected = expected.replace(rng=expected.rng + 1)
    assert_same(learner, expected)
    assert program.cache_size() == 1


@pytest.mark.parametrize("donate", [False, True])
def test_changes_of_a_learner_reach_the_next_call(donate: bool) -> None:
    program = jit(update).donating(donate)
    learner, expected = make_learner(), make_learner()

    def both() -> None:
        nonlocal learner, expected
        learner, info = program(learner, X)
        expected, expected_info = update(expected, X)
        torch.testing.assert_close(info["loss"], expected_info["loss"])

    both()
    learner, expected = (
        x.replace(fixed={"t": torch.tensor([7.0])}, rate=0.25) for x in (learner, expected)
    )
    both()
    for x in (learner, expected):  # the node is frozen, not the dict in it
        x.fixed["t"] = torch.tensor([9.0])
    both()
    for x in (learner, expected):
        x.actor.params["layer"]["w"] = torch.tensor([3.0, 3.0])
    both()
    assert program.cache_size() == 1
    for x in (learner, expected):
        x.fixed["t"] = torch.tensor([[9.0, 1.0]])  # another shape, so another program
    both()
    assert program.cache_size() == 2
    for x in (learner, expected):
        x.actor.opt_state[0].mu["layer"]["w"].resize_(1).fill_(0.5).resize_(2)
    both()
    assert_same(learner, expected)


def test_use_of_a_donated_learner_raises() -> None:
    program = jit(update, donate_argnums=0)
    first, _ = program(make_learner(), X)
    new, _ = program(first, X)
    assert first.name == "a" and first.rate == 0.5  # no tensors
    for use in (
        lambda: first.rng + 1,
        lambda: first.actor.step + 1,
        lambda: first.actor.params["layer"]["w"].shape,
        lambda: torch.dot(X, first.actor.params["layer"]["w"]),
        lambda: pickle.dumps(first),
        lambda: copy.deepcopy(first),
        lambda: program(first, X),
        lambda: jit(update)(first, X),
        lambda: jit(update)(first.replace(rate=1.0), X),
        lambda: update(first, X),
        lambda: jit(lambda x: x * first.rng[0])(X),
    ):
        with pytest.raises(RuntimeError, match=DONATED):
            use()
    assert all(isinstance(x, DonatedTensor) for x in tree_leaves(first) if isinstance(x, Tensor))
    assert repr(first.rng) == "<donated tensor>"
    assert new.rng.tolist() == [2, 2]


def test_tensors_read_before_donation_raise_after_it() -> None:
    program = jit(update, donate_argnums=0)
    learner, _ = program(make_learner(), X)
    key, step, view = learner.rng, learner.actor.step, learner.rng.view(2, 1)
    unread = learner.actor
    place = key.data_ptr()
    assert is_lazy(learner)  # tensors were read, but the tree was not materialized
    learner, _ = program(learner, X)
    for donated in (key, step, unread.step, unread.params["layer"]["b"]):
        with pytest.raises(RuntimeError, match=DONATED):
            _ = donated + 1
    assert view.tolist() == [[2], [2]]  # a view shares the memory
    assert learner.rng.data_ptr() == place and learner.rng.tolist() == [2, 2]
    part = learner.actor
    jit(lambda state: state.replace(step=state.step + 1), donate_argnums=0)(part)
    with pytest.raises(RuntimeError, match=DONATED):  # a part was donated
        program(learner, X)


def test_donated_leaf_raises_in_other_trees_too() -> None:
    """A leaf that a call without donation returns unchanged is in two trees."""
    donating, plain = jit(update, donate_argnums=0), jit(update)
    first, _ = donating(make_learner(), X)
    second, _ = plain(first, X)  # shares first.fixed["t"]
    assert is_lazy(first) and is_lazy(second)
    donating(first, X)
    with pytest.raises(RuntimeError, match=DONATED):
        plain(second, X)
    single, _ = donating(make_learner(), X)
    fixed = jit(lambda learner: learner.fixed)(single)
    donating(single, X)
    with pytest.raises(RuntimeError, match=DONATED):
        _ = fixed["t"] + 1


@pytest.mark.parametrize("donate", [False, True])
def test_one_learner_may_be_two_arguments(donate: bool) -> None:
    def mix(a: Learner, b: Learner) -> tuple[Learner, Tensor]:
        return a.replace(rng=a.rng + 10), b.rng + 1

    learner, _ = jit(update, donate_argnums=0)(make_learner(), X)
    new, key = jit(mix).donating(donate)(learner, learner)
    assert new.rng.tolist() == [11, 11] and key.tolist() == [2, 2]
    assert new.fixed["t"].tolist() == [5.0]


def test_numbers_have_the_precision_of_the_call() -> None:
    program = jit(lambda learner: (learner, torch.ones((), dtype=torch.float64) * learner.rate))
    learner, low = program(make_learner(rate=0.1))
    learner, again = program(learner)
    with enable_x64():
        _, high = program(learner)
    assert learner.rate == 0.1 and type(learner.rate) is float
    assert low == again == float(np.float32(0.1)) and high == 0.1


@pytest.mark.parametrize("donate", [False, True])
def test_number_leaf_and_result_do_not_share_memory(donate: bool) -> None:
    """The memory of a donated number or array is never reused for a result of its shape."""
    program = jit(lambda t: ({"n": 0.5, "a": t["a"]}, t["n"] * 2)).donating(donate)
    array = np.array(3.0, np.float32)
    for number in (0.25, array, 0.25):
        tree, doubled = program({"n": number, "a": torch.zeros(2)})
        assert doubled.item() == 2 * float(number) and tree["n"] == 0.5
    assert array == 3.0


def test_copies_and_pickles_hold_all_fields() -> None:
    learner, _ = jit(update)(make_learner(), X)
    expected, _ = update(make_learner(), X)
    for make in (
        copy.copy,
        copy.deepcopy,
        lambda x: pickle.loads(pickle.dumps(x)),
        dataclasses.replace,
    ):
        lazy_learner, _ = jit(update)(make_learner(), X)
        copied = make(lazy_learner)
        names = {f.name for f in dataclasses.fields(Learner)}
        assert {*vars(copied)} == names | {"_static"}  # and not the lazy leaves
        for a, b in zip(tree_leaves(copied), tree_leaves(expected), strict=True):
            torch.testing.assert_close(a, b)
    with pytest.raises(AttributeError, match="'Learner' object has no attribute 'critic'"):
        learner.critic  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(dataclasses.FrozenInstanceError):
        learner.rate = 2.0  # type: ignore[misc]
    assert learner.actor is learner.actor and learner.actor.params is learner.actor.params


def test_node_with_default_values_is_not_lazy() -> None:
    node = jit(lambda n: n.replace(scale=n.scale * 2))(WithDefault(X, torch.tensor(3.0)))
    assert not is_lazy(node) and node.scale.item() == 6.0


def test_other_transforms_accept_lazy_learners() -> None:
    learners = [make_learner(), make_learner().replace(rng=torch.ones(2, dtype=torch.int64))]
    expected = tree_stack([update(update(x, X)[0], X)[0] for x in learners])
    for donate in (False, True):
        mapped = jit(vmap(update, in_axes=(0, None))).donating(donate)
        stacked, _ = mapped(tree_map(torch.clone, tree_stack(learners)), X)
        assert is_lazy(stacked)
        stacked, _ = mapped(stacked, X)
        assert_same(stacked, expected)
    result, _ = mapped(tree_stack(learners), X)
    plain, _ = vmap(update, in_axes=(0, None))(result, X)
    assert_same(plain, expected)
    with disable_jit():
        result, _ = jit(update)(jit(update)(make_learner(), X)[0], X)
    result, _ = jit(update)(make_learner(), X)
    with disable_jit():
        result, _ = jit(update)(result, X)
    assert_same(result, update(update(make_learner(), X)[0], X)[0])


@pytest.mark.parametrize("donate", [False, True])
def test_scan_accepts_and_returns_lazy_state(donate: bool) -> None:
    step = jit(update).donating(donate)
    learner, _ = step(make_learner(), X)
    learner, infos = scan(step, learner, torch.stack([X, 2 * X]))
    learner, _ = step(learner, X)
    expected, losses = make_learner(), []
    for x in (X, X, 2 * X, X):
        expected, info = update(expected, x)
        losses.append(info["loss"])
    assert_same(learner, expected)
    torch.testing.assert_close(infos["loss"], torch.stack(losses[1:3]))


def test_scan_may_swap_leaves() -> None:
    def swap(c: dict[str, Tensor], _: None) -> tuple[dict[str, Tensor], Tensor]:
        return {"a": c["b"], "b": c["a"]}, c["a"] + 0

    wide = torch.arange(6.0).reshape(2, 3)
    for donate in (False, True):
        start = {"a": wide[:, 0], "b": wide[:, 2]}  # neither is contiguous
        end, seen = scan(jit(swap).donating(donate), start, length=3)
        assert end["a"].tolist() == [2.0, 5.0] and end["b"].tolist() == [0.0, 3.0]
        assert seen.tolist() == [[0.0, 3.0], [2.0, 5.0], [0.0, 3.0]]


def test_threads_read_one_tree_and_donate_it_once() -> None:
    program = jit(update, donate_argnums=0)
    learner, _ = program(make_learner(), X)
    seen: list[int] = []
    refused: list[str] = []
    start = threading.Barrier(8)

    def read() -> None:
        start.wait(timeout=30)
        seen.append(id(learner.actor.params))

    def donate() -> None:
        start.wait(timeout=30)
        try:
            program(learner, X)
        except RuntimeError as error:
            refused.append(str(error))

    for work in (read, donate):
        learner, _ = program(make_learner(), X)
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    assert len({*seen}) == 1
    assert len(refused) == 7 and all(text.startswith(DONATED) for text in refused)


def test_calls_do_not_accumulate_objects() -> None:
    program = jit(update, donate_argnums=0)
    learner, _ = program(make_learner(), X)
    kinds = (Tensor, DonatedTensor, Learner, struct.TrainState, lazy.LazyTree)

    def run(count: int) -> int:
        nonlocal learner
        for k in range(count):
            learner, _ = program(learner, X)
            if k % 50 == 0:
                learner.actor.params["layer"]["w"].sum()
            if k % 70 == 0:
                learner = learner.replace(rate=learner.rate)
        gc.collect()
        return sum(type(x) in kinds for x in gc.get_objects())

    before = run(71)
    assert run(2001) <= before + 5
