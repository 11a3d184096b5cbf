"""``FrozenDict``: a dict, a pytree, and parameters of everything that takes parameters."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from idql_func import grad, interop, jit, networks, optim, random, tree_leaves, tree_map, vmap
from idql_func.agents import BCLearner
from idql_func.compiler.inductor import without_code_generation
from idql_func.struct import FrozenDict, TrainState, freeze, unfreeze
from idql_func.tree import tree_paths

KEY = random.PRNGKey(0)
NET = networks.MLP(3, [4, 2])
PARAMS = NET.init(KEY)
FROZEN: Any = freeze(PARAMS)
X = torch.ones(5, 3)

KEYS = st.text("abc", min_size=1, max_size=2)
NESTED = st.recursive(
    st.integers(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
).filter(lambda value: isinstance(value, dict))


# --- a mapping --------------------------------------------------------------------------------


@given(NESTED)
def test_freezing_and_thawing_gives_the_dict_again(nested: Any) -> None:
    frozen = freeze(nested)
    assert unfreeze(frozen) == nested == frozen.unfreeze() and frozen == nested
    assert freeze(frozen) == frozen and hash(freeze(frozen)) == hash(frozen)
    assert [*frozen] == [*nested] and len(frozen) == len(nested)
    assert dict(frozen.items()).keys() == nested.keys()
    assert tree_leaves(frozen) == tree_leaves(nested)
    assert tree_paths(frozen) == tree_paths(nested)
    for other in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert isinstance(other, FrozenDict) and other == frozen
    assert tree_map(lambda x: x + 1, frozen) == tree_map(lambda x: x + 1, nested)


def test_nothing_can_be_changed() -> None:
    source = {"a": {"b": 1}}
    frozen = freeze(source)
    source["a"]["b"] = 2
    thawed = frozen.unfreeze()
    thawed["a"]["b"] = 3
    assert frozen["a"]["b"] == 1 and isinstance(frozen["a"], FrozenDict)
    with pytest.raises(ValueError, match=r"can't be changed: write d.copy\(\{'b': value\}\)"):
        frozen["a"]["b"] = 4
    with pytest.raises(ValueError, match=r"can't be changed: write d.pop\('a'\)"):
        del frozen["a"]
    with pytest.raises(AttributeError):
        frozen.other = 1  # type: ignore[attr-defined]


def test_copy_and_pop_give_new_ones() -> None:
    frozen = freeze({"a": 1, "b": {"c": 2}})
    assert frozen.copy({"b": freeze({"d": 3}), "e": 4}) == {"a": 1, "b": {"d": 3}, "e": 4}
    rest, value = frozen.pop("b")
    assert rest == {"a": 1} and value == freeze({"c": 2})
    assert frozen == {"a": 1, "b": {"c": 2}}
    with pytest.raises(KeyError):
        frozen.pop("z")


def test_representation_is_that_of_flax() -> None:
    assert repr(freeze({"a": {"b": 1}, "c": "x"})) == (
        "FrozenDict({\n    a: {\n        b: 1,\n    },\n    c: 'x',\n})"
    )
    assert repr(freeze({})) == "FrozenDict({})"


def test_tensors_have_no_hash_and_no_single_truth_value() -> None:
    with pytest.raises(TypeError, match="the tensor 'kernel' can't be hashed"):
        hash(FROZEN["Dense_0"])
    with pytest.raises(ValueError, match="compare the leaves"):
        _ = freeze(PARAMS) == tree_map(torch.clone, FROZEN)
    assert freeze(PARAMS) == freeze(PARAMS)  # the same tensors


def test_what_is_no_mapping_is_refused() -> None:
    for function in (freeze, unfreeze):
        with pytest.raises(TypeError, match=f"{function.__name__}: give a nested dict, got a list"):
            function([1])  # type: ignore[arg-type]


# --- parameters ---------------------------------------------------------------------------------


def loss(params: Any, x: Tensor) -> Tensor:
    return NET.apply(params, x).square().sum()


def equal(a: Any, b: Any) -> None:
    tree_map(torch.testing.assert_close, unfreeze(a), unfreeze(b))


def test_networks_and_transforms_take_frozen_parameters() -> None:
    torch.testing.assert_close(NET.apply(FROZEN, X), NET.apply(PARAMS, X))
    torch.testing.assert_close(NET.apply({"params": FROZEN}, X), NET.apply(PARAMS, X))
    slopes = grad(loss)(FROZEN, X)
    assert isinstance(slopes, FrozenDict)
    equal(slopes, grad(loss)(PARAMS, X))
    members = vmap(grad(loss), (None, 0))(FROZEN, X[:, None])
    assert isinstance(members, FrozenDict)
    equal(tree_map(lambda leaf: leaf.sum(0), members), slopes)
    with without_code_generation():
        equal(jit(grad(loss))(FROZEN, X), slopes)
    compiled = torch.compile(grad_of_loss, backend="aot_eager")
    equal(compiled(FROZEN, X), slopes)


grad_of_loss = jit(grad(loss))


def test_optimisers_and_states_take_frozen_parameters() -> None:
    tx = optim.adam(0.1)
    slopes = grad(loss)(FROZEN, X)
    params, state = optim.step(tx, slopes, tx.init(FROZEN), FROZEN)
    expected, _ = optim.step(tx, unfreeze(slopes), tx.init(PARAMS), PARAMS)
    assert isinstance(params, FrozenDict) and isinstance(state[0].mu, FrozenDict)
    equal(params, expected)
    average = optim.incremental_update(params, FROZEN, 0.1)
    equal(average, optim.incremental_update(expected, PARAMS, 0.1))
    train = TrainState.create(params=FROZEN, tx=tx, apply_fn=NET.apply)
    equal(train.apply_gradients(grads=slopes).params, expected)


def test_learners_and_files_take_frozen_parameters() -> None:
    import gymnasium as gym

    box = gym.spaces.Box(-1, 1, (3,))
    learner = BCLearner.create(0, box, box, hidden_dims=(4,))
    frozen = learner.replace(actor=learner.actor.replace(params=freeze(learner.actor.params)))
    observations = torch.ones(2, 3)
    expected, _ = learner.eval_actions(observations)
    found, _ = frozen.eval_actions(observations)
    assert (found == expected).all()
    restored = interop.from_bytes(FROZEN, interop.to_bytes(PARAMS))
    assert isinstance(restored, FrozenDict)
    equal(restored, PARAMS)
    equal(interop.from_bytes(PARAMS, interop.to_bytes(FROZEN)), PARAMS)


def test_a_dict_and_a_frozen_one_are_other_structures() -> None:
    with pytest.raises(ValueError, match="the trees must have one structure"):
        tree_map(lambda a, b: a, FROZEN, PARAMS)
