"""Results that are held: the same trees as any, whoever looks, changes, copies or donates them."""

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
    """Two networks, a number, a key, and a part that no update touches."""

    rng: Tensor
    actor: struct.TrainState
    still: dict[str, Tensor]
    rate: Any
    name: str = struct.field(pytree_node=False)


class WithDefault(struct.PyTreeNode):
    """The default is an attribute of the class: it would stand in for a field not yet there."""

    weights: Any
    scale: Any = 2.0


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The graphs as they are: what is tested here lies around them."""
    monkeypatch.setattr(transforms, "compiler_problem", lambda device: "No compiler.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "jit: No compiler", RuntimeWarning)
        yield


def make_learner(rate: Any = 0.5, name: str = "a") -> Learner:
    params = {"layer": {"w": torch.tensor([1.0, -2.0]), "b": torch.tensor(0.5)}}
    return Learner(
        rng=torch.zeros(2, dtype=torch.int64),
        actor=struct.TrainState.create(params=params, tx=optim.adam(0.1)),
        still={"t": torch.tensor([5.0])},
        rate=rate,
        name=name,
    )


def update(learner: Learner, x: Tensor) -> tuple[Learner, dict[str, Tensor]]:
    def loss(params: Any) -> Tensor:
        layer = params["layer"]
        return ((layer["w"] * x).sum() + layer["b"] - learner.still["t"].sum()) ** 2

    value, grads = transforms.value_and_grad(loss)(learner.actor.params)
    actor = learner.actor.apply_gradients(grads=grads)
    return learner.replace(actor=actor, rng=learner.rng + 1), {"loss": value * learner.rate}


def assert_same(ours: Any, theirs: Any) -> None:
    assert tree_flatten(ours)[1] == tree_flatten(theirs)[1]
    for a, b in zip(tree_leaves(ours), tree_leaves(theirs), strict=True):
        assert type(a) is type(b)
        torch.testing.assert_close(a, b)


def is_held(tree: Any) -> bool:
    return lazy.lazy_tree_of(tree) is not None


@pytest.mark.parametrize("donate", [False, True])
def test_a_loop_flattens_its_learner_once(donate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    program = jit(update).donating(donate)
    learner, expected = make_learner(), make_learner()
    learner, _ = program(learner, X)
    calls: list[Any] = []
    monkeypatch.setattr(struct, "_flatten", calls.append)
    monkeypatch.setattr(Learner, "_unflatten", calls.append)
    for k in range(4):
        assert is_held(learner)
        learner, info = program(learner, X * k)
    monkeypatch.undo()
    assert not calls and program.cache_size() == 1
    for k in (1, 0, 1, 2, 3):
        expected, expected_info = update(expected, X * k)
    torch.testing.assert_close(info["loss"], expected_info["loss"])
    assert_same(learner, expected)


@pytest.mark.parametrize("donate", [False, True])
def test_fields_read_between_the_calls_change_nothing(donate: bool) -> None:
    """A key, a step count, a nested node, a dict, all of it: what is read is what comes next."""
    looks = (
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
    for k in range(2 * len(looks)):
        learner, info = program(learner, X)
        expected, expected_info = update(expected, X)
        torch.testing.assert_close(info["loss"], expected_info["loss"])
        look = looks[k // 2]
        if k % 2:
            look(learner)
        else:
            learner.rng.add_(1)  # in place, in a tensor that was handed out
            expected = expected.replace(rng=expected.rng + 1)
    assert_same(learner, expected)
    assert program.cache_size() == 1


@pytest.mark.parametrize("donate", [False, True])
def test_nothing_stale_is_used_when_a_learner_is_changed(donate: bool) -> None:
    program = jit(update).donating(donate)
    learner, expected = make_learner(), make_learner()

    def both() -> None:
        nonlocal learner, expected
        learner, info = program(learner, X)
        expected, expected_info = update(expected, X)
        torch.testing.assert_close(info["loss"], expected_info["loss"])

    both()
    learner, expected = (
        x.replace(still={"t": torch.tensor([7.0])}, rate=0.25) for x in (learner, expected)
    )
    both()
    for x in (learner, expected):  # frozen is the node alone
        x.still["t"] = torch.tensor([9.0])
    both()
    for x in (learner, expected):
        x.actor.params["layer"]["w"] = torch.tensor([3.0, 3.0])
    both()
    assert program.cache_size() == 1
    for x in (learner, expected):
        x.still["t"] = torch.tensor([[9.0, 1.0]])  # another shape, so another program
    both()
    assert program.cache_size() == 2
    for x in (learner, expected):
        x.actor.opt_state[0].mu["layer"]["w"].resize_(1).fill_(0.5).resize_(2)
    both()
    assert_same(learner, expected)


def test_a_donated_learner_refuses_any_use_looked_at_or_not() -> None:
    program = jit(update, donate_argnums=0)
    first, _ = program(make_learner(), X)
    new, _ = program(first, X)
    assert first.name == "a" and first.rate == 0.5  # no tensors
    for look in (
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
            look()
    assert all(isinstance(x, DonatedTensor) for x in tree_leaves(first) if isinstance(x, Tensor))
    assert repr(first.rng) == "<donated tensor>"
    assert new.rng.tolist() == [2, 2]


def test_what_was_looked_at_before_is_refused_after() -> None:
    program = jit(update, donate_argnums=0)
    learner, _ = program(make_learner(), X)
    key, step, view = learner.rng, learner.actor.step, learner.rng.view(2, 1)
    unread = learner.actor
    place = key.data_ptr()
    assert is_held(learner)  # tensors of it are out, its structure is not
    learner, _ = program(learner, X)
    for gone in (key, step, unread.step, unread.params["layer"]["b"]):
        with pytest.raises(RuntimeError, match=DONATED):
            _ = gone + 1
    assert view.tolist() == [[2], [2]]  # a view sees what is written
    assert learner.rng.data_ptr() == place and learner.rng.tolist() == [2, 2]
    part = learner.actor
    jit(lambda state: state.replace(step=state.step + 1), donate_argnums=0)(part)
    with pytest.raises(RuntimeError, match=DONATED):  # a part was given away
        program(learner, X)


def test_a_leaf_that_others_got_is_refused_to_them() -> None:
    """One handed through by a call without donation is in two trees."""
    donating, plain = jit(update, donate_argnums=0), jit(update)
    first, _ = donating(make_learner(), X)
    second, _ = plain(first, X)  # has first's own still["t"]
    assert is_held(first) and is_held(second)
    donating(first, X)
    with pytest.raises(RuntimeError, match=DONATED):
        plain(second, X)
    alone, _ = donating(make_learner(), X)
    still = jit(lambda learner: learner.still)(alone)
    donating(alone, X)
    with pytest.raises(RuntimeError, match=DONATED):
        _ = still["t"] + 1


@pytest.mark.parametrize("donate", [False, True])
def test_one_learner_in_two_arguments(donate: bool) -> None:
    def mix(a: Learner, b: Learner) -> tuple[Learner, Tensor]:
        return a.replace(rng=a.rng + 10), b.rng + 1

    learner, _ = jit(update, donate_argnums=0)(make_learner(), X)
    new, key = jit(mix).donating(donate)(learner, learner)
    assert new.rng.tolist() == [11, 11] and key.tolist() == [2, 2]
    assert new.still["t"].tolist() == [5.0]


def test_numbers_follow_the_precision_of_the_call() -> None:
    program = jit(lambda learner: (learner, torch.ones((), dtype=torch.float64) * learner.rate))
    learner, low = program(make_learner(rate=0.1))
    learner, again = program(learner)
    with enable_x64():
        _, high = program(learner)
    assert learner.rate == 0.1 and type(learner.rate) is float
    assert low == again == float(np.float32(0.1)) and high == 0.1


@pytest.mark.parametrize("donate", [False, True])
def test_a_number_as_leaf_and_the_loss_never_share_memory(donate: bool) -> None:
    """A donated number or array has no memory to write the result of its shape to."""
    program = jit(lambda t: ({"n": 0.5, "a": t["a"]}, t["n"] * 2)).donating(donate)
    array = np.array(3.0, np.float32)
    for number in (0.25, array, 0.25):
        tree, doubled = program({"n": number, "a": torch.zeros(2)})
        assert doubled.item() == 2 * float(number) and tree["n"] == 0.5
    assert array == 3.0


def test_copies_and_pickles_are_whole() -> None:
    learner, _ = jit(update)(make_learner(), X)
    expected, _ = update(make_learner(), X)
    for make in (
        copy.copy,
        copy.deepcopy,
        lambda x: pickle.loads(pickle.dumps(x)),
        dataclasses.replace,
    ):
        held, _ = jit(update)(make_learner(), X)
        copied = make(held)
        assert {*vars(copied)} == {f.name for f in dataclasses.fields(Learner)}
        for a, b in zip(tree_leaves(copied), tree_leaves(expected), strict=True):
            torch.testing.assert_close(a, b)
    with pytest.raises(AttributeError, match="'Learner' object has no attribute 'critic'"):
        learner.critic  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(dataclasses.FrozenInstanceError):
        learner.rate = 2.0  # type: ignore[misc]
    assert learner.actor is learner.actor and learner.actor.params is learner.actor.params


def test_fields_with_a_default_are_there_at_once() -> None:
    node = jit(lambda n: n.replace(scale=n.scale * 2))(WithDefault(X, torch.tensor(3.0)))
    assert not is_held(node) and node.scale.item() == 6.0


def test_other_transforms_take_held_learners() -> None:
    learners = [make_learner(), make_learner().replace(rng=torch.ones(2, dtype=torch.int64))]
    expected = tree_stack([update(update(x, X)[0], X)[0] for x in learners])
    for donate in (False, True):
        mapped = jit(vmap(update, in_axes=(0, None))).donating(donate)
        stacked, _ = mapped(tree_map(torch.clone, tree_stack(learners)), X)
        assert is_held(stacked)
        stacked, _ = mapped(stacked, X)
        assert_same(stacked, expected)
    held, _ = mapped(tree_stack(learners), X)
    plain, _ = vmap(update, in_axes=(0, None))(held, X)
    assert_same(plain, expected)
    with disable_jit():
        held, _ = jit(update)(jit(update)(make_learner(), X)[0], X)
    held, _ = jit(update)(make_learner(), X)
    with disable_jit():
        held, _ = jit(update)(held, X)
    assert_same(held, update(update(make_learner(), X)[0], X)[0])


@pytest.mark.parametrize("donate", [False, True])
def test_scan_takes_and_gives_held_state(donate: bool) -> None:
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


def test_a_scan_may_exchange_its_leaves() -> None:
    def swap(c: dict[str, Tensor], _: None) -> tuple[dict[str, Tensor], Tensor]:
        return {"a": c["b"], "b": c["a"]}, c["a"] + 0

    wide = torch.arange(6.0).reshape(2, 3)
    for donate in (False, True):
        start = {"a": wide[:, 0], "b": wide[:, 2]}  # neither contiguous
        end, seen = scan(jit(swap).donating(donate), start, length=3)
        assert end["a"].tolist() == [2.0, 5.0] and end["b"].tolist() == [0.0, 3.0]
        assert seen.tolist() == [[0.0, 3.0], [2.0, 5.0], [0.0, 3.0]]


def test_threads_see_one_tree_and_give_it_away_once() -> None:
    program = jit(update, donate_argnums=0)
    learner, _ = program(make_learner(), X)
    seen: list[int] = []
    refused: list[str] = []
    start = threading.Barrier(8)

    def look() -> None:
        start.wait(timeout=30)
        seen.append(id(learner.actor.params))

    def donate() -> None:
        start.wait(timeout=30)
        try:
            program(learner, X)
        except RuntimeError as error:
            refused.append(str(error))

    for work in (look, donate):
        learner, _ = program(make_learner(), X)
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    assert len({*seen}) == 1
    assert len(refused) == 7 and all(text.startswith(DONATED) for text in refused)


def test_nothing_is_kept_from_call_to_call() -> None:
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
